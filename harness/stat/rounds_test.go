package stat

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// noise is how a system's measurements vary from round to round, as a factor's
// logarithm with a mean of 0.
type noise func(rng *rand.Rand, round int) float64

func logNormal(sigma float64) noise {
	return func(rng *rand.Rand, _ int) float64 { return sigma * rng.NormFloat64() }
}

// heavy is Student's t with 3 degrees of freedom: one round in a hundred is off by four
// standard deviations.
func heavy(rng *rand.Rand, _ int) float64 {
	var squares float64
	for range 3 {
		x := rng.NormFloat64()
		squares += x * x
	}
	return 0.03 * rng.NormFloat64() / math.Sqrt(squares/3)
}

// delayed is never fast by chance and sometimes much slower.
func delayed(rng *rand.Rand, _ int) float64 { return 0.05 * (rng.ExpFloat64() - 1) }

// growing is noisier in every round than in the one before.
func growing(rng *rand.Rand, round int) float64 {
	return 0.01 * float64(1+round) * rng.NormFloat64()
}

// ratios draws the logarithms of the ratios of two systems, round by round. A
// round has an effect on both, which drifts as well.
func ratios(rng *rand.Rand, rounds int, truth float64, a, b noise) []float64 {
	var drift float64
	out := make([]float64, rounds)
	for i := range out {
		drift += 0.05 * rng.NormFloat64()
		common := drift + 0.2*rng.NormFloat64()
		out[i] = (common + truth + a(rng, i)) - (common + b(rng, i))
	}
	return out
}

// percentileBootstrap is what [Rounds] is measured against.
func percentileBootstrap(rng *rand.Rand, values []float64, level float64) (low, high float64) {
	const resamples = 400
	means := make([]float64, resamples)
	for i := range means {
		for range values {
			means[i] += values[rng.IntN(len(values))] / float64(len(values))
		}
	}
	slices.Sort(means)
	tail := (1 - level) / 2
	return means[int(tail*resamples)], means[int((1-tail)*resamples)-1]
}

// An interval of 95 % holds the truth in 95 % of comparisons, by whatever
// noise, however few the rounds: 2,000 simulated comparisons per row.
func TestRoundsCoverage(t *testing.T) {
	t.Parallel()
	const comparisons, level, truth = 2000, 0.95, 0.07
	sampling := 3 * math.Sqrt(level*(1-level)/comparisons)
	for _, row := range []struct {
		name string
		a, b noise
		// least is the coverage that the method is known to have: less than the
		// level where the mean of few values is far from normal.
		least float64
	}{
		{"log-normal, one system noisier", logNormal(0.05), logNormal(0.02), level},
		{"noise that grows over the rounds", growing, growing, 0.93},
		{"heavy tails", heavy, heavy, 0.94},
		{"exponential delays on both", delayed, delayed, 0.94},
		{"exponential delays on one", delayed, logNormal(0.01), 0.88},
	} {
		for _, rounds := range []int{3, 5, 10, 20} {
			t.Run(fmt.Sprintf("%s, %d rounds", row.name, rounds), func(t *testing.T) {
				t.Parallel()
				rng := rand.New(rand.NewPCG(uint64(rounds), 20))
				held, resampled := 0, 0
				for range comparisons {
					values := ratios(rng, rounds, truth, row.a, row.b)
					e, ok := Rounds(values, (1+level)/2)
					if !ok || !e.Bounded {
						t.Fatalf("no interval from %v", values)
					}
					if e.Low <= truth && truth <= e.High {
						held++
					}
					if low, high := percentileBootstrap(rng, values, level); low <= truth && truth <= high {
						resampled++
					}
				}
				share := float64(held) / comparisons
				t.Logf("%-34s %2d rounds: t %5.1f %%, percentile bootstrap %5.1f %%", row.name, rounds, 100*share, 100*float64(resampled)/comparisons)
				if share < row.least-sampling {
					t.Errorf("the interval holds the truth in %.3f of comparisons, want at least %.2f − %.3f", share, row.least, sampling)
				}
				if row.least == level && share > level+sampling {
					t.Errorf("the interval holds the truth in %.3f of comparisons: wider than it says", share)
				}
			})
		}
	}
}

// Where the values lie alike on both sides, signed ranks hold the truth as often as
// they say, and with a round in eight that is far off they say it more closely than
// Student's t.
func TestPseudomedianCoverage(t *testing.T) {
	t.Parallel()
	const comparisons, level, truth = 2000, 0.99, 0.07
	sampling := 3 * math.Sqrt(level*(1-level)/comparisons)
	taken := func(rng *rand.Rand, _ int) float64 {
		if rng.IntN(16) == 0 {
			return 0.3
		}
		return 0.02 * rng.NormFloat64()
	}
	for name, same := range map[string]noise{"log-normal": logNormal(0.03), "heavy tails": heavy, "exponential delays": delayed, "rounds that are taken away": taken} {
		for _, rounds := range []int{8, 16, 24} {
			rng := rand.New(rand.NewPCG(uint64(rounds), 21))
			held, width, student := 0, 0.0, 0.0
			for range comparisons {
				values := ratios(rng, rounds, truth, same, same)
				e, ok := Pseudomedian(values, (1+level)/2)
				s, _ := Rounds(values, (1+level)/2)
				if !ok || !e.Bounded || !(e.Low <= e.Value && e.Value <= e.High) {
					t.Fatalf("%+v, %t of %v", e, ok, values)
				}
				if e.Low <= truth && truth <= e.High {
					held++
				}
				width, student = width+e.High-e.Low, student+s.High-s.Low
			}
			share := float64(held) / comparisons
			t.Logf("%-26s %2d rounds: %5.1f %%, width %.2f of Student's", name, rounds, 100*share, width/student)
			if share < level-sampling {
				t.Errorf("%s, %d rounds: the interval holds the truth in %.4f of comparisons", name, rounds, share)
			}
			if name == "rounds that are taken away" && rounds > 8 && width > 0.8*student {
				t.Errorf("%s, %d rounds: %.2f times as wide as Student's interval", name, rounds, width/student)
			}
		}
	}
}

// Table of the signed-rank distribution (Hollander & Wolfe, Nonparametric Statistical
// Methods, table A.4): of 10 values, P(T ≤ 10) = 0.042 and P(T ≤ 11) = 0.053.
func TestSignedRank(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n    int
		p    float64
		want int
	}{{10, 0.05, 11}, {10, 0.054, 12}, {8, 0.0038, 0}, {8, 0.004, 1}, {4, 0.05, 0}} {
		if k := signedRank(c.n, c.p); k != c.want {
			t.Errorf("n=%d, p=%g: %d, want %d", c.n, c.p, k, c.want)
		}
	}
	if e, ok := Pseudomedian([]float64{1, 2, 9}, 0.975); !ok || e.Bounded || e.Value != 3.5 {
		t.Errorf("%+v, %t", e, ok) // averages: 1, 1.5, 2, 5, 5.5, 9
	}
}

// What wasn't measured in the same rounds, and against a single value.
func TestUnpairedCoverage(t *testing.T) {
	t.Parallel()
	const comparisons, level, truth = 2000, 0.95, 0.07
	for _, c := range []struct {
		n, m int
		a, b float64 // spread
	}{{5, 5, 0.03, 0.03}, {5, 5, 0.06, 0.02}, {10, 5, 0.02, 0.06}, {5, 1, 0.03, 0.03}} {
		rng := rand.New(rand.NewPCG(uint64(c.n), uint64(c.m)))
		draw := func(n int, mean, sigma float64) []float64 {
			out := make([]float64, n)
			for i := range out {
				out[i] = mean + sigma*rng.NormFloat64()
			}
			return out
		}
		held := 0
		for range comparisons {
			e, ok := Unpaired(draw(c.n, truth, c.a), draw(c.m, 0, c.b), (1+level)/2)
			if !ok || !e.Bounded {
				t.Fatal("no interval")
			}
			if e.Low <= truth && truth <= e.High {
				held++
			}
		}
		if share := float64(held) / comparisons; share < level-3*math.Sqrt(level*(1-level)/comparisons) {
			t.Errorf("%d values of spread %g against %d of %g: the interval holds the truth in %.3f", c.n, c.a, c.m, c.b, share)
		}
	}
}

// Where nothing supports an interval there is none.
func TestRoundsWithoutBounds(t *testing.T) {
	t.Parallel()
	for why, values := range map[string][]float64{
		"two rounds":              {1, 2},
		"one":                     {1},
		"they don't vary":         {0.1, 0.1, 0.1, 0.1},
		"they are nothing at all": {0, 0, 0},
	} {
		if e, ok := Rounds(values, 0.975); !ok || e.Bounded || e.Low != e.Value || e.High != e.Value || !math.IsInf(e.Detectable(len(values), 0.95, 0.9), 1) {
			t.Errorf("%s: %+v, %t", why, e, ok)
		}
	}
	for why, values := range map[string][]float64{"none": nil, "not a number": {1, math.NaN(), 2}, "infinite": {1, math.Inf(1), 2}} {
		if e, ok := Rounds(values, 0.975); ok {
			t.Errorf("%s: %+v", why, e)
		}
	}
}
