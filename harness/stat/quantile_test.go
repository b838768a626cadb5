package stat

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestQuantileRanksPublished(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why           string
		n             int64
		q, confidence float64
		low, high     int64
	}{
		// Two-sided 95 % intervals for a median: the table in every textbook of
		// non-parametric statistics (e.g. Conover; Hahn & Meeker, table A.15).
		{"median of 6: the range", 6, 0.5, 0.975, 1, 6},
		{"median of 10", 10, 0.5, 0.975, 2, 9},
		{"median of 15", 15, 0.5, 0.975, 4, 12},
		{"median of 20", 20, 0.5, 0.975, 6, 15},
		{"median of 25", 25, 0.5, 0.975, 8, 18},
		{"five values don't bound a median at 95 %", 5, 0.5, 0.975, 0, 0},
		// Wilks' sample sizes for a 95 % bound on a 95th percentile; the lower
		// ranks from the binomial distribution in exact fractions.
		{"58 values don't bound it", 58, 0.95, 0.95, 52, 0},
		{"the largest of 59", 59, 0.95, 0.95, 53, 59},
		{"the second largest of 93", 93, 0.95, 0.95, 85, 92},
		{"the third largest of 124", 124, 0.95, 0.95, 114, 122},
		{"the largest of 299 for p99", 299, 0.99, 0.95, 293, 299},
		{"no sample", 0, 0.95, 0.95, 0, 0},
		{"no quantile", 10, 1, 0.95, 0, 0},
		{"not a number", 10, math.NaN(), 0.95, 0, 0},
	} {
		if low, high := QuantileRanks(tt.n, tt.q, tt.confidence); low != tt.low || high != tt.high {
			t.Errorf("%s: ranks %d, %d, want %d, %d", tt.why, low, high, tt.low, tt.high)
		}
	}
}

// A quantile bound and the bound on the share beyond a threshold are one
// statement in two words: the u-th value is below T exactly if the share at or
// above T has an upper bound below 1 − q.
func TestQuantileRanksAgreeWithShares(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 50000).Draw(t, "n")
		q := rapid.SampledFrom([]float64{0.5, 0.9, 0.95, 0.99, 0.999}).Draw(t, "q")
		c := rapid.SampledFrom([]float64{0.9, 0.95, 0.975, 0.9875}).Draw(t, "confidence")
		low, high := QuantileRanks(n, q, c)
		if high > 0 {
			if u := Upper(float64(n-high), float64(n), c); u > 1-q+1e-9 {
				t.Fatalf("n=%d: %d values beyond rank %d, yet the share may be %g", n, n-high, high, u)
			}
			if u := Upper(float64(n-high+1), float64(n), c); u < 1-q-1e-9 {
				t.Fatalf("n=%d: rank %d is higher than need be", n, high)
			}
		} else if u := Upper(0, float64(n), c); u < 1-q-1e-9 {
			t.Fatalf("n=%d: a bound was withheld", n)
		}
		if l := Lower(float64(n-low+1), float64(n), c); low > 0 && l < 1-q-1e-9 {
			t.Fatalf("n=%d: rank %d isn't a lower bound: the share may be %g", n, low, l)
		}
		if low < 0 || high > n || (high > 0 && low > high) {
			t.Fatalf("n=%d: ranks %d, %d", n, low, high)
		}
	})
}
