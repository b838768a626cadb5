package reports

import (
	"bufio"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// Line is a gate's verdict in one line of text, without a final newline:
//
//	PASS  p95_latency < 10ms  3.1 ms  [2.9 ms, 3.4 ms]  n=7,800
//
// A verdict other than pass is followed by its reason.
func Line(g result.Gate) string {
	line := strings.Join(slices.DeleteFunc(cells(g, false), func(c string) bool { return c == "" }), "  ")
	if why := clean(reason(g)); why != "" {
		line += "  " + why
	}
	return line
}

// Text writes what the terminal shows after a run: the notices, a line per gate
// in aligned columns, a line per trigger that fired or wasn't watched, the
// last words of a system that ended by itself, and the verdict. With color it marks the verdicts by ANSI colours as well.
func Text(w io.Writer, r *result.Result, color bool) error {
	b := bufio.NewWriter(w)
	line := func(parts ...string) {
		b.WriteString(strings.TrimRight(strings.Join(parts, ""), " "))
		b.WriteByte('\n')
	}
	line(clean(title(r)), ", profile ", clean(r.Profile), ", seed ", uintText(r.Seed))
	for _, n := range notices(r) {
		line("note: ", clean(n))
	}
	if load := loadLine(r.Load); load != "" {
		line("load: ", load)
	}
	for _, name := range arms(r) {
		for _, l := range legLines(name, r.Systems[name]) {
			line("wire: ", clean(l))
		}
	}
	line()

	gates := ordered(r.Gates)
	// The scenario's gates speak of the new system unless they say otherwise;
	// naming it in each line would tell nothing.
	named := slices.ContainsFunc(gates, func(g result.Gate) bool { return g.System != "new" })
	rows := make([][]string, len(gates))
	var widths []int
	for i, g := range gates {
		rows[i] = cells(g, named)
		for j, c := range rows[i] {
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], utf8.RuneCountInString(c))
		}
	}
	for i, g := range gates {
		var text strings.Builder
		for j, c := range rows[i] {
			if widths[j] == 0 {
				continue
			}
			padding := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(c)+2)
			if j == 0 {
				c = paint(g.Verdict, c, color)
			}
			text.WriteString(c + padding)
		}
		line(text.String())
		if why := clean(reason(g)); why != "" {
			line(strings.Repeat(" ", widths[0]+2), why)
		}
	}
	for _, t := range r.Triggers {
		if !hasFired(t) && t.State != "unknown" {
			continue
		}
		verdict := result.Fail
		if !hasFired(t) {
			verdict = result.Inconclusive
		}
		line(paint(verdict, "TRIGGER", color), "  ", clean(condition(t)), ": ", clean(fate(t)))
	}
	dead := false
	for _, name := range arms(r) {
		s := r.Systems[name]
		if text := growthLine(name, s.Growth); text != "" {
			line("MEMORY  ", clean(text))
		}
		if s.Exit == "" && len(s.LogTail) == 0 {
			continue
		}
		dead = true
		line(paint(result.EnvError, "SYSTEM", color), "  ", clean(strings.TrimSpace(name+" "+s.Exit)))
		for _, l := range s.LogTail[max(len(s.LogTail)-10, 0):] {
			line("        | ", clean(l))
		}
	}
	if len(gates)+len(r.Triggers) > 0 || dead {
		line()
	}
	line(paint(r.Verdict, words(r.Verdict).Word, color), "  ", headline(r))
	return b.Flush()
}

// cells are the columns of a gate's line; those that are "" don't apply.
func cells(g result.Gate, system bool) []string {
	name := clean(g.Gate)
	if g.Implied {
		name += " (implied)"
	}
	row := []string{words(g.Verdict).Word, name, "", unit.Beside(g.Value, g.Threshold, g.Unit), "", "n=" + unit.Count(g.Samples)}
	if system {
		row[2] = clean(g.System)
	}
	if between := interval(g); between != unit.None {
		row[4] = between
	}
	return row
}

// condition is a trigger as one would say it: "p95_latency > 50ms for 5 s".
func condition(t result.Trigger) string {
	text := t.Condition
	if t.For > 0 {
		text += " for " + unit.Duration(t.For)
	}
	if t.System != "" && t.System != "new" {
		text += " on " + t.System
	}
	return text
}

func paint(v result.Verdict, text string, color bool) string {
	if !color {
		return text
	}
	code := "1;35" // magenta: the environment
	switch v {
	case result.Pass:
		code = "1;32"
	case result.Fail:
		code = "1;31"
	case result.Inconclusive:
		code = "1;33"
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
