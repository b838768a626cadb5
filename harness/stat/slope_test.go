package stat

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The data of Sen's own example (1968, section 6), with slope 4. Of the 5,040
// orders of seven values 1 + 6 + 20 + 49 have up to three inversions, 1.5 %, and
// 98 more have four, 3.5 %; so the fourth of 21 slopes from either end bounds
// it at 97.5 %, and the fifth at 96.5 %.
func TestSlopeSen(t *testing.T) {
	t.Parallel()
	points := []Point{{1, 9}, {2, 15}, {3, 19}, {4, 20}, {10, 45}, {12, 55}, {18, 78}}
	for _, tt := range []struct{ confidence, low, high float64 }{
		{0.975, 26. / 7, 35. / 8},
		{0.965, 15. / 4, 46. / 11},
	} {
		e, ok := Slope(points, tt.confidence)
		if !ok || !e.Bounded || e.Value != 4 || e.Low != tt.low || e.High != tt.high {
			t.Errorf("Slope at %g = %+v, %t, want 4 in (%g, %g)", tt.confidence, e, ok, tt.low, tt.high)
		}
	}
}

func TestSlopeEdges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why         string
		points      []Point
		ok, bounded bool
		value       float64
	}{
		{"nothing", nil, false, false, 0},
		{"one point has no slope", []Point{{1, 1}}, false, false, 0},
		{"nor have two at one time", []Point{{1, 1}, {1, 2}}, false, false, 0},
		{"three points: P(all in order) = 1/6 > 5 %", []Point{{1, 1}, {2, 2}, {3, 3}}, true, false, 1},
		{"four: 1/24", []Point{{1, 1}, {2, 2}, {3, 3}, {4, 4}}, true, true, 1},
		{"flat", []Point{{1, 5}, {2, 5}, {3, 5}, {4, 5}}, true, true, 0},
		{"one wild value moves nothing", []Point{{1, 1}, {2, 2}, {3, 1e9}, {4, 4}, {5, 5}}, true, true, 1},
	} {
		e, ok := Slope(tt.points, 0.95)
		if ok != tt.ok || e.Bounded != tt.bounded || e.Value != tt.value || e.Low > e.Value || e.High < e.Value {
			t.Errorf("%s: %+v, %t", tt.why, e, ok)
		}
	}
}

func TestKendallRankMeetsNormalApproximation(t *testing.T) {
	t.Parallel()
	// At 60 points the exact rank and Sen's approximation are within one of
	// each other, so that nothing jumps where one takes over from the other.
	exact, normal := kendallRank(60, 0.05), kendallRank(61, 0.05)
	if exact <= 0 || normal-exact < 0 || normal-exact > 40 { // 61 points have 60 slopes more
		t.Errorf("rank %d of 1770 exactly, %d of 1830 approximately", exact, normal)
	}
	// Hollander & Wolfe, table A.30: P(K ≥ 23) = 0.023 and P(K ≥ 21) = 0.036,
	// P(K ≥ 19) = 0.054 for n = 10, so 12 of 45 slopes may lie below.
	if r := kendallRank(10, 0.05); r != 13 {
		t.Errorf("rank for 10 points = %d, want 13", r)
	}
}

// The interval holds the true slope as often as it says.
func TestSlopeCoverage(t *testing.T) {
	t.Parallel()
	const runs, seed = 400, 3
	rng := rand.New(rand.NewPCG(seed, 0))
	below, above := 0, 0
	for range runs {
		points := make([]Point, 24)
		for i := range points {
			points[i] = Point{float64(i), 2*float64(i) + 10*rng.NormFloat64()}
		}
		e, _ := Slope(points, 0.95)
		if e.High < 2 {
			below++
		}
		if e.Low > 2 {
			above++
		}
	}
	limit := 0.05 + 3*math.Sqrt(0.05*0.95/runs)
	if b, a := float64(below)/runs, float64(above)/runs; b > limit || a > limit || a+b < 0.02 {
		t.Errorf("seed %d: bounds missed the slope in %.3f and %.3f of %d runs, want about 0.05 each", seed, b, a, runs)
	}
}

func TestTroughs(t *testing.T) {
	t.Parallel()
	var saw []Point // rises for four steps, then falls back; the floor rises by 1 per 4
	for i := range 40 {
		saw = append(saw, Point{float64(i), float64(i%4)*10 + float64(i/4)})
	}
	got := Troughs(saw, 8)
	want := []Point{{0, 0}, {8, 2}, {16, 4}, {24, 6}, {32, 8}}
	if len(got) != len(want) {
		t.Fatalf("troughs %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("trough %d = %v, want %v", i, got[i], want[i])
		}
	}
	// A tail of two samples would be a trough of nearly nothing: left out.
	if n := len(Troughs(saw[:34], 8)); n != 4 {
		t.Errorf("%d troughs with a short tail, want 4", n)
	}
	if Troughs(nil, 8) != nil || Troughs(saw, 0) != nil {
		t.Error("no points, or no width, has no troughs")
	}
}
