package harness

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"time"

	"phasegate/harness/environment"
	"phasegate/harness/forecast"
	"phasegate/harness/gate"
	"phasegate/harness/load"
	"phasegate/harness/probe"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
	"phasegate/reports/result"
)

// record is what a run knows, and all that its result is made from. It grows by
// entries, in their order; each is written into the evidence too. So [Verify],
// which applies what it reads there to a record of its own, comes to the same
// result or shows where it differs.
type record struct {
	plan *scenario.Plan
	res  *result.Result

	begun    *begun // nil until the systems run
	stages   stages
	series   *timeline.Series // nil until the systems run
	triggers []*gate.Trigger
	cpu      machineReadings
	report   load.Report
	ended    ended
	data     gate.Data

	values     map[string]gate.Measured // of the sequential stage, by metric
	noSequence string                   // why there are none
	foreign    bool                     // the new system doesn't stand before our upstream
	drilled    map[int]*drilled         // by number
	current    *drilled                 // the one under way: what is observed is its own; nil outside of drills
	killed     map[string]int64         // processes, by system, for want of memory in its container
}

// entry is one line of the journal: exactly one of its fields is set. Times on
// the timeline's clock are nanoseconds.
type entry struct {
	Head *head `json:"run,omitempty"` // always the first
	timeline.Entry
	Notice     *string        `json:"notice,omitempty"`
	Begun      *begun         `json:"begun,omitempty"`
	Foreign    *string        `json:"foreign,omitempty"` // this system doesn't stand before our upstream
	Kills      *kills         `json:"kills,omitempty"`
	Drill      *drillBegun    `json:"drill,omitempty"` // it begins: until its end, observations are its own
	Fault      *faultTimes    `json:"fault,omitempty"`
	DrillEnded *drillEnded    `json:"drill_ended,omitempty"`
	Started    *time.Time     `json:"started,omitempty"` // the schedule, or that of a drill: where its clock is 0
	Machine    *machineCPU    `json:"machine,omitempty"`
	Evaluate   *time.Duration `json:"evaluate_ns,omitempty"` // the triggers, at this time
	Sequence   *sequence      `json:"sequence,omitempty"`
	Ended      *ended         `json:"ended,omitempty"` // always the last
}

// head is how the run came about. What of it isn't the scenario can't be
// recomputed.
type head struct {
	Format      int                `json:"format"`
	File        string             `json:"file"`            // the scenario's name in messages; its text is kept beside …
	Sum         string             `json:"scenario_sha256"` // … and is this one
	Options     scenario.Options   `json:"options"`
	Started     time.Time          `json:"started"`
	Environment result.Environment `json:"environment"`
	Notices     []string           `json:"notices,omitempty"` // of compiling and of the forecast
}

// begun is what is known when the systems run and before any load.
type begun struct {
	Warmup   time.Duration `json:"warmup_ns"`
	Steady   time.Duration `json:"steady_ns"` // one look's worth
	Looks    int           `json:"looks"`     // planned
	Systems  []begunSystem `json:"systems"`   // in the plan's order
	Ledger   bool          `json:"ledger"`    // there is a mock upstream, whose ledger counts
	Source   string        `json:"source"`    // of the requests, in one line
	Replayed bool          `json:"replayed,omitempty"`
	Ends     time.Duration `json:"ends_ns,omitempty"` // of a replayed recording that isn't started over
	Skipped  int64         `json:"skipped,omitempty"` // unusable lines of a replayed log
}

// begunSystem is one arm as it was started or reached.
type begunSystem struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	URL     string   `json:"url"`
	Command []string `json:"command,omitempty"`
	LogFile string   `json:"log_file,omitempty"` // relative to the output folder
	Sampled bool     `json:"sampled"`            // its process is ours to sample
	CPUs    float64  `json:"cpus,omitempty"`     // available to it, if it is
	Setup   setup    `json:"setup,omitzero"`
	Rate    float64  `json:"rate"` // requests per second that it would be offered beyond the end …
	Peak    float64  `json:"peak"` // … and at the most
}

// setup is how a system was set up; nil and "" are unknown.
type setup struct {
	Version    string `json:"version,omitempty"`
	CacheBytes *int64 `json:"cache_bytes,omitempty"`
	AccessLog  *bool  `json:"access_log,omitempty"`
}

func (b *begun) system(name string) begunSystem {
	i := slices.IndexFunc(b.Systems, func(s begunSystem) bool { return s.Name == name })
	if i < 0 {
		return begunSystem{Name: name}
	}
	return b.Systems[i]
}

// machineCPU is a reading of the machine's CPU time.
type machineCPU struct {
	At     time.Duration `json:"at_ns"`
	Total  time.Duration `json:"total_ns"`
	Stolen time.Duration `json:"stolen_ns"`
}

// machineReadings are in the order of time.
type machineReadings []machineCPU

// sequence is what the sequential stage took, or why it didn't.
type sequence struct {
	Direct []load.Turn `json:"direct,omitempty"`
	Hits   []load.Turn `json:"hits,omitempty"`
	Stolen float64     `json:"stolen,omitempty"` // share of the machine's CPU time that went to others meanwhile
	None   string      `json:"none,omitempty"`
}

// ended is what is known at the end.
type ended struct {
	Report      load.Report            `json:"report"`
	Looked      int                    `json:"looked"`
	Stopped     time.Duration          `json:"stopped_ns,omitempty"` // where a failure for certain ended the run
	Systems     map[string]endedSystem `json:"systems,omitempty"`    // that ended by themselves
	CPU         float64                `json:"cpu"`                  // seconds that the harness used
	Interrupted bool                   `json:"interrupted,omitempty"`
	Failure     string                 `json:"failure,omitempty"` // of the environment
	Duration    float64                `json:"duration"`          // seconds, of everything
	Lines       int                    `json:"lines"`             // of the journal before this one
}

type endedSystem struct {
	Exit    string   `json:"exit"`
	LogTail []string `json:"log_tail,omitempty"`
	OOM     bool     `json:"oom,omitempty"` // the kernel had killed a process of its container for want of memory
}

func newRecord(plan *scenario.Plan, h head) *record {
	return &record{
		plan: plan, res: newResult(plan, h),
		stages: stages{warmup: plan.Warmup, steady: plan.Steady, looks: 1 + plan.Extensions},
	}
}

// apply takes one entry in. What the timeline's recorder has folded into the
// series by itself must not come here again.
func (r *record) apply(e entry) error {
	if r.series == nil && (e.Entry != timeline.Entry{} || e.Evaluate != nil) {
		return errors.New("an observation before the systems ran")
	}
	switch {
	case e.Entry != timeline.Entry{} && r.current != nil:
		return r.current.series.Apply(e.Entry)
	case e.Entry != timeline.Entry{}:
		return r.series.Apply(e.Entry)
	case e.Started != nil && r.current != nil:
		r.current.started = *e.Started
	case e.Drill != nil:
		return r.beginDrill(*e.Drill)
	case e.Fault != nil:
		return r.setFault(*e.Fault)
	case e.DrillEnded != nil:
		return r.endDrill(*e.DrillEnded)
	case e.Notice != nil:
		r.notice("%s", *e.Notice)
	case e.Begun != nil:
		return r.begin(e.Begun)
	case e.Foreign != nil:
		r.foreign = true
	case e.Kills != nil:
		if r.killed == nil {
			r.killed = map[string]int64{}
		}
		r.killed[e.Kills.System] = e.Kills.Count
	case e.Machine != nil:
		if r.current != nil {
			r.current.cpu = append(r.current.cpu, *e.Machine)
		} else {
			r.readMachine(*e.Machine)
		}
	case e.Evaluate != nil:
		r.evaluate(*e.Evaluate)
	case e.Sequence != nil:
		if r.noSequence = e.Sequence.None; r.noSequence == "" {
			r.improvement(e.Sequence)
		}
	case e.Ended != nil:
		if n := e.Ended.Looked; n < 0 || n > r.stages.looks {
			return fmt.Errorf("%d looks taken of %d", n, r.stages.looks)
		}
		if at := e.Ended.Stopped; at != 0 && (at <= r.stages.warmup || e.Ended.Looked == r.stages.looks || at > r.stages.end(e.Ended.Looked+1)) {
			return fmt.Errorf("stopped after %s, with %d of %d looks taken", at, e.Ended.Looked, r.stages.looks)
		}
		r.ended, r.report = *e.Ended, e.Ended.Report
		r.stages.looked, r.stages.stopped = e.Ended.Looked, e.Ended.Stopped
	}
	return nil
}

// begin makes the series and arms the triggers.
func (r *record) begin(b *begun) error {
	if r.begun != nil {
		return errors.New("the systems ran already")
	}
	p := r.plan
	switch {
	case len(b.Systems) != len(p.Systems):
		return fmt.Errorf("%d systems; the scenario has %d", len(b.Systems), len(p.Systems))
	case b.Warmup < 0 || b.Warmup > p.Warmup || b.Steady < 0 || b.Steady > p.Warmup+p.Steady || b.Looks < 1 || b.Looks > 1+p.Extensions:
		return fmt.Errorf("a warm-up of %s and %d looks of %s; the scenario allows %s and %d of %s", b.Warmup, b.Looks, b.Steady, p.Warmup, 1+p.Extensions, p.Steady)
	}
	r.begun = b
	r.stages = stages{warmup: b.Warmup, steady: b.Steady, looks: b.Looks}
	for _, t := range r.plan.Triggers {
		r.triggers = append(r.triggers, gate.NewTrigger(t, r.plan.TimeScale, r.plan.Load.Timeout))
	}
	series, err := timeline.NewSeries(r.timeline())
	r.series = series
	return err
}

// timeline is how observations are kept: exactly as long as a trigger may look
// back, and longer by what requests take that end late.
func (r *record) timeline() timeline.Config {
	c := timeline.Config{
		Interval: Interval,
		Over:     gate.Thresholds(r.plan.Gates, r.plan.Triggers),
		Marks:    []time.Duration{r.stages.warmup},
		Recent:   time.Minute,
		Journal:  true,
	}
	for n := range r.stages.looks {
		c.Marks = append(c.Marks, r.stages.end(n+1))
	}
	for _, s := range r.plan.Systems {
		c.Systems = append(c.Systems, s.Name)
	}
	for _, t := range r.plan.Triggers {
		c.Recent = max(c.Recent, gate.LongestWindow(t.Metric, r.rate(t.System), r.plan.TimeScale))
	}
	const late = 10 * time.Second
	c.Recent += 2*r.plan.Load.Timeout + late
	return c
}

// rate is what an arm is offered, in requests per second.
func (r *record) rate(name string) float64 { return r.begun.system(name).Rate }

// armIndex is the position of an arm in the plan and in all that is indexed
// like it.
func (r *record) armIndex(name string) int {
	return slices.IndexFunc(r.plan.Systems, func(s scenario.System) bool { return s.Name == name })
}

// evaluate hands every trigger its sliding window, once an interval: at is a
// whole one, whatever the tick's own lateness, so that five evaluations are
// five intervals. Triggers are armed when the steady state starts, and those of a
// drill when its load does, so no window reaches back into what was before,
// however rare its data.
func (r *record) evaluate(at time.Duration) {
	s := r.stages
	armed, end, series, triggers, cpu := s.warmup, s.end(s.looks), r.series, r.triggers, r.cpu
	if d := r.current; d != nil {
		armed, end, series, triggers, cpu = 0, d.length, d.series, d.triggers, d.cpu
	}
	if at <= armed || at > end {
		return // not armed yet, or nothing is due any more
	}
	for i, t := range r.plan.Triggers {
		if forecast.Unscheduled(r.plan, t.Metric) {
			continue // told as unknown
		}
		arm := r.armIndex(t.System)
		rate, until := r.rate(t.System), at
		length := gate.WindowLength(rate, r.plan.TimeScale)
		window := series.Window(arm, max(at-length, armed), at)
		if late := at - r.plan.Load.Timeout; t.Metric.Estimator == scenario.ByShare && window.Pending() > window.Requests && late > armed {
			// Most of it hasn't ended. What fell due a timeout earlier has, one
			// way or another: a system that hangs is seen by its timeouts.
			window, until = series.Window(arm, max(late-length, armed), late), late
		}
		earliest := max(until-gate.LongestWindow(t.Metric, rate, r.plan.TimeScale), armed)
		stretched := gate.Stretch(t.Metric, window, earliest, func(from time.Duration) timeline.Window {
			return series.Counted(arm, from, until)
		})
		triggers[i].Observe(at, window, stretched, cpu.stolen(at-length, at))
	}
}

// readMachine keeps a reading. Of those from before the timeline's recent past
// only the ones that the marks are read from are kept.
func (r *record) readMachine(m machineCPU) {
	r.cpu = append(r.cpu, m)
	if r.begun == nil || len(r.cpu)%1024 != 0 {
		return
	}
	c := r.timeline()
	old := sort.Search(len(r.cpu), func(i int) bool { return r.cpu[i].At > m.At-2*c.Recent })
	kept := r.cpu[:0]
	for i, reading := range r.cpu {
		marked := slices.ContainsFunc(c.Marks, func(mark time.Duration) bool {
			return reading.At <= mark+Interval/2 && i+1 < len(r.cpu) && mark+Interval/2 < r.cpu[i+1].At
		})
		if i == 0 || i >= old || marked {
			kept = append(kept, reading)
		}
	}
	r.cpu = kept
}

// stolen is the share of the machine's CPU time that others took between two
// times, from the readings that lie nearest before them.
func (m machineReadings) stolen(from, to time.Duration) float64 {
	before := func(t time.Duration) machineCPU {
		i := sort.Search(len(m), func(i int) bool { return m[i].At > t+Interval/2 })
		return m[max(i-1, 0)]
	}
	if len(m) == 0 {
		return 0
	}
	a, b := before(from), before(to)
	if b.Total <= a.Total {
		return 0
	}
	return float64(b.Stolen-a.Stolen) / float64(b.Total-a.Total)
}

// note writes an entry into the evidence and takes it into the record.
func (r *run) note(e entry) {
	r.evidence.write(e)
	if err := r.apply(e); err != nil {
		panic("harness: " + err.Error()) // made here, for this record
	}
}

// notice says what a reader of the figures must know.
func (r *run) notice(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.note(entry{Notice: &text})
}

// flush writes what the recorder has folded into the series.
func (r *run) flush() {
	if r.recorder == nil {
		return
	}
	for _, e := range r.recorder.Take() {
		r.evidence.write(entry{Entry: e})
	}
	r.evidence.flush()
}

// systems describes the arms as they were started.
func (r *run) systems() []begunSystem {
	var out []begunSystem
	for _, arm := range r.plan.Systems {
		s := r.env.Systems()[arm.Name]
		b := begunSystem{
			Name: arm.Name, Kind: string(s.Kind), URL: s.URL.String(), Command: s.Command,
			Sampled: s.PID != 0 || s.Container != nil, Setup: setup(s.Setup),
			Rate: r.schedule.GoingOn(arm.Name), Peak: r.schedule.Peak() * arm.Share,
		}
		if b.Sampled {
			b.CPUs = availableTo(s.Container)
		}
		if s.LogFile != "" {
			if rel, err := filepath.Rel(r.opts.Out, s.LogFile); err == nil {
				b.LogFile = rel
			}
		}
		out = append(out, b)
	}
	return out
}

// end sums up a run that ended with an error or without.
func (r *run) end(ctx context.Context, err error, took time.Duration) *ended {
	e := &ended{
		Report: r.report, Looked: r.stages.looked, Stopped: r.stages.stopped,
		Systems: map[string]endedSystem{}, CPU: (probe.SelfCPU() - r.before).Seconds(), Duration: took.Seconds(),
		Interrupted: ctx.Err() != nil, Lines: r.evidence.lines,
	}
	var environmentErr *environment.Error
	switch {
	case err == nil || e.Interrupted:
	case errors.As(err, &environmentErr):
		e.Failure = environmentErr.Detail()
	default:
		e.Failure = err.Error()
	}
	if r.env != nil {
		for name, s := range r.env.Systems() {
			if exit := s.Exit(); exit != "" {
				e.Systems[name] = endedSystem{exit, s.LogTail(20), s.Container != nil && s.Container.OOM()}
			}
		}
	}
	return e
}
