package forecast

import (
	"fmt"
	"math"
	"slices"
	"time"

	"phasegate/harness/gate"
	"phasegate/harness/scenario"
	"phasegate/reports/unit"
)

// Outlook says what can become of a gate or trigger in a run, before it runs.
type Outlook string

// The outlooks, from the best to the worst.
const (
	Open       Outlook = "open"       // for the run to decide
	Given      Outlook = "given"      // a gate that hardly anything can fail, a trigger that can't fire: it says little
	Undecided  Outlook = "undecided"  // can't be decided by this profile, or not at all
	Impossible Outlook = "impossible" // no system passes, in this profile
)

// Forecast is what is known of a run without running it.
type Forecast struct {
	Scenario   string  `json:"scenario"`
	Title      string  `json:"title"`
	Profile    string  `json:"profile"`
	Seed       uint64  `json:"seed"`
	Warmup     float64 `json:"warmup"` // seconds
	Steady     float64 `json:"steady"` // seconds, of one look
	Looks      int     `json:"looks"`  // planned: 1 + extensions
	Confidence float64 `json:"confidence"`
	// Counted says that every request of the schedule was looked at: its
	// counts are exact for this seed. Else they are those of the first Rehearsed
	// ones, carried on at their rate, and nothing is called impossible by them.
	Counted   bool   `json:"counted"`
	Rehearsed uint64 `json:"rehearsed"`

	Systems  []System  `json:"systems"`
	Gates    []Gate    `json:"gates"`
	Joint    []string  `json:"joint"` // what gates, upstream and sequence say together, a sentence each
	Triggers []Trigger `json:"triggers"`
	Duration []Part    `json:"duration"`
	Notices  []string  `json:"notices,omitempty"`
}

// System is what one arm is asked, and what of it can't come from a
// cache. Counts are of the steady state up to the last look.
type System struct {
	Name     string  `json:"name"`
	Kind     string  `json:"kind"`
	Share    float64 `json:"share"`
	Rate     float64 `json:"rate"` // offered, requests per second
	Warmup   int64   `json:"warmup_requests"`
	Steady   int64   `json:"steady_requests"` // up to the first look
	Requests int64   `json:"requests"`        // up to the last look
	Reads    int64   `json:"reads"`           // GET and HEAD
	Writes   int64   `json:"writes"`

	First       int64 `json:"first"`       // reads that are the first for their target
	Coalesced   int64 `json:"coalesced"`   // reads that come while that first answer is on its way
	Expired     int64 `json:"expired"`     // reads of a copy past its lifetime and any allowance
	Rewritten   int64 `json:"rewritten"`   // reads that are the first after a write to their target
	Refreshed   int64 `json:"refreshed"`   // reads of a stale copy: not waited for, but an upstream request
	Uncacheable int64 `json:"uncacheable"` // reads of what may not be stored

	Waiting     float64 `json:"waiting"`       // least share of the requests that waits for the upstream
	OrdinaryHit float64 `json:"ordinary_hit"`  // hit ratio of an unlimited cache that follows Cache-Control and doesn't refresh ahead
	MaxHit      float64 `json:"max_hit"`       // and of the best one
	UnderWay    float64 `json:"under_way"`     // requests under way at once, by Little's law
	AllWaiting  float64 `json:"all_waiting"`   // the same if every request waited for the upstream
	Connections int     `json:"connections"`   // size of its pool
	Limited     bool    `json:"limited_pool"`  // by load.connections
	Streams     int     `json:"streams"`       // requests that its pool can have under way at once
	Queued      int64   `json:"queued"`        // requests that find every connection busy, at least
	Lost        int64   `json:"lost"`          // of them, those that wait for longer than the timeout
	Overloaded  bool    `json:"overloaded"`    // more are under way than a limited pool has room for: requests queue without end
	Known       bool    `json:"upstream_seen"` // whether an upstream of ours is behind it

	queue string // what a limited pool makes of it; "" where it has room
}

// Gate is the outlook on one gate.
type Gate struct {
	Gate    string   `json:"gate"`
	System  string   `json:"system"`
	Outlook Outlook  `json:"outlook"`
	Of      string   `json:"of,omitempty"` // what a sample is counted in
	Sample  *int64   `json:"sample"`       // expected up to the last look; null where the sequence doesn't tell
	Clean   int64    `json:"need_clean,omitempty"`
	OneBad  int64    `json:"need_one_bad,omitempty"`
	Power   int64    `json:"need_power,omitempty"`
	Truth   float64  `json:"power_truth,omitempty"`
	Allowed float64  `json:"allowed,omitempty"`
	Bad     *int64   `json:"tolerated"` // bad ones that the expected sample tolerates
	Why     []string `json:"why"`

	short  string  // what the outlook rests on
	effect float64 // of bad ones that come together; 0 where they needn't
	told   bool    // the run itself says so in its result
}

// Trigger is the outlook on one trigger: Given if it can't fire,
// Impossible (for the run to pass) if it fires for certain.
type Trigger struct {
	Trigger  string   `json:"trigger"`
	System   string   `json:"system"`
	For      float64  `json:"for"` // seconds, scaled
	Outlook  Outlook  `json:"outlook"`
	Watched  Watched  `json:"watched"`
	Window   float64  `json:"window"`        // seconds, the longest that it gets
	Expected *float64 `json:"expected"`      // data in it, where they are rarer than requests; null where they aren't, or the sequence doesn't tell
	Why      string   `json:"why,omitempty"` // of Outlook and Watched, unless it is open and watched
}

// Watched says whether a trigger will have data to fire on.
type Watched string

// What there is to expect.
const (
	Always  Watched = "yes"     // but for what comes before its first window is full
	Perhaps Watched = "perhaps" // how much there is, is the system's choice
	Rarely  Watched = "rarely"  // less than it takes is expected, and chance may bring more
	Never   Watched = "no"
)

// Part is one part of a run's expected duration.
type Part struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	How     string  `json:"how"` // the arithmetic
}

// Total is the expected duration in seconds, all looks taken.
func (f *Forecast) Total() float64 {
	var sum float64
	for _, p := range f.Duration {
		sum += p.Seconds
	}
	return sum
}

// Worst is the worst outlook of all gates and triggers.
func (f *Forecast) Worst() Outlook {
	order := []Outlook{Open, Given, Undecided, Impossible}
	worst := 0
	for _, g := range f.Gates {
		worst = max(worst, slices.Index(order, g.Outlook))
	}
	for _, t := range f.Triggers {
		worst = max(worst, slices.Index(order, t.Outlook))
	}
	return order[worst]
}

// Warnings are what whoever runs the plan all the same must know beforehand, a
// line each: what can't pass, what can't be decided, what may have no data, and
// what says little.
func (f *Forecast) Warnings() []string {
	lines := slices.Concat(f.overloads(), f.warnings(Impossible, false), f.warnings(Undecided, false))
	for _, g := range f.Gates {
		if g.Unforeseen() {
			lines = append(lines, fmt.Sprintf("gate %s may stay undecided: %s", g.Gate, g.short))
		}
	}
	for _, t := range f.Triggers {
		switch {
		case t.Outlook != Open:
		case t.Watched == Perhaps:
			lines = append(lines, fmt.Sprintf("trigger %s may not be watched: %s", t.Trigger, t.Why))
		case t.Watched == Rarely:
			lines = append(lines, fmt.Sprintf("trigger %s will rarely be watched: %s", t.Trigger, t.Why))
		}
	}
	return append(lines, f.warnings(Given, false)...)
}

// Unforeseen reports whether the system decides on how large the gate's sample
// is, so that nobody can say beforehand whether it will be enough.
func (f *Gate) Unforeseen() bool { return f.Of != "" && f.Sample == nil }

// Notes are those of the warnings that change how a run's figures are read, and
// that nothing else in the result says.
func (f *Forecast) Notes() []string {
	return slices.Concat(f.overloads(), f.warnings(Impossible, true), f.warnings(Given, true))
}

// overloads says which systems' connections can't carry what they are offered.
func (f *Forecast) overloads() (lines []string) {
	for i := range f.Systems {
		if s := &f.Systems[i]; s.Overloaded {
			lines = append(lines, s.Name+": "+s.queue)
		}
	}
	return lines
}

// warnings are those of one outlook; with news, only those that the result
// wouldn't have without them.
func (f *Forecast) warnings(outlook Outlook, news bool) (lines []string) {
	word := map[Outlook]string{Impossible: "can't pass", Undecided: "can't be decided", Given: "can hardly fail"}[outlook]
	for _, g := range f.Gates {
		if g.Outlook == outlook && !(news && g.told) {
			lines = append(lines, fmt.Sprintf("gate %s %s: %s", g.Gate, word, g.short))
		}
	}
	for _, t := range f.Triggers {
		if t.Outlook == outlook {
			word := map[Outlook]string{Impossible: "fires for certain", Given: "can't fire"}[outlook]
			if t.Watched == Never {
				word = "can't be watched"
			}
			lines = append(lines, fmt.Sprintf("trigger %s %s: %s", t.Trigger, word, t.Why))
		}
	}
	return lines
}

// New computes the forecast of a plan. It reads a replayed log, and
// starts and calls nothing. others are the scenario's plans for its other
// profiles, to say which of them would decide a gate. The error is an
// [InputError] where a file that the scenario names can't be used.
func New(plan *scenario.Plan, others ...*scenario.Plan) (*Forecast, error) {
	h, err := rehearse(plan, maxRehearsed)
	if err != nil {
		return nil, err
	}
	return h.forecast(others), nil
}

// forecast puts into words what a rehearsal has shown.
func (h *rehearsal) forecast(others []*scenario.Plan) *Forecast {
	plan, s := h.schedule.Plan, h.schedule
	f := &Forecast{
		Scenario: plan.Name, Title: plan.Title, Profile: plan.Profile, Seed: plan.Seed,
		Warmup: s.Warmup.Seconds(), Steady: s.Steady.Seconds(), Looks: s.Looks, Confidence: plan.Confidence,
		Counted: h.complete, Rehearsed: h.positions,
		Notices: slices.Concat(plan.Notices, s.Notices),
		Joint:   []string{},
	}
	for i := range h.arms {
		f.Systems = append(f.Systems, h.system(i))
	}
	o := oracle{h: h, f: f, others: others, best: h.data(s.Looks), early: h.data(1)}
	for _, g := range plan.Gates {
		f.Gates = append(f.Gates, o.gate(g))
	}
	if !plan.Load.Max {
		f.Joint = append(f.Joint, o.joint()...)
	}
	f.Triggers = o.triggers()
	f.Duration = h.duration()
	return f
}

// carried scales a count of an incomplete rehearsal to the whole schedule.
func (h *rehearsal) carried(n int64, whole int64, part int64) int64 {
	if h.complete || part == 0 {
		return n
	}
	return int64(math.Round(float64(n) * float64(whole) / float64(part)))
}

// system sums up one arm.
func (h *rehearsal) system(i int) System {
	a, s := &h.arms[i], h.schedule
	d := a.steady
	f := System{
		Name: a.system.Name, Kind: string(a.system.Kind), Share: a.system.Share, Rate: s.Offered(a.system.Name),
		Warmup: a.warmup, Steady: a.first, Requests: d.Requests, Known: s.Plan.Upstream != nil,
		Connections: s.Connections(a.system), Limited: s.Plan.Load.Connections > 0, Streams: s.streams(a.system),
	}
	if !h.complete {
		f.Steady = int64(math.Round(f.Rate * s.Steady.Seconds()))
		f.Requests = int64(math.Round(f.Rate * (s.End(s.Looks) - s.Warmup).Seconds()))
		if a.warmup == 0 || d.Requests == 0 {
			f.Warmup = int64(math.Round(f.Rate * s.Warmup.Seconds()))
		}
	}
	whole := func(n int64) int64 { return h.carried(n, f.Requests, d.Requests) }
	f.Reads, f.Writes = whole(d.Reads), whole(d.Writes)
	// Few targets are first for ever, so these are carried on by nobody.
	f.First, f.Coalesced = d.First, d.Coalesced
	f.Expired, f.Rewritten, f.Refreshed, f.Uncacheable = whole(d.Expired), whole(d.Rewritten), whole(d.Refreshed), whole(d.Uncacheable)
	f.Queued, f.Lost = whole(d.Queued), whole(d.Lost)
	if sent := d.Requests - d.Lost; sent > 0 {
		f.Waiting = float64(d.waiting(false)) / float64(sent)
		ordinary := float64(d.waiting(true)) / float64(sent)
		f.AllWaiting = f.Rate * h.thinking.mean.Seconds()
		f.UnderWay = ordinary * f.AllWaiting
		f.Overloaded = f.Limited && f.UnderWay > float64(f.Streams)
		f.queue = h.queue(&f, ordinary)
	}
	if d.Reads > 0 {
		f.MaxHit = 1 - float64(d.Fetched+d.LostReads)/float64(d.Reads)
		f.OrdinaryHit = 1 - float64(d.First+d.Uncacheable+d.Expired+d.Rewritten+d.Refreshed+d.LostReads)/float64(d.Reads)
	}
	return f
}

// duration lists what a run takes its time for.
func (h *rehearsal) duration() []Part {
	plan, s := h.schedule.Plan, h.schedule
	mean := h.thinking.mean.Seconds()
	parts := []Part{{"start and stop", 3, "an allowance for starting and stopping processes"}}
	if top := plan.Prewarm.Top; top > 0 {
		at := min(max(plan.Prewarm.Concurrency, 1), top)
		parts = append(parts, Part{"prewarm", float64(top) / float64(at) * mean,
			fmt.Sprintf("%s targets ÷ %s at a time × %s", unit.Count(int64(top)), unit.Count(int64(at)), unit.Exact(mean, "s"))})
	}
	if s.Warmup > 0 {
		parts = append(parts, Part{"warm-up", s.Warmup.Seconds(), "profile " + plan.Profile})
	}
	how := "profile " + plan.Profile
	if h.schedule.Recorded != nil && s.Steady != plan.Steady {
		how = "the log's end"
	}
	if s.Looks > 1 {
		how += fmt.Sprintf(": %d looks of %s at most", s.Looks, unit.Duration(s.Steady.Seconds()))
	}
	parts = append(parts, Part{"steady state", (time.Duration(s.Looks) * s.Steady).Seconds(), how})
	if q := plan.Sequential; q.Direct > 0 && q.Hits > 0 && h.sequence() == "" {
		// Each half asks once more, untimed.
		waits, hits := float64(q.Direct+1), 1.0
		if plan.System(scenario.New).Kind == scenario.KindDirect {
			hits += float64(q.Hits)
		}
		direct := min(waits*mean, SequentialTime.Seconds())
		parts = append(parts, Part{"sequential", direct + min(hits*mean, SequentialTime.Seconds()),
			fmt.Sprintf("%s requests × %s, each half at most %s", unit.Count(int64(waits+hits)), unit.Exact(mean, "s"), unit.Duration(SequentialTime.Seconds()))})
	}
	var drills int64
	var took time.Duration
	for _, d := range plan.Drills {
		drills++
		took += DrillLength(plan, d, s.Offered(scenario.New))
	}
	if drills > 0 {
		parts = append(parts, Part{"drills", took.Seconds(), fmt.Sprintf("%s, each with time before and after its fault", unit.Count(drills))})
	}
	return parts
}

// sequence says why there is no sequential stage; "" if there is one.
func (h *rehearsal) sequence() string {
	plan := h.schedule.Plan
	old := plan.System(scenario.Old)
	switch {
	case plan.Sequential.Direct == 0 || plan.Sequential.Hits == 0:
		return "the scenario has no sequential stage"
	case old == nil || old.Kind != scenario.KindDirect:
		return "the old system isn't the upstream itself, to compare hits with"
	case !plan.Load.Verify:
		return "verification is off, so nothing proves that its answers are hits"
	}
	return ""
}

// oracle looks at what a rehearsal has shown.
type oracle struct {
	h           *rehearsal
	f           *Forecast
	others      []*scenario.Plan
	best, early gate.Data // at the last look, and at the first
}
