package main

import (
	"errors"
	"strings"
	"testing"

	"phasegate/fixtures/defects"
	"phasegate/harness/scenario"
	"phasegate/reports/result"
	"phasegate/scenarios"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	gates := func(memory, errors result.Verdict) *result.Result {
		r := &result.Result{Verdict: result.Pass, Gates: []result.Gate{
			{Gate: "memory <= 200MB", Metric: "memory", Verdict: memory}, {Gate: "error_rate < 1%", Metric: "error_rate", Verdict: errors},
		}}
		for _, g := range r.Gates {
			if g.Verdict == result.Fail || g.Verdict == result.Inconclusive && r.Verdict == result.Pass {
				r.Verdict = g.Verdict
			}
		}
		return r
	}
	leak := row{gate: "memory"}
	crash := gates(result.Fail, result.Pass)
	crash.Gates = append(crash.Gates, result.Gate{Gate: "unexpected_exits <= 0", Metric: "unexpected_exits", Verdict: result.Fail})
	for _, tt := range []struct {
		why  string
		row  row
		res  *result.Result
		err  error
		want verdict
	}{
		{"the right gate", leak, gates(result.Fail, result.Pass), nil, caught},
		{"the right one among others", leak, gates(result.Fail, result.Fail), nil, caught},
		{"a wrong one", leak, gates(result.Pass, result.Fail), nil, another},
		{"the right one can't say", leak, gates(result.Inconclusive, result.Pass), nil, missed},
		{"none", leak, gates(result.Pass, result.Pass), nil, missed},
		{"it couldn't be run", leak, nil, errors.New("no port"), broken},
		{"healthy", row{healthy: true}, gates(result.Pass, result.Pass), nil, passed},
		{"healthy, and blamed", row{healthy: true}, gates(result.Fail, result.Pass), nil, alarm},
		{"healthy, and undecided", row{healthy: true}, gates(result.Inconclusive, result.Pass), nil, open},
		{"a defect of the full load only", row{gate: "memory", spared: true}, gates(result.Pass, result.Pass), nil, passed},
		{"and it shows", row{gate: "memory", spared: true}, gates(result.Fail, result.Pass), nil, alarm},
		{"or may", row{gate: "memory", spared: true}, gates(result.Inconclusive, result.Pass), nil, open},
		{"or what it isn't about may", row{gate: "memory", spared: true}, gates(result.Pass, result.Inconclusive), nil, passed},
		{"it crashed", leak, crash, nil, another},
	} {
		if tt.row.judge(tt.res, tt.err); tt.row.verdict != tt.want {
			t.Errorf("%s: %s, want %s", tt.why, tt.row.verdict, tt.want)
		}
	}
}

// Every row but a good one fails the whole.
func TestSummary(t *testing.T) {
	t.Parallel()
	if got := new(matrix).summary(new(strings.Builder), 0); got != 2 {
		t.Errorf("nothing was run: %d, want 2", got)
	}
	for v, want := range map[verdict]int{caught: 0, passed: 0, another: 1, missed: 1, alarm: 1, open: 1, broken: 4} {
		m := matrix{rows: 2, counts: map[verdict]int{caught: 1}}
		m.counts[v]++
		if got := m.summary(new(strings.Builder), 0); got != want {
			t.Errorf("%s: exit code %d, want %d", v, got, want)
		}
	}
}

// A defect's gate is one that its scenario has, and what spares it compiles.
func TestScenariosHaveTheGates(t *testing.T) {
	t.Parallel()
	r := runner{bin: "bin"}
	for _, d := range defects.All()[1:] {
		src, ok := scenarios.Read(d.Scenario)
		if !ok {
			t.Errorf("%s: no scenario %s", d.Mode, d.Scenario)
			continue
		}
		set := append([]string{"systems.new=" + r.command(d.Mode, d.Scenario)}, d.Spare...)
		plan, err := scenario.Compile(src, d.Scenario, scenario.Options{Set: set})
		if err != nil {
			t.Errorf("%s: %v", d.Mode, err)
			continue
		}
		found := false
		for _, g := range plan.Gates {
			found = found || g.Metric.Name == d.Gate
		}
		if !found {
			t.Errorf("%s: %s has no gate on %s", d.Mode, d.Scenario, d.Gate)
		}
	}
}
