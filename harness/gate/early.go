package gate

import (
	"fmt"
	"math"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
	"phasegate/harness/timeline"
)

// Early is a look at a run before the planned one, to find out whether a gate
// has failed already.
type Early struct {
	After     time.Duration      // how much of the steady state there is to see …
	Left      time.Duration      // … and how much is still to come until the planned look
	Intervals int                // that the steady state has at the planned look
	Remaining map[string]float64 // requests that may still fall due until then, by system
	Watch     bool               // only whether it has failed is asked: the reason of a gate that hasn't is of no use
}

// JudgeEarly judges a gate before its planned look, and may be asked every
// second. certain says that it has failed, whatever is still to come: a run may
// be stopped on that. A gate that hasn't is inconclusive, since it was promised
// more of the steady state than there is; so nothing passes on a run that was
// stopped, and nothing fails by a bound made for another time.
//
// Shares and quantiles fail if [stat.AnytimeLower] of the bad requests seen so
// far is more than the gate allows for the whole steady state, up to the planned
// look. Requests that haven't finished count as good ones that are still to
// come, and so does what the upstream's ledger may not have seen whole. Counts
// and peaks fail by what was observed. Means and slopes wait for their look: a
// bound on them says nothing of what is still to come.
//
// Of the error budget for failures, [Look.Watched] gives one half to the looks
// and the other to the watch before them, each divided among the planned looks.
// So a gate at its threshold fails falsely with at most 1 − confidence in all.
// The budget for passes isn't touched, since an early look passes nothing.
//
// A verdict that the load generator or a starved machine may have caused stops
// nothing: of slow requests only so many count as surely were slow, and of failed
// ones none that a stall may have cost, see [Judge].
func JudgeEarly(g scenario.Gate, d Data, look Look, e Early) (j Judgement, certain bool) {
	c := newClaim(g, d, look)
	c.hasty = e.Watch
	j = c.verdict(look)
	if _, measured := d.Values[g.System][g.Metric.Name]; j.Value != nil && !measured {
		switch g.Metric.Estimator {
		case scenario.ByCount, scenario.ByPeak:
			certain = j.Verdict == Fail
		case scenario.ByShare, scenario.ByQuantile:
			certain = c.refuted(&j, e, e.Remaining[g.System])
		}
	}
	if certain || j.Value == nil || e.Watch {
		j.tell()
		return j, certain
	}
	if j.Verdict != Inconclusive || j.need.requests > 0 && j.need.requests < e.Left.Seconds()*c.rate || j.need.text == "" {
		// What was there is judged again at the planned look, with all that comes.
		j.need = c.needLength("the rest of the steady state, ", e.Left, "")
	}
	j.Verdict, j.Confidence = Inconclusive, look.level()
	j.need.text += ", without abort: on_failure"
	j.Reason = fmt.Sprintf("the run was stopped after %s of the steady state, when another gate had failed for certain; %s was %s until then",
		formatSeconds(e.After.Seconds()), g.Metric.Name, formatUnit(g.Metric.Unit, *j.Value))
	j.tell()
	return j, false
}

// refuted judges a share or a quantile early, and gives the judgement its
// evidence if it has failed.
func (c claim) refuted(j *Judgement, e Early, remaining float64) bool {
	t, limit := c.overs(), 1-c.Metric.Quantile
	if c.Metric.Estimator == scenario.ByShare {
		w := c.window
		if c.Metric.Source == scenario.FromLedger {
			w.Intervals = w.Intervals[:settled(w.Intervals)]
		}
		var missing string
		if t, missing = tallyOf(c.Metric, &w); missing != "" {
			return false
		}
		limit = c.Threshold
	}
	bad := t
	if !atMost(c.Op) {
		bad, limit = t.complement(), 1-limit
	}
	if !(limit > 0) { // no sample is needed to refute that there is none
		return j.Verdict == Fail
	}
	seen, why := c.surely(bad)
	total := max(bad.n+bad.unknown, float64(c.window.Offered)) + remaining
	if !stat.AnytimeBeyond(seen, e.Intervals, limit*total, c.failing) {
		if why != "" && stat.AnytimeBeyond(bad.bySecond(), e.Intervals, limit*total, c.failing) {
			j.Withheld = why
		}
		return false
	}
	bound := stat.AnytimeLower(seen, e.Intervals, c.failing) / total
	c.convict(j, t, e, bound, total)
	return true
}

// settled is how many intervals at the start have no request that is still under
// way, so that what their answers say can be held against the ledger.
func settled(intervals []timeline.Interval) int {
	for i := range intervals {
		if intervals[i].Pending() > 0 {
			return i
		}
	}
	return len(intervals)
}

// convict writes the judgement of a gate that has failed early: bound is the
// least share of bad ones among all requests until the planned look.
func (c claim) convict(j *Judgement, t tally, e Early, bound, total float64) {
	j.Verdict, j.Confidence, j.Low, j.High = Fail, c.failing, nil, nil
	after, confidence := formatSeconds(e.After.Seconds()), formatShare(c.failing)
	rest := fmt.Sprintf("of %s until the look", formatCount(math.Ceil(total)))
	if c.Metric.Estimator == scenario.ByQuantile {
		threshold, side := c.Threshold, &j.Low
		if !atMost(c.Op) {
			side = &j.High
		}
		*side = &threshold
		least, most := "at least", bound
		asks := fmt.Sprintf("%s allows fewer than %s", c.text(), formatShare(1-c.Metric.Quantile))
		if !atMost(c.Op) {
			least, most = "at most", 1-bound
			asks = fmt.Sprintf("%s needs more than %s", c.text(), formatShare(1-c.Metric.Quantile))
		}
		j.Reason = fmt.Sprintf("p%s is %s: %s of %s requests took %s in the first %s; whatever comes after, that is %s %s %s, at %s confidence whenever one looks; %s",
			c.percentile(), formatSeconds(*j.Value), formatShare(t.share()), formatCount(t.n), c.tooLong(), after, least, formatShare(most), rest, confidence, asks)
		return
	}
	least, side := "at least", &j.Low
	if !atMost(c.Op) {
		least, side, bound = "at most", &j.High, 1-bound
	}
	*side = &bound
	j.Reason = fmt.Sprintf("%s is %s (%s of %s %s) in the first %s; whatever comes after, that is %s %s %s, at %s confidence whenever one looks; %s",
		c.Metric.Name, formatShare(t.share()), formatCount(t.k), formatCount(t.n), t.of, after, least, formatShare(bound), rest, confidence, c.asks())
}
