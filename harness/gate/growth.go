package gate

import (
	"time"

	"phasegate/harness/stat"
	"phasegate/harness/timeline"
)

// Growth is what a steady state tells of a system's memory, beyond a verdict.
// The slopes have one-sided bounds at the confidence asked for where Bounded.
type Growth struct {
	PerHour    stat.Estimate // bytes per hour
	Detectable float64       // bytes per hour: the smallest growth that the span tells from none, with 90 % power
	Troughs    int           // that the line is fitted to
	Span       time.Duration // that memory was sampled for
	From, To   GrowthPoint   // ends of the line

	// PerMillion is the growth in bytes per million finished requests, since
	// most leaks go with requests and not with time; nil where none finished.
	PerMillion *stat.Estimate
	Rate       float64 // finished requests per second in the same window

	Parts *GrowthParts // nil where the system says nothing of its memory
}

// GrowthPoint is a place on the fitted line.
type GrowthPoint struct {
	At    time.Duration // on the timeline's clock
	Bytes float64
}

// GrowthParts are the parts of resident memory by the system's own metrics, all
// taken at the troughs of resident memory: LiveHeap and Rest add up to it, in
// bytes and in slope. What is stored in the cache lies on the live heap, so
// CachePayload is a part of LiveHeap and not a third one beside it.
type GrowthParts struct {
	LiveHeap, Rest *GrowthPart
	CachePayload   *GrowthPart
}

// GrowthPart is one part of resident memory.
type GrowthPart struct {
	Bytes   float64       // at the end of its line
	PerHour stat.Estimate // bytes per hour
}

// PerHourAt is the growth per hour at so many requests per second if memory
// grows with requests: an extrapolation from PerMillion.
func (g Growth) PerHourAt(rate float64) (e stat.Estimate, ok bool) {
	if g.PerMillion == nil {
		return e, false
	}
	perHour := rate * 3600 / 1e6
	e = *g.PerMillion
	e.Value, e.Low, e.High = e.Value*perHour, e.Low*perHour, e.High*perHour
	return e, true
}

// MemoryGrowth fits the growth of a system's memory in a window. missing says
// why it can't.
func MemoryGrowth(w *timeline.Window, confidence float64) (g Growth, missing string) {
	f, missing := fitMemory(w, confidence)
	if missing != "" {
		return g, missing
	}
	first, last := w.Resources[0].At, w.Resources[len(w.Resources)-1].At
	g = Growth{
		PerHour: f.Slope, Troughs: len(f.troughs), Span: f.span,
		From: GrowthPoint{first, f.At(first.Hours())}, To: GrowthPoint{last, f.At(last.Hours())},
		Detectable: f.detectable(f.span),
	}
	if w.Seconds > 0 {
		g.Rate = float64(w.Requests) / w.Seconds
	}
	g.PerMillion = f.perMillion(w)
	g.Parts = f.parts(w, last)
	return g, ""
}

// perMillion fits the troughs to the requests finished by then.
func (f memoryFit) perMillion(w *timeline.Window) *stat.Estimate {
	points := make([]stat.Point, 0, len(f.troughs))
	var before int64 // finished in the intervals before number i
	i := 0
	for _, t := range f.troughs {
		for i < len(w.Intervals) && w.Intervals[i].End.Hours() <= t.X {
			before += w.Intervals[i].Requests
			i++
		}
		done := float64(before)
		if i < len(w.Intervals) {
			in := &w.Intervals[i]
			done += float64(in.Requests) * max(0, t.X-in.Start.Hours()) / (in.End - in.Start).Hours()
		}
		points = append(points, stat.Point{X: done / 1e6, Y: t.Y})
	}
	fit, ok := stat.Slope(points, f.level)
	if !ok {
		return nil
	}
	f.widen(&fit.Slope, float64(w.Requests)/1e6)
	return &fit.Slope
}

// parts fits what the system says of its memory, at the troughs. Where it said
// nothing at half of them or more, there are none.
func (f memoryFit) parts(w *timeline.Window, end time.Duration) *GrowthParts {
	var live, payload, rest []stat.Point
	i := 0
	for _, t := range f.troughs {
		for w.Resources[i].At.Hours() < t.X {
			i++
		}
		r := &w.Resources[i]
		if r.LiveHeap > 0 {
			live = append(live, stat.Point{X: t.X, Y: float64(r.LiveHeap)})
			rest = append(rest, stat.Point{X: t.X, Y: t.Y - float64(r.LiveHeap)})
		}
		if r.CachePayload > 0 {
			payload = append(payload, stat.Point{X: t.X, Y: float64(r.CachePayload)})
		}
	}
	part := func(points []stat.Point) *GrowthPart {
		if 2*len(points) < len(f.troughs) {
			return nil
		}
		fit, ok := stat.Slope(points, f.level)
		if !ok {
			return nil
		}
		return &GrowthPart{Bytes: fit.At(end.Hours()), PerHour: fit.Slope}
	}
	p := GrowthParts{LiveHeap: part(live), Rest: part(rest), CachePayload: part(payload)}
	if p == (GrowthParts{}) {
		return nil
	}
	return &p
}
