package harness

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
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

// Interval is how long one interval of the timeline lasts, and how often
// resources, ledgers and triggers are looked at.
const Interval = forecast.Interval

// Contained is the [Options.Upstream] of a run in containers.
const Contained = "container"

// Options say where and with what a plan is run. Out and Self are required.
type Options struct {
	Out       string         // folder of the run; logs go below it
	Self      []string       // argument vector that starts this program again: "phasegate"
	Optimizer string         // path of the optimizer's binary; "" where no system needs it
	Upstream  string         // how the mock upstream and the optimizer are started: "process" (default) or "container"
	Static    string         // a static binary of this program, for containers; required with them
	CPU       *int           // the one processor that the systems run on, where they are processes; nil for any
	Command   []string       // argument vector that repeats the run, for the record
	Raw       string         // file for every request's result in a vegeta encoding; "" for none
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
	*record  // what it knows, and what its result is made from
	opts     Options
	evidence *evidence // where that is written

	schedule  *forecast.Schedule
	raw       *load.Raw     // nil unless asked for
	before    time.Duration // CPU time that this process had used
	env       *environment.Environment
	arms      []load.Arm // in the plan's order, with their pools sized
	recorder  *timeline.Recorder
	load      load.Config
	generator *load.Generator
	watch     *watch
	withheld  map[int]bool // gates on which the run was not stopped, and why has been said
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
	started := time.Now()
	h := head{Format: format, File: plan.Origin.File, Options: plan.Origin.Options, Started: started.UTC(), Environment: environmentOf(plan, opts), Notices: plan.Notices}
	r := &run{record: newRecord(plan, h), opts: opts, before: probe.SelfCPU()}
	var err error
	if r.evidence, err = newEvidence(opts.Out, plan.Origin.Text, h); err == nil {
		err = r.measure(ctx)
	}
	if r.env != nil {
		r.opts.Progress(Progress{Stage: "stop", Text: "stopping the systems"})
		if r.generator != nil {
			r.generator.Close()
		}
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		err = errors.Join(err, r.env.Stop(stop))
		cancel()
	}
	r.flush()
	if r.raw != nil {
		if err := r.raw.Close(); err != nil {
			r.notice("%v", err)
		}
	}
	err = errors.Join(err, r.evidence.lags(r.report, r.stages.warmup))
	r.note(entry{Ended: r.end(ctx, err, time.Since(started))})
	if broken := r.evidence.close(); broken != nil && err == nil {
		err, r.ended.Failure = broken, broken.Error()
	}
	r.fill()
	r.conclude()
	return r.res, err
}

// measure is the part of a run in which something is running.
func (r *run) measure(ctx context.Context) error {
	var err error
	if r.schedule, err = forecast.NewSchedule(r.plan); err != nil {
		return err
	}
	for _, line := range r.schedule.Notices {
		r.notice("%s", line)
	}
	if r.opts.Raw != "" {
		if r.raw, err = load.CreateRaw(r.opts.Raw); err != nil {
			return &forecast.InputError{Err: err}
		}
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
	if err := r.sequential(ctx); err != nil {
		return err
	}
	return r.drills(ctx)
}

// start brings the environment up and builds the load on top of it.
func (r *run) start(ctx context.Context) error {
	r.opts.Progress(Progress{Stage: "start", Text: "starting the mock upstream and the systems"})
	run := rand.Text()[:10]
	env, err := environment.Start(ctx, environment.Config{
		Plan:      r.plan,
		Run:       run,
		LogDir:    filepath.Join(r.opts.Out, "logs"),
		Self:      r.opts.Self,
		Optimizer: r.opts.Optimizer,
		Contain:   r.opts.Upstream == Contained,
		Static:    r.opts.Static,
		CPU:       r.opts.CPU,
	})
	if err != nil {
		return err
	}
	r.env = env

	r.arms = r.sizeArms()
	b := begun{
		Warmup: r.schedule.Warmup, Steady: r.schedule.Steady, Looks: r.schedule.Looks,
		Systems: r.systems(), Ledger: env.Control() != nil, Source: r.source(),
	}
	b.Ends = r.schedule.Ends
	if b.Replayed = r.schedule.Recorded != nil; b.Replayed {
		b.Skipped = int64(r.schedule.Recorded.Malformed + r.schedule.Recorded.Blank)
	}
	r.note(entry{Begun: &b})
	if r.recorder, err = timeline.New(r.timeline()); err != nil {
		return fmt.Errorf("set up the timeline: %w", err)
	}
	r.series = r.recorder.Series()
	r.watch = newWatch(r)
	for _, leg := range []string{scenario.ClientLeg, scenario.UpstreamLeg} {
		if env.CanWorsen(leg) == nil {
			r.notice("a proxy stands on the %s leg of the new system in the whole run, for a drill that worsens the network there: what it costs is in every figure of that leg", leg)
		}
	}
	r.tellContainers()
	if r.opts.CPU != nil {
		r.notice("what is compared runs on one and the same processor (number %d), and so with one thread at a time: what threads cost each other isn't seen", *r.opts.CPU)
	}
	config := load.Config{
		Arms:   r.arms,
		Load:   r.plan.Load,
		Length: r.stages.end(r.stages.looks),
		Warmup: r.stages.warmup,
		Run:    run,
		Seed:   r.plan.Seed,
		Sink:   r.recorder,
		Raw:    r.raw,
		Begin:  r.watch.begin,
	}
	roots, err := env.Authorities()
	if err != nil {
		return err
	}
	config.TLS = &tls.Config{RootCAs: roots}
	if r.plan.Upstream != nil {
		config.Vary = r.plan.Upstream.Vary
	}
	if r.schedule.Recorded != nil {
		config.Recording, config.Catalog = r.schedule.Recorded, r.schedule.Recorded.Catalog()
		if control := env.Control(); control != nil {
			if err := control.PutCatalog(ctx, config.Catalog); err != nil {
				return fmt.Errorf("hand the recorded paths to the mock upstream: %w", err)
			}
		}
	}
	r.load = config
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
			r.note(entry{Foreign: &s.Name})
			r.notice("a probe through %s got no self-description of this run's mock upstream: the answers are judged by their status alone, and nothing that rests on proof or on the upstream's ledger is offered", s.URL)
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
	if r.evidence.started.IsZero() && !report.Started.IsZero() {
		r.note(entry{Started: &report.Started}) // it ended before it was looked at
	}
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
	errDecided = errors.New("no gate is left that going on may decide")
	errFailed  = errors.New("a gate has failed for certain")
	errEnded   = errors.New("the schedule ended")
)

// decided takes look number n, with the load generator's lag until then, and reports
// whether no further one is needed: none that is left may decide a gate.
func (r *run) decided(n int, lag load.Lag) bool {
	r.stages.looked = n
	r.report.SteadyLag = lag
	r.collect()
	left := r.stages.end(r.stages.looks) - r.stages.end(n)
	open := false
	for _, g := range r.plan.Gates {
		if g.Metric.Source == scenario.FromSequential { // measured when the load has ended
			continue
		}
		if gate.MayDecide(g, r.data, r.look(n), left) {
			return false
		}
		open = open || gate.Judge(g, r.data, r.look(n)).Verdict == gate.Inconclusive
	}
	if open {
		r.notice("not run on for the %s that its extensions allow: no gate that is open would be decided by them", left)
	}
	return true
}

// failed looks at the run at a time before the next planned look, and reports
// whether a gate has failed for certain, on which the run is stopped.
func (r *run) failed(at time.Duration, lag load.Lag) bool {
	if r.stages.looked >= r.stages.looks || at <= r.stages.warmup {
		return false
	}
	r.stages.stopped = min(at, r.stages.end(r.stages.looked+1))
	r.report.SteadyLag = lag
	r.collect()
	for i, g := range r.plan.Gates {
		j, certain := r.judgeEarly(g, true)
		if certain {
			return true
		}
		r.withhold(i, j.Withheld)
	}
	r.stages.stopped = 0
	return false
}

// withhold says, once of each gate, why the run goes on though the gate has
// failed to all appearances.
func (r *run) withhold(gate int, why string) {
	if why == "" || r.withheld[gate] {
		return
	}
	if r.withheld == nil {
		r.withheld = map[int]bool{}
	}
	r.withheld[gate] = true
	r.notice("abort: on_failure did not stop the run %s into the steady state on %s: %s", r.until()-r.stages.warmup, r.plan.Gates[gate].Text, why)
}

func (r *run) sizeArms() []load.Arm {
	systems := r.env.Systems()
	arms := make([]load.Arm, len(r.plan.Systems))
	for i, s := range r.plan.Systems {
		arms[i] = load.Arm{Name: s.Name, URL: systems[s.Name].URL, Share: s.Share, Connections: r.schedule.Connections(s)}
	}
	return arms
}

// source says in one line where the requests come from.
func (r *run) source() string {
	l := r.plan.Load
	arrivals := ""
	if l.Poisson {
		arrivals = ", Poisson arrivals"
	}
	if r.schedule.Recorded != nil {
		return fmt.Sprintf("%s %s: %d requests, %d distinct targets%s", r.schedule.Recorded.Kind, r.schedule.Recorded.Path, r.schedule.Recorded.Requests(), r.schedule.Recorded.Targets(), arrivals)
	}
	text := fmt.Sprintf("%s over %d keys", l.Keys.Distribution, l.Keys.Count)
	if l.Keys.Distribution == scenario.Zipf {
		text = fmt.Sprintf("zipf (exponent %g) over %d keys", l.Keys.Exponent, l.Keys.Count)
	}
	if l.Writes.Share > 0 {
		text += fmt.Sprintf(", %.3g %% %s %s", 100*l.Writes.Share, l.Writes.Method, l.Writes.Path)
	}
	if n := len(l.Also); n > 0 {
		share := 0.0
		for _, p := range l.Also {
			share += p.Share
		}
		text += fmt.Sprintf(", %.3g %% of %d further kinds", 100*share, n)
	}
	return text + arrivals
}
