package gate

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// simulated is a window of 65 seconds at 120/s in which requests are bad at the
// given rates per second. A bad one is both an error and 20 ms slow.
func simulated(rng *rand.Rand, rates []float64) timeline.Window {
	const n, limit = 120, 10 * ms
	w := timeline.Window{
		Seconds: float64(len(rates)), Limits: []time.Duration{limit}, Over: map[time.Duration]int64{},
		Latency: timeline.NewHistogram(), Intervals: make([]timeline.Interval, len(rates)),
	}
	for i, p := range rates {
		bad, scale := int64(-1), math.Log1p(-p)
		for at := 0.0; at <= n; bad++ {
			at += math.Floor(math.Log(1-rng.Float64())/scale) + 1
		}
		in := &w.Intervals[i]
		in.Start, in.End = time.Duration(i)*time.Second, time.Duration(i+1)*time.Second
		in.Requests, in.Offered = n, n
		in.Class[timeline.OK], in.Class[timeline.Status] = n-bad, bad
		in.Over = []int64{bad}
		w.Requests, w.Offered = w.Requests+n, w.Offered+n
		w.Class[timeline.OK] += n - bad
		w.Class[timeline.Status] += bad
		w.Over[limit] += bad
	}
	w.MaxLatency = 20 * ms
	_ = w.Latency.RecordValues(2000, w.Class[timeline.OK])
	_ = w.Latency.RecordValues(20_000, w.Class[timeline.Status])
	return w
}

// Gates whose truth is exactly at the threshold may pass in one run of twenty,
// and fail in one of twenty. What is judged here is what a run's engine calls.
func TestCalibration(t *testing.T) {
	t.Parallel()
	const runs, seed = 200, 17
	limit := 0.05 + 3*math.Sqrt(0.05*0.95/runs)
	steady := func(p float64) func(*rand.Rand) []float64 {
		return func(*rand.Rand) []float64 {
			rates := make([]float64, 65)
			for i := range rates {
				rates[i] = p
			}
			return rates
		}
	}
	autoregressive := func(p, rho, sigma float64) func(*rand.Rand) []float64 {
		return func(rng *rand.Rand) []float64 {
			rates := make([]float64, 65)
			x := rng.NormFloat64()
			for i := range rates {
				x = rho*x + math.Sqrt(1-rho*rho)*rng.NormFloat64()
				rates[i] = p * math.Exp(sigma*x-sigma*sigma/2)
			}
			return rates
		}
	}
	for _, tt := range []struct {
		family, gate string
		rates        func(*rand.Rand) []float64
	}{
		{"independent", "error_rate < 0.5%", steady(0.005)},
		{"independent", "availability > 99.5%", steady(0.005)},
		{"independent", "p95_latency < 10ms", steady(0.05)},
		{"AR(1)", "p95_latency < 10ms", autoregressive(0.05, 0.5, 0.3)},
		{"seconds vary", "p95_latency < 10ms", autoregressive(0.05, 0, 0.7)},
	} {
		rng := rand.New(rand.NewPCG(seed, 0))
		g := gateOn(t, tt.gate)
		passes, failures := 0, 0
		for range runs {
			w := simulated(rng, tt.rates(rng))
			if g.Metric.Name == "availability" {
				moveClass(&w, timeline.Status, timeline.ServerError)
			}
			j := Judge(g, Data{Windows: map[string]timeline.Window{scenario.New: w}}, Look{})
			switch j.Verdict {
			case Pass:
				passes++
			case Fail:
				failures++
			}
		}
		p, f := float64(passes)/runs, float64(failures)/runs
		t.Logf("%-12s %-22s false passes %.3f, false failures %.3f", tt.family, tt.gate, p, f)
		if p > limit || f > limit {
			t.Errorf("%s, %s, seed %d: false passes %.3f, false failures %.3f of %d, want at most %.3f", tt.family, tt.gate, seed, p, f, runs, limit)
		}
		// A gate that never decides anything would be calibrated too.
		if p+f < 0.005 {
			t.Errorf("%s, %s, seed %d: nothing was ever decided", tt.family, tt.gate, seed)
		}
		// Half of the threshold is seen as such, nearly always.
		passes = 0
		for range 50 {
			rates := tt.rates(rng)
			for i := range rates {
				rates[i] /= 2
			}
			w := simulated(rng, rates)
			if g.Metric.Name == "availability" {
				moveClass(&w, timeline.Status, timeline.ServerError)
			}
			if Judge(g, Data{Windows: map[string]timeline.Window{scenario.New: w}}, Look{}).Verdict == Pass {
				passes++
			}
		}
		if passes < 35 {
			t.Errorf("%s, %s, seed %d: at half the threshold only %d of 50 passed", tt.family, tt.gate, seed, passes)
		}
	}
}

func moveClass(w *timeline.Window, from, to timeline.Class) {
	w.Class[to], w.Class[from] = w.Class[from], 0
	for i := range w.Intervals {
		c := &w.Intervals[i].Counts
		c.Class[to], c.Class[from] = c.Class[from], 0
	}
}

// order of verdicts, from bad to good
var rank = map[Verdict]int{Fail: 0, Inconclusive: 1, Pass: 2}

func TestJudgeProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		// From two on: the lower bound from one of one is 5 % exactly, give or take a bit.
		n := rapid.Int64Range(2, 100_000).Draw(rt, "requests")
		bad := rapid.Int64Range(0, n).Draw(rt, "bad")
		worse := rapid.Int64Range(0, n-bad).Draw(rt, "worse by")
		threshold := rapid.Float64Range(0.0001, 0.9999).Draw(rt, "threshold")
		op := rapid.SampledFrom([]scenario.Op{scenario.Less, scenario.LessEqual, scenario.Greater, scenario.GreaterEqual}).Draw(rt, "op")
		metric := rapid.SampledFrom([]string{"error_rate", "p95_latency"}).Draw(rt, "metric")
		planned := rapid.IntRange(1, 4).Draw(rt, "looks")

		m, _ := scenario.Lookup(metric)
		g := scenario.Gate{Condition: scenario.Condition{Metric: m, Op: op, Threshold: threshold}, System: scenario.New}
		at := limit(g.Condition)
		verdict := func(bad int64, planned int) Verdict {
			w := timeline.Window{Over: map[time.Duration]int64{at: bad}, Limits: []time.Duration{at}, Latency: timeline.NewHistogram()}
			w.Requests, w.Class[timeline.OK], w.Class[timeline.Status] = n, n-bad, bad
			w.MaxLatency = 2 * time.Second
			// Good requests are just short of the threshold, bad ones beyond it.
			_ = w.Latency.RecordValues((at - 1).Microseconds(), n-bad)
			_ = w.Latency.RecordValues(2_000_000, bad)
			j := Judge(g, Data{Windows: map[string]timeline.Window{scenario.New: w}}, Look{Planned: planned, Confidence: 0.95})
			consistent(rt, g, j)
			return j.Verdict
		}
		v, w := verdict(bad, planned), verdict(bad+worse, planned)
		if d := rank[w] - rank[v]; atMost(op) && d > 0 || !atMost(op) && d < 0 {
			rt.Fatalf("%s %s %g: %s with %d of %d, %s with %d", metric, op, threshold, v, bad, n, w, bad+worse)
		}
		// More looks ask for more evidence, and never turn a verdict around.
		if more := verdict(bad, planned+1); more != v && more != Inconclusive {
			rt.Fatalf("%s with %d looks, %s with one more", v, planned, more)
		}
		// A claim and its opposite are never both upheld, nor both refuted.
		opposite := map[scenario.Op]scenario.Op{scenario.Less: scenario.GreaterEqual, scenario.LessEqual: scenario.Greater, scenario.Greater: scenario.LessEqual, scenario.GreaterEqual: scenario.Less}
		g.Op = opposite[op]
		if not := verdict(bad, planned); rank[v]+rank[not] != 2 {
			rt.Fatalf("%s %s %g is %s, and its opposite %s", metric, op, threshold, v, not)
		}
	})
}
