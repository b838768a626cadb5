package reports

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"phasegate/reports/internal/plaintext"
	"phasegate/reports/plots"
	"phasegate/reports/result"
	"phasegate/reports/unit"
)

//go:embed report.html.tmpl
var pageSource string

//go:embed report.css
var pageStyle string

var pageTemplate = template.Must(template.New("report").Parse(pageSource))

// view is what the template shows, all of it already in words.
type view struct {
	Style    template.CSS
	Title    string
	Verdict  verdictWords
	Headline string
	Facts    []fact // of the run, below the verdict
	Notices  []string
	Steady   string
	Gates    []gateRow
	Triggers []triggerRow
	Figures  []figureView
	Arms     []armView
	Metrics  []metricRow
	Examples []armList
	Logs     []armList
	Times    []timeRow
	Columns  []string // of Times
	Legs     []legView
	Load     []fact
	Where    []fact
	Command  string
}

type fact struct{ Name, Value string }

type gateRow struct {
	Gate, System, Estimate, Interval, Threshold, Sample, Reason string
	Implied                                                     bool
	Verdict                                                     verdictWords
	Scale                                                       *gateScale
}

// gateScale places a gate's figures on a strip from 0 to 100.
type gateScale struct {
	GoodFrom, GoodWidth float64 // the side of the threshold that passes
	Threshold           float64
	From, Width         float64 // the interval
	Value               float64
}

type triggerRow struct {
	Condition, System, Action, Worst, Fate string
	State                                  verdictWords
}

type figureView struct {
	ID, Title, Caption string
	Empty              bool
	Wide, Narrow       template.HTML
	Growth             []growthView // of memory, beside its plot
}

type armView struct {
	Name     string
	Headings []fact // kind, address, …
	Exit     string
}

type metricRow struct {
	Name, Label string
	Cells       []metricCell
}

type metricCell struct{ Value, Why string }

type armList struct {
	Arm, Note string
	Lines     []string
}

// page fills the template; figures are those of r.
func page(w io.Writer, r *result.Result, figures []plots.Figure) error {
	v := view{
		Style:    template.CSS(pageStyle),
		Title:    title(r),
		Verdict:  words(r.Verdict),
		Headline: upper(headline(r)),
		Notices:  notices(r),
		Steady:   steadyText(r),
		Facts:    runFacts(r),
		Times:    timeRows(r),
		Legs:     legTables(r),
		Load:     loadFacts(r.Load),
		Where:    environmentFacts(r),
		Command:  shell(r.Environment.Command),
	}
	for _, g := range ordered(r.Gates) {
		v.Gates = append(v.Gates, newGateRow(g, steady(r)))
	}
	for _, t := range r.Triggers {
		v.Triggers = append(v.Triggers, newTriggerRow(t))
	}
	for i := range figures {
		f, err := newFigureView(&figures[i])
		if err != nil {
			return fmt.Errorf("make report: %w", err)
		}
		if f.ID == "resources" {
			f.Growth = growthTables(r)
		}
		v.Figures = append(v.Figures, f)
	}
	for _, q := range timeQuantiles {
		v.Columns = append(v.Columns, q.Name)
	}
	v.systems(r)
	if err := pageTemplate.Execute(w, v); err != nil {
		return fmt.Errorf("make report: %w", err)
	}
	return nil
}

func steadyText(r *result.Result) string {
	if s := steady(r); s > 0 {
		return unit.Duration(s)
	}
	return ""
}

func runFacts(r *result.Result) []fact {
	facts := []fact{{"Scenario", clean(r.Scenario)}, {"Profile", clean(r.Profile)}, {"Seed", uintText(r.Seed)}}
	if r.TimeScale != 0 {
		facts = append(facts, fact{"Time scale", fmt.Sprintf("%g", r.TimeScale)})
	}
	if s := steady(r); s > 0 {
		facts = append(facts, fact{"Steady state", unit.Duration(s)})
	}
	if !r.Started.IsZero() {
		facts = append(facts, fact{"Started", r.Started.Format("2006-01-02 15:04:05 MST")})
	}
	return append(facts, fact{"Took", unit.Duration(math.Round(r.Duration*10) / 10)})
}

var operators = strings.NewReplacer("<=", "≤", ">=", "≥")

func newGateRow(g result.Gate, steady float64) gateRow {
	row := gateRow{
		Gate: clean(g.Gate), System: clean(g.System), Implied: g.Implied, Verdict: words(g.Verdict), Reason: clean(reason(g)),
		Estimate: unit.Beside(g.Value, g.Threshold, g.Unit), Interval: interval(g),
		Sample: unit.Count(g.Samples), Scale: newGateScale(g),
	}
	if g.Op != "" { // what is expected of a drill may be no condition on a metric
		row.Threshold = operators.Replace(g.Op) + " " + unit.Exact(g.Threshold, g.Unit)
	}
	// A burst of errors that falls outside a short run is not seen; so the
	// length stands beside every share.
	if g.Drill == 0 && g.Unit == "share" && steady > 0 && g.Samples > 0 {
		row.Sample += " in " + unit.Duration(steady)
	}
	return row
}

// newGateScale is nil where nothing can be placed on one scale. Figures that lie more
// than a factor of 20 apart are placed by their logarithms.
func newGateScale(g result.Gate) *gateScale {
	// The bounds of a count are those of the share behind it.
	if g.Value == nil || g.Unit == "count" {
		return nil
	}
	low, high := *g.Value, *g.Value
	if g.Low != nil {
		low = min(low, *g.Low)
	}
	if g.High != nil {
		high = max(high, *g.High)
	}
	from, to := min(low, g.Threshold), max(high, g.Threshold)
	if gap := to - from; math.IsNaN(gap) || math.IsInf(gap, 0) {
		return nil
	}
	at := func(v float64) float64 { return v }
	if from > 0 && to/from > 20 {
		at = math.Log
	}
	span := at(to) - at(from)
	if span <= 0 {
		span = 1
	}
	place := func(v float64) float64 { return math.Round((12+76*(at(v)-at(from))/span)*10) / 10 }
	s := &gateScale{Threshold: place(g.Threshold), Value: place(*g.Value), From: place(low)}
	s.Width = max(place(high)-s.From, 0.5)
	if s.GoodWidth = s.Threshold; strings.HasPrefix(g.Op, ">") {
		s.GoodFrom, s.GoodWidth = s.Threshold, 100-s.Threshold
	}
	return s
}

func newTriggerRow(t result.Trigger) triggerRow {
	row := triggerRow{
		Condition: clean(strings.TrimSuffix(condition(t), " on "+t.System)), System: clean(t.System), Action: clean(t.Action),
		Worst: unit.Beside(t.Worst, t.Threshold, t.Unit), Fate: clean(fate(t)),
		State: verdictWords{"QUIET", "✓", "pass", ""},
	}
	switch {
	case hasFired(t):
		row.State = verdictWords{"FIRED", "✗", "fail", ""}
	case t.State == "unknown":
		row.State = verdictWords{"NOT WATCHED", "?", "inconclusive", ""}
	case t.State == "pending":
		row.State = verdictWords{"PENDING", "…", "inconclusive", ""}
	}
	return row
}

func newFigureView(f *plots.Figure) (figureView, error) {
	v := figureView{ID: strings.ReplaceAll(f.Name, "_", "-"), Title: f.Title, Caption: strings.ReplaceAll(f.Caption, " %", "\u00a0%"), Empty: f.Empty}
	if f.Empty {
		return v, nil
	}
	for _, form := range []struct {
		to   *template.HTML
		size plots.Size
	}{{&v.Wide, plots.Wide}, {&v.Narrow, plots.Narrow}} {
		svg, err := f.SVG(form.size)
		if err != nil {
			return v, err
		}
		*form.to = template.HTML(svg) // drawn by us; its texts are escaped by the canvas
	}
	return v, nil
}

// systems fills what is told of each arm.
func (v *view) systems(r *result.Result) {
	names := slices.DeleteFunc(arms(r), func(name string) bool { _, ok := r.Systems[name]; return !ok })
	metrics := map[string]bool{}
	for _, name := range names {
		s := r.Systems[name]
		arm := armView{Name: name, Exit: clean(s.Exit)}
		add := func(name, value string) {
			if value != "" {
				arm.Headings = append(arm.Headings, fact{name, clean(value)})
			}
		}
		add("Kind", s.Kind)
		add("Version", s.Version)
		add("Address", s.URL)
		add("Command", shell(s.Command))
		add("Log", s.LogFile)
		add("Requests", unit.Count(s.Requests))
		add("Errors", errorText(s))
		v.Arms = append(v.Arms, arm)
		for metric := range s.Metrics {
			metrics[metric] = true
		}
		for metric := range s.Missing {
			metrics[metric] = true
		}
		if len(s.Examples) > 0 {
			v.Examples = append(v.Examples, armList{Arm: name, Lines: plaintext.Lines(s.Examples)})
		}
		if len(s.LogTail) > 0 || s.Exit != "" {
			note := clean(s.Exit)
			if s.LogFile != "" {
				note = strings.TrimPrefix(note+"; whole log in "+s.LogFile, "; ")
			}
			v.Logs = append(v.Logs, armList{Arm: name, Note: note, Lines: plaintext.Lines(s.LogTail)})
		}
	}
	units := map[string]string{}
	for _, g := range r.Gates {
		units[g.Metric] = g.Unit
	}
	sorted := slices.SortedFunc(maps.Keys(metrics), func(a, b string) int {
		_, i := unit.Of(a)
		_, j := unit.Of(b)
		return cmp.Or(cmp.Compare(i, j), strings.Compare(a, b))
	})
	for _, metric := range sorted {
		m, _ := unit.Of(metric)
		if m.Unit == "" {
			m.Unit = units[metric]
		}
		row := metricRow{Name: clean(metric), Label: clean(upper(m.Label))}
		for _, name := range names {
			row.Cells = append(row.Cells, newMetricCell(r.Systems[name], metric, m.Unit))
		}
		v.Metrics = append(v.Metrics, row)
	}
}

func newMetricCell(s result.System, metric, u string) metricCell {
	value, measured := s.Metrics[metric]
	c := metricCell{Value: unit.Pointer(value, u)}
	switch n := s.Counts[metric]; {
	case c.Value != unit.None && n.All > 0:
		c.Why = unit.Count(n.Part) + " of " + unit.Count(n.All) + " " + clean(n.Of)
	case c.Value != unit.None:
	case s.Missing[metric] != "":
		c.Why = "not offered: " + clean(s.Missing[metric])
	case measured:
		c.Why = "no sample"
	default:
		c.Why = "not measured"
	}
	return c
}

// errorText lists the classes of failed requests, the most frequent first.
func errorText(s result.System) string {
	classes := slices.SortedFunc(maps.Keys(s.Errors), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.Errors[b], s.Errors[a]), strings.Compare(a, b))
	})
	var parts []string
	for _, c := range classes {
		if n := s.Errors[c]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", unit.Count(n), c))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func environmentFacts(r *result.Result) []fact {
	e := r.Environment
	var facts []fact
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, fact{name, clean(value)})
		}
	}
	cpus := fmt.Sprint(e.CPUs)
	if e.CPUModel != "" {
		cpus += " × " + e.CPUModel
	}
	add("CPUs", cpus)
	if e.Memory > 0 {
		add("Memory", unit.Format(float64(e.Memory), "B"))
	}
	add("System", e.OS)
	add("Kernel", e.Kernel)
	add("Go", e.Go)
	add("Commit", e.Commit)
	add("Upstream runs as", e.Upstream)
	add("Scenario from", e.Source)
	add("Seed", uintText(r.Seed))
	if !r.Started.IsZero() {
		add("Started", r.Started.Format(time.RFC3339))
	}
	return facts
}
