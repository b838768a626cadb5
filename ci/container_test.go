package ci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"phasegate/reports/result"
)

// TestContainers is what needs an engine, one after the other beside the other
// tests: starting and removing containers all at once would keep a small
// machine busy with that alone.
func TestContainers(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		t.Skipf("no container engine answers (Debian: apt-get install docker.io): %v: %s", err, out)
	}
	t.Run("pass", containersPass)
	t.Run("out of memory", imageOutOfMemory)
	t.Run("drills", containerDrills)
	t.Run("are removed", containersAreRemoved)
	t.Run("are swept by the next run", nextRunSweeps)
	t.Run("are compared", containersAreCompared)
}

// inEngine lists the containers and networks that a process has there.
func inEngine(t *testing.T, pid int) []string {
	t.Helper()
	var found []string
	for _, list := range [][]string{{"ps", "--all"}, {"network", "ls"}} {
		args := append(list, "--filter", "label=phasegate.owner", "--format", `{{.Label "phasegate.owner"}} {{.ID}}`)
		out, err := exec.Command("docker", args...).Output()
		if err != nil {
			t.Fatalf("docker %v: %v", args, err)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, fmt.Sprintf("/%d/", pid)) {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return found
}

// noneInEngine fails if anything of the invocation's is there ten seconds later.
func (p *invocation) noneInEngine() {
	p.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left := inEngine(p.t, p.Process.Pid)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("left in the container engine: %q", left)
		}
	}
}

// The same scenario passes as a process and in a container. It has no gate on latency: the
// engine, busy with other tests' containers, has stalled all traffic for two seconds.
func containersPass(t *testing.T) {
	args := []string{"run", tiny, "--profile", "standard", "--set", "systems.new.limits={memory: 300MB, cpus: 1}",
		"--set", "gates=[cache_hit_ratio > 90%, error_rate < 5%, memory <= 200MB]", "--upstream"}
	unraced(t, append(slices.Clone(args), "process")...).run(0)
	p := unraced(t, append(args, "container")...)
	p.run(0)
	p.noneInEngine()
	unraced(t, "verify", p.out).run(0)
	r := p.result()
	if said := strings.Join(r.Notices, "\n"); r.Environment.Upstream != "container" || !strings.Contains(said, "at most 300 MB and 1 CPUs") {
		t.Errorf("upstream %q, notices:\n%s", r.Environment.Upstream, said)
	}
	if s := r.Systems["new"]; s.CPUs != 1 || s.Setup == nil || s.Setup.CacheBytes == nil || *s.Setup.CacheBytes != 74.4e6 {
		t.Errorf("a share of %g CPUs, set up as %+v; want those that it may use, and what it was told of its cache", s.CPUs, s.Setup)
	}
	if g := p.gate("memory"); g.Value == nil || *g.Value < 5e6 || g.Samples < 3 {
		t.Errorf("memory %+v: the container's was not sampled", g)
	}
	for _, name := range []string{"new", "upstream"} {
		if log, err := os.ReadFile(filepath.Join(p.out, "logs", name+".log")); err != nil || len(log) == 0 {
			t.Errorf("log of %s: %q, %v", name, log, err)
		}
	}
}

// dockerfile puts a system of the test's own into a folder to build from.
func dockerfile(t *testing.T, command string) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "optimizer"), "./optimizer/cmd/optimizer")
	build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text := "FROM scratch\nCOPY optimizer /optimizer\n" + command + "\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "Dockerfile")
}

// Any image is judged like our own, and one that the kernel kills for want of
// memory is told to have died of that.
func imageOutOfMemory(t *testing.T) {
	file := dockerfile(t, `ENTRYPOINT ["/optimizer"]`)
	for _, tt := range []struct {
		limit string
		code  int
		gate  string
	}{
		{"300MB", 0, ""},
		{"20MB", 1, "oom_kills"}, // it begins with 11, and 200 bodies have 51: nearer to the limit the kernel pages for long before it kills
	} {
		p := unraced(t, "run", tiny, "--set", fmt.Sprintf(
			`systems.new={kind: container, dockerfile: %s, command: [--upstream, "{upstream}", --listen, "{listen}"], limits: {memory: %s}}`, file, tt.limit), "--set", "upstream.body=256KiB", "--set", counted)
		p.run(tt.code)
		p.noneInEngine()
		if tt.gate != "" {
			p.want(tt.gate, result.Fail, "want of memory")
			p.want("unexpected_exits", result.Fail, "out of memory, its limit is 20 MB")
			unraced(t, "verify", p.out).run(0)
		}
	}
}

// A partition and a pause are really there, and gone again after their time, and so is a bad
// network on each leg: over TLS to the upstream, and past what was off its own. What is
// decided of one was met by connections.
func containerDrills(t *testing.T) {
	p := unraced(t, "run", tiny, "--upstream", "container", "--set", "systems.new.upstream_tls=true", "--set",
		`drills=[{fault: {kind: pause, for: 4m, target: new}, expect: ["error_rate < 5%"]}, {fault: {kind: partition, for: 4m, target: new}, expect: ["error_rate < 5%"]}, {fault: {kind: pause, for: 4m}, expect: ["error_rate < 50%", no trigger]}, `+
			`{fault: {kind: network, leg: upstream, latency: 3s, for: 4m}, expect: [error_rate < 50%, timeout_rate <= 0%]}, {fault: {kind: network, leg: client, latency: 3s, for: 4m}, expect: [timeout_rate < 5%]}]`)
	p.run(1)
	p.noneInEngine()
	unraced(t, "verify", p.out).run(0)
	verdicts := map[string]result.Verdict{}
	for _, g := range p.result().Gates {
		verdicts[g.Gate] = g.Verdict
	}
	for gate, want := range map[string]result.Verdict{
		"pause of the new system for 4m: error_rate < 5%":     result.Fail,
		"partition of the new system for 4m: error_rate < 5%": result.Fail,
		// What it has cached it still has: the writes alone need the upstream. That
		// is so only if the faults before this one are over.
		"pause of the upstream for 4m: error_rate < 50%":        result.Pass,
		"pause of the upstream for 4m: no trigger":              result.Pass,
		"network (upstream leg: 3s) for 4m: error_rate < 50%":   result.Pass,
		"network (upstream leg: 3s) for 4m: timeout_rate <= 0%": result.Fail,
		"network (client leg: 3s) for 4m: timeout_rate < 5%":    result.Fail,
	} {
		if verdicts[gate] != want {
			t.Errorf("%s: %q, want %s\n%s", gate, verdicts[gate], want, &p.stdout)
		}
	}
}

// However a run ends, nothing of it stays in the engine, whatever goes through it.
func containersAreRemoved(t *testing.T) {
	for _, tt := range []struct {
		why string
		end func(p *invocation)
	}{
		{"interrupted", func(p *invocation) { p.Process.Signal(os.Interrupt); p.wait(130) }},
		{"killed, which its keepers see", func(p *invocation) { p.Process.Kill(); p.Wait(); p.noneLeft() }},
	} {
		p := unraced(t, "run", tiny, "--upstream", "container", "--set", "profiles.quick.steady=60s",
			"--set", "drills=[{fault: {kind: network, leg: upstream, latency: 1s, for: 1m}, expect: [no trigger]}]")
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		p.until("load", func() bool { return strings.Contains(p.stderr.String(), "steady") })
		if n := len(inEngine(t, p.Process.Pid)); n != 3 {
			t.Errorf("%s: %d containers and networks while it ran, want 2 and 1", tt.why, n)
		}
		tt.end(p)
		p.noneInEngine()
	}
}

// Whoever is killed together with all its keepers leaves its containers to the
// next run, which must leave those of living runs alone.
func nextRunSweeps(t *testing.T) {
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	p := unraced(t, "run", tiny, "--upstream", "container", "--set", "profiles.quick.steady=60s")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	p.until("load", func() bool { return strings.Contains(p.stderr.String(), "steady") })
	alive := inEngine(t, p.Process.Pid)
	owner, _, _ := strings.Cut(alive[0], " ")
	left := strings.Replace(owner, fmt.Sprintf("/%d/", p.Process.Pid), fmt.Sprintf("/%d/", dead.Process.Pid), 1)
	name := fmt.Sprintf("phasegate-test-%d", time.Now().UnixNano())
	if out, err := exec.Command("docker", "network", "create", "--label", "phasegate.owner="+left, name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	next := unraced(t, "run", tiny, "--upstream", "container", "--set", counted)
	next.run(0)
	next.noneInEngine()
	if found := inEngine(t, dead.Process.Pid); len(found) > 0 {
		t.Errorf("of a dead owner: %q", found)
		exec.Command("docker", "network", "rm", name).Run()
	}
	if now := inEngine(t, p.Process.Pid); len(now) != len(alive) {
		t.Errorf("of a living run %q are left of %q", now, alive)
	}
	p.Process.Signal(os.Interrupt)
	p.wait(130)
	p.noneInEngine()
}

// Systems are compared in containers as they are run there, one of kind container
// among them, and what ran beside them is said not to be compared fairly.
func containersAreCompared(t *testing.T) {
	mine := fmt.Sprintf(`mine={kind: container, dockerfile: %s, command: [--upstream, "{upstream}", --listen, "{listen}"]}`, dockerfile(t, `ENTRYPOINT ["/optimizer"]`))
	p := unraced(t, "compare", tiny, "--systems", "optimizer,"+mine, "--rounds", "1", "--upstream", "container", "--set", counted, "--set", "profiles.quick.steady=2s")
	p.run(0)
	p.noneInEngine()
	c, err := result.ReadComparison(filepath.Join(p.out, result.ComparisonFile))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(c.Fairness, func(f result.FairnessCheck) bool { return f.Check == "in a container alike" })
	if c.Environment.Upstream != "container" || i < 0 || c.Fairness[i].State != result.Held {
		t.Errorf("upstream %q, fairness %+v", c.Environment.Upstream, c.Fairness)
	}
}

// Without an engine, containers are no option, and auto says that it takes
// processes.
func TestNoEngine(t *testing.T) {
	t.Parallel()
	nowhere := "DOCKER_HOST=unix://" + filepath.Join(t.TempDir(), "none.sock")
	for _, args := range [][]string{{"run", tiny}, {"compare", tiny, "--systems", "optimizer,direct"}} {
		p := unraced(t, append(args, "--upstream", "container")...)
		p.Env = append(p.Env, nowhere)
		p.run(4)
		if said := p.stderr.String(); !strings.Contains(said, "docker.io") {
			t.Errorf("%s doesn't say what to install:\n%s", args[0], said)
		}
	}
	p := unraced(t, "run", tiny, "--upstream", "auto", "--set", counted, "--set", "profiles.quick.steady=1s")
	p.Env = append(p.Env, nowhere)
	p.run(0)
	if said := p.stderr.String(); !strings.Contains(said, "as processes, no container engine answers") || p.result().Environment.Upstream != "process" {
		t.Errorf("upstream %q, stderr:\n%s", p.result().Environment.Upstream, said)
	}
}
