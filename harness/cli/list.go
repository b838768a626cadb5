package cli

import (
	"fmt"
	"os"
	"runtime/debug"
	"text/tabwriter"

	"phasegate/harness/scenario"
	"phasegate/scenarios"
)

type listCommand struct{}

// Run implements the command.
func (listCommand) Run(std Streams) error {
	w := tabwriter.NewWriter(std.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tTITLE\tTRAFFIC\tGATES\tQUICK PROFILE")
	for _, name := range scenarios.Names() {
		plan, err := scenario.Open(name, os.ReadFile, scenario.Options{})
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f %% new\t%d\t%s\n", name, plan.Title,
			100*plan.System(scenario.New).Share, len(plan.Gates), plan.Warmup+plan.Steady)
	}
	return w.Flush()
}

type schemaCommand struct{}

// Run implements the command.
func (schemaCommand) Run(std Streams) error {
	_, err := std.Out.Write(scenario.Schema())
	return err
}

// commit is the revision that this program was built from, "" where the build
// didn't record it; a "+" says that the tree had changes.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var revision, changed string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				changed = "+"
			}
		}
	}
	return revision + changed
}
