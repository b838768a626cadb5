package stat

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestIntervalPublished(t *testing.T) {
	t.Parallel()
	// Newcombe, Two-sided confidence intervals for the single proportion,
	// Statistics in Medicine 17 (1998), table I, method 5 (Clopper–Pearson).
	for _, tt := range []struct{ k, n, low, high float64 }{
		{81, 263, 0.2527, 0.3676},
		{15, 148, 0.0578, 0.1617},
		{0, 20, 0.0000, 0.1684},
		{1, 29, 0.0009, 0.1776},
		// Geigy Scientific Tables, Documenta (exact confidence limits for p), n = 10.
		{0, 10, 0.0000, 0.3085},
		{1, 10, 0.0025, 0.4450},
		{5, 10, 0.1871, 0.8129},
	} {
		low, high := Interval(tt.k, tt.n, 0.95)
		if math.Abs(low-tt.low) > 5e-5 || math.Abs(high-tt.high) > 5e-5 {
			t.Errorf("Interval(%g, %g) = %.4f, %.4f, published %.4f, %.4f", tt.k, tt.n, low, high, tt.low, tt.high)
		}
	}
}

// The bound is defined by a binomial tail; this one is summed term by term,
// with nothing shared with the code under test.
func TestBoundsAgainstSummedTail(t *testing.T) {
	t.Parallel()
	atMost := func(k, n int, p float64) float64 {
		var sum float64
		for i := range k + 1 {
			a, _ := math.Lgamma(float64(n + 1))
			b, _ := math.Lgamma(float64(i + 1))
			c, _ := math.Lgamma(float64(n - i + 1))
			sum += math.Exp(a - b - c + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
		}
		return sum
	}
	for _, n := range []int{1, 2, 7, 60, 500, 8000, 40000} {
		for _, k := range []int{0, 1, 2, 5, 30, 300} {
			for _, confidence := range []float64{0.9, 0.95, 0.975, 0.99} {
				if k >= n {
					continue
				}
				p := Upper(float64(k), float64(n), confidence)
				if got := atMost(k, n, p); math.Abs(got-(1-confidence)) > 1e-6 {
					t.Errorf("Upper(%d, %d, %g) = %g: P(≤ k) = %g", k, n, confidence, p, got)
				}
				// Failures and successes mirror each other.
				if q := Lower(float64(n-k), float64(n), confidence); math.Abs(q-(1-p)) > 1e-9 {
					t.Errorf("Lower(%d, %d, %g) = %g, want %g", n-k, n, confidence, q, 1-p)
				}
			}
		}
	}
}

// Where the normal distribution takes over, nothing jumps, and beyond it
// nothing breaks.
func TestBoundsOfManyFailures(t *testing.T) {
	t.Parallel()
	for _, share := range []float64{0.0005, 0.05, 0.5, 0.97} {
		n := manyFailures / (share * (1 - share))
		for _, bound := range []func(k, n, c float64) float64{Upper, Lower} {
			before, after := bound(share*n*0.9999, n*0.9999, 0.95), bound(share*n*1.0001, n*1.0001, 0.95)
			width := 1.645 * math.Sqrt(share*(1-share)/n)
			if d := math.Abs(math.Abs(after-share) - math.Abs(before-share)); d > width/1000 {
				t.Errorf("share %g: the bound jumps by %g of its width at n = %g", share, d/width, n)
			}
		}
		for size := n; size < 1e14; size *= 10 {
			width := 1.645 * math.Sqrt(share*(1-share)/size)
			low, high := Lower(share*size, size, 0.95), Upper(share*size, size, 0.95)
			if math.Abs((share-low)/width-1) > 0.01 || math.Abs((high-share)/width-1) > 0.01 {
				t.Errorf("share %g of %g: %g to %g", share, size, low, high)
			}
		}
	}
}

func TestBoundsWithoutSample(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for _, tt := range []struct{ k, n, c, low, high float64 }{
		{0, 0, 0.95, 0, 1},                     // nothing seen bounds nothing
		{nan, 10, 0.95, 0, 1},                  // a quotient gone wrong must not look like knowledge
		{1, nan, 0.95, 0, 1},                   //
		{-1, 10, 0.5, 0, Upper(0, 10, 0.5)},    // a ledger that counted down is none seen
		{11, 10, 0.95, Lower(10, 10, 0.95), 1}, // more failures than requests is all of them
		{3, 10, 1, 0, 1},                       // certainty takes everything in
		{3, 10, nan, 0, 1},                     //
		{5, 10, 0, 0.5, 0.5},                   // no confidence asked: the estimate itself
	} {
		if low, high := Lower(tt.k, tt.n, tt.c), Upper(tt.k, tt.n, tt.c); low != tt.low || high != tt.high {
			t.Errorf("bounds of %g in %g at %g = %g, %g, want %g, %g", tt.k, tt.n, tt.c, low, high, tt.low, tt.high)
		}
	}
}

func TestBoundsProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Float64Range(1, 1e6).Draw(t, "n")
		k := rapid.Float64Range(0, 1).Draw(t, "share") * n
		more := rapid.Float64Range(0, 1).Draw(t, "more") * (n - k)
		c := rapid.Float64Range(0.6, 0.999).Draw(t, "confidence")
		low, high := Lower(k, n, c), Upper(k, n, c)
		if !(0 <= low && low <= k/n+1e-12 && k/n <= high+1e-12 && high <= 1) {
			t.Fatalf("bounds %g, %g don't bracket %g", low, high, k/n)
		}
		if l, h := Lower(k+more, n, c), Upper(k+more, n, c); l < low-1e-9 || h < high-1e-9 {
			t.Fatalf("more failures lowered a bound: %g, %g → %g, %g", low, high, l, h)
		}
		if l, h := Lower(k, n, (1+c)/2), Upper(k, n, (1+c)/2); l > low+1e-9 || h < high-1e-9 {
			t.Fatalf("more confidence narrowed the interval: %g, %g → %g, %g", low, high, l, h)
		}
		if l, h := Lower(2*k, 2*n, c), Upper(2*k, 2*n, c); l < low-1e-9 || h > high+1e-9 {
			t.Fatalf("twice the sample widened the interval: %g, %g → %g, %g", low, high, l, h)
		}
	})
}

func TestSampleFor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		failures          int64
		limit, confidence float64
		want              int64
	}{
		{0, 0.005, 0.95, 598},     // error_rate < 0.5 %
		{0, 0.0005, 0.95, 5990},   // availability > 99.95 %
		{0, 0.0002, 0.95, 14978},  // 99.98 %
		{0, 0.0001, 0.95, 29956},  // 99.99 %
		{1, 0.0001, 0.95, 47437},  // 99.99 % with one failure
		{0, 0.0001, 0.975, 36887}, // 99.99 % with one extension: two looks
		{0, 0.05, 0.95, 59},       // Wilks' number, which is the same question
		{1, 0.05, 0.95, 93},       //
		{2, 0.05, 0.95, 124},      //
		{0, 0, 0.95, 0},           // no sample shows that nothing ever fails
		{0, 1, 0.95, 0},
		{0, math.NaN(), 0.95, 0},
		{0, 0.5, 1, 0},
		{-1, 0.5, 0.95, 0},
		{0, 1e-300, 0.95, 0}, // the search ends
	} {
		if got := SampleFor(tt.failures, tt.limit, tt.confidence); got != tt.want {
			t.Errorf("SampleFor(%d, %g, %g) = %d, want %d", tt.failures, tt.limit, tt.confidence, got, tt.want)
		}
	}
}

func TestMore(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why                 string
		k, n, effect, limit float64
		want                int64
		ok                  bool
	}{
		{"a clean sample needs the rest of 5,990", 0, 5000, 1, 0.0005, 990, true},
		{"decided already", 0, 5990, 1, 0.0005, 0, true},
		{"decided the other way", 500, 1000, 1, 0.05, 0, true},
		{"exactly at the limit: never", 50, 1000, 1, 0.05, 0, false},
		{"no sample has no rate", 0, 0, 1, 0.05, 0, false},
		{"a limit of nothing can't be shown", 0, 100, 1, 0, 0, false},
	} {
		got, ok := More(tt.k, tt.n, tt.effect, tt.limit, 0.95)
		if got != tt.want || ok != tt.ok {
			t.Errorf("%s: More(%g, %g) = %d, %t, want %d, %t", tt.why, tt.k, tt.n, got, ok, tt.want, tt.ok)
		}
	}
}

// "Need n more" is a promise: n more at the same share decide, n − 1 don't
// (give or take a hundred-thousandth, the precision of bounds).
func TestMoreDecides(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := float64(rapid.IntRange(1, 20000).Draw(t, "n"))
		k := float64(rapid.IntRange(0, int(n)).Draw(t, "k"))
		limit := rapid.Float64Range(0.0001, 0.9999).Draw(t, "limit")
		effect := rapid.Float64Range(1, 8).Draw(t, "effect")
		more, ok := More(k, n, effect, limit, 0.95)
		decided := func(extra float64) bool {
			size := n + extra
			return ClusteredUpper(k/n*size, size, effect, 0.95) < limit || ClusteredLower(k/n*size, size, effect, 0.95) > limit
		}
		switch {
		case !ok && math.Abs(k/n-limit) > 1e-4:
			t.Fatalf("gave up on %g of %g against %g", k, n, limit)
		case ok && !decided(float64(more)*(1+1e-5)):
			t.Fatalf("%d more of %g of %g don't decide %g", more, k, n, limit)
		case ok && more > 0 && decided(float64(more-1)*(1-1e-5)):
			t.Fatalf("%d more of %g of %g are more than needed for %g", more, k, n, limit)
		}
	})
}
