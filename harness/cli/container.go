package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"phasegate/harness"
	"phasegate/harness/environment"
	"phasegate/harness/scenario"
)

// The ways in which the mock upstream and the optimizer are started.
const (
	process   = "process"
	container = harness.Contained
)

// Binaries that were built for one run's containers.
const (
	builtSelf   = ".phasegate-static"
	builtStatic = ".optimizer-static"
)

// mode decides between processes and containers, and says what it found where
// that isn't what was asked for. The plans run alike: where one of them needs an
// engine, so does the mock upstream of all.
func mode(ctx context.Context, std Streams, upstream string, plans ...*scenario.Plan) (string, error) {
	contained := slices.ContainsFunc(plans, (*scenario.Plan).Contained)
	mocked := slices.ContainsFunc(plans, func(p *scenario.Plan) bool { return p.Upstream != nil })
	if !contained && (upstream == process || !mocked) {
		return process, nil
	}
	version, err := environment.EngineVersion(ctx)
	var missing *environment.Error
	switch {
	case err == nil && upstream == container:
	case err == nil && upstream == process:
		fmt.Fprintf(std.Err, "phasegate: a system is of kind container, so the mock upstream runs in one too (engine %s)\n", version)
	case err == nil:
		fmt.Fprintf(std.Err, "phasegate: --upstream auto: in containers, an engine answers (%s)\n", version)
	case errors.As(err, &missing) && upstream == "auto" && !contained:
		fmt.Fprintf(std.Err, "phasegate: --upstream auto: as processes, no container engine answers (%v)\n", missing.Err)
		return process, nil
	case missing != nil:
		return "", &failure{exitEnvironment, errors.New(missing.Error()), missing.Hint}
	default:
		return "", err
	}
	return container, nil
}

// static returns a binary that can be alone in a container: the given one if it
// is, else one built from this module's source if the working directory is in it.
func static(ctx context.Context, binary, source, path string) (string, error) {
	if environment.IsStatic(binary) {
		return binary, nil
	}
	fail := func(err error) (string, error) {
		return "", &failure{exitEnvironment, fmt.Errorf("%s is not a static Linux binary, which a container needs, and %w", binary, err),
			"Build it with CGO_ENABLED=0 (`make build` does), or say --upstream process."}
	}
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}}").Output()
	if err != nil || strings.TrimSpace(string(module)) != "phasegate" {
		return fail(errors.New("this is not phasegate's source tree, to build one from"))
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", path, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := environment.Gently(build).CombinedOutput(); err != nil {
		return fail(fmt.Errorf("building one failed: %w\n%s", err, out))
	}
	return path, nil
}
