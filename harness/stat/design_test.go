package stat

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func TestDesignEffect(t *testing.T) {
	t.Parallel()
	spread := func(m int, n float64, k func(i int) float64) []Count {
		counts := make([]Count, m)
		for i := range counts {
			counts[i] = Count{k(i), n}
		}
		return counts
	}
	for _, tt := range []struct {
		why       string
		counts    []Count
		low, high float64
	}{
		{"nothing", nil, 1, 1},
		{"too few intervals to tell", spread(9, 100, func(i int) float64 { return float64(i % 2 * 50) }), 1, 1},
		{"a single failure says nothing of clusters", spread(65, 120, func(i int) float64 { return float64(i / 64) }), 1, 1},
		{"nor does a single success", spread(65, 120, func(i int) float64 { return 120 - float64(i/64) }), 1, 1},
		{"more regular than chance counts as chance", spread(65, 120, func(int) float64 { return 6 }), 1, 1},
		// All 100 of a second fail in every tenth second: the second is the
		// unit, so the effect is about 100 requests; not below.
		{"whole seconds fail", spread(100, 100, func(i int) float64 { return float64(i%10/9) * 100 }), 90, 140},
		// The same failures one per request, evenly mixed by chance, stay near 1.
		{"the same share, spread", spread(100, 100, func(i int) float64 { return float64(4 + i*7%13) }), 1, 2.5},
		// 20 seconds in a row of 100 fail: one event.
		{"one long outage", spread(100, 100, func(i int) float64 { return float64(i/20/4) * 100 }), 500, 3500},
		{"empty intervals aren't clean ones", spread(65, 0, func(int) float64 { return 0 }), 1, 1},
	} {
		if got := DesignEffect(tt.counts, 0.95); !(got >= tt.low && got <= tt.high) {
			t.Errorf("%s: effect %.2f, want %g to %g", tt.why, got, tt.low, tt.high)
		}
	}
	if got := DesignEffect(spread(65, 100, func(i int) float64 { return float64(i % 2 * 50) }), math.NaN()); got != 1 {
		t.Errorf("effect at no confidence = %g, want 1", got)
	}
}

// Small calibration: runs of 65 intervals whose true share is known exactly.
// A one-sided 95 % bound may miss it in 5 % of them, and a bound that ignores
// clustering is seen to miss it far more often, so the test can fail.
func TestShareBoundsCalibrated(t *testing.T) {
	t.Parallel()
	const runs, m, n, seed = 300, 65, 120, 11
	limit := 0.05 + 3*math.Sqrt(0.05*0.95/runs)
	binomial := func(rng *rand.Rand, p float64) float64 {
		// From failure to failure: the gaps are geometric.
		k, scale := -1, math.Log1p(-p)
		for at := 0.0; at <= n; k++ {
			at += math.Floor(math.Log(1-rng.Float64())/scale) + 1
		}
		return float64(k)
	}
	for _, family := range []struct {
		name  string
		share float64
		// rates are the true shares of the m intervals, with the given mean.
		rates      func(rng *rand.Rand, share float64) []float64
		naiveFails bool // the bound without a design effect misses the limit
	}{
		{"independent 5 %", 0.05, constant, false},
		{"independent 0.5 %", 0.005, constant, false},
		{"independent 0.05 %", 0.0005, constant, false},
		{"AR(1), half of its deviation carried over", 0.05, autoregressive(0.5, 0.3), true},
		{"seconds vary, independently", 0.05, autoregressive(0, 0.7), true},
		{"bursts of one second, ten per run", 0.02, bursts(0.15, 1, 0.1), true},
		{"bursts of two seconds", 0.05, bursts(0.15, 2, 0.15), true},
		{"bursts of three seconds", 0.02, bursts(0.2, 3, 0.05), true},
	} {
		rng := rand.New(rand.NewPCG(seed, 0))
		var below, above, naive int
		for range runs {
			counts := make([]Count, 0, m)
			var k float64
			for _, p := range family.rates(rng, family.share) {
				counts = append(counts, Count{binomial(rng, p), n})
				k += counts[len(counts)-1].K
			}
			effect := DesignEffect(counts, 0.95)
			if ClusteredUpper(k, m*n, effect, 0.95) < family.share {
				below++
			}
			if ClusteredLower(k, m*n, effect, 0.95) > family.share {
				above++
			}
			if Upper(k, m*n, 0.95) < family.share {
				naive++
			}
		}
		b, a, z := float64(below)/runs, float64(above)/runs, float64(naive)/runs
		t.Logf("%-45s false passes %.3f, false failures %.3f; without design effect %.3f", family.name, b, a, z)
		if b > limit || a > limit {
			t.Errorf("%s, seed %d: false passes %.3f, false failures %.3f, want at most %.3f", family.name, seed, b, a, limit)
		}
		if family.naiveFails != (z > limit) {
			t.Errorf("%s, seed %d: without a design effect %.3f false passes: the family doesn't test what it should", family.name, seed, z)
		}
	}
}

func TestClusteredBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Float64Range(20, 1e5).Draw(t, "n")
		k := 2 + rapid.Float64Range(0, 1).Draw(t, "share")*(n-4)
		effect := rapid.Float64Range(1, 50).Draw(t, "effect")
		low, high := ClusteredLower(k, n, effect, 0.95), ClusteredUpper(k, n, effect, 0.95)
		if !(0 <= low && low <= k/n && k/n <= high && high <= 1) {
			t.Fatalf("bounds %g, %g don't bracket %g", low, high, k/n)
		}
		if l, h := Lower(k, n, 0.95), Upper(k, n, 0.95); low > l+1e-9 || high < h-1e-9 {
			t.Fatalf("clusters narrowed the interval: %g, %g → %g, %g", l, h, low, high)
		}
		if l, h := ClusteredLower(k, n, 2*effect, 0.95), ClusteredUpper(k, n, 2*effect, 0.95); l > low+1e-9 || h < high-1e-6 {
			t.Fatalf("a larger effect narrowed the interval: %g, %g → %g, %g", low, high, l, h)
		}
	})
	if a, b := ClusteredUpper(3, 1000, 0.2, 0.95), Upper(3, 1000, 0.95); a != b {
		t.Errorf("an effect below 1 gave %g, want %g", a, b)
	}
}

const intervals = 65

func constant(_ *rand.Rand, share float64) []float64 {
	rates := make([]float64, intervals)
	for i := range rates {
		rates[i] = share
	}
	return rates
}

// autoregressive varies the logarithm of the rate as an AR(1) process.
func autoregressive(rho, sigma float64) func(*rand.Rand, float64) []float64 {
	return func(rng *rand.Rand, share float64) []float64 {
		rates := make([]float64, intervals)
		x := rng.NormFloat64()
		for i := range rates {
			x = rho*x + math.Sqrt(1-rho*rho)*rng.NormFloat64()
			rates[i] = share * math.Exp(sigma*x-sigma*sigma/2)
		}
		return rates
	}
}

// bursts start with the given probability per interval, last length intervals
// on average (geometrically), and have their own rate; what lies between makes
// up for it.
func bursts(start, length, burst float64) func(*rand.Rand, float64) []float64 {
	return func(rng *rand.Rand, share float64) []float64 {
		inside := start * length / (1 + start*length)
		rates := make([]float64, intervals)
		on := rng.Float64() < inside
		for i := range rates {
			if rates[i] = (share - inside*burst) / (1 - inside); on {
				rates[i] = burst
			}
			if on {
				on = rng.Float64() >= 1/length
			} else {
				on = rng.Float64() < start
			}
		}
		return rates
	}
}
