package stat

import (
	"math"
	"math/rand/v2"
	"testing"
)

// With as many components as residuals have degrees of freedom (five points, three
// of them), the error is that of ordinary least squares. Longley's textbook sums for
// y = 1, 3, 2, 5, 4 on 1 … 5: slope 0.8, residual sum of squares 3.6, so the error is
// √(3.6/3/10) = 0.3464, and t(0.95, 3) = 2.3534.
func TestSlopeIsLeastSquares(t *testing.T) {
	t.Parallel()
	f, ok := Slope([]Point{{1, 1}, {2, 3}, {3, 2}, {4, 5}, {5, 4}}, 0.95)
	if !ok || !f.Slope.Bounded || !near(f.Slope.Value, 0.8) || !near(f.Error, math.Sqrt(0.12)) || f.Freedom != 3 {
		t.Fatalf("Slope = %+v, %t", f, ok)
	}
	if d := f.Slope.High - f.Slope.Value; math.Abs(d-2.3534*math.Sqrt(0.12)) > 1e-4 || !near(f.Slope.Value-f.Slope.Low, d) {
		t.Errorf("bounds at %g from the slope, want %g", d, 2.3534*math.Sqrt(0.12))
	}
	if f.X != 3 || f.Y != 3 || !near(f.At(5), 4.6) {
		t.Errorf("the line goes through (%g, %g) and is %g at 5, want (3, 3) and 4.6", f.X, f.Y, f.At(5))
	}
	// Bloom's multiplier for one side at 95 % and 90 % power.
	if got, want := f.Detectable(0.95, 0.9), (2.3534+1.6377)*math.Sqrt(0.12); math.Abs(got-want) > 1e-4 {
		t.Errorf("detectable %g, want %g", got, want)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b), 1) }

func TestSlopeEdges(t *testing.T) {
	t.Parallel()
	var line []Point
	for i := range 200 {
		line = append(line, Point{1000 + float64(i)/360, 60e6 + 5e6*float64(i)/360})
	}
	for _, tt := range []struct {
		why         string
		points      []Point
		ok, bounded bool
		value       float64
	}{
		{"nothing", nil, false, false, 0},
		{"one point has no slope", []Point{{1, 1}}, false, false, 0},
		{"nor have two at one time", []Point{{1, 1}, {1, 2}}, false, false, 0},
		{"two have no error", []Point{{1, 1}, {2, 3}}, true, false, 2},
		{"four points have two residuals", []Point{{1, 1}, {2, 2}, {3, 3}, {4, 4}}, true, false, 1},
		{"five points", []Point{{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}}, true, true, 1},
		{"flat", []Point{{1, 5}, {2, 5}, {3, 5}, {4, 5}, {5, 5}}, true, true, 0},
		{"many points at few times", []Point{{1, 5}, {1, 6}, {2, 5}, {2, 6}, {3, 5}, {3, 6}}, true, false, 0},
		{"late, large, and without noise", line, true, true, 5e6},
	} {
		f, ok := Slope(tt.points, 0.95)
		e := f.Slope
		if ok != tt.ok || e.Bounded != tt.bounded || !near(e.Value, tt.value) || e.Low > e.Value || e.High < e.Value {
			t.Errorf("%s: %+v, %t", tt.why, f, ok)
		}
		if width := e.High - e.Low; width > 1e-6*max(1, math.Abs(tt.value)) {
			t.Errorf("%s: no noise, and bounds %g apart", tt.why, width)
		}
		if d := f.Detectable(0.95, 0.9); !tt.bounded != math.IsInf(d, 1) {
			t.Errorf("%s: detectable %g", tt.why, d)
		}
	}
	if f, ok := Slope(line, 1); !ok || f.Slope.Bounded {
		t.Error("bounds at a confidence of 1")
	}
}

// The bounds hold the true slope as often as they say, and the slope that is
// called detectable is detected as often as it is said: for independent points
// and for such as forget themselves within 1/24 of the series.
func TestSlopeCoverage(t *testing.T) {
	t.Parallel()
	const runs, seed, n = 1000, 3, 96
	limit := 0.05 + 3*math.Sqrt(0.05*0.95/runs)
	for _, tt := range []struct {
		why string
		rho float64
	}{{"independent", 0}, {"fading within 4 of 96 points", math.Exp(-1. / 4)}} {
		rng := rand.New(rand.NewPCG(seed, 0))
		// The true standard error, from the spread of the slopes themselves.
		var low, high, squares, bounds, errs float64
		for range runs {
			points, x := make([]Point, n), rng.NormFloat64()
			for i := range points {
				x = tt.rho*x + math.Sqrt(1-tt.rho*tt.rho)*rng.NormFloat64()
				points[i] = Point{float64(i) + rng.Float64()/2, 2*float64(i) + 10*x}
			}
			f, _ := Slope(points, 0.95)
			if f.Slope.High < 2 {
				high++
			}
			if f.Slope.Low > 2 {
				low++
			}
			squares += (f.Slope.Value - 2) * (f.Slope.Value - 2)
			errs += f.Error
			bounds += f.Detectable(0.95, 0.9)
		}
		low, high = low/runs, high/runs
		t.Logf("%-30s missed from above %.3f, from below %.3f; error %.4f, said %.4f; detectable %.4f", tt.why, low, high, math.Sqrt(squares/runs), errs/runs, bounds/runs)
		if low > limit || high > limit || low+high < 0.01 {
			t.Errorf("%s, seed %d: bounds missed the slope in %.3f and %.3f of %d runs, want up to 0.05 each", tt.why, seed, low, high, runs)
		}
		// For a known error it would be 1.645 + 1.282 = 2.93 of them.
		if ratio := bounds / runs / math.Sqrt(squares/runs); ratio < 2.9 || ratio > 4.6 {
			t.Errorf("%s: detectable is %.2f true errors", tt.why, ratio)
		}
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
