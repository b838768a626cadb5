package gate

import (
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
)

// Power is the probability with which [Need.Power] decides a gate.
const Power = 0.9

// SlopeWindow is the shortest time in which a slope of memory can be bounded,
// and the shortest window in which a trigger sees one.
const SlopeWindow = leastSpan

// Need is the sample that a gate's rule asks for, before anything has been
// measured. Samples are counted in what the metric is a share of (see Of), as
// if each failed independently of the others: failures that come in bursts
// need more.
type Need struct {
	Of         string  // "requests", "cacheable requests", …; "" where the metric isn't counted
	Confidence float64 // of one look
	// Allowed is the share of bad ones that the gate allows: 0.05 for
	// p95_latency < T, 0.0005 for availability > 99.95%. 0 where the metric is
	// no share, or where no sample can show what is claimed.
	Allowed float64
	Clean   int64 // decide the gate if none is bad …
	OneBad  int64 // … and if one is; 0 for none of a sensible size
	// Power decides the gate with probability [Power] if the true share of bad
	// ones is Truth, half of what is allowed.
	Power int64
	Truth float64

	Intervals int           // with a sample, for a bound; 0 for rules without one
	Length    time.Duration // of the steady state, for a bound on a slope; 0 for other rules
}

// NeedOf returns what a gate needs at a look.
func NeedOf(g scenario.Gate, look Look) Need {
	n := Need{Of: counted(g.Metric), Confidence: look.level(), Intervals: leastIntervals(g.Condition, look)}
	switch g.Metric.Estimator {
	case scenario.ByShare, scenario.ByQuantile:
		n.Allowed = allowed(g.Condition)
		if !(n.Allowed > 0 && n.Allowed < 1) {
			n.Allowed = 0
			return n
		}
		n.Truth = n.Allowed / 2
		n.Clean = stat.SampleFor(0, n.Allowed, n.Confidence)
		n.OneBad = stat.SampleFor(1, n.Allowed, n.Confidence)
		n.Power, _ = stat.SampleForPower(n.Truth, n.Allowed, Power, n.Confidence)
	case scenario.ByCount:
		n.Clean = 1
	case scenario.BySlope:
		n.Length, _ = leastLength(g.Threshold)
	}
	return n
}

// leastIntervals is how many intervals with a sample a claim's bound is made
// from, so that how much they depend on each other can be seen. It is 0 for claims
// that need none: one about its window itself, or that nothing be bad at all.
func leastIntervals(c scenario.Condition, look Look) int {
	switch c.Metric.Estimator {
	case scenario.ByShare, scenario.ByQuantile:
		if a := allowed(c); look.Whole || !(a > 0 && a < 1) {
			return 0
		}
	case scenario.ByMean:
	default:
		return 0
	}
	return stat.MinIntervals
}

// allowed is the share of bad ones that a claim about a share allows. Of
// "p95 < T" those that take T or longer are bad, of "p95 > T" the others.
func allowed(c scenario.Condition) float64 {
	limit := c.Threshold
	if c.Metric.Estimator == scenario.ByQuantile {
		limit = 1 - c.Metric.Quantile
	}
	if !atMost(c.Op) {
		limit = 1 - limit
	}
	return limit
}

// counted names what a metric that is a share or a count is of.
func counted(m scenario.Metric) string {
	switch {
	case m.Estimator == scenario.ByQuantile, m.Estimator == scenario.ByCount:
		return ofRequests
	case m.Estimator != scenario.ByShare:
		return ""
	}
	switch m.Name {
	case "cache_hit_ratio", "revalidation_ratio", "blocking_ratio":
		return ofCacheable
	case "http2_adoption", "connection_reuse":
		return ofUpstream
	case "negotiation_success", "client_negotiation_success":
		return "TLS handshakes"
	case "duplicate_fetches":
		return "upstream reads"
	case "claimed_hit_ratio", "false_hit_ratio":
		return "answers that claim to be a hit or a miss"
	}
	return ofRequests
}

// Effect is the design effect of a gate's sample: so many times fewer independent
// requests it counts as, since its bad ones come together. 1 for what is no share.
func Effect(g scenario.Gate, d Data, look Look) float64 {
	c := newClaim(g, d, look)
	var t tally
	switch g.Metric.Estimator {
	case scenario.ByQuantile:
		t = c.overs()
	case scenario.ByShare:
		t, _ = tallyOf(c.Metric, &c.window)
	}
	if !atMost(c.Op) {
		t = t.complement()
	}
	return stat.DesignEffect(t.counts, c.level)
}
