package forecast

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"phasegate/harness/gate"
	"phasegate/harness/load"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
	"phasegate/reports/unit"
)

// joint says what the gates, the upstream and the sequence mean for one
// another.
func (o *oracle) joint() []string {
	plan := o.h.schedule.Plan
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if log := o.h.schedule.Recorded; log != nil {
		r := load.Repeats(log)
		say("the whole log, all systems together: %s of its %s reads (%s) are the first for their target, so no cold cache can hit more than %s",
			unit.Count(int64(r.First)), unit.Count(int64(r.Cacheable)), unit.Format(1-r.MaxHitRatio(), "share"), unit.Format(r.MaxHitRatio(), "share"))
	}
	for i, g := range plan.Gates {
		if text := o.waitingLimit(g, o.f.Gates[i]); text != "" {
			lines = append(lines, text)
		}
	}
	lines = append(lines, o.availability()...)
	for i := range o.f.Systems {
		lines = append(lines, o.expiry(&o.h.arms[i], &o.f.Systems[i])...)
	}
	lines = append(lines, o.f.overloads()...)
	return lines
}

// queue says what a limited pool makes of an arm of which that share waits for
// the upstream; "" where nothing waits for a connection.
func (h *rehearsal) queue(s *System, waiting float64) string {
	if s.Queued == 0 && !s.Overloaded {
		return ""
	}
	mean, load := h.thinking.mean.Seconds(), h.schedule.Plan.Load
	text := fmt.Sprintf("%s × %s that wait × %s make %s requests under way at once (Little's law), and load.connections has room for %s",
		unit.Format(s.Rate, "1/s"), unit.Format(waiting, "share"), unit.Exact(mean, "s"), unit.Format(s.UnderWay, "count"), unit.Count(int64(s.Streams)))
	if !s.Overloaded {
		return text + fmt.Sprintf(": now and then all are busy, and at least %s requests wait in line", unit.Count(s.Queued))
	}
	text += ": requests queue without end, and their wait is latency"
	if s.Queued > 0 {
		text += fmt.Sprintf(" (at least %s of %s find none free", unit.Count(s.Queued), unit.Count(s.Requests))
		if s.Lost > 0 {
			text += fmt.Sprintf(", %s none within the timeout of %s", unit.Count(s.Lost), load.Timeout)
		}
		text += ")"
	}
	// Half as much again, as pools are sized where nothing limits them.
	needed := math.Ceil(1.5 * s.UnderWay * float64(s.Connections) / float64(s.Streams))
	return text + fmt.Sprintf("; it would take %s connections, or at most %s", unit.Count(int64(needed)), unit.Format(float64(s.Streams)/(waiting*mean), "1/s"))
}

// waitingLimit says how many requests may wait for the upstream under a limit
// on a quantile, and what that makes of a hit-ratio gate beside it.
func (o *oracle) waitingLimit(g scenario.Gate, f Gate) string {
	s := o.system(g.System)
	if g.Metric.Estimator != scenario.ByQuantile || !asksForGood(g.Condition) || !s.Known || s.Kind == string(scenario.KindDirect) || s.Requests == 0 {
		return ""
	}
	allowed, beyond := 1-g.Metric.Quantile, o.beyond(g)
	if beyond <= allowed {
		return ""
	}
	limit := allowed / beyond // share of requests that may wait
	text := fmt.Sprintf("%s: %s of the upstream's answers take %s or longer (%s on average), so fewer than %s of the requests may wait for it",
		g.Text, unit.Format(beyond, "share"), threshold(g), unit.Exact(o.h.thinking.mean.Seconds(), "s"), unit.Exact(math.Round(limit*1e6)/1e6, "share"))
	if f.Bad != nil && beyond > 1-1e-6 {
		text += fmt.Sprintf(" (at most %s of %s, to show it)", unit.Count(*f.Bad), unit.Count(s.Requests))
	}
	if causes := s.causes(); causes != "" {
		counted := "the sequence makes"
		if !o.h.complete {
			counted = "the part that was counted makes"
		}
		text += fmt.Sprintf("; %s %s wait: %s", counted, unit.Format(s.Waiting, "share"), causes)
	}
	for _, other := range o.h.schedule.Plan.Gates {
		if other.Metric.Name != "cache_hit_ratio" || other.System != g.System || !asksForGood(other.Condition) || s.Reads == 0 {
			continue
		}
		// Writes wait in any case; what they leave is for reads.
		reads := limit*float64(s.Requests) - float64(s.Writes)
		hits := 1 - max(reads, 0)/float64(s.Reads)
		if other.Holds(hits) && hits <= 1 {
			so := "so"
			if s.Writes > 0 {
				so = "writes wait in any case, so"
			}
			text += fmt.Sprintf("; %s of the reads at most %s may, and %s beside it is implied (refreshes in the background aside): more than %s must be hits",
				so, unit.Format(max(reads, 0)/float64(s.Reads), "share"), other.Text, unit.Format(hits, "share"))
		}
	}
	return text
}

// availability compares the gates on errors with those on availability, which
// is a part of 1 − error_rate.
func (o *oracle) availability() (lines []string) {
	gates := o.h.schedule.Plan.Gates
	for _, a := range gates {
		for _, e := range gates {
			if a.Metric.Name != "availability" || e.Metric.Name != "error_rate" || a.System != e.System || !asksForGood(a.Condition) || !asksForGood(e.Condition) {
				continue
			}
			if e.Threshold <= 1-a.Threshold+1e-12 {
				lines = append(lines, fmt.Sprintf("%s is implied by %s: what is unavailable is an error", a.Text, e.Text))
			}
		}
	}
	return lines
}

// expiry says what becomes old within the run.
func (o *oracle) expiry(a *rehearsed, s *System) []string {
	if !s.Known || s.Kind == string(scenario.KindDirect) || s.Requests == 0 {
		return nil
	}
	fresh, grace, storable := a.policy(o.h.schedule.Plan.Load.Path).Lifetimes(http.StatusOK, false)
	run := o.h.schedule.End(o.h.schedule.Looks)
	if !o.h.complete {
		run = o.h.last
	}
	u := o.h.schedule.Plan.Upstream
	field := u.CacheControl
	if i := slices.IndexFunc(u.Paths, func(p scenario.UpstreamPath) bool { return strings.HasPrefix(o.h.schedule.Plan.Load.Path, p.Prefix) }); i >= 0 {
		field = u.Paths[i].CacheControl
	}
	switch {
	case !storable || fresh+grace == 0:
		return []string{fmt.Sprintf("%s: Cache-Control %q allows no answer from a cache without asking: %s reads wait", s.Name, field, unit.Count(s.Uncacheable))}
	case s.Expired+s.Refreshed == 0:
		return []string{fmt.Sprintf("%s: nothing expires in the run: answers are fresh for %s, and it lasts %s", s.Name, unit.Duration(fresh.Seconds()), unit.Duration(run.Seconds()))}
	}
	d := a.steady
	return []string{fmt.Sprintf("%s: answers are fresh for %s of a run of %s: %s are asked for within the %s in which they may be served stale and refreshed in the background, and %s after it; an ordinary cache lets those wait (%s of requests in all) and reaches a hit ratio of %s",
		s.Name, unit.Duration(fresh.Seconds()), unit.Duration(run.Seconds()), unit.Count(s.Refreshed), unit.Duration(grace.Seconds()), unit.Count(s.Expired),
		unit.Format(float64(d.waiting(true))/float64(max(d.Requests, 1)), "share"), unit.Format(s.OrdinaryHit, "share"))}
}

// triggers is the outlook on all triggers: what has no data, what can't be in
// time, and what fires even for the best system.
func (o *oracle) triggers() []Trigger {
	plan, s := o.h.schedule.Plan, o.h.schedule
	out := make([]Trigger, len(plan.Triggers))
	live := make([]*gate.Trigger, len(plan.Triggers))
	for i, t := range plan.Triggers {
		live[i] = gate.NewTrigger(t, plan.TimeScale, plan.Load.Timeout)
		out[i] = o.trigger(t, live[i].Status().For)
	}
	end := s.End(s.Looks)
	if !o.h.complete {
		end = min(end, o.h.last.Truncate(Interval))
	}
	for at := s.Warmup + Interval; at <= end; at += Interval {
		for arm, a := range o.h.arms {
			if !slices.ContainsFunc(plan.Triggers, func(t scenario.Trigger) bool { return t.System == a.system.Name }) {
				continue
			}
			rate := o.h.schedule.Offered(a.system.Name)
			window := o.h.recorder.Window(arm, max(at-gate.WindowLength(rate, plan.TimeScale), s.Warmup), at)
			for i, t := range plan.Triggers {
				if t.System != a.system.Name || out[i].Outlook != Open || !firesOnBad(t.Condition) {
					continue
				}
				earliest := max(at-gate.LongestWindow(t.Metric, rate, plan.TimeScale), s.Warmup)
				stretched := gate.Stretch(t.Metric, window, earliest, func(from time.Duration) timeline.Window {
					return o.h.recorder.Series().Counted(arm, from, at)
				})
				if live[i].Observe(at, window, stretched, 0) == gate.Firing {
					out[i].Outlook = Impossible
					out[i].Why = fmt.Sprintf("at the latest %s into the steady state, whatever the cache: %s is %s in its window", unit.Duration((at - s.Warmup).Seconds()),
						t.Metric.Name, unit.Beside(live[i].Status().Worst, t.Threshold, string(t.Metric.Unit)))
				}
			}
		}
	}
	return out
}

// firesOnBad reports whether the best system is the least likely to meet c.
func firesOnBad(c scenario.Condition) bool {
	return better(c.Metric) != 0 && !asksForGood(c)
}

// trigger is the outlook on one trigger whose condition must hold for a scaled
// time, before anything is known of what the best system does.
func (o *oracle) trigger(t scenario.Trigger, held time.Duration) Trigger {
	plan, rate := o.h.schedule.Plan, o.h.schedule.Offered(t.System)
	longest := gate.LongestWindow(t.Metric, rate, plan.TimeScale)
	f := Trigger{Trigger: t.Text, System: t.System, For: held.Seconds(), Outlook: Open, Watched: Always, Window: longest.Seconds()}
	never := func(format string, args ...any) Trigger {
		f.Outlook, f.Watched, f.Why = Given, Never, fmt.Sprintf(format, args...)
		return f
	}
	if why := o.notOffered(t.Metric, t.System); why != "" {
		return never("%s", why)
	}
	switch {
	case t.Metric.Name == "latency_improvement":
		return never("it can't be measured in a trigger's window")
	case t.Metric.Estimator == scenario.BySlope && longest < gate.SlopeWindow:
		return never("a slope needs %s, and its window is %s", unit.Duration(gate.SlopeWindow.Seconds()), unit.Duration(longest.Seconds()))
	}
	data := 0.0 // per second
	if t.Metric.Source == scenario.FromGenerator {
		data = rate
	}
	if gate.Rare(t.Metric) && !plan.Load.Max {
		if data = o.expect(&f, t); f.Watched == Never {
			return f
		}
	}
	first := Interval
	if data > 0 { // fewer are no data
		first = max(first, time.Duration(math.Ceil(gate.MinRequests/data))*time.Second)
	}
	switch {
	case first+held <= o.length():
	case held == 0:
		f.Outlook = Given
		f.Why = fmt.Sprintf("it is evaluated from the first %s on, and the steady state lasts %s", unit.Duration(first.Seconds()), unit.Duration(o.length().Seconds()))
	default:
		f.Outlook = Given
		f.Why = fmt.Sprintf("its condition must hold for %s after the first %s, and the steady state lasts %s", unit.Duration(held.Seconds()), unit.Duration(first.Seconds()), unit.Duration(o.length().Seconds()))
	}
	return f
}

// expect says whether the longest window of a trigger on a rare metric will hold
// enough of what it counts, and how much of that a second brings; 0 if nobody
// knows.
func (o *oracle) expect(f *Trigger, t scenario.Trigger) (data float64) {
	of := gate.NeedOf(scenario.Gate{Condition: t.Condition}, o.h.schedule.look(1)).Of
	window := min(f.Window, o.length().Seconds()) // it never begins before the steady state
	sample := o.sample(t.Metric, t.System)
	if sample == nil {
		f.Watched = Perhaps
		f.Why = fmt.Sprintf("it takes %d %s in %s, the longest window that it gets, and how many there are is the system's choice", gate.MinRequests, of, unit.Duration(window))
		return 0
	}
	data = float64(*sample) / o.length().Seconds()
	expected := data * window
	f.Expected = &expected
	if expected >= gate.MinRequests {
		return data
	}
	f.Watched = Rarely
	// Beyond three standard deviations of so rare a count chance brings nothing.
	if expected+3*math.Sqrt(expected) < gate.MinRequests {
		f.Outlook, f.Watched = Given, Never
	}
	f.Why = fmt.Sprintf("about %s %s are expected in %s, the longest window that it gets, and fewer than %d are no data%s", unit.Count(int64(expected)), of, unit.Duration(window), gate.MinRequests,
		o.remedy(t.System, func(p *scenario.Plan) bool {
			longest := gate.LongestWindow(t.Metric, o.h.schedule.Offered(t.System), p.TimeScale)
			return data*min(longest, judged(p)).Seconds() >= gate.MinRequests
		}))
	return data
}
