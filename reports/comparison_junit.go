package reports

import (
	"io"
	"strconv"

	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// ComparisonJUnit writes the comparison as one test suite. Of systems it has a
// case per system and gate, of all its rounds. Of revisions it has one per metric
// that a regression is looked for in, and one per gate: what the second revision
// loses is a failure, what neither keeps, or what isn't shown, is skipped with
// the reason. So it fails exactly where the comparison does. A failed environment and an end
// before the last round are cases of their own, as in [JUnit]; what wasn't fair is a
// property.
func ComparisonJUnit(w io.Writer, c *result.Comparison) error {
	class := junitClass(c.Scenario) + ".compare"
	suite := junitSuite{Name: comparisonTitle(c), Time: seconds(c.Duration)}
	if !c.Started.IsZero() {
		suite.Timestamp = c.Started.UTC().Format("2006-01-02T15:04:05")
	}
	property := func(name, value string) {
		suite.Properties = append(suite.Properties, junitProperty{name, value})
	}
	property("verdict", string(c.Verdict))
	property("profile", c.Profile)
	property("seed", uintText(c.Seed))
	property("rounds", strconv.Itoa(c.Rounds))
	property("complete", strconv.FormatBool(c.Complete))
	for _, f := range c.Fairness {
		if f.State == result.Violated {
			property("unfair", f.Check+": "+f.Found)
		}
	}
	for _, n := range comparisonNotices(c) {
		property("notice", n)
	}
	add := func(part, name, out string, failure, skipped *junitFault) {
		suite.Cases = append(suite.Cases, junitCase{Class: class + "." + part, Name: name, Time: "0", Failure: failure, Skipped: skipped, Out: out})
	}
	switch {
	case c.Error != "":
		suite.Cases = append(suite.Cases, junitCase{Class: class + ".run", Name: "environment", Time: "0", Error: &junitFault{Message: c.Error, Type: "environment"}})
	case !c.Complete:
		add("run", "complete", "", nil, &junitFault{Message: c.Incomplete})
	}
	if c.Regression != nil {
		for _, m := range c.Regression.Metrics {
			failure, skipped := regressionFault(m, c.Regression.Tolerance)
			add("regression", m.Metric, "", failure, skipped)
		}
	}
	for _, g := range c.Gates {
		for i, cell := range g.Cells {
			if c.Regression != nil && i == 0 || len(cell.Rounds) == 0 {
				continue
			}
			out := cellText(cell)
			var failure, skipped *junitFault
			switch {
			case cell.Verdict == result.Pass:
			case cell.Verdict == result.Fail && c.Regression != nil && g.Cells[0].Verdict == result.Fail:
				skipped = &junitFault{Message: "no regression: " + g.Cells[0].System + " fails it too: " + cell.Reason}
			case cell.Verdict == result.Fail:
				failure = &junitFault{Message: cell.Reason, Type: "gate", Text: out}
			default:
				skipped = &junitFault{Message: cell.Reason}
			}
			add("gates", gateName(cell.System, g.Gate, g.Implied), out, failure, skipped)
		}
	}
	return writeSuite(w, class, suite)
}

// regressionFault is what a metric's answer is to a test: a failure only where it
// shows that the revision is worse.
func regressionFault(m result.RegressionMetric, tolerance float64) (failure, skipped *junitFault) {
	switch {
	case m.State == "within":
		return nil, nil
	case m.Value == nil:
		return nil, &junitFault{Message: m.Note}
	}
	text := unit.Format(*m.Value, "share") + " of before, " + percentBetween(m.Bounds) + ", with a tolerance of " + unit.Exact(tolerance, "share")
	if m.State == "regression" {
		return &junitFault{Message: text, Type: "regression"}, nil
	}
	return nil, &junitFault{Message: "not shown: " + text}
}
