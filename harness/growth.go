package harness

import (
	"context"
	"math"
	"net/url"
	"sync"
	"time"

	"phasegate/harness/gate"
	"phasegate/harness/probe"
	"phasegate/harness/stat"
	"phasegate/reports/result"
)

// claimEvery is how often a system is asked for its own metrics. An answer of
// the optimizer costs it about a millisecond of CPU time and stops nothing
// (runtime/metrics reads without halting the program): 0.02 % of one CPU.
const claimEvery = 5 * time.Second

// claims keeps what a system last said of itself. A nil one has nothing to say.
type claims struct {
	metrics *probe.Metrics
	every   time.Duration // it is asked

	mu   sync.Mutex
	last probe.Claims
	when time.Duration // on the timeline's clock
}

// newClaims returns nil where there is no address to ask.
func newClaims(address *url.URL, every time.Duration) *claims {
	if address == nil {
		return nil
	}
	return &claims{metrics: probe.NewMetrics(address), every: every}
}

// start asks from now on, beside the watch, which must not wait for an answer.
// The function returned ends that.
func (c *claims) start(ctx context.Context, clock func() time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	asking.Go(func() {
		defer c.metrics.Close()
		ticker := time.NewTicker(c.every)
		defer ticker.Stop()
		for {
			// What can't be read is left out: the last answer grows stale.
			if got, err := c.metrics.Read(ctx); err == nil {
				c.mu.Lock()
				c.last, c.when = got, clock()
				c.mu.Unlock()
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		asking.Wait()
	}
}

// at is what holds at that time: the last answer, until two more are overdue.
func (c *claims) at(now time.Duration) probe.Claims {
	if c == nil {
		return probe.Claims{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now-c.when > 2*c.every {
		return probe.Claims{}
	}
	return c.last
}

// growth is what an arm's steady state tells of its memory; nil where it wasn't
// sampled or no line can be fitted.
func (r *record) growth(name string) *result.Growth {
	w := r.data.Windows[name]
	if r.data.Missing[name]["memory_growth_rate"] != "" {
		return nil
	}
	g, missing := gate.MemoryGrowth(&w, r.plan.Confidence)
	if missing != "" {
		return nil
	}
	slope := asSlope(g.PerHour)
	out := &result.Growth{
		Slope: slope.Value, Low: slope.Low, High: slope.High, Confidence: r.plan.Confidence,
		Troughs: g.Troughs, Duration: g.Span.Seconds(), Rate: g.Rate,
		Line: []result.GrowthPoint{{T: g.From.At.Seconds(), Bytes: g.From.Bytes}, {T: g.To.At.Seconds(), Bytes: g.To.Bytes}},
	}
	if !math.IsInf(g.Detectable, 0) {
		out.Detectable = &g.Detectable
	}
	if e, ok := g.PerHourAt(g.Rate); ok {
		million, hourly := asSlope(*g.PerMillion), asSlope(e)
		out.PerMillion, out.Extrapolated = &million, &hourly
	}
	if p := g.Parts; p != nil {
		out.Parts = &result.GrowthParts{LiveHeap: asPart(p.LiveHeap), CachePayload: asPart(p.CachePayload), Rest: asPart(p.Rest)}
	}
	return out
}

func asSlope(e stat.Estimate) result.Slope {
	s := result.Slope{Value: &e.Value}
	if e.Bounded {
		s.Low, s.High = &e.Low, &e.High
	}
	return s
}

func asPart(p *gate.GrowthPart) *result.GrowthPart {
	if p == nil {
		return nil
	}
	return &result.GrowthPart{Bytes: p.Bytes, Slope: asSlope(p.PerHour)}
}
