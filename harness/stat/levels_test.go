package stat

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestAroundLevels(t *testing.T) {
	t.Parallel()
	steps := func(m int, level func(i int) float64) []float64 {
		values, mean := make([]float64, m), 0.0
		for i := range values {
			values[i] = level(i) + 0.01*math.Sin(float64(7*i)) // and something within levels
			mean += values[i] / float64(m)
		}
		for i := range values {
			values[i] -= mean
		}
		return values
	}
	from := func(places ...int) func(int) float64 {
		return func(i int) (level float64) {
			for _, p := range places {
				if i >= p {
					level = 1 - level
				}
			}
			return level
		}
	}
	for _, tt := range []struct {
		why       string
		residuals []float64
		changes   []int
	}{
		{"nothing", nil, nil},
		{"no variance", make([]float64, 60), nil},
		{"alike", steps(60, from()), nil},
		{"it froze", steps(60, from(20)), []int{20}},
		{"at its first interval", steps(60, from(1)), []int{1}},
		{"at its last", steps(60, from(59)), []int{59}},
		{"it failed and recovered", steps(60, from(20, 35)), []int{20, 35}},
		{"in its second half", steps(60, from(40, 55)), []int{40, 55}},
		{"three changes aren't looked for", steps(60, from(15, 30, 45)), nil},
		{"a drift has no levels", steps(60, func(i int) float64 { return float64(i) / 60 }), nil},
		{"one change in a short run", steps(15, from(8)), []int{8}},
		{"in too short a run", steps(14, from(8)), nil},
		{"two in too short a run for two", steps(29, from(8, 16)), nil},
	} {
		around, changes := aroundLevels(tt.residuals)
		var sum float64
		for i, e := range around {
			sum += e
			if changes != nil && math.Abs(e) > 0.03 {
				t.Errorf("%s: %g is left at %d", tt.why, e, i)
			}
		}
		if !slices.Equal(changes, tt.changes) || len(around) != len(tt.residuals) || math.Abs(sum) > 1e-9 {
			t.Errorf("%s: changes %v, want %v; %d residuals that add up to %g", tt.why, changes, tt.changes, len(around), sum)
		}
	}
}

// Intervals that only go together are hardly ever taken for levels, at the
// lengths at which levels are looked for.
func TestLevelsByChance(t *testing.T) {
	t.Parallel()
	const runs, seed = 2000, 23
	rng := rand.New(rand.NewPCG(seed, 0))
	carried := func(m int) []float64 { // log-normal, seven tenths carried over
		f, x := make([]float64, m), rng.NormFloat64()
		for i := range f {
			x = 0.7*x + math.Sqrt(1-0.49)*rng.NormFloat64()
			f[i] = math.Exp(0.5 * x)
		}
		return f
	}
	bursts := func(share float64) func(m int) []float64 { // all or nothing, ten bursts in a run
		return func(m int) []float64 {
			f, on := make([]float64, m), rng.Float64() < share
			for at := 0.0; at < float64(m); on = !on {
				length := rng.ExpFloat64() * float64(m) / 10
				if on {
					length *= share
				} else {
					length *= 1 - share
				}
				end := min(at+length, float64(m))
				for i := int(at); on && i < m && float64(i) < end; i++ {
					f[i] += min(float64(i+1), end) - max(float64(i), at)
				}
				at = end
			}
			return f
		}
	}
	for _, p := range []struct {
		name  string
		truth float64
		draw  func(m int) []float64
	}{{"AR(1), 0.7", math.Exp(0.125), carried}, {"bursts, 5 % of the time", 0.05, bursts(0.05)}, {"30 %", 0.3, bursts(0.3)}, {"half", 0.5, bursts(0.5)}} {
		for _, m := range []int{oneChange, twoChanges, 65} {
			taken, worse := 0, 0
			for range runs {
				f, mean := p.draw(m), 0.0
				for _, v := range f {
					mean += v / float64(m)
				}
				for i := range f {
					f[i] -= mean
				}
				if _, changes := aroundLevels(f); changes != nil {
					taken++
					if mean > p.truth {
						worse++
					}
				}
			}
			if share := float64(worse) / runs; share > 0.01 {
				t.Errorf("%s, %d intervals: %.2f %% are taken for levels with more bad than in truth (%.2f %% in all), want at most 1 %% (seed %d)", p.name, m, 100*share, 100*float64(taken)/runs, seed)
			}
			t.Logf("%s, %d intervals: %.2f %% taken for levels, %.2f %% with more bad than in truth", p.name, m, 100*float64(taken)/runs, 100*float64(worse)/runs)
		}
	}
}
