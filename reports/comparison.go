package reports

import (
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"phasegate/reports/internal/atomicfile"
	"phasegate/reports/internal/plaintext"
	"phasegate/reports/plots"
	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// ComparisonPage is the page that [WriteComparison] makes, beside
// result.ComparisonFile, [JUnitFile] and [SummaryFile].
const ComparisonPage = "compare.html"

// WriteComparison makes the files of a comparison in the folder dir, the record
// first.
func WriteComparison(dir string, c *result.Comparison) error {
	err := errors.Join(
		result.WriteComparison(filepath.Join(dir, result.ComparisonFile), c),
		atomicfile.Write(filepath.Join(dir, ComparisonPage), func(w io.Writer) error { return ComparisonHTML(w, c) }),
		atomicfile.Write(filepath.Join(dir, JUnitFile), func(w io.Writer) error { return ComparisonJUnit(w, c) }),
		atomicfile.Write(filepath.Join(dir, SummaryFile), func(w io.Writer) error { return ComparisonSummary(w, c) }),
	)
	if err != nil {
		return fmt.Errorf("write the comparison into %s: %w", dir, err)
	}
	return nil
}

// ClearComparison removes what [WriteComparison] made of an earlier one.
func ClearComparison(dir string) error {
	var errs []error
	for _, name := range []string{result.ComparisonFile, ComparisonPage, JUnitFile, SummaryFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

//go:embed compare.html.tmpl
var comparisonSource string

//go:embed compare.css
var comparisonStyle string

var comparisonTemplate = template.Must(template.New("comparison").Parse(comparisonSource))

// comparisonView is what the template shows, all of it already in words.
type comparisonView struct {
	Style      template.CSS
	Title      string
	Verdict    verdictWords
	Says       string
	Facts      []fact
	Unfair     []checkRow
	Checks     []checkRow
	Notices    []string
	Systems    []systemView
	Headings   []string
	Gates      []gateMatrixRow
	Metrics    []comparedRow // that a reader looks for first
	Further    []comparedRow
	Rows       []multiplesRow
	Regression *regressionView
	Baseline   *baselineView
	Order      []orderRow
	Where      []fact
	Command    string
	Confidence string
}

// comparedTable is a table of metrics of all systems.
type comparedTable struct {
	Headings []string
	Rows     []comparedRow
}

// Table is for the template.
func (v comparisonView) Table(rows []comparedRow) comparedTable {
	return comparedTable{v.Headings, rows}
}

type checkRow struct {
	Check, Found string
	State        verdictWords
}

type systemView struct {
	Name     string
	Headings []fact
}

type gateMatrixRow struct {
	Gate    string
	Implied bool
	Cells   []gateMatrixCell
}

type gateMatrixCell struct {
	Verdict verdictWords
	Rounds  []verdictWords
	// Together says that all rounds decided as one; empty where each has its own.
	Together string
	Reason   string
	None     bool
}

type comparedRow struct {
	Name, Label string
	Cells       []comparedCell
}

type comparedCell struct {
	Value, Interval, Note string
	Ratio, Between        string
	Strip                 *strip
	First                 bool
}

// strip places an interval of a ratio on a strip from 0 to 100, 1 at its middle,
// on a log scale that all systems of a metric share.
type strip struct {
	From, Width, Value float64
	Differs            bool // the interval doesn't hold 1
}

type multiplesRow struct {
	ID, Title, Key string
	Cells          []multiplesCell
}

type multiplesCell struct {
	Name, Caption string
	SVG           template.HTML
}

type regressionView struct {
	Says string
	Rows []regressionRow
}

type regressionRow struct {
	Metric, Ratio, Interval, Says, Detectable string
	State                                     verdictWords
}

type baselineView struct {
	File, Started, Caveat string
	Differs               []string
	Rows                  []baselineRow
}

type baselineRow struct{ Metric, System, Before, Now, Ratio string }

type orderRow struct {
	Round string
	Runs  []string
}

// ComparisonHTML writes the comparison as one page that needs no other file.
func ComparisonHTML(w io.Writer, c *result.Comparison) error {
	v := comparisonView{
		Style: template.CSS(pageStyle + comparisonStyle), Title: comparisonTitle(c),
		Verdict: comparisonWords(c), Says: comparisonSays(c), Facts: comparisonFacts(c), Notices: comparisonNotices(c),
		Command: shell(c.Environment.Command), Confidence: unit.Exact(c.Confidence, "share"),
		Where: environmentFacts(&result.Result{Environment: c.Environment, Seed: c.Seed, Started: c.Started}),
	}
	for _, f := range c.Fairness {
		row := checkRow{clean(f.Check), clean(f.Found), checkWords(f.State)}
		if f.State == result.Violated {
			v.Unfair = append(v.Unfair, row)
		}
		v.Checks = append(v.Checks, row)
	}
	for _, s := range c.Systems {
		v.Headings = append(v.Headings, clean(s.Name))
		v.Systems = append(v.Systems, newSystemView(s))
	}
	for _, g := range c.Gates {
		v.Gates = append(v.Gates, newGateMatrixRow(g))
	}
	for _, m := range c.Metrics {
		if slices.Contains(headMetrics, m.Metric) {
			v.Metrics = append(v.Metrics, newComparedRow(m))
		} else {
			v.Further = append(v.Further, newComparedRow(m))
		}
	}
	for _, r := range plots.Multiples(c) {
		row := multiplesRow{ID: r.Name, Title: r.Title, Key: r.Key}
		for i := range r.Cells {
			cell := multiplesCell{Name: clean(r.Cells[i].Title), Caption: strings.ReplaceAll(r.Cells[i].Caption, " %", "\u00a0%")}
			if !r.Cells[i].Empty {
				svg, err := r.Cells[i].SVG(plots.Cell)
				if err != nil {
					return fmt.Errorf("make the comparison's page: %w", err)
				}
				cell.SVG = template.HTML(svg) // drawn by us; its texts are escaped by the canvas
			}
			row.Cells = append(row.Cells, cell)
		}
		v.Rows = append(v.Rows, row)
	}
	v.Regression, v.Baseline = newRegressionView(c), newBaselineView(c.Baseline)
	v.Order = orderRows(c)
	if err := comparisonTemplate.Execute(w, v); err != nil {
		return fmt.Errorf("make the comparison's page: %w", err)
	}
	return nil
}

func comparisonTitle(c *result.Comparison) string {
	var names []string
	for _, s := range c.Systems {
		names = append(names, s.Name)
	}
	return clean(strings.Join(names, ", ") + " on " + c.Scenario)
}

// comparisonWords is the verdict in the words of what was asked.
func comparisonWords(c *result.Comparison) verdictWords {
	w := words(c.Verdict)
	if c.Regression != nil {
		switch c.Verdict {
		case result.Pass:
			w.Word = "NO REGRESSION SHOWN"
		case result.Fail:
			w.Word = "REGRESSION"
		}
	}
	return w
}

// comparisonSays sums the comparison up in one sentence.
func comparisonSays(c *result.Comparison) string {
	if c.Error != "" {
		return "the environment failed in one of the runs"
	}
	if r := c.Regression; r != nil {
		return regressionSays(c)
	}
	var parts []string
	for _, s := range c.Systems {
		parts = append(parts, fmt.Sprintf("%s: %s", clean(s.Name), gateCount(c, s.Name)))
	}
	text := strings.Join(parts, "; ")
	if !c.Complete {
		text = "broken off before its end: " + text
	}
	return text
}

// gateCount counts a system's gates: "9 of 10 gates passed, 1 failed".
func gateCount(c *result.Comparison, system string) string {
	var n, pass, fail int
	for _, g := range c.Gates {
		for _, cell := range g.Cells {
			if cell.System != system || len(cell.Rounds) == 0 {
				continue
			}
			n++
			switch cell.Verdict {
			case result.Pass:
				pass++
			case result.Fail:
				fail++
			}
		}
	}
	if n == 0 {
		return "no gate was judged"
	}
	text := fmt.Sprintf("%d of %s passed", pass, plural(n, "gate"))
	if fail > 0 {
		text += fmt.Sprintf(", %d failed", fail)
	}
	if left := n - pass - fail; left > 0 {
		text += fmt.Sprintf(", %d inconclusive", left)
	}
	return text
}

func comparisonFacts(c *result.Comparison) []fact {
	rounds := fmt.Sprintf("%d", c.Rounds)
	if c.Rounds != c.Planned {
		rounds = fmt.Sprintf("%d of %d planned", c.Rounds, c.Planned)
	}
	facts := []fact{{"Scenario", clean(c.Scenario)}, {"Profile", clean(c.Profile)}, {"Seed", uintText(c.Seed)}, {"Rounds", rounds}}
	if !c.Started.IsZero() {
		facts = append(facts, fact{"Started", c.Started.Format("2006-01-02 15:04:05 MST")})
	}
	return append(facts, fact{"Took", unit.Duration(math.Round(c.Duration))})
}

func comparisonNotices(c *result.Comparison) []string {
	var out []string
	if c.Error != "" {
		out = append(out, "environment failed: "+c.Error)
	}
	if c.Incomplete != "" {
		out = append(out, "incomplete: "+c.Incomplete)
	}
	if c.Rounds > 0 && c.Rounds < 3 {
		out = append(out, fmt.Sprintf("%s: intervals take 3 or more", plural(c.Rounds, "round")))
	}
	out = append(out, c.Notices...)
	for _, s := range c.Systems {
		for _, n := range s.Notices {
			out = append(out, s.Name+": "+n)
		}
	}
	return plaintext.Lines(out)
}

func checkWords(state string) verdictWords {
	switch state {
	case result.Held:
		return verdictWords{Word: "HELD", Symbol: "✓", Class: "pass"}
	case result.Violated:
		return verdictWords{Word: "VIOLATED", Symbol: "✗", Class: "fail"}
	}
	return verdictWords{Word: "UNKNOWN", Symbol: "?", Class: "inconclusive"}
}

func newSystemView(s result.ComparedSystem) systemView {
	v := systemView{Name: clean(s.Name)}
	add := func(name, value string) {
		if value != "" {
			v.Headings = append(v.Headings, fact{name, clean(value)})
		}
	}
	add("Kind", s.Kind)
	add("Version", s.Version)
	add("Revision", s.Revision)
	add("Command", shell(s.Command))
	var requests int64
	for _, r := range s.Runs {
		requests += r.Requests
	}
	add("Requests", unit.Count(requests)+" in all")
	add("Errors", errorText(result.System{Errors: s.Errors}))
	return v
}

func newGateMatrixRow(g result.ComparedGate) gateMatrixRow {
	row := gateMatrixRow{Gate: clean(g.Gate), Implied: g.Implied}
	if g.System != "new" {
		row.Gate += " (" + clean(g.System) + ")"
	}
	for _, c := range g.Cells {
		cell := gateMatrixCell{Verdict: words(c.Verdict), Reason: clean(c.Reason), None: len(c.Rounds) == 0}
		if c.Pooled {
			cell.Together = fmt.Sprintf("by all %d rounds together", len(c.Rounds))
		}
		for _, v := range c.Rounds {
			if !c.Pooled { // none of them decided
				cell.Rounds = append(cell.Rounds, words(v))
			}
		}
		row.Cells = append(row.Cells, cell)
	}
	return row
}

func newComparedRow(m result.ComparedMetric) comparedRow {
	known, _ := unit.Of(m.Metric)
	row := comparedRow{Name: clean(m.Metric), Label: clean(upper(known.Label))}
	reach := stripReach(m)
	for i, v := range m.Values {
		cell := comparedCell{First: i == 0, Value: unit.Pointer(v.Value, m.Unit), Interval: between(v.Bounds, m.Unit), Note: clean(v.Note)}
		if v.Relative != nil {
			cell.Ratio, cell.Between = relativeText(v, m.Unit)
			cell.Strip = newStrip(v, reach)
		}
		row.Cells = append(row.Cells, cell)
	}
	return row
}

// orderRows say who ran when.
func orderRows(c *result.Comparison) []orderRow {
	rounds := map[int][]string{}
	for _, s := range c.Systems {
		for _, r := range s.Runs {
			list := rounds[r.Round]
			for len(list) < r.Position && r.Position <= 1000 {
				list = append(list, "")
			}
			if r.Position >= 1 && r.Position <= len(list) {
				list[r.Position-1] = clean(s.Name)
			}
			rounds[r.Round] = list
		}
	}
	var rows []orderRow
	for _, n := range slices.Sorted(maps.Keys(rounds)) {
		rows = append(rows, orderRow{fmt.Sprint(n), rounds[n]})
	}
	return rows
}

func newBaselineView(b *result.Baseline) *baselineView {
	if b == nil {
		return nil
	}
	v := &baselineView{File: clean(b.File), Caveat: clean(b.Caveat), Differs: plaintext.Lines(b.Differs)}
	if !b.Started.IsZero() {
		v.Started = b.Started.Format("2006-01-02 15:04 MST")
	}
	for _, x := range b.Values {
		ratio, interval := relativeText(result.ComparedValue{Relative: &x.Bounds, Difference: x.Difference}, x.Unit)
		v.Rows = append(v.Rows, baselineRow{clean(x.Metric), clean(x.System), unit.Format(x.Before, x.Unit), unit.Format(x.Now, x.Unit), strings.TrimSpace(ratio + " " + interval)})
	}
	return v
}
