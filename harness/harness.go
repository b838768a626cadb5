package harness

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"phasegate/harness/environment"
	"phasegate/harness/gate"
	"phasegate/harness/load"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
	"phasegate/reports/result"
)

// Interval is how long one interval of the timeline lasts, and how often
// resources, ledgers and triggers are looked at.
const Interval = time.Second

// Options say where and with what a plan is run. Out and Self are required.
type Options struct {
	Out       string         // folder of the run; logs go below it
	Self      []string       // argument vector that starts this program again: "phasegate"
	Optimizer string         // path of the optimizer's binary; "" where no system needs it
	Upstream  string         // how the mock upstream is started, for the record: "process"
	Command   []string       // argument vector that repeats the run, for the record
	Commit    string         // revision that this program was built from, for the record
	Progress  func(Progress) // told about every step; may be nil
}

// Progress is one step of a run, for whoever is waiting for it. Done counts up
// to Total: keys while prewarming, seconds while load runs.
type Progress struct {
	Stage       string // "start", "prewarm", "warmup", "steady", "sequential", "stop"
	Done, Total float64
	Text        string // what there is to say, in one line
}

// run is one execution of a plan on its way from start to verdict.
type run struct {
	plan *scenario.Plan
	opts Options
	res  *result.Result

	log       *load.Log // nil unless a log is replayed
	env       *environment.Environment
	arms      []load.Arm // in the plan's order, with their pools sized
	recorder  *timeline.Recorder
	generator *load.Generator
	watch     *watch
	report    load.Report
	stages    stages
	data      gate.Data

	values     map[string]gate.Measured // of the sequential stage, by metric
	noSequence string                   // why there are none
	foreign    bool                     // the new system doesn't stand before our upstream
}

// stages are the times of the load on the timeline's clock, which starts with
// the warm-up.
type stages struct {
	warmup, steady time.Duration // lengths; steady is one look's worth
	looks          int           // planned: 1 + extensions
	looked         int           // taken
	stopped        time.Duration // where a failure for certain ended the run; 0 if none did
}

// end is where look number n (from 1) ends.
func (s stages) end(n int) time.Duration { return s.warmup + time.Duration(n)*s.steady }

// Run runs a plan from start to verdict: it starts the mock upstream and the
// systems, prewarms, replays the load while watching, judges every gate, and
// stops everything it started.
//
// The result is never nil. It is partial, and says so, when ctx was cancelled
// (the error is then ctx's) or when the environment failed (the error is then
// an *[environment.Error], or says what of the load could not be run).
func Run(ctx context.Context, plan *scenario.Plan, opts Options) (*result.Result, error) {
	if opts.Progress == nil {
		opts.Progress = func(Progress) {}
	}
	r := &run{plan: plan, opts: opts, res: newResult(plan, opts)}
	started := time.Now()

	err := r.measure(ctx)
	if r.env != nil {
		r.opts.Progress(Progress{Stage: "stop", Text: "stopping the systems"})
		if r.generator != nil {
			r.generator.Close()
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		err = errors.Join(err, r.env.Stop(stop))
		cancel()
	}
	r.fill()
	r.conclude(ctx, err)
	r.res.Duration = time.Since(started).Seconds()
	return r.res, err
}

// measure is the part of a run in which something is running.
func (r *run) measure(ctx context.Context) error {
	if err := r.openLog(); err != nil {
		return err
	}
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := r.recognize(ctx); err != nil {
		return err
	}
	if err := r.prewarm(ctx); err != nil {
		return err
	}
	if err := r.replay(ctx); err != nil {
		return err
	}
	return r.sequential(ctx)
}

// openLog reads the access log of a replay and fits the stages to it: a log
// that ends before the steady state would is judged whole, from its first
// request on, since cutting a warm-up off would judge what is left of it.
func (r *run) openLog() error {
	r.stages = stages{warmup: r.plan.Warmup, steady: r.plan.Steady, looks: 1 + r.plan.Extensions}
	keys := r.plan.Load.Keys
	if keys.AccessLog == "" {
		return nil
	}
	log, err := load.ReadAccessLog(keys.AccessLog)
	if err != nil {
		return &InputError{err}
	}
	r.log = log
	for _, line := range log.Notices() {
		r.notice("%s", line)
	}
	if keys.Repeat {
		return nil
	}
	switch length := log.Length(r.plan.Load); {
	case length < r.stages.end(1):
		r.stages = stages{steady: length, looks: 1}
		r.notice("the log ends after %s: all of it is judged, without a warm-up, and the steady state of %s is not filled", round(length), r.plan.Steady)
	case length < r.stages.end(r.stages.looks):
		r.stages.looks = int((length - r.stages.warmup) / r.stages.steady)
		r.notice("the log ends after %s: it is long enough for %d of %d planned looks", round(length), r.stages.looks, 1+r.plan.Extensions)
	}
	return nil
}

// InputError says that a file named by the scenario can't be used: nothing was
// started.
type InputError struct{ Err error }

func (e *InputError) Error() string { return e.Err.Error() }
func (e *InputError) Unwrap() error { return e.Err }

// start brings the environment up and builds the load on top of it.
func (r *run) start(ctx context.Context) error {
	r.opts.Progress(Progress{Stage: "start", Text: "starting the mock upstream and the systems"})
	env, err := environment.Start(ctx, environment.Config{
		Plan:      r.plan,
		LogDir:    filepath.Join(r.opts.Out, "logs"),
		Self:      r.opts.Self,
		Optimizer: r.opts.Optimizer,
	})
	if err != nil {
		return err
	}
	r.env = env

	r.arms = r.sizeArms()
	names := make([]string, len(r.arms))
	for i := range r.arms {
		names[i] = r.arms[i].Name
	}
	r.recorder, err = timeline.New(timeline.Config{
		Interval: Interval,
		Systems:  names,
		Over:     gate.Thresholds(r.plan.Gates, r.plan.Triggers),
	})
	if err != nil {
		return fmt.Errorf("set up the timeline: %w", err)
	}
	r.watch = newWatch(r)
	config := load.Config{
		Arms:   r.arms,
		Load:   r.plan.Load,
		Log:    r.log,
		Length: r.stages.end(r.stages.looks),
		Warmup: r.stages.warmup,
		Seed:   r.plan.Seed,
		Sink:   r.recorder,
		Begin:  r.watch.begin,
	}
	if r.log != nil {
		config.Catalog = r.log.Catalog()
		if control := env.Control(); control != nil {
			if err := control.PutCatalog(ctx, config.Catalog); err != nil {
				return fmt.Errorf("hand the log's paths to the mock upstream: %w", err)
			}
		}
	}
	r.generator, err = load.New(config)
	if err != nil {
		return fmt.Errorf("set up the load: %w", err)
	}
	return nil
}

// recognize finds out whether a server that we didn't start stands before our
// upstream. Only then can its answers be held to the upstream's description.
func (r *run) recognize(ctx context.Context) error {
	for i, s := range r.plan.Systems {
		if s.Kind != scenario.KindURL || !r.plan.Load.Verify {
			continue
		}
		proven, err := r.generator.Recognize(ctx, i)
		if err != nil {
			return err
		}
		if !proven {
			r.foreign = true
			r.notice("the answers of %s don't carry the mock upstream's self-description: they are judged by their status alone, and nothing that rests on proof or on the upstream's ledger is offered", s.URL)
		}
	}
	return nil
}

func (r *run) prewarm(ctx context.Context) error {
	if r.plan.Prewarm.Top == 0 {
		return nil
	}
	err := r.generator.Prewarm(ctx, r.armIndex(scenario.New), r.plan.Prewarm, func(done, total int) {
		r.opts.Progress(Progress{Stage: "prewarm", Done: float64(done), Total: float64(total)})
	})
	if err != nil && ctx.Err() == nil {
		// A system that can't answer is for the gates to judge, not for us to
		// stop at.
		r.notice("prewarming was given up: %v", err)
		return nil
	}
	return ctx.Err()
}

// replay runs the load's whole schedule, watched, and takes the looks that the
// profile plans: a run whose gates are all decided ends early.
func (r *run) replay(ctx context.Context) error {
	control := r.env.Control()
	if control != nil {
		if err := control.Reset(ctx); err != nil {
			return fmt.Errorf("reset the upstream's ledger: %w", err)
		}
	}
	loading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watching sync.WaitGroup
	watching.Go(func() { r.watch.run(loading, cancel) })
	report, err := r.generator.Run(loading)
	cancel(errEnded)
	watching.Wait()
	r.report = report // not before: a look may have been under way
	cause := context.Cause(loading)
	if cause != errFailed {
		r.stages.stopped = 0 // a failure was found, too late to stop anything
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case cause == errDecided, cause == errEnded && err == nil:
		r.stages.looked = max(r.stages.looked, 1)
		if cause == errEnded {
			r.stages.looked = r.stages.looks
		}
		return nil
	case cause == errFailed:
		r.notice("the run was stopped %s into the steady state, since a gate had failed for certain by then (abort: on_failure); gates that had not are inconclusive", r.stages.stopped-r.stages.warmup)
		return nil
	case cause != errEnded:
		return cause
	}
	return fmt.Errorf("run the load: %w", err)
}

// Why the load's context was cancelled by ourselves.
var (
	errDecided = errors.New("every gate is decided")
	errFailed  = errors.New("a gate has failed for certain")
	errEnded   = errors.New("the schedule ended")
)

// decided takes look number n and reports whether no further one is needed.
func (r *run) decided(n int) bool {
	r.stages.looked = n
	r.collect()
	for _, g := range r.plan.Gates {
		later := g.Metric.Source == scenario.FromSequential // measured when the load has ended
		if !later && r.judge(g).Verdict == gate.Inconclusive {
			return false
		}
	}
	return true
}

// failed looks at the run at a time before the next planned look, and reports
// whether a gate has failed for certain, on which the run is stopped.
func (r *run) failed(at time.Duration) bool {
	if r.stages.looked >= r.stages.looks || at <= r.stages.warmup {
		return false
	}
	r.stages.stopped = min(at, r.stages.end(r.stages.looked+1))
	r.collect()
	for _, g := range r.plan.Gates {
		if _, certain := r.judgeEarly(g); certain {
			return true
		}
	}
	r.stages.stopped = 0
	return false
}

func (r *run) sizeArms() []load.Arm {
	systems := r.env.Systems()
	arms := make([]load.Arm, len(r.plan.Systems))
	for i, s := range r.plan.Systems {
		arms[i] = load.Arm{Name: s.Name, URL: systems[s.Name].URL, Share: s.Share, Connections: r.plan.Load.Connections}
		if arms[i].Connections == 0 {
			latency := r.plan.Load.Timeout
			if r.plan.Upstream != nil {
				latency = r.plan.Upstream.Latency.Typical()
			}
			arms[i].Connections = load.Connections(r.peak()*s.Share, latency)
		}
	}
	return arms
}

// armIndex is the position of an arm in the plan and in all that is indexed
// like it.
func (r *run) armIndex(name string) int {
	return slices.IndexFunc(r.plan.Systems, func(s scenario.System) bool { return s.Name == name })
}

// rate is what an arm is offered, in requests per second: the mean of a log
// replayed at its own pace, else the highest of the schedule.
func (r *run) rate(name string) float64 {
	total := r.peak()
	if r.plan.Load.Keys.PaceLog {
		total = float64(r.log.Requests()) / r.log.Length(r.plan.Load).Seconds()
	}
	return total * r.plan.System(name).Share
}

// peak is the highest rate of all arms together, in requests per second.
func (r *run) peak() float64 {
	if r.plan.Load.Keys.PaceLog {
		return r.log.Peak(r.plan.Load.Keys)
	}
	peak := 0.0
	for _, s := range r.plan.Load.Rate {
		peak = max(peak, s.From, s.To)
	}
	return peak
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
