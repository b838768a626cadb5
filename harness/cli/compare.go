package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"phasegate/harness"
	"phasegate/harness/compare"
	"phasegate/harness/forecast"
	"phasegate/harness/scenario"
	"phasegate/reports"
	"phasegate/reports/result"
)

type compareCommand struct {
	Scenario  string   `arg:"" optional:"" placeholder:"FILE|NAME" help:"Scenario file, or the name of an embedded one; with --refs, regression unless told otherwise."`
	Systems   []string `sep:"none" placeholder:"A,B,…" help:"Systems, the first of which the others are compared with: kinds such as optimizer or nginx, URLs, or NAME={kind: command, command: […]} for one of your own. May be repeated."`
	Refs      string   `placeholder:"BASE,NEW" help:"Compare two revisions of the optimizer instead, built from this repository, and exit with 1 if the second was shown to be worse."`
	Tolerance string   `default:"5%" help:"With --refs: how much worse is still good enough."`
	Rounds    int      `help:"How often each system runs: 5; with --refs at most 24, fewer if that decides it."`
	Baseline  string   `placeholder:"RESULT.json" help:"Hold it against an earlier run or comparison too: its result.json or compare.json."`
	Profile   string   `default:"quick" help:"Which of the scenario's profiles to run: quick, standard or full."`
	Upstream  string   `default:"process" enum:"process,container,auto" help:"How the mock upstream and the optimizer are started: process, container, or auto for containers where an engine answers."`
	Out       string   `placeholder:"DIR" help:"Folder for the page and the runs; out/compare-NAME unless told otherwise."`
	Seed      *uint64  `help:"Seed of keys, split, latencies and of the order of runs; the scenario's unless told otherwise."`
	Set       []string `sep:"none" placeholder:"PATH=VALUE" help:"Set a value of the scenario, e.g. load.rate=200/s; VALUE is YAML. May be repeated."`
	Optimizer string   `placeholder:"PATH" env:"PHASEGATE_OPTIMIZER" help:"The optimizer's binary."`
}

// Help implements kong's longer help.
func (compareCommand) Help() string {
	return "Every system does the same work: schedule, seed and upstream are the same, each is freshly started and prewarmed, " +
		"and the systems take turns in an order drawn for every round; the revisions of --refs run at the same time instead. Exit codes: 0 every gate of every system passed, 1 a gate failed, " +
		"3 some gate is inconclusive, 4 the environment failed, 130 interrupted. With --refs: 0 no regression was shown, 1 one was."
}

// regressionScenario is what revisions are compared on unless told otherwise.
const (
	regressionScenario = "regression"
	regressionRounds   = 24
)

// Run implements the command.
func (c *compareCommand) Run(ctx context.Context, std Streams) (err error) {
	cfg := compare.Config{Rounds: c.Rounds, Run: harness.Run}
	if c.Baseline != "" {
		if cfg.Baseline, err = compare.ReadBaseline(c.Baseline); err != nil {
			return &failure{exitUsage, fmt.Errorf("--baseline: %w", err), "Name the result.json of a run or the compare.json of a comparison."}
		}
	}
	named, err := c.named(&cfg)
	if err != nil {
		return err
	}
	if len(named) < 2 && cfg.Baseline == nil {
		return &failure{exitUsage, errors.New("compare: one system has nothing to be compared with"), "Name two or more with --systems A,B, or an earlier run with --baseline."}
	}
	plans, err := c.plans(named)
	if err != nil {
		return err
	}
	for i, plan := range plans {
		if err := checkPrograms(plan); err != nil {
			return fmt.Errorf("%s: %w", named[i].Name, err)
		}
	}
	if cfg.Out = c.Out; cfg.Out == "" {
		cfg.Out = filepath.Join("out", "compare-"+plans[0].Name)
	}
	if err := openFolder(cfg.Out); err != nil {
		return err
	}
	how, err := mode(ctx, std, c.Upstream, plans...)
	if err != nil {
		return err
	}
	if err := reports.ClearComparison(cfg.Out); err != nil {
		return &failure{exitEnvironment, err, "Name another folder with --out DIR."}
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own path: %w", err)
	}
	show, done := newProgress(std.Err)
	cfg.Seed = plans[0].Seed
	cfg.Options = harness.Options{Self: []string{self}, Upstream: how, Command: c.repeat(plans[0]), Commit: commit(), Progress: show}
	defer func() { err = errors.Join(err, c.tidy(cfg.Out)) }()
	if how == container {
		if cfg.Options.Static, err = static(ctx, self, "phasegate/harness/cmd/phasegate", filepath.Join(cfg.Out, builtSelf)); err != nil {
			return err
		}
	}
	binaries, err := c.binaries(ctx, std, &cfg, named, plans)
	if err != nil {
		return err
	}
	for i, b := range binaries {
		s := compare.System{Name: b.Name, Plan: plans[i], Optimizer: b.Binary, Revision: b.Commit}
		cfg.Systems = append(cfg.Systems, s)
		if s.Optimizer != "" {
			if err := checkConfig(ctx, s.Optimizer, s.Plan, cfg.Out); err != nil {
				return err
			}
		}
	}
	defer context.AfterFunc(ctx, func() {
		fmt.Fprintln(std.Err, "phasegate: interrupted, stopping in good order; again: at once, and without a result")
	})()
	res, err := compare.Run(ctx, cfg)
	done()
	return concludeComparison(ctx, std, cfg.Out, res, err)
}

// named are the systems that the flags name, and what of them the comparison
// must know.
func (c *compareCommand) named(cfg *compare.Config) ([]compare.Named, error) {
	usage := func(hint, format string, args ...any) error {
		return &failure{exitUsage, fmt.Errorf("compare: "+format, args...), hint}
	}
	switch {
	case (c.Refs == "") == (len(c.Systems) == 0):
		return nil, usage("Say --systems A,B to compare systems, or --refs BASE,NEW to compare revisions of the optimizer.", "one of --systems and --refs is needed, and not both")
	case c.Rounds < 0 || c.Rounds > 1000:
		return nil, usage("", "--rounds %d; allowed: 1 to 1000", c.Rounds)
	case c.Refs != "" && c.Rounds > 0 && c.Rounds < compare.MinRevisionRounds:
		return nil, usage("Fewer rounds have no bounds at the confidence that is asked for, so that no regression could be shown.",
			"--refs with --rounds %d; allowed: %d to 1000", c.Rounds, compare.MinRevisionRounds)
	case c.Refs == "" && c.Scenario == "":
		return nil, usage("`phasegate list` names the embedded ones.", "no scenario")
	case c.Refs == "":
		named, err := compare.ParseSystems(c.Systems)
		if err != nil {
			return nil, &failure{exitUsage, err, ""}
		}
		return named, nil
	}
	refs := strings.Split(c.Refs, ",")
	if len(refs) != 2 || refs[0] == "" || refs[1] == "" {
		return nil, usage("", "--refs %q; allowed: two revisions, as in main,HEAD", c.Refs)
	}
	text, percent := strings.CutSuffix(c.Tolerance, "%")
	tolerance, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if percent {
		tolerance /= 100
	}
	if err != nil || !(tolerance > 0 && tolerance < 10) {
		return nil, usage("", "--tolerance %q; allowed: a share above 0 such as 5%%", c.Tolerance)
	}
	cfg.Tolerance, cfg.Together = tolerance, true
	if c.Rounds == 0 {
		cfg.Rounds = regressionRounds
	}
	if c.Scenario == "" {
		c.Scenario = regressionScenario
	}
	return []compare.Named{{Name: refs[0]}, {Name: refs[1]}}, nil
}

// plans compiles the scenario for each system, before anything is started.
func (c *compareCommand) plans(named []compare.Named) ([]*scenario.Plan, error) {
	var plans []*scenario.Plan
	for _, n := range named {
		opts := n.Options(scenario.Options{Profile: c.Profile, Set: c.Set, Seed: c.Seed})
		plan, err := choice{c.Scenario, opts}.open()
		if err != nil {
			return nil, err
		}
		plans = append(plans, plan)
	}
	return plans, nil
}

// binaries find or build what the systems need of the optimizer.
func (c *compareCommand) binaries(ctx context.Context, std Streams, cfg *compare.Config, named []compare.Named, plans []*scenario.Plan) ([]compare.Built, error) {
	if c.Refs != "" {
		fmt.Fprintf(std.Err, "build      the optimizer of %s and of %s\n", named[0].Name, named[1].Name)
		if compare.Changed(ctx, ".") {
			cfg.Notices = append(cfg.Notices, "the working tree has changes that no revision holds: they are not part of this comparison")
		}
		built, err := compare.Build(ctx, ".", cfg.Out, []string{named[0].Name, named[1].Name})
		if err != nil && ctx.Err() == nil {
			code := exitEnvironment
			if errors.Is(err, compare.ErrRevision) {
				code = exitUsage
			}
			return nil, &failure{code, err, "Run it inside the repository, with revisions that `git rev-parse` knows."}
		}
		return built, err
	}
	built := make([]compare.Built, len(named))
	var path string
	for i, n := range named {
		built[i].Name = n.Name
		if !needsOptimizer(plans[i]) {
			continue
		}
		if path == "" {
			var err error
			if path, err = findOptimizer(ctx, c.Optimizer, cfg.Out); err != nil {
				return nil, err
			}
			if cfg.Options.Upstream == container {
				if path, err = static(ctx, path, "phasegate/optimizer/cmd/optimizer", filepath.Join(cfg.Out, builtStatic)); err != nil {
					return nil, err
				}
			}
		}
		built[i].Binary = path
	}
	return built, nil
}

// tidy removes what was built for this comparison: no output of it.
func (c *compareCommand) tidy(out string) error {
	for _, name := range []string{builtOptimizer, builtSelf, builtStatic} {
		if err := os.Remove(filepath.Join(out, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return compare.RemoveBuilt(out)
}

// repeat is the command line that makes the comparison again.
func (c *compareCommand) repeat(plan *scenario.Plan) []string {
	args := []string{"phasegate", "compare", c.Scenario, "--profile", plan.Profile, "--seed", fmt.Sprint(plan.Seed)}
	flag := func(name, value string) {
		if value != "" {
			args = append(args, name, value)
		}
	}
	for _, list := range c.Systems {
		flag("--systems", list)
	}
	if flag("--refs", c.Refs); c.Refs != "" {
		flag("--tolerance", c.Tolerance)
	}
	if c.Rounds > 0 {
		flag("--rounds", fmt.Sprint(c.Rounds))
	}
	flag("--baseline", c.Baseline)
	if c.Upstream != process {
		flag("--upstream", c.Upstream)
	}
	flag("--optimizer", c.Optimizer)
	for _, set := range c.Set {
		flag("--set", set)
	}
	return args
}

// concludeComparison writes what a comparison comes to and turns it into an
// exit code.
func concludeComparison(ctx context.Context, std Streams, out string, res *result.Comparison, runErr error) error {
	var input *forecast.InputError
	if errors.As(runErr, &input) {
		return &failure{exitUsage, input, ""}
	}
	if err := reports.WriteComparison(out, res); err != nil {
		return &failure{exitEnvironment, err, "Name another folder with --out DIR."}
	}
	if err := reports.ComparisonText(std.Out, res, isTerminal(std.Out)); err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "\npage: %s\n", filepath.Join(out, reports.ComparisonPage))
	return exitOf(ctx, runErr, res.Verdict)
}
