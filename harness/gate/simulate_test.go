package gate

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// A family is a way in which a system may be good and bad by turns. Its series
// says, interval by interval, by which factor things are worse than on average:
// its mean is exactly 1, so that the truth of a run is known.
type family struct {
	name string
	// series of so many intervals; look is how many of them one look spans.
	series func(rng *rand.Rand, length, look int) []float64
	// bimodal latency: hits of a millisecond, and misses of the upstream's 464.
	bimodal bool
}

// families are the ones that verdicts must be calibrated for. A burst lasts as
// many intervals as it says on average (geometrically), and a look meets ten of
// them or more.
var families = []family{
	{name: "independent", series: even},
	{name: "AR(1), 0.5", series: autoregressive(0.5, 0.3)},
	{name: "AR(1), 0.7", series: autoregressive(0.7, 0.5)},
	{name: "bimodal", series: even, bimodal: true},
	{name: "bursts of 1", series: bursts(0.18, 1, 4)},
	{name: "bursts of 3", series: bursts(0.24, 3, 2)},
	{name: "drift up", series: drift(1)},
	{name: "drift down", series: drift(-1)},
	{name: "slow wave", series: wave},
	{name: "one change", series: change},
}

func even(_ *rand.Rand, length, _ int) []float64 {
	f := make([]float64, length)
	for i := range f {
		f[i] = 1
	}
	return f
}

// autoregressive lets the logarithm vary as an AR(1) process: rho of its
// deviation is carried over to the next interval.
func autoregressive(rho, sigma float64) func(*rand.Rand, int, int) []float64 {
	return func(rng *rand.Rand, length, _ int) []float64 {
		f := make([]float64, length)
		x := rng.NormFloat64()
		for i := range f {
			x = rho*x + math.Sqrt(1-rho*rho)*rng.NormFloat64()
			f[i] = math.Exp(sigma*x - sigma*sigma/2)
		}
		return f
	}
}

// bursts begin in an interval with the given probability (scaled, so that a
// longer look meets no more of them than one of 65 intervals), and are the given
// factor above the mean; what lies between makes up for them.
func bursts(start, length, factor float64) func(*rand.Rand, int, int) []float64 {
	return func(rng *rand.Rand, n, look int) []float64 {
		scale := float64(look) / 65
		begin, end := start/scale, 1/(length*scale)
		if scale < 1 {
			begin, end = start, 1/length
		}
		inside := begin / (begin + end)
		f := make([]float64, n)
		on := rng.Float64() < inside
		for i := range f {
			if f[i] = (1 - inside*factor) / (1 - inside); on {
				f[i] = factor
			}
			if on {
				on = rng.Float64() >= end
			} else {
				on = rng.Float64() < begin
			}
		}
		return f
	}
}

// drift rises (or falls) steadily by half of the mean to either side in one
// look, and goes back in the next: every look's mean is 1.
func drift(sign float64) func(*rand.Rand, int, int) []float64 {
	return func(_ *rand.Rand, length, look int) []float64 {
		f := make([]float64, length)
		for i := range f {
			d := (2*float64(i%look) + 1 - float64(look)) / float64(look) // −1 to 1
			if i/look%2 == 1 {
				d = -d
			}
			f[i] = 1 + sign*d/2
		}
		return f
	}
}

// wave is a sine of one period per look, in any phase.
func wave(rng *rand.Rand, length, look int) []float64 {
	f := make([]float64, length)
	phase := 2 * math.Pi * rng.Float64()
	for i := range f {
		f[i] = 1 + 0.5*math.Sin(phase+2*math.Pi*float64(i)/float64(look))
	}
	return f
}

// change goes over from one level to a higher one, or from that to the lower, once
// in a look and back in the next: every look's mean is 1. The lower one is next to
// nothing, so that a change explains nearly all of a run, and lasts for a tenth to
// three quarters of a look, so that no share is above 1.
func change(rng *rand.Rand, length, look int) []float64 {
	f := make([]float64, length)
	at := look/10 + rng.IntN(look*3/4-look/10)
	low := 0.1 * rng.Float64()
	high := (float64(look) - low*float64(at)) / float64(look-at)
	down := rng.IntN(2)
	for i := range f {
		f[i] = low
		if in := i % look; i/look%2 == down && in >= at || i/look%2 != down && in < look-at {
			f[i] = high
		}
	}
	return f
}

// The metrics' levels at a badness of 1, and so the thresholds of the gates
// that are calibrated.
const (
	perSecond   = 120    // requests due
	hitTime     = 0.001  // seconds
	missTime    = 0.464  //
	missShare   = 0.05   // of a bimodal system
	wholeMean   = 0.0241 // mean latency where it isn't bimodal
	usedCPU     = 0.2
	slowLatency = 20 * ms
)

// calibrated lists a gate for every estimator, each at its own truth.
var calibrated = []struct {
	gate string
	bad  float64 // share of requests that are bad at a badness of 1
}{
	{"error_rate < 0.5%", 0.005},
	{"availability > 99.5%", 0.005},
	{"cache_hit_ratio > 80%", 0.2},
	{"p95_latency < 10ms", 0.05},
	{"p99_latency < 10ms", 0.01},
	{"mean_latency < 24.15ms", missShare},
	{"throughput > 114/s", 0.05},
	{"cpu < 20%", 0.05},
	{"latency_improvement > 20", missShare},
}

// meanOf is the expected latency of a request at a badness f.
func meanOf(f float64) float64 { return hitTime + missShare*f*(missTime-hitTime) }

// simulated makes the data of a run in which every interval is as bad as f says,
// times level, for one gate: bad requests are all that its metric counts. Means
// vary with f as well, and within an interval as requests do.
func simulated(rng *rand.Rand, f []float64, level, bad float64, bimodal bool) Data {
	const limit = 10 * ms
	length := len(f)
	w := timeline.Window{
		Seconds: float64(length), To: time.Duration(length) * time.Second,
		Limits: []time.Duration{limit}, Over: map[time.Duration]int64{},
		Latency: anyLatency, Intervals: make([]timeline.Interval, length), HaveLedger: true,
	}
	old := timeline.Window{Seconds: w.Seconds, Intervals: make([]timeline.Interval, length)}
	for i, factor := range f {
		k := binomial(rng, perSecond, min(level*factor*bad, 0.99))
		in := &w.Intervals[i]
		in.Start, in.End = time.Duration(i)*time.Second, time.Duration(i+1)*time.Second
		in.Requests, in.Offered, in.Proven = perSecond, perSecond, perSecond
		in.Cacheable, in.CacheableProven = perSecond, perSecond
		in.Class[timeline.OK], in.Class[timeline.ServerError] = perSecond-k, k
		in.GoodEnded = perSecond - k
		in.Over, in.HaveLedger, in.Ledger.Reads = []int64{k}, true, k
		if bimodal {
			in.LatencySum = float64(perSecond-k)*hitTime + missTime*(float64(k)+0.1*math.Sqrt(float64(k))*rng.NormFloat64())
		} else {
			in.LatencySum = perSecond * meanOf(level*factor) * math.Exp(0.1*rng.NormFloat64()-0.005)
		}
		w.Requests, w.Offered, w.Proven = w.Requests+perSecond, w.Offered+perSecond, w.Proven+perSecond
		w.Cacheable, w.CacheableProven = w.Cacheable+perSecond, w.CacheableProven+perSecond
		w.Class[timeline.OK] += perSecond - k
		w.Class[timeline.ServerError] += k
		w.Over[limit] += k
		w.Ledger.Reads += k
		w.Resources = append(w.Resources, timeline.Sample{At: in.End, Span: time.Second,
			Usage: timeline.Usage{CPU: usedCPU * level * factor * math.Exp(0.1*rng.NormFloat64()-0.005)}})
		before := &old.Intervals[i]
		before.Requests, before.Offered = perSecond, perSecond
		before.LatencySum = perSecond * 20 * meanOf(1) * math.Exp(0.05*rng.NormFloat64()-0.00125)
		old.Requests, old.Offered = old.Requests+perSecond, old.Offered+perSecond
	}
	w.MaxLatency = slowLatency
	return Data{Windows: map[string]timeline.Window{scenario.New: w, scenario.Old: old}}
}

// anyLatency stands for every simulated histogram: what a quantile is claimed to
// be is judged by the counts at the threshold, and only shown from these.
var anyLatency = func() *hdrhistogram.Histogram {
	h := timeline.NewHistogram()
	_ = h.RecordValues(2000, 95)
	_ = h.RecordValues(slowLatency.Microseconds(), 5)
	return h
}()

// upTo is the data of the first so many intervals.
func upTo(d Data, length int) Data {
	cut := Data{Windows: map[string]timeline.Window{}}
	for name, w := range d.Windows {
		c := timeline.Window{
			Seconds: float64(length), To: time.Duration(length) * time.Second, Limits: w.Limits,
			Over: map[time.Duration]int64{}, Latency: anyLatency, HaveLedger: w.HaveLedger,
			Intervals: w.Intervals[:length],
		}
		for i := range c.Intervals {
			in := &c.Intervals[i]
			c.Requests, c.Offered, c.Proven = c.Requests+in.Requests, c.Offered+in.Offered, c.Proven+in.Proven
			c.Cacheable, c.CacheableProven = c.Cacheable+in.Cacheable, c.CacheableProven+in.CacheableProven
			for class, n := range in.Class {
				c.Class[class] += n
			}
			c.Ledger.Reads += in.Ledger.Reads
			for j, n := range in.Over {
				c.Over[c.Limits[j]] += n
			}
		}
		if w.Resources != nil {
			c.Resources = w.Resources[:length]
		}
		c.MaxLatency = w.MaxLatency
		cut.Windows[name] = c
	}
	return cut
}

// binomial draws how many of n are bad, from one bad one to the next: the gaps
// are geometric.
func binomial(rng *rand.Rand, n int, p float64) int64 {
	if p > 0.5 {
		return int64(n) - binomial(rng, n, 1-p)
	}
	k, scale := int64(-1), math.Log1p(-p)
	for at := 0.0; at <= float64(n); k++ {
		at += math.Floor(math.Log(1-rng.Float64())/scale) + 1
	}
	return k
}
