package cli

import (
	"fmt"
	"path/filepath"

	"phasegate/reports"
	"phasegate/reports/result"
)

type reportCommand struct {
	Result string `arg:"" placeholder:"RESULT.json" help:"The result file of a run, or the compare.json of a comparison."`
	Out    string `placeholder:"DIR" help:"Folder for the reports; the result file's own unless told otherwise."`
}

// Run implements the command. It reports and does not judge: the exit code is
// 0 whatever the verdict was.
func (c *reportCommand) Run(std Streams) error {
	out := c.Out
	if out == "" {
		out = filepath.Dir(c.Result)
	}
	if result.IsComparison(c.Result) {
		return c.comparison(std, out)
	}
	res, err := result.Read(c.Result)
	if err != nil {
		return &failure{exitUsage, err, ""}
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

func (c *reportCommand) comparison(std Streams, out string) error {
	res, err := result.ReadComparison(c.Result)
	if err != nil {
		return &failure{exitUsage, err, ""}
	}
	if err := openFolder(out); err != nil {
		return err
	}
	if err := reports.WriteComparison(out, res); err != nil {
		return &failure{exitEnvironment, err, "Name another folder with --out DIR."}
	}
	if err := reports.ComparisonText(std.Out, res, isTerminal(std.Out)); err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "\npage: %s\n", filepath.Join(out, reports.ComparisonPage))
	return nil
}
