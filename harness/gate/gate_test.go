package gate

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// every tenth request reaches the upstream
func tenth(i int) bool { return i%10 == 0 }

func TestJudge(t *testing.T) {
	t.Parallel()
	phase1 := func(outcome func(int) timeline.Outcome) run {
		return run{seconds: 65, rate: 120, outcome: outcome, reads: tenth, memory: func(int) int64 { return 61e6 }}
	}
	for _, tt := range []struct {
		why     string
		gate    string
		run     run
		verdict Verdict
		reasons []string // parts of the reason
	}{
		// Shares. 7,800 requests against the 598 and 5,990 that are needed.
		{"clean and enough", "error_rate < 0.5%", phase1(always(hit())), Pass, nil},
		{"clean and enough", "availability > 99.95%", phase1(always(hit())), Pass, nil},
		{"clean and not enough: 29,956 are needed", "availability > 99.99%", phase1(always(hit())), Inconclusive,
			[]string{"availability is 100 % (7,800 of 7,800 requests)", "need 22,156 more requests (about 4 min at 120/s)"}},
		{"588 clean ones don't show 0.5 %", "error_rate < 0.5%", run{seconds: 12, rate: 49, outcome: always(hit())}, Inconclusive,
			[]string{"need 10 more requests (about 1 s at 49/s)"}},
		{"598 do", "error_rate < 0.5%", run{seconds: 13, rate: 46, outcome: always(hit())}, Pass, nil},
		{"nine seconds show no share", "error_rate < 0.5%", run{seconds: 9, rate: 1000, outcome: always(hit())}, Inconclusive,
			[]string{"error_rate is 0 % (0 of 9,000 requests)", "at least 10 intervals", "there are 9", "need 1,000 more requests (about 1 s at 1,000/s)"}},
		{"and there must be enough requests besides", "error_rate < 0.5%", run{seconds: 9, rate: 10, outcome: always(hit())}, Inconclusive,
			[]string{"there are 9", "need 508 more requests (about 51 s at 10/s)"}},
		{"two are enough for one that fails altogether", "error_rate < 5%", run{seconds: 2, rate: 100, outcome: always(failed(timeline.Transport))}, Fail,
			[]string{"error_rate is 100 % (200 of 200 requests), at least"}},
		{"a wrong status is an error, and usable", "availability > 99.9%", phase1(mix(1, 0.1, failed(timeline.Status), hit())), Pass, nil},
		{"and counts", "error_rate < 0.5%", phase1(mix(1, 0.1, failed(timeline.Status), hit())), Fail,
			[]string{"error_rate is 10.2 % (795 of 7,800 requests", "at least", "at 95 % confidence; the gate asks for < 0.5 %"}},
		{"5xx are down time", "availability > 99.95%", phase1(mix(1, 0.01, failed(timeline.ServerError), hit())), Fail,
			[]string{"availability is 99.115 % (7,731 of 7,800", "at most 99.3", "the gate asks for > 99.95 %"}},
		{"no sample shows a share of nothing", "error_rate <= 0%", phase1(always(hit())), Inconclusive,
			[]string{"no sample can show a share of exactly 0 %"}},
		{"one failure refutes it", "error_rate <= 0%", phase1(first(1, failed(timeline.Wrong), hit())), Fail, nil},
		{"what hasn't finished may have failed", "error_rate < 0.5%", run{seconds: 65, rate: 120, outcome: always(hit()), unfinished: 60}, Inconclusive,
			[]string{"need the outcome of 60 requests that have not finished"}},
		{"nothing finished", "error_rate < 0.5%", run{seconds: 5, rate: 10, unfinished: 50}, Inconclusive,
			[]string{"none of 50 requests finished"}},
		{"nothing sent", "error_rate < 0.5%", run{seconds: 5}, Inconclusive, []string{"no request was measured"}},

		// Hit ratio: by the ledger, and only where answers prove their origin.
		{"90 % hits", "cache_hit_ratio > 70%", phase1(always(hit())), Pass, nil},
		{"90 % hits aren't 95", "cache_hit_ratio > 95%", phase1(always(hit())), Fail,
			[]string{"cache_hit_ratio is 90 % (7,020 of 7,800 cacheable requests)"}},
		{"no cache: every request reaches the upstream", "cache_hit_ratio > 70%",
			run{seconds: 20, rate: 100, outcome: always(miss()), reads: func(int) bool { return true }}, Fail,
			[]string{"cache_hit_ratio is 0 %"}},
		{"a foreign upstream has an empty ledger, not a perfect cache", "cache_hit_ratio > 70%",
			run{seconds: 20, rate: 100, outcome: always(timeline.Outcome{Cacheable: true}), reads: func(int) bool { return false }}, Inconclusive,
			[]string{"self-description"}},
		{"a system that answers nothing asks nothing of the upstream", "cache_hit_ratio > 70%",
			run{seconds: 20, rate: 100, outcome: first(5, hit(), failed(timeline.Transport)), reads: func(int) bool { return false }}, Fail,
			[]string{"cache_hit_ratio is 0.25 % (5 of 2,000"}},
		{"what is refused isn't hit either: 28 % refused and 30 % fetched leave 42 %", "cache_hit_ratio > 66%",
			run{seconds: 20, rate: 100, outcome: mix(3, 0.28, failed(timeline.ServerError), hit()), reads: func(i int) bool { return i%10 < 3 }}, Fail,
			[]string{"cache_hit_ratio is 4"}},
		{"half of a run lost to a freeze: it was what it was", "cache_hit_ratio > 70%",
			run{seconds: 20, rate: 100, outcome: first(1040, hit(), failed(timeline.Timeout)), reads: func(i int) bool { return i%20 == 0 && i < 1040 }}, Fail,
			[]string{"cache_hit_ratio is 49.4 %", "it changed from 95 % to ", "after 10s, and is judged around these levels"}},
		{"so it is with a failure that was mended", "cache_hit_ratio > 70%",
			run{seconds: 60, rate: 100, outcome: between(2000, 4500, failed(timeline.Timeout), hit()), reads: func(i int) bool { return i%20 == 0 && (i < 2000 || i >= 4500) }}, Fail,
			[]string{"cache_hit_ratio is 55.4 %", "it changed from 95 % to 0 % after 20s to 95 % after 45s"}},
		{"and with one just below the limit, to the last request", "cache_hit_ratio > 70%",
			run{seconds: 60, rate: 100, outcome: first(4100, hit(), failed(timeline.Timeout)), reads: func(int) bool { return false }}, Fail,
			[]string{"cache_hit_ratio is 68.3 %"}},
		{"a freeze within what is allowed isn't a pass: who knows what is next", "cache_hit_ratio > 70%",
			run{seconds: 60, rate: 100, outcome: first(4500, hit(), failed(timeline.Timeout)), reads: func(int) bool { return false }}, Inconclusive, nil},
		{"no ledger", "cache_hit_ratio > 70%", run{seconds: 20, rate: 100, outcome: always(hit())}, Inconclusive, []string{"ledger was not read"}},
		{"writes only", "cache_hit_ratio > 70%",
			run{seconds: 20, rate: 100, outcome: always(timeline.Outcome{Proven: true}), reads: tenth}, Inconclusive, []string{"no cacheable request"}},
		{"upstream over HTTP/2", "http2_adoption > 80%", phase1(always(hit())), Pass, nil},
		{"upstream connections are kept", "connection_reuse > 70%", phase1(always(hit())), Pass, nil},
		{"the client's leg is a share of all requests", "client_http2_adoption > 90%", phase1(mix(8, 0.5, overHTTP2(), hit())), Fail, []string{"client_http2_adoption is ", "of 7,800 requests"}},
		{"over HTTP/2 throughout", "client_http2_adoption > 99%", phase1(always(overHTTP2())), Pass, nil},
		{"who gets no answer gets none over HTTP/2", "client_http2_adoption > 99%", phase1(mix(9, 0.9, overHTTP2(), failed(timeline.Transport))), Fail, nil},
		{"a new connection now and then", "client_connection_reuse > 95%", phase1(mix(10, 0.99, overHTTP2(), hit())), Pass, nil},
		{"no handshakes are no sample", "negotiation_success > 95%", phase1(always(hit())), Inconclusive, []string{"no TLS handshake"}},
		{"a perfect cache leaves nothing to measure", "http2_adoption > 80%",
			run{seconds: 20, rate: 100, outcome: always(hit()), reads: func(int) bool { return false }}, Inconclusive, []string{"no request reached the upstream"}},
		{"what the headers say", "claimed_hit_ratio > 70%", phase1(always(hit())), Pass, nil},
		{"headers that say nothing", "claimed_hit_ratio > 70%",
			run{seconds: 20, rate: 100, outcome: always(timeline.Outcome{Cacheable: true, Proven: true})}, Inconclusive, []string{"Cache-Status"}},
		{"few wait", "blocking_ratio < 5%", phase1(mix(2, 0.02, miss(), hit())), Pass, nil},
		{"nobody revalidates", "revalidation_ratio < 5%", phase1(always(hit())), Pass, nil},

		// Quantiles are shares in disguise.
		{"2 % slow is within 5 %", "p95_latency < 10ms", phase1(mix(3, 0.02, miss(), hit())), Pass, nil},
		{"31 % slow", "p95_latency < 10ms", run{seconds: 5, rate: 100, outcome: mix(4, 0.31, miss(), hit())}, Fail,
			[]string{"p95 is 464ms: 3", "of 500 requests took 10ms or longer", "of 500 requests waited for the upstream (464ms on average)", "p95_latency < 10ms allows fewer than 5 %"}},
		{"slow without an upstream to blame", "p95_latency < 10ms", phase1(always(timeline.Outcome{Latency: 20 * ms, Service: 20 * ms, Proven: true})), Fail,
			[]string{"100 % of 7,800 requests took 10ms or longer"}},
		{"58 are too few for p95", "p95_latency < 10ms", run{seconds: 29, rate: 2, outcome: always(hit())}, Inconclusive,
			[]string{"need 1 more requests"}},
		{"59 are enough", "p95_latency < 10ms", run{seconds: 59, rate: 1, outcome: always(hit())}, Pass, nil},
		{"nine seconds show no quantile", "p95_latency < 10ms", run{seconds: 9, rate: 100, outcome: always(hit())}, Inconclusive,
			[]string{"0 % of 900 requests took 10ms or longer; a bound needs at least 10 intervals", "there are 9", "need 100 more requests (about 1 s at 100/s)"}},
		{"exactly the threshold is too long for <", "p95_latency < 2ms", phase1(always(hit())), Fail, []string{"took 2ms or longer"}},
		{"and within <=", "p95_latency <= 2ms", phase1(always(hit())), Pass, nil},
		{"and not above it", "p50_latency > 2ms", phase1(always(hit())), Fail, []string{"took longer than 2ms", "p50_latency > 2ms needs more than 50 %"}},
		{"the baseline is slow, and proves it", "p50_latency >= 400ms", phase1(always(miss())), Pass, nil},
		{"pending ones may be slow", "p95_latency < 10ms", run{seconds: 10, rate: 100, outcome: always(hit()), unfinished: 60}, Inconclusive,
			[]string{"need the outcome of 60 requests that have not finished"}},

		// Means and rates, by batch means.
		{"on schedule", "throughput > 15/s", phase1(always(hit())), Pass, nil},
		{"can't be above what was offered", "throughput > 200/s", phase1(always(hit())), Fail, []string{"throughput is 120/s, at most 120/s"}},
		{"errors aren't throughput", "throughput > 100/s", phase1(mix(5, 0.5, failed(timeline.ServerError), hit())), Fail, nil},
		{"nor is half of a run that froze", "throughput > 114/s", phase1(first(3900, hit(), failed(timeline.Timeout))), Fail, []string{"throughput is 60"}},
		{"nothing finished is no throughput", "throughput > 1/s", run{seconds: 20, rate: 10, unfinished: 200}, Fail, nil},
		{"a mean", "mean_latency < 20ms", phase1(mix(6, 0.02, miss(), hit())), Pass, nil},
		{"a mean of misses", "mean_latency < 20ms", phase1(mix(6, 0.2, miss(), hit())), Fail, []string{"mean_latency is 9"}},
		{"nine seconds make no bound", "mean_latency < 20ms", run{seconds: 9, rate: 100, outcome: always(hit())}, Inconclusive,
			[]string{"at least 10 intervals", "there are 9"}},
		{"near the threshold", "mean_latency < 11.5ms", phase1(mix(8, 0.02, miss(), hit())), Inconclusive,
			[]string{"between", "need", "more requests (about", "at 120/s)"}},
		{"CPU", "cpu < 20%", phase1(always(hit())), Pass, nil},
		{"CPU that wasn't sampled", "cpu < 20%", run{seconds: 20, rate: 10, outcome: always(hit())}, Inconclusive, []string{"not sampled"}},

		// Counts.
		{"no wrong response", "wrong_responses <= 0", phase1(always(hit())), Pass, []string{"none in 7,800 answers, so at 95 % confidence fewer than 0.0384 % of all"}},
		{"a system that froze for most of the run has failed in it", "error_rate < 5%", phase1(first(800, hit(), failed(timeline.Timeout))), Fail, []string{"at least"}},
		{"one that was cut off is wrong too", "wrong_responses <= 0", phase1(first(1, timeline.Outcome{Class: timeline.Transport, Truncated: true}, hit())), Fail, []string{"1 of 7,800 answers"}},
		{"one is too many", "wrong_responses <= 0", phase1(first(1, failed(timeline.Wrong), hit())), Fail, []string{"1 of 7,800 answers"}},
		{"what got no answer got no wrong one", "wrong_responses <= 0", phase1(first(800, failed(timeline.Timeout), hit())), Pass, []string{"none in 7,000 answers"}},
		{"nothing could be checked", "wrong_responses <= 0", phase1(always(timeline.Outcome{Cacheable: true})), Inconclusive, []string{"none could be checked"}},
		{"a stale one", "stale_responses < 1", phase1(first(1, timeline.Outcome{Proven: true, Stale: true}, hit())), Fail, nil},

		// Peaks, exact.
		{"below the limit", "memory <= 100MB", phase1(always(hit())), Pass, []string{"61 MB is the highest of 65 observations"}},
		{"once above it", "memory <= 100MB", run{seconds: 20, rate: 10, outcome: always(hit()), memory: func(s int) int64 { return 90e6 + int64(s/19)*20e6 }}, Fail,
			[]string{"110 MB is the highest of 20 observations; the gate asks for <= 100 MB"}},
		{"not ours to sample", "memory <= 100MB", run{seconds: 20, rate: 10, outcome: always(hit())}, Inconclusive, []string{"not sampled"}},
		{"longest", "max_latency < 1s", phase1(mix(9, 0.1, miss(), hit())), Pass, nil},
		{"longest so far", "max_latency < 1s", run{seconds: 20, rate: 10, outcome: always(hit()), unfinished: 3}, Inconclusive, []string{"need the outcome of 3 requests that have not finished"}},

		// Slopes.
		{"65 s don't decide growth", "memory_growth_rate < 10MB/hour", phase1(always(hit())), Inconclusive, []string{"sampled for 65 s", "10 MB/hour can be told from none after about", "need about"}},
		{"flat", "memory_growth_rate < 10MB/hour", run{seconds: 1200, rate: 1, outcome: always(hit()), memory: sawtooth(0)}, Pass, nil},
		{"a leak under a saw-tooth", "memory_growth_rate < 10MB/hour", run{seconds: 1200, rate: 1, outcome: always(hit()), memory: sawtooth(36e6)}, Fail,
			[]string{"memory_growth_rate is 36", "MB/hour", "at least"}},

		{"what this version can't measure", "trace_completeness > 95%", phase1(always(hit())), Inconclusive, []string{"collects no traces"}},
		{"a stage that didn't run", "hit_latency_improvement > 2164", phase1(always(hit())), Inconclusive, []string{"was not measured in this run"}},
		{"one arm only", "latency_improvement > 2", phase1(always(hit())), Inconclusive, []string{"old system"}},
	} {
		g := gateOn(t, tt.gate)
		j := Judge(g, tt.run.data(t, g), Look{})
		if j.Verdict != tt.verdict {
			t.Errorf("%s: %s: %s, want %s: %s", tt.why, tt.gate, j.Verdict, tt.verdict, j.Reason)
		}
		for _, part := range tt.reasons {
			if !strings.Contains(j.Reason, part) {
				t.Errorf("%s: %s: the reason lacks %q: %s", tt.why, tt.gate, part, j.Reason)
			}
		}
		consistent(t, g, j)
	}
}

// sawtooth is memory that collapses every 7 s, above a floor that grows by
// so many bytes per hour.
func sawtooth(perHour float64) func(int) int64 {
	return func(s int) int64 { return 60e6 + int64(s%7)*2e6 + int64(perHour*float64(s)/3600) }
}

// consistent holds of every judgement, whatever was judged.
func consistent(t interface {
	Helper()
	Errorf(format string, args ...any)
}, g scenario.Gate, j Judgement) {
	t.Helper()
	if j.Verdict != Pass && j.Reason == "" {
		t.Errorf("%s: %s without a reason", g.Text, j.Verdict)
	}
	if j.Verdict != Inconclusive && j.Value == nil {
		t.Errorf("%s: %s without a value", g.Text, j.Verdict)
	}
	for name, v := range map[string]*float64{"value": j.Value, "low": j.Low, "high": j.High} {
		if v != nil && (math.IsNaN(*v) || math.IsInf(*v, 0)) {
			t.Errorf("%s: %s is %g", g.Text, name, *v)
		}
	}
	if strings.Contains(j.Reason, "NaN") || strings.Contains(j.Reason, "Inf") {
		t.Errorf("%s: the reason says NaN: %s", g.Text, j.Reason)
	}
	if j.Low != nil && *j.Low > *j.Value || j.High != nil && *j.High < *j.Value {
		t.Errorf("%s: %v isn't between %v and %v", g.Text, *j.Value, j.Low, j.High)
	}
	// What is shown must show the verdict.
	if j.Low == nil || j.High == nil {
		return
	}
	near, far := *j.High, *j.Low
	if !atMost(g.Op) {
		near, far = far, near
	}
	// The end of a quantile's interval may be the threshold itself.
	at := func(v float64) bool { return g.Metric.Estimator == scenario.ByQuantile && v == g.Threshold }
	switch {
	case j.Verdict == Pass && !g.Holds(near) && !at(near):
		t.Errorf("%s: passed, and shows %g to %g", g.Text, *j.Low, *j.High)
	case j.Verdict == Fail && g.Holds(far) && !at(far):
		t.Errorf("%s: failed, and shows %g to %g", g.Text, *j.Low, *j.High)
	case j.Verdict == Inconclusive && !strings.Contains(j.Reason, "bottleneck") && !strings.Contains(j.Reason, "not finished") &&
		(g.Holds(near) && !at(near) || !g.Holds(far) && !at(far)):
		t.Errorf("%s: inconclusive, and shows %g to %g", g.Text, *j.Low, *j.High)
	}
}

func TestJudgeMissing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"memory <= 100MB", "error_rate < 1%", "p95_latency < 10ms", "throughput > 1/s", "wrong_responses <= 0",
		"memory_growth_rate < 10MB/hour", "cache_hit_ratio > 70%", "latency_improvement > 2", "hit_latency_improvement > 2", "rollback_time < 30s",
	} {
		g := gateOn(t, text)
		// Nothing at all was recorded.
		if j := Judge(g, Data{}, Look{}); j.Verdict != Inconclusive || j.Reason == "" || j.Value != nil {
			t.Errorf("%s without data: %+v", text, j)
		}
		// A window in which nothing happened.
		d := Data{Windows: map[string]timeline.Window{scenario.New: {}, scenario.Old: {}}}
		if j := Judge(g, d, Look{}); j.Verdict != Inconclusive || j.Reason == "" || j.Value != nil {
			t.Errorf("%s on an empty window: %+v", text, j)
		}
		// Not offered, though there is data: the reason is the harness's.
		d = run{seconds: 20, rate: 100, outcome: always(hit()), reads: tenth, memory: sawtooth(0)}.data(t, g)
		d.Missing = map[string]map[string]string{scenario.New: {g.Metric.Name: "it is a bare URL"}}
		if j := Judge(g, d, Look{}); j.Verdict != Inconclusive || j.Reason != "it is a bare URL" {
			t.Errorf("%s not offered: %+v", text, j)
		}
	}
}

// A limit that the recorder was not told of can't be judged exactly, so it isn't.
func TestJudgeUncountedThreshold(t *testing.T) {
	t.Parallel()
	d := run{seconds: 20, rate: 100, outcome: always(hit())}.data(t)
	if j := Judge(gateOn(t, "p95_latency < 10ms"), d, Look{}); j.Verdict != Inconclusive || !strings.Contains(j.Reason, "not counted") {
		t.Errorf("%+v", j)
	}
}

func TestJudgeMeasured(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		gate    string
		m       Measured
		verdict Verdict
		reason  string
	}{
		{"bounds above", "throughput_improvement > 42", Measured{Value: ptr(400.), Low: ptr(380.), High: ptr(420.), Samples: 200}, Pass, ""},
		{"bounds below", "throughput_improvement > 42", Measured{Value: ptr(30.), Low: ptr(28.), High: ptr(32.), Samples: 200}, Fail, "at most 32x"},
		{"bounds below, on a starved machine", "throughput_improvement > 42", Measured{Value: ptr(30.), Low: ptr(28.), High: ptr(32.), Samples: 200, Stolen: 0.1}, Inconclusive, "the machine was starved: 10 %"},
		{"between", "throughput_improvement > 42", Measured{Value: ptr(44.), Low: ptr(40.), High: ptr(48.), Samples: 200}, Inconclusive, "need 600 more samples, by sequential.direct"},
		{"few of one side", "throughput_improvement > 42", Measured{Value: ptr(44.), Samples: 203, Lacking: 7, LackingTime: 3300 * ms}, Inconclusive, "that takes 10 on either side; need 7 more samples (about 4 s)"},
		{"enough that differ too much", "throughput_improvement > 42", Measured{Value: ptr(44.), Samples: 210, Took: 5 * time.Second}, Inconclusive, "twice as many bound it better; need 210 more samples (about 5 s)"},
		{"no bounds", "throughput_improvement > 42", Measured{Value: ptr(400.), Samples: 1}, Inconclusive, "vary too much to bound it"},
		{"no value", "throughput_improvement > 42", Measured{}, Inconclusive, "was not measured"},
		{"not a number", "throughput_improvement > 42", Measured{Value: ptr(math.NaN()), Low: ptr(1.), High: ptr(2.), Samples: 5}, Inconclusive, "was not measured"},
		{"exact", "rollback_time < 30s", Measured{Value: ptr(4.), Samples: 1}, Pass, ""},
		{"exact and too long", "rollback_time < 30s", Measured{Value: ptr(31.), Samples: 1}, Fail, "rollback_time is 31s; the gate asks for < 30s"},
	} {
		g := gateOn(t, tt.gate)
		d := Data{Values: map[string]map[string]Measured{scenario.New: {g.Metric.Name: tt.m}}}
		j := Judge(g, d, Look{})
		if j.Verdict != tt.verdict || !strings.Contains(j.Reason, tt.reason) {
			t.Errorf("%s: %s: %s, want %s %q", tt.why, j.Verdict, j.Reason, tt.verdict, tt.reason)
		}
		consistent(t, g, j)
	}
}

func TestLooksShareTheErrorBudget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		look       Look
		confidence float64
		looks      int
		need       string
	}{
		{Look{}, 0.95, 1, "29,956"},
		{Look{Number: 1, Planned: 2, Confidence: 0.95}, 0.975, 1, "36,887"}, // one extension
		{Look{Number: 2, Planned: 2, Confidence: 0.95}, 0.975, 2, "36,887"}, // K was fixed before the run
		{Look{Number: 1, Planned: 1, Confidence: 0.99}, 0.99, 1, "46,050"},
		{Look{Number: -1, Planned: -1, Confidence: 7}, 0.95, 1, "29,956"},
	} {
		g := gateOn(t, "availability > 99.99%")
		d := run{seconds: 1, rate: 1, outcome: always(hit())}.data(t, g)
		j := Judge(g, d, tt.look)
		if math.Abs(j.Confidence-tt.confidence) > 1e-12 || j.Looks != tt.looks {
			t.Errorf("%+v: confidence %g, looks %d, want %g, %d", tt.look, j.Confidence, j.Looks, tt.confidence, tt.looks)
		}
		// One was seen, so the rest of the published number is missing.
		want := strings.NewReplacer("956", "955", "887", "886", "050", "049").Replace(tt.need)
		if !strings.Contains(j.Reason, "need "+want+" more requests") {
			t.Errorf("%+v: want %s more: %s", tt.look, want, j.Reason)
		}
	}
}

// every answers each n-th request with a, the others with b: a sample that goes
// on as it was.
func every(n int, a, b timeline.Outcome) func(int) timeline.Outcome {
	return func(i int) timeline.Outcome {
		if i%n == n-1 {
			return a
		}
		return b
	}
}

func TestLagBlamesTheGenerator(t *testing.T) {
	t.Parallel()
	slow := run{seconds: 20, rate: 100, outcome: mix(4, 0.31, miss(), hit())}
	fast := run{seconds: 20, rate: 100, outcome: always(hit())}
	sentLate := hit()
	sentLate.Latency += 9 * ms // by its due time, though not by its own send
	late := run{seconds: 20, rate: 100, outcome: mix(4, 0.31, sentLate, hit())}
	queued := hit() // fast, once it has a connection
	queued.Latency += time.Second
	inLine := run{seconds: 20, rate: 100, outcome: always(queued)}
	for _, tt := range []struct {
		why     string
		gate    string
		run     run
		lag     *time.Duration
		verdict Verdict
	}{
		{"lag above a tenth of 10 ms may have done it", "p95_latency < 10ms", late, ptr(1100 * time.Microsecond), Inconclusive},
		{"what takes longer than threshold and lag from its own send was slow by itself", "p95_latency < 10ms", slow, ptr(100 * ms), Fail},
		{"lag as long as a miss may have done it all", "p95_latency < 10ms", slow, ptr(500 * ms), Inconclusive},
		{"what stood in line for longer than lag and threshold was slow by itself", "p95_latency < 10ms", inLine, ptr(100 * ms), Fail},
		{"in four seconds too, which have no other bound", "p95_latency < 20ms", run{seconds: 4, rate: 100, outcome: always(miss())}, ptr(170 * ms), Fail},
		{"a tenth is allowed", "p95_latency < 10ms", slow, ptr(ms), Fail},
		{"unknown lag excuses nothing", "p95_latency < 10ms", slow, nil, Fail},
		{"lag can't make latency look better", "p95_latency < 10ms", fast, ptr(time.Second), Pass},
		{"but it can make a baseline look slow enough", "p50_latency > 1ms", fast, ptr(time.Second), Inconclusive},
		{"a mean is latency too", "mean_latency < 10ms", slow, ptr(2 * ms), Inconclusive},
		{"errors aren't late", "error_rate < 0.5%", run{seconds: 20, rate: 100, outcome: always(failed(timeline.Wrong))}, ptr(time.Second), Fail},
	} {
		g := gateOn(t, tt.gate)
		d := tt.run.data(t, g)
		d.LagP99 = tt.lag
		j := Judge(g, d, Look{})
		if j.Verdict != tt.verdict {
			t.Errorf("%s: %s, want %s: %s", tt.why, j.Verdict, tt.verdict, j.Reason)
		}
		if blamed := strings.HasPrefix(j.Reason, "the load generator was the bottleneck"); blamed != (tt.verdict == Inconclusive) {
			t.Errorf("%s: %s", tt.why, j.Reason)
		}
		consistent(t, g, j)
	}
}

// A pass on a starved machine is a pass; a failure must be one that no
// processor would have mended.
func TestStarvedMachine(t *testing.T) {
	t.Parallel()
	slow, refused := hit(), failed(timeline.Transport)
	slow.Latency, slow.Service = 30*ms, 30*ms
	refused.Latency = 5 * time.Second // as the generator counts it
	for _, tt := range []struct {
		why     string
		outcome func(int) timeline.Outcome
		stolen  float64
		want    Verdict
	}{
		{"slow hits fail on a machine of one's own", mix(4, 0.31, slow, hit()), MaxStolen, Fail},
		{"slow hits prove nothing on a starved one", mix(4, 0.31, slow, hit()), 0.2, Inconclusive},
		{"misses do", mix(4, 0.31, miss(), hit()), 0.2, Fail},
		{"so do requests without an answer", mix(4, 0.31, refused, hit()), 0.2, Fail},
		{"fast hits are fast", always(hit()), 0.2, Pass},
	} {
		g := gateOn(t, "p95_latency < 10ms")
		d := run{seconds: 20, rate: 100, outcome: tt.outcome}.data(t, g)
		d.Stolen = tt.stolen
		if j := Judge(g, d, Look{}); j.Verdict != tt.want {
			t.Errorf("%s: %s, want %s: %s", tt.why, j.Verdict, tt.want, j.Reason)
		}
	}
}

// The replay of a log is cold, and that alone may decide a quantile.
func TestColdCacheIsNamed(t *testing.T) {
	t.Parallel()
	g := gateOn(t, "p95_latency < 10ms")
	d := run{seconds: 20, rate: 100, outcome: mix(4, 0.31, miss(), hit())}.data(t, g)
	for _, tt := range []struct {
		why   string
		first int64
		named bool
	}{
		{"15 % first requests make p95 a miss", 300, true},
		{"4 % don't", 80, false},
		{"nor does a warm cache", 0, false},
	} {
		d.Cold = map[string]Cold{scenario.New: {First: tt.first, Requests: 2000}}
		j := Judge(g, d, Look{})
		if named := strings.Contains(j.Reason, "so p95 is a miss"); named != tt.named {
			t.Errorf("%s: %s", tt.why, j.Reason)
		}
	}
}

// What holds up the load generator or the machine holds up the faster system by
// more of what it takes, so a ratio that is too small proves nothing then.
func TestImprovementIsExcusedToo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, gate string
		stolen    float64
		lag       time.Duration
		want      Verdict
		says      string
	}{
		{"a machine of one's own", "latency_improvement > 100", MaxStolen, 100 * time.Microsecond, Fail, "at most"},
		{"a starved one", "latency_improvement > 100", 0.2, 100 * time.Microsecond, Inconclusive, "need a machine of which others take at most 2 %"},
		{"late by more than a tenth of 4.64 ms", "latency_improvement > 100", 0, 20 * ms, Inconclusive, "more than a tenth of 4.64ms; otherwise: latency_improvement is"},
		{"a ratio that is kept is kept", "latency_improvement > 10", 0.2, 20 * ms, Pass, ""},
		{"one that must be small may only look so", "latency_improvement < 100", 0.2, 20 * ms, Inconclusive, "starved"},
	} {
		g := gateOn(t, tt.gate)
		d := run{seconds: 30, rate: 20, outcome: mix(2, 0.02, miss(), hit())}.data(t, g)
		d.Windows[scenario.Old] = run{seconds: 30, rate: 100, outcome: always(miss())}.window(t)
		d.Stolen, d.LagP99 = tt.stolen, &tt.lag
		if j := Judge(g, d, Look{}); j.Verdict != tt.want || !strings.Contains(j.Reason, tt.says) {
			t.Errorf("%s: %s, want %s: %s", tt.why, j.Verdict, tt.want, j.Reason)
		}
	}
}

func TestLatencyImprovement(t *testing.T) {
	t.Parallel()
	old := run{seconds: 30, rate: 100, outcome: mix(1, 0.999, miss(), hit())}
	g := gateOn(t, "latency_improvement > 10")
	d := run{seconds: 30, rate: 20, outcome: mix(2, 0.02, miss(), hit())}.data(t, g)
	d.Windows[scenario.Old] = old.window(t)
	j := Judge(g, d, Look{})
	if j.Verdict != Pass || *j.Value < 30 || *j.Value > 60 || *j.Low <= 10 {
		t.Errorf("%+v", j)
	}
	consistent(t, g, j)
}

func TestEstimateCoversTheCatalogue(t *testing.T) {
	t.Parallel()
	full := run{seconds: 120, rate: 50, outcome: mix(3, 0.02, miss(), hit()), reads: tenth, memory: sawtooth(0)}
	d := full.data(t)
	d.Windows[scenario.Old] = full.window(t)
	d.Values = map[string]map[string]Measured{scenario.New: {
		"hit_latency_improvement": {Value: ptr(2500.)}, "throughput_improvement": {Value: ptr(2400.)},
	}}
	bare := Data{Windows: map[string]timeline.Window{scenario.New: {}}}
	// No TLS in this run, and nobody tells of circuit breakers.
	absent := map[string]bool{"negotiation_success": true, "client_negotiation_success": true, "claimed_open_breakers": true}
	for _, m := range scenario.All() {
		v, missing := Estimate(m, scenario.New, d)
		if (v == nil) == (missing == "") {
			t.Errorf("%s: value %v, missing %q: exactly one is due", m.Name, v, missing)
		}
		if want := m.Source != scenario.FromNowhere && !absent[m.Name]; (v != nil) != want {
			t.Errorf("%s: value %v (%s), want one: %t", m.Name, v, missing, want)
		}
		if v, missing := Estimate(m, scenario.New, bare); v != nil || missing == "" {
			t.Errorf("%s of an empty window: %v, %q", m.Name, v, missing)
		}
		if v, missing := Estimate(m, "nobody", d); m.Name != "latency_improvement" && (v != nil || missing == "") {
			t.Errorf("%s of an unknown system: %v, %q", m.Name, v, missing)
		}
		part, all, of, ok := Counted(m, scenario.New, d)
		if want := v != nil && m.Estimator == scenario.ByShare; ok != want || ok && (of == "" || math.Abs(float64(part)/float64(all)-*v) > 1e-9) {
			t.Errorf("%s: %d of %d %q counted, %t; the value is %v", m.Name, part, all, of, ok, v)
		}
		if _, _, _, ok := Counted(m, scenario.New, bare); ok {
			t.Errorf("%s of an empty window was counted", m.Name)
		}
		// A gate's value is the table's.
		g := scenario.Gate{Condition: scenario.Condition{Metric: m, Op: scenario.Less, Threshold: 0.5}, System: scenario.New}
		if m.Estimator != scenario.ByQuantile {
			if j := Judge(g, d, Look{}); v != nil && (j.Value == nil || math.Abs(*j.Value-*v) > 1e-9**v) {
				t.Errorf("%s: the gate says %v, the table %v", m.Name, j.Value, *v)
			}
		}
	}
	if v, missing := Estimate(scenario.Metric{Name: "made_up"}, scenario.New, d); v != nil || missing == "" {
		t.Errorf("an unknown metric: %v, %q", v, missing)
	}
}

func TestThresholds(t *testing.T) {
	t.Parallel()
	gates := []scenario.Gate{gateOn(t, "p95_latency < 10ms"), gateOn(t, "p99_latency <= 10ms"), gateOn(t, "p50_latency >= 400ms"), gateOn(t, "error_rate < 1%"), gateOn(t, "mean_latency < 1s")}
	triggers := []scenario.Trigger{{Condition: condition(t, "p95_latency > 50ms")}, {Condition: condition(t, "p50_latency < 10ms")}}
	want := []time.Duration{10 * ms, 10*ms + 1, 50*ms + 1, 400 * ms}
	if got := Thresholds(gates, triggers); !cmp.Equal(got, want) {
		t.Errorf("Thresholds = %v, want %v", got, want)
	}
	if got := Thresholds(nil, nil); len(got) != 0 {
		t.Errorf("Thresholds of nothing = %v", got)
	}
}

// What is shown of a quantile is on the side of the threshold on which the
// exact counts say it is, though the histogram rounds to three digits.
func TestQuantileIsShownOnItsSide(t *testing.T) {
	t.Parallel()
	m, _ := scenario.Lookup("p95_latency")
	for _, tt := range []struct {
		latency, threshold time.Duration
		verdict            Verdict
	}{
		{2_000_400, 2_000_400, Fail},   // 2.0004 ms, recorded as 2.000 ms
		{2_000_399, 2_000_400, Pass},   //
		{9_999_900, 10_000_000, Pass},  // recorded as 10.000 ms, in a bucket that ends at 10.007
		{10_000_000, 10_000_000, Fail}, //
	} {
		g := scenario.Gate{Condition: scenario.Condition{Metric: m, Op: scenario.Less, Threshold: tt.threshold.Seconds()}, System: scenario.New}
		d := run{seconds: 10, rate: 100, outcome: always(timeline.Outcome{Latency: tt.latency})}.data(t, g)
		j := Judge(g, d, Look{})
		if above := *j.Value >= g.Threshold; j.Verdict != tt.verdict || (tt.verdict == Fail && !above) || (tt.verdict == Pass && *j.Value > g.Threshold) {
			t.Errorf("%v against %v: %s with a value of %g s", tt.latency, tt.threshold, j.Verdict, *j.Value)
		}
		consistent(t, g, j)
	}
}

// Handshakes of the client's leg are judged by their own number, in the interval
// in which they began.
func TestClientNegotiation(t *testing.T) {
	t.Parallel()
	condition, err := scenario.ParseCondition("client_negotiation_success > 95%")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		good, failed int
		want         Verdict
		samples      int64
		reason       string
	}{
		{59, 0, Pass, 59, ""},
		{58, 0, Inconclusive, 58, "need "},
		{50, 10, Fail, 60, ""},
		{0, 0, Inconclusive, 0, "no TLS handshake with the system"},
	} {
		rec, err := timeline.New(timeline.Config{Systems: []string{scenario.New}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range tt.good + tt.failed {
			rec.Handshake(0, time.Duration(i%10)*time.Second, i >= tt.failed)
		}
		rec.Handshake(0, 11*time.Second, false) // after the window
		data := Data{Windows: map[string]timeline.Window{scenario.New: rec.Window(0, 0, 10*time.Second)}}
		j := Judge(scenario.Gate{Condition: condition, System: scenario.New}, data, Look{Number: 1, Planned: 1, Confidence: 0.95})
		if j.Verdict != tt.want || j.Samples != tt.samples || !strings.Contains(j.Reason, tt.reason) {
			t.Errorf("%d of %d: %+v", tt.good, tt.good+tt.failed, j)
		}
	}
}
