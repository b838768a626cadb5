package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"

	"phasegate/harness/environment"
	"phasegate/harness/scenario"
)

// findOptimizer returns the path of the optimizer's binary: the one named by
// --optimizer or PHASEGATE_OPTIMIZER, else one beside this program, else one on PATH,
// else one built into buildDir from this module's source if the working
// directory is in it.
func findOptimizer(ctx context.Context, named, buildDir string) (string, error) {
	const choices = "Name it with --optimizer PATH or PHASEGATE_OPTIMIZER, put it beside phasegate or on PATH, or run inside the source tree (`make build`)."
	if named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", &failure{exitEnvironment, fmt.Errorf("find the optimizer that was named: %w", err), choices}
		}
		return filepath.Abs(path)
	}
	if self, err := os.Executable(); err == nil {
		if beside, err := exec.LookPath(filepath.Join(filepath.Dir(self), "optimizer")); err == nil {
			return beside, nil
		}
	}
	if path, err := exec.LookPath("optimizer"); err == nil {
		return filepath.Abs(path)
	}
	path, err := buildOptimizer(ctx, buildDir)
	if err != nil {
		return "", &failure{exitEnvironment, fmt.Errorf("find the optimizer: not beside phasegate, not on PATH, and %w", err), choices}
	}
	return path, nil
}

// builtOptimizer is the name of a binary that was built for one run.
const builtOptimizer = ".optimizer"

// buildOptimizer builds the optimizer into dir from the source tree that the
// working directory is in.
func buildOptimizer(ctx context.Context, dir string) (string, error) {
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}}").Output()
	if err != nil || strings.TrimSpace(string(module)) != "phasegate" {
		return "", errors.New("this is not phasegate's source tree, to build it from")
	}
	path := filepath.Join(dir, builtOptimizer)
	out, err := environment.Gently(exec.CommandContext(ctx, "go", "build", "-o", path, "phasegate/optimizer/cmd/optimizer")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building it failed: %w\n%s", err, out)
	}
	return path, nil
}

// checkConfig has the optimizer itself check the configuration that the
// scenario holds for it: its keys are its own.
func checkConfig(ctx context.Context, optimizer string, plan *scenario.Plan, dir string) error {
	for _, s := range plan.Systems {
		if s.Kind != scenario.KindOptimizer || len(s.Config) == 0 {
			continue
		}
		text, err := yaml.Marshal(s.Config)
		if err != nil {
			return fmt.Errorf("write the configuration of the %s system: %w", s.Name, err)
		}
		path := filepath.Join(dir, ".optimizer.yaml")
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return fmt.Errorf("write the configuration of the %s system: %w", s.Name, err)
		}
		defer os.Remove(path)
		check := exec.CommandContext(ctx, optimizer, "--check", "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--config", path)
		check.Env = environment.Environ()
		out, err := check.CombinedOutput()
		if err != nil && ctx.Err() == nil {
			said := strings.TrimPrefix(strings.TrimSpace(string(out)), "optimizer: ")
			// Lines of the file that it was given are not those of the scenario.
			said = regexp.MustCompile(regexp.QuoteMeta(path)+`(:\d+)*: `).ReplaceAllString(said, "")
			said = fmt.Sprintf("%s: systems.%s.config: %s", s.ConfigAt, s.Name, said)
			return &failure{exitUsage, errors.New(said), "The optimizer got:\n" + strings.TrimSpace(string(text)) +
				"\nAllowed are the keys that `optimizer --check` prints."}
		}
	}
	return ctx.Err()
}
