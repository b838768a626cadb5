package plots

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"

	"phasegate/reports/internal/plaintext"
	"phasegate/reports/result"
)

// source holds what the figures of one result share: the arms in their order,
// one time axis, one scale for latency.
type source struct {
	r          *result.Result
	arms       []string
	intervals  map[string][]result.Interval // by arm, ascending in T
	histograms map[string]*hdrhistogram.Histogram
	end        float64 // of the time axis
	bands      []band
	marks      []mark
	lowest     float64 // latency seen anywhere, in seconds; 0 where none was
	highest    float64
}

func newSource(r *result.Result) *source {
	s := &source{r: r, intervals: map[string][]result.Interval{}, histograms: map[string]*hdrhistogram.Histogram{}}
	for _, in := range r.Timeline {
		if !(in.T >= 0 && in.T <= farthest) {
			continue
		}
		s.intervals[in.System] = append(s.intervals[in.System], in)
		s.end = max(s.end, in.T)
	}
	for _, list := range s.intervals {
		slices.SortStableFunc(list, func(a, b result.Interval) int { return cmp.Compare(a.T, b.T) })
	}
	for arm, list := range s.intervals {
		s.intervals[arm] = withPauses(list)
	}
	for name, system := range r.Systems {
		// A histogram that can't be read is reported by the file made from it;
		// here it is as good as none.
		if h, err := result.DecodeHistogram(system.Histogram); err == nil && h != nil {
			s.histograms[name] = h
		}
	}
	s.arms = Arms(r)
	s.stages()
	s.latencyRange()
	return s
}

// pause is the stage of an interval put in where nothing was sent, so that no
// line leads across it.
const pause = "(pause)"

// withPauses puts one before each interval that doesn't follow on the one before.
func withPauses(list []result.Interval) []result.Interval {
	out := make([]result.Interval, 0, len(list))
	before := 0.0
	for _, in := range list {
		if from := in.From; from != nil && *from > before && *from < in.T {
			out = append(out, result.Interval{T: *from, System: in.System, Stage: pause})
		}
		out = append(out, in)
		before = in.T
	}
	return out
}

// Arms returns the names of all systems in r, of its figures and of its
// timeline, in the order of every report: old, new, then by name.
func Arms(r *result.Result) []string {
	seen := map[string]bool{}
	for name := range r.Systems {
		seen[name] = true
	}
	for _, in := range r.Timeline {
		seen[in.System] = true
	}
	rank := func(name string) int {
		if i := slices.Index([]string{"old", "new"}, name); i >= 0 {
			return i
		}
		return 2
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
}

// stages takes warm-up and drills from the marks, or, where there are none, the
// warm-up from the intervals.
func (s *source) stages() {
	for _, m := range s.r.Marks {
		switch {
		case !(m.From >= 0 && m.From < m.To && m.To <= farthest):
			continue
		case m.Name == result.StageWarmup:
			s.bands = append(s.bands, band{name: warmup, from: m.From, to: m.To, color: shade, inLegend: true})
		case m.Name != result.StageSteady:
			name := plaintext.Line(m.Name)
			short, _, _ := strings.Cut(name, ":") // "drill 1", where no more has room
			s.bands = append(s.bands, band{name: name, short: short, from: m.From, to: m.To, color: tint, inLegend: true})
		}
		s.end = max(s.end, m.To)
	}
	if !slices.ContainsFunc(s.bands, func(b band) bool { return b.name == warmup }) {
		end := 0.0
		for _, in := range s.r.Timeline {
			if in.Stage == result.StageWarmup {
				end = max(end, in.T)
			}
		}
		if end > 0 {
			s.bands = append(s.bands, band{name: warmup, to: end, color: shade, inLegend: true})
		}
	}
	for _, t := range s.r.Triggers {
		if t.FiredAt != nil {
			s.marks = append(s.marks, mark{"fired: " + plaintext.Line(t.Condition), *t.FiredAt})
		}
	}
}

const warmup = "warm-up (not judged)"

func (s *source) latencyRange() {
	low, high := math.Inf(1), 0.0
	see := func(v float64) {
		if v >= 1e-9 && v <= 1e9 {
			low, high = min(low, v), max(high, v)
		}
	}
	for _, in := range s.r.Timeline {
		for _, p := range []*float64{in.P50, in.P95, in.P99} {
			if p != nil {
				see(*p)
			}
		}
	}
	for _, h := range s.histograms {
		// A handful of values in a million would stretch the axis at its lower
		// end, where nobody looks.
		see(micro(h.ValueAtQuantile(1)))
		see(micro(h.Max()))
	}
	if high == 0 {
		return
	}
	for _, g := range s.latencyGates() {
		see(g.Threshold)
	}
	s.lowest, s.highest = low, high
}

// A result may come from anywhere. What no run measures is not drawn, so that
// one absurd figure doesn't cost the others their scale: times beyond a thousand
// years, negative values, sizes beyond a petabyte.
const (
	farthest = 1e3 * 365 * 86_400
	largest  = 1e15
)

func plausible(v float64) bool { return v >= 0 && v <= largest }

func micro(v int64) float64 { return float64(v) / 1e6 }

// line makes one from the intervals of arm, each at its middle; get returns nil
// for "no sample".
func (s *source) line(arm string, get func(result.Interval) *float64) []point {
	list := s.intervals[arm]
	pts := make([]point, 0, len(list))
	before := 0.0
	for _, in := range list {
		p := point{(before + in.T) / 2, math.NaN()}
		before = in.T
		if v := get(in); v != nil && plausible(*v) {
			p.y = *v
		}
		pts = append(pts, p)
	}
	return pts
}

// perSecond makes a line of counts divided by the length of their intervals.
func (s *source) perSecond(arm string, get func(result.Interval) int64) []point {
	list := s.intervals[arm]
	pts := make([]point, 0, len(list))
	before := 0.0
	for _, in := range list {
		p := point{(before + in.T) / 2, math.NaN()}
		if length := in.T - before; length > 0 && in.Stage != pause {
			p.y = float64(get(in)) / length
		}
		before = in.T
		pts = append(pts, p)
	}
	return pts
}

// gates returns the written gates on any of the metrics, one per threshold; the
// names of those at the same place are joined.
func (s *source) gates(keep func(result.Gate) bool) []bound {
	var out []bound
	for _, g := range s.r.Gates {
		if g.Drill == 0 && keep(g) && plausible(g.Threshold) {
			out = addBound(out, bound{name: g.Gate, at: g.Threshold})
		}
	}
	return out
}

func addBound(list []bound, b bound) []bound {
	b.name = plaintext.Line(b.name)
	for i, other := range list {
		if other.at == b.at && other.until == b.until {
			if !slices.Contains(strings.Split(other.name, " · "), b.name) {
				list[i].name += " · " + b.name
			}
			return list
		}
	}
	return append(list, b)
}

func (s *source) latencyGates() []result.Gate {
	var out []result.Gate
	for _, g := range s.r.Gates {
		if g.Drill == 0 && strings.HasSuffix(g.Metric, "_latency") && g.Unit == "s" && g.Threshold >= 1e-9 && g.Threshold <= 1e9 {
			out = append(out, g)
		}
	}
	return out
}
