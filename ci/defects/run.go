package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"phasegate/fixtures/defects"
	"phasegate/harness/scenario"
	"phasegate/reports/result"
)

// runner runs scenarios by the real programs, with defects at their smallest size
// if least.
type runner struct {
	bin, out string
	least    bool
}

// patient lets a run go on for as long again where something is undecided: one
// pause of a busy machine leaves a gate open that a defect would fail. Runs in
// which nothing may fail have it from the start; most defects need no more.
var patient = []string{"--set", "profiles.quick.extensions=1"}

// thorough is twice the time for what a share of slow requests has to be clean of:
// on two busy processors a few stalls of 20 ms are 0.5 % of them, and ten seconds
// don't tell three such stalls from the beginning of more.
var thorough = []string{"--set", "profiles.quick.steady=20s"}

// brief is enough for what is counted: the first wrong answer is one.
var brief = []string{"--set", "profiles.quick.steady=3s"}

// defect runs one defect through its scenario; with spare, through the part of
// it that must not show anything.
func (r runner) defect(ctx context.Context, d defects.Defect, spare []string) row {
	row := row{name: d.Mode, scenario: d.Scenario, gate: d.Gate, size: d.Size, spared: spare != nil}
	args := []string{"--set", "systems.new=" + r.command(d.Mode, d.Scenario)}
	for _, set := range spare {
		row.name += " " + set
		args = append(args, "--set", set)
	}
	if row.spared {
		row.judge(r.run(ctx, row.name, d.Scenario, args))
		return row
	}
	if m, _ := scenario.Lookup(d.Gate); m.Estimator == scenario.ByCount {
		args = append(args, brief...)
	}
	row.judge(r.decided(ctx, row.name, d.Scenario, args, d.Gate))
	return row
}

// healthy runs a system without a defect through a scenario.
func (r runner) healthy(ctx context.Context, name, scenario string, n int) row {
	row := row{name: name, scenario: scenario, healthy: true}
	args := []string{"--system", name}
	switch name {
	case defects.None:
		args = []string{"--set", "systems.new=" + r.command(name, scenario)}
	case "optimizer":
		args = nil // the scenario's own
	}
	args = append(args, lasting(scenario)...)
	row.judge(r.decided(ctx, fmt.Sprintf("%s %s %d", name, scenario, n), scenario, args, ""))
	return row
}

// lasting is how long a run goes on in which nothing may fail.
func lasting(scenario string) []string {
	if strings.HasSuffix(scenario, "-service") {
		return slices.Concat(thorough, patient)
	}
	return patient
}

// command is the defects' program as a system: over TLS, where the upstream
// offers HTTP/2, in the scenario that judges that; with half of the cache where
// it has to be full soon.
func (r runner) command(mode, scenario string) string {
	args := []string{filepath.Join(r.bin, "defect"), "--mode", mode, "--listen", "{listen}"}
	if r.least {
		args = append(args, "--least")
	}
	switch {
	case strings.HasSuffix(scenario, "-content"):
		args = append(args, "--upstream", "{upstream_tls}", "--ca", "{ca}")
	case strings.HasSuffix(scenario, "-churn"):
		args = append(args, "--upstream", "{upstream}", "--memory", strconv.Itoa(32<<20))
	default:
		args = append(args, "--upstream", "{upstream}")
	}
	text, _ := json.Marshal(map[string]any{"kind": "command", "command": args}) // strings: can't fail
	return string(text)
}

// decided runs a scenario, and once more, patiently, if the gate, or without one
// the whole run, was left undecided.
func (r runner) decided(ctx context.Context, name, scenario string, args []string, gate string) (*result.Result, error) {
	res, err := r.run(ctx, name, scenario, args)
	if err == nil && ctx.Err() == nil && undecided(res, gate) {
		res, err = r.run(ctx, name, scenario, slices.Concat(args, patient))
	}
	return res, err
}

func undecided(res *result.Result, metric string) bool {
	if metric == "" {
		return res.Verdict == result.Inconclusive
	}
	for _, g := range res.Gates {
		if g.Metric == metric && g.Verdict == result.Inconclusive {
			return true
		}
	}
	return false
}

// run runs a scenario once and reads what it left.
func (r runner) run(ctx context.Context, name, scenario string, args []string) (*result.Result, error) {
	out := filepath.Join(r.out, strings.Map(func(c rune) rune {
		if strings.ContainsRune(" ={}:%,/", c) {
			return '-'
		}
		return c
	}, name))
	args = append([]string{"run", scenario, "--out", out, "--optimizer", filepath.Join(r.bin, "optimizer")}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(r.bin, "phasegate"), args...)
	// It stops what it started.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != 1 && code != 3 {
		return nil, fmt.Errorf("phasegate ended with %d: %s", code, lastLines(text.String(), 3))
	}
	res, err := result.Read(filepath.Join(out, result.FileName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no result: %s", lastLines(text.String(), 3))
	}
	return res, err
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " / ")
}
