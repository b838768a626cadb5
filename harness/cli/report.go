package cli

import (
	"fmt"
	"path/filepath"

	"phasegate/reports"
	"phasegate/reports/result"
)

type reportCommand struct {
	Result string `arg:"" placeholder:"RESULT.json" help:"The result file of a run."`
	Out    string `placeholder:"DIR" help:"Folder for the reports; the result file's own unless told otherwise."`
}

// Run implements the command. It reports and does not judge: the exit code is
// 0 whatever the verdict was.
func (c *reportCommand) Run(std Streams) error {
	res, err := result.Read(c.Result)
	if err != nil {
		return &failure{exitUsage, err, ""}
	}
	out := c.Out
	if out == "" {
		out = filepath.Dir(c.Result)
	}
	if err := openFolder(out); err != nil {
		return err
	}
	if err := reports.Write(out, res); err != nil {
		return &failure{exitEnvironment, err, "Name another folder with --out DIR."}
	}
	reports.Text(std.Out, res, isTerminal(std.Out))
	fmt.Fprintf(std.Out, "\nreport: %s\n", filepath.Join(out, "report.html"))
	return nil
}
