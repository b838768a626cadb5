package gate

import (
	"fmt"
	"math"
	"sort"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
)

// What else a gate that is undecided needs, if the run goes on as it did.

// beyondReach is what is said where a sample would have to be endless.
var beyondReach = need{text: "so close to the threshold, no sample of a sensible size decides it"}

// undecided says what would decide a share.
func (c claim) undecided(t tally, b bounds) need {
	switch {
	case b.few && (b.decidable || t.unknown > 0):
		return c.needIntervals(stat.Filled(t.counts), math.Ceil(float64(b.more)*max(float64(c.window.Requests), t.n)/t.n))
	case t.unknown > 0:
		return needEnds(t.unknown)
	case b.decidable:
		// n may be only part of the requests that are sent.
		return c.needMore(math.Ceil(float64(b.more) * max(float64(c.window.Requests), t.n) / t.n))
	case c.Metric.Estimator == scenario.ByShare && (c.Threshold <= 0 || c.Threshold >= 1):
		return need{text: "no sample can show a share of exactly " + formatShare(c.Threshold)}
	default:
		return beyondReach
	}
}

// more is how many more of n decide that a share of bad ones keeps to a limit, or
// doesn't, by the rule that judges it, if all goes on as it did: what is known of
// how requests go together grows with the run too, and faster than the root of it.
func (c claim) more(bad tally, limit float64) (more int64, ok bool) {
	effect, level := c.effect, c.level
	decided := func(k, n, effect float64) bool { return stat.ClusteredUpper(k, n, effect, level) < limit }
	if bad.k >= limit*bad.n {
		effect, level = func(t tally) float64 { e, _ := c.runEffect(t); return e }, c.failing
		decided = func(k, n, effect float64) bool { return stat.ClusteredLower(k, n, effect, level) > limit }
	}
	m, k := len(bad.counts), min(bad.k, bad.n)
	if k == 0 || c.whole {
		return stat.More(k, bad.n, 1, limit, level) // to the request
	}
	at := func(intervals int) (k, n, e float64, filled int) {
		folded := fold(bad.counts, intervals)
		for _, c := range folded {
			k, n = k+c.K, n+c.N
		}
		return min(k, n), n, effect(tally{counts: folded}), stat.Filled(folded)
	}
	enough, most := goesOn(m, func(intervals int) bool {
		k, n, e, filled := at(intervals)
		return filled >= c.minimum && decided(k, n, e)
	})
	if enough > 0 {
		return int64(math.Ceil(bad.n * float64(enough-m) / float64(m))), true
	}
	k, n, e, _ := at(most)
	more, ok = stat.More(k, n, e, limit, level)
	return more + int64(n-bad.n), ok
}

// continued says how long a series that goes on as it did decides a claim, by the
// rule that judges it: the bounds of few intervals come in faster than with the
// root of their number, and one that stands at 0 doesn't tell how far it is off.
func (c claim) continued(s series) need {
	m := max(len(s.pairs), len(s.by))
	undecided := func(n int) (e stat.Estimate, open bool) {
		longer := s
		longer.pairs, longer.by = fold(s.pairs, n), fold(s.by, n)
		if e, ok := longer.run(c.level); ok && e.Bounded && decide(c.Condition, e.Low, e.High) == Fail {
			return e, false
		}
		e, ok := longer.estimate(c.level)
		return e, !ok || !e.Bounded || decide(c.Condition, e.Low, e.High) == Inconclusive
	}
	intervals, most := goesOn(m, func(n int) bool { _, open := undecided(n); return !open })
	enough := float64(intervals)
	if intervals == 0 {
		e, _ := undecided(most)
		width, distance := e.High-e.Value, c.Threshold-e.Value
		if distance < 0 {
			width, distance = e.Value-e.Low, -distance
		}
		enough = float64(most) * max(1, width*width/(distance*distance))
	}
	return c.needMore(math.Ceil((enough - float64(m)) / float64(m) * c.window.Seconds * c.rate))
}

// goesOn is the least number of intervals, more than the m that there are, with
// which something is decided, or 0 if most of those that are tried aren't enough:
// from there on the root of their number tells.
func goesOn(m int, decided func(intervals int) bool) (enough, most int) {
	most = max(1000, 2*m)
	for least, n := m, min(2*m, most); ; least, n = n, min(2*n, most) {
		if decided(n) {
			return least + 1 + sort.Search(n-least-1, func(i int) bool { return decided(least + 1 + i) }), most
		}
		if n == most {
			return 0, most
		}
	}
}

// fold makes a series of n intervals that goes on as a shorter one did: back and
// forth, so that neighbours go together as they do in it.
func fold[T any](series []T, n int) []T {
	if len(series) == 0 {
		return series
	}
	longer := make([]T, n)
	for i := range longer {
		if at := i % (2 * len(series)); at < len(series) {
			longer[i] = series[at]
		} else {
			longer[i] = series[2*len(series)-1-at]
		}
	}
	return longer
}

// needMore says how many more requests decide a claim if nothing changes, and
// how long they take.
func (c claim) needMore(requests float64) need {
	if !(requests < 1e15) {
		return beyondReach
	}
	requests = max(requests, 1)
	text := fmt.Sprintf("need %s more requests", formatCount(requests))
	if c.rate > 0 {
		text += fmt.Sprintf(" (about %s at %s)", formatLong(requests/c.rate), formatUnit(scenario.PerSecond, c.rate))
	}
	return need{text: text, requests: requests}
}

// tooFew says that there are too few intervals for a bound.
func (c claim) tooFew(have int) string {
	return fmt.Sprintf("a bound needs at least %d intervals with a sample, to see how much they depend on each other, and there are %d", c.minimum, have)
}

// needIntervals says how much longer it takes until there are enough intervals
// with a sample, if they go on coming as often as they did, and at least so many
// more requests.
func (c claim) needIntervals(have int, requests float64) need {
	all := float64(len(c.window.Intervals))
	each := c.window.Seconds / all
	if !(c.rate > 0) || !(each > 0) {
		return need{text: fmt.Sprintf("need %d more intervals with a sample", c.minimum-have)}
	}
	lacking := math.Ceil(float64(c.minimum-have) * max(1, all/float64(max(have, 1))))
	return c.needMore(max(requests, math.Ceil(c.rate*each*lacking)))
}

// NoMore says, where a recording ends before a gate is decided, what goes on;
// left is how many requests it still has.
func NoMore(left float64) string {
	const remedy = "; load.keys.repeat: true starts it over"
	if left < 1 {
		return "the log has no more" + remedy
	}
	return fmt.Sprintf("the log has only %s more", formatCount(math.Floor(left))) + remedy
}

// needEnds says what decides a claim that rests on requests which have no outcome
// yet.
func needEnds(n float64) need {
	return need{text: "need the outcome of " + formatCount(n) + " requests that have not finished", ends: true}
}
