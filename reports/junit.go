package reports

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"phasegate/reports/result"
	"phasegate/reports/unit"
)

type junitSuites struct {
	XMLName  xml.Name `xml:"testsuites"`
	Name     string   `xml:"name,attr"`
	Tests    int      `xml:"tests,attr"`
	Failures int      `xml:"failures,attr"`
	Errors   int      `xml:"errors,attr"`
	Skipped  int      `xml:"skipped,attr"`
	Time     string   `xml:"time,attr"`
	Suite    junitSuite
}

type junitSuite struct {
	XMLName    xml.Name        `xml:"testsuite"`
	Name       string          `xml:"name,attr"`
	Tests      int             `xml:"tests,attr"`
	Failures   int             `xml:"failures,attr"`
	Errors     int             `xml:"errors,attr"`
	Skipped    int             `xml:"skipped,attr"`
	Time       string          `xml:"time,attr"`
	Timestamp  string          `xml:"timestamp,attr,omitempty"`
	Properties []junitProperty `xml:"properties>property"`
	Cases      []junitCase     `xml:"testcase"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Class   string      `xml:"classname,attr"`
	Name    string      `xml:"name,attr"`
	Time    string      `xml:"time,attr"`
	Failure *junitFault `xml:"failure"`
	Error   *junitFault `xml:"error"`
	Skipped *junitFault `xml:"skipped"`
	Out     string      `xml:"system-out,omitempty"`
}

type junitFault struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

// JUnit writes the run as one test suite: a case per gate and per trigger. A
// failed gate and a fired trigger are failures, an inconclusive gate and a
// trigger that wasn't watched are skipped with the reason, a failed
// environment is an error, and a run that broke off is skipped as a case of its
// own, so that it can't look complete.
func JUnit(w io.Writer, r *result.Result) error {
	name := r.Scenario
	if r.Profile != "" {
		name += " (" + r.Profile + ")"
	}
	suite := junitSuite{Name: name, Time: seconds(r.Duration)}
	if !r.Started.IsZero() {
		suite.Timestamp = r.Started.UTC().Format("2006-01-02T15:04:05")
	}
	property := func(name, value string) {
		suite.Properties = append(suite.Properties, junitProperty{name, value})
	}
	property("verdict", string(r.Verdict))
	property("profile", r.Profile)
	property("seed", uintText(r.Seed))
	property("time_scale", strconv.FormatFloat(r.TimeScale, 'g', -1, 64))
	property("complete", strconv.FormatBool(r.Complete))
	property("commit", r.Environment.Commit)
	for _, n := range notices(r) {
		property("notice", n)
	}

	class := junitClass(r.Scenario)
	if r.Verdict == result.EnvError {
		message := r.Error
		if message == "" {
			message = words(result.EnvError).Says
		}
		suite.Cases = append(suite.Cases, junitCase{Class: class + ".run", Name: "environment", Time: "0",
			Error: &junitFault{Message: message, Type: "environment", Text: lastWords(r)}})
	}
	if !r.Complete && r.Verdict != result.EnvError {
		suite.Cases = append(suite.Cases, junitCase{Class: class + ".run", Name: "complete", Time: "0",
			Skipped: &junitFault{Message: notices(r)[0]}})
	}
	for _, g := range ordered(r.Gates) {
		suite.Cases = append(suite.Cases, gateCase(class, g))
	}
	for _, t := range r.Triggers {
		suite.Cases = append(suite.Cases, triggerCase(class, t))
	}
	return writeSuite(w, class, suite)
}

// junitClass is a scenario's name where a dot would begin another part.
func junitClass(scenario string) string { return strings.ReplaceAll(scenario, ".", "_") }

// writeSuite counts a suite's cases and writes it.
func writeSuite(w io.Writer, class string, suite junitSuite) error {
	if len(suite.Cases) == 0 {
		// A suite without a case is green in most viewers.
		suite.Cases = append(suite.Cases, junitCase{Class: class + ".run", Name: "gates", Time: "0",
			Skipped: &junitFault{Message: "no gate was judged"}})
	}
	for _, c := range suite.Cases {
		suite.Tests++
		switch {
		case c.Failure != nil:
			suite.Failures++
		case c.Error != nil:
			suite.Errors++
		case c.Skipped != nil:
			suite.Skipped++
		}
	}
	all := junitSuites{Name: "phasegate", Tests: suite.Tests, Failures: suite.Failures, Errors: suite.Errors,
		Skipped: suite.Skipped, Time: suite.Time, Suite: suite}

	if _, err := io.WriteString(w, xml.Header); err != nil {
		return fmt.Errorf("write JUnit XML: %w", err)
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return fmt.Errorf("write JUnit XML: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func gateCase(class string, g result.Gate) junitCase {
	c := junitCase{Class: class + ".gates", Name: gateName(g.System, g.Gate, g.Implied), Time: "0", Out: Line(g)}
	switch g.Verdict {
	case result.Pass:
	case result.Fail:
		c.Failure = &junitFault{Message: reason(g), Type: "gate", Text: Line(g)}
	default:
		c.Skipped = &junitFault{Message: reason(g)}
	}
	return c
}

func gateName(system, gate string, implied bool) string {
	if implied {
		gate += " (implied)"
	}
	return system + ": " + gate
}

func triggerCase(class string, t result.Trigger) junitCase {
	c := junitCase{Class: class + ".triggers", Name: t.System + ": " + t.Condition, Time: "0"}
	if t.For > 0 {
		c.Name += " for " + unit.Duration(t.For)
	}
	switch {
	case hasFired(t):
		c.Failure = &junitFault{Message: fate(t), Type: "trigger", Text: "action: " + t.Action}
	case t.State == "unknown":
		c.Skipped = &junitFault{Message: fate(t)}
	default:
		c.Out = fate(t)
	}
	return c
}

// lastWords joins how systems ended and what they logged last.
func lastWords(r *result.Result) string {
	var b strings.Builder
	for _, name := range arms(r) {
		s := r.Systems[name]
		if s.Exit != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, s.Exit)
		}
		for _, l := range s.LogTail {
			fmt.Fprintf(&b, "%s: %s\n", name, clean(l))
		}
	}
	return b.String()
}

func seconds(s float64) string {
	return strconv.FormatFloat(time.Duration(s*float64(time.Second)).Seconds(), 'f', 3, 64)
}
