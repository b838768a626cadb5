package plots

import (
	"fmt"
	"math"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"

	"phasegate/reports/internal/plaintext"
	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// Row is one measure of a comparison as small multiples: a cell per system, in
// the order of systems, all on the same axes.
type Row struct {
	Name, Title, Key string
	Cells            []Figure
}

// Cell is the form in which small multiples are drawn.
var Cell = Size{width: 272, height: 1, points: 220, fixed: 44}

// Multiples returns the rows of a comparison. A row that no system has a sample
// for is left out.
func Multiples(c *result.Comparison) []Row {
	m := multiples{c: c}
	for _, s := range c.Systems {
		for _, run := range s.Runs {
			for _, p := range run.Series {
				if p.T >= 0 && p.T <= farthest {
					m.end = max(m.end, p.T)
				}
			}
			m.warmup = max(m.warmup, run.Warmup)
		}
	}
	rows := []Row{
		m.latency(),
		m.percentiles(),
		m.overTime("hit-ratio", "Cache hit ratio over time", "share", func(p result.SeriesPoint) *float64 { return p.HitRatio }),
		m.overTime("memory", "Resident memory over time", "B", func(p result.SeriesPoint) *float64 { return p.Memory }),
		m.overTime("cpu", "CPU over time, share of all CPUs", "share", func(p result.SeriesPoint) *float64 { return p.CPU }),
	}
	return slices.DeleteFunc(rows, func(r Row) bool {
		return !slices.ContainsFunc(r.Cells, func(f Figure) bool { return !f.Empty })
	})
}

type multiples struct {
	c           *result.Comparison
	end, warmup float64
}

// cell starts the picture of one system; its name stands above it.
func (m *multiples) cell(i int, lines []line) Figure {
	f := Figure{Name: m.c.Systems[i].Name, Title: m.c.Systems[i].Name, timeAxis: true, xMax: m.end, height: 205}
	p := panel{name: plaintext.Line(m.c.Systems[i].Name), weight: 1, lines: slices.DeleteFunc(lines, func(l line) bool { return len(segments(l.points)) == 0 })}
	if m.warmup > 0 {
		p.bands = []band{{from: 0, to: min(m.warmup, m.end), color: shade}}
	}
	f.panels = []panel{p}
	f.Empty = len(p.lines) == 0
	return f
}

// color gives each system of a comparison the same one in every row.
func (m *multiples) color(i int) colorOf {
	return []colorOf{blue, vermillion, green, purple, orange, sky, ink}[i%7]
}

// rounds are a measure's lines of one system, one per round, and the median of
// them.
func (m *multiples) rounds(i int, get func(result.SeriesPoint) *float64) (each [][]point, middle []point) {
	at := map[int64][]float64{}
	for _, run := range m.c.Systems[i].Runs {
		var pts []point
		before := 0.0
		for _, s := range run.Series {
			if !(s.T > before && s.T <= farthest) {
				continue
			}
			p := point{(before + s.T) / 2, math.NaN()}
			before = s.T
			if v := get(s); v != nil && plausible(*v) {
				p.y = *v
				at[int64(math.Round(p.x*1e3))] = append(at[int64(math.Round(p.x*1e3))], *v)
			}
			pts = append(pts, p)
		}
		each = append(each, pts)
	}
	for x, ys := range at {
		slices.Sort(ys)
		middle = append(middle, point{float64(x) / 1e3, (ys[(len(ys)-1)/2] + ys[len(ys)/2]) / 2})
	}
	slices.SortFunc(middle, func(a, b point) int {
		if a.x < b.x {
			return -1
		}
		return 1
	})
	return each, middle
}

func (m *multiples) latency() Row {
	r := Row{Name: "latency", Title: "Latency over time (log scale)",
		Key: "Solid: 95th percentile of each second, the median of all rounds; pale: each round. Dotted: median request. Dashed: 99th percentile."}
	var all []line
	for i := range m.c.Systems {
		own := m.color(i)
		var lines []line
		each, p95 := m.rounds(i, func(p result.SeriesPoint) *float64 { return p.P95 })
		for _, pts := range each {
			lines = append(lines, line{"", "", faded(own, 45), thin, false, pts})
		}
		_, p50 := m.rounds(i, func(p result.SeriesPoint) *float64 { return p.P50 })
		_, p99 := m.rounds(i, func(p result.SeriesPoint) *float64 { return p.P99 })
		lines = append(lines,
			line{"", "", own, dashed, false, p99}, line{"", "", own, dotted, false, p50}, line{"", "", own, thick, false, p95})
		f := m.cell(i, lines)
		f.Caption = middleOf("p95", p95, "s", m.warmup)
		r.Cells = append(r.Cells, f)
		all = append(all, lines...)
	}
	low, high, ok := extent(all, func(y float64) bool { return y > 1e-9 })
	return m.scale(r, ok, func() axis { return logAxis(low, high, "s") })
}

func (m *multiples) overTime(name, title, u string, get func(result.SeriesPoint) *float64) Row {
	r := Row{Name: name, Title: title, Key: "Solid: the median of all rounds; pale: each round. The shaded part is the warm-up, which isn't judged."}
	var all []line
	for i := range m.c.Systems {
		each, middle := m.rounds(i, get)
		var lines []line
		for _, pts := range each {
			lines = append(lines, line{"", "", faded(m.color(i), 45), thin, false, pts})
		}
		lines = append(lines, line{"", "", m.color(i), thick, false, middle})
		f := m.cell(i, lines)
		f.Caption = middleOf(title, middle, u, m.warmup)
		r.Cells = append(r.Cells, f)
		all = append(all, lines...)
	}
	low, high, ok := extent(all, func(float64) bool { return true })
	return m.scale(r, ok, func() axis {
		if name == "hit-ratio" {
			return linearAxis(max(0, math.Floor(low*20-0.2)/20), 1, u, 4)
		}
		return linearAxis(0, high*1.05, u, 4)
	})
}

// scale gives every cell the same axis.
func (m *multiples) scale(r Row, ok bool, y func() axis) Row {
	for i := range r.Cells {
		if f := &r.Cells[i]; !ok {
			f.Empty = true
		} else if !f.Empty {
			f.panels[0].y = y()
		}
	}
	return r
}

// percentiles draws the curve of all rounds together, and pale each round's.
func (m *multiples) percentiles() Row {
	r := Row{Name: "percentiles", Title: "Latency by percentile, steady state (log scale)", Key: "Solid: all rounds together; pale: each round."}
	var all []line
	most := 1.0
	for i, s := range m.c.Systems {
		var lines []line
		var whole *hdrhistogram.Histogram
		for _, run := range s.Runs {
			h, err := result.DecodeHistogram(run.Histogram)
			if err != nil || h == nil {
				continue
			}
			lines = append(lines, line{"", "", faded(m.color(i), 45), thin, true, curve(h)})
			if whole == nil {
				whole = hdrhistogram.New(h.LowestTrackableValue(), h.HighestTrackableValue(), int(h.SignificantFigures()))
			}
			whole.Merge(h)
		}
		caption := ""
		if whole != nil {
			most = max(most, float64(whole.TotalCount()))
			lines = append(lines, line{"", "", m.color(i), thick, true, curve(whole)})
			caption = fmt.Sprintf("50 %% within %s, 95 %% %s, 99 %% %s, 99.9 %% %s.", unit.Format(micro(whole.ValueAtQuantile(50)), "s"),
				unit.Format(micro(whole.ValueAtQuantile(95)), "s"), unit.Format(micro(whole.ValueAtQuantile(99)), "s"), unit.Format(micro(whole.ValueAtQuantile(99.9)), "s"))
		}
		f := m.cell(i, lines)
		f.panels[0].bands = nil
		f.timeAxis, f.xMin, f.Caption = false, 1, caption
		r.Cells = append(r.Cells, f)
		all = append(all, lines...)
	}
	for i := range r.Cells {
		r.Cells[i].xMax = most
	}
	low, high, ok := extent(all, func(y float64) bool { return y > 1e-9 })
	return m.scale(r, ok, func() axis { return logAxis(low, high, "s") })
}

// middleOf says in words what a line shows in the steady state.
func middleOf(name string, pts []point, u string, from float64) string {
	var ys []float64
	for _, p := range pts {
		if p.x >= from && !math.IsNaN(p.y) {
			ys = append(ys, p.y)
		}
	}
	if len(ys) == 0 {
		return "no samples"
	}
	slices.Sort(ys)
	return fmt.Sprintf("%s: median %s, lowest %s, highest %s.", name, unit.Format(ys[len(ys)/2], u), unit.Format(ys[0], u), unit.Format(ys[len(ys)-1], u))
}
