package result

import "slices"

// Growth is how a system's resident memory grew in the steady state: a line
// through its troughs. Slopes are in bytes per hour where nothing else is said;
// their bounds are one-sided at Confidence each, and nil where the sample has none.
type Growth struct {
	Slope      *float64 `json:"slope"`
	Low        *float64 `json:"low"`
	High       *float64 `json:"high"`
	Confidence float64  `json:"confidence"`
	Detectable *float64 `json:"detectable"` // the smallest growth that this duration tells from none, with 90 % power
	Troughs    int      `json:"troughs"`    // that the line is fitted to
	Duration   float64  `json:"duration"`   // seconds that memory was sampled for

	// PerMillion is in bytes per million finished requests; nil where none
	// finished. Extrapolated is that at Rate, the finished requests per second of
	// this phase: an hourly figure for a system whose memory grows with requests.
	PerMillion   *Slope  `json:"per_million_requests,omitempty"`
	Extrapolated *Slope  `json:"extrapolated_per_hour,omitempty"`
	Rate         float64 `json:"rate"`

	Line  []GrowthPoint `json:"line"` // ends of the fitted line, drawn in the memory plot
	Parts *GrowthParts  `json:"parts,omitempty"`
}

// Slope is an estimate with its bounds.
type Slope struct {
	Value *float64 `json:"value"`
	Low   *float64 `json:"low"`
	High  *float64 `json:"high"`
}

// GrowthPoint is a place on a line: seconds on the timeline's clock, bytes.
type GrowthPoint struct {
	T     float64 `json:"t"`
	Bytes float64 `json:"bytes"`
}

// GrowthParts are parts of resident memory by what the system's own metrics
// claim, at the troughs. LiveHeap and Rest add up to resident memory;
// CachePayload is part of LiveHeap. nil where nothing was claimed.
type GrowthParts struct {
	LiveHeap     *GrowthPart `json:"live_heap"`
	CachePayload *GrowthPart `json:"cache_payload"`
	Rest         *GrowthPart `json:"rest"`
}

// GrowthPart is one part: its size at the end, and its slope per hour.
type GrowthPart struct {
	Bytes float64 `json:"bytes"`
	Slope
}

// clone copies all that each hands out.
func (g *Growth) clone() *Growth {
	c := *g
	c.Line = slices.Clone(g.Line)
	for _, s := range []**Slope{&c.PerMillion, &c.Extrapolated} {
		if *s != nil {
			copied := **s
			*s = &copied
		}
	}
	if g.Parts != nil {
		parts := *g.Parts
		for _, p := range []**GrowthPart{&parts.LiveHeap, &parts.CachePayload, &parts.Rest} {
			if *p != nil {
				copied := **p
				*p = &copied
			}
		}
		c.Parts = &parts
	}
	return &c
}

// each yields every optional figure with its name.
func (g *Growth) each(yield func(name string, p **float64)) {
	yield("slope", &g.Slope)
	yield("low", &g.Low)
	yield("high", &g.High)
	yield("detectable", &g.Detectable)
	slope := func(name string, s *Slope) {
		if s != nil {
			yield(name+".value", &s.Value)
			yield(name+".low", &s.Low)
			yield(name+".high", &s.High)
		}
	}
	slope("per_million_requests", g.PerMillion)
	slope("extrapolated_per_hour", g.Extrapolated)
	if g.Parts != nil {
		part := func(name string, p *GrowthPart) {
			if p != nil {
				slope("parts."+name, &p.Slope)
			}
		}
		part("live_heap", g.Parts.LiveHeap)
		part("cache_payload", g.Parts.CachePayload)
		part("rest", g.Parts.Rest)
	}
}
