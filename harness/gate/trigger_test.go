package gate

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// parseSeries reads values as Prometheus' rule tests write them, one per
// evaluation: "75 85 _ 70x3" is 75, 85, no data, and 70 four times (once, and
// three times more).
func parseSeries(t testing.TB, text string) []*float64 {
	t.Helper()
	var values []*float64
	for _, word := range strings.Fields(text) {
		value, times, repeated := strings.Cut(word, "x")
		n := 0
		if repeated {
			var err error
			if n, err = strconv.Atoi(times); err != nil {
				t.Fatalf("series %q: %v", word, err)
			}
		}
		var p *float64
		if value != "_" {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("series %q: %v", word, err)
			}
			p = &v
		}
		for range n + 1 {
			values = append(values, p)
		}
	}
	return values
}

func TestSeries(t *testing.T) {
	t.Parallel()
	got := parseSeries(t, "75 _ 10x2")
	if len(got) != 5 || *got[0] != 75 || got[1] != nil || *got[2] != 10 || *got[4] != 10 {
		t.Errorf("series = %v", got)
	}
}

// memoryWindow is one sample of so many megabytes, or none.
func memoryWindow(megabytes *float64) timeline.Window {
	if megabytes == nil {
		return timeline.Window{}
	}
	return timeline.Window{Resources: []timeline.Sample{{Usage: timeline.Usage{Resident: int64(*megabytes * 1e6)}}}}
}

func TestTriggerStates(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		when   string
		hold   time.Duration // For, before scaling
		scale  float64
		values string // one a minute
		states string // first letters
		// at which evaluation, from 1; 0 for never
		pending, fired int
		worst          float64
	}{
		{"never bad", "memory > 150MB", 5 * time.Minute, 1, "75 85 70 70 10x5", "iiiiiiiiii", 0, 0, 85},
		{"bad for its whole for", "memory > 150MB", 5 * time.Minute, 1, "75 160x6", "ippppp" + "ff", 2, 7, 160},
		{"one good evaluation resets", "memory > 150MB", 5 * time.Minute, 1, "160x4 75 160x4", "pppppippppp", 7, 0, 160},
		{"at the threshold isn't above it", "memory > 150MB", time.Minute, 1, "150x3", "iiii", 0, 0, 150},
		{"at the threshold is at least it", "memory >= 150MB", time.Minute, 1, "150x2", "pff", 1, 2, 150},
		{"no for fires at once", "memory > 150MB", 0, 1, "75 160 75", "ifi", 2, 2, 160},
		{"a firing trigger resolves, and what it did stays", "memory > 150MB", time.Minute, 1, "160 170 75 180x2", "pfipff", 1, 2, 180},
		{"no data doesn't resolve", "memory > 150MB", 2 * time.Minute, 1, "160 _ 160 160", "pppf", 1, 4, 160},
		{"nor does it fire: time without data doesn't count", "memory > 150MB", 3 * time.Minute, 1, "160 _x9 160 160", "p" + "pppppppppp" + "pp", 1, 0, 160},
		{"no data resolves nothing that fires", "memory > 150MB", 0, 1, "160 _x2 75", "ffffi", 1, 1, 160},
		{"never any data", "memory > 150MB", 0, 1, "_x3", "iiii", 0, 0, 0},
		{"a scale of 60 makes 5 m of 5 s", "memory > 150MB", 5 * time.Hour, 60, "160x5", "pppppf", 1, 6, 160},
		{"bad from below", "memory < 50MB", time.Minute, 1, "75 40 30 45", "ipff", 2, 3, 30},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			trigger := NewTrigger(scenario.Trigger{Condition: condition(t, tt.when), System: scenario.New, For: tt.hold}, tt.scale, 0)
			var states strings.Builder
			for i, v := range parseSeries(t, tt.values) {
				w := memoryWindow(v)
				states.WriteByte(trigger.Observe(time.Duration(i+1)*time.Minute, w, w, 0)[0])
			}
			if states.String() != tt.states {
				t.Errorf("states %s, want %s", states.String(), tt.states)
			}
			s := trigger.Status()
			evaluation := func(at *time.Duration) int {
				if at == nil {
					return 0
				}
				return int(at.Minutes())
			}
			if p, f := evaluation(s.PendingAt), evaluation(s.FiredAt); p != tt.pending || f != tt.fired {
				t.Errorf("pending at %d, fired at %d, want %d, %d", p, f, tt.pending, tt.fired)
			}
			if tt.worst == 0 && s.Worst != nil || tt.worst != 0 && (s.Worst == nil || *s.Worst != tt.worst*1e6) {
				t.Errorf("worst %v, want %g MB", s.Worst, tt.worst)
			}
			if string(s.State)[0] != tt.states[len(tt.states)-1] {
				t.Errorf("status says %s", s.State)
			}
			if noData := strings.HasSuffix(tt.values, "_") || strings.HasPrefix(tt.values, "_x3"); noData != (s.Reason != "") {
				t.Errorf("reason %q", s.Reason)
			}
		})
	}
}

// evaluate is one look at a window of a run.
func evaluate(t testing.TB, when string, w timeline.Window, at time.Duration) (Status, bool) {
	t.Helper()
	return evaluateStarved(t, when, w, at, 0)
}

// evaluateStarved is one on a machine that lost a share of its CPU time.
func evaluateStarved(t testing.TB, when string, w timeline.Window, at time.Duration, stolen float64) (Status, bool) {
	t.Helper()
	trigger := NewTrigger(scenario.Trigger{Condition: condition(t, when)}, 1, 0)
	fired := trigger.Observe(at, w, w, stolen) == Firing
	return trigger.Status(), fired
}

func TestTriggerMetrics(t *testing.T) {
	t.Parallel()
	cache := run{seconds: 60, rate: 100, outcome: mix(1, 0.03, miss(), hit()), reads: tenth, memory: sawtooth(0), cpu: func(s int) float64 { return float64(s) / 60 }}
	direct := run{seconds: 60, rate: 100, outcome: always(miss()), reads: func(int) bool { return true }}
	sick := run{seconds: 60, rate: 100, outcome: mix(2, 0.1, failed(timeline.ServerError), hit())}
	few := run{seconds: 5, rate: 9, outcome: always(miss()), reads: func(int) bool { return true }}
	for _, tt := range []struct {
		why    string
		when   string
		run    run
		fires  bool
		reason string // of having no data
	}{
		{"3 % are slow, p95 is fast", "p95_latency > 50ms", cache, false, ""},
		{"all are slow", "p95_latency > 50ms", direct, true, ""},
		{"45 requests are no data", "p95_latency > 50ms", few, false, "45 requests in its window of 5s are fewer than 50"},
		{"nor for a share", "cache_hit_ratio < 30%", few, false, "45 cacheable requests"},
		{"nor for an error rate", "error_rate > 2%", few, false, "45 requests"},
		{"nor for a rate", "throughput < 100/s", few, false, "45 requests"},
		{"nothing cached", "cache_hit_ratio < 30%", direct, true, ""},
		{"90 % cached", "cache_hit_ratio < 30%", cache, false, ""},
		{"no ledger is no data", "cache_hit_ratio < 30%", sick, false, "ledger was not read"},
		{"10 % errors", "error_rate > 2%", sick, true, ""},
		{"no errors", "error_rate > 2%", cache, false, ""},
		{"availability", "availability < 95%", sick, true, ""},
		{"memory is the last sample", "memory > 65MB", cache, true, ""}, // 60 + 2 × (59 mod 7)
		{"CPU is the mean", "cpu > 50%", cache, false, ""},              // 0 to 98 %, 49 % on average
		{"CPU is the mean, seen from below", "cpu > 48%", cache, true, ""},
		{"memory that isn't ours", "memory > 65MB", direct, false, "not sampled"},
		{"a minute is too short for a slope", "memory_growth_rate > 10MB/hour", cache, false, "a slope needs a window of 300s"},
		{"throughput", "throughput < 95/s", sick, true, ""},
		{"mean", "mean_latency > 400ms", direct, true, ""},
		{"max", "max_latency > 1s", direct, false, ""},
		{"wrong answers", "wrong_responses > 0", run{seconds: 60, rate: 100, outcome: first(1, failed(timeline.Wrong), hit())}, true, ""},
		{"what no window can show", "latency_improvement < 2", cache, false, "can't be measured"},
		{"what this version can't", "trace_completeness < 95%", cache, false, "collects no traces"},
	} {
		c := condition(t, tt.when)
		w := tt.run.window(t, Thresholds(nil, []scenario.Trigger{{Condition: c}})...)
		s, fired := evaluate(t, tt.when, w, w.To)
		if fired != tt.fires || !strings.Contains(s.Reason, tt.reason) || (s.Reason == "") != (tt.reason == "") {
			t.Errorf("%s: %s: fires %t, reason %q, want %t, %q", tt.why, tt.when, fired, s.Reason, tt.fires, tt.reason)
		}
		if (s.Worst == nil) != (s.Reason != "") {
			t.Errorf("%s: worst %v with reason %q", tt.why, s.Worst, s.Reason)
		}
	}
	// On an empty window nothing fires, whatever is asked.
	for _, m := range scenario.All() {
		for _, op := range []scenario.Op{scenario.Less, scenario.Greater} {
			trigger := NewTrigger(scenario.Trigger{Condition: scenario.Condition{Metric: m, Op: op, Threshold: 0.5}}, 1, 0)
			if s := trigger.Observe(time.Minute, timeline.Window{}, timeline.Window{}, 0); s != Inactive || trigger.Status().Reason == "" {
				t.Errorf("%s %s on nothing: %s, %q", m.Name, op, s, trigger.Status().Reason)
			}
		}
	}
}

// A system that stops answering finishes no requests, so finished ones look
// fine. Those still pending for longer than the threshold are its victims.
func TestTriggerCountsPending(t *testing.T) {
	t.Parallel()
	// 100/s for 10 s; from 8 s on nothing is answered.
	stalled := run{seconds: 10, rate: 100, outcome: always(hit()), unfinished: 200}
	window := func(when string) timeline.Window {
		return stalled.window(t, Thresholds(nil, []scenario.Trigger{{Condition: condition(t, when)}})...)
	}
	s, fired := evaluate(t, "p95_latency > 50ms", window("p95_latency > 50ms"), 10*time.Second)
	// Those of second 8 have waited for at least 1 s; those of second 9 only began.
	if !fired || *s.Worst < 0.999 || *s.Worst > 1.001 {
		t.Errorf("a stall of a second: fires %t, worst %v", fired, *s.Worst)
	}
	s, fired = evaluate(t, "p95_latency > 50ms", window("p95_latency > 50ms"), 12*time.Second)
	if !fired || *s.Worst < 2.999 || *s.Worst > 3.001 {
		t.Errorf("of three seconds: fires %t, worst %v", fired, *s.Worst)
	}
	if s, fired := evaluate(t, "p95_latency > 1500ms", window("p95_latency > 1500ms"), 10*time.Second); fired {
		t.Errorf("1.5 s haven't passed for anyone: worst %v", *s.Worst)
	}
	if s, fired := evaluate(t, "max_latency > 2500ms", window("max_latency > 2500ms"), 12*time.Second); !fired {
		t.Errorf("the longest has waited for 3 s: worst %v", *s.Worst)
	}
	if s, fired := evaluate(t, "mean_latency > 400ms", window("mean_latency > 400ms"), 12*time.Second); !fired {
		t.Errorf("a fifth has waited for 2.5 s: worst %v", *s.Worst)
	}
	// A total stall has nothing finished at all, and is data all the same.
	dead := run{seconds: 5, rate: 100, unfinished: 500}
	w := dead.window(t, 50*ms+1)
	if s, fired := evaluate(t, "p95_latency > 50ms", w, 5*time.Second); !fired {
		t.Errorf("a total stall: %+v", s)
	}
	if s, fired := evaluate(t, "throughput < 50/s", w, 5*time.Second); !fired {
		t.Errorf("a total stall: %+v", s)
	}
}

// A late generator makes answers look slow: that is no evidence, unless they
// were slower than threshold and lag together from their own send.
func TestTriggerDoesNotBlameTheSystemForLag(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why                   string
		latency, service, lag time.Duration
		known, holds          bool
	}{
		{"slow by itself", 80 * ms, 80 * ms, 0, true, true},
		{"slow, and the lag is no tenth of the threshold", 80 * ms, 76 * ms, 4 * ms, true, true},
		{"only sent late", 80 * ms, 2 * ms, 78 * ms, false, false},
		{"sent late, and slower than threshold and lag together", 160 * ms, 90 * ms, 30 * ms, true, true},
		{"sent late, and might have been in time", 160 * ms, 70 * ms, 30 * ms, false, false},
		{"in time, however late it was sent", 40 * ms, 2 * ms, 38 * ms, true, false},
	} {
		o := timeline.Outcome{Latency: tt.latency, Service: tt.service, Lag: tt.lag}
		w := run{seconds: 5, rate: 100, outcome: always(o)}.window(t, 50*ms+1)
		for _, when := range []string{"p95_latency > 50ms", "mean_latency > 50ms", "max_latency > 50ms"} {
			s, holds := evaluate(t, when, w, 5*time.Second)
			if known := s.Reason == ""; known != tt.known || holds != tt.holds {
				t.Errorf("%s: %s: known %t, holds %t (%s), want %t, %t", tt.why, when, known, holds, s.Reason, tt.known, tt.holds)
			}
		}
	}
}

// On a starved machine everybody is slow. What waited for the upstream, or got
// no answer, would have been slow anywhere.
func TestTriggerDoesNotBlameTheSystemForTheMachine(t *testing.T) {
	t.Parallel()
	slow := hit()
	slow.Latency, slow.Service = 80*ms, 80*ms
	for _, tt := range []struct {
		why          string
		outcome      timeline.Outcome
		stolen       float64
		known, holds bool
		but          string // for which it isn't known: how long those without an answer took isn't
	}{
		{"slow hits", slow, MaxStolen, true, true, ""},
		{"slow hits, but who had the processor?", slow, MaxStolen + 0.01, false, false, ""},
		{"misses", miss(), 0.5, true, true, ""},
		{"no answer", timeline.Outcome{Latency: 5 * time.Second, Class: timeline.Transport}, 0.5, true, true, "mean_latency > 50ms max_latency > 50ms"},
		{"fast all the same", hit(), 0.5, true, false, ""},
	} {
		w := run{seconds: 5, rate: 100, outcome: always(tt.outcome)}.window(t, 50*ms+1)
		for _, when := range []string{"p95_latency > 50ms", "mean_latency > 50ms", "max_latency > 50ms"} {
			st, holds := evaluateStarved(t, when, w, 5*time.Second, tt.stolen)
			is := !strings.Contains(tt.but, when)
			if known := st.Reason == ""; known != (tt.known && is) || holds != (tt.holds && is) {
				t.Errorf("%s: %s: known %t, holds %t (%s), want %t, %t", tt.why, when, known, holds, st.Reason, tt.known, tt.holds)
			}
		}
	}
}

// Requests that wait for their answer are the system's doing from when the load
// generator got to all of them in time; how late it got to these isn't known.
func TestTriggerBlamesTheSystemForWhatIsPendingSinceAStall(t *testing.T) {
	t.Parallel()
	late := hit()
	late.Lag = 3 * time.Second
	for _, tt := range []struct {
		why   string
		stall int // the second that requests are late in
		holds bool
	}{
		{"long before", 1, true},
		{"as they fell due", 8, false},
	} {
		w := run{seconds: 10, rate: 100, unfinished: 150, outcome: func(i int) timeline.Outcome {
			if i/100 == tt.stall {
				return late
			}
			return hit()
		}}.window(t, 50*ms+1)
		for _, when := range []string{"p95_latency > 50ms", "mean_latency > 50ms", "max_latency > 50ms"} {
			s, holds := evaluate(t, when, w, 11*time.Second)
			if known := s.Reason == ""; known != tt.holds || holds != tt.holds {
				t.Errorf("%s: %s: known %t, holds %t (%s), want %t", tt.why, when, known, holds, s.Reason, tt.holds)
			}
		}
	}
}

// The ledger is read once a second, so the last second of a window hasn't been
// seen by it; its requests aren't hits for that.
func TestTriggerIgnoresWhatTheLedgerHasNotSeen(t *testing.T) {
	t.Parallel()
	rec, err := timeline.New(timeline.Config{Systems: []string{scenario.New}})
	if err != nil {
		t.Fatal(err)
	}
	for second := range 5 {
		at := time.Duration(second) * time.Second
		rec.Ledger(0, at, timeline.LedgerCounts{Requests: int64(second * 100), Reads: int64(second * 100)})
		for range 100 {
			o := miss()
			o.Due = at
			rec.Record(0, o)
		}
	}
	if s, fired := evaluate(t, "cache_hit_ratio < 10%", rec.Window(0, 0, 5*time.Second), 5*time.Second); !fired || *s.Worst != 0 {
		t.Errorf("no cache at all: fires %t, hit ratio %v", fired, *s.Worst)
	}
}

// The histogram's three digits must not decide: 50.01 ms and 50 ms share a bucket.
func TestTriggerThresholdIsExact(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		latency time.Duration
		when    string
		fires   bool
	}{
		{50 * ms, "p95_latency > 50ms", false},
		{50*ms + time.Nanosecond, "p95_latency > 50ms", true},
		{50 * ms, "p95_latency >= 50ms", true},
		{50*ms - time.Nanosecond, "p95_latency >= 50ms", false},
		{50 * ms, "p95_latency < 50ms", false},
		{50*ms - time.Nanosecond, "p95_latency < 50ms", true},
		{50 * ms, "p95_latency <= 50ms", true},
		{50*ms + time.Nanosecond, "p95_latency <= 50ms", false},
	} {
		r := run{seconds: 5, rate: 100, outcome: always(timeline.Outcome{Latency: tt.latency})}
		w := r.window(t, Thresholds(nil, []scenario.Trigger{{Condition: condition(t, tt.when)}})...)
		if _, fired := evaluate(t, tt.when, w, 5*time.Second); fired != tt.fires {
			t.Errorf("%v on %s: fires %t", tt.latency, tt.when, fired)
		}
	}
	// Exactly 5 % above isn't more than 5 %: the 95th of 100 is still within.
	r := run{seconds: 1, rate: 100, outcome: first(5, miss(), hit())}
	if s, fired := evaluate(t, "p95_latency > 50ms", r.window(t, 50*ms+1), time.Second); fired || *s.Worst > 0.0021 {
		t.Errorf("5 of 100 above: fires %t, p95 %v", fired, *s.Worst)
	}
	// Not told what to count, it falls back to the histogram.
	if s, fired := evaluate(t, "p95_latency > 50ms", run{seconds: 1, rate: 100, outcome: always(miss())}.window(t), time.Second); !fired {
		t.Errorf("uncounted: %+v", s)
	}
}

func ExampleTrigger() {
	c, err := scenario.ParseCondition("error_rate > 2%")
	if err != nil {
		fmt.Println(err)
		return
	}
	trigger := NewTrigger(scenario.Trigger{Condition: c, For: 3 * time.Minute}, 60, 0) // 3 m become 3 s
	for second, failures := range []int64{0, 4, 5, 6, 4} {
		w := timeline.Window{}
		w.Requests, w.Class[timeline.OK] = 100, 100-failures
		fmt.Println(trigger.Observe(time.Duration(second)*time.Second, w, w, 0))
	}
	// Output:
	// inactive
	// pending
	// pending
	// pending
	// firing
}
