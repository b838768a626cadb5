package plots

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
	"gonum.org/v1/plot/vg"

	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// overTime starts a figure on the time axis that all of them share.
func (s *source) overTime(name, title string) Figure {
	return Figure{Name: name, Title: title, timeAxis: true, xMax: s.end, height: 360}
}

// finish drops panels without a sample and settles the caption.
func (f Figure) finish(facts []string, missing string) Figure {
	f.panels = slices.DeleteFunc(f.panels, func(p panel) bool {
		_, _, ok := extent(p.lines, func(float64) bool { return true })
		return !ok
	})
	if len(f.panels) == 0 {
		f.Empty, f.Caption, f.height = true, "No samples: "+missing, 120
		return f
	}
	f.Caption = strings.Join(facts, " ")
	return f
}

// add puts the panel on the figure with the stages and moments of the run.
func (s *source) add(f *Figure, p panel) {
	p.bands, p.marks = s.bands, s.marks
	if len(f.panels) > 0 {
		p.marks = slices.Clone(p.marks) // named in the first panel only
		for i := range p.marks {
			p.marks[i].name = ""
		}
		p.bands = slices.Clone(p.bands)
		for i := range p.bands {
			p.bands[i].name, p.bands[i].short = "", ""
		}
	}
	f.panels = append(f.panels, p)
}

func (s *source) latency() Figure {
	f := s.overTime("latency", "Latency over time")
	p := panel{name: "latency (log scale)", weight: 1}
	var facts []string
	for i, arm := range s.arms {
		p95 := s.line(arm, func(in result.Interval) *float64 { return in.P95 })
		p.lines = append(p.lines,
			line{arm + " p50", "", armColor(arm, i), dotted, false, s.line(arm, func(in result.Interval) *float64 { return in.P50 })},
			line{arm + " p95", arm, armColor(arm, i), thick, false, p95},
			line{arm + " p99", "", armColor(arm, i), dashed, false, s.line(arm, func(in result.Interval) *float64 { return in.P99 })},
		)
		facts = append(facts, s.span(arm+" p95", arm, p95, "s")...)
	}
	p.lines = slices.DeleteFunc(p.lines, func(l line) bool { return len(segments(l.points)) == 0 })
	if len(p.lines) > 0 && s.highest > 0 {
		p.y = logAxis(s.lowest, s.highest, "s")
	} else {
		p.lines = nil
	}
	for _, g := range s.latencyGates() {
		p.bounds = addBound(p.bounds, bound{name: g.Gate, at: g.Threshold})
	}
	s.add(&f, p)
	s.split(&f)
	return f.finish(facts, "no interval of the timeline holds a latency.")
}

// split shows, under the latency, what share of traffic each arm is meant to
// get. A run whose only system gets everything has nothing to show.
func (s *source) split(f *Figure) {
	if len(f.panels[0].lines) == 0 {
		return
	}
	p := panel{name: "share of traffic", weight: 0.2, y: linearAxis(0, 1, "share", 2)}
	whole := true
	for i, arm := range s.arms {
		var pts []point
		for i, in := range s.intervals[arm] {
			if in.Stage == pause {
				pts = append(pts, point{in.T, math.NaN()})
				continue
			}
			if at := in.From; i == 0 || at != nil {
				begun := 0.0
				if at != nil {
					begun = *at
				}
				pts = append(pts, point{begun, min(max(in.Split, 0), 1)})
			}
			pts = append(pts, point{in.T, min(max(in.Split, 0), 1)}) // a step ends with its interval
		}
		p.lines = append(p.lines, line{"", arm, armColor(arm, i), thick, true, pts})
		for _, pt := range pts {
			whole = whole && (pt.y == 1 || math.IsNaN(pt.y))
		}
	}
	if !whole {
		f.height += 60
		s.add(f, p)
	}
}

func (s *source) hitRatio() Figure {
	f := s.overTime("hit_ratio", "Cache hit ratio over time")
	f.height = 280
	p := panel{name: "cache hit ratio, from the upstream's ledger", weight: 1}
	var facts []string
	for i, arm := range s.arms {
		if arm == "old" && s.r.Systems[arm].Kind == "direct" {
			continue // nothing that could hit; of a new one it is what is asked
		}
		pts := s.line(arm, func(in result.Interval) *float64 { return in.HitRatio })
		if len(segments(pts)) == 0 {
			continue
		}
		p.lines = append(p.lines, line{arm, arm, armColor(arm, i), thick, false, pts})
		facts = append(facts, s.span(arm, arm, pts, "share")...)
	}
	p.bounds = s.gates(func(g result.Gate) bool { return g.Metric == "cache_hit_ratio" })
	if low, _, ok := extent(p.lines, func(float64) bool { return true }); ok {
		for _, b := range p.bounds {
			low = min(low, b.at)
		}
		p.y = linearAxis(max(0, math.Floor(min(low, 0.75)*10-0.5)/10), 1, "share", 5)
	}
	s.add(&f, p)
	missing := "the timeline holds no hit ratio."
	for _, arm := range s.arms {
		if why := s.r.Systems[arm].Missing["cache_hit_ratio"]; why != "" {
			missing = arm + ": " + why
		}
	}
	return f.finish(facts, missing)
}

func (s *source) traffic() Figure {
	f := s.overTime("traffic", "Throughput and errors over time")
	failed := panel{name: "errors per second", weight: 0.5}
	var done []panel // one per arm
	var facts []string
	worst, most, least := 0.0, 0.0, math.Inf(1)
	for i, arm := range s.arms {
		finished := s.perSecond(arm, func(in result.Interval) int64 { return in.Requests })
		offered := s.perSecond(arm, func(in result.Interval) int64 { return in.Offered })
		wrong := s.perSecond(arm, func(in result.Interval) int64 { return in.Errors })
		if len(finished) == 0 {
			continue
		}
		p := panel{name: "requests per second, " + arm, weight: 1, lines: []line{
			{arm + " finished", arm, armColor(arm, i), thick, false, finished},
			{arm + " offered", "", armColor(arm, i), dotted, false, offered},
		}}
		p.y = fromZero(p, "count", 4)
		done = append(done, p)
		most, least = max(most, p.y.max), min(least, p.y.max)
		failed.lines = append(failed.lines, line{arm + " errors", arm, armColor(arm, i), thin, false, wrong})
		if _, high, ok := extent(failed.lines, func(float64) bool { return true }); ok {
			worst = max(worst, high)
		}
		var total, drilled int64
		for _, in := range s.intervals[arm] {
			if total += in.Errors; in.Stage == result.StageDrill {
				drilled += in.Errors
			}
		}
		fact := fmt.Sprintf("%s: %s errors", arm, unit.Count(total))
		if drilled > 0 {
			fact += fmt.Sprintf(", %s of them in drills", unit.Count(drilled))
		}
		facts = append(facts, s.span(arm, arm, finished, "1/s")...)
		facts = append(facts, fact+".")
	}
	// On one scale, 5 % of the traffic would be a line on the floor.
	if len(done) > 0 && (most <= 8*least || len(done) > 3) {
		all := panel{name: "requests per second", weight: 1}
		for _, p := range done {
			all.lines = append(all.lines, p.lines...)
		}
		all.y = fromZero(all, "count", 4)
		done = []panel{all}
	}
	failed.y = linearAxis(0, max(worst*1.05, 1), "count", 2)
	for _, p := range append(done, failed) {
		s.add(&f, p)
	}
	f.height = vg.Length(230 + 110*len(done))
	return f.finish(facts, "the timeline is empty.")
}

func (s *source) resources() Figure {
	f := s.overTime("resources", "Memory and CPU over time")
	f.height = 400
	memory := panel{name: "memory", weight: 1}
	cpu := panel{name: "CPU, share of all CPUs", weight: 0.8}
	var facts []string
	for i, arm := range s.arms {
		bytes := s.line(arm, func(in result.Interval) *float64 { return in.Memory })
		if len(segments(bytes)) > 0 {
			memory.lines = append(memory.lines, line{arm, arm, armColor(arm, i), thick, false, bytes})
			facts = append(facts, s.span(arm+" memory", arm, bytes, "B")...)
			if trend, fact := s.trend(arm); len(trend) > 0 {
				memory.lines = append(memory.lines, line{"through the troughs of " + arm, "", ink, dashed, false, trend})
				facts = append(facts, fact)
			}
		}
		share := s.line(arm, func(in result.Interval) *float64 { return in.CPU })
		if len(segments(share)) > 0 {
			cpu.lines = append(cpu.lines, line{arm, arm, armColor(arm, i), thick, false, share})
			facts = append(facts, s.span(arm+" CPU", arm, share, "share")...)
		}
		if v := s.r.Systems[arm].MemoryLimit; v != nil && *v > 0 && plausible(*v) {
			memory.bounds = addBound(memory.bounds, bound{name: "limit of " + arm + ", " + unit.Exact(*v, "B"), at: *v})
		}
	}
	for _, b := range s.gates(func(g result.Gate) bool { return g.Metric == "memory" }) {
		memory.bounds = addBound(memory.bounds, b)
	}
	cpu.bounds = s.gates(func(g result.Gate) bool { return g.Metric == "cpu" })
	memory.y, cpu.y = fromZero(memory, "B", 5), fromZero(cpu, "share", 4)
	s.add(&f, memory)
	s.add(&f, cpu)
	missing := "memory and CPU were not sampled."
	for _, arm := range s.arms {
		if why := s.r.Systems[arm].Missing["memory"]; why != "" {
			missing = arm + ": " + why
		}
	}
	return f.finish(facts, missing)
}

// trend is the line through the troughs of an arm's memory, and what it says.
func (s *source) trend(arm string) (pts []point, fact string) {
	g := s.r.Systems[arm].Growth
	if g == nil || g.Slope == nil || len(g.Line) != 2 {
		return nil, ""
	}
	for _, p := range g.Line {
		if !(p.T >= 0 && p.T <= s.end && plausible(p.Bytes)) {
			return nil, ""
		}
		pts = append(pts, point{p.T, p.Bytes})
	}
	return pts, fmt.Sprintf("%s: the line through the troughs has a slope of %s.", arm, unit.Pointer(g.Slope, "B/h"))
}

// fromZero is a linear axis from zero that holds the lines and bounds of p with
// room above for a name.
func fromZero(p panel, u string, n int) axis {
	_, high, ok := extent(p.lines, func(float64) bool { return true })
	if !ok {
		high = 0
	}
	for _, b := range p.bounds {
		high = max(high, b.at)
	}
	return linearAxis(0, high*1.08, u, n)
}

// percentiles is HdrHistogram's curve. A gate on a quantile is drawn as the
// corner that the curve has to stay below and to the right of.
func (s *source) percentiles() Figure {
	f := Figure{Name: "percentiles", Title: "Latency by percentile", height: 340, xMin: 1, xMax: 1}
	p := panel{name: "latency in the steady state (log scale)", weight: 1}
	var facts []string
	for i, arm := range s.arms {
		h := s.histograms[arm]
		if h == nil {
			continue
		}
		total := h.TotalCount()
		f.xMax = max(f.xMax, float64(total))
		p.lines = append(p.lines, line{arm, arm, armColor(arm, i), thick, true, curve(h)})
		facts = append(facts, fmt.Sprintf("%s, %s requests: 50 %% within %s, 90 %% %s, 95 %% %s, 99 %% %s, 99.9 %% %s, all %s.", arm, unit.Count(total),
			unit.Format(micro(h.ValueAtQuantile(50)), "s"), unit.Format(micro(h.ValueAtQuantile(90)), "s"), unit.Format(micro(h.ValueAtQuantile(95)), "s"),
			unit.Format(micro(h.ValueAtQuantile(99)), "s"), unit.Format(micro(h.ValueAtQuantile(99.9)), "s"), unit.Format(micro(h.Max()), "s")))
	}
	if len(p.lines) > 0 {
		p.y = logAxis(s.lowest, s.highest, "s")
	}
	for _, g := range s.latencyGates() {
		if q, ok := quantiles[g.Metric]; ok {
			p.bounds = addBound(p.bounds, bound{name: g.Gate, at: g.Threshold, until: 1 / (1 - q)})
		}
	}
	f.panels = []panel{p}
	if len(facts) > 0 {
		facts = append(facts, "A request without an answer counts with at least the timeout.")
	}
	return f.finish(facts, "no system has a histogram of its steady state.")
}

// curve is a histogram's latency over 1/(1−q).
func curve(h *hdrhistogram.Histogram) []point {
	total := h.TotalCount()
	n := float64(total)
	var pts []point
	var below int64 // requests that took no longer than the bars so far
	for _, bar := range h.Distribution() {
		if bar.Count == 0 {
			continue
		}
		if v := micro(bar.To); below+bar.Count < total {
			pts = append(pts, point{n / float64(total-below-bar.Count), v})
		} else {
			pts = append(pts, point{n / float64(total-below), v})
		}
		below += bar.Count
	}
	return slices.Insert(pts, 0, point{1, pts[0].y})
}

var quantiles = map[string]float64{
	"p50_latency": 0.5, "p90_latency": 0.9, "p95_latency": 0.95, "p99_latency": 0.99, "p999_latency": 0.999,
}

// span says in a sentence what a line shows: its middle and its extremes in the
// steady state.
func (s *source) span(name, arm string, pts []point, u string) []string {
	steady := make([]float64, 0, len(pts))
	for i, in := range s.intervals[arm] {
		if i < len(pts) && in.Stage == result.StageSteady && !math.IsNaN(pts[i].y) {
			steady = append(steady, pts[i].y)
		}
	}
	if len(steady) == 0 {
		return nil
	}
	slices.Sort(steady)
	return []string{fmt.Sprintf("%s: median of the intervals %s, lowest %s, highest %s.",
		name, unit.Format(steady[len(steady)/2], u), unit.Format(steady[0], u), unit.Format(steady[len(steady)-1], u))}
}
