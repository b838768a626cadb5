package ci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"phasegate/reports/result"
)

const (
	tiny = "testdata/tiny.yaml"
	// counted are gates that four seconds decide, on a busy machine too.
	counted = "gates=[wrong_responses <= 0, memory <= 200MB]"
)

func TestRunPasses(t *testing.T) {
	t.Parallel()
	// What the first look decides doesn't wait for the second that it may have.
	p := phasegate(t, "run", tiny, "--profile", "standard", "--set", "profiles.standard.extensions=1", "--set", "systems.new.limits={memory: 300MB}")
	p.run(0)
	// One stall may leave the median's gate to the second look.
	if g := p.gate("error_rate"); g.Confidence != 0.975 || g.Samples > int64(g.Looks)*2400 {
		t.Errorf("%d of %d requests, at %g; want 1 look's at 0.975", g.Samples, g.Looks, g.Confidence)
	}
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
	for _, want := range []string{"report.html", "the new system isn't held to its limits (at most 300 MB)"} {
		if !strings.Contains(p.stdout.String(), want) {
			t.Errorf("%q isn't in\n%s", want, &p.stdout)
		}
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
	v := unraced(t, "verify", out)
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
	v = unraced(t, "verify", out)
	v.run(1)
	if text := v.stdout.String(); strings.Contains(text, "was changed") || !strings.Contains(text, `recomputed "pass"`) {
		t.Errorf("with new sums:\n%s", text)
	}
	if err := os.WriteFile(path, good, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Without a cache every request waits for the upstream: so long, that a load
// generator late by 250 ms is no excuse.
func TestDirectFails(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny, "--system", "direct", "--set", "gates.0=p95_latency < 20ms")
	p.run(1)
	p.want("cache_hit_ratio", result.Fail, "")
	p.want("p95_latency", result.Fail, "waited for the upstream")
	// What the upstream sees at the window's end was sent a moment earlier: on a
	// busy machine some 50 ms.
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
	p.atLeast("cache_hit_ratio", 0.7)
	p.want("memory", result.Inconclusive, "not ours to sample")
}

// The client's leg over TLS to the upstream, as the result says it was on the
// wire; and a closed loop, which says nothing about latency.
func TestHTTP2ClosedLoop(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny, "--system", "direct", "--set", "load.protocol={http/1.1: 25%, h2: 75%}",
		"--set", "load.rate=max", "--set", "load.connections=16", "--set", "gates.4=client_http2_adoption > 99%")
	p.run(1)
	p.want("client_http2_adoption", result.Fail, "requests")
	p.atLeast("client_connection_reuse", 0.6)
	unraced(t, "verify", p.out).run(0)
	p.want("p50_latency", result.Inconclusive, "coordinated omission")
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

// An upstream of which HTTP/2 can't be had is served all the same, and fails the gate with
// that figure.
func TestUpstreamWithoutHTTP2(t *testing.T) {
	t.Parallel()
	p := unraced(t, "run", tiny, "--set", "upstream.tls={alpn: [http/1.1]}", "--set", "systems.new.upstream_tls=true",
		"--set", "upstream.cache_control=public, max-age=1", "--set", "gates=[http2_adoption > 80%]")
	p.run(1)
	p.want("http2_adoption", result.Fail, "")
	if g := p.gate("http2_adoption"); g.Value == nil || *g.Value != 0 {
		t.Errorf("adoption of what isn't there: %s", g.Reason)
	}
	if errors := p.result().Systems["new"].Metrics["error_rate"]; errors == nil || *errors > 0.05 {
		t.Errorf("error rate %v", errors)
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny, "--set", counted, "--set", fmt.Sprintf(
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
	unraced(t, "verify", p.out).run(0)
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
	unraced(t, "verify", p.out).run(0) // when the triggers fired, too
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
	p := unraced(t, "run", tiny, "--set", "load.keys.access_log=../fixtures/traffic/shop.combined.log", "--profile", "standard", "--set", "load.rate=36/s", "--set", "gates.0=p95_latency < 10ms")
	p.run(1)
	p.want("p95_latency", result.Fail, "waited for the upstream")
	unraced(t, "verify", p.out).run(0)
	if r := p.result(); !strings.Contains(strings.Join(r.Notices, "\n"), "cold cache") {
		t.Errorf("no notice on the cold cache: %q", r.Notices)
	}
}

// A gate that one steady state can't decide gets the extension that its
// profile allows, and pays for the second look with its confidence.
func TestExtension(t *testing.T) {
	t.Parallel()
	// Zero failures in 2,200 and in 4,400 requests bound a share by 0.17 % and 0.084 % at 97.5 %.
	p := unraced(t, "run", tiny, "--profile", "standard", "--set", "profiles.standard.extensions=1", "--set", "gates=[availability > 99.9%]")
	p.run(0)
	unraced(t, "verify", p.out).run(0)
	if g := p.gate("availability"); g.Looks != 2 || g.Confidence != 0.975 || g.Samples < 4000 || g.Samples > 4800 {
		t.Errorf("looks %d, confidence %v, samples %d; want 2 looks at 0.975", g.Looks, g.Confidence, g.Samples)
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	p := phasegate(t, "run", tiny, "--set", "profiles.quick.steady=60s")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	p.until("load", func() bool { return strings.Contains(p.stderr.String(), "steady") })
	p.Process.Signal(syscall.SIGHUP) // as a terminal that is closed sends it
	p.wait(130)
	if r := p.result(); r.Complete || r.Incomplete == "" || len(r.Timeline) == 0 {
		t.Errorf("complete %t, %q, %d intervals", r.Complete, r.Incomplete, len(r.Timeline))
	}
	unraced(t, "verify", p.out).run(0)
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
		"--set", "profiles.quick.steady=60s", "--set", "gates.0=p95_latency < 20ms")
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
