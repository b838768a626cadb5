package gate

import (
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

func TestJudgeEarly(t *testing.T) {
	t.Parallel()
	half := func(a, b timeline.Outcome) func(int) timeline.Outcome {
		return func(i int) timeline.Outcome {
			if i%2 == 0 {
				return a
			}
			return b
		}
	}
	late := timeline.Outcome{Latency: 30 * ms, Service: 5 * ms, Cacheable: true, Proven: true}
	for _, tt := range []struct {
		why     string
		gate    string
		seconds int // of the 65 planned, at 120/s
		run     run
		change  func(*Data)
		certain bool
		reason  string
	}{
		{"no cache at all, for 7 s", "p95_latency < 10ms", 7, run{outcome: always(miss())}, nil, true,
			"100 % of 840 requests took 10ms or longer in the first 7s; whatever comes after, that is at least 5.9"},
		{"4 s might be all that ever goes wrong", "p95_latency < 10ms", 4, run{outcome: always(miss())}, nil, false, ""},
		{"every request fails", "error_rate < 0.5%", 4, run{outcome: always(failed(timeline.Transport))}, nil, true, "at 97.5 % confidence whenever one looks; the gate asks for < 0.5 %"},
		{"half of them", "availability > 99.95%", 4, run{outcome: half(failed(timeline.Timeout), hit())}, nil, true, "at most 98.8"},
		{"fine so far is no verdict", "error_rate < 0.5%", 60, run{outcome: always(hit())}, nil, false, "error_rate was 0 % until then; need the rest of the steady state, 5 s more (600 requests at 120/s), without abort: on_failure"},
		{"what the rest is too little for", "availability > 99.95%", 60, run{outcome: always(hit())}, nil, false, "was 100 % until then; need the rest"},
		{"and more than that", "availability > 99.99%", 60, run{outcome: always(hit())}, nil, false, "was 100 % until then; need 22,756 more requests (about 4 min at 120/s), without abort: on_failure"},
		{"a cold start of 15 s may pass yet: 30 % may miss", "cache_hit_ratio > 70%", 15,
			run{outcome: always(miss()), reads: func(int) bool { return true }}, nil, false, ""},
		{"30 s of it can't", "cache_hit_ratio > 70%", 30, run{outcome: always(miss()), reads: func(int) bool { return true }}, nil, true, "at most 6"},
		{"what hasn't finished may be good", "p95_latency < 10ms", 7, run{outcome: always(miss()), unfinished: 7 * 60}, nil, false, ""},
		{"what the upstream saw of unfinished requests isn't a miss", "cache_hit_ratio > 70%", 30,
			run{outcome: always(miss()), reads: func(int) bool { return true }, unfinished: 29 * 120}, nil, false, ""},
		{"a wrong answer is one", "wrong_responses <= 0", 1, run{outcome: first(1, failed(timeline.Wrong), hit())}, nil, true, "1 of 120 answers"},
		{"memory above its limit stays there", "memory <= 50MB", 2, run{outcome: always(hit()), memory: func(int) int64 { return 61e6 }}, nil, true, ""},
		{"a mean may recover", "mean_latency < 10ms", 60, run{outcome: always(miss())}, nil, false, ""},
		{"a starved machine makes hits late", "p95_latency < 10ms", 20, run{outcome: always(late)}, func(d *Data) { d.Stolen = 0.1 }, false, ""},
		{"but not an upstream's answer", "p95_latency < 10ms", 20, run{outcome: always(miss())}, func(d *Data) { d.Stolen = 0.1 }, true, ""},
		{"a generator that sends late", "p95_latency < 10ms", 20, run{outcome: always(late)}, func(d *Data) { d.LagP99 = ptr(25 * ms) }, false, "need a lag (p99) of at most 1ms instead of 25ms"},
		{"a metric that isn't offered", "cpu < 20%", 20, run{outcome: always(hit())}, nil, false, "not sampled"},
		{"no failure is allowed, and there is one", "error_rate <= 0%", 3, run{outcome: first(1, failed(timeline.Status), hit())}, nil, true, ""},
	} {
		g := gateOn(t, tt.gate)
		tt.run.seconds, tt.run.rate = tt.seconds, 120
		d := tt.run.data(t, g)
		if tt.change != nil {
			tt.change(&d)
		}
		after := time.Duration(tt.seconds) * time.Second
		j, certain := JudgeEarly(g, d, Look{Number: 1, Planned: 1, Watched: true}, Early{
			After: after, Left: 65*time.Second - after, Intervals: 65, Remaining: map[string]float64{scenario.New: float64(65-tt.seconds) * 120},
		})
		want := Inconclusive
		if tt.certain {
			want = Fail
		}
		if certain != tt.certain || j.Verdict != want || !strings.Contains(j.Reason, tt.reason) {
			t.Errorf("%s: %s after %s: %s, certain %t, want %s with %q: %s", tt.why, tt.gate, after, j.Verdict, certain, want, tt.reason, j.Reason)
		}
		if !strings.Contains(j.Reason, "was stopped") {
			consistent(t, g, j)
		}
	}
}

// A watch takes half of the budget for failing, and nothing of that for passing.
func TestWatchedLooks(t *testing.T) {
	t.Parallel()
	clean := run{seconds: 13, rate: 46, outcome: always(hit())}
	g := gateOn(t, "error_rate < 0.5%")
	if j := Judge(g, clean.data(t, g), Look{Watched: true}); j.Verdict != Pass || j.Confidence != 0.95 {
		t.Errorf("598 clean requests: %s at %g, want a pass at 0.95: %s", j.Verdict, j.Confidence, j.Reason)
	}
	bad := run{seconds: 65, rate: 120, outcome: always(failed(timeline.Transport))}
	if j := Judge(g, bad.data(t, g), Look{Watched: true, Planned: 2}); j.Verdict != Fail || j.Confidence != 0.9875 || !strings.Contains(j.Reason, "at 98.75 % confidence") {
		t.Errorf("all failed: %s at %g, want a failure at 0.9875: %s", j.Verdict, j.Confidence, j.Reason)
	}
}
