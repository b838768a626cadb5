package harness

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"phasegate/harness/gate"
	"phasegate/harness/load"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
	"phasegate/reports/result"
)

// The watch goes by the same measure of the load generator's lag as the final
// judgement: being late once excuses nothing. Where it withholds a stop it says
// so, once.
func TestAbortGoesByTheLagOfTheVerdict(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		p99     time.Duration
		stopped bool
		notices int
	}{
		{"late once", 100 * time.Microsecond, true, 0},
		{"late all the time", 25 * time.Millisecond, false, 1},
	} {
		plan, err := scenario.Compile([]byte(smallRun), "small.yaml", scenario.Options{Set: []string{"abort=on_failure"}})
		if err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		r := &run{record: newRecord(plan, head{Format: format}), opts: Options{Out: out}}
		if r.evidence, err = newEvidence(out, plan.Origin.Text, head{Format: format}); err != nil {
			t.Fatal(err)
		}
		r.note(entry{Begun: &begun{Warmup: plan.Warmup, Steady: plan.Steady, Looks: 1, Systems: []begunSystem{
			{Name: "old", Kind: "direct", Rate: 100, Peak: 100}, {Name: "new", Kind: "optimizer", Rate: 100, Peak: 100},
		}}})
		if r.recorder, err = timeline.New(r.timeline()); err != nil {
			t.Fatal(err)
		}
		r.series = r.recorder.Series()
		for i := range 1200 {
			o := timeline.Outcome{Due: time.Duration(i) * 10 * time.Millisecond, Latency: 60 * time.Millisecond, Service: 39 * time.Millisecond, Lag: tt.p99}
			if i == 300 {
				o.Lag = 30 * time.Millisecond
			}
			r.recorder.Offer(1, o.Due)
			r.recorder.Record(1, o)
		}
		r.flush()
		stopped := false
		for at := 3 * time.Second; at <= 12*time.Second && !stopped; at += time.Second {
			stopped = r.failed(at, load.Lag{Requests: 1000, P99: tt.p99, Max: 30 * time.Millisecond})
		}
		if err := r.evidence.close(); err != nil {
			t.Fatal(err)
		}
		said := fmt.Sprint(r.res.Notices)
		if stopped != tt.stopped || len(r.res.Notices) != tt.notices || tt.notices > 0 && !strings.Contains(said, "did not stop the run") {
			t.Errorf("%s: stopped %t, want %t; notices %s, want %d", tt.why, stopped, tt.stopped, said, tt.notices)
		}
	}
}

// A recording that ends leaves a gate what lies behind the last look.
func TestRecordingLeavesWhatItHas(t *testing.T) {
	t.Parallel()
	plan, err := scenario.Compile([]byte(smallRun), "small.yaml", scenario.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ ends, left float64 }{{22, 0}, {24.5, 250}} {
		r := newRecord(plan, head{Format: format})
		if err := r.apply(entry{Begun: &begun{Warmup: plan.Warmup, Steady: plan.Steady, Looks: 1, Replayed: true, Ends: time.Duration(tt.ends * 1e9),
			Systems: []begunSystem{{Name: "old", Rate: 100}, {Name: "new", Rate: 100}}}}); err != nil {
			t.Fatal(err)
		}
		if r.collect(); r.data.Left["new"] != tt.left {
			t.Errorf("a recording of %g s: %g left, want %g", tt.ends, r.data.Left["new"], tt.left)
		}
	}
}

// Triggers on what is rarer than requests have data: their windows reach back
// for it, but neither into the warm-up nor, in a drill, into what was before it.
// The evidence yields the same.
func TestRareTriggersAreWatched(t *testing.T) {
	t.Parallel()
	const drill = "drills:\n  - {fault: {kind: errors, for: 5m}, expect: [no trigger]}\n"
	for _, tt := range []struct {
		why                 string
		http1               func(second int) bool // whether the upstream is spoken to in HTTP/1.1, in the schedule …
		drilled             func(second int) bool // … and in the drill
		fired, drilledFired bool
		worst               float64
	}{
		{"bad before it is armed", func(s int) bool { return s < 2 }, func(int) bool { return false }, false, false, 1},
		{"bad before the drill", func(s int) bool { return s >= 2 }, func(int) bool { return false }, true, false, 0},
		{"bad in the drill", func(int) bool { return false }, func(int) bool { return true }, false, true, 1},
	} {
		out := t.TempDir()
		plan, err := scenario.Compile([]byte(smallRun+drill), "rare.yaml", scenario.Options{Set: []string{"triggers=[{when: http2_adoption < 80%, for: 2m, action: immediate}]"}})
		if err != nil {
			t.Fatal(err)
		}
		h := head{Format: format, File: plan.Origin.File, Options: plan.Origin.Options, Started: time.Unix(1_700_000_000, 0).UTC()}
		r := &run{record: newRecord(plan, h), opts: Options{Out: out}}
		if r.evidence, err = newEvidence(out, plan.Origin.Text, h); err != nil {
			t.Fatal(err)
		}
		r.note(entry{Begun: &begun{Warmup: plan.Warmup, Steady: plan.Steady, Looks: 1, Ledger: true, Systems: []begunSystem{
			{Name: "old", Kind: "direct", Rate: 100}, {Name: "new", Kind: "optimizer", Rate: 100},
		}}})
		// Four requests a second reach the upstream: 20 in five seconds, 52 in 13.
		play := func(length time.Duration, http1 func(second int) bool) {
			started := time.Unix(1_700_000_010, 0)
			r.note(entry{Started: &started})
			var l timeline.LedgerCounts
			r.recorder.Ledger(1, 0, l)
			for second := range int(length / Interval) {
				at := time.Duration(second) * Interval
				for i := range 200 {
					o := answered(at, i)
					r.recorder.Offer(i%2, o.Due)
					r.recorder.Record(i%2, o)
				}
				if l.Requests, l.Broken = l.Requests+4, l.Broken+1; !http1(second) {
					l.HTTP2 += 4
				}
				end := at + Interval
				r.recorder.Ledger(1, end, l)
				r.flush()
				r.note(entry{Evaluate: &end})
			}
		}
		if r.recorder, err = timeline.New(r.timeline()); err != nil {
			t.Fatal(err)
		}
		r.series = r.recorder.Series()
		play(r.stages.end(1), tt.http1)
		r.note(entry{Drill: &drillBegun{}})
		length := r.drillLength(plan.Drills[0])
		if r.recorder, err = timeline.New(r.drillTimeline(length)); err != nil {
			t.Fatal(err)
		}
		r.drilled[0].series = r.recorder.Series()
		play(length, tt.drilled)
		r.note(entry{Fault: &faultTimes{From: 5 * time.Second, To: 10 * time.Second}})
		r.note(entry{DrillEnded: &drillEnded{}})
		r.report = load.Report{Arms: []load.ArmReport{{Name: "old", Offered: 2200, Sent: 2200}, {Name: "new", Offered: 2200, Sent: 2200}}}
		r.stages.looked = 1
		r.note(entry{Ended: &ended{Report: r.report, Looked: 1, Lines: r.evidence.lines}})
		if err := r.evidence.close(); err != nil {
			t.Fatal(err)
		}
		r.fill()
		r.conclude()
		got, inDrill := r.res.Triggers[0], r.res.Gates[len(r.res.Gates)-1]
		// From second 2 to 22; the thirteenth is the first with data.
		if (got.FiredAt != nil) != tt.fired || got.Worst == nil || *got.Worst != tt.worst || got.Evaluations != 20 || got.WithData != 8 || got.Reason != "" {
			t.Errorf("%s: %+v, want fired %t, worst %g", tt.why, got, tt.fired, tt.worst)
		}
		want := result.Pass
		if tt.drilledFired {
			want = result.Fail
		}
		if inDrill.Verdict != want {
			t.Errorf("%s: in the drill %s: %s", tt.why, inDrill.Verdict, inDrill.Reason)
		}
		if err := result.Write(filepath.Join(out, result.FileName), r.res); err != nil {
			t.Fatal(err)
		}
		if err := Seal(out); err != nil {
			t.Fatal(err)
		}
		if v, err := Verify(out); err != nil || len(v.Differences) > 0 {
			t.Errorf("%s: verify: %+v, %v", tt.why, v, err)
		}
	}
}

// What a trigger may look back at is kept one by one, in a long run too.
func TestWhatARareTriggerLooksBackAtIsKept(t *testing.T) {
	t.Parallel()
	plan, err := scenario.Compile([]byte(smallRun), "long.yaml", scenario.Options{Set: []string{
		"profiles.quick={warmup: 2s, steady: 2h}", "triggers=[{when: negotiation_success < 95%, for: 5m, action: immediate}]",
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRecord(plan, head{Format: format})
	if err := r.apply(entry{Begun: &begun{Warmup: plan.Warmup, Steady: plan.Steady, Looks: 1, Ledger: true, Systems: []begunSystem{{Name: "old", Rate: 100}, {Name: "new", Rate: 100}}}}); err != nil {
		t.Fatal(err)
	}
	// A handshake each ten seconds: 60 in ten minutes, six in one.
	for at := time.Duration(0); at <= 20*time.Minute; at += Interval {
		n := int64(at / (10 * Interval))
		for _, e := range []entry{
			{Entry: timeline.Entry{Requests: &timeline.Part{System: "new", Start: at, Counts: timeline.Counts{Offered: 1, Requests: 1, Proven: 1}, Over: make([]int64, len(r.timeline().Over))}}},
			{Entry: timeline.Entry{Ledger: &timeline.Ledger{System: "new", At: at, LedgerCounts: timeline.LedgerCounts{Handshakes: n, Connections: n, Requests: n}}}},
			{Evaluate: &at},
		} {
			if err := r.apply(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s := r.triggers[0].Status(); s.Reason != "" || s.WithData < 690 || s.Worst == nil || *s.Worst != 1 {
		t.Errorf("%+v", s)
	}
}

// Timeouts while the load generator stood still fail no gate on errors, in the
// steady state as in a drill; while it kept up they do.
func TestTimeoutsInAStallProveNothing(t *testing.T) {
	t.Parallel()
	plan, err := scenario.Compile([]byte(smallRun), "small.yaml", scenario.Options{Set: []string{"drills=[{fault: {kind: hang, for: 5m}, expect: [error_rate < 5%]}]"}})
	if err != nil {
		t.Fatal(err)
	}
	errorRate := plan.Gates[slices.IndexFunc(plan.Gates, func(g scenario.Gate) bool { return g.Metric.Name == "error_rate" })]
	for _, tt := range []struct {
		still   bool
		verdict gate.Verdict
	}{{false, gate.Fail}, {true, gate.Inconclusive}} {
		r := newRecord(plan, head{Format: format})
		if err := r.apply(entry{Begun: &begun{Warmup: plan.Warmup, Steady: plan.Steady, Looks: 1, Systems: []begunSystem{{Name: "old", Rate: 100}, {Name: "new", Rate: 100}}}}); err != nil {
			t.Fatal(err)
		}
		recorder, err := timeline.New(r.timeline())
		if err != nil {
			t.Fatal(err)
		}
		r.series = recorder.Series()
		d := &drilled{length: 20 * time.Second, series: r.series, fault: &faultTimes{From: 5 * time.Second, To: 15 * time.Second}}
		for i := range 2200 {
			o := timeline.Outcome{Due: time.Duration(i) * 10 * time.Millisecond, Latency: time.Millisecond, Proven: true}
			if o.Due >= 6*time.Second && o.Due < 20*time.Second {
				o.Class, o.Latency, o.Proven = timeline.Timeout, plan.Load.Timeout, false
				if tt.still {
					o.Lag = 20*time.Second - o.Due
				}
			}
			recorder.Offer(1, o.Due)
			recorder.Record(1, o)
		}
		recorder.Take() // into the series
		r.stages.looked = 1
		r.collect()
		for of, j := range map[string]gate.Judgement{
			"the steady state": r.judge(errorRate),
			"a drill":          gate.Judge(errorRate, r.drillData(d, errorRate.Metric), gate.Look{Whole: true}),
		} {
			if j.Verdict != tt.verdict || tt.still != strings.Contains(j.Reason, "stood still") {
				t.Errorf("stood still %t: %s: %s, want %s: %s", tt.still, of, j.Verdict, tt.verdict, j.Reason)
			}
		}
	}
}
