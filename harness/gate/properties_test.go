package gate

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// order of verdicts, from bad to good
var rank = map[Verdict]int{Fail: 0, Inconclusive: 1, Pass: 2}

func TestJudgeProperties(t *testing.T) {
	t.Parallel()
	decided := 0
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
			j := Judge(g, Data{Windows: map[string]timeline.Window{scenario.New: w}}, Look{Planned: planned, Confidence: 0.95, Whole: true}) // independent, in one second
			consistent(rt, g, j)
			if j.Verdict != Inconclusive {
				decided++
			}
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
	if decided == 0 {
		t.Error("nothing was decided")
	}
}
