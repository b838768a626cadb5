package harness

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"phasegate/harness/environment"
	"phasegate/harness/gate"
	"phasegate/harness/load"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
	"phasegate/reports/result"
)

func TestConclude(t *testing.T) {
	t.Parallel()
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	fired := 3.0
	for _, tt := range []struct {
		why      string
		ctx      context.Context
		err      error
		gates    []result.Verdict
		fired    *float64
		want     result.Verdict
		complete bool
	}{
		{"every gate passed", t.Context(), nil, []result.Verdict{result.Pass, result.Pass}, nil, result.Pass, true},
		{"one failure is one too many", t.Context(), nil, []result.Verdict{result.Pass, result.Fail, result.Inconclusive}, nil, result.Fail, true},
		{"what isn't known isn't a pass", t.Context(), nil, []result.Verdict{result.Pass, result.Inconclusive}, nil, result.Inconclusive, true},
		{"interrupted while stopping is interrupted too", interrupted, nil, []result.Verdict{result.Pass}, nil, result.Inconclusive, false},
		{"no gate at all is no pass", t.Context(), nil, nil, nil, result.Inconclusive, true},
		{"a fired trigger fails the run", t.Context(), nil, []result.Verdict{result.Pass}, &fired, result.Fail, true},
		{"nothing passes on an interrupted run", interrupted, context.Canceled, []result.Verdict{result.Pass}, nil, result.Inconclusive, false},
		{"what has failed by then has failed", interrupted, context.Canceled, []result.Verdict{result.Pass, result.Fail}, nil, result.Fail, false},
		{"a broken environment judges nobody", t.Context(), errors.New("port taken"), []result.Verdict{result.Fail}, nil, result.EnvError, false},
	} {
		r := &run{evidence: &evidence{}, record: &record{res: &result.Result{Triggers: []result.Trigger{{FiredAt: tt.fired}}}}}
		for _, v := range tt.gates {
			r.res.Gates = append(r.res.Gates, result.Gate{Verdict: v})
		}
		r.ended = *r.end(tt.ctx, tt.err, 0)
		r.conclude()
		if r.res.Verdict != tt.want || r.res.Complete != tt.complete {
			t.Errorf("%s: %s, complete %t; want %s, %t", tt.why, r.res.Verdict, r.res.Complete, tt.want, tt.complete)
		}
		for _, g := range r.res.Gates {
			if g.Verdict == result.Pass && !tt.complete || g.Verdict == result.Fail && tt.want == result.EnvError {
				t.Errorf("%s: a gate's verdict is %s", tt.why, g.Verdict)
			}
		}
	}
}

// The log of a system that never came up is in the result, where people look.
func TestConcludeKeepsTheLastWords(t *testing.T) {
	t.Parallel()
	r := &run{evidence: &evidence{}, record: &record{res: &result.Result{}}}
	r.ended = *r.end(t.Context(), &environment.Error{Op: "start it", System: "new", Err: errors.New("it ended"), Log: []string{"no licence"}}, 0)
	r.conclude()
	if !strings.Contains(r.res.Error, "no licence") {
		t.Errorf("error %q", r.res.Error)
	}
}

// A system that ended by itself isn't ready, whatever was measured until then.
func TestExitsAreGates(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why      string
		old, new string
		want     result.Verdict
	}{
		{"both stayed up", "", "", result.Pass},
		{"the new one ended", "", "exit status 9 after 7.8 s", result.Fail},
		{"the old one ended: nothing to compare with", "signal: killed", "", result.Inconclusive},
	} {
		r := &record{
			plan: &scenario.Plan{Systems: []scenario.System{{Name: "old"}, {Name: "new"}}},
			res: &result.Result{
				Gates:   []result.Gate{{Verdict: result.Pass}},
				Systems: map[string]result.System{"old": {Exit: tt.old}, "new": {Exit: tt.new}},
			},
		}
		r.fillExits()
		r.conclude()
		if r.res.Verdict != tt.want {
			t.Errorf("%s: %s, want %s", tt.why, r.res.Verdict, tt.want)
		}
	}
}

// What is judged ends with the last look, or where the run was broken off.
func TestUntil(t *testing.T) {
	t.Parallel()
	planned := stages{warmup: 5 * time.Second, steady: time.Minute, looks: 2}
	for _, tt := range []struct {
		why    string
		looked int
		report load.Report
		want   time.Duration
	}{
		{"the first look", 1, load.Report{Elapsed: 66 * time.Second}, 65 * time.Second},
		{"the second look", 2, load.Report{Elapsed: 126 * time.Second}, 125 * time.Second},
		{"decided at the first look, the rest cut off", 1, load.Report{Interrupted: true, Elapsed: 71 * time.Second}, 65 * time.Second},
		{"interrupted in the steady state: whole seconds only", 0, load.Report{Interrupted: true, Elapsed: 20500 * time.Millisecond}, 20 * time.Second},
		{"interrupted in the warm-up: nothing is judged", 0, load.Report{Interrupted: true, Elapsed: 2 * time.Second}, 5 * time.Second},
	} {
		r := &record{stages: planned, report: tt.report}
		r.stages.looked = tt.looked
		if got := r.until(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.why, got, tt.want)
		}
	}
}

// Readings are about an interval apart, and never just on its bounds.
func TestStolen(t *testing.T) {
	t.Parallel()
	w := &record{}
	if got := w.cpu.stolen(0, time.Second); got != 0 {
		t.Errorf("without a reading: %g", got)
	}
	for i, stolen := range []time.Duration{0, 0, 100, 600, 600} { // milliseconds, of two processors
		at := time.Duration(i)*time.Second + 3*time.Millisecond
		w.cpu = append(w.cpu, machineCPU{at, 2 * at, stolen * time.Millisecond})
	}
	for _, tt := range []struct{ from, to, want float64 }{
		{0, 1, 0}, {1, 2, 0.05}, {2, 3, 0.25}, {1, 3, 0.15}, {3, 4, 0}, {0, 4, 0.075}, {3, 60, 0}, {4, 4, 0},
	} {
		got := w.cpu.stolen(time.Duration(tt.from*float64(time.Second)), time.Duration(tt.to*float64(time.Second)))
		if math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("from %g s to %g s: %g, want %g", tt.from, tt.to, got, tt.want)
		}
	}
}

// Nobody knows how much a closed loop will send, so half of the first seconds
// being bad makes no share of the whole certain; with a schedule it does.
func TestClosedLoopIsNotStoppedByShares(t *testing.T) {
	t.Parallel()
	condition, err := scenario.ParseCondition("error_rate < 2%")
	if err != nil {
		t.Fatal(err)
	}
	g := scenario.Gate{Condition: condition, System: scenario.New}
	for _, closed := range []bool{false, true} {
		var w timeline.Window
		for range 7 {
			var in timeline.Interval
			in.Offered, in.Requests = 50, 50
			in.Class[timeline.OK], in.Class[timeline.ServerError] = 25, 25
			w.Intervals = append(w.Intervals, in)
			w.Offered, w.Requests = w.Offered+50, w.Requests+50
			w.Class[timeline.OK] += 25
			w.Class[timeline.ServerError] += 25
		}
		r := &record{
			plan:   &scenario.Plan{Confidence: 0.95, AbortOnFailure: true, Load: scenario.Load{Max: closed}},
			stages: stages{steady: 60 * time.Second, looks: 1, stopped: 7 * time.Second},
			begun:  &begun{Systems: []begunSystem{{Name: scenario.New}}},
			data:   gate.Data{Windows: map[string]timeline.Window{scenario.New: w}},
		}
		if j, certain := r.judgeEarly(g); certain == closed {
			t.Errorf("closed loop %t: certain %t: %s", closed, certain, j.Reason)
		}
	}
}

// A lighter load than the scenario's is the first thing to be said, and only
// where it was lighter: a timeout in line isn't a request tried.
func TestShortfallComesFirst(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		report load.Report
		want   string
	}{
		{"everything was sent", load.Report{Offered: 1000, Sent: 1000, SentInTime: 1000}, ""},
		{"one in a hundred may be missing", load.Report{Offered: 1000, Sent: 990, SentInTime: 990}, ""},
		{"more may not", load.Report{Offered: 1000, Sent: 989, SentInTime: 989, Arms: []load.ArmReport{{Expired: 11}}},
			"only 989 of 1000 requests due were sent in time (98.9 %), so the figures are those of a lighter load than the scenario's; 11 found every connection busy until their timeout"},
		{"what a system refuses to take isn't sent either", load.Report{Offered: 1000, Sent: 500, SentInTime: 500, Arms: []load.ArmReport{{Expired: 100}}},
			"only 500 of 1000 requests due were sent in time (50.0 %), so the figures are those of a lighter load than the scenario's; 100 found every connection busy until their timeout; for 400 no connection could be opened"},
		{"what waited beyond the schedule's end made the load lighter", load.Report{Offered: 1000, Sent: 1000, SentInTime: 400},
			"only 400 of 1000 requests due were sent in time (40.0 %), so the figures are those of a lighter load than the scenario's; 600 were sent after the schedule's end, when a connection became free"},
		{"what the end of the run cut off isn't missing", load.Report{Offered: 1000, Sent: 800, SentInTime: 800, Unfinished: 200, CutOff: 200, Interrupted: true}, ""},
		{"what waited in line at its end is", load.Report{Offered: 1000, Sent: 500, SentInTime: 500, Unfinished: 500, CutOff: 100, Interrupted: true},
			"only 500 of 900 requests due were sent in time (55.6 %), so the figures are those of a lighter load than the scenario's; 400 still waited for a connection when the run ended"},
	} {
		r := &record{report: tt.report, res: &result.Result{Notices: []string{"another"}}}
		r.fillShortfall()
		got := ""
		if len(r.res.Notices) == 2 {
			got = r.res.Notices[0]
		}
		if got != tt.want || r.res.Notices[len(r.res.Notices)-1] != "another" {
			t.Errorf("%s: notices %q, want first %q", tt.why, r.res.Notices, tt.want)
		}
	}
}

// A system that the kernel killed for want of memory isn't ready, whether it
// ended with that or went on with what was left.
func TestKillsAreGates(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		killed map[string]int64
		ended  map[string]endedSystem
		want   result.Verdict
		reason string
	}{
		{"none was", nil, nil, result.Pass, ""},
		{"one worker of many", map[string]int64{"new": 2}, nil, result.Fail, "the kernel killed 2 of its processes for want of memory: its container has at most 64 MB"},
		{"all of it, before it was sampled", nil, map[string]endedSystem{"new": {OOM: true}}, result.Fail, "the kernel killed 1 of"},
		{"the old one: nothing to compare with", map[string]int64{"old": 1}, nil, result.Inconclusive, "no limit of memory"},
	} {
		r := &record{
			plan:   &scenario.Plan{Systems: []scenario.System{{Name: "old"}, {Name: "new", Limit: scenario.Limits{Memory: 64e6}}}},
			res:    &result.Result{Gates: []result.Gate{{Verdict: result.Pass}}},
			killed: tt.killed,
			ended:  ended{Systems: tt.ended},
		}
		r.fillKills()
		r.conclude()
		if last := r.res.Gates[len(r.res.Gates)-1]; r.res.Verdict != tt.want || !strings.Contains(last.Reason, tt.reason) {
			t.Errorf("%s: %s (%s), want %s (%s)", tt.why, r.res.Verdict, last.Reason, tt.want, tt.reason)
		}
	}
}
