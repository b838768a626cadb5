package compare

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"phasegate/harness"
	"phasegate/harness/environment"
	"phasegate/harness/gate"
	"phasegate/harness/probe"
	"phasegate/harness/scenario"
	"phasegate/reports"
	"phasegate/reports/result"
)

// Config says what is compared and how often. Systems, Out and Run are required.
type Config struct {
	Systems []System
	Rounds  int // default [DefaultRounds]
	Out     string
	// Options are what every run is made with; Out and Optimizer are set run by
	// run, and Progress is told of the runs.
	Options harness.Options
	// Tolerance makes it the question whether the second of two systems is worse
	// than the first by more than this factor less 1, and lets it end as soon as
	// that is answered; 0 asks nothing.
	Tolerance float64
	// Together makes the runs of a round at the same time instead of one after
	// another, each with an upstream and a load of its own: a machine whose speed
	// changes from one second to the next then does so for all of them alike. As
	// processes they share one processor, another one in each round: two processors
	// are never equally fast, and what moves between them is as noisy as they differ.
	Together bool
	Seed     uint64 // of the order of runs
	// Notices are what is to be known beforehand.
	Notices []string
	// Baseline is an earlier comparison, or a run as one; nil for none.
	Baseline *Baseline

	// Run makes one run: [harness.Run], but in tests.
	Run func(context.Context, *scenario.Plan, harness.Options) (*result.Result, error)
}

// DefaultRounds is how often each system runs unless told otherwise.
const DefaultRounds = 5

// System is one of those compared.
type System struct {
	Name      string
	Plan      *scenario.Plan // the scenario with this system as the new one
	Optimizer string         // path of the binary, where the plan needs it
	Revision  string         // commit that it was built from; "" where it wasn't built for this
}

// Validate joins all faults.
func (c Config) Validate() error {
	var errs []error
	if c.Rounds < 0 || c.Rounds > 1000 {
		errs = append(errs, fmt.Errorf("%d rounds; allowed: 1 to 1000", c.Rounds))
	}
	if len(c.Systems) < 2 && c.Baseline == nil {
		errs = append(errs, fmt.Errorf("%d system; allowed: two or more, or one and a baseline", len(c.Systems)))
	}
	if c.Tolerance != 0 && (len(c.Systems) != 2 || !(c.Tolerance > 0 && c.Tolerance < 10)) {
		errs = append(errs, fmt.Errorf("a tolerance of %g for %d systems; allowed: above 0 and below 10, for two revisions", c.Tolerance, len(c.Systems)))
	}
	if c.Out == "" || c.Run == nil {
		errs = append(errs, errors.New("no folder, or nothing to run with"))
	}
	return errors.Join(errs...)
}

// comparison is one on its way.
type comparison struct {
	Config
	out     *result.Comparison
	results [][]*result.Result // by system and round
	looks   []int              // the rounds after which a regression is looked for
}

// Run compares. The comparison is never nil. It is partial, and says so, when
// ctx was cancelled or the environment of a run failed; the error is then that
// of the run.
func Run(ctx context.Context, c Config) (*result.Comparison, error) {
	if c.Rounds == 0 {
		c.Rounds = DefaultRounds
	}
	if err := c.Validate(); err != nil {
		return &result.Comparison{Schema: result.Schema, Verdict: result.EnvError, Error: err.Error()}, err
	}
	started := time.Now()
	first := c.Systems[0].Plan
	w := &comparison{Config: c, results: make([][]*result.Result, len(c.Systems)), out: &result.Comparison{
		Schema: result.Schema, Scenario: first.Name, Title: first.Title, Profile: first.Profile, Seed: first.Seed,
		TimeScale: first.TimeScale, Started: started.UTC(), Confidence: level, Planned: c.Rounds,
		Notices: append([]string{}, c.Notices...),
	}}
	for _, s := range c.Systems {
		w.out.Systems = append(w.out.Systems, result.ComparedSystem{
			Name: s.Name, Kind: string(s.Plan.System(scenario.New).Kind), Revision: s.Revision, Verdict: result.Inconclusive,
		})
	}
	if c.Tolerance > 0 {
		w.looks = looks(c.Rounds)
	}
	if l := first.Load; c.Together && !l.Poisson && (l.Rate != nil || l.Sine != nil) {
		w.out.Notices = append(w.out.Notices, "requests fall due at even distances, so that those of one system follow the other's by the same fraction of a millisecond for a whole round, which favours one of them: set load.arrivals=poisson")
	}
	err := w.rounds(ctx)
	w.out.Duration = time.Since(started).Seconds()
	w.conclude(ctx, err)
	return w.out, err
}

func (w *comparison) rounds(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(w.Seed, 0x6f72646572)) // "order"
	for round := 1; round <= w.Rounds; round++ {
		if err := w.round(ctx, round, rng.Perm(len(w.Systems))); err != nil {
			return err
		}
		w.out.Rounds = round
		if w.look(round) {
			return nil
		}
	}
	return nil
}

// round makes the runs of one round, in order or together. Where one of those
// that are made together fails, the others are ended: the round is lost.
func (w *comparison) round(ctx context.Context, round int, order []int) error {
	if !w.Together {
		for at, i := range order {
			if err := w.run(ctx, i, round, at+1); err != nil {
				return err
			}
		}
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	for at, i := range order {
		group.Go(func() error { return w.run(ctx, i, round, at+1) })
	}
	return group.Wait()
}

// run makes the run of one system in one round and keeps its result file.
func (w *comparison) run(ctx context.Context, i, round, position int) (err error) {
	s := w.Systems[i]
	rel := filepath.Join(s.Name, strconv.Itoa(round))
	opts := w.Options
	opts.Out, opts.Optimizer = filepath.Join(w.Out, rel), s.Optimizer
	if err := errors.Join(os.MkdirAll(opts.Out, 0o777), reports.Clear(opts.Out)); err != nil {
		return fmt.Errorf("round %d of %s: %w", round, s.Name, err)
	}
	opts.Progress = nil
	if told := w.Options.Progress; told != nil && (!w.Together || position == 1) {
		who := s.Name
		if w.Together {
			who = "all at once"
		}
		opts.Progress = func(p harness.Progress) {
			p.Stage = fmt.Sprintf("round %d of %d, %s: %s", round, w.Rounds, who, p.Stage)
			told(p)
		}
	}
	if w.Together && s.Optimizer != "" {
		var remove func() error
		if opts.Optimizer, remove, err = fresh(s.Optimizer, round); err != nil {
			return &RunError{System: s.Name, Round: round, Err: err}
		}
		defer func() { err = errors.Join(err, remove()) }()
	}
	if cpus := probe.CPUs(); w.Together && opts.Upstream != harness.Contained && len(cpus) > 0 {
		opts.CPU = &cpus[round%len(cpus)]
	}
	res, err := w.Run(ctx, s.Plan, opts)
	w.results[i] = append(w.results[i], res)
	w.out.Systems[i].Runs = append(w.out.Systems[i].Runs,
		kept(res, round, position, filepath.ToSlash(filepath.Join(rel, result.FileName))))
	err = errors.Join(err, result.Write(filepath.Join(opts.Out, result.FileName), res))
	if err == nil {
		err = harness.Seal(opts.Out)
	}
	if err != nil && ctx.Err() == nil {
		return &RunError{System: s.Name, Round: round, Err: err}
	}
	return err
}

// RunError says which run the environment failed in.
type RunError struct {
	System string
	Round  int
	Err    error
}

func (e *RunError) Error() string {
	text := e.Err.Error()
	var failed *environment.Error
	if errors.As(e.Err, &failed) {
		text = failed.Detail()
	}
	return fmt.Sprintf("round %d of %s: %s", e.Round, e.System, text)
}

func (e *RunError) Unwrap() error { return e.Err }

// kept is what stays of a run in the comparison.
func kept(res *result.Result, round, position int, file string) result.ComparedRun {
	s := res.Systems[scenario.New]
	out := result.ComparedRun{
		Round: round, Position: position, File: file, Verdict: res.Verdict, Complete: res.Complete,
		Requests: s.Requests, Metrics: metricsOf(res), Histogram: s.Histogram,
	}
	out.Warmup, _ = steady(res)
	for _, in := range res.Timeline {
		if in.System == scenario.New && in.Stage != result.StageDrill { // what is broken on purpose is not compared
			out.Series = append(out.Series, result.SeriesPoint{T: in.T, P50: in.P50, P95: in.P95, P99: in.P99, HitRatio: in.HitRatio, Memory: in.Memory, CPU: in.CPU})
		}
	}
	return out
}

// conclude fills in what the runs come to.
func (w *comparison) conclude(ctx context.Context, err error) {
	out := w.out
	if len(w.results[0]) > 0 {
		out.Environment = w.results[0][0].Environment
	}
	out.Environment.Command = w.Options.Command
	for i := range out.Systems {
		describe(&out.Systems[i], w.results[i])
	}
	shareNotices(out)
	whole := w.whole()
	out.Metrics = metrics(out.Systems, whole)
	var look *gate.Look
	if w.Tolerance > 0 {
		look = &gate.Look{Planned: len(w.looks), Confidence: w.Systems[0].Plan.Confidence}
	}
	out.Gates = gates(out.Systems, whole, look)
	out.Fairness = fairness(w.Systems, whole)
	if w.Baseline != nil {
		out.Baseline = w.Baseline.against(out)
	}
	if w.Tolerance > 0 {
		out.Regression = regression(whole, w.Tolerance, w.looks, out.Rounds)
		out.Regression.Identical = sameFile(w.Systems[0].Optimizer, w.Systems[1].Optimizer)
	}
	switch {
	case ctx.Err() != nil:
		out.Incomplete = fmt.Sprintf("interrupted: %d of %d rounds are whole, and all estimates and verdicts are from these; the plots show the broken one too", out.Rounds, out.Planned)
	case err != nil:
		out.Error = err.Error()
		out.Incomplete = fmt.Sprintf("broken off: the environment failed; %d of %d rounds are whole, and all estimates and verdicts are from these; the plots show the broken one too", out.Rounds, out.Planned)
	default:
		out.Complete = true
	}
	w.verdict()
}

// whole are the results of the rounds in which every system was measured to
// its end, by system.
func (w *comparison) whole() [][]*result.Result {
	whole := make([][]*result.Result, len(w.results))
	for i := range w.results {
		whole[i] = w.results[i][:w.out.Rounds]
	}
	return whole
}

// verdict gives the comparison its own: of all gates on all systems, or, of two
// revisions, whether the second was shown to be worse.
func (w *comparison) verdict() {
	out := w.out
	for i := range out.Systems {
		s := &out.Systems[i]
		var all []result.Verdict
		for _, run := range s.Runs[:min(out.Rounds, len(s.Runs))] {
			all = append(all, run.Verdict)
		}
		s.Verdict = together(all)
	}
	switch {
	case out.Error != "":
		out.Verdict = result.EnvError
	case out.Regression != nil:
		out.Verdict = regressed(out)
	default:
		out.Verdict = result.Pass
		for _, s := range out.Systems {
			switch {
			case s.Verdict == result.Fail:
				out.Verdict = result.Fail
			case s.Verdict != result.Pass && out.Verdict == result.Pass:
				out.Verdict = result.Inconclusive
			}
		}
	}
	if !out.Complete && out.Verdict == result.Pass {
		out.Verdict = result.Inconclusive
	}
}

// together is a pass if every round passed, a fail if one failed, and
// inconclusive else: as it stands at the end of a rollout phase, where one bad
// day in five isn't good enough. At its very threshold a gate is failed by 5 % of runs, so
// by up to 23 % of five.
func together(rounds []result.Verdict) result.Verdict {
	all := result.Pass
	for _, v := range rounds {
		switch {
		case v == result.Fail:
			return result.Fail
		case v != result.Pass:
			all = result.Inconclusive
		}
	}
	if len(rounds) == 0 {
		return result.Inconclusive
	}
	return all
}
