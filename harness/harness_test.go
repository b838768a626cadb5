package harness

import (
	"context"
	"errors"
	"math"
	"slices"
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
		for _, g := range r.res.Gates {
			if g.Verdict == result.Inconclusive && !strings.Contains(g.Reason, "; need ") {
				t.Errorf("%s: it doesn't say what it needs: %s", tt.why, g.Reason)
			}
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
		if j, certain := r.judgeEarly(g, true); certain == closed {
			t.Errorf("closed loop %t: certain %t: %s", closed, certain, j.Reason)
		}
	}
}

// A lighter load than the scenario's is the first thing to be said, and only
// where it was lighter: a timeout in line isn't a request tried.
func TestShortfallComesFirst(t *testing.T) {
	t.Parallel()
	const lighter = "so its figures are those of a lighter load than the scenario's"
	window := func(due, sent, finished, services, cut int64) timeline.Window {
		w := timeline.Window{Counts: timeline.Counts{Offered: due, Sent: sent, Requests: finished, CutOff: cut}, Service: timeline.NewHistogram()}
		_ = w.Service.RecordValues(1, services)
		return w
	}
	for _, tt := range []struct {
		why     string
		arm     load.ArmReport
		new     timeline.Window
		old     timeline.Window
		notices []string
	}{
		{"everything was sent", load.ArmReport{}, window(1000, 1000, 1000, 1000, 0), window(1000, 1000, 1000, 1000, 0), nil},
		{"one in a hundred may be missing", load.ArmReport{Expired: 10}, window(1000, 990, 1000, 990, 0), timeline.Window{}, nil},
		{"more may not", load.ArmReport{Expired: 11}, window(1000, 989, 1000, 989, 0), timeline.Window{},
			[]string{"only 989 of 1000 requests due to the new system were sent in time (98.9 %), " + lighter + "; 11 found every connection busy until their timeout"}},
		{"a system that gets little falls short by itself", load.ArmReport{Expired: 2000}, window(12000, 10000, 12000, 10000, 0), window(228000, 228000, 228000, 228000, 0),
			[]string{"only 10000 of 12000 requests due to the new system were sent in time (83.3 %), " + lighter + "; 2000 found every connection busy until their timeout"}},
		{"both do", load.ArmReport{Expired: 50}, window(1000, 950, 1000, 950, 0), window(1000, 400, 1000, 1000, 0), []string{
			"only 400 of 1000 requests due to the old system were sent in time (40.0 %), " + lighter + "; 600 were sent after the end of what is judged, when a connection became free",
			"only 950 of 1000 requests due to the new system were sent in time (95.0 %), " + lighter + "; 50 found every connection busy until their timeout"}},
		{"what a system refuses to take isn't sent either", load.ArmReport{Expired: 100, Unopened: 400}, window(1000, 500, 1000, 500, 0), timeline.Window{},
			[]string{"only 500 of 1000 requests due to the new system were sent in time (50.0 %), " + lighter + "; 100 found every connection busy until their timeout; for 400 no connection could be opened"}},
		{"a connection that was busy for long isn't one that couldn't be opened", load.ArmReport{Expired: 400, Unopened: 30}, window(1000, 500, 1000, 500, 0), timeline.Window{},
			[]string{"only 500 of 1000 requests due to the new system were sent in time (50.0 %), " + lighter + "; 400 found every connection busy until their timeout; for 30 no connection could be opened; 70 got a connection too late to be sent before their timeout"}},
		{"what the end of the run cut off was sent", load.ArmReport{}, window(1000, 1000, 800, 800, 200), timeline.Window{}, nil},
		{"what waited in line at its end wasn't", load.ArmReport{}, window(1000, 600, 500, 500, 100), timeline.Window{},
			[]string{"only 600 of 1000 requests due to the new system were sent in time (60.0 %), " + lighter + "; 400 still waited for a connection when the run ended"}},
	} {
		r := &record{res: &result.Result{Notices: []string{"another"}}}
		tt.arm.Name = scenario.New
		systems := []asked{askedOf(tt.arm, &tt.new)}
		if tt.old.Offered > 0 {
			systems = slices.Insert(systems, 0, askedOf(load.ArmReport{Name: scenario.Old}, &tt.old))
		}
		r.fillShortfall(systems)
		if want := append(slices.Clone(tt.notices), "another"); !slices.Equal(r.res.Notices, want) {
			t.Errorf("%s: notices %q, want %q", tt.why, r.res.Notices, want)
		}
	}
}

// Whatever an incomplete run leaves undecided says what of it is lacking.
func TestIncompleteRunsSayWhatIsLacking(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		elapsed time.Duration
		looked  int
		failure string
		gate    result.Gate
		want    string
	}{
		{"a pass on a part", 28 * time.Second, 0, "", result.Gate{Metric: "error_rate", Verdict: result.Pass},
			"nothing passes on a part of a run; the run was interrupted 42 s before the end of its schedule (5,040 requests at 120/s): run it to the end"},
		{"too little of it", 28 * time.Second, 0, "", result.Gate{Metric: "availability", Verdict: result.Inconclusive, Reason: "need 5,000 more requests"},
			"need 5,000 more requests; the run was interrupted 42 s before"},
		{"in the second look", 75 * time.Second, 1, "", result.Gate{Metric: "availability", Verdict: result.Inconclusive, Reason: "why"}, "why; the run was interrupted 60 s before"},
		{"in the drills", 140 * time.Second, 2, "", result.Gate{Metric: "availability", Verdict: result.Pass}, "nothing passes on a part of a run; the run was interrupted after its schedule: run it to the end"},
		{"before the last stage", 28 * time.Second, 0, "", result.Gate{Metric: "hit_latency_improvement", Verdict: result.Inconclusive, Reason: "not measured"},
			"not measured; the run was interrupted before the sequential stage, its last: run it to the end"},
		{"by the environment", 28 * time.Second, 0, "port taken", result.Gate{Metric: "availability", Verdict: result.Fail},
			"the environment failed, which is no fault of any system; need a run in which the environment doesn't fail"},
	} {
		tt.gate.System = scenario.New
		r := &record{
			plan:   &scenario.Plan{},
			begun:  &begun{Systems: []begunSystem{{Name: scenario.New, Rate: 120}}},
			stages: stages{warmup: 5 * time.Second, steady: 65 * time.Second, looks: 2, looked: tt.looked},
			report: load.Report{Elapsed: tt.elapsed},
			res:    &result.Result{Gates: []result.Gate{tt.gate}},
			ended:  ended{Interrupted: tt.failure == "", Failure: tt.failure},
		}
		r.conclude()
		if g := r.res.Gates[0]; g.Verdict != result.Inconclusive || !strings.HasPrefix(g.Reason, tt.want) {
			t.Errorf("%s: %s: %s, want %q", tt.why, g.Verdict, g.Reason, tt.want)
		}
	}
}

// A sequential stage of too few turns says how many more, and how long they take;
// with exactly these there are bounds.
func TestSequentialStageSaysWhatIsLacking(t *testing.T) {
	t.Parallel()
	turns := func(n int, took time.Duration) (turns []load.Turn) {
		for i := range n {
			d := took + time.Duration(i%3)*took/100
			turns = append(turns, load.Turn{Service: d, Whole: d})
		}
		return turns
	}
	judged := func(direct, hits int) gate.Judgement {
		c, err := scenario.ParseCondition("hit_latency_improvement > 100")
		if err != nil {
			t.Fatal(err)
		}
		r := &record{plan: &scenario.Plan{Confidence: 0.95}, stages: stages{looks: 1}, res: &result.Result{}}
		r.improvement(&sequence{Direct: turns(direct, 400*time.Millisecond), Hits: turns(hits, time.Millisecond)})
		return gate.Judge(scenario.Gate{Condition: c, System: scenario.New}, gate.Data{Values: map[string]map[string]gate.Measured{scenario.New: r.values}}, gate.Look{})
	}
	if j := judged(3, 20); j.Verdict != gate.Inconclusive || !strings.Contains(j.Reason, "need 7 more samples (about 3 s), by sequential.direct") {
		t.Errorf("three turns: %s: %s", j.Verdict, j.Reason)
	}
	if j := judged(10, 20); j.Verdict != gate.Pass {
		t.Errorf("seven more: %s: %s", j.Verdict, j.Reason)
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
