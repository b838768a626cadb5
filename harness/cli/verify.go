package cli

import (
	"errors"
	"fmt"

	"phasegate/harness"
)

type verifyCommand struct {
	Dir string `arg:"" placeholder:"DIR" help:"Output folder of a run."`
}

// Run implements the command: 0 if all agrees, 1 if anything differs, 2 if the
// folder isn't a finished run, 4 if it can't be read.
func (c *verifyCommand) Run(std Streams) error {
	v, err := harness.Verify(c.Dir)
	for _, line := range v.Differences {
		fmt.Fprintln(std.Out, line)
	}
	var noRun *harness.NoRunError
	switch {
	case errors.As(err, &noRun):
		return &failure{exitUsage, err, "Name the output folder of a run that came to its end: the one with result.json in it."}
	case err != nil && len(v.Differences) > 0:
		return &failure{exitFail, err, ""}
	case err != nil:
		return &failure{exitEnvironment, err, ""}
	case len(v.Differences) > 0:
		fmt.Fprintf(std.Out, "\n%s: this result is not what the evidence yields.\n", plural(len(v.Differences), "difference"))
		if v.Commit != "" && v.Commit != commit() {
			fmt.Fprintf(std.Out, "The run was made by revision %q and this program is %q: where the arithmetic changed between them, numbers may differ without anyone's doing.\n", v.Commit, commit())
		}
		return exit{exitFail}
	}
	fmt.Fprintf(std.Out, "verified: %d files are as the run left them, and %d values of result.json follow from the evidence.\n"+
		"What can't be recomputed is covered by the sums only: where, when and by which command the run was made (environment, started, duration),\n"+
		"and what the journal reports as seen: the systems' addresses and exits, notices, and of the load generator what was prewarmed, the connections opened,\n"+
		"which protocol was spoken, requests that were sent again, found all connections busy or never got one, those that were the first for their target\n"+
		"(of a replayed log), examples of failures, and the CPU time of the whole harness. What was due, sent, completed or failed is recomputed, by intervals.\n"+
		"Reports (HTML, JUnit and the rest) aren't covered: `phasegate report` makes them again from result.json.\n", v.Files, v.Values)
	return nil
}
