package reports

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// headMetrics are what a terminal shows of a comparison: the page has all.
var headMetrics = []string{
	"p50_latency", "p95_latency", "p99_latency", "throughput", "error_rate", "cache_hit_ratio", "wrong_responses", "stale_responses",
	"memory", "cpu", "cpu_per_request",
}

// ComparisonText writes what the terminal shows after a comparison. With color
// it marks verdicts by ANSI colours as well.
func ComparisonText(w io.Writer, c *result.Comparison, color bool) error {
	b := bufio.NewWriter(w)
	line := func(parts ...string) {
		b.WriteString(strings.TrimRight(strings.Join(parts, ""), " "))
		b.WriteByte('\n')
	}
	line(comparisonTitle(c), ", profile ", clean(c.Profile), ", seed ", uintText(c.Seed), fmt.Sprintf(", %s of %d", plural(c.Rounds, "round"), c.Planned))
	for _, f := range c.Fairness {
		if f.State == result.Violated {
			line(paint(result.Fail, "NOT FAIR", color), "  ", clean(f.Check), ": ", clean(f.Found))
		}
	}
	for _, f := range c.Fairness {
		if f.State == result.Unknown {
			line(paint(result.Inconclusive, "unknown", color), "   ", clean(f.Check), ": ", clean(f.Found))
		}
	}
	for _, n := range comparisonNotices(c) {
		line("note: ", n)
	}
	if c.Regression != nil {
		line()
		writeRegression(line, c, color)
	} else {
		for _, m := range shown(c) {
			known, _ := unit.Of(m.Metric)
			line()
			line(m.Metric, "  (", known.Label, ")")
			var rows [][]string
			for _, v := range m.Values {
				row := []string{"  " + clean(v.System), unit.Pointer(v.Value, m.Unit), between(v.Bounds, m.Unit), "", clean(v.Note)}
				if v.Relative != nil {
					ratio, interval := relativeText(v, m.Unit)
					row[3] = strings.TrimSpace(ratio + " " + interval)
				}
				rows = append(rows, row)
			}
			for _, text := range Columns(rows) {
				line(text)
			}
		}
		line()
		rows := [][]string{{"GATE"}}
		for _, s := range c.Systems {
			rows[0] = append(rows[0], clean(s.Name))
		}
		for _, g := range c.Gates {
			row := []string{clean(g.Gate)}
			for _, cell := range g.Cells {
				row = append(row, cellText(cell))
			}
			rows = append(rows, row)
		}
		for _, text := range Columns(rows) {
			line(text)
		}
	}
	writeBaseline(line, c.Baseline)
	line()
	line(paint(c.Verdict, comparisonWords(c).Word, color), "  ", comparisonSays(c))
	return b.Flush()
}

// shown are the metrics for a terminal.
func shown(c *result.Comparison) []result.ComparedMetric {
	return slices.DeleteFunc(slices.Clone(c.Metrics), func(m result.ComparedMetric) bool { return !slices.Contains(headMetrics, m.Metric) })
}

// cellText is a gate on one system: "PASS" or "FAIL 2 of 5".
func cellText(cell result.ComparedByGate) string {
	if len(cell.Rounds) == 0 {
		return unit.None
	}
	text := words(cell.Verdict).Word
	if cell.Pooled {
		return fmt.Sprintf("%s by all %d together", text, len(cell.Rounds))
	}
	n := 0
	for _, v := range cell.Rounds {
		if v == cell.Verdict {
			n++
		}
	}
	if n < len(cell.Rounds) {
		text += fmt.Sprintf(" %d of %d", n, len(cell.Rounds))
	}
	return text
}

// Columns aligns the cells of rows of text, two spaces apart, and returns a line for
// each row. A column that is empty in all rows takes no room.
func Columns(rows [][]string) []string {
	var widths []int
	for _, row := range rows {
		for j, c := range row {
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], utf8.RuneCountInString(c))
		}
	}
	out := make([]string, len(rows))
	for i, row := range rows {
		var text strings.Builder
		for j, c := range row {
			if widths[j] > 0 {
				text.WriteString(c + strings.Repeat(" ", widths[j]-utf8.RuneCountInString(c)+2))
			}
		}
		out[i] = strings.TrimRight(text.String(), " ")
	}
	return out
}

// ComparisonSummary writes a comparison as Markdown.
func ComparisonSummary(w io.Writer, c *result.Comparison) error {
	b := bufio.NewWriter(w)
	v := comparisonWords(c)
	fmt.Fprintf(b, "## %s %s: %s\n\n%s.\n", v.Symbol, v.Word, markdown(comparisonTitle(c)), markdown(comparisonSays(c)))
	for _, f := range c.Fairness {
		if f.State == result.Violated {
			fmt.Fprintf(b, "\n> **Not fair**, %s: %s\n", markdown(f.Check), markdown(f.Found))
		}
	}
	for _, n := range comparisonNotices(c) {
		fmt.Fprintf(b, "\n> %s\n", markdown(n))
	}
	head := func(first string) {
		fmt.Fprintf(b, "\n| %s |", first)
		for _, s := range c.Systems {
			fmt.Fprintf(b, " %s |", markdown(s.Name))
		}
		fmt.Fprintf(b, "\n|---|%s\n", strings.Repeat("---|", len(c.Systems)))
	}
	if r := newRegressionView(c); r != nil {
		fmt.Fprintf(b, "\n| Metric | second over first | interval | answer |\n|---|---|---|---|\n")
		for _, row := range r.Rows {
			fmt.Fprintf(b, "| %s | %s | %s | %s |\n", code(row.Metric), row.Ratio, row.Interval, markdown(row.Says))
		}
	}
	if len(c.Gates) > 0 {
		head("Gate")
		for _, g := range c.Gates {
			fmt.Fprintf(b, "| %s |", code(g.Gate))
			for _, cell := range g.Cells {
				fmt.Fprintf(b, " %s %s |", words(cell.Verdict).Symbol, cellText(cell))
			}
			fmt.Fprintln(b)
		}
	}
	if len(c.Metrics) > 0 {
		head("Metric")
		for _, m := range shown(c) {
			fmt.Fprintf(b, "| %s |", code(m.Metric))
			for _, x := range m.Values {
				fmt.Fprintf(b, " %s", strings.TrimSpace(unit.Pointer(x.Value, m.Unit)+" "+between(x.Bounds, m.Unit)))
				if x.Relative != nil {
					ratio, interval := relativeText(x, m.Unit)
					fmt.Fprintf(b, "<br>%s", strings.TrimSpace(ratio+" "+interval))
				}
				fmt.Fprint(b, " |")
			}
			fmt.Fprintln(b)
		}
	}
	fmt.Fprintf(b, "\nIntervals are of %s, over %s; ratios are to the first system, paired by round. Page: %s.\n",
		unit.Exact(c.Confidence, "share"), plural(c.Rounds, "round"), code(ComparisonPage))
	return b.Flush()
}

// regressionSays answers the question in one sentence.
func regressionSays(c *result.Comparison) string {
	r := c.Regression
	var shown, undecided []string
	for _, m := range r.Metrics {
		switch m.State {
		case "regression":
			shown = append(shown, fmt.Sprintf("%s is %s of before, %s", m.Metric, unit.Format(*m.Value, "share"), percentBetween(m.Bounds)))
		case "open":
			text := m.Metric + " was not measured"
			if m.Detectable != nil {
				text = fmt.Sprintf("%s (%s worse would have been seen in nine of ten)", m.Metric, unit.Format(*m.Detectable-1, "share"))
			} else if m.Value != nil {
				text = m.Metric + " (too few rounds)"
			}
			undecided = append(undecided, text)
		}
	}
	tolerance := unit.Exact(r.Tolerance, "share")
	switch {
	case len(shown) > 0:
		return "worse by more than the tolerance of " + tolerance + ": " + strings.Join(shown, "; ")
	case c.Verdict == result.Fail:
		return "a gate fails that the other revision passes"
	case len(undecided) == 0:
		return fmt.Sprintf("every metric is shown to be within the tolerance of %s, after %s", tolerance, plural(c.Rounds, "round"))
	}
	text := fmt.Sprintf("no metric is shown to be worse by more than %s; not shown to be within it either: %s", tolerance, strings.Join(undecided, ", "))
	if !c.Complete {
		text = "broken off before its end: " + text
	}
	return text
}

func percentBetween(b result.Bounds) string {
	if b.Low == nil || b.High == nil {
		return "no interval"
	}
	return "[" + unit.Format(*b.Low, "share") + ", " + unit.Format(*b.High, "share") + "]"
}

func newRegressionView(c *result.Comparison) *regressionView {
	r := c.Regression
	if r == nil {
		return nil
	}
	v := &regressionView{Says: fmt.Sprintf("The second revision over the first, round by round. A regression is reported where the whole interval lies beyond the tolerance of %s. "+
		"Each bound has a confidence of %s, so that %s and %s together call an unchanged revision a regression in at most 5 %% of comparisons; %d taken.",
		unit.Exact(r.Tolerance, "share"), unit.Exact(math.Round(r.Level*1e5)/1e5, "share"), plural(r.Looks, "planned look"), plural(len(r.Metrics), "metric"), r.Looked)}
	if r.Identical {
		v.Says += " The two programs are the same, byte by byte: whatever differs here is noise."
	}
	for _, m := range r.Metrics {
		row := regressionRow{Metric: m.Metric, Ratio: unit.None, Interval: unit.None, Detectable: unit.None}
		if ratio, interval := factors(m.Bounds); ratio != "" {
			row.Ratio, row.Interval = ratio, cmp.Or(interval, unit.None)
		}
		if m.Detectable != nil {
			row.Detectable = "+" + unit.Format(*m.Detectable-1, "share")
		}
		switch m.State {
		case "regression":
			row.Says, row.State = "worse by more than the tolerance", verdictWords{Word: "REGRESSION", Symbol: "✗", Class: "fail"}
		case "within":
			row.Says, row.State = "within the tolerance", verdictWords{Word: "WITHIN", Symbol: "✓", Class: "pass"}
		default:
			row.Says, row.State = "neither shown", verdictWords{Word: "OPEN", Symbol: "?", Class: "inconclusive"}
			if m.Note != "" {
				row.Says += ": " + clean(m.Note)
			}
		}
		v.Rows = append(v.Rows, row)
	}
	return v
}

func writeRegression(line func(...string), c *result.Comparison, color bool) {
	v := newRegressionView(c)
	rows := [][]string{{"METRIC", "SECOND OVER FIRST", "INTERVAL", "ANSWER", "SEEN IN NINE OF TEN"}}
	for _, r := range v.Rows {
		rows = append(rows, []string{r.Metric, r.Ratio, r.Interval, r.Says, r.Detectable})
	}
	for _, text := range Columns(rows) {
		line(text)
	}
	if c.Regression.Identical {
		line("The two programs are the same, byte by byte: whatever differs here is noise.")
	}
}

func writeBaseline(line func(...string), b *result.Baseline) {
	if b == nil {
		return
	}
	v := newBaselineView(b)
	line()
	line("against ", v.File, " of ", v.Started)
	for _, d := range v.Differs {
		line("  differs: ", d)
	}
	line("  ", v.Caveat)
	rows := [][]string{}
	for i, r := range v.Rows {
		if slices.Contains(headMetrics, b.Values[i].Metric) {
			rows = append(rows, []string{"  " + r.System, r.Metric, r.Before, "→ " + r.Now, r.Ratio})
		}
	}
	for _, text := range Columns(rows) {
		line(text)
	}
}
