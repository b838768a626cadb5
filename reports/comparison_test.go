package reports_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"phasegate/reports"
	"phasegate/reports/internal/resulttest"
	"phasegate/reports/result"
)

// comparison is one of two systems in three rounds, the second slower, larger
// and not warmed.
func comparison() *result.Comparison {
	p := resulttest.P
	run := resulttest.New("pass")
	c := &result.Comparison{
		Schema: result.Schema, Scenario: "compare", Title: "Side by side", Profile: "quick", Seed: 7, TimeScale: 60,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Duration: 123.4, Complete: true, Verdict: result.Fail,
		Environment: result.Environment{Go: "go1.26.0", CPUs: 2, Kernel: "6.1", Upstream: "process", Command: []string{"phasegate", "compare", "compare", "--systems", "a,b"}},
		Notices:     []string{"time scale 60: the triggers' times and windows are divided by it"},
		Confidence:  0.95, Planned: 3, Rounds: 3,
		Fairness: []result.FairnessCheck{
			{Check: "same load sent", State: result.Held, Found: "a 1,000 requests; b 1,000 requests"},
			{Check: "warmed alike", State: result.Violated, Found: "a 50 keys; b 0 keys"},
			{Check: "logging alike", State: result.Unknown, Found: "a unknown; b unknown"},
		},
		Systems: []result.ComparedSystem{
			{Name: "a", Kind: "optimizer", Version: "1.2", Verdict: result.Pass},
			{Name: "b", Kind: "command", Command: []string{"bin/proxy", "--listen", "127.0.0.1:1"}, Verdict: result.Fail, Notices: []string{"b stores no redirects"}, Errors: map[string]int64{"5xx": 3}},
		},
		Metrics: []result.ComparedMetric{
			{Metric: "p95_latency", Unit: "s", Values: []result.ComparedValue{
				{System: "a", Rounds: 3, Bounds: result.Bounds{Value: p(0.002), Low: p(0.0019), High: p(0.0021)}},
				{System: "b", Rounds: 3, Bounds: result.Bounds{Value: p(0.003), Low: p(0.0027), High: p(0.0033)}, Relative: &result.Bounds{Value: p(1.5), Low: p(1.4), High: p(1.6)}},
			}},
			{Metric: "error_rate", Unit: "share", Values: []result.ComparedValue{
				{System: "a", Rounds: 3, Bounds: result.Bounds{Value: p(0), Note: "the same in every round"}},
				{System: "b", Rounds: 3, Bounds: result.Bounds{Value: p(0.001), Low: p(0), High: p(0.002)}, Difference: true, Relative: &result.Bounds{Value: p(0.001), Low: p(-0.0001), High: p(0.002)}},
			}},
			{Metric: "memory", Unit: "B", Values: []result.ComparedValue{
				{System: "a", Rounds: 3, Bounds: result.Bounds{Value: p(50e6), Low: p(49.9e6), High: p(50.1e6)}},
				{System: "b", Bounds: result.Bounds{Note: "its process isn't ours to sample"}},
			}},
			{Metric: "blocking_ratio", Unit: "share", Values: []result.ComparedValue{{System: "a", Bounds: result.Bounds{Value: p(0.02)}}, {System: "b", Bounds: result.Bounds{Value: p(0.02)}}}},
		},
		Gates: []result.ComparedGate{
			{Gate: "p95_latency < 2.5ms", Metric: "p95_latency", System: "new", Cells: []result.ComparedByGate{
				{System: "a", Verdict: result.Pass, Rounds: []result.Verdict{result.Pass, result.Pass, result.Pass}},
				{System: "b", Verdict: result.Fail, Rounds: []result.Verdict{result.Fail, result.Inconclusive, result.Fail}, Reason: "too slow"},
			}},
			{Gate: "unexpected_exits <= 0", Metric: "unexpected_exits", System: "new", Implied: true, Cells: []result.ComparedByGate{
				{System: "a", Verdict: result.Pass, Rounds: []result.Verdict{result.Pass, result.Pass, result.Pass}}, {System: "b", Verdict: result.Inconclusive},
			}},
		},
	}
	for i := range c.Systems {
		for round := 1; round <= 3; round++ {
			kept := result.ComparedRun{Round: round, Position: 1 + (i+round)%2, File: "x/1/result.json", Verdict: c.Systems[i].Verdict, Complete: true, Requests: 1000,
				Metrics: map[string]*float64{"p95_latency": p(0.002)}, Warmup: 5, Histogram: run.Systems["new"].Histogram}
			for _, in := range run.Timeline {
				if in.System == "new" {
					kept.Series = append(kept.Series, result.SeriesPoint{T: in.T, P50: in.P50, P95: in.P95, P99: in.P99, HitRatio: in.HitRatio, Memory: in.Memory, CPU: in.CPU})
				}
			}
			c.Systems[i].Runs = append(c.Systems[i].Runs, kept)
		}
	}
	return c
}

// revisions is one of two revisions of which the second is worse.
func revisions() *result.Comparison {
	p := resulttest.P
	c := comparison()
	c.Fairness, c.Planned, c.Rounds, c.Title = nil, 20, 14, "Cost per request"
	c.Systems[0].Revision, c.Systems[1].Revision = strings.Repeat("1", 40), strings.Repeat("2", 40)
	c.Regression = &result.Regression{Tolerance: 0.05, Looks: 3, Looked: 2, Level: 0.99583, Metrics: []result.RegressionMetric{
		{Metric: "cpu_per_request", Bounds: result.Bounds{Value: p(1.1), Low: p(1.08), High: p(1.12)}, State: "regression", Detectable: p(1.08)},
		{Metric: "p50_latency", Bounds: result.Bounds{Value: p(1.02), Low: p(1.01), High: p(1.03)}, State: "within", Detectable: p(1.07)},
		{Metric: "p99_latency", Bounds: result.Bounds{Value: p(1.02), Low: p(0.7), High: p(1.4)}, State: "open", Detectable: p(1.6)},
		{Metric: "memory", State: "open", Bounds: result.Bounds{Note: "not measured"}},
	}}
	c.Baseline = &result.Baseline{File: "result.json", Started: c.Started, Differs: []string{"CPUs: 64 then, 2 now"}, Caveat: "The two were not interleaved.",
		Values: []result.BaselineValue{{Metric: "p95_latency", Unit: "s", System: "a", Then: "optimizer", Before: 0.001, Now: 0.002, Bounds: result.Bounds{Value: p(2), Low: p(1.8), High: p(2.2)}}}}
	return c
}

// hostileComparison has names and texts that must not become markup.
func hostileComparison() *result.Comparison {
	c := revisions()
	const evil = "<script>alert(1)</script>\x1b[31m | `x` \u202e"
	c.Scenario, c.Notices, c.Error, c.Verdict = evil, []string{evil}, evil, result.EnvError
	c.Systems[1].Kind, c.Systems[1].Version, c.Systems[1].Notices, c.Systems[1].Command = evil, evil, []string{evil}, []string{evil}
	c.Gates[0].Gate, c.Gates[0].Cells[1].Reason = evil, evil
	c.Fairness = []result.FairnessCheck{{Check: evil, State: result.Violated, Found: evil}}
	c.Metrics[0].Metric = evil
	c.Regression.Metrics[3].Note = evil
	c.Baseline.File, c.Baseline.Differs = evil, []string{evil}
	c.Systems[0].Runs[0].Position, c.Systems[0].Runs[0].Round = -5, 1<<30
	return c
}

func TestComparisonPage(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func() *result.Comparison{
		"systems": comparison, "revisions": revisions, "hostile": hostileComparison,
		"nothing": func() *result.Comparison {
			return &result.Comparison{Schema: result.Schema, Verdict: result.Inconclusive}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b, again bytes.Buffer
			if err := reports.ComparisonHTML(&b, make()); err != nil {
				t.Fatal(err)
			}
			if err := reports.ComparisonHTML(&again, make()); err != nil || again.String() != b.String() {
				t.Errorf("the same comparison gives another page (%v)", err)
			}
			page := b.String()
			for _, bad := range []string{"NaN", "<nil>", "&lt;nil&gt;", "%!", "+Inf", "ZgotmplZ", "0001-01-01", "<script", "\x1b", "\u202e"} {
				if strings.Contains(page, bad) {
					t.Errorf("the page contains %q", bad)
				}
			}
			doc, err := html.Parse(&b)
			if err != nil {
				t.Fatal(err)
			}
			checkDocument(t, doc)
		})
	}
}

// Small multiples are for comparing by eye: another scale would lie.
func TestComparisonPageHasOneScalePerRow(t *testing.T) {
	t.Parallel()
	c := comparison()
	for i := range c.Systems[1].Runs {
		for j := range c.Systems[1].Runs[i].Series {
			s := &c.Systems[1].Runs[i].Series[j]
			if s.Memory != nil {
				s.Memory = resulttest.P(7 * *s.Memory)
			}
		}
	}
	var b bytes.Buffer
	if err := reports.ComparisonHTML(&b, c); err != nil {
		t.Fatal(err)
	}
	_, row, ok := strings.Cut(b.String(), `<section id="memory">`)
	if !ok {
		t.Fatal("no memory row")
	}
	row, _, _ = strings.Cut(row, "</section>")
	cells := strings.Split(row, "<figure>")[1:]
	if len(cells) != 2 {
		t.Fatalf("%d cells, want one per system", len(cells))
	}
	labels := func(cell string) (out []string) {
		for _, part := range strings.Split(cell, "<text")[1:] {
			_, text, _ := strings.Cut(part, ">")
			if text, _, _ = strings.Cut(text, "<"); strings.Contains(text, "MB") {
				out = append(out, text)
			}
		}
		return out
	}
	if a, b := labels(cells[0]), labels(cells[1]); len(a) < 3 || cmp.Diff(a, b) != "" {
		t.Errorf("the axes of memory are %q and %q", a, b)
	}
}

func TestComparisonTexts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*result.Comparison{"compare": comparison(), "revisions": revisions()} {
		golden(t, name+".text.txt", func(w io.Writer) error { return reports.ComparisonText(w, c, false) })
		golden(t, name+".summary.md", func(w io.Writer) error { return reports.ComparisonSummary(w, c) })
		golden(t, name+".junit.xml", func(w io.Writer) error { return reports.ComparisonJUnit(w, c) })
	}
	var text bytes.Buffer
	if err := reports.ComparisonText(&text, hostileComparison(), false); err != nil || strings.ContainsAny(text.String(), "\x1b\u202e") {
		t.Errorf("terminal control characters come through: %v", err)
	}
}

// A pipeline that reads the JUnit file and one that reads the exit code come to
// the same end.
func TestComparisonJUnitFailsWhereTheComparisonDoes(t *testing.T) {
	t.Parallel()
	kept := revisions()
	kept.Verdict = result.Pass
	kept.Regression.Metrics[0].State = "within"
	for _, g := range kept.Gates { // which both revisions fail
		for i := range g.Cells {
			g.Cells[i].Verdict = result.Fail
		}
	}
	passed, broken := comparison(), comparison()
	for _, g := range passed.Gates {
		for i := range g.Cells {
			g.Cells[i].Verdict = result.Pass
		}
	}
	broken.Error, broken.Verdict, broken.Gates = "no such program", result.EnvError, nil
	for _, c := range []struct {
		why              string
		c                *result.Comparison
		failures, errors bool
	}{
		{"a gate of a system failed", comparison(), true, false},
		{"all gates passed", passed, false, false},
		{"a regression", revisions(), true, false},
		{"neither revision keeps its gates", kept, false, false},
		{"the environment failed", broken, false, true},
	} {
		var text bytes.Buffer
		if err := reports.ComparisonJUnit(&text, c.c); err != nil {
			t.Fatal(err)
		}
		var read struct {
			Failures int `xml:"failures,attr"`
			Errors   int `xml:"errors,attr"`
		}
		if err := xml.Unmarshal(text.Bytes(), &read); err != nil {
			t.Fatalf("%s: %v", c.why, err)
		}
		if read.Failures > 0 != c.failures || read.Errors > 0 != c.errors {
			t.Errorf("%s: %d failures and %d errors, want some: %t and %t", c.why, read.Failures, read.Errors, c.failures, c.errors)
		}
	}
}

func TestComparisonIsMadeAgainFromItsFile(t *testing.T) {
	t.Parallel()
	first, second := t.TempDir(), t.TempDir()
	if err := reports.WriteComparison(first, revisions()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(first, result.ComparisonFile)
	if !result.IsComparison(path) {
		t.Error("the file isn't known for a comparison")
	}
	if _, err := result.Read(path); err == nil {
		t.Error("a comparison is read as a run's result")
	}
	c, err := result.ReadComparison(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := reports.WriteComparison(second, c); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{result.ComparisonFile, reports.ComparisonPage, reports.JUnitFile, reports.SummaryFile} {
		a, errA := os.ReadFile(filepath.Join(first, name))
		b, errB := os.ReadFile(filepath.Join(second, name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: made again, it differs (%v, %v)", name, errA, errB)
		}
	}
	if err := reports.ClearComparison(first); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(first); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
