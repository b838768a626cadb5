package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"phasegate/harness/forecast"
	"phasegate/harness/gate"
	"phasegate/harness/load"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
	"phasegate/reports/result"
)

// mendTime bounds how long a fault may take to begin, and to be mended.
const mendTime = 15 * time.Second

// fault is something that is broken on purpose, for a while.
type fault interface {
	inject(ctx context.Context) error
	// mend undoes inject; it is called once after it, whatever came of it.
	mend(ctx context.Context) error
	// met is what of the traffic met it, where it is the harness that knows: by the
	// names that [scenario] has for it; nil otherwise.
	met() map[string]int64
}

// faultOf returns the fault of a drill. The error says why it can't be injected
// in this run.
func (r *run) faultOf(f scenario.Fault) (fault, error) {
	if control := r.env.Control(); f.Kind.AtUpstream() && control != nil {
		return switched{on: func(ctx context.Context) error { return control.Break(ctx, f.Wire) }, off: control.Mend}, nil
	}
	if f.Kind == scenario.Worse {
		return switched{
			on:  func(ctx context.Context) error { return r.env.Worsen(ctx, f.Network) },
			off: func(ctx context.Context) error { return r.env.Restore(ctx, f.Network.Leg) },
			by:  func() map[string]int64 { return r.env.Met(f.Network.Leg) },
		}, r.env.CanWorsen(f.Network.Leg)
	}
	target := r.env.Upstream()
	if f.Target != scenario.TargetUpstream {
		target = r.env.Systems()[f.Target]
	}
	switch {
	case target == nil:
		return nil, fmt.Errorf("there is no %s to break", f.Target)
	case target.Container == nil:
		return nil, fmt.Errorf("the %s isn't in a container, which %s needs (--upstream container)", f.Target, f.Kind)
	}
	c := target.Container
	if f.Kind == scenario.Partition {
		return switched{on: c.Detach, off: c.Attach}, nil
	}
	return switched{on: c.Pause, off: c.Resume}, nil
}

// switched is a fault with one call to begin and one to end it.
type switched struct {
	on, off func(context.Context) error
	by      func() map[string]int64 // nil where it isn't known
}

func (s switched) inject(ctx context.Context) error { return s.on(ctx) }
func (s switched) mend(ctx context.Context) error   { return s.off(ctx) }
func (s switched) met() map[string]int64 {
	if s.by == nil {
		return nil
	}
	return s.by()
}

// drilled is what is known of one drill. It is begun by an entry, and what is
// observed until its end is its own.
type drilled struct {
	length   time.Duration // of its load
	started  time.Time     // its load; zero if it never did
	series   *timeline.Series
	triggers []*gate.Trigger
	cpu      machineReadings
	fault    *faultTimes
	lag      time.Duration
	none     string // why there is nothing to judge
}

// drillBegun is the entry that begins a drill, numbered as in the scenario, from
// 0. Times until its end are on the drill's own clock, which starts with its load.
type drillBegun struct {
	Number int    `json:"number"`
	None   string `json:"none,omitempty"` // why it wasn't run
}

// faultTimes is when the fault was there, from the first call to the end of the
// last, and what met it.
type faultTimes struct {
	From time.Duration    `json:"from_ns"`
	To   time.Duration    `json:"to_ns"`
	Met  map[string]int64 `json:"met,omitempty"` // connections, by the names that [scenario] has; of networks
}

// drillEnded is the entry that ends a drill.
type drillEnded struct {
	Failure string        `json:"failure,omitempty"` // why there is nothing to judge
	LagP99  time.Duration `json:"lag_p99_ns"`        // of its load; see load.Report
}

// drills runs the plan's drills one by one, when everything that gates are
// judged on has been measured.
func (r *run) drills(ctx context.Context) error {
	for i, d := range r.plan.Drills {
		broken, err := r.faultOf(d.Fault)
		if r.stages.stopped > 0 {
			err = errors.New("the run was stopped before its drills")
		}
		if err != nil {
			r.note(entry{Drill: &drillBegun{Number: i, None: err.Error()}})
			continue
		}
		if err := r.drill(ctx, i, broken); err != nil {
			return err
		}
	}
	return nil
}

// drill runs one drill. The error is the context's, or says what of the
// harness failed; what becomes of the systems is what is judged.
func (r *run) drill(ctx context.Context, number int, broken fault) error {
	d := r.plan.Drills[number]
	length := r.drillLength(d)
	if control := r.env.Control(); control != nil {
		if err := control.Reset(ctx); err != nil {
			return fmt.Errorf("reset the upstream's ledger: %w", err)
		}
	}
	r.flush() // of what was before
	r.note(entry{Drill: &drillBegun{Number: number}})
	var err error
	if r.recorder, err = timeline.New(r.drillTimeline(length)); err != nil {
		return fmt.Errorf("set up a drill's timeline: %w", err)
	}
	r.drilled[number].series = r.recorder.Series()
	w := &watch{r: r, samplers: r.watch.samplers, began: make(chan time.Time, 1), end: length, drill: d.Text}
	for _, arm := range r.arms {
		// A breaker opens and closes within seconds.
		w.claims = append(w.claims, newClaims(r.env.Systems()[arm.Name].Metrics, Interval))
	}
	config := r.load
	config.Length, config.Warmup, config.Sink, config.Raw = length, 0, r.recorder, nil
	// Other draws from the same load: those of the steady state are known to the
	// system by now, and of them few would reach the upstream.
	config.Seed += uint64(number) + 1
	began := make(chan time.Time, 1)
	config.Begin = func(now time.Time) { w.begin(now); began <- now }
	generator, err := load.New(config)
	if err != nil {
		return fmt.Errorf("set up the load of a drill: %w", err)
	}
	defer generator.Close()

	loading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var during sync.WaitGroup
	var times *faultTimes
	var failed error
	during.Go(func() { w.run(loading, cancel) })
	during.Go(func() { times, failed = breakAndMend(loading, began, r.faultLength(d), broken) })
	report, err := generator.Run(loading)
	cancel(errEnded)
	during.Wait()
	if times != nil {
		r.note(entry{Fault: times})
	}
	ended := drillEnded{LagP99: report.Lag.P99}
	switch cause := context.Cause(loading); {
	case ctx.Err() != nil:
		ended.Failure = "it was broken off"
		err = ctx.Err()
	case failed != nil:
		ended.Failure, err = failed.Error(), nil
	case cause != errEnded: // the upstream died
		ended.Failure, err = cause.Error(), cause
	case err != nil:
		err = fmt.Errorf("run the load of a drill: %w", err)
		ended.Failure = err.Error()
	}
	r.flush()
	r.note(entry{DrillEnded: &ended})
	return err
}

// breakAndMend injects the fault a lead after the load's start and mends it
// when its time is over, or at once when ctx ends. Times are since the start.
func breakAndMend(ctx context.Context, began <-chan time.Time, length time.Duration, broken fault) (times *faultTimes, err error) {
	var start time.Time
	select {
	case start = <-began:
	case <-ctx.Done():
		return nil, errors.New("its load never began")
	}
	if !sleep(ctx, forecast.LeadTime) {
		return nil, errors.New("its fault was never injected")
	}
	times = &faultTimes{From: time.Since(start)}
	call := func(of func(context.Context) error) error {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), mendTime)
		defer cancel()
		return of(bounded)
	}
	if err = call(broken.inject); err == nil {
		sleep(ctx, length)
	}
	err = errors.Join(err, call(broken.mend))
	times.To, times.Met = time.Since(start), broken.met()
	return times, err
}

// sleep returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// faultLength is how long a drill's fault is there.
func (r *record) faultLength(d scenario.Drill) time.Duration { return forecast.FaultLength(r.plan, d) }

// drillLength is how long a drill's load lasts.
func (r *record) drillLength(d scenario.Drill) time.Duration {
	return forecast.DrillLength(r.plan, d, r.rate(scenario.New))
}

// drillTimeline keeps all of a drill as it is.
func (r *record) drillTimeline(length time.Duration) timeline.Config {
	c := r.timeline()
	c.Marks, c.Recent = nil, max(c.Recent, length+2*r.plan.Load.Timeout+time.Minute)
	for _, d := range r.plan.Drills {
		for _, e := range d.Expect {
			if e.Condition != nil {
				c.Over = append(c.Over, gate.Thresholds([]scenario.Gate{{Condition: *e.Condition}}, nil)...)
			}
		}
	}
	return c
}

// beginDrill takes in the entry that begins a drill.
func (r *record) beginDrill(b drillBegun) error {
	if b.Number < 0 || b.Number >= len(r.plan.Drills) || r.drilled[b.Number] != nil || r.current != nil {
		return fmt.Errorf("drill %d begins; the scenario has %d, one after the other", b.Number, len(r.plan.Drills))
	}
	if r.begun == nil {
		return errors.New("a drill before the systems ran")
	}
	d := &drilled{length: r.drillLength(r.plan.Drills[b.Number]), none: b.None}
	if r.drilled == nil {
		r.drilled = map[int]*drilled{}
	}
	r.drilled[b.Number] = d
	if d.none != "" {
		return nil
	}
	for _, t := range r.plan.Triggers {
		d.triggers = append(d.triggers, gate.NewTrigger(t, r.plan.TimeScale, r.plan.Load.Timeout))
	}
	d.none = "it has no end"
	r.current = d
	series, err := timeline.NewSeries(r.drillTimeline(d.length))
	d.series = series
	return err
}

// setFault takes in when its fault was there.
func (r *record) setFault(f faultTimes) error {
	if r.current == nil || f.From < 0 || f.To < f.From {
		return fmt.Errorf("a fault from %s to %s, and a drill under way: %t", f.From, f.To, r.current != nil)
	}
	for name, n := range f.Met {
		if n < 0 {
			return fmt.Errorf("a fault that %d connections met (%s)", n, name)
		}
	}
	r.current.fault = &f
	return nil
}

// endDrill takes in the entry that ends it.
func (r *record) endDrill(e drillEnded) error {
	if r.current == nil {
		return errors.New("the end of a drill that never began")
	}
	r.current.none, r.current.lag = e.Failure, e.LagP99
	r.current = nil
	return nil
}

// fillDrills adds a gate for every expectation of every drill.
func (r *record) fillDrills() {
	for i, plan := range r.plan.Drills {
		d := r.drilled[i]
		if d == nil {
			d = &drilled{none: "the run ended before it"}
		}
		for _, e := range plan.Expect {
			g := r.expectation(plan, d, e)
			g.Drill = i + 1
			r.res.Gates = append(r.res.Gates, g)
		}
	}
}

// expectation judges one expectation on its drill: a condition on the time of the
// fault, a trigger on all of the drill. It speaks of this fault and of no other,
// and all of its time was seen: see [gate.Look.Whole].
func (r *record) expectation(plan scenario.Drill, d *drilled, e scenario.Expectation) result.Gate {
	name := plan.Fault.String() + ": " + e.Text
	g := result.Gate{Gate: name, Metric: "drill", System: scenario.New, Verdict: result.Inconclusive, Confidence: r.plan.Confidence, Looks: 1}
	if c := e.Condition; c != nil {
		g.Metric, g.Op, g.Threshold, g.Unit = c.Metric.Name, string(c.Op), c.Threshold, string(c.Metric.Unit)
	}
	switch {
	case d.none != "":
		g.Reason = d.none + "; need a run in which this drill is made to its end"
	case plan.Fault.Kind.AtUpstream() && d.broken(r.armIndex(scenario.New)) == 0:
		g.Reason = "nothing that the new system asked of the upstream was met by the fault, so nothing was tried; need a longer fault, or a load of which more reaches the upstream"
	case plan.Fault.Target == scenario.TargetUpstream && !plan.Fault.Kind.AtUpstream() && d.fault != nil && !d.needed(r.armIndex(scenario.New)):
		g.Reason = "while the fault was there every answer came from what the new system had, and it asked nothing of the upstream, so nothing was tried; need a longer fault, or a load of which more reaches the upstream"
	case plan.Fault.Kind == scenario.Worse && d.fault != nil && untried(plan.Fault.Network, d.fault.Met):
		g.Reason = "nothing was tried: " + unmet(plan.Fault.Network, d.fault.Met) + "; need a longer fault, or more connections while it is there"
	case e.Condition != nil && d.fault != nil:
		j := gate.Judge(scenario.Gate{Condition: *e.Condition, System: scenario.New}, r.drillData(d, e.Condition.Metric), gate.Look{Number: 1, Planned: 1, Confidence: r.plan.Confidence, Whole: true})
		g = asResult(scenario.Gate{Condition: *e.Condition, System: scenario.New}, j)
		g.Gate = name
	case e.Condition == nil && e.Text == scenario.NoTrigger:
		g.Verdict, g.Reason = noTrigger(r.plan.Triggers, d.triggers)
	default:
		g.Reason = "its fault wasn't made; need a run in which this drill is made to its end"
	}
	if plan.Fault.Kind == scenario.Worse && d.fault != nil && g.Verdict == result.Pass {
		if part := unmet(plan.Fault.Network, d.fault.Met); part != "" {
			g.Reason = strings.TrimPrefix(g.Reason+"; "+part, "; ")
		}
	}
	return g
}

// endings are the parts of a network that only some connections meet.
func endings(n scenario.Network) (names []string) {
	for _, of := range []struct {
		is   bool
		name string
	}{{n.Reset > 0, scenario.MetReset}, {n.LimitData > 0, scenario.MetLimit}, {n.SlowClose > 0, scenario.MetClose}} {
		if of.is {
			names = append(names, of.name)
		}
	}
	return names
}

// untried reports whether no connection met any part of a network.
func untried(n scenario.Network, met map[string]int64) bool {
	for _, name := range endings(n) {
		if met[name] > 0 {
			return false
		}
	}
	all := n.Latency > 0 || n.Bandwidth > 0 || n.Timeout > 0 || n.Slice > 0
	return !all || met[scenario.MetConnections] == 0
}

// unmet says what of a network no connection met; "" if nothing.
func unmet(n scenario.Network, met map[string]int64) string {
	var parts []string
	for _, name := range endings(n) {
		if met[name] == 0 {
			parts = append(parts, name)
		}
	}
	switch {
	case len(parts) == 0 && !untried(n, met):
		return ""
	case met[scenario.MetConnections] == 0:
		return "nothing was sent through the network while it was worse"
	}
	return fmt.Sprintf("no connection met %s, of %d through the network while it was worse", strings.Join(parts, " or "), met[scenario.MetConnections])
}

// broken is how much of an arm's the mock upstream broke in a drill.
func (d *drilled) broken(arm int) int64 {
	w := d.series.Window(arm, 0, d.length)
	return w.Ledger.Broken
}

// needed reports whether a system needed the upstream while the fault was there: one that
// isn't to be reached counts nothing itself.
func (d *drilled) needed(arm int) bool {
	from, to := d.faultIntervals()
	w := d.series.Window(arm, from, to)
	return w.Ledger.Requests > 0 || w.Blocking > 0 || w.Proven < w.Requests || w.Pending() > 0
}

// faultIntervals are those of which the fault had the greater part: what is before
// it and after it would dilute what it did. They are one at least.
func (d *drilled) faultIntervals() (from, to time.Duration) {
	from, to = d.fault.From.Round(Interval), d.fault.To.Round(Interval)
	if from == to {
		from = (d.fault.From + (d.fault.To-d.fault.From)/2).Truncate(Interval)
		to = from + Interval
	}
	return from, min(to, d.length)
}

// drillData is what a drill's condition is judged on. A count is taken until the
// drill's end: what was stored while the fault was there may be handed out later,
// and nothing dilutes it.
func (r *record) drillData(d *drilled, m scenario.Metric) gate.Data {
	from, to := d.faultIntervals()
	if m.Estimator == scenario.ByCount {
		to = d.length
	}
	data := gate.Data{
		Windows: map[string]timeline.Window{}, Missing: map[string]map[string]string{}, Rate: map[string]float64{},
		Stolen: d.cpu.stolen(from, to), LagP99: &d.lag, Timeout: r.plan.Load.Timeout,
	}
	for i, arm := range r.plan.Systems {
		w := d.series.Window(i, from, to)
		data.Windows[arm.Name], data.Rate[arm.Name] = w, r.rate(arm.Name)
		data.Missing[arm.Name] = r.missing(arm.Name, w)
	}
	return data
}

// noTrigger judges that none fired that rolls back. One that had no data might
// have.
func noTrigger(rules []scenario.Trigger, triggers []*gate.Trigger) (result.Verdict, string) {
	var fired, blind []string
	armed := 0
	for i, t := range triggers {
		if rules[i].Action == scenario.Alert {
			continue
		}
		armed++
		switch s := t.Status(); {
		case s.FiredAt != nil:
			fired = append(fired, fmt.Sprintf("%s, %s after the drill began", rules[i].Text, s.FiredAt))
		case s.Worst == nil:
			blind = append(blind, rules[i].Text)
		}
	}
	switch {
	case len(fired) > 0:
		return result.Fail, "fired: " + strings.Join(fired, "; ")
	case armed == 0:
		return result.Inconclusive, "the scenario has no trigger that could have fired; need one whose action isn't " + scenario.Alert
	case len(blind) > 0:
		return result.Inconclusive, "without data: " + strings.Join(blind, "; ") + "; need a longer drill, or more requests a second"
	}
	return result.Pass, fmt.Sprintf("none of %d fired, and each had data", armed)
}
