package gate

import (
	"fmt"
	"math"
	"sort"
	"strings"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
	"phasegate/harness/timeline"
)

// How growth of memory is read. Resident memory of a collected heap is a
// saw-tooth: what remains in use is its troughs, one per stretch of ten
// seconds, wider ones where a long run would have more than 200 of them, and
// narrower ones where a short run would have fewer than ten.
const (
	troughWidth = 10 * time.Second
	minTroughs  = 10
	maxTroughs  = 200

	// leastSpan is what a verdict needs at least: a Go program that allocates
	// little is collected every two minutes (runtime.forcegcperiod), and a
	// shorter look may see nothing but the rise between two collections.
	leastSpan = 5 * time.Minute

	// memoryStep is the largest piece in which memory becomes resident at once:
	// a transparent huge page of 2 MiB. A leak of less than a piece per run may
	// show as no growth at all, or as a whole piece; so every bound is one piece
	// per run further out than the noise alone says.
	memoryStep = 2 << 20

	// power is the probability with which a slope that is called detectable
	// is told from none.
	power = 0.9
)

// memoryFit is a line through the troughs of resident memory: bytes over hours.
type memoryFit struct {
	stat.Fit
	level   float64       // confidence of its bounds, memoryStep included
	troughs []stat.Point  // hours on the timeline's clock, bytes
	span    time.Duration // that memory was sampled for
}

// slopeOf fits the growth of resident memory in bytes per hour.
func slopeOf(m scenario.Metric, w *timeline.Window, level float64) (f memoryFit, missing string) {
	if m.Name != "memory_growth_rate" {
		return f, notMeasured(m)
	}
	return fitMemory(w, level)
}

func fitMemory(w *timeline.Window, level float64) (f memoryFit, missing string) {
	points := make([]stat.Point, 0, len(w.Resources))
	for _, r := range w.Resources {
		points = append(points, stat.Point{X: r.At.Hours(), Y: float64(r.Resident)})
	}
	if len(points) == 0 {
		return f, "the system's memory was not sampled"
	}
	n := len(points)
	f.level, f.span = level, w.Resources[n-1].At-w.Resources[0].At
	f.span += f.span / time.Duration(max(n-1, 1)) // each sample stands for an interval
	width := max(min(troughWidth, f.span/minTroughs), f.span/maxTroughs)
	f.troughs = stat.Troughs(points, width.Hours())
	fit, ok := stat.Slope(f.troughs, level)
	if !ok {
		return f, fmt.Sprintf("memory was sampled for %s, too short for a slope", formatSeconds(f.span.Seconds()))
	}
	f.Fit = fit
	f.widen(&f.Slope, f.span.Hours())
	return f, ""
}

// widen moves bounds out by one piece of memory over the length of X.
func (memoryFit) widen(e *stat.Estimate, length float64) {
	if e.Bounded && length > 0 {
		e.Low -= memoryStep / length
		e.High += memoryStep / length
	}
}

// detectable is the smallest growth, in bytes per hour, that memory sampled for
// d at the present noise tells from none: with the error of a slope falling
// with the power 3/2 of its duration (Weatherhead et al. 1998, "Factors
// affecting the detection of trends", J. Geophys. Res. 103), and a piece of
// memory over that time.
func (f memoryFit) detectable(d time.Duration) float64 {
	return f.Fit.Detectable(f.level, power)*math.Pow(f.span.Seconds()/d.Seconds(), 1.5) + memoryStep/d.Hours()
}

// distance is how far a bound would lie from the slope after d.
func (f memoryFit) distance(d time.Duration) float64 {
	noise := max(f.Slope.High-f.Slope.Value-memoryStep/f.span.Hours(), 0)
	return noise*math.Pow(f.span.Seconds()/d.Seconds(), 1.5) + memoryStep/d.Hours()
}

// quiet is how far a bound lies from the slope after d where memory has no noise
// at all. So it is the least that a bound needs, and all that is known before
// anything was measured.
func quiet(d time.Duration) float64 { return memoryStep / d.Hours() }

// until is the shortest time in whole seconds, from leastSpan on, after which a
// reach that falls with time is below the limit; ok is false if that takes more
// than ten years. Plans and runs go by it.
func until(reach func(time.Duration) float64, limit float64) (d time.Duration, ok bool) {
	least, most := int(leastSpan/time.Second), int(10*365*24*time.Hour/time.Second)
	i := sort.Search(most-least, func(i int) bool { return reach(time.Duration(least+i)*time.Second) < limit })
	return time.Duration(least+i) * time.Second, i < most-least
}

func (c claim) slope() Judgement {
	f, missing := slopeOf(c.Metric, &c.window, c.level)
	if missing != "" {
		j := inconclusive(missing)
		if len(c.window.Resources) > 0 {
			j.need = c.least(f)
		}
		return j
	}
	j := Judgement{Value: &f.Slope.Value, Samples: int64(len(f.troughs)), Verdict: Inconclusive}
	if !f.Slope.Bounded || f.span < leastSpan {
		j.Reason, j.need = c.tooShort(f)
		return j
	}
	j.Low, j.High = &f.Slope.Low, &f.Slope.High
	j.Verdict = decide(c.Condition, f.Slope.Low, f.Slope.High)
	if j.Verdict == Inconclusive && f.detectable(f.span) > math.Abs(c.Threshold) && c.Threshold != 0 {
		var short string
		short, j.need = c.tooShort(f)
		if d, ok := until(f.distance, math.Abs(c.Threshold-f.Slope.Value)); !ok {
			j.need.text += " if there is no growth; a slope as close to the threshold as the present one isn't told from it by any sensible length"
		} else if quickest, _ := until(f.detectable, math.Abs(c.Threshold)); d > quickest {
			j.need.text += " if there is no growth"
			slower := c.needLength("", d-f.span, " at the present slope and noise")
			j.need = need{text: j.need.text + ", " + strings.TrimPrefix(slower.text, "need "), requests: slower.requests}
		}
		j.Reason = fmt.Sprintf("%s is %s, between %s and %s; %s; %s", c.Metric.Name, c.format(f.Slope.Value), c.format(f.Slope.Low), c.format(f.Slope.High), c.asks(), short)
	} else {
		c.explainBounds(&j, func(float64) need {
			d, ok := until(f.distance, math.Abs(c.Threshold-f.Slope.Value))
			if !ok {
				return need{text: "so close to the threshold, no run of a sensible length decides it"}
			}
			return c.needLength("", d-f.span, " at the present slope and noise")
		})
	}
	if j.Verdict != Pass {
		j.Reason += f.slowing() + f.caching(&c.window)
	}
	return j
}

// tooShort says from which length on growth of the threshold is told from none,
// and what is lacking.
func (c claim) tooShort(f memoryFit) (reason string, lacking need) {
	sampled := "memory was sampled for " + formatLength(f.span)
	limit := math.Abs(c.Threshold)
	if limit == 0 || !f.Slope.Bounded {
		return sampled + ", too short to bound a slope", c.least(f)
	}
	d, ok := until(f.detectable, limit)
	if !ok {
		return sampled, need{text: fmt.Sprintf("a slope of %s is lost in the present noise whatever the length", c.format(limit))}
	}
	return fmt.Sprintf("%s; a slope of %s can be told from none after about %s at the present noise", sampled, c.format(limit), formatLength(d)),
		c.needLength("about ", d-f.span, "")
}

// least is what a slope needs of which no noise is known yet: what a plan says.
func (c claim) least(f memoryFit) need {
	d, ok := leastLength(c.Threshold)
	if !ok {
		return need{text: "so small a slope is lost in the pieces in which memory becomes resident, whatever the length"}
	}
	return c.needLength("at least ", d-f.span, "")
}

// leastLength is the steady state from which growth of a threshold can be told
// from none, where memory has no noise.
func leastLength(threshold float64) (d time.Duration, ok bool) {
	if threshold == 0 {
		return leastSpan, true
	}
	return until(quiet, math.Abs(threshold))
}

// needLength is so much more of the steady state, and the requests that fall due
// in it.
func (c claim) needLength(about string, d time.Duration, given string) need {
	d = max(d, time.Second)
	n := need{text: fmt.Sprintf("need %s%s more", about, formatLength(d))}
	if c.rate > 0 {
		n.requests = math.Ceil(d.Seconds() * c.rate)
		n.text += fmt.Sprintf(" (%s requests at %s)", formatCount(n.requests), formatUnit(scenario.PerSecond, c.rate))
	}
	n.text += given
	return n
}

// formatLength writes a length of the steady state as plans do, in whole seconds,
// or in minutes from two hours on; rounded up.
func formatLength(d time.Duration) string {
	seconds := int64(math.Ceil(d.Seconds()))
	if seconds < 120 {
		return fmt.Sprintf("%d s", seconds)
	}
	if seconds >= 2*3600 {
		seconds = (seconds + 59) / 60 * 60
	}
	var parts []string
	for _, u := range []struct {
		length int64
		name   string
	}{{3600, "h"}, {60, "m"}, {1, "s"}} {
		if n := seconds / u.length; n > 0 {
			parts = append(parts, formatCount(float64(n))+" "+u.name)
			seconds -= n * u.length
		}
	}
	return strings.Join(parts, " ")
}

// slowing points out growth that is coming to its end: it counts as what it is,
// and a reader who knows of a cache that fills up knows what to change.
func (f memoryFit) slowing() string {
	n := len(f.troughs)
	first, ok1 := stat.Slope(f.troughs[:n/2], f.level)
	second, ok2 := stat.Slope(f.troughs[n/2:], f.level)
	if n < 2*minTroughs || !ok1 || !ok2 {
		return ""
	}
	half := f.span.Hours() / 2
	early, late := first.Slope.Value*half, second.Slope.Value*half
	if early < 2*memoryStep || early < 3*late {
		return ""
	}
	return fmt.Sprintf("; it grew by %s in the first half and by %s in the second: a cache that fills up does so, and if it is one, a longer warm-up or prewarm takes that out",
		formatBytes(early), formatBytes(late))
}

// caching says how much of the growth the system itself puts into its cache.
func (f memoryFit) caching(w *timeline.Window) string {
	p := f.parts(w, w.Resources[len(w.Resources)-1].At)
	if p == nil || p.CachePayload == nil {
		return ""
	}
	grown, cached := f.Slope.Value*f.span.Hours(), p.CachePayload.PerHour.Value*f.span.Hours()
	if cached < memoryStep || cached < grown/2 {
		return ""
	}
	return fmt.Sprintf("; by its own metrics, on which nothing rests, its cache grew by %s while all of it grew by %s", formatBytes(cached), formatBytes(grown))
}
