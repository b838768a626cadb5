package gate

import (
	"fmt"
	"math"
	"strings"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
	"phasegate/harness/timeline"
)

// claim is a condition with what is needed to judge it.
type claim struct {
	scenario.Condition
	system  string
	data    Data
	window  timeline.Window
	level   float64 // of the one-sided bounds …
	failing float64 // … but of the one by which a share or a quantile fails
	whole   bool    // see [Look.Whole]
	minimum int     // intervals with a sample, see [leastIntervals]
	rate    float64 // requests per second, 0 if unknown
	cold    Cold
	hasty   bool // nobody asks what an undecided one needs, which may take a while to find
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
	few               bool  // intervals with a sample for a bound to be made from them
	more              int64 // of n, until it is decided …
	decidable         bool  // … if that many are known
}

// shown are the bounds that are beside an estimate: nil for those that say nothing.
func (b bounds) shown() (low, high *float64) {
	if !b.few || b.low > 0 {
		low = &b.low
	}
	if !b.few || b.high < 1 {
		high = &b.high
	}
	return low, high
}

// effect is the design effect by which a claim passes.
func (c claim) effect(t tally) float64 {
	if c.whole {
		return 1
	}
	return stat.DesignEffect(t.counts, c.level)
}

// runEffect is the design effect by which it fails, and where the run changed its
// level.
func (c claim) runEffect(t tally) (effect float64, changes []int) {
	if c.whole {
		return 1, nil
	}
	return stat.RunDesignEffect(t.counts, c.failing)
}

// judgeShare judges that the share of t keeps to a limit. It always reasons
// about the bad ones, which are few: for a lower limit, about the rest of n.
// Requests whose end isn't known are bad for a pass and don't count for a
// failure.
//
// From fewer intervals than it takes, how much they depend on each other can't be
// known, and a bound that takes their requests for independent is wrong in every
// fourth run. So nothing passes then, and only that fails which the watch's test
// finds too much (see [JudgeEarly]): it asks nothing of the requests within an
// interval, and so much of their number that the calibration holds.
func (c claim) judgeShare(t tally, limit float64) bounds {
	op, bad := c.Op, t
	if !atMost(op) {
		bad, limit = t.complement(), 1-limit
	}
	effect := c.effect(bad)
	effectFailing, changes := effect, []int(nil)
	if bad.k > limit*bad.n || c.failing != c.level {
		effectFailing, changes = c.runEffect(bad)
	}
	low, high := 0.0, 1.0
	few := stat.Filled(bad.counts) < c.minimum
	if !few {
		low = stat.ClusteredLower(bad.k, bad.n, effectFailing, c.failing)
		high = stat.ClusteredUpper(bad.k+bad.unknown, bad.n+bad.unknown, effect, c.level)
	}
	b := bounds{low: low, high: high, effect: effect, few: few}
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
	if b.verdict == Inconclusive && bad.unknown == 0 && !c.hasty {
		b.more, b.decidable = c.more(bad, limit)
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
	j := Judgement{Value: &value, Samples: int64(t.n), Verdict: b.verdict}
	j.Low, j.High = b.shown()
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
	case b.few:
		j.Reason = fmt.Sprintf("%s is %s; %s; %s", c.Metric.Name, seen, c.tooFew(stat.Filled(t.counts)), c.asks())
		j.need = c.undecided(t, b)
	default:
		j.Reason = fmt.Sprintf("%s is %s, between %s and %s; %s", c.Metric.Name, seen, formatShare(b.low), formatShare(b.high), c.asks())
		j.need = c.undecided(t, b)
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
	fmt.Fprintf(&r, "p%s is %s: %s of %s requests took %s", c.percentile(), formatSeconds(v), formatShare(t.share()), formatCount(t.n), c.tooLong())
	if b.few && b.verdict == Inconclusive {
		fmt.Fprintf(&r, "; %s", c.tooFew(stat.Filled(t.counts)))
	} else {
		fmt.Fprintf(&r, " (%s to %s at %s confidence%s)%s", formatShare(b.low), formatShare(b.high), formatShare(confidence), clustered(t.n, b.effect), c.changed(t, b))
	}
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
		j.need = c.undecided(t, b)
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
	if b.few {
		n = 0
	}
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
	case have < c.minimum:
		j.Reason = fmt.Sprintf("%s is %s; %s", c.Metric.Name, c.format(e.Value), c.tooFew(have))
		if !c.hasty {
			j.need = c.continued(s)
		}
		return j
	default:
		j.Reason = fmt.Sprintf("%s is %s, and its intervals vary too much to bound it; twice as many bound it better", c.Metric.Name, c.format(e.Value))
		j.need = c.needMore(float64(c.window.Requests))
		return j
	}
	if j.Verdict == Pass && s.unknown > 0 {
		j.Verdict, j.need = Inconclusive, needEnds(float64(s.unknown))
		j.Reason = fmt.Sprintf("%s is %s of what has finished", c.Metric.Name, c.format(e.Value))
		return j
	}
	c.explainBounds(&j, func(float64) need {
		if c.hasty {
			return need{}
		}
		return c.continued(s)
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
	checked := checkable(&c.window)
	v, total := float64(n), float64(checked)
	j := Judgement{Value: &v, Samples: checked, Verdict: Fail}
	if c.Holds(v) {
		j.Verdict = Pass
	}
	share := stat.Upper(v, total, c.level)
	if n == 0 {
		j.Reason = fmt.Sprintf("none in %s answers, so at %s confidence fewer than %s of all", formatCount(total), formatShare(c.level), formatShare(share))
	} else {
		j.Reason = fmt.Sprintf("%s of %s answers, so at %s confidence up to %s of all; %s", formatCount(v), formatCount(total), formatShare(c.level), formatShare(share), c.asks())
	}
	if unknown := c.window.Pending(); j.Verdict == Pass && unknown > 0 {
		j.Verdict, j.need = Inconclusive, needEnds(float64(unknown))
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
		j.Verdict, j.need = Inconclusive, needEnds(float64(unknown))
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
		j.Reason = fmt.Sprintf("%s is %s, from %s samples, which vary too much to bound it; twice as many bound it better", c.Metric.Name, cl.format(*v.Value), formatCount(float64(v.Samples)))
		j.need = v.needMore(v.Samples, v.Took)
		if v.Lacking > 0 {
			j.Reason = fmt.Sprintf("%s is %s, from %s samples, too few to bound it: that takes %d on either side", c.Metric.Name, cl.format(*v.Value), formatCount(float64(v.Samples)), stat.MinIntervals)
			j.need = v.needMore(v.Lacking, v.LackingTime)
		}
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
		j.need = remedy(0, "", v.Stolen, 1)
		return j
	}
	cl.explainBounds(&j, func(factor float64) need {
		more := factor*factor - 1
		return v.needMore(int64(math.Ceil(float64(v.Samples)*more)), time.Duration(float64(v.Took)*more))
	})
	return j
}

// needMore says how many more samples of either side decide a claim, and how
// long they take.
func (v Measured) needMore(samples int64, took time.Duration) need {
	text := fmt.Sprintf("need %s more samples", formatCount(float64(max(samples, 1))))
	if took > 0 {
		text += fmt.Sprintf(" (about %s)", formatLong(took.Seconds()))
	}
	return need{text: text + ", by sequential.direct and sequential.hits"}
}

func indexOf[T comparable](values []T, v T) int {
	for i := range values {
		if values[i] == v {
			return i
		}
	}
	return -1
}
