package gate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// memory simulates what a level system holds, in bytes by second, on top of
// which a test may put growth.
type memory func(rng *rand.Rand, seconds int) []float64

// teeth is a saw-tooth whose teeth last from shortest to longest seconds (each run
// draws its own mean, and each tooth ± 30 % of it) and are up to 20 MB high.
func teeth(shortest, longest func(seconds float64) float64) memory {
	return func(rng *rand.Rand, seconds int) []float64 {
		low, high := shortest(float64(seconds)), longest(float64(seconds))
		period := low * math.Pow(high/low, rng.Float64())
		height := 2e6 + 18e6*rng.Float64()
		bytes := make([]float64, seconds)
		start := -period * rng.Float64()
		length, peak := period, height
		for s := range bytes {
			for float64(s) >= start+length {
				start += length
				length, peak = period*(0.7+0.6*rng.Float64()), height*(0.7+0.6*rng.Float64())
			}
			bytes[s] = 60e6 + peak*(float64(s)-start)/length + 1e5*rng.NormFloat64()
		}
		return bytes
	}
}

// wandering is a floor that drifts to and fro, forgetting itself after that
// many seconds.
func wandering(fades func(seconds float64) float64) memory {
	return func(rng *rand.Rand, seconds int) []float64 {
		rho, x := math.Exp(-1/fades(float64(seconds))), rng.NormFloat64()
		bytes := make([]float64, seconds)
		for s := range bytes {
			x = rho*x + math.Sqrt(1-rho*rho)*rng.NormFloat64()
			bytes[s] = 60e6 + 2e6*x
		}
		return bytes
	}
}

func constant(v float64) func(float64) float64 { return func(float64) float64 { return v } }
func share(v float64) func(float64) float64    { return func(s float64) float64 { return s * v } }

// growthWindow is what a window holds of memory.
func growthWindow(bytes []float64) timeline.Window {
	length := time.Duration(len(bytes)) * time.Second
	w := timeline.Window{To: length, Seconds: length.Seconds(), Resources: make([]timeline.Sample, len(bytes))}
	for s, b := range bytes {
		w.Resources[s] = timeline.Sample{At: time.Duration(s+1) * time.Second, Span: time.Second, Usage: timeline.Usage{Resident: int64(b)}}
	}
	return w
}

// leak adds growth; in steps of so many bytes where step isn't 0, the first of
// which comes at a random time.
func leak(rng *rand.Rand, bytes []float64, perHour, step float64) []float64 {
	phase := rng.Float64()
	for s := range bytes {
		grown := perHour * float64(s) / 3600
		if step > 0 {
			grown = step * math.Floor(grown/step+phase)
		}
		bytes[s] += grown
	}
	return bytes
}

func judgeMemory(t testing.TB, text string, bytes []float64) Judgement {
	t.Helper()
	return Judge(gateOn(t, text), Data{Windows: map[string]timeline.Window{scenario.New: growthWindow(bytes)}, Rate: map[string]float64{scenario.New: 120}}, Look{})
}

// A system whose memory grows exactly as fast as the gate allows may pass in
// one run of twenty, and fail in one of twenty; so may one without growth under
// a gate of 0.
func TestGrowthCalibration(t *testing.T) {
	t.Parallel()
	const seed = 11
	runs := runsPerRow(t, 80)
	limit := 0.05 + 3*math.Sqrt(0.05*0.95/float64(runs))
	// So large are the heaps that a huge page is nothing beside their noise, but
	// where steps of that size are the noise.
	const large = 50
	for _, tt := range []struct {
		family string
		memory memory
		step   float64
	}{
		{"teeth of 2 s to 1/10 of the run", teeth(constant(2), share(0.1)), 0},
		{"teeth of 20 s to 2 min", teeth(constant(20), constant(120)), 0},
		{"teeth of 1/10 to 1/2.5 of the run", teeth(share(0.1), share(0.4)), 0},
		{"independent troughs", wandering(constant(0.01)), 0},
		{"troughs fade within 10 s", wandering(constant(10)), 0},
		{"troughs fade within 1/24 of the run", wandering(share(1. / 24)), 0},
		{"steps of 2 MiB, nothing else", func(_ *rand.Rand, n int) []float64 { return make([]float64, n) }, 2 << 20},
		{"steps of 2 MiB under teeth", teeth(constant(2), constant(30)), 2 << 20},
	} {
		t.Run(tt.family, func(t *testing.T) {
			t.Parallel()
			decided := 0.0
			for _, seconds := range []int{300, 1200} {
				rng := rand.New(rand.NewPCG(seed, uint64(seconds)))
				scale := 1.0
				if tt.step == 0 {
					scale = large
				}
				for _, perHour := range []float64{0, 10e6 * scale} {
					gate := fmt.Sprintf("memory_growth_rate < %.0fMB/hour", perHour/1e6)
					passes, failures := 0, 0
					for range runs {
						switch j := judgeMemory(t, gate, leak(rng, enlarged(tt.memory(rng, seconds), scale), perHour, tt.step)); j.Verdict {
						case Pass:
							passes++
						case Fail:
							failures++
						}
					}
					p, f := float64(passes)/float64(runs), float64(failures)/float64(runs)
					decided += p + f
					t.Logf("%5d s, %3g MB/hour: false passes %.3f, false failures %.3f of %d", seconds, perHour/1e6, p, f, runs)
					if p > limit || f > limit {
						t.Errorf("seed %d: false passes %.3f, false failures %.3f of %d, want at most %.3f", seed, p, f, runs, limit)
					}
				}
			}
			// A gate that never decides anything would be calibrated too; see
			// TestGrowthPower as well.
			if decided == 0 && tt.step == 0 && runs >= 1000 {
				t.Errorf("seed %d: nothing was ever decided", seed)
			}
		})
	}
}

func enlarged(bytes []float64, factor float64) []float64 {
	for s := range bytes {
		bytes[s] *= factor
	}
	return bytes
}

// What calibration costs: an hour tells ten times the limit, and no growth, from
// the limit nearly always under a busy collector.
func TestGrowthPower(t *testing.T) {
	t.Parallel()
	const runs, seed = 30, 12
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, tt := range []struct {
		perHour float64
		want    Verdict
	}{{0, Pass}, {100e6, Fail}} {
		right := 0
		for range runs {
			if judgeMemory(t, "memory_growth_rate < 10MB/hour", leak(rng, teeth(constant(2), constant(60))(rng, 3600), tt.perHour, 0)).Verdict == tt.want {
				right++
			}
		}
		if right < runs*9/10 {
			t.Errorf("seed %d: %g MB/hour: %s in %d of %d runs", seed, tt.perHour/1e6, tt.want, right, runs)
		}
	}
}

// "A slope of 10 MB/hour can be told from none after about t": after t a system
// without growth passes in most runs, and not long before. It would be nine of
// ten of them, were the noise known; from five minutes it is known roughly.
func TestGrowthNeedIsRight(t *testing.T) {
	t.Parallel()
	const seed = 13
	runs := runsPerRow(t, 50)
	for _, tt := range []struct {
		why    string
		memory memory
		now    int
	}{
		{"independent troughs, from 10 min", wandering(constant(0.01)), 600},
		{"troughs fade within 10 s, from 5 min", wandering(constant(10)), 300},
	} {
		rng := rand.New(rand.NewPCG(seed, 0))
		passed, early, undecided := 0, 0, 0
		var times []float64
		for range runs {
			w := growthWindow(tt.memory(rng, tt.now))
			f, _ := fitMemory(&w, 0.95)
			d, ok := until(f.detectable, 10e6)
			if !ok {
				t.Fatalf("%s: no time at all", tt.why)
			}
			undecided++
			times = append(times, d.Seconds())
			if judgeMemory(t, "memory_growth_rate < 10MB/hour", tt.memory(rng, int(d.Seconds()))).Verdict == Pass {
				passed++
			}
			if judgeMemory(t, "memory_growth_rate < 10MB/hour", tt.memory(rng, int(d.Seconds()/3))).Verdict == Pass {
				early++
			}
		}
		p, e := float64(passed)/float64(undecided), float64(early)/float64(undecided)
		t.Logf("%s: after the time said (%.0f to %.0f s) %.2f pass, after a third of it %.2f", tt.why, sortedAt(times, 0.1), sortedAt(times, 0.9), p, e)
		if p < 0.7 || e > 0.1 {
			t.Errorf("%s, seed %d: after the time said %.2f of %d pass, after a third of it %.2f", tt.why, seed, p, undecided, e)
		}
	}
}

func sortedAt(values []float64, q float64) float64 {
	sorted := append([]float64(nil), values...)
	for i := range sorted {
		for k := i; k > 0 && sorted[k] < sorted[k-1]; k-- {
			sorted[k], sorted[k-1] = sorted[k-1], sorted[k]
		}
	}
	return sorted[int(q*float64(len(sorted)-1))]
}

func TestGrowthReasons(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(14, 0))
	noise := teeth(constant(2), constant(20))
	filling := func(seconds float64) []float64 {
		bytes := noise(rng, 1200)
		for s := range bytes {
			bytes[s] += 60e6 * (1 - math.Exp(-float64(s)/seconds))
		}
		return bytes
	}
	for _, tt := range []struct {
		why, gate string
		bytes     []float64
		verdict   Verdict
		reasons   []string
	}{
		{"30 s decide nothing", "memory_growth_rate < 10MB/hour", noise(rng, 30), Inconclusive,
			[]string{"memory was sampled for 30 s; a slope of 10 MB/hour can be told from none after about ", " at the present noise; need about "}},
		{"not even a blatant leak: a collection may be due", "memory_growth_rate < 10MB/hour", leak(rng, noise(rng, 120), 1e9, 0), Inconclusive, []string{"sampled for 2 m;", "need about"}},
		{"in ten minutes, 10 MB/hour are less than a huge page", "memory_growth_rate < 10MB/hour", make([]float64, 600), Inconclusive,
			[]string{"between -12.6 MB/hour and 12.6 MB/hour", "told from none after about 12 m 35 s"}},
		{"a single sample", "memory_growth_rate < 10MB/hour", make([]float64, 1), Inconclusive, []string{"need at least 12 m 35 s more"}},
		{"a limit of 0 has no slope to be told from none", "memory_growth_rate <= 0MB/hour", make([]float64, 60), Inconclusive, []string{"too short to bound a slope", "need at least 4 m more"}},
		{"a cache that fills up is growth, and named", "memory_growth_rate < 10MB/hour", filling(400), Fail, []string{"in the first half", "a cache that fills up does so", "prewarm"}},
		{"one that filled up at once is no line, and no pass", "memory_growth_rate < 10MB/hour", filling(100), Inconclusive, []string{"in the first half", "prewarm"}},
		{"growth that goes on isn't excused", "memory_growth_rate < 10MB/hour", leak(rng, noise(rng, 1200), 100e6, 0), Fail, []string{"memory_growth_rate is ", "at least"}},
		{"near the limit", "memory_growth_rate < 10MB/hour", leak(rng, make([]float64, 3600), 9e6, 0), Inconclusive, []string{" requests at 120/s) at the present slope and noise"}},
	} {
		j := judgeMemory(t, tt.gate, tt.bytes)
		if j.Verdict != tt.verdict {
			t.Errorf("%s: %s, want %s: %s", tt.why, j.Verdict, tt.verdict, j.Reason)
		}
		for _, part := range tt.reasons {
			if !strings.Contains(j.Reason, part) {
				t.Errorf("%s: the reason lacks %q: %s", tt.why, part, j.Reason)
			}
		}
		if tt.why == "growth that goes on isn't excused" && strings.Contains(j.Reason, "cache") {
			t.Errorf("%s: %s", tt.why, j.Reason)
		}
	}
}
