package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"phasegate/harness"
	"phasegate/harness/environment"
	"phasegate/harness/forecast"
	"phasegate/harness/scenario"
	"phasegate/reports"
	"phasegate/reports/result"
)

type runCommand struct {
	Scenario  string   `arg:"" placeholder:"FILE|NAME" help:"Scenario file, or the name of an embedded one (phasegate list)."`
	Profile   string   `default:"quick" help:"Which of the scenario's profiles to run: quick, standard or full."`
	Upstream  string   `default:"process" enum:"process,container,auto" help:"How the mock upstream and the optimizer are started: process, container, or auto for containers where an engine answers."`
	System    string   `placeholder:"NAME|URL" help:"Judge this system instead of the scenario's new one: optimizer, nginx, varnish, haproxy, direct, or the URL of a server already running."`
	Out       string   `placeholder:"DIR" help:"Folder for reports and logs; out/NAME unless told otherwise."`
	Seed      *uint64  `help:"Seed of keys, split and latencies; the scenario's unless told otherwise."`
	Set       []string `sep:"none" placeholder:"PATH=VALUE" help:"Set a value of the scenario, e.g. load.rate=200/s; VALUE is YAML. May be repeated."`
	Raw       string   `placeholder:"FILE" help:"Also write every request's result to FILE, for vegeta report and vegeta plot: encoded as .json or .csv by the name's ending, else as gob. Latency counts from the due time, which is the result's time."`
	Optimizer string   `placeholder:"PATH" env:"PHASEGATE_OPTIMIZER" help:"The optimizer's binary."`
}

// Run implements the command.
func (c *runCommand) Run(ctx context.Context, std Streams) error {
	plan, err := c.choice().open()
	if err != nil {
		return err
	}
	if err := checkPrograms(plan); err != nil {
		return err
	}
	if err := forewarn(std, plan, c.choice()); err != nil {
		return err
	}
	out := c.Out
	if out == "" {
		out = filepath.Join("out", plan.Name)
	}
	if err := openFolder(out); err != nil {
		return err
	}
	if c.Raw != "" { // before an earlier run's reports are cleared away
		f, err := os.OpenFile(c.Raw, os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return &failure{exitUsage, fmt.Errorf("--raw %s: %w", c.Raw, err), "Name a file that can be written."}
		}
		f.Close()
	}
	mode, err := mode(ctx, std, c.Upstream, plan)
	if err != nil {
		return err
	}
	if err := reports.Clear(out); err != nil {
		return &failure{exitEnvironment, err, "Name another folder with --out DIR."}
	}
	opts := harness.Options{
		Out:      out,
		Upstream: mode,
		Raw:      c.Raw,
		Command:  c.repeat(plan),
		Commit:   commit(),
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own path: %w", err)
	}
	opts.Self = []string{self}
	if mode == container {
		defer os.Remove(filepath.Join(out, builtSelf))
		if opts.Static, err = static(ctx, self, "phasegate/harness/cmd/phasegate", filepath.Join(out, builtSelf)); err != nil {
			return err
		}
	}
	if needsOptimizer(plan) {
		// One that had to be built is no output of the run.
		defer os.Remove(filepath.Join(out, builtOptimizer))
		if opts.Optimizer, err = findOptimizer(ctx, c.Optimizer, out); err != nil {
			return err
		}
		if mode == container {
			defer os.Remove(filepath.Join(out, builtStatic))
			if opts.Optimizer, err = static(ctx, opts.Optimizer, "phasegate/optimizer/cmd/optimizer", filepath.Join(out, builtStatic)); err != nil {
				return err
			}
		}
		if err := checkConfig(ctx, opts.Optimizer, plan, out); err != nil {
			return err
		}
	}
	defer context.AfterFunc(ctx, func() {
		fmt.Fprintln(std.Err, "phasegate: interrupted, stopping in good order; again: at once, and without a result")
	})()
	show, done := newProgress(std.Err)
	opts.Progress = show
	res, err := harness.Run(ctx, plan, opts)
	done()
	return conclude(ctx, std, out, res, err)
}

func (c *runCommand) choice() choice {
	return choice{c.Scenario, scenario.Options{Profile: c.Profile, Set: c.Set, Seed: c.Seed, System: c.System}}
}

// conclude writes the reports of a run, prints its verdicts, and turns them
// into an exit code.
func conclude(ctx context.Context, std Streams, out string, res *result.Result, runErr error) error {
	var input *forecast.InputError
	if errors.As(runErr, &input) {
		return &failure{exitUsage, input, ""}
	}
	if err := reports.Write(out, res); err != nil {
		return &failure{exitEnvironment, err, "Name another folder with --out DIR."}
	}
	if err := harness.Seal(out); err != nil {
		return &failure{exitEnvironment, err, "Name another folder with --out DIR."}
	}
	reports.Text(std.Out, res, isTerminal(std.Out))
	fmt.Fprintf(std.Out, "\nreport: %s\n", filepath.Join(out, "report.html"))
	var environmentErr *environment.Error
	if errors.As(runErr, &environmentErr) {
		runErr = errors.New(environmentErr.Detail())
	}
	return exitOf(ctx, runErr, res.Verdict)
}

// exitOf turns what became of a run, or of a comparison, into an exit code.
func exitOf(ctx context.Context, runErr error, verdict result.Verdict) error {
	switch {
	case ctx.Err() != nil:
		return exit{exitInterrupted}
	case runErr != nil:
		return &failure{exitEnvironment, runErr, ""}
	case verdict == result.Fail:
		return exit{exitFail}
	case verdict == result.Inconclusive:
		return exit{exitInconclusive}
	}
	return nil
}

// openFolder makes the output folder and tries whether it can be written,
// before anything is started or measured in vain.
func openFolder(dir string) error {
	const hint = "Name another folder with --out DIR."
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return &failure{exitEnvironment, fmt.Errorf("make the output folder: %w", err), hint}
	}
	probe, err := os.CreateTemp(dir, ".writable-")
	if err != nil {
		return &failure{exitEnvironment, fmt.Errorf("write to the output folder: %w", err), hint}
	}
	probe.Close()
	return os.Remove(probe.Name())
}

// checkPrograms looks for the programs that the scenario names, before anything
// is started.
func checkPrograms(plan *scenario.Plan) error {
	for _, s := range plan.Systems {
		if s.Kind.Packaged() {
			var missing *environment.Error
			if errors.As(environment.Installed(&s), &missing) {
				return &failure{exitEnvironment, errors.New(missing.Error()), missing.Hint}
			}
		}
		if s.Kind != scenario.KindCommand {
			continue
		}
		if _, err := exec.LookPath(s.Command[0]); err != nil {
			return &failure{exitUsage, fmt.Errorf("%s: systems.%s.command: %w", s.CommandAt, s.Name, err), "Install the program, or name its path from here."}
		}
	}
	return nil
}

func needsOptimizer(plan *scenario.Plan) bool {
	for _, s := range plan.Systems {
		if s.Kind == scenario.KindOptimizer {
			return true
		}
	}
	return false
}

// repeat is the command line that runs the same thing again, seed included.
func (c *runCommand) repeat(plan *scenario.Plan) []string {
	args := []string{"phasegate", "run", c.Scenario, "--profile", plan.Profile, "--seed", fmt.Sprint(plan.Seed)}
	if c.Upstream != "" && c.Upstream != process {
		args = append(args, "--upstream", c.Upstream)
	}
	if c.Optimizer != "" {
		args = append(args, "--optimizer", c.Optimizer)
	}
	if c.System != "" {
		args = append(args, "--system", c.System)
	}
	for _, set := range c.Set {
		args = append(args, "--set", set)
	}
	return args
}
