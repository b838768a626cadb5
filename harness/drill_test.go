package harness

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"phasegate/harness/load"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
	"phasegate/reports/result"
)

// recordedFault is a fault that remembers what was done to it.
type recordedFault struct {
	injected, mended int
	failing          error
}

func (f *recordedFault) inject(context.Context) error { f.injected++; return f.failing }

func (f *recordedFault) mend(ctx context.Context) error {
	f.mended++
	return ctx.Err() // of a context that ended with the run nothing could be mended
}

// A fault that isn't mended would spoil every drill after it, so it is mended
// whatever happens.
func TestBreakAndMend(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why      string
		failing  error
		cancel   time.Duration // 0 never
		injected int
		times    *faultTimes
		fault    string
	}{
		{"its time passes", nil, 0, 1, &faultTimes{5 * time.Second, 8 * time.Second}, ""},
		{"the run is interrupted while it is there", nil, 6 * time.Second, 1, &faultTimes{5 * time.Second, 6 * time.Second}, ""},
		{"the run is interrupted before it", nil, 2 * time.Second, 0, nil, "never injected"},
		{"it can't be injected, or only in part", errors.New("no such network"), 0, 1, &faultTimes{5 * time.Second, 5 * time.Second}, "no such network"},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.cancel > 0 {
				time.AfterFunc(tt.cancel, cancel)
			}
			began := make(chan time.Time, 1)
			began <- time.Now()
			f := &recordedFault{failing: tt.failing}
			times, err := breakAndMend(ctx, began, 3*time.Second, f)
			if f.injected != tt.injected || f.mended != tt.injected {
				t.Errorf("%s: injected %d times, mended %d times, want %d", tt.why, f.injected, f.mended, tt.injected)
			}
			if (times == nil) != (tt.times == nil) || times != nil && *times != *tt.times {
				t.Errorf("%s: %+v, want %+v", tt.why, times, tt.times)
			}
			if (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("%s: %v, want %q", tt.why, err, tt.fault)
			}
		})
	}
}

const drilledRun = smallRun + `drills:
  - {fault: {kind: partition, for: 5m}, expect: [error_rate < 5%, no trigger]}
  - {fault: {kind: pause, for: 5m, target: new}, expect: [error_rate < 5%, no trigger]}
  - {fault: {kind: pause, for: 5m, target: old}, expect: [error_rate < 5%]}
  - {fault: {kind: disk_full, for: 5m}, expect: [no trigger]}
  - {fault: {kind: pause, for: 5m}, expect: [p95_latency < 40ms, somebody is paged]}
`

// answered is what became of request i of a second: the new system, which gets
// every second one, is the faster one.
func answered(second time.Duration, i int) timeline.Outcome {
	took := time.Duration(100-99*(i%2)) * time.Millisecond
	return timeline.Outcome{Due: second + time.Duration(i)*5*time.Millisecond, Latency: took, Service: took, Cacheable: true, Proven: true}
}

// drawn notes a drill in which the new system failed while the fault was there,
// or didn't.
func drawn(t *testing.T, r *run, number int, failing bool) {
	t.Helper()
	d := r.plan.Drills[number]
	r.note(entry{Drill: &drillBegun{Number: number}})
	var err error
	if r.recorder, err = timeline.New(r.drillTimeline(r.drillLength(d))); err != nil {
		t.Fatal(err)
	}
	r.drilled[number].series = r.recorder.Series()
	began := time.Unix(1_700_000_100+int64(100*number), 0)
	r.note(entry{Started: &began})
	times := faultTimes{leadTime + 20*time.Millisecond, leadTime + r.faultLength(d) + 30*time.Millisecond}
	for at := time.Duration(0); at < r.drillLength(d); at += Interval {
		for i := range 200 {
			o := answered(at, i)
			if failing && i%2 == 1 && o.Due > times.From && o.Due < times.To {
				o.Class, o.Latency, o.Proven = timeline.Timeout, 2*time.Second, false
			}
			r.recorder.Offer(i%2, o.Due)
			r.recorder.Record(i%2, o)
		}
		end := at + Interval
		r.note(entry{Machine: &machineCPU{end, 2 * end, 0}})
		r.flush()
		r.note(entry{Evaluate: &end})
	}
	r.note(entry{Fault: &times})
	r.note(entry{DrillEnded: &drillEnded{}})
}

// Drills are judged on their own time, apart from the gates, and their verdicts
// follow from the evidence like all others.
func TestDrillsAreJudgedAndVerified(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	plan, err := scenario.Compile([]byte(drilledRun), "drilled.yaml", scenario.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := head{Format: format, File: plan.Origin.File, Options: plan.Origin.Options, Started: time.Unix(1_700_000_000, 0).UTC()}
	r := &run{record: newRecord(plan, h), opts: Options{Out: out}}
	if r.evidence, err = newEvidence(out, plan.Origin.Text, h); err != nil {
		t.Fatal(err)
	}
	r.note(entry{Begun: &begun{Warmup: plan.Warmup, Steady: plan.Steady, Looks: 1, Systems: []begunSystem{
		{Name: "old", Kind: "direct", Rate: 100}, {Name: "new", Kind: "optimizer", Rate: 100},
	}}})
	if r.recorder, err = timeline.New(r.timeline()); err != nil {
		t.Fatal(err)
	}
	r.series = r.recorder.Series()
	started := time.Unix(1_700_000_010, 0)
	r.note(entry{Started: &started})
	for second := range 22 {
		for i := range 200 {
			o := answered(time.Duration(second)*time.Second, i)
			r.recorder.Offer(i%2, o.Due)
			r.recorder.Record(i%2, o)
		}
		r.flush()
	}
	drawn(t, r, 0, false)
	drawn(t, r, 1, true)
	r.note(entry{Drill: &drillBegun{Number: 2, None: "the old isn't in a container"}})
	drawn(t, r, 4, false)
	r.report = load.Report{Started: started, Elapsed: 22 * time.Second, Arms: []load.ArmReport{{Name: "old"}, {Name: "new"}}}
	r.stages.looked = 1
	r.note(entry{Ended: &ended{Report: r.report, Looked: 1, Lines: r.evidence.lines}})
	if err := r.evidence.close(); err != nil {
		t.Fatal(err)
	}
	r.fill()
	r.conclude()

	want := []string{
		"partition of the upstream for 5m0s: error_rate < 5%: pass ",
		"partition of the upstream for 5m0s: no trigger: pass ",
		"pause of the new system for 5m0s: error_rate < 5%: fail error_rate is 83",
		"pause of the new system for 5m0s: no trigger: fail fired: p95_latency > 100ms",
		"pause of the old system for 5m0s: error_rate < 5%: inconclusive the old isn't in a container",
		"disk_full for 5m; expect no trigger: inconclusive this version doesn't inject this fault",
		"pause of the upstream for 5m0s: p95_latency < 40ms: pass ",
		"pause of the upstream for 5m0s: somebody is paged: inconclusive this version can't judge",
	}
	var got []string
	for _, g := range r.res.Gates[len(r.res.Gates)-len(want):] {
		got = append(got, fmt.Sprintf("%s: %s %s", g.Gate, g.Verdict, g.Reason))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%s\nwant %s", got[i], want[i])
		}
	}
	// The steady state stays what it was: no gate but the drills' fails.
	for _, g := range r.res.Gates[:len(r.res.Gates)-len(want)] {
		if g.Verdict == result.Fail {
			t.Errorf("a drill spoilt the gate %s: %s", g.Gate, g.Reason)
		}
	}
	for _, trigger := range r.res.Triggers {
		if trigger.FiredAt != nil {
			t.Errorf("a drill fired the trigger %s of the steady state", trigger.Condition)
		}
	}
	if r.res.Verdict != result.Fail {
		t.Errorf("verdict %s, want fail by a drill", r.res.Verdict)
	}
	drillsOnTheTimeline(t, r)

	if err := result.Write(filepath.Join(out, result.FileName), r.res); err != nil {
		t.Fatal(err)
	}
	if err := Seal(out); err != nil {
		t.Fatal(err)
	}
	if v, err := Verify(out); err != nil || len(v.Differences) > 0 {
		t.Errorf("verify: %+v, %v", v, err)
	}
	edit(t, filepath.Join(out, EvidenceFolder, journalFile), `"fault":\{"from_ns":5020000000,"to_ns":10030000000`, `"fault":{"from_ns":0,"to_ns":1000000000`)
	if v, err := Verify(out); err == nil && len(v.Differences) == 0 {
		t.Errorf("another time of a fault changed nothing: %+v", v)
	}
}

// drillsOnTheTimeline: each drill that was run stands where it took place, 90 s
// after the run's start and 100 s apart, with the time of its fault.
func drillsOnTheTimeline(t *testing.T, r *run) {
	t.Helper()
	var marks []string
	for _, m := range r.res.Marks {
		marks = append(marks, fmt.Sprintf("%s %.2f–%.2f", m.Name, m.From, m.To))
	}
	want := []string{"warmup 0.00–2.00", "steady 2.00–22.00",
		"drill 1: partition of the upstream for 5m0s 95.02–100.03", "drill 2: pause of the new system for 5m0s 195.02–200.03",
		"drill 5: pause of the upstream for 5m0s 495.02–500.03"}
	if got := strings.Join(marks, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("marks:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
	var begun []float64
	broken := 0
	for _, in := range r.res.Timeline {
		if in.From != nil && in.System == scenario.New {
			begun = append(begun, *in.From)
		}
		if in.Errors > 0 {
			broken++
			if in.Stage != result.StageDrill || in.System != scenario.New || in.T <= 195 || in.T > 201 {
				t.Errorf("errors of the second drill at %g s, in the stage %s of %s", in.T, in.Stage, in.System)
			}
		}
	}
	if !slices.Equal(begun, []float64{90, 190, 490}) || broken != 6 {
		t.Errorf("drills begin at %v with %d intervals of errors; want 90, 190 and 490, and 6", begun, broken)
	}
}

// A journal that names drills in a wrong order is damaged, and said to be.
func TestDrillEntriesAreChecked(t *testing.T) {
	t.Parallel()
	plan, err := scenario.Compile([]byte(drilledRun), "drilled.yaml", scenario.Options{})
	if err != nil {
		t.Fatal(err)
	}
	started := entry{Begun: &begun{Warmup: plan.Warmup, Steady: plan.Steady, Looks: 1, Systems: []begunSystem{{Name: "old"}, {Name: "new"}}}}
	first := entry{Drill: &drillBegun{}}
	for why, entries := range map[string][]entry{
		"before the systems":      {first},
		"twice":                   {started, first, {DrillEnded: &drillEnded{}}, first},
		"one within another":      {started, first, {Drill: &drillBegun{Number: 1}}},
		"beyond the scenario's":   {started, {Drill: &drillBegun{Number: 5}}},
		"an end without a start":  {started, {DrillEnded: &drillEnded{}}},
		"a fault outside":         {started, {Fault: &faultTimes{}}},
		"a fault that ends early": {started, first, {Fault: &faultTimes{From: 2, To: 1}}},
	} {
		r := newRecord(plan, head{})
		for i, e := range entries {
			if err := r.apply(e); (err != nil) != (i == len(entries)-1) {
				t.Errorf("%s: entry %d: %v", why, i, err)
			}
		}
	}
}
