package environment

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
)

// The test binary, started again, is every program that this package starts:
//
//	supervise …                  a supervisor
//	upstream --config FILE       a mock upstream in small
//	--upstream URL …             an optimizer in small; its configuration's key "mode" spoils it,
//	                             "tls" has it speak that
//	broken supervise|upstream …  the same, but the upstream is spoilt
//	proxy LISTEN UPSTREAM        a system under test
//	harness SCRIPT DIR           a harness whose system runs a shell script, or is of a "kind KIND"
//
// It adopts orphans, so whatever escapes is found at the end.
func TestMain(m *testing.M) {
	args := os.Args[1:]
	broken := len(args) > 0 && args[0] == "broken"
	if broken {
		args = args[1:]
	}
	if len(args) > 0 {
		switch args[0] {
		case superviseArg:
			os.Exit(Supervise(args[1:]))
		case upstreamName:
			if broken {
				fmt.Println("hello, I am no upstream")
				time.Sleep(time.Minute)
			}
			check(serveUpstream(args[2]))
		case "--upstream":
			check(serveOptimizer(args[1], args[5]))
		case "proxy":
			l, err := net.Listen("tcp", args[1])
			check(err)
			check(http.Serve(l, proxyTo(args[2])))
		case "harness":
			check(beHarness(args[1], args[2]))
		}
		if !strings.HasPrefix(args[0], "-test.") {
			return
		}
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	// Under -race a process would wait for a second before it ends.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	temp, err := os.MkdirTemp("", "environment-test")
	check(err)
	defer os.RemoveAll(temp)
	os.Setenv("TMPDIR", temp)
	check(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))

	// Most of a test is waiting for processes; -parallel still overrides it.
	flag.Set("test.parallel", "8")
	code := m.Run()
	if left := descendants(os.Getpid()); len(left) > 0 {
		fmt.Println("left running:", left)
		for _, pid := range left {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			fmt.Printf("  %q\n", text)
			syscall.Kill(pid, syscall.SIGKILL)
		}
		code = 1
	}
	if left, _ := filepath.Glob(filepath.Join(temp, tempPrefix+"*")); len(left) > 0 {
		fmt.Println("left in the folder for temporary files:", left)
		code = 1
	}
	if err := goleak.Find(); err != nil {
		fmt.Println(err)
		code = 1
	}
	return code
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func executable() string {
	self, err := os.Executable()
	check(err)
	return self
}

// serveUpstream has what this package needs of a mock upstream: listeners, a
// control socket, a count of the probes, a graceful end.
func serveUpstream(file string) error {
	var config wire.Config
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "configured")
	ready := wire.Ready{Control: config.Control, Arms: make(map[string]wire.ArmAddress), CAFile: config.CAFile}
	ledgers := make(map[string]chan wire.Ledger)
	for _, arm := range config.Arms {
		ledger := make(chan wire.Ledger, 1)
		ledger <- wire.Ledger{}
		ledgers[arm.Name] = ledger
		answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			l := <-ledger
			l.Probes++
			ledger <- l
		})
		plain, err := net.Listen("tcp", arm.Listen)
		if err != nil {
			return err
		}
		go http.Serve(plain, answer)
		tls := httptest.NewTLSServer(answer)
		ready.Arms[arm.Name] = wire.ArmAddress{URL: "http://" + plain.Addr().String(), TLSURL: tls.URL}
	}
	if err := os.WriteFile(config.CAFile, []byte("PEM"), 0o600); err != nil {
		return err
	}
	control, err := net.Listen("unix", strings.TrimPrefix(config.Control, "unix:"))
	if err != nil {
		return err
	}
	line, err := json.Marshal(ready)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	http.HandleFunc(wire.LedgerPath, func(w http.ResponseWriter, r *http.Request) {
		ledger := ledgers[r.FormValue("arm")]
		l := <-ledger
		ledger <- l
		json.NewEncoder(w).Encode(l)
	})
	return http.Serve(control, nil)
}

func proxyTo(upstream string) http.Handler {
	u, err := url.Parse(upstream)
	check(err)
	return httputil.NewSingleHostReverseProxy(u)
}

// serveOptimizer is the optimizer's command line in small.
func serveOptimizer(upstream, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "upstream %s, configuration %q\n", upstream, text)
	var config struct {
		Mode string `yaml:"mode"`
		TLS  struct {
			CertFile string `yaml:"cert_file"`
			KeyFile  string `yaml:"key_file"`
		} `yaml:"tls"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	line := fmt.Sprintf("optimizer listening on http://%s admin http://127.0.0.1:1", l.Addr())
	handler := http.Handler(http.NotFoundHandler()) // by TLS: this one can't
	if strings.HasPrefix(upstream, "http:") {
		handler = proxyTo(upstream)
	}
	switch config.Mode {
	case "garbage":
		line = "\x1b[31mnginx: configuration ok"
	case "silent":
		line = ""
	case "die":
		return fmt.Errorf("cannot start: bad configuration")
	case "503":
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	case "404":
		handler = http.NotFoundHandler()
	case "hang":
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	case "later":
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != wire.ProbePath {
				fmt.Println("out of ideas")
				os.Exit(7)
			}
		})
	}
	if config.TLS.CertFile != "" {
		line = strings.Replace(line, "http:", "https:", 1)
	}
	if line != "" {
		fmt.Println(line)
	}
	if config.TLS.CertFile != "" {
		return http.ServeTLS(l, handler, config.TLS.CertFile, config.TLS.KeyFile)
	}
	return http.Serve(l, handler)
}

// beHarness starts a system that is a shell script beside a server, tells its
// processes and stays; it ends in good order when its standard input does.
func beHarness(script, dir string) error {
	signal.Ignore(os.Interrupt)
	system := command("sh", "-c", `"$0" proxy {listen} {upstream} & `+script, executable())
	if kind, ok := strings.CutPrefix(script, "kind "); ok {
		system = fromPackage(scenario.Kind(kind))
	}
	e, err := Start(context.Background(), Config{
		Plan:   plan(system),
		LogDir: dir,
		Grace:  100 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	told := toldBy{URL: e.Systems()[scenario.New].URL.String(), Supervisor: e.Systems()[scenario.New].Supervisor, Temp: e.spawner.temp}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		return err
	}
	io.Copy(io.Discard, os.Stdin)
	return e.Stop(context.Background())
}

type toldBy struct {
	URL        string
	Supervisor int
	Temp       string
}

// plan is a plan with an upstream for the given systems.
func plan(systems ...scenario.System) *scenario.Plan {
	return &scenario.Plan{Name: "test", Seed: 1, Upstream: &scenario.Upstream{}, Systems: systems}
}

func command(args ...string) scenario.System {
	return scenario.System{Name: scenario.New, Kind: scenario.KindCommand, Share: 1, Command: args}
}

func fromPackage(kind scenario.Kind) scenario.System {
	return scenario.System{Name: scenario.New, Kind: kind, Share: 1, Cache: scenario.Cache{MaxMemory: 100e6, DefaultTTL: time.Minute}}
}

func optimizer(config map[string]any) scenario.System {
	return scenario.System{Name: scenario.New, Kind: scenario.KindOptimizer, Share: 1, Config: config}
}
