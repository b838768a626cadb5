package harness

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"phasegate/harness/forecast"
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

func (f *recordedFault) met() map[string]int64 {
	if f.failing != nil {
		return nil
	}
	return map[string]int64{scenario.MetConnections: int64(f.mended)}
}

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
		{"its time passes", nil, 0, 1, &faultTimes{5 * time.Second, 8 * time.Second, map[string]int64{"connections": 1}}, ""},
		{"the run is interrupted while it is there", nil, 6 * time.Second, 1, &faultTimes{5 * time.Second, 6 * time.Second, map[string]int64{"connections": 1}}, ""},
		{"the run is interrupted before it", nil, 2 * time.Second, 0, nil, "never injected"},
		{"it can't be injected, or only in part", errors.New("no such network"), 0, 1, &faultTimes{From: 5 * time.Second, To: 5 * time.Second}, "no such network"},
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
			if !reflect.DeepEqual(times, tt.times) {
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
  - {fault: {kind: pause, for: 5m}, expect: [p95_latency < 40ms]}
  - {fault: {kind: errors, for: 5m}, expect: [error_rate < 5%]}
  - {fault: {kind: errors, for: 5m}, expect: [error_rate < 5%, no trigger]}
  - {fault: {kind: network, leg: client, reset: 1%, for: 2m}, expect: [error_rate < 5%, no trigger]}
  - {fault: {kind: network, leg: client, reset: 1%, for: 2m}, expect: [error_rate > 90%]}
  - {fault: {kind: network, leg: upstream, profile: distant_region, for: 2m}, expect: [error_rate < 5%, no trigger]}
  - {fault: {kind: partition, for: 5m}, expect: [p95_latency < 40ms, no trigger]}
`

// answered is what became of request i of a second: the new system, which gets
// every second one, is the faster one.
func answered(second time.Duration, i int) timeline.Outcome {
	took := time.Duration(100-99*(i%2)) * time.Millisecond
	return timeline.Outcome{Due: second + time.Duration(i)*5*time.Millisecond, Latency: took, Service: took, Cacheable: true, Proven: true}
}

// drawn notes a drill in which the new system failed while the fault was there,
// or didn't, and the upstream broke so many of its answers, or was asked nothing if that
// is -1, or so many connections met the network.
func drawn(t *testing.T, r *run, number int, failing bool, broken int64, met map[string]int64) {
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
	r.recorder.Ledger(1, 0, timeline.LedgerCounts{})
	times := faultTimes{forecast.LeadTime + 20*time.Millisecond, forecast.LeadTime + r.faultLength(d) + 30*time.Millisecond, met}
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
		if broken >= 0 {
			r.recorder.Ledger(1, end, timeline.LedgerCounts{Requests: 10 * int64(end/Interval), Broken: broken})
		}
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
	drawn(t, r, 0, false, 0, nil)
	drawn(t, r, 1, true, 0, nil)
	r.note(entry{Drill: &drillBegun{Number: 2, None: "the old isn't in a container"}})
	drawn(t, r, 3, false, 0, nil)
	drawn(t, r, 4, false, 0, nil)
	drawn(t, r, 5, false, 7, nil)
	drawn(t, r, 6, false, 0, map[string]int64{scenario.MetConnections: 23, scenario.MetReset: 0})
	drawn(t, r, 7, true, 0, map[string]int64{scenario.MetConnections: 23, scenario.MetReset: 2})
	drawn(t, r, 8, false, 0, map[string]int64{scenario.MetConnections: 4, scenario.MetReset: 0})
	drawn(t, r, 9, false, -1, nil)
	r.report = load.Report{Started: started, Elapsed: 22 * time.Second, Arms: []load.ArmReport{{Name: "old", Offered: 2200, Sent: 2200}, {Name: "new", Offered: 2200, Sent: 2200}}}
	r.stages.looked = 1
	r.note(entry{Ended: &ended{Report: r.report, Looked: 1, Lines: r.evidence.lines}})
	if err := r.evidence.close(); err != nil {
		t.Fatal(err)
	}
	r.fill()
	r.conclude()

	want := []string{
		"partition of the upstream for 5m: error_rate < 5%: pass ",
		"partition of the upstream for 5m: no trigger: pass ",
		"pause of the new system for 5m: error_rate < 5%: fail error_rate is 99.6 %",
		"pause of the new system for 5m: no trigger: fail fired: p95_latency > 100ms",
		"pause of the old system for 5m: error_rate < 5%: inconclusive the old isn't in a container",
		"pause of the upstream for 5m: p95_latency < 40ms: pass ",
		"errors of the upstream for 5m: error_rate < 5%: inconclusive nothing that the new system asked",
		"errors of the upstream for 5m: error_rate < 5%: pass ",
		"errors of the upstream for 5m: no trigger: pass ",
		"network (client leg: 1 % reset) for 2m: error_rate < 5%: inconclusive nothing was tried: no connection met reset, of 23 through the network while it was worse",
		"network (client leg: 1 % reset) for 2m: no trigger: inconclusive nothing was tried: no connection met reset, of 23",
		"network (client leg: 1 % reset) for 2m: error_rate > 90%: pass ", // of the fault's two seconds, and no third
		"network (upstream leg: 80ms ± 20ms, 1 % reset) for 2m: error_rate < 5%: pass no connection met reset, of 4 through the network while it was worse",
		"network (upstream leg: 80ms ± 20ms, 1 % reset) for 2m: no trigger: pass none of 2 fired, and each had data; no connection met reset, of 4",
		"partition of the upstream for 5m: p95_latency < 40ms: inconclusive while the fault was there every answer came from what",
		"partition of the upstream for 5m: no trigger: inconclusive while the fault was there every answer came from what",
	}
	var got []string
	for _, g := range r.res.Gates[len(r.res.Gates)-len(want):] {
		got = append(got, fmt.Sprintf("%s: %s %s", g.Gate, g.Verdict, g.Reason))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%s\nwant %s", got[i], want[i])
		}
		if _, needed, _ := strings.Cut(got[i], ": inconclusive "); needed != "" && !strings.Contains(needed, "; need ") {
			t.Errorf("it doesn't say what it needs: %s", got[i])
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
	edit(t, filepath.Join(out, EvidenceFolder, journalFile), `"reset":2`, `"reset":0`)
	v, _ := Verify(out)
	for what, part := range map[string]string{"another time of a fault": "marks[", "a network that nothing met": "no connection met reset"} {
		if !strings.Contains(strings.Join(v.Differences, "\n"), part) {
			t.Errorf("%s changed nothing: %+v", what, v)
		}
	}
}

// A network was tried when something met a part of it.
func TestUntried(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		network scenario.Network
		met     map[string]int64
		untried bool
		unmet   string
	}{
		{"every connection meets a delay", scenario.Network{Latency: 1}, map[string]int64{scenario.MetConnections: 1}, false, ""},
		{"if there is one", scenario.Network{Latency: 1}, map[string]int64{scenario.MetConnections: 0}, true, "nothing was sent"},
		{"evidence that knows of none", scenario.Network{Latency: 1}, nil, true, "nothing was sent"},
		{"one of two ends", scenario.Network{LimitData: 1, SlowClose: 1}, map[string]int64{scenario.MetConnections: 3, scenario.MetClose: 1}, false, "no connection met limit_data, of 3 through"},
		{"neither", scenario.Network{LimitData: 1, SlowClose: 1}, map[string]int64{scenario.MetConnections: 3}, true, "no connection met limit_data or slow_close, of 3"},
		{"an end of what was silent meanwhile", scenario.Network{SlowClose: 1}, map[string]int64{scenario.MetClose: 1}, false, ""},
	} {
		if got, said := untried(tt.network, tt.met), unmet(tt.network, tt.met); got != tt.untried || !strings.Contains(said, tt.unmet) || said != "" && tt.unmet == "" {
			t.Errorf("%s: untried %v %q, want %v %q", tt.why, got, said, tt.untried, tt.unmet)
		}
	}
}

// The intervals of which a fault had the greater part, and one at least.
func TestFaultIntervals(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, tt := range []struct {
		why                    string
		from, to, first, until time.Duration
	}{
		{"a whole length, a little late", 5020 * ms, 7030 * ms, 5000 * ms, 7000 * ms},
		{"begun late", 5600 * ms, 7700 * ms, 6000 * ms, 8000 * ms},
		{"part of one", 5020 * ms, 5300 * ms, 5000 * ms, 6000 * ms},
		{"part of two", 5800 * ms, 6300 * ms, 6000 * ms, 7000 * ms},
		{"until the end", 5000 * ms, 9900 * ms, 5000 * ms, 9000 * ms},
	} {
		d := drilled{length: 9 * time.Second, fault: &faultTimes{From: tt.from, To: tt.to}}
		if from, to := d.faultIntervals(); from != tt.first || to != tt.until {
			t.Errorf("%s: %s to %s, want %s to %s", tt.why, from, to, tt.first, tt.until)
		}
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
		"drill 1: partition of the upstream for 5m 95.02–100.03", "drill 2: pause of the new system for 5m 195.02–200.03",
		"drill 4: pause of the upstream for 5m 395.02–400.03",
		"drill 5: errors of the upstream for 5m 495.02–500.03", "drill 6: errors of the upstream for 5m 595.02–600.03",
		"drill 7: network (client leg: 1 % reset) for 2m 695.02–697.03", "drill 8: network (client leg: 1 % reset) for 2m 795.02–797.03",
		"drill 9: network (upstream leg: 80ms ± 20ms, 1 % reset) for 2m 895.02–897.03",
		"drill 10: partition of the upstream for 5m 995.02–1000.03"}
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
			if in.Stage != result.StageDrill || in.System != scenario.New || (in.T <= 195 || in.T > 201) && (in.T <= 795 || in.T > 798) {
				t.Errorf("errors of the second or eighth drill at %g s, in the stage %s of %s", in.T, in.Stage, in.System)
			}
		}
	}
	if !slices.Equal(begun, []float64{90, 190, 390, 490, 590, 690, 790, 890, 990}) || broken != 6+3 {
		t.Errorf("drills begin at %v with %d intervals of errors; want 90, 190, 390, 490 and so on, and 9", begun, broken)
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
		"beyond the scenario's":   {started, {Drill: &drillBegun{Number: 10}}},
		"an end without a start":  {started, {DrillEnded: &drillEnded{}}},
		"a fault outside":         {started, {Fault: &faultTimes{}}},
		"a fault that ends early": {started, first, {Fault: &faultTimes{From: 2, To: 1}}},
		"met by fewer than none":  {started, first, {Fault: &faultTimes{Met: map[string]int64{scenario.MetReset: -1}}}},
	} {
		r := newRecord(plan, head{})
		for i, e := range entries {
			if err := r.apply(e); (err != nil) != (i == len(entries)-1) {
				t.Errorf("%s: entry %d: %v", why, i, err)
			}
		}
	}
}
