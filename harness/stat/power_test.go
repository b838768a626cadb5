package stat

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"
)

func TestTolerated(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why               string
		n                 int64
		limit, confidence float64
		want              int64
	}{
		{"one request short of 99.99 %", 29_955, 1e-4, 0.95, -1},
		{"the sample of verdicts.md: clean only", 29_956, 1e-4, 0.95, 0},
		{"and that for one failure, short by one", 47_436, 1e-4, 0.95, 0},
		{"one failure", 47_437, 1e-4, 0.95, 1},
		{"nothing bounds nothing", 0, 0.05, 0.95, -1},
		{"no limit to undercut", 1000, 0, 0.95, -1},
		{"everything is allowed: no claim", 1000, 1, 0.95, -1},
	} {
		if got := Tolerated(tt.n, tt.limit, tt.confidence); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.why, got, tt.want)
		}
	}
	// Against its definition, where the answer isn't small.
	c := Tolerated(7800, 0.05, 0.95)
	if Upper(float64(c), 7800, 0.95) >= 0.05 || Upper(float64(c+1), 7800, 0.95) < 0.05 {
		t.Errorf("7,800 at 5 %%: %d", c)
	}
}

// The search against its definition, by trying every n.
func TestSampleForPower(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why                             string
		truth, limit, power, confidence float64
	}{
		{"p95 at half", 0.025, 0.05, 0.9, 0.95},
		{"hit ratio at half", 0.15, 0.30, 0.9, 0.95},
		{"a quarter needs fewer", 0.0125, 0.05, 0.9, 0.95},
		{"two looks", 0.025, 0.05, 0.9, 0.975},
		{"little power", 0.025, 0.05, 0.5, 0.95},
	} {
		n, c := SampleForPower(tt.truth, tt.limit, tt.power, tt.confidence)
		last := int64(0) // the last n without enough power
		for m := int64(1); m < 3*n; m++ {
			k := Tolerated(m, tt.limit, tt.confidence)
			if k < 0 || (distuv.Binomial{N: float64(m), P: tt.truth}).CDF(float64(k)) < tt.power {
				last = m
			}
		}
		if n != last+1 || c != Tolerated(n, tt.limit, tt.confidence) {
			t.Errorf("%s: %d (%d failures), want %d", tt.why, n, c, last+1)
		}
		if p := Power(n, tt.truth, tt.limit, tt.confidence); p < tt.power || p > 1 {
			t.Errorf("%s: power %g at %d", tt.why, p, n)
		}
	}
	for _, tt := range []struct {
		why                       string
		truth, limit, power, conf float64
		n                         int64
	}{
		{"without failures every clean sample decides", 0, 1e-4, 0.9, 0.95, 29_956},
		{"what is at the limit never passes", 0.05, 0.05, 0.9, 0.95, 0},
		{"nor what is above", 0.06, 0.05, 0.9, 0.95, 0},
		{"certainty isn't for sale", 0.01, 0.05, 1, 0.95, 0},
		{"no number", math.NaN(), 0.05, 0.9, 0.95, 0},
	} {
		if n, _ := SampleForPower(tt.truth, tt.limit, tt.power, tt.conf); n != tt.n {
			t.Errorf("%s: %d, want %d", tt.why, n, tt.n)
		}
	}
}
