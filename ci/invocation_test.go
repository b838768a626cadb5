package ci

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	// The programs under test are built by TestMain, out of sight of the test
	// cache: these make a change to them a change to the test.
	_ "phasegate/harness/cli"
	_ "phasegate/optimizer"
	"phasegate/reports/result"
)

// bin is where TestMain built the two programs, and raced, phasegate with the
// race detector if the tests have it.
var bin, raced string

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of a run is waiting for its next request, and TestContainers for the engine.
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set(strconv.Itoa(1 + runtime.GOMAXPROCS(0)))
	}
	dir, err := os.MkdirTemp("", "phasegate-ci-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bin, raced = dir, filepath.Join(dir, "phasegate")
	// The optimizer never gets the race detector: it would be judged with the
	// detector's memory.
	code := 1
	err = build("CGO_ENABLED=0", "-o", bin, "./optimizer/cmd/optimizer", "./harness/cmd/phasegate")
	if err == nil && len(raceFlags) > 0 {
		raced += "-race"
		err = build("CGO_ENABLED=1", append(raceFlags, "-o", raced, "./harness/cmd/phasegate")...)
	}
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func build(env string, args ...string) error {
	build := exec.Command("go", append([]string{"build"}, args...)...)
	build.Dir, build.Env = "..", append(os.Environ(), env)
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
	return prepare(t, raced, args)
}

// unraced is [phasegate] without the race detector, under which a run's pictures
// take seconds: for tests of what runs beside the harness.
func unraced(t *testing.T, args ...string) *invocation {
	t.Helper()
	return prepare(t, filepath.Join(bin, "phasegate"), args)
}

func prepare(t *testing.T, program string, args []string) *invocation {
	t.Helper()
	p := &invocation{t: t, id: fmt.Sprintf("%s-%d", t.Name(), time.Now().UnixNano()), out: filepath.Join(t.TempDir(), "out")}
	if args[0] == "run" || args[0] == "compare" {
		args = append(args, "--out", p.out)
	}
	p.Cmd = exec.Command(program, args...)
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

// until waits for a condition, for at most three minutes: a container engine with
// a slow disk takes most of one to build two images.
func (p *invocation) until(what string, holds func() bool) {
	p.t.Helper()
	const patience = 3 * time.Minute
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited %s for %s\nstderr:\n%s", patience, what, &p.stderr)
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

// atLeast checks a metric of the new system that its gate couldn't decide.
func (p *invocation) atLeast(metric string, least float64) {
	p.t.Helper()
	if v := p.result().Systems["new"].Metrics[metric]; v == nil {
		p.t.Errorf("%s has no value, want at least %g", metric, least)
	} else if *v < least {
		p.t.Errorf("%s is %g, want at least %g", metric, *v, least)
	}
}
