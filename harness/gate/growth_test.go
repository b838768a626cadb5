package gate

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// withRequests gives a window so many finished requests in each second.
func withRequests(w timeline.Window, rate func(second int) int64) timeline.Window {
	for s := range len(w.Resources) {
		in := timeline.Interval{Start: time.Duration(s) * time.Second, End: time.Duration(s+1) * time.Second}
		in.Requests = rate(s)
		w.Requests += in.Requests
		w.Intervals = append(w.Intervals, in)
	}
	return w
}

// A leak of 100 bytes per request, seen at a rate that rises tenfold: per million
// requests it is 100 MB, whatever the hourly slope of that run.
func TestGrowthPerMillionRequests(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(21, 0))
	rate := func(s int) int64 { return 100 + int64(s)*900/1800 }
	bytes := teeth(constant(2), constant(15))(rng, 1800)
	var done int64
	for s := range bytes {
		done += rate(s)
		bytes[s] += 100 * float64(done)
	}
	w := withRequests(growthWindow(bytes), rate)
	g, missing := MemoryGrowth(&w, 0.95)
	if missing != "" || g.PerMillion == nil {
		t.Fatalf("no growth: %q, %+v", missing, g)
	}
	if e := *g.PerMillion; !e.Bounded || e.Low > 100e6 || e.High < 100e6 || math.Abs(e.Value-100e6) > 2e6 {
		t.Errorf("%+v per million requests, want 100 MB", e)
	}
	if mean := float64(done) / 1800; math.Abs(g.Rate-mean) > 1e-6 {
		t.Errorf("rate %g, want %g", g.Rate, mean)
	}
	// At 1,000/s, 3.6 million an hour.
	if e, ok := g.PerHourAt(1000); !ok || math.Abs(e.Value-360e6) > 8e6 || !(e.Low < e.Value && e.Value < e.High) {
		t.Errorf("%+v per hour at 1,000/s, want 360 MB", e)
	}
	if grown := g.To.Bytes - g.From.Bytes; math.Abs(grown-100*float64(done)) > 8e6 || g.To.At-g.From.At != 1799*time.Second {
		t.Errorf("the line rises by %g over %v, want %g", grown, g.To.At-g.From.At, 100*float64(done))
	}
}

// The parts are taken at the troughs, so that heap and rest add up.
func TestGrowthParts(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(22, 0))
	w := growthWindow(leak(rng, teeth(constant(2), constant(15))(rng, 1200), 90e6, 0))
	for s := range w.Resources {
		r := &w.Resources[s]
		r.LiveHeap = 30e6 + int64(60e6*r.At.Hours()) + int64(1e5*rng.NormFloat64())
		r.CachePayload = 20e6
	}
	g, _ := MemoryGrowth(&w, 0.95)
	if g.PerMillion != nil {
		t.Error("growth by requests where none finished")
	}
	p := g.Parts
	if p == nil || p.LiveHeap == nil || p.Rest == nil || p.CachePayload == nil {
		t.Fatalf("parts %+v", p)
	}
	if sum := p.LiveHeap.PerHour.Value + p.Rest.PerHour.Value; math.Abs(sum-g.PerHour.Value) > 1 {
		t.Errorf("live heap %g and rest %g per hour are not %g", p.LiveHeap.PerHour.Value, p.Rest.PerHour.Value, g.PerHour.Value)
	}
	if sum := p.LiveHeap.Bytes + p.Rest.Bytes; math.Abs(sum-g.To.Bytes) > 1 {
		t.Errorf("live heap %g and rest %g are not %g", p.LiveHeap.Bytes, p.Rest.Bytes, g.To.Bytes)
	}
	if v := p.LiveHeap.PerHour; math.Abs(v.Value-60e6) > 2e6 || v.Low > 60e6 || v.High < 60e6 {
		t.Errorf("live heap %+v, want 60 MB/hour", v)
	}
	if v := p.CachePayload; v.Bytes != 20e6 || v.PerHour.Value != 0 {
		t.Errorf("payload %+v", v)
	}
	// A cache that grew is named; the verdict is the same.
	if j := Judge(gateOn(t, "memory_growth_rate < 10MB/hour"), Data{Windows: map[string]timeline.Window{scenario.New: w}}, Look{}); j.Verdict != Fail || strings.Contains(j.Reason, "its cache") {
		t.Errorf("a cache of constant size: %s: %s", j.Verdict, j.Reason)
	}
	for s := range w.Resources {
		w.Resources[s].CachePayload += int64(50e6 * w.Resources[s].At.Hours())
	}
	if j := Judge(gateOn(t, "memory_growth_rate < 10MB/hour"), Data{Windows: map[string]timeline.Window{scenario.New: w}}, Look{}); j.Verdict != Fail || !strings.Contains(j.Reason, "its cache grew by 16.7 MB while all of it grew by") {
		t.Errorf("a cache that grew: %s: %s", j.Verdict, j.Reason)
	}
	// Silence is not a part of 0 bytes.
	for s := range w.Resources {
		w.Resources[s].CachePayload = 0
		if s > 200 {
			w.Resources[s].LiveHeap = 0
		}
	}
	if g, _ := MemoryGrowth(&w, 0.95); g.Parts != nil {
		t.Errorf("parts of a system that stopped telling: %+v", g.Parts)
	}
}

func TestGrowthMissing(t *testing.T) {
	t.Parallel()
	if _, missing := MemoryGrowth(&timeline.Window{}, 0.95); missing != "the system's memory was not sampled" {
		t.Errorf("missing: %q", missing)
	}
	w := growthWindow([]float64{1})
	if _, missing := MemoryGrowth(&w, 0.95); missing == "" {
		t.Error("a slope from one sample")
	}
	w = growthWindow([]float64{1e6, 2e6, 1e6})
	g, missing := MemoryGrowth(&w, 0.95)
	if missing != "" || g.PerHour.Bounded || !math.IsInf(g.Detectable, 1) {
		t.Errorf("three samples: %q, %+v", missing, g)
	}
}
