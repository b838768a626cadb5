package compare

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"phasegate/harness"
	"phasegate/harness/probe"
	"phasegate/harness/scenario"
	"phasegate/reports/result"
)

// fake stands for runs: it answers with a result per call.
type fake struct {
	t      *testing.T
	mu     sync.Mutex
	calls  []string // the folders of the runs, in their order
	answer func(system string, round int) (*result.Result, error)
}

func (f *fake) run(_ context.Context, plan *scenario.Plan, opts harness.Options) (*result.Result, error) {
	round := filepath.Base(opts.Out)
	system := filepath.Base(filepath.Dir(opts.Out))
	f.mu.Lock()
	f.calls = append(f.calls, system+"/"+round)
	f.mu.Unlock()
	if err := os.MkdirAll(filepath.Join(opts.Out, harness.EvidenceFolder), 0o777); err != nil {
		f.t.Fatal(err)
	}
	var n int
	fmt.Sscan(round, &n)
	return f.answer(system, n)
}

// measured is a run's result with these metrics of the new system.
func measured(metrics map[string]float64) *result.Result {
	s := result.System{Kind: "optimizer", Requests: 1000, CPUs: 2, Metrics: map[string]*float64{}}
	for name, v := range metrics {
		s.Metrics[name] = &v
	}
	reads := int64(200)
	hit := 0.8
	return &result.Result{
		Schema: result.Schema, Verdict: result.Pass, Complete: true,
		Systems: map[string]result.System{"new": s},
		Marks:   []result.Mark{{Name: "warmup", To: 1}, {Name: "steady", From: 1, To: 11}},
		Gates:   []result.Gate{{Gate: "error_rate < 1%", System: "new", Verdict: result.Pass}},
		Load: &result.Load{OfferedRate: 100, SentRate: 100, Prewarmed: 50,
			Spoken: []result.Spoken{{System: "new", Protocol: "http/1.1", Requests: 1000, Connections: 4}}},
		Timeline: []result.Interval{
			{T: 1, System: "new", Stage: "warmup", HitRatio: &hit, UpstreamRequests: &reads},
			{T: 2, System: "new", Stage: "steady", HitRatio: &hit, UpstreamRequests: &reads},
		},
	}
}

// plan is a scenario with one system in it.
func plan(t *testing.T, set ...string) *scenario.Plan {
	t.Helper()
	p, err := scenario.Open("compare", os.ReadFile, scenario.Options{Set: set})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func config(t *testing.T, f *fake, names ...string) Config {
	f.t = t
	c := Config{Rounds: 4, Out: t.TempDir(), Run: f.run, Seed: 3}
	for _, name := range names {
		c.Systems = append(c.Systems, System{Name: name, Plan: plan(t)})
	}
	return c
}

func TestEverySystemRunsOnceInEveryRound(t *testing.T) {
	t.Parallel()
	f := &fake{answer: func(string, int) (*result.Result, error) {
		return measured(map[string]float64{"p50_latency": 0.001}), nil
	}}
	c := config(t, f, "a", "b", "c")
	out, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	orders := map[string]bool{}
	for round := range 4 {
		calls := f.calls[3*round : 3*round+3]
		orders[strings.NewReplacer("/1", "", "/2", "", "/3", "", "/4", "").Replace(strings.Join(calls, ""))] = true
		sorted := slices.Sorted(slices.Values(calls))
		if want := []string{fmt.Sprint("a/", round+1), fmt.Sprint("b/", round+1), fmt.Sprint("c/", round+1)}; !slices.Equal(sorted, want) {
			t.Errorf("round %d: %v, want %v in some order", round+1, calls, want)
		}
	}
	if len(orders) < 2 {
		t.Errorf("the order of every round was %v: not drawn", orders)
	}
	if !out.Complete || out.Rounds != 4 || out.Verdict != result.Pass {
		t.Errorf("complete %t, %d rounds, verdict %s", out.Complete, out.Rounds, out.Verdict)
	}
	for _, s := range out.Systems {
		for _, run := range s.Runs {
			if _, err := result.Read(filepath.Join(c.Out, filepath.FromSlash(run.File))); err != nil {
				t.Error(err)
			}
		}
	}
	// The order is the seed's.
	again := &fake{answer: f.answer}
	if _, err := Run(t.Context(), config(t, again, "a", "b", "c")); err != nil || !slices.Equal(again.calls, f.calls) {
		t.Errorf("the same seed gave %v and %v", f.calls, again.calls)
	}
}

// What a round does to both falls out of their ratio, though each of them is
// all over the place.
func TestRatiosArePairedByRound(t *testing.T) {
	t.Parallel()
	slow := []float64{1, 3, 0.5, 8}
	f := &fake{answer: func(system string, round int) (*result.Result, error) {
		v := 0.010 * slow[round-1]
		if system == "b" {
			v *= 1.5 + 0.01*float64(round%2)
		}
		return measured(map[string]float64{"p95_latency": v, "error_rate": 0, "wrong_responses": 0, "cpu": 0.2}), nil
	}}
	out, err := Run(t.Context(), config(t, f, "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]result.ComparedMetric{}
	for _, m := range out.Metrics {
		rows[m.Metric] = m
	}
	p95 := rows["p95_latency"].Values
	if r := p95[1].Relative; r == nil || p95[1].Difference || math.Abs(*r.Value-1.505) > 0.001 || *r.Low < 1.49 || *r.High > 1.52 {
		t.Errorf("relative p95 is %+v, want 1.505 and a narrow interval", r)
	}
	if p95[0].Relative != nil {
		t.Error("the first system is compared with itself")
	}
	if width := *p95[0].High / *p95[0].Low; width < 10 {
		t.Errorf("the interval of p95 itself spans a factor of %.1f only", width)
	}
	// Nothing differs, so nothing can be said of how far it might.
	if e := rows["error_rate"].Values[1]; !e.Difference || *e.Relative.Value != 0 || e.Relative.Low != nil || e.Relative.Note == "" {
		t.Errorf("error rates without an error are compared as %+v", e)
	}
	// 0.2 of the CPUs for 10 s, over 1,000 requests.
	if cpu := rows[cpuPerRequest].Values[0]; cpu.Value == nil || *cpu.Value <= 0 {
		t.Errorf("CPU per request is %+v", cpu)
	}
}

func TestVerdictOfManyRounds(t *testing.T) {
	t.Parallel()
	const p, f, i = result.Pass, result.Fail, result.Inconclusive
	for _, c := range []struct {
		why    string
		rounds []result.Verdict
		want   result.Verdict
	}{
		{"all of them", []result.Verdict{p, p, p}, p},
		{"one bad day in three isn't good enough", []result.Verdict{p, f, p}, f},
		{"not shown once", []result.Verdict{p, i, p}, i},
		{"a failure was shown", []result.Verdict{i, f, i}, f},
		{"an environment that failed shows nothing", []result.Verdict{p, result.EnvError}, i},
		{"nothing never passes", nil, i},
	} {
		if got := together(c.rounds); got != c.want {
			t.Errorf("%s: %s, want %s", c.why, got, c.want)
		}
	}
}

func TestInterruptedComparisonKeepsWhatIsWhole(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f := &fake{}
	f.answer = func(string, int) (*result.Result, error) {
		res := measured(map[string]float64{"p50_latency": 0.001})
		if len(f.calls) == 8 { // the second of round 4
			cancel()
			res.Complete, res.Verdict = false, result.Inconclusive
			return res, ctx.Err()
		}
		return res, nil
	}
	out, err := Run(ctx, config(t, f, "a", "b"))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if out.Complete || out.Rounds != 3 || out.Verdict != result.Inconclusive || !strings.Contains(out.Incomplete, "3 of 4 rounds") {
		t.Errorf("complete %t, %d rounds, %s, %q", out.Complete, out.Rounds, out.Verdict, out.Incomplete)
	}
	if n := out.Metrics[0].Values[0].Rounds; n != 3 {
		t.Errorf("figures from %d rounds, want the 3 whole ones", n)
	}
	if n := len(out.Systems[0].Runs) + len(out.Systems[1].Runs); n != 8 {
		t.Errorf("%d runs are kept, want all 8", n)
	}
}

func TestEnvironmentFailureEndsIt(t *testing.T) {
	t.Parallel()
	f := &fake{answer: func(system string, _ int) (*result.Result, error) {
		if system == "b" {
			res := measured(nil)
			res.Complete, res.Verdict, res.Error = false, result.EnvError, "no such program"
			return res, errors.New("no such program")
		}
		return measured(nil), nil
	}}
	out, err := Run(t.Context(), config(t, f, "a", "b"))
	var failed *RunError
	if !errors.As(err, &failed) || failed.System != "b" || failed.Round != 1 {
		t.Errorf("error %v", err)
	}
	if out.Verdict != result.EnvError || out.Complete || len(f.calls) > 2 {
		t.Errorf("verdict %s, complete %t, after %v", out.Verdict, out.Complete, f.calls)
	}
	if err := out.Validate(); err != nil {
		t.Error(err)
	}
}

// Runs that are made together wait for each other here, so that they would hang
// one after another; each has a program of its own, placed anew in every round.
func TestRunsOfARoundTogether(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	binary := filepath.Join(t.TempDir(), "optimizer")
	if err := os.WriteFile(binary, []byte("a program"), 0o777); err != nil {
		t.Fatal(err)
	}
	met := make(chan string)
	var mu sync.Mutex
	programs := map[string]bool{}
	processors := map[string]int{} // by round
	f := &fake{answer: func(string, int) (*result.Result, error) {
		return measured(map[string]float64{"cpu": 0.3}), nil
	}}
	c := config(t, f, "a", "b")
	c.Together, c.Rounds = true, 2
	for i, name := range []string{"a", "b"} {
		c.Systems[i].Optimizer = binary + name
		if err := os.Link(binary, c.Systems[i].Optimizer); err != nil {
			t.Fatal(err)
		}
	}
	c.Run = func(_ context.Context, plan *scenario.Plan, opts harness.Options) (*result.Result, error) {
		select {
		case met <- opts.Out:
		case <-met:
		case <-ctx.Done():
			return measured(nil), errors.New("the other run was not made at the same time")
		}
		text, err := os.ReadFile(opts.Optimizer)
		if err != nil || string(text) != "a program" {
			t.Errorf("the program is %q, %v", text, err)
		}
		mu.Lock()
		programs[opts.Optimizer] = true
		if round := filepath.Base(opts.Out); opts.CPU != nil {
			if other, ok := processors[round]; ok && other != *opts.CPU {
				t.Errorf("round %s runs on the processors %d and %d", round, other, *opts.CPU)
			}
			processors[round] = *opts.CPU
		}
		mu.Unlock()
		return f.run(ctx, plan, opts)
	}
	out, err := Run(ctx, c)
	if err != nil || !out.Complete || out.Rounds != 2 {
		t.Fatalf("complete %t after %d rounds: %v", out.Complete, out.Rounds, err)
	}
	if len(programs) != 4 || programs[c.Systems[0].Optimizer] {
		t.Errorf("the programs were %v, want a copy for each run", programs)
	}
	if cpus := probe.CPUs(); len(processors) != 2 && len(cpus) > 0 || len(cpus) > 1 && processors["1"] == processors["2"] {
		t.Errorf("by round, the processors were %v of %v", processors, cpus)
	}
	for path := range programs {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left: %s", path)
		}
	}
}

// Runs at the same time whose requests keep a distance from each other are told of it.
func TestEvenDistancesTogether(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why      string
		together bool
		set      string
		told     bool
	}{
		{"evenly spaced", true, "load.arrivals=constant", true},
		{"at random", true, "load.arrivals=poisson", false},
		{"one after another", false, "load.arrivals=constant", false},
	} {
		f := &fake{answer: func(string, int) (*result.Result, error) { return measured(map[string]float64{"cpu": 0.3}), nil }}
		cfg := config(t, f, "a", "b")
		cfg.Together = c.together
		for i := range cfg.Systems {
			cfg.Systems[i].Plan = plan(t, c.set)
		}
		out, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if told := strings.Contains(strings.Join(out.Notices, "\n"), "arrivals=poisson"); told != c.told {
			t.Errorf("%s: %q", c.why, out.Notices)
		}
	}
	revisions, err := scenario.Open("regression", os.ReadFile, scenario.Options{})
	if err != nil || !revisions.Load.Poisson {
		t.Errorf("revisions are compared with evenly spaced requests (%v)", err)
	}
}

// One that fails ends those beside it, and is the one that is named.
func TestFailureEndsTheRunsBesideIt(t *testing.T) {
	t.Parallel()
	f := &fake{}
	c := config(t, f, "a", "b")
	c.Together = true
	c.Run = func(ctx context.Context, plan *scenario.Plan, opts harness.Options) (*result.Result, error) {
		if err := os.MkdirAll(filepath.Join(opts.Out, harness.EvidenceFolder), 0o777); err != nil {
			t.Error(err)
		}
		if strings.Contains(opts.Out, string(filepath.Separator)+"b"+string(filepath.Separator)) {
			return measured(nil), errors.New("no such program")
		}
		select {
		case <-ctx.Done():
			return measured(nil), ctx.Err()
		case <-time.After(20 * time.Second):
			return measured(nil), errors.New("nobody ended this run")
		}
	}
	out, err := Run(t.Context(), c)
	var failed *RunError
	if !errors.As(err, &failed) || failed.System != "b" || out.Verdict != result.EnvError || out.Rounds != 0 {
		t.Errorf("%s after %d rounds: %v", out.Verdict, out.Rounds, err)
	}
}

func TestParseSystems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why  string
		list []string
		want []Named
		err  string
	}{
		{"kinds", []string{"optimizer,nginx"}, []Named{{"optimizer", "optimizer", ""}, {"nginx", "nginx", ""}}, ""},
		{"commas within YAML", []string{"nginx,mine={kind: command, command: [a, \"{listen}\"]}"},
			[]Named{{"nginx", "nginx", ""}, {"mine", "", "{kind: command, command: [a, \"{listen}\"]}"}}, ""},
		{"a bracket within quotation marks", []string{`a={kind: command, command: ["]"]},direct`}, []Named{{"a", "", `{kind: command, command: ["]"]}`}, {"direct", "direct", ""}}, ""},
		{"a server that runs is named by its address", []string{"http://127.0.0.1:8080,direct"}, []Named{{"127.0.0.1-8080", "http://127.0.0.1:8080", ""}, {"direct", "direct", ""}}, ""},
		{"an address with a name", []string{"live=http://127.0.0.1:8080"}, []Named{{"live", "http://127.0.0.1:8080", ""}}, ""},
		{"the flag may be repeated", []string{"nginx", "varnish"}, []Named{{"nginx", "nginx", ""}, {"varnish", "varnish", ""}}, ""},
		{"the same kind twice, by names", []string{"a=nginx,b=nginx"}, []Named{{"a", "nginx", ""}, {"b", "nginx", ""}}, ""},
		{"results would overwrite each other", []string{"nginx,nginx"}, nil, `two systems are named "nginx"`},
		{"an empty item is a slip", []string{"nginx,,varnish"}, nil, `"" is no system`},
		{"a name becomes a folder", []string{"../x={kind: direct}"}, nil, "is no system"},
		{"not closed", []string{"a={kind: direct"}, nil, "not closed"},
		{"closed twice", []string{"a=kind: direct}"}, nil, "was not opened"},
	} {
		got, err := ParseSystems(c.list)
		switch {
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: error %v, want it to contain %q", c.why, err, c.err)
		case c.err == "" && (err != nil || !slices.Equal(got, c.want)):
			t.Errorf("%s: %q, %v; want %q", c.why, got, err, c.want)
		}
	}
}

func FuzzParseSystems(f *testing.F) {
	f.Add("optimizer,a={kind: command, command: [x, y]}")
	f.Add("http://[::1]:80,b=")
	f.Fuzz(func(t *testing.T, list string) {
		named, err := ParseSystems([]string{list})
		if err != nil {
			return
		}
		for _, n := range named {
			if !folder.MatchString(n.Name) || n.System == "" && n.Config == "" {
				t.Errorf("%q gives %+v", list, n)
			}
		}
	})
}
