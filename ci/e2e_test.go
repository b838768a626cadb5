package ci

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	// The programs under test are built by TestMain, out of sight of the test
	// cache: these make a change to them a change to the test.
	_ "phasegate/harness/cli"
	_ "phasegate/optimizer"
	"phasegate/reports/result"
)

// bin is where TestMain built the two programs.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of a run is waiting for its next request.
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0)))
	}
	dir, err := os.MkdirTemp("", "phasegate-ci-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bin = dir
	// The optimizer never gets the race detector: it would be judged with the
	// detector's memory.
	code := 1
	err = build("./optimizer/cmd/optimizer")
	if err == nil {
		err = build(append(raceFlags, "./harness/cmd/phasegate")...)
	}
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func build(args ...string) error {
	build := exec.Command("go", append([]string{"build", "-o", bin}, args...)...)
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %v: %w\n%s", args, err, out)
	}
	return nil
}

// marker is the environment variable by which a test finds every process that
// a run of its own started, whoever its parent is by now.
const marker = "PHASEGATE_TEST_RUN"

// invocation is one run of the phasegate program.
type invocation struct {
	*exec.Cmd
	t              *testing.T
	id, out, tmp   string // tmp holds its temporary files
	stdout, stderr output
}

// output is what a process has printed so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// phasegate prepares `phasegate ARGS…`; for the commands that run something, with an output
// folder of the test's own.
func phasegate(t *testing.T, args ...string) *invocation {
	t.Helper()
	p := &invocation{t: t, id: fmt.Sprintf("%s-%d", t.Name(), time.Now().UnixNano()), out: filepath.Join(t.TempDir(), "out")}
	if args[0] == "run" || args[0] == "compare" {
		args = append(args, "--out", p.out)
	}
	p.Cmd = exec.Command(filepath.Join(bin, "phasegate"), args...)
	p.tmp = t.TempDir()
	p.Env = append(os.Environ(), marker+"="+p.id, "TMPDIR="+p.tmp)
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	return p
}

// wait ends the invocation, checks its exit code and that nothing of it is
// left running.
func (p *invocation) wait(code int) {
	p.t.Helper()
	err := p.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	if got := p.ProcessState.ExitCode(); got != code {
		p.t.Errorf("%v: exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", p.Args, got, code, &p.stdout, &p.stderr)
	}
	p.noneLeft()
}

func (p *invocation) run(code int) {
	p.t.Helper()
	if err := p.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.wait(code)
}

// processes lists the living processes of the invocation.
func (p *invocation) processes() []string {
	var found []string
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		env, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(env, []byte(marker+"="+p.id+"\x00")) {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		found = append(found, strings.ReplaceAll(string(cmdline), "\x00", " "))
	}
	return found
}

// noneLeft fails if a process or temporary file of the invocation outlives it
// by ten seconds.
func (p *invocation) noneLeft() {
	p.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := p.processes()
		files, _ := filepath.Glob(filepath.Join(p.tmp, "*"))
		if left = append(left, files...); len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("left running: %q", left)
		}
	}
}

// until waits for a condition, for at most 30 seconds.
func (p *invocation) until(what string, holds func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited 30 s for %s\nstderr:\n%s", what, &p.stderr)
		}
	}
}

// result reads the result file of a finished run.
func (p *invocation) result() *result.Result {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.out, "result.json"))
	if err != nil {
		p.t.Fatalf("%v\nstderr:\n%s", err, &p.stderr)
	}
	var r result.Result
	if err := json.Unmarshal(data, &r); err != nil {
		p.t.Fatal(err)
	}
	return &r
}

// gate returns the judged gate on a metric.
func (p *invocation) gate(metric string) result.Gate {
	p.t.Helper()
	for _, g := range p.result().Gates {
		if g.Metric == metric {
			return g
		}
	}
	p.t.Fatalf("no gate on %s in the result", metric)
	return result.Gate{}
}

// want checks the verdict of the gate on a metric, and that its reason says so.
func (p *invocation) want(metric string, verdict result.Verdict, reason string) {
	p.t.Helper()
	g := p.gate(metric)
	if g.Verdict != verdict || !strings.Contains(g.Reason, reason) {
		p.t.Errorf("%s: %s (%s), want %s with %q", g.Gate, g.Verdict, g.Reason, verdict, reason)
	}
}

const tiny = "testdata/tiny.yaml"

func TestRunPasses(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny)
	p.run(0)
	r := p.result()
	if r.Verdict != result.Pass || !r.Complete {
		t.Errorf("verdict %s, complete %t", r.Verdict, r.Complete)
	}
	for _, name := range []string{
		"report.html", "junit.xml", "summary.md", "timeline.csv", "latency-old.hgrm", "latency-new.hgrm",
		"latency.png", "logs/upstream.log", "logs/new.log",
	} {
		if info, err := os.Stat(filepath.Join(p.out, name)); err != nil || info.IsDir() {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, metric := range []string{"hit_latency_improvement", "throughput_improvement", "latency_improvement", "claimed_hit_ratio"} {
		if r.Systems["new"].Metrics[metric] == nil {
			t.Errorf("%s has no value", metric)
		}
	}
	if !strings.Contains(p.stdout.String(), "report.html") {
		t.Errorf("the report isn't named:\n%s", &p.stdout)
	}
	again := phasegate(t, "report", filepath.Join(p.out, "result.json"))
	again.run(0)
	// Made again, the result file is the same, to the byte.
	phasegate(t, "verify", p.out).run(0)
	verifyDoctored(t, p.out)
}

// verifyDoctored changes a run in its folder, and verify must tell.
func verifyDoctored(t *testing.T, out string) {
	t.Helper()
	path := filepath.Join(out, "result.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doctored := bytes.Replace(good, []byte(`"verdict": "pass"`), []byte(`"verdict": "fail"`), 1)
	if err := os.WriteFile(path, doctored, 0o644); err != nil {
		t.Fatal(err)
	}
	v := phasegate(t, "verify", out)
	v.run(1)
	for _, want := range []string{"result.json was changed after the run", `verdict: recorded "fail", recomputed "pass"`} {
		if !strings.Contains(v.stdout.String(), want) {
			t.Errorf("verify lacks %q:\n%s", want, &v.stdout)
		}
	}
	// New sums, as anybody can make them, don't help.
	sums := exec.Command("sh", "-c", "cut -c67- SHA256SUMS | xargs sha256sum > new && mv new SHA256SUMS && sha256sum -c --quiet SHA256SUMS")
	sums.Dir = filepath.Join(out, "evidence")
	if text, err := sums.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	v = phasegate(t, "verify", out)
	v.run(1)
	if text := v.stdout.String(); strings.Contains(text, "was changed") || !strings.Contains(text, `recomputed "pass"`) {
		t.Errorf("with new sums:\n%s", text)
	}
	if err := os.WriteFile(path, good, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Without a cache every request waits for the upstream.
func TestDirectFails(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny, "--system", "direct")
	p.run(1)
	p.want("cache_hit_ratio", result.Fail, "")
	p.want("p50_latency", result.Fail, "waited for the upstream")
	// What the upstream sees at the window's end was sent a moment earlier: on a
	// busy machine some 50 ms of these 4 s.
	if g := p.gate("cache_hit_ratio"); g.Value == nil || *g.Value > 0.05 {
		t.Errorf("hit ratio of no cache at all: %s", g.Reason)
	}
}

// A foreign server's requests never reach our ledger: that must not look like
// a hit ratio of 100 %.
func TestForeignURLOffersNoLedger(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }))
	t.Cleanup(server.Close)
	p := phasegate(t, "run", tiny, "--system", server.URL)
	p.run(3)
	p.want("cache_hit_ratio", result.Inconclusive, "self-description")
	p.want("memory", result.Inconclusive, "not ours to sample")
	if g := p.gate("cache_hit_ratio"); g.Value != nil {
		t.Errorf("a hit ratio of %v from an empty ledger", *g.Value)
	}
	if v := p.result().Systems["new"].Metrics["hit_latency_improvement"]; v != nil {
		t.Errorf("answers that may be anything are timed as hits: %v", *v)
	}
}

// A server that stands before another run's upstream answers with proof, but
// with none of ours: its empty ledger here is no hit ratio either.
func TestAnotherRunsUpstreamOffersNoLedger(t *testing.T) {
	t.Parallel()
	other := exec.Command(filepath.Join(bin, "phasegate"), "upstream", "--config", "-")
	other.Stdin = strings.NewReader(`{"run":"another","arms":[{"name":"new"}],"latency":{"fixed":20000000},"body":{"min":10,"max":10},"cache_control":"no-store"}`)
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	var ready struct {
		Arms map[string]struct{ URL string }
	}
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil {
		t.Fatal(err)
	}
	p := phasegate(t, "run", tiny, "--system", ready.Arms["new"].URL)
	p.run(3)
	p.want("cache_hit_ratio", result.Inconclusive, "self-description")
	for _, metric := range []string{"cache_hit_ratio", "hit_latency_improvement"} {
		if v := p.result().Systems["new"].Metrics[metric]; v != nil {
			t.Errorf("%s of another run's upstream: %v", metric, *v)
		}
	}
}

// freePort is an address that nothing listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A proxy that its user started, configured for the upstream's fixed port.
func TestURLBeforeFixedUpstream(t *testing.T) {
	t.Parallel()
	upstream, listen := freePort(t), freePort(t)
	proxy := exec.Command(filepath.Join(bin, "optimizer"), "--upstream", "http://"+upstream, "--listen", listen)
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Process.Signal(syscall.SIGTERM); proxy.Wait() })
	p := phasegate(t, "run", tiny, "--set", "upstream.listen="+upstream, "--system", "http://"+listen)
	p.run(3)
	p.want("cache_hit_ratio", result.Pass, "")
	p.want("memory", result.Inconclusive, "not ours to sample")
}

// The client's leg over TLS to the upstream, as the result says it was on the
// wire; and a closed loop, which says nothing about latency.
func TestHTTP2ClosedLoop(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny, "--system", "direct", "--set", "load.protocol={http/1.1: 25%, h2: 75%}",
		"--set", "load.rate=max", "--set", "load.connections=16", "--set", "gates.4=client_http2_adoption > 99%", "--set", "gates.5=client_connection_reuse > 90%")
	p.run(1)
	p.want("client_http2_adoption", result.Fail, "requests")
	p.want("client_connection_reuse", result.Pass, "")
	phasegate(t, "verify", p.out).run(0)
	p.want("p50_latency", result.Inconclusive, "coordinated omission")
	p.want("error_rate", result.Pass, "")
	load := p.result().Load
	spoken := map[string]int64{}
	for _, s := range load.Spoken {
		if s.System == "new" {
			spoken[s.Protocol] = s.Connections
		}
		if s.Requests == 0 {
			t.Errorf("no request: %+v", s)
		}
	}
	if !load.ClosedLoop || len(spoken) != 2 || spoken["http/1.1"] != 4 || spoken["h2"] != 12 {
		t.Errorf("spoken was %+v", load.Spoken)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny, "--set", fmt.Sprintf(
		`systems.new={kind: command, command: [%q, --upstream, "{upstream}", --listen, "{listen}"]}`, filepath.Join(bin, "optimizer")))
	p.run(0)
}

// A system that dies fails on what its clients saw, and its last words are in
// the report.
func TestSystemDiesMidRun(t *testing.T) {
	t.Parallel()
	script := fmt.Sprintf(`timeout 3 %s "$@"; echo last words >&2; exit 7`, filepath.Join(bin, "optimizer"))
	p := phasegate(t, "run", tiny, "--set", "gates.2=availability > 99%", "--set", fmt.Sprintf(
		`systems.new={kind: command, command: [sh, -c, %q, sh, --upstream, "{upstream}", --listen, "{listen}"]}`, script))
	p.run(1)
	p.want("availability", result.Fail, "")
	phasegate(t, "verify", p.out).run(0)
	s := p.result().Systems["new"]
	if !strings.Contains(s.Exit, "exit status 7") || !strings.Contains(strings.Join(s.LogTail, "\n"), "last words") {
		t.Errorf("exit %q, log %q", s.Exit, s.LogTail)
	}
}

// A system that hangs answers nothing that a rate of errors could be made of;
// its timeouts tell. And nobody takes its silence for hits, or for speed.
func TestFrozenSystemFiresTheTriggers(t *testing.T) {
	t.Parallel()
	script := fmt.Sprintf(`%s "$@" & sleep 6; kill -STOP $!; wait`, filepath.Join(bin, "optimizer"))
	p := phasegate(t, "run", tiny, "--set", "profiles.quick.steady=18s", "--set", "sequential=null",
		"--set", "triggers.1={when: p95_latency > 1s, for: 5m, action: immediate}", "--set", fmt.Sprintf(
			`systems.new={kind: command, command: [sh, -c, %q, sh, --upstream, "{upstream}", --listen, "{listen}"]}`, script))
	p.run(1)
	p.want("error_rate", result.Fail, "")
	p.want("cache_hit_ratio", result.Fail, "it changed from")
	phasegate(t, "verify", p.out).run(0) // when the triggers fired, too
	for _, trigger := range p.result().Triggers {
		if trigger.FiredAt == nil {
			t.Errorf("%s: %s, %s", trigger.Condition, trigger.State, trigger.Reason)
		}
	}
	for _, i := range p.result().Timeline {
		if i.System == "new" && i.Requests > 0 && i.Errors == i.Requests && i.HitRatio != nil {
			t.Errorf("second %g: a hit ratio of %g where nothing answered", i.T, *i.HitRatio)
		}
	}
}

// The replay of a log is cold, and the verdict says what a cold cache can't do.
func TestReplayNamesTheColdCache(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny, "--set", "load.keys.access_log=../fixtures/traffic/shop.combined.log", "--set", "gates.0=p95_latency < 10ms")
	p.run(1)
	p.want("p95_latency", result.Fail, "waited for the upstream")
	phasegate(t, "verify", p.out).run(0)
	if r := p.result(); !strings.Contains(strings.Join(r.Notices, "\n"), "cold cache") {
		t.Errorf("no notice on the cold cache: %q", r.Notices)
	}
}

// A gate that one steady state can't decide gets the extension that its
// profile allows, and pays for the second look with its confidence; gates that
// the first look decides don't wait for a second.
func TestExtension(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		gate  string // zero failures in 800 and in 1,600 requests bound it by 0.46 % and 0.23 % at 97.5 %
		looks int
	}{{"availability > 99%", 1}, {"availability > 99.7%", 2}} {
		t.Run(c.gate, func(t *testing.T) {
			t.Parallel()
			p := phasegate(t, "run", tiny, "--set", "profiles.quick.extensions=1", "--set", "gates.2="+c.gate)
			p.run(0)
			phasegate(t, "verify", p.out).run(0)
			g := p.gate("availability")
			if g.Looks != c.looks || g.Confidence != 0.975 || g.Samples < int64(c.looks)*700 || g.Samples > int64(c.looks)*900 {
				t.Errorf("looks %d, confidence %v, samples %d; want %d looks at 0.975", g.Looks, g.Confidence, g.Samples, c.looks)
			}
		})
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny, "--set", "profiles.quick.steady=60s")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	p.until("load", func() bool { return strings.Contains(p.stderr.String(), "steady") })
	p.Process.Signal(os.Interrupt)
	p.wait(130)
	if r := p.result(); r.Complete || r.Incomplete == "" || len(r.Timeline) == 0 {
		t.Errorf("complete %t, %q, %d intervals", r.Complete, r.Incomplete, len(r.Timeline))
	}
	phasegate(t, "verify", p.out).run(0)
}

// A harness that is killed can't clean up; its processes do it themselves.
func TestKilledHarnessLeavesNothing(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny, "--set", "profiles.quick.steady=60s")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	p.until("the systems", func() bool { return len(p.processes()) >= 5 })
	p.Process.Kill()
	p.Wait()
	p.noneLeft()
}

// Every bad input ends before anything is started or measured in vain, with
// the code and the words that help.
func TestBadInput(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	valid, err := os.ReadFile(tiny)
	if err != nil {
		t.Fatal(err)
	}
	edited := func(name, old, new string) string {
		return write(name, strings.Replace(string(valid), old, new, 1))
	}
	for _, c := range []struct {
		why  string
		code int
		args []string
		says []string
	}{
		{"an unknown command", 2, []string{"judge"}, []string{"judge", "--help"}},
		{"an unknown scenario names the known ones", 2, []string{"run", "phase9"}, []string{"phase9", "phase1"}},
		{"a file that isn't there", 2, []string{"run", "nowhere.yaml"}, []string{"nowhere.yaml"}},
		{"a key with a typing error is located", 2, []string{"run", edited("key.yaml", "prewarm:", "prewarn:")}, []string{"key.yaml:20:1:", "prewarn", "prewarm"}},
		{"a number without its unit", 2, []string{"run", edited("unit.yaml", "300ms", "300")}, []string{"unit.yaml:", "300", "ms"}},
		{"a metric with a typing error names the nearest", 2, []string{"run", edited("metric.yaml", "cache_hit_ratio", "cache_hit_ration")}, []string{"metric.yaml:", "cache_hit_ration", "cache_hit_ratio"}},
		{"an impossible share", 2, []string{"run", edited("share.yaml", "new: 50%", "new: 150%")}, []string{"share.yaml:", "150%"}},
		{"a --set that fits nowhere", 2, []string{"run", tiny, "--set", "load.speed=1"}, []string{"load.speed"}},
		{"the optimizer's own keys are checked too", 2, []string{"run", edited("config.yaml", "max_memory_mb", "max_memry_mb")}, []string{"config.yaml:12:34: systems.new.config: unknown field", "max_memry_mb"}},
		{"a log without one usable line", 2, []string{"run", tiny, "--set", "load.keys.access_log=" + write("bad.log", "hello\nworld\n")}, []string{"bad.log"}},
		{"a folder that isn't a run", 2, []string{"verify", dir}, []string{"not a finished run", "result.json"}},
		{"a port that is taken", 4, []string{"run", tiny, "--set", "upstream.listen=" + taken.Addr().String()}, []string{taken.Addr().String(), "in use"}},
		{"an optimizer that isn't there", 4, []string{"run", tiny, "--optimizer", "/nowhere/optimizer"}, []string{"/nowhere/optimizer", "PHASEGATE_OPTIMIZER"}},
		{"a system that ends at once", 4, []string{"run", tiny, "--set", `systems.new={kind: command, command: [sh, -c, "echo no licence >&2; exit 3", "{listen}", "{upstream}"]}`}, []string{"no licence", "exit status 3"}},
		{"a server that isn't there", 4, []string{"run", tiny, "--system", "http://" + freePort(t)}, []string{"refused"}},
	} {
		t.Run(strings.ReplaceAll(c.why, " ", "_"), func(t *testing.T) {
			t.Parallel()
			p := phasegate(t, c.args...)
			p.run(c.code)
			for _, word := range c.says {
				if !strings.Contains(p.stderr.String(), word) {
					t.Errorf("the message lacks %q:\n%s", word, &p.stderr)
				}
			}
		})
	}
}

// An output folder that can't be written is found out before the measuring.
func TestOutputFolderNotWritable(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny)
	if err := os.WriteFile(p.out, nil, 0o644); err != nil { // a file where the folder should be
		t.Fatal(err)
	}
	p.run(4)
	if !strings.Contains(p.stderr.String(), "--out") {
		t.Errorf("the message doesn't say what to do:\n%s", &p.stderr)
	}
}

// A run that is told to stops as soon as a failure is certain, long before its
// end, and says when; what had not failed by then isn't judged.
func TestAbortOnFailure(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny, "--system", "direct", "--set", "abort=on_failure",
		"--set", "profiles.quick.steady=60s", "--set", "gates.0=p95_latency < 200ms")
	p.run(1)
	r := p.result()
	if r.Verdict != result.Fail || !r.Complete || r.Stopped == nil || *r.Stopped > 30 {
		t.Fatalf("verdict %s, complete %t, stopped %v", r.Verdict, r.Complete, r.Stopped)
	}
	p.want("p95_latency", result.Fail, "whatever comes after")
	p.want("error_rate", result.Inconclusive, "the run was stopped after")
	if !strings.Contains(strings.Join(r.Notices, "\n"), "abort: on_failure") {
		t.Errorf("no notice of the stop: %q", r.Notices)
	}
	if last := r.Timeline[len(r.Timeline)-1].T; last > *r.Stopped {
		t.Errorf("stopped at %g s, and the timeline goes on to %g s", *r.Stopped, last)
	}
}
