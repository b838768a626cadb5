package gate

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
	"phasegate/harness/timeline"
)

// Verdict on a gate.
type Verdict string

// The verdicts.
const (
	Pass         Verdict = "pass"
	Fail         Verdict = "fail"
	Inconclusive Verdict = "inconclusive"
)

// Data is everything that gates are judged by.
type Data struct {
	// Windows hold the steady state of each system, recorded with Over set to
	// [Thresholds].
	Windows map[string]timeline.Window
	// Values are metrics measured elsewhere (the sequential stage), by system
	// and metric name.
	Values map[string]map[string]Measured
	// Missing says why a system doesn't offer a metric, by system and metric name.
	Missing map[string]map[string]string
	// Rate is the requests per second that each system gets, for "need n more
	// requests (about t s at r/s)". Without it the window's own rate is used.
	Rate map[string]float64
	// Left is how many more requests there are for each system in a recording that
	// ends; systems whose requests have no end aren't in it.
	Left map[string]float64
	// Cold holds, for systems that were replayed a recorded log from an empty
	// cache, how many requests no cold cache could hit.
	Cold map[string]Cold
	// LagP99 is the 99th percentile of the schedule lag; nil where it is unknown.
	LagP99 *time.Duration
	// LagAtMost says that LagP99 is the longest lag instead: where every request
	// found its connections busy, no other is known.
	LagAtMost bool
	// Timeout is how long a request may take from when it was due; 0 where that
	// isn't known, and no stall of the load generator excuses anything.
	Timeout time.Duration
	// Stolen is the share of the machine's CPU time that went to other machines
	// on its host while this was measured, 0 to 1.
	Stolen float64
}

// Measured is a metric with its two one-sided bounds, in the metric's unit.
type Measured struct {
	Value, Low, High *float64
	Samples          int64
	Took             time.Duration // all of them together, for what more would take; 0 where that isn't known
	Lacking          int64         // of those, how many more there must be for bounds; 0 where it isn't for want of them …
	LackingTime      time.Duration // … and how long these take; 0 where that isn't known
	Stolen           float64       // as [Data].Stolen, while this was measured
}

// Cold counts requests that were the first for their target.
type Cold struct{ First, Requests int64 }

func (c Cold) share() float64 { return float64(c.First) / float64(max(c.Requests, 1)) }

// Look is one judging of a gate in a run that may judge it several times.
type Look struct {
	Number, Planned int     // this one, from 1, of so many; 0 stands for 1
	Confidence      float64 // of the one-sided bound over all looks together; 0 stands for 0.95
	// Watched says that the run is stopped as soon as [JudgeEarly] is certain of
	// a failure, which takes half of the error budget for failing.
	Watched bool
	// Whole says that shares and quantiles are claimed of the window's own time
	// and no other, as of a drill's fault, and not of what goes on. All of that
	// time was seen, so how good each second was is given, and chance is only in
	// which requests came in it. Then their number of bad ones varies no more than
	// that of independent ones with the same mean (Hoeffding 1956), however alike
	// neighbouring seconds are: the independent bound holds, from one second on.
	Whole bool
}

// level is the confidence of this look's bounds: the error budget is divided
// evenly among the looks that were planned before the run.
func (l Look) level() float64 {
	c := l.Confidence
	if !(c > 0 && c < 1) {
		c = 0.95
	}
	return 1 - (1-c)/float64(max(l.Planned, 1))
}

// failing is the confidence of the bound by which shares and quantiles fail.
func (l Look) failing() float64 {
	if l.Watched {
		return 1 - (1-l.level())/2
	}
	return l.level()
}

// Judgement of one gate. Low and High are one-sided bounds at Confidence each;
// nil where the sample has none to offer, or the value is exact.
type Judgement struct {
	Value, Low, High *float64
	Confidence       float64 // of the bound that the verdict rests on
	Samples          int64
	Verdict          Verdict
	Reason           string // one sentence; empty only for a pass. Of an inconclusive one it ends with what is needed
	Looks            int    // looks taken so far, this one included

	// Withheld says why a failure that an early look was certain of proves nothing
	// against the system, and stops no run; empty where there is none.
	Withheld string

	need need // of an inconclusive one, until it has been added to Reason
}

// need is what would decide what is inconclusive.
type need struct {
	text     string
	requests float64 // more of them, where that helps; else 0
	ends     bool    // that those under way end
}

// Judge judges one gate by the rule for its metric's estimator.
func Judge(g scenario.Gate, d Data, look Look) Judgement {
	j := newClaim(g, d, look).verdict(look)
	j.tell()
	return j
}

// MayDecide reports whether going on for a time may decide a gate: whether it is
// inconclusive at a look, and neither for want of something that no time brings,
// nor of more requests than that time does.
func MayDecide(g scenario.Gate, d Data, look Look, left time.Duration) bool {
	if g.Metric.Source == scenario.FromNowhere || d.Missing[g.System][g.Metric.Name] != "" {
		return false
	}
	j, rate := newClaim(g, d, look).verdict(look), d.rate(g.System)
	switch {
	case j.Verdict != Inconclusive:
		return false
	case j.Value == nil && j.need.text == "", rate == 0:
		return true // what hasn't been seen yet may still come
	}
	return j.need.ends || j.need.requests > 0 && j.need.requests <= math.Ceil(left.Seconds()*rate)
}

// tell ends the reason of an inconclusive judgement with what is needed.
func (j *Judgement) tell() {
	if j.Verdict == Inconclusive && j.need.text != "" {
		j.Reason += "; " + j.need.text
	}
	j.need = need{}
}

// verdict is [Judge] before it is told what is needed.
func (c claim) verdict(look Look) Judgement {
	j := c.judge()
	if left, ends := c.data.Left[c.system]; ends && j.need.requests > left {
		j.need.text += ", and " + NoMore(left)
	}
	c.blameMachine(&j)
	c.blameStall(&j)
	j.Confidence, j.Looks = look.level(), max(look.Number, 1)
	if e := c.Metric.Estimator; j.Verdict == Fail && (e == scenario.ByShare || e == scenario.ByQuantile) {
		j.Confidence = look.failing()
	}
	for _, p := range []**float64{&j.Value, &j.Low, &j.High} {
		if *p != nil && (math.IsNaN(**p) || math.IsInf(**p, 0)) {
			*p = nil
		}
	}
	if j.Value == nil && j.Verdict != Inconclusive {
		j.Verdict, j.Reason = Inconclusive, "the metric has no value"
	}
	return j
}

func newClaim(g scenario.Gate, d Data, look Look) claim {
	return claim{
		Condition: g.Condition, system: g.System, data: d, window: d.Windows[g.System], level: look.level(), failing: look.failing(),
		whole: look.Whole, minimum: leastIntervals(g.Condition, look),
		rate: d.rate(g.System), cold: d.Cold[g.System],
	}
}

func (c claim) judge() Judgement {
	m := c.Metric
	if why := c.data.missing(m, c.system); why != "" {
		return inconclusive(why)
	}
	if v, ok := c.data.Values[c.system][m.Name]; ok {
		return judgeMeasured(c.Condition, v, c.level)
	}
	switch m.Estimator {
	case scenario.ByShare:
		return c.share()
	case scenario.ByQuantile:
		return c.quantile()
	case scenario.ByMean:
		return c.mean()
	case scenario.ByCount:
		return c.count()
	case scenario.ByPeak:
		return c.peak()
	case scenario.BySlope:
		return c.slope()
	default:
		return inconclusive(notMeasured(m))
	}
}

// missing says why there is nothing to judge, before any arithmetic; "" if
// there may be.
func (d Data) missing(m scenario.Metric, system string) string {
	if why := d.Missing[system][m.Name]; why != "" {
		return why
	}
	if _, ok := d.Values[system][m.Name]; ok {
		return ""
	}
	if m.Source == scenario.FromNowhere {
		if m.Why != "" {
			return m.Why
		}
		return notMeasured(m)
	}
	if m.Source == scenario.FromSequential || m.Estimator == scenario.ByTime {
		return notMeasured(m)
	}
	if _, ok := d.Windows[system]; !ok {
		return fmt.Sprintf("nothing was recorded of system %q", system)
	}
	return ""
}

func (d Data) rate(system string) float64 {
	if r := d.Rate[system]; r > 0 && !math.IsInf(r, 0) {
		return r
	}
	if w := d.Windows[system]; w.Seconds > 0 {
		return float64(w.Requests) / w.Seconds
	}
	return 0
}

func notMeasured(m scenario.Metric) string { return m.Name + " was not measured in this run" }

// Estimate is the value of a metric for one system without a verdict: for
// tables of every metric. Where there is none, missing says why.
func Estimate(m scenario.Metric, system string, d Data) (value *float64, missing string) {
	if why := d.missing(m, system); why != "" {
		return nil, why
	}
	var v float64
	if measured, ok := d.Values[system][m.Name]; ok {
		if measured.Value == nil {
			return nil, notMeasured(m)
		}
		v = *measured.Value
	} else if v, missing = point(m, d, d.Windows[system]); missing != "" {
		return nil, missing
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, m.Name + " has no value"
	}
	return &v, ""
}

// Counted is what a metric that is a share has counted: part of all of something.
// ok is false for other metrics, and where there is no value.
func Counted(m scenario.Metric, system string, d Data) (part, all int64, of string, ok bool) {
	if m.Estimator != scenario.ByShare || d.missing(m, system) != "" {
		return 0, 0, "", false
	}
	w := d.Windows[system]
	t, missing := tallyOf(m, &w)
	return int64(t.k), int64(t.n), t.of, missing == ""
}

// Thresholds are the latencies that a recorder must count for these gates and
// triggers to be judged exactly: ascending, without repetition.
func Thresholds(gates []scenario.Gate, triggers []scenario.Trigger) []time.Duration {
	var limits []time.Duration
	add := func(c scenario.Condition) {
		if c.Metric.Estimator == scenario.ByQuantile {
			limits = append(limits, limit(c))
		}
	}
	for _, g := range gates {
		add(g.Condition)
	}
	for _, t := range triggers {
		add(t.Condition)
	}
	slices.Sort(limits)
	return slices.Compact(limits)
}

// limit is the latency from which on a request counts against "p95 < T" (T
// itself is too long) or "p95 <= T" (T is not), and for "p95 >= T" or
// "p95 > T" in the same way.
func limit(c scenario.Condition) time.Duration {
	t := time.Duration(math.Round(min(max(c.Threshold, 0), 1e9) * float64(time.Second)))
	if c.Op == scenario.LessEqual || c.Op == scenario.Greater {
		t++
	}
	return t
}

// blameMachine takes back a verdict that may have been caused by the load
// generator, by sending late, or by a starved machine. Both can only make
// latency look longer: a limit that was kept was kept, and one that is broken
// by requests that were slow for sure was broken by the system.
//
// An improvement is a ratio of latencies: what is added to both makes it smaller,
// and holds a fast system up by more of what it takes.
func (c claim) blameMachine(j *Judgement) {
	latency, improvement := c.Metric.Unit == scenario.Seconds, c.Metric.Name == "latency_improvement"
	if !latency && !improvement || c.Metric.Source != scenario.FromGenerator {
		return
	}
	suspect := Fail
	if atMost(c.Op) == improvement {
		suspect = Pass
	}
	threshold := c.Threshold
	if old := c.data.Windows[scenario.Old]; improvement {
		threshold = old.LatencySum / float64(max(old.Requests, 1)) / c.Threshold
	}
	lag := c.lag()
	why := excuse(lag, c.lagOf(), c.data.Stolen, threshold)
	if j.Verdict == Inconclusive && why != "" && j.need.requests > 0 {
		// It would be taken back if these decided it that way.
		j.Reason += "; " + why
		j.need.text += fmt.Sprintf(", and %s, for a %s to count", cure(lag, c.lagOf(), c.data.Stolen, threshold), suspect)
	}
	if j.Verdict != suspect || why == "" {
		return
	}
	if c.Metric.Estimator == scenario.ByQuantile && atMost(c.Op) {
		if k, n := float64(c.surelySlow()), float64(c.window.Requests); c.failsBy(k) {
			j.Reason += fmt.Sprintf("; %s, but %s surely took longer than %s, whenever they were sent", why, formatShare(k/n), formatSeconds(c.Threshold))
			return
		}
	}
	if c.Metric.Estimator == scenario.ByPeak {
		j.Withheld = why
	}
	reason := why
	if j.Reason != "" {
		reason += "; otherwise: " + j.Reason
	}
	j.Verdict, j.Reason, j.need = Inconclusive, reason, remedy(lag, c.lagOf(), c.data.Stolen, threshold)
}

// failsBy reports whether a quantile fails by k too slow requests alone, by either
// of the rules of [claim.judgeShare].
func (c claim) failsBy(k float64) bool {
	t, allowed := c.overs(), 1-c.Metric.Quantile
	if stat.Filled(t.counts) >= c.minimum {
		if effect, _ := c.runEffect(t); stat.ClusteredLower(k, t.n, effect, c.failing) > allowed {
			return true
		}
	}
	spent := t.bySecond()
	for i := range spent {
		spent[i] *= min(1, k/t.k)
	}
	return stat.AnytimeBeyond(spent, len(spent), allowed*(t.n+t.unknown), c.failing)
}

// lag is by how much requests may have been sent late, 0 if that isn't known.
func (c claim) lag() time.Duration {
	if c.data.LagP99 == nil {
		return 0
	}
	return *c.data.LagP99
}

// lagOf says what [claim.lag] is.
func (c claim) lagOf() string {
	if c.data.LagAtMost {
		return "at the longest"
	}
	return "p99"
}

func inconclusive(reason string) Judgement { return Judgement{Verdict: Inconclusive, Reason: reason} }

// point is the estimate of a metric from a system's window.
func point(m scenario.Metric, d Data, w timeline.Window) (value float64, missing string) {
	switch m.Estimator {
	case scenario.ByShare:
		t, missing := tallyOf(m, &w)
		return t.share(), missing
	case scenario.ByQuantile:
		if q, ok := timeline.Quantile(w.Latency, m.Quantile); ok {
			return min(q, w.MaxLatency).Seconds(), ""
		}
		return 0, noRequests(&w)
	case scenario.ByMean:
		s, missing := seriesOf(m, d, &w)
		if missing != "" {
			return 0, missing
		}
		v, ok := s.value()
		if !ok {
			return 0, m.Name + " would be a division by zero"
		}
		return v, ""
	case scenario.ByCount:
		n, missing := countOf(m, &w)
		return float64(n), missing
	case scenario.ByPeak:
		v, _, missing := peakOf(m, &w)
		return v, missing
	case scenario.BySlope:
		f, missing := slopeOf(m, &w, 0.95)
		return f.Slope.Value, missing
	default:
		return 0, notMeasured(m)
	}
}

// MaxStolen is the share of a machine's CPU time above which latency measured
// on it is no evidence against a system: what waits for a processor isn't slow.
const MaxStolen = 0.02

// excuse says why latencies may be longer than the system made them; "" if
// they may not.
func excuse(lag time.Duration, of string, stolen, threshold float64) string {
	var why []string
	if stolen > MaxStolen {
		why = append(why, fmt.Sprintf("the machine was starved: %s of its CPU time went to others on its host", formatShare(stolen)))
	}
	if lag.Seconds() > threshold/10 {
		why = append(why, fmt.Sprintf("the load generator was the bottleneck: it was up to %s late (%s) to get to a request, which is more than a tenth of %s",
			formatSeconds(lag.Seconds()), of, formatSeconds(threshold)))
	}
	return strings.Join(why, ", and ")
}

// remedy says what takes an excuse away: no number of requests does.
func remedy(lag time.Duration, of string, stolen, threshold float64) need {
	return need{text: "more requests don't help: need " + cure(lag, of, stolen, threshold)}
}

func cure(lag time.Duration, of string, stolen, threshold float64) string {
	var all []string
	if stolen > MaxStolen {
		all = append(all, fmt.Sprintf("a machine of which others take at most %s", formatShare(MaxStolen)))
	}
	if lag.Seconds() > threshold/10 {
		all = append(all, fmt.Sprintf("a lag (%s) of at most %s instead of %s, from a quieter machine or a lower load.rate",
			of, formatSeconds(threshold/10), formatSeconds(lag.Seconds())))
	}
	return strings.Join(all, ", and ")
}

// surelySlow counts requests that were too slow even if the load generator was
// late. Those that a [stall] may have cost their answer aren't. Those that stood in
// line for a connection waited for the system: they count from when they were due,
// with the longest lag taken off twice, their own and that of others, who then came
// together with them.
func (c claim) surelySlow() int64 {
	at, w := limit(c.Condition), stallOf(&c.window, c.data.Timeout).without(c.window)
	slow := surelySlow(&w, at+c.lag(), c.data.Stolen)
	if c.data.Stolen > MaxStolen {
		return slow
	}
	return max(slow, slower(c.window.Latency, at+2*max(c.window.MaxLag, c.lag())))
}

// surelySlow counts requests that took d or longer from their own send, or got
// no answer at all. On a starved machine only those of them count that waited
// for the upstream.
func surelySlow(w *timeline.Window, d time.Duration, stolen float64) int64 {
	unanswered := w.Requests - w.Usable()
	slow := slower(w.Service, d)
	if stolen > MaxStolen {
		return min(slow, w.Blocking) + unanswered
	}
	return max(slow, unanswered)
}

// slower counts the values of a histogram of microseconds at or above d, to
// its resolution.
func slower(h *hdrhistogram.Histogram, d time.Duration) (n int64) {
	if h == nil {
		return 0
	}
	for _, bar := range h.Distribution() {
		if bar.From >= d.Microseconds() {
			n += bar.Count
		}
	}
	return n
}
