package gate

import (
	"fmt"
	"math"
	"slices"
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
	// Cold holds, for systems that were replayed a recorded log from an empty
	// cache, how many requests no cold cache could hit.
	Cold map[string]Cold
	// LagP99 is the 99th percentile of the schedule lag; nil where it is unknown.
	LagP99 *time.Duration
	// LagAtMost says that LagP99 is the longest lag instead: while a run goes on,
	// and where every request found its connections busy, no other is known.
	LagAtMost bool
	// Stolen is the share of the machine's CPU time that went to other machines
	// on its host while this was measured, 0 to 1.
	Stolen float64
}

// Measured is a metric with its two one-sided bounds, in the metric's unit.
type Measured struct {
	Value, Low, High *float64
	Samples          int64
	Took             time.Duration // all of them together, for what more would take; 0 where that isn't known
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
	Reason           string // one sentence; empty only for a pass
	Looks            int    // looks taken so far, this one included
}

// Judge judges one gate by the rule for its metric's estimator.
func Judge(g scenario.Gate, d Data, look Look) Judgement {
	c := newClaim(g, d, look)
	j := c.judge(g.System)
	c.blameMachine(&j)
	j.Confidence, j.Looks = look.level(), max(look.Number, 1)
	if e := g.Metric.Estimator; j.Verdict == Fail && (e == scenario.ByShare || e == scenario.ByQuantile) {
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
		Condition: g.Condition, data: d, window: d.Windows[g.System], level: look.level(), failing: look.failing(),
		rate: d.rate(g.System), cold: d.Cold[g.System],
	}
}

func (c claim) judge(system string) Judgement {
	m := c.Metric
	if why := c.data.missing(m, system); why != "" {
		return inconclusive(why)
	}
	if v, ok := c.data.Values[system][m.Name]; ok {
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
func (c claim) blameMachine(j *Judgement) {
	if c.Metric.Unit != scenario.Seconds || c.Metric.Source != scenario.FromGenerator {
		return
	}
	suspect := Fail
	if !atMost(c.Op) {
		suspect = Pass
	}
	lag := c.lag()
	why := excuse(lag, c.lagOf(), c.data.Stolen, c.Threshold)
	if j.Verdict != suspect || why == "" {
		return
	}
	if c.Metric.Estimator == scenario.ByQuantile && atMost(c.Op) {
		k, n := float64(c.surelySlow()), float64(c.window.Requests)
		effect, _ := stat.RunDesignEffect(c.overs().counts, c.failing)
		if low := stat.ClusteredLower(k, n, effect, c.failing); low > 1-c.Metric.Quantile {
			j.Reason += fmt.Sprintf("; %s, but %s surely took longer than %s, whenever they were sent", why, formatShare(k/n), formatSeconds(c.Threshold))
			return
		}
	}
	reason := why
	if j.Reason != "" {
		reason += "; otherwise: " + j.Reason
	}
	j.Verdict, j.Reason = Inconclusive, reason
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
	switch {
	case stolen > MaxStolen:
		return fmt.Sprintf("the machine was starved: %s of its CPU time went to others on its host", formatShare(stolen))
	case lag.Seconds() > threshold/10:
		return fmt.Sprintf("the load generator was the bottleneck: it was up to %s late (%s) to get to a request, which is more than a tenth of %s",
			formatSeconds(lag.Seconds()), of, formatSeconds(threshold))
	}
	return ""
}

// surelySlow counts requests that were too slow even if the load generator was
// late. Those that stood in line for a connection waited for the system: they
// count from when they were due, with the longest lag taken off twice, their own
// and that of others, who then came together with them.
func (c claim) surelySlow() int64 {
	at := limit(c.Condition)
	slow := surelySlow(&c.window, at+c.lag(), c.data.Stolen)
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
