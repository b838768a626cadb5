package environment

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/probe"
	"phasegate/harness/scenario"
)

// What is compared is kept to a processor; what serves it isn't.
func TestSystemsOnOneProcessor(t *testing.T) {
	t.Parallel()
	cpus := probe.CPUs()
	c := config(t, plan(optimizer(nil)))
	c.CPU = &cpus[len(cpus)-1]
	e := startWith(t, c)
	for pid, want := range map[int][]int{e.Systems()[scenario.New].PID: {*c.CPU}, e.Upstream().PID: cpus} {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &set); err != nil {
			t.Fatal(err)
		}
		if set.Count() != len(want) || !set.IsSet(want[0]) {
			t.Errorf("process %d may run on %d processors, want %v", pid, set.Count(), want)
		}
	}

	none := 1023
	c.CPU = &none
	if _, err := Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), "processor 1023") {
		t.Errorf("on a processor that there isn't: %v", err)
	}
	c.CPU, c.Contain = &none, true
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "processor 1023 for systems in containers") {
		t.Errorf("in a container: %v", err)
	}
}

// startPlan starts an environment that is stopped with the test.
func startPlan(t *testing.T, p *scenario.Plan) *Environment {
	t.Helper()
	return startWith(t, config(t, p))
}

func startWith(t *testing.T, c Config) *Environment {
	t.Helper()
	e, err := Start(t.Context(), c)
	if err != nil {
		var failed *Error
		if errors.As(err, &failed) {
			t.Fatal(failed.Detail())
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

func config(t *testing.T, p *scenario.Plan) Config {
	return Config{Plan: p, LogDir: filepath.Join(t.TempDir(), "logs"), Optimizer: executable(), Health: 20 * time.Second, Grace: 10 * time.Second}
}

func TestStartAndStop(t *testing.T) {
	t.Parallel()
	e := startPlan(t, plan(
		scenario.System{Name: scenario.Old, Kind: scenario.KindDirect, Share: 0.95},
		optimizer(map[string]any{"cache": map[string]any{"max_memory_mb": 100}}),
	))
	old, system := e.Systems()[scenario.Old], e.Systems()[scenario.New]
	if old == nil || system == nil || len(e.Systems()) != 2 {
		t.Fatalf("systems %v", e.Systems())
	}

	// The health check went through the system, to its own arm of the upstream.
	for name, want := range map[string]uint64{scenario.Old: 0, scenario.New: 1} {
		ledger, err := e.Control().Ledger(t.Context(), name, false)
		if err != nil {
			t.Fatal(err)
		}
		if ledger.Probes != want {
			t.Errorf("%s: %d probes; want %d", name, ledger.Probes, want)
		}
	}

	if old.PID != 0 || old.Died() != nil || old.Exit() != "" || old.LogTail(5) != nil || old.URL.String() != e.ready.Arms[scenario.Old].URL {
		t.Errorf("direct is %+v; want the upstream's arm and no process", old)
	}
	if system.Admin.String() != "http://127.0.0.1:1" || system.Metrics.String() != "http://127.0.0.1:1/metrics" || system.URL.Scheme != "http" {
		t.Errorf("load to %v, admin at %v, metrics at %v", system.URL, system.Admin, system.Metrics)
	}
	if got := descendants(system.Supervisor); !slices.Equal(got, []int{system.PID}) {
		t.Errorf("under supervisor %d run %v; want the system's process %d", system.Supervisor, got, system.PID)
	}
	if want := []string{executable(), "--upstream", e.ready.Arms[scenario.New].URL, "--listen", "127.0.0.1:0", "--config", filepath.Join(e.spawner.temp, "new.yaml")}; !slices.Equal(system.Command, want) {
		t.Errorf("command %q; want %q", system.Command, want)
	}
	if tail := strings.Join(system.LogTail(50), "\n"); !strings.Contains(tail, "max_memory_mb: 100") || !strings.Contains(tail, "optimizer listening on") {
		t.Errorf("log tail %q; want both outputs, the first line included", tail)
	}
	if info, err := os.Stat(e.spawner.temp); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("private folder: %v, %v", info, err)
	}

	pids := []int{system.PID, system.Supervisor, e.Upstream().PID, e.Upstream().Supervisor}
	if living := alive(pids); len(living) != 4 {
		t.Fatalf("of processes %v only %v live", pids, living)
	}
	for range 2 { // the second one is told the same
		if err := e.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if living := alive(pids); len(living) != 0 {
		t.Errorf("processes %v are left", living)
	}
	if _, err := os.Stat(e.spawner.temp); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the private folder is left: %v", err)
	}
	if <-system.Died(); system.Exit() != "" {
		t.Errorf("exit %q of a system that was stopped; want none", system.Exit())
	}
	text, err := os.ReadFile(system.LogFile)
	if err != nil || !strings.Contains(string(text), "optimizer listening on") {
		t.Errorf("log file %q, %v", text, err)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	c := command(executable(), "proxy", "{listen}", "{upstream}", "tls={upstream_tls}", "{ca}", "{other}", "{admin}")
	c.Metrics = "http://{admin}/metrics"
	e := startPlan(t, plan(c))
	system := e.Systems()[scenario.New]
	arm := e.ready.Arms[scenario.New]
	if system.Metrics == nil || system.Metrics.Host == system.URL.Host || system.Metrics.Path != "/metrics" {
		t.Fatalf("metrics at %v, load at %v", system.Metrics, system.URL)
	}
	if want := []string{executable(), "proxy", system.URL.Host, arm.URL, "tls=" + arm.TLSURL, filepath.Join(e.spawner.temp, "ca.pem"), "{other}", system.Metrics.Host}; !slices.Equal(system.Command, want) {
		t.Errorf("command %q; want %q", system.Command, want)
	}
	ledger, err := e.Control().Ledger(t.Context(), scenario.New, false)
	if err != nil || ledger.Probes == 0 {
		t.Errorf("%d probes through it, %v", ledger.Probes, err)
	}
}

// A load that comes over h2, alone or among others, finds the optimizer at a TLS
// port, with a certificate that it trusts; any other at a clear-text one.
func TestOptimizerSpeaksTLSToClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why       string
		protocols []scenario.ProtocolShare
		config    map[string]any
		scheme    string
	}{
		{"nothing said", nil, nil, "http"},
		{"h2", []scenario.ProtocolShare{{Protocol: scenario.H2, Share: 1}}, nil, "https"},
		{"a mix, and a section of the scenario's own", []scenario.ProtocolShare{{Protocol: scenario.HTTP1, Share: 0.5}, {Protocol: scenario.H2, Share: 0.5}},
			map[string]any{"tls": map[string]any{"min_version": "1.3"}}, "https"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			p := plan(optimizer(tt.config))
			p.Load.Protocols = tt.protocols
			e := startPlan(t, p)
			system := e.Systems()[scenario.New]
			if system.URL.Scheme != tt.scheme {
				t.Fatalf("load goes to %v, want %s", system.URL, tt.scheme)
			}
			roots, err := e.Authorities()
			if err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Get(system.URL.String())
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if h2 := resp.ProtoMajor == 2; h2 != (tt.scheme == "https") {
				t.Errorf("answered over %s", resp.Proto)
			}
			if section, _ := tt.config["tls"].(map[string]any); section != nil && len(section) != 1 {
				t.Errorf("the plan was changed: %v", section)
			}
		})
	}
}

func TestOptimizerOverTLS(t *testing.T) {
	t.Parallel()
	given := map[string]any{"upstream": map[string]any{"protocol": "auto"}}
	s := optimizer(given)
	s.UpstreamTLS = true
	e := startPlan(t, plan(s))
	system := e.Systems()[scenario.New]
	if system.Command[2] != e.ready.Arms[scenario.New].TLSURL {
		t.Errorf("command %q; want the TLS listener %s", system.Command, e.ready.Arms[scenario.New].TLSURL)
	}
	if tail := strings.Join(system.LogTail(50), "\n"); !strings.Contains(tail, "ca_file: "+filepath.Join(e.spawner.temp, "ca.pem")) {
		t.Errorf("log tail %q; want the CA in the configuration", tail)
	}
	if len(given["upstream"].(map[string]any)) != 1 {
		t.Errorf("the plan was changed: %v", given)
	}
	for _, tt := range []struct {
		why    string
		config map[string]any
		want   string
	}{
		{"none of the upstream", map[string]any{"cache": 1}, "ours"},
		{"the scenario's own authority stays", map[string]any{"upstream": map[string]any{"ca_file": "mine"}}, "mine"},
	} {
		fillIn(tt.config, "upstream", "ca_file", "ours")
		if got := tt.config["upstream"].(map[string]any)["ca_file"]; got != tt.want {
			t.Errorf("%s: ca_file %v; want %s", tt.why, got, tt.want)
		}
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	// An answer of any kind: how a server treats an unknown path is its affair.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	e := startPlan(t, &scenario.Plan{Systems: []scenario.System{{Name: scenario.New, Kind: scenario.KindURL, Share: 1, URL: u}}})
	system := e.Systems()[scenario.New]
	if system.URL.String() != server.URL || system.PID != 0 || system.Supervisor != 0 || system.Died() != nil {
		t.Errorf("%+v; want the URL and no process", system)
	}
	if e.Control() != nil || e.Upstream() != nil {
		t.Error("an upstream that the plan doesn't have")
	}
}

// taken is an address that somebody listens on but doesn't answer at.
func taken(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestFailures(t *testing.T) {
	t.Parallel()
	free, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	busy := taken(t)
	fixed := plan(scenario.System{Name: scenario.New, Kind: scenario.KindDirect, Share: 1})
	fixed.Upstream.Listen = busy
	lonely := plan(command("sh", "{listen}", "{upstream}"))
	lonely.Upstream = nil
	silent := plan(command("sh", "-c", "echo busy; sleep 1000", "{listen}"))
	silent.Upstream = nil
	nobody := plan(scenario.System{Name: scenario.New, Kind: scenario.KindURL, URL: &url.URL{Scheme: "http", Host: free}})
	nobody.Upstream = nil
	lonelyDirect := plan(scenario.System{Name: scenario.Old, Kind: scenario.KindDirect})
	lonelyDirect.Upstream = nil

	for _, tt := range []struct {
		why    string
		plan   *scenario.Plan
		change func(*Config)
		want   []string // in the details, in this order
	}{
		{"a missing program", plan(command("no-such-program", "{listen}")), nil,
			[]string{"new: start it:", "no-such-program", "not found in $PATH", "Install no-such-program", "PATH is "}},
		{"a missing file", plan(command("/no/such/program", "{listen}")), nil,
			[]string{"new: start it:", "no such file", "names an executable"}},
		{"a file that is no program", plan(command("/etc/passwd", "{listen}")), nil,
			[]string{"new: start it:", "permission denied", "names an executable"}},
		{"nothing tells it where to listen", plan(command("sleep", "1000")), nil,
			[]string{"no {listen}"}},
		{"no upstream to point it to", lonely, nil,
			[]string{"names the upstream, but the scenario has no upstream"}},
		{"no upstream to be", lonelyDirect, nil,
			[]string{"old: send load straight to the upstream: the scenario has no upstream"}},
		{"ends at once", plan(command("sh", "-c", "echo bad flag >&2; exit 3", "{listen}")), nil,
			[]string{"new: wait until it answers: it ended by itself: exit status 3 after ", "new.log:", "| bad flag"}},
		{"its port is taken", plan(command("sh", "-c", "echo 'bind() failed (98: Address already in use)'; exit 1", "{listen}")), nil,
			[]string{"exit status 1", "| bind() failed", "Another process took the port", "Run again"}},
		{"never listens", silent, func(c *Config) { c.Health = time.Second },
			[]string{"new: wait until it answers: no healthy answer to GET http://127.0.0.1:", wire.ProbePath + " within 1s; the last probe:", "refused", "| busy", "must listen on 127.0.0.1:", "stay in the foreground"}},
		{"can't reach its upstream", plan(optimizer(map[string]any{"mode": "503"})), func(c *Config) { c.Health = 2 * time.Second },
			[]string{"within 2s; the last probe: 503 Service Unavailable", "its upstream is http://127.0.0.1:"}},
		{"accepts and says nothing", plan(optimizer(map[string]any{"mode": "hang"})), func(c *Config) { c.Health = 2 * time.Second },
			[]string{"within 2s; the last probe: context deadline exceeded"}},
		{"prints something else", plan(optimizer(map[string]any{"mode": "garbage"})), nil,
			[]string{"wait until it listens: its first line of output was", "expected is", "\uFFFD[31mnginx: configuration ok", "is the optimizer"}},
		{"prints nothing", plan(optimizer(map[string]any{"mode": "silent"})), func(c *Config) { c.Health = 2 * time.Second },
			[]string{"no line on its standard output within 2s", "| upstream http://"}},
		{"doesn't like its configuration", plan(optimizer(map[string]any{"mode": "die"})), nil,
			[]string{"it ended by itself: exit status 1", "| cannot start: bad configuration", "mode: die"}},
		{"no optimizer", plan(optimizer(nil)), func(c *Config) { c.Optimizer = "" },
			[]string{"binary was not found", "--optimizer PATH"}},
		{"a kind of another version", plan(scenario.System{Name: scenario.New, Kind: "toaster"}), nil,
			[]string{`kind "toaster"; allowed are`}},
		{"a container, and none are made", plan(scenario.System{Name: scenario.New, Kind: scenario.KindContainer}), nil,
			[]string{"set up the environment: a system of kind container, and no containers"}},
		{"containers without what goes into them", plan(command("x", "{listen}")), func(c *Config) { c.Contain = true },
			[]string{"set up the environment: containers without a name for the run and a static binary"}},
		{"nobody at the URL", nobody, func(c *Config) { c.Health = 100 * time.Millisecond },
			[]string{"new: reach it: no healthy answer to GET http://" + free, "within 100ms", "refused", "Start the server at http://" + free}},
		{"no URL", plan(scenario.System{Name: scenario.New, Kind: scenario.KindURL}), nil,
			[]string{"reach it: no URL"}},
		{"the fixed port is taken", fixed, nil,
			[]string{"upstream: listen on " + busy, "address already in use", "--set upstream.listen="}},
		{"an upstream that says something else", plan(), func(c *Config) {
			c.Self = []string{executable(), "broken"}
			c.Plan = fixedTo(c.Plan, "")
		},
			[]string{"upstream: wait until it listens:", `"hello, I am no upstream"`, "upstream.log:", "| hello"}},
		{"this program isn't what it should be", plan(optimizer(nil)), func(c *Config) { c.Self = []string{"false"} },
			[]string{"upstream: start it: its supervisor ended without a word"}},
		{"this program isn't there", plan(optimizer(nil)), func(c *Config) { c.Self = []string{"/no/such/program"} },
			[]string{"upstream: start it:", "no such file"}},
		{"logs can't be written", plan(optimizer(nil)), func(c *Config) { c.LogDir = "/dev/null/logs" },
			[]string{"make the folder for logs:", "/dev/null", "can be written"}},
		{"nothing is set", nil, func(c *Config) { *c = Config{Health: -1} },
			[]string{"no plan", "no folder for logs", "negative"}},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			c := config(t, tt.plan)
			if tt.change != nil {
				tt.change(&c)
			}
			e, err := Start(t.Context(), c)
			if err == nil {
				e.Stop(t.Context())
				t.Fatal("it started")
			}
			var failed *Error
			if !errors.As(err, &failed) {
				t.Fatalf("%T %v; want an *Error", err, err)
			}
			if strings.Contains(err.Error(), "\n") && tt.plan != nil {
				t.Errorf("%q; want one line", err)
			}
			rest := failed.Detail()
			for _, want := range tt.want {
				i := strings.Index(rest, want)
				if i < 0 {
					t.Fatalf("%s\nwant %q in it, after the ones before", failed.Detail(), want)
				}
				rest = rest[i+len(want):]
			}
		})
	}
}

// fixedTo is the plan with one direct system, which needs nothing but an upstream.
func fixedTo(p *scenario.Plan, listen string) *scenario.Plan {
	p.Systems = []scenario.System{{Name: scenario.New, Kind: scenario.KindDirect}}
	p.Upstream.Listen = listen
	return p
}

func TestFixedAddress(t *testing.T) {
	t.Parallel()
	free, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	// On an address of its own, where no other test's connection ends.
	free = strings.Replace(free, "127.0.0.1:", "127.0.77.1:", 1)
	e := startPlan(t, fixedTo(plan(), free))
	if got := e.Systems()[scenario.New].URL.Host; got != free {
		t.Errorf("the new system's upstream is at %s; want %s", got, free)
	}
}

// An answer below 500 is one of a system that works.
func TestHealthy404(t *testing.T) {
	t.Parallel()
	startPlan(t, plan(optimizer(map[string]any{"mode": "404"})))
}

func TestDiesMidRun(t *testing.T) {
	t.Parallel()
	e := startPlan(t, plan(optimizer(map[string]any{"mode": "later"})))
	system := e.Systems()[scenario.New]
	if system.Exit() != "" {
		t.Errorf("exit %q while it runs", system.Exit())
	}
	if _, err := http.Get(system.URL.String()); err == nil {
		t.Error("it answered; it should have died")
	}
	select {
	case <-system.Died():
	case <-time.After(20 * time.Second):
		t.Fatal("its death wasn't noticed")
	}
	if exit := system.Exit(); !strings.HasPrefix(exit, "exit status 7 after ") || !strings.HasSuffix(exit, " s") {
		t.Errorf("exit %q; want the status and when", exit)
	}
	eventually(t, "its last words are in the log", func() bool {
		return slices.Equal(system.LogTail(1), []string{"out of ideas"})
	})
	if e.Upstream().Exit() != "" {
		t.Errorf("the upstream ended: %s", e.Upstream().Exit())
	}
	if err := e.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if exit := system.Exit(); !strings.HasPrefix(exit, "exit status 7") {
		t.Errorf("exit %q after Stop; want it kept", exit)
	}
}

// A system that must be killed is stopped all the same: in the grace time if
// there is one, at once if Stop's context has ended.
func TestStopDeaf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		grace  time.Duration
		cancel bool
		log    bool
	}{
		{"after the grace time", 50 * time.Millisecond, false, true},
		{"at once: the test would time out otherwise", time.Hour, true, false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			c := config(t, plan(command("sh", "-c", `trap '' TERM; "$0" proxy {listen} {upstream} & setsid sleep 1000 & wait`, executable())))
			c.Grace = tt.grace
			e, err := Start(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			system := e.Systems()[scenario.New]
			pids := descendants(system.Supervisor)
			ctx, cancel := context.WithCancel(t.Context())
			if tt.cancel {
				cancel()
			}
			defer cancel()
			if err := e.Stop(ctx); err != nil {
				t.Error(err)
			}
			if left := alive(pids); len(left) > 0 {
				t.Errorf("of processes %v are left %v", pids, left)
			}
			if said := strings.Contains(strings.Join(system.LogTail(5), "\n"), "still there 50ms after SIGTERM: killed"); said != tt.log {
				t.Errorf("log %q", system.LogTail(5))
			}
		})
	}
}

// Interrupted while a system comes up: what was started is stopped, and the
// error is the context's, not the environment's.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"silent", "hang"} {
		ctx, cancel := context.WithCancel(t.Context())
		c := config(t, plan(optimizer(map[string]any{"mode": mode})))
		go func() {
			// Not before there is something to stop.
			for {
				if text, _ := os.ReadFile(filepath.Join(c.LogDir, "new.log")); len(text) > 0 {
					cancel()
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
		_, err := Start(ctx, c)
		var failed *Error
		if !errors.Is(err, context.Canceled) || errors.As(err, &failed) {
			t.Errorf("%s: %v; want the context's error", mode, err)
		}
	}
}

func ExampleStart() {
	logs, _ := os.MkdirTemp("", "logs")
	defer os.RemoveAll(logs)
	self, _ := os.Executable()

	e, err := Start(context.Background(), Config{
		Plan: &scenario.Plan{
			Upstream: &scenario.Upstream{BodyMax: 1024},
			Systems: []scenario.System{
				{Name: scenario.Old, Kind: scenario.KindDirect, Share: 0.95},
				{Name: scenario.New, Kind: scenario.KindCommand, Share: 0.05, Command: []string{self, "proxy", "{listen}", "{upstream}"}},
			},
		},
		LogDir: logs,
		Self:   []string{self},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for name, system := range e.Systems() {
		fmt.Println(name, system.Kind, system.PID != 0)
	}
	fmt.Println(e.Stop(context.Background()))
	// Unordered output:
	// old direct false
	// new command true
	// <nil>
}
