package reports

import (
	"fmt"
	"strings"

	"phasegate/reports/internal/plaintext"
	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// verdictWords is how a verdict is told everywhere: a word, a symbol that
// differs in shape, and a name for the style sheet.
type verdictWords struct {
	Word   string
	Symbol string
	Class  string
	Says   string
}

func words(v result.Verdict) verdictWords {
	switch v {
	case result.Pass:
		return verdictWords{"PASS", "✓", "pass", "Every gate passed."}
	case result.Fail:
		return verdictWords{"FAIL", "✗", "fail", "Not good enough for the next share of traffic."}
	case result.Inconclusive:
		return verdictWords{"INCONCLUSIVE", "?", "inconclusive", "Not a pass: the evidence does not suffice."}
	default:
		return verdictWords{"ERROR", "!", "error", "The run could not be judged: the environment failed."}
	}
}

// headline counts what led to the verdict: "7 of 9 gates passed, 1 failed, 1
// inconclusive; 1 trigger fired".
func headline(r *result.Result) string {
	var pass, fail, open, fired, unknown int
	for _, g := range r.Gates {
		switch g.Verdict {
		case result.Pass:
			pass++
		case result.Fail:
			fail++
		default:
			open++
		}
	}
	for _, t := range r.Triggers {
		switch {
		case hasFired(t):
			fired++
		case t.State == "unknown":
			unknown++
		}
	}
	text := "no gate was judged"
	if len(r.Gates) > 0 {
		text = fmt.Sprintf("%d of %s passed", pass, plural(len(r.Gates), "gate"))
		if fail > 0 {
			text += fmt.Sprintf(", %d failed", fail)
		}
		if open > 0 {
			text += fmt.Sprintf(", %d inconclusive", open)
		}
	}
	switch {
	case fired > 0:
		text += "; " + plural(fired, "trigger") + " fired"
	case len(r.Triggers) > unknown:
		text += "; no trigger fired"
	}
	if unknown > 0 {
		text += "; " + plural(unknown, "trigger") + " not watched"
	}
	if r.Verdict != result.EnvError && (!r.Complete || r.Incomplete != "") {
		text = "broken off before its end: " + text
	}
	return text
}

// hasFired tells whether the trigger fired at any time, also if it has resolved.
func hasFired(t result.Trigger) bool { return t.FiredAt != nil || t.State == "firing" }

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%s %ss", unit.Count(int64(n)), word)
}

// notices returns what must be read before the figures: why the run ended
// early, what failed, the time scale, then the run's own notices.
func notices(r *result.Result) []string {
	var out []string
	if r.Error != "" {
		out = append(out, "environment failed: "+r.Error)
	}
	switch {
	case r.Incomplete != "":
		out = append(out, "incomplete: "+r.Incomplete)
	case !r.Complete:
		out = append(out, "incomplete: the run ended early; the figures are those until then")
	}
	scaled := false
	for _, n := range r.Notices {
		scaled = scaled || strings.Contains(strings.ToLower(n), "time scale")
	}
	if r.TimeScale != 0 && r.TimeScale != 1 && !scaled {
		out = append(out, fmt.Sprintf("time scale %g: the times of triggers, windows and pauses are divided by %g", r.TimeScale, r.TimeScale))
	}
	return plaintext.Lines(append(out, r.Notices...))
}

// title is the run's name for a heading: "phase1 · Basic cache".
func title(r *result.Result) string {
	switch {
	case r.Scenario == "":
		return "unnamed scenario"
	case r.Title != "":
		return clean(r.Scenario + " · " + r.Title)
	}
	return clean(r.Scenario)
}

// ordered returns the gates as every report lists them: as written, the implied
// ones last.
func ordered(gates []result.Gate) []result.Gate {
	out := make([]result.Gate, 0, len(gates))
	for _, implied := range []bool{false, true} {
		for _, g := range gates {
			if g.Implied == implied {
				out = append(out, g)
			}
		}
	}
	return out
}

// interval is the gate's two-sided interval, or a dash.
func interval(g result.Gate) string {
	if g.Low == nil && g.High == nil {
		return unit.None
	}
	return "[" + unit.Beside(g.Low, g.Threshold, g.Unit) + ", " + unit.Beside(g.High, g.Threshold, g.Unit) + "]"
}

// reason is never empty where a reader would ask for one.
func reason(g result.Gate) string {
	switch {
	case g.Reason != "":
		return g.Reason
	case g.Verdict == result.Pass:
		return ""
	case g.Value == nil:
		return "no sample"
	}
	return "no reason was recorded"
}

// steady is the length of the steady state in seconds, 0 where it isn't known.
func steady(r *result.Result) float64 {
	total := 0.0
	for _, m := range r.Marks {
		if m.Name == "steady" && m.To > m.From {
			total += m.To - m.From
		}
	}
	if total > 0 {
		return total
	}
	first, last := -1.0, 0.0
	before := map[string]float64{}
	for _, in := range r.Timeline {
		if in.Stage == "steady" {
			if first < 0 {
				first = before[in.System]
			}
			last = max(last, in.T)
		}
		before[in.System] = in.T
	}
	return max(last-max(first, 0), 0)
}

// fate says in words what became of a trigger.
func fate(t result.Trigger) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch {
	case t.FiredAt != nil:
		add("fired at %s", unit.Duration(*t.FiredAt))
	case t.State == "firing":
		add("fired")
	case t.State == "unknown" && t.Reason != "":
		return "not watched: " + t.Reason
	case t.State == "unknown":
		return "not watched"
	case t.State == "pending":
		add("pending at the end")
	default:
		add("did not fire")
	}
	if t.PendingAt != nil {
		if t.State == "pending" {
			add("its condition held from %s on", unit.Duration(*t.PendingAt))
		} else {
			add("its condition began to hold at %s", unit.Duration(*t.PendingAt))
		}
	}
	if t.RollbackTime != nil {
		add("rolled back in %s", unit.Format(*t.RollbackTime, "s"))
	}
	if t.WithData < t.Evaluations {
		add("watched at %d of %s", t.WithData, plural(t.Evaluations, "evaluation"))
	}
	if t.Reason != "" {
		add("not watched at the end: %s", t.Reason)
	}
	return strings.Join(parts, "; ")
}

// clean makes text from files, logs and other programs safe to show in a line.
func clean(s string) string { return plaintext.Line(s) }

// shell writes an argument vector so that it can be pasted into a POSIX shell.
func shell(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		plain := a != "" && strings.IndexFunc(a, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,+@%", r))
		}) < 0
		if quoted[i] = a; !plain {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
