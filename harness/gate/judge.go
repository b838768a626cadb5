package gate

import (
	"fmt"
	"math"
	"strings"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
	"phasegate/harness/timeline"
)

// claim is a condition with what is needed to judge it.
type claim struct {
	scenario.Condition
	data    Data
	window  timeline.Window
	level   float64 // of the one-sided bounds …
	failing float64 // … but of the one by which a share or a quantile fails
	rate    float64 // requests per second, 0 if unknown
	cold    Cold
}

// atMost reports whether the claim limits the metric from above.
func atMost(op scenario.Op) bool { return op == scenario.Less || op == scenario.LessEqual }

// decide compares bounds with the threshold.
func decide(c scenario.Condition, low, high float64) Verdict {
	near, far := high, low // the bound that must hold, and the one that must not be refuted
	if !atMost(c.Op) {
		near, far = low, high
	}
	switch {
	case c.Holds(near):
		return Pass
	case !c.Holds(far):
		return Fail
	default:
		return Inconclusive
	}
}

// bounds of a share that is claimed to stay below (or above) a limit.
type bounds struct {
	low, high, effect float64
	verdict           Verdict
	changes           []int // intervals with which the run changed its level, if it failed in spite of that
	more              int64 // of n, until it is decided …
	decidable         bool  // … if that many are known
}

// judgeShare judges that the share of t keeps to a limit. It always reasons
// about the bad ones, which are few: for a lower limit, about the rest of n.
// Requests whose end isn't known are bad for a pass and don't count for a
// failure.
func (c claim) judgeShare(t tally, limit float64) bounds {
	op, bad := c.Op, t
	if !atMost(op) {
		bad, limit = t.complement(), 1-limit
	}
	effect := stat.DesignEffect(bad.counts, c.level)
	effectFailing, changes := effect, []int(nil)
	if bad.k > limit*bad.n || c.failing != c.level {
		effectFailing, changes = stat.RunDesignEffect(bad.counts, c.failing)
	}
	low := stat.ClusteredLower(bad.k, bad.n, effectFailing, c.failing)
	high := stat.ClusteredUpper(bad.k+bad.unknown, bad.n+bad.unknown, effect, c.level)
	b := bounds{low: low, high: high, effect: effect}
	strict := scenario.Less
	if op == scenario.LessEqual || op == scenario.GreaterEqual {
		strict = scenario.LessEqual
	}
	b.verdict = decide(scenario.Condition{Op: strict, Threshold: limit}, low, high)
	if b.verdict == Inconclusive && limit > 0 && bad.k > limit*bad.n {
		// A run that went over from good to bad and back more often than its levels
		// can be told has still failed, if the watch's own test says that it has
		// spent more than its allowance, however its seconds differ.
		if spent, whole := bad.bySecond(), limit*(bad.n+bad.unknown); stat.AnytimeBeyond(spent, len(spent), whole, c.failing) {
			b.verdict = Fail
			low = stat.AnytimeLower(spent, len(spent), c.failing) / (bad.n + bad.unknown)
			b.low = low
		}
	} else if b.verdict == Fail {
		b.effect, b.changes = effectFailing, changes
	}
	if b.verdict == Inconclusive && bad.unknown == 0 {
		if k := min(bad.k, bad.n); k < limit*bad.n {
			b.more, b.decidable = stat.More(k, bad.n, effect, limit, c.level)
		} else {
			b.more, b.decidable = stat.More(k, bad.n, effectFailing, limit, c.failing)
		}
	}
	if !atMost(op) {
		b.low, b.high = 1-high, 1-low
	}
	return b
}

func (c claim) share() Judgement {
	t, missing := tallyOf(c.Metric, &c.window)
	if missing != "" {
		return inconclusive(missing)
	}
	b := c.judgeShare(t, c.Threshold)
	value := t.share()
	j := Judgement{Value: &value, Low: &b.low, High: &b.high, Samples: int64(t.n), Verdict: b.verdict}
	seen := fmt.Sprintf("%s (%s of %s %s%s)", formatShare(value), formatCount(t.k), formatCount(t.n), t.of, clustered(t.n, b.effect))
	switch {
	case b.verdict == Pass:
	case b.verdict == Fail && atMost(c.Op):
		j.Reason = fmt.Sprintf("%s is %s, at least %s at %s confidence%s; %s",
			c.Metric.Name, seen, formatShare(b.low), formatShare(c.failing), c.changed(t, b), c.asks())
	case b.verdict == Fail:
		j.Reason = fmt.Sprintf("%s is %s, at most %s at %s confidence%s; %s",
			c.Metric.Name, seen, formatShare(b.high), formatShare(c.failing), c.changed(t, b), c.asks())
		if first := c.cold.share(); c.Metric.Name == "cache_hit_ratio" && !c.Holds(1-first) {
			j.Reason += fmt.Sprintf("; %s of the requests were the first for their target, so a cold cache can't hit more than %s", formatShare(first), formatShare(1-first))
		}
	default:
		j.Reason = fmt.Sprintf("%s is %s, between %s and %s; %s; %s",
			c.Metric.Name, seen, formatShare(b.low), formatShare(b.high), c.asks(), c.undecided(t, b))
	}
	return j
}

func (c claim) quantile() Judgement {
	w := &c.window
	at := limit(c.Condition)
	_, counted := w.Over[at]
	value, ok := timeline.Quantile(w.Latency, c.Metric.Quantile)
	switch {
	case w.Requests == 0 || !ok:
		return inconclusive(noRequests(w))
	case !counted:
		return inconclusive(fmt.Sprintf("requests of %v and longer were not counted as they arrived", at))
	}
	t := c.overs()
	// p95 < T says that fewer than 5 % took T or longer.
	allowed := 1 - c.Metric.Quantile
	b := c.judgeShare(t, allowed)
	v := min(value, w.MaxLatency).Seconds()
	// The histogram knows three digits of it; the counts, on which side of the
	// threshold it lies.
	if t.k <= allowed*t.n+1e-9 {
		v = min(v, c.Threshold)
	} else {
		v = max(v, c.Threshold)
	}
	j := Judgement{Value: &v, Samples: w.Requests, Verdict: b.verdict}
	c.orderStatistics(&j, b)
	if b.verdict == Pass {
		return j
	}
	confidence := c.level
	if b.verdict == Fail {
		confidence = c.failing
	}
	var r strings.Builder
	fmt.Fprintf(&r, "p%s is %s: %s of %s requests took %s (%s to %s at %s confidence%s)%s", c.percentile(), formatSeconds(v),
		formatShare(t.share()), formatCount(t.n), c.tooLong(), formatShare(b.low), formatShare(b.high), formatShare(confidence), clustered(t.n, b.effect), c.changed(t, b))
	if w.Proven > 0 && w.Blocking > 0 {
		fmt.Fprintf(&r, "; %s of %s requests waited for the upstream (%s on average)",
			formatShare(float64(w.Blocking)/float64(w.Requests)), formatCount(t.n), formatSeconds(w.BlockingSum/float64(w.Blocking)))
	}
	if atMost(c.Op) {
		fmt.Fprintf(&r, "; %s allows fewer than %s", c.text(), formatShare(allowed))
	} else {
		fmt.Fprintf(&r, "; %s needs more than %s", c.text(), formatShare(allowed))
	}
	if b.verdict == Inconclusive {
		r.WriteString("; " + c.undecided(t, b))
	}
	if first := c.cold.share(); first > allowed && atMost(c.Op) {
		fmt.Fprintf(&r, "; %s of the requests were the first for their target, and a cold cache can't hit those, so p%s is a miss", formatShare(first), c.percentile())
	}
	j.Reason = r.String()
	return j
}

// overs counts the requests that took as long as the threshold's limit.
func (c claim) overs() tally {
	w, at := &c.window, limit(c.Condition)
	t := tally{k: float64(w.Over[at]), n: float64(w.Requests), unknown: float64(w.Pending()), of: ofRequests}
	for i, index := 0, indexOf(w.Limits, at); i < len(w.Intervals) && index >= 0; i++ {
		in := &w.Intervals[i]
		t.counts = append(t.counts, stat.Count{K: float64(in.Over[index]), N: float64(in.Requests)})
	}
	return t
}

// orderStatistics sets the interval shown beside a quantile.
func (c claim) orderStatistics(j *Judgement, b bounds) {
	w, allowed, value := &c.window, 1-c.Metric.Quantile, *j.Value
	n := math.Floor(float64(w.Requests) / b.effect)
	lowRank, highRank := stat.QuantileRanks(int64(n), c.Metric.Quantile, c.level)
	at := func(rank int64) float64 {
		q, _ := timeline.Quantile(w.Latency, float64(rank)/n)
		return min(q, w.MaxLatency).Seconds()
	}
	// What the counts say about the threshold holds for the bounds too.
	above, below := b.low > allowed, b.high < allowed
	if lowRank > 0 || above {
		low := c.Threshold
		if lowRank > 0 {
			low = min(at(lowRank), value)
		}
		if above {
			low = max(low, c.Threshold)
		} else {
			low = min(low, c.Threshold)
		}
		j.Low = &low
	}
	if highRank > 0 || below {
		high := c.Threshold
		if highRank > 0 {
			high = max(at(highRank), value)
		}
		if below {
			high = min(high, c.Threshold)
		} else {
			high = max(high, c.Threshold)
		}
		j.High = &high
	}
}

func (c claim) mean() Judgement {
	s, missing := seriesOf(c.Metric, c.data, &c.window)
	if missing != "" {
		return inconclusive(missing)
	}
	e, ok := s.estimate(c.level)
	if !ok {
		return inconclusive(c.Metric.Name + " would be a division by zero")
	}
	j := Judgement{Value: &e.Value, Samples: s.samples, Verdict: Inconclusive}
	run, _ := s.run(c.level)
	switch have := s.intervals(); {
	case run.Bounded && decide(c.Condition, run.Low, run.High) == Fail:
		j.Low, j.High, j.Verdict = &run.Low, &run.High, Fail
	case e.Bounded:
		j.Low, j.High = &e.Low, &e.High
		j.Verdict = decide(c.Condition, e.Low, e.High)
	case have < stat.MinIntervals:
		j.Reason = fmt.Sprintf("%s is %s; a bound needs at least %d intervals with a sample, and there are %d",
			c.Metric.Name, c.format(e.Value), stat.MinIntervals, have)
		if each := c.window.Seconds / float64(len(c.window.Intervals)); c.rate > 0 && each > 0 {
			j.Reason += "; " + c.needMore(math.Ceil(c.rate*each*float64(stat.MinIntervals-have)))
		}
		return j
	default:
		j.Reason = fmt.Sprintf("%s is %s, and its intervals vary too much to bound it; twice as many bound it better: %s",
			c.Metric.Name, c.format(e.Value), c.needMore(float64(c.window.Requests)))
		return j
	}
	if j.Verdict == Pass && s.unknown > 0 {
		j.Verdict = Inconclusive
		j.Reason = needEnds(float64(s.unknown))
		return j
	}
	c.explainBounds(&j, func(factor float64) string {
		// The width of the bounds falls with the root of the sample.
		return c.needMore(math.Ceil(float64(c.window.Requests) * (factor*factor - 1)))
	})
	return j
}

// intervals is how many intervals carry a sample.
func (s series) intervals() int {
	filled := func(pairs []stat.Pair) (n int) {
		for _, p := range pairs {
			if p.Den > 0 {
				n++
			}
		}
		return n
	}
	if s.by != nil {
		return min(filled(s.pairs), filled(s.by))
	}
	return filled(s.pairs)
}

func (c claim) count() Judgement {
	n, missing := countOf(c.Metric, &c.window)
	if missing != "" {
		return inconclusive(missing)
	}
	v, total := float64(n), float64(c.window.Requests)
	j := Judgement{Value: &v, Samples: c.window.Requests, Verdict: Fail}
	if c.Holds(v) {
		j.Verdict = Pass
	}
	share := stat.Upper(v, total, c.level)
	if n == 0 {
		j.Reason = fmt.Sprintf("none in %s requests, so at %s confidence fewer than %s of all", formatCount(total), formatShare(c.level), formatShare(share))
	} else {
		j.Reason = fmt.Sprintf("%s of %s requests, so at %s confidence up to %s of all; %s", formatCount(v), formatCount(total), formatShare(c.level), formatShare(share), c.asks())
	}
	if unknown := c.window.Pending(); j.Verdict == Pass && unknown > 0 {
		j.Verdict = Inconclusive
		j.Reason += "; " + needEnds(float64(unknown))
	}
	return j
}

func (c claim) peak() Judgement {
	v, samples, missing := peakOf(c.Metric, &c.window)
	if missing != "" {
		return inconclusive(missing)
	}
	j := Judgement{Value: &v, Samples: samples, Verdict: Fail}
	j.Reason = fmt.Sprintf("%s is the highest of %s observations", c.format(v), formatCount(float64(samples)))
	switch unknown := c.window.Pending(); {
	case !c.Holds(v):
		j.Reason += "; " + c.asks()
	case c.Metric.Source == scenario.FromGenerator && unknown > 0:
		j.Verdict = Inconclusive
		j.Reason += "; " + needEnds(float64(unknown))
	default:
		j.Verdict = Pass
	}
	return j
}

// judgeMeasured judges a value that comes with its bounds, or is exact.
func judgeMeasured(c scenario.Condition, v Measured, level float64) Judgement {
	if v.Value == nil || math.IsNaN(*v.Value) {
		return inconclusive(notMeasured(c.Metric))
	}
	j := Judgement{Value: v.Value, Low: v.Low, High: v.High, Samples: v.Samples, Verdict: Inconclusive}
	low, high := v.Low, v.High
	exact := c.Metric.Estimator == scenario.ByTime || c.Metric.Estimator == scenario.ByPeak
	if exact {
		low, high = v.Value, v.Value
	}
	cl := claim{Condition: c, level: level, failing: level}
	if low == nil || high == nil || math.IsNaN(*low) || math.IsNaN(*high) {
		j.Reason = fmt.Sprintf("%s is %s, from %s samples, too few to bound it; need %d on either side", c.Metric.Name, cl.format(*v.Value), formatCount(float64(v.Samples)), stat.MinIntervals)
		return j
	}
	j.Verdict = decide(c, *low, *high)
	if exact {
		if j.Verdict == Fail {
			j.Reason = fmt.Sprintf("%s is %s; %s", c.Metric.Name, cl.format(*v.Value), cl.asks())
		}
		return j
	}
	if j.Verdict == Fail && v.Stolen > MaxStolen {
		// Hits are short, and whatever holds them up makes the ratio smaller.
		j.Low, j.High = nil, nil
		j.Verdict, j.Reason = Inconclusive, fmt.Sprintf("%s; otherwise: %s is %s", excuse(0, "", v.Stolen, 1), c.Metric.Name, cl.format(*v.Value))
		return j
	}
	cl.explainBounds(&j, func(factor float64) string {
		more := factor*factor - 1
		text := fmt.Sprintf("need %s more samples", formatCount(max(math.Ceil(float64(v.Samples)*more), 1)))
		if v.Took > 0 {
			text += fmt.Sprintf(" (about %s more of both)", formatLong(v.Took.Seconds()*more))
		}
		return text
	})
	return j
}

func indexOf[T comparable](values []T, v T) int {
	for i := range values {
		if values[i] == v {
			return i
		}
	}
	return -1
}
