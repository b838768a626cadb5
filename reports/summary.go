package reports

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"phasegate/reports/plots"
	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// Summary writes the verdict as Markdown for a pipeline's job page. The folder
// dir is named as the place of the full report.
func Summary(w io.Writer, r *result.Result, dir string) error {
	b := bufio.NewWriter(w)
	v := words(r.Verdict)
	fmt.Fprintf(b, "## %s %s: %s\n\n", v.Symbol, v.Word, markdown(title(r)))
	fmt.Fprintf(b, "%s. Profile %s, seed %d", upper(headline(r)), markdown(r.Profile), r.Seed)
	if s := steady(r); s > 0 {
		fmt.Fprintf(b, ", judged over %s", unit.Duration(s))
	}
	b.WriteString(".\n")
	if list := notices(r); len(list) > 0 {
		b.WriteByte('\n')
		for _, n := range list {
			fmt.Fprintf(b, "- **Note:** %s\n", markdown(n))
		}
	}
	if len(r.Gates) > 0 {
		b.WriteString("\n| verdict | gate | system | estimate | interval | sample | reason |\n|---|---|---|--:|---|--:|---|\n")
		for _, g := range ordered(r.Gates) {
			v, name := words(g.Verdict), code(g.Gate)
			if g.Implied {
				name += " (implied)"
			}
			fmt.Fprintf(b, "| %s %s | %s | %s | %s | %s | %s | %s |\n", v.Symbol, v.Word, name, markdown(g.System),
				unit.Beside(g.Value, g.Threshold, g.Unit), markdown(interval(g)), unit.Count(g.Samples), markdown(reason(g)))
		}
	}
	if len(r.Triggers) > 0 {
		b.WriteString("\n| trigger | system | action | what became of it |\n|---|---|---|---|\n")
		for _, t := range r.Triggers {
			fmt.Fprintf(b, "| %s | %s | %s | %s |\n", code(strings.TrimSuffix(condition(t), " on "+t.System)), markdown(t.System), markdown(t.Action), triggerCell(t))
		}
	}
	for _, name := range arms(r) {
		if text := growthLine(name, r.Systems[name].Growth); text != "" {
			fmt.Fprintf(b, "\n%s.\n", markdown(upper(text)))
		}
		if s := r.Systems[name]; s.Exit != "" {
			fmt.Fprintf(b, "\nSystem **%s** ended by itself: %s.\n", markdown(name), markdown(s.Exit))
		}
	}
	fmt.Fprintf(b, "\nFull report: %s, plots %s.\n", code(filepath.ToSlash(filepath.Join(dir, PageFile))), plotNames(r))
	return b.Flush()
}

func triggerCell(t result.Trigger) string {
	text := markdown(fate(t))
	if hasFired(t) {
		return "✗ **" + text + "**"
	}
	return text
}

func plotNames(r *result.Result) string {
	var names []string
	for _, f := range plots.All(r) {
		if !f.Empty {
			names = append(names, code(f.Name+".png"))
		}
	}
	if len(names) == 0 {
		return "none (no samples)"
	}
	return strings.Join(names, ", ")
}

// markdownEscapes keeps text from being read as markup or HTML, also within a
// table.
var markdownEscapes = strings.NewReplacer(
	`\`, `\\`, "|", `\|`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "~", `\~`, "#", `\#`,
	"<", "&lt;", ">", "&gt;", "&", "&amp;",
)

func markdown(s string) string { return markdownEscapes.Replace(clean(s)) }

// code is a code span; in a table a bar ends the cell even there.
func code(s string) string {
	s = clean(s)
	if strings.Contains(s, "`") {
		return markdown(s)
	}
	return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func arms(r *result.Result) []string { return plots.Arms(r) }
