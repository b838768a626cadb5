package stat

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestRatioEdges(t *testing.T) {
	t.Parallel()
	repeat := func(n int, p Pair) []Pair {
		s := make([]Pair, n)
		for i := range s {
			s[i] = p
		}
		return s
	}
	for _, tt := range []struct {
		why    string
		series []Pair
		want   Estimate
		ok     bool
	}{
		{"nothing", nil, Estimate{}, false},
		{"no denominator", repeat(20, Pair{1, 0}), Estimate{}, false},
		{"not a number", repeat(20, Pair{math.NaN(), 1}), Estimate{}, false},
		{"too few to bound", repeat(9, Pair{6, 3}), Estimate{Value: 2, Low: 2, High: 2}, true},
		{"a constant is certain", repeat(20, Pair{6, 3}), Estimate{Value: 2, Low: 2, High: 2, Bounded: true}, true},
		{"one full interval of twenty bounds nothing", append(repeat(19, Pair{}), Pair{6, 3}), Estimate{Value: 2, Low: 2, High: 2}, true},
	} {
		if got, ok := Ratio(tt.series, 0.95); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %+v, %t, want %+v, %t", tt.why, got, ok, tt.want, tt.ok)
		}
	}
}

// Coverage of the mean where it is exactly known: independent intervals, and
// AR(1) ones with half of the last interval's deviation carried over.
func TestRatioCoverage(t *testing.T) {
	t.Parallel()
	const runs, seed = 1000, 5
	for _, tt := range []struct {
		name  string
		rho   float64
		m     int
		limit float64 // on the share of runs in which a bound misses
	}{
		{"independent", 0, 65, 0.05 + 3*math.Sqrt(0.05*0.95/runs)},
		{"AR(1)", 0.5, 65, 0.05 + 3*math.Sqrt(0.05*0.95/runs)},
	} {
		rng := rand.New(rand.NewPCG(seed, 0))
		below, above := 0, 0
		for range runs {
			series := make([]Pair, tt.m)
			x := rng.NormFloat64()
			for i := range series {
				x = tt.rho*x + math.Sqrt(1-tt.rho*tt.rho)*rng.NormFloat64()
				series[i] = Pair{100 * (5 + x), 100}
			}
			e, ok := Ratio(series, 0.95)
			if !ok || !e.Bounded {
				t.Fatal("no bounds")
			}
			if e.High < 5 {
				below++
			}
			if e.Low > 5 {
				above++
			}
		}
		b, a := float64(below)/runs, float64(above)/runs
		t.Logf("%s: missed in %.3f and %.3f of %d runs", tt.name, b, a, runs)
		if b > tt.limit || a > tt.limit || a+b < 0.01 {
			t.Errorf("%s, seed %d: bounds missed the mean in %.3f and %.3f of %d runs", tt.name, seed, b, a, runs)
		}
	}
}

// A rate isn't below 0, however short and uneven the run was.
func TestRatioStaysAboveZero(t *testing.T) {
	t.Parallel()
	bursts := make([]Pair, 12)
	for i := range bursts {
		bursts[i].Den = 1
	}
	bursts[3].Num = 100
	for name, estimate := range map[string]func([]Pair, float64) (Estimate, bool){"Ratio": Ratio, "RunRatio": RunRatio} {
		if e, ok := estimate(bursts, 0.95); !ok || !e.Bounded || e.Low < 0 || e.Low > 0.01*e.Value || e.High < e.Value {
			t.Errorf("%s = %+v, %t, want a lower bound of next to 0", name, e, ok)
		}
		bursts[0].Num = -1 // what may be negative
		if e, _ := estimate(bursts, 0.95); !(e.Low < 0) {
			t.Errorf("%s of what may be negative = %+v", name, e)
		}
		bursts[0].Num = 0
	}
}

func TestQuotient(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(9, 9))
	slow, fast := make([]Pair, 60), make([]Pair, 60)
	for i := range slow {
		slow[i] = Pair{100 * (0.464 + 0.05*rng.NormFloat64()), 100}
		fast[i] = Pair{50 * (0.002 + 0.0002*rng.NormFloat64()), 50}
	}
	e, ok := Quotient(slow, fast, 0.95)
	if !ok || !e.Bounded || e.Low > 232 || e.High < 232 || e.High-e.Low > 35 || e.Low >= e.High {
		t.Errorf("Quotient = %+v, %t, want about 232", e, ok)
	}
	if _, ok := Quotient(slow, nil, 0.95); ok {
		t.Error("a quotient by nothing has a value")
	}
	if e, ok := Quotient(slow, fast[:5], 0.95); !ok || e.Bounded {
		t.Errorf("five intervals of one arm gave bounds: %+v, %t", e, ok)
	}
}
