package harness

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"phasegate/harness/load"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
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
