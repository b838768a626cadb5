package plots

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestDownsampleKeepsExtremes(t *testing.T) {
	t.Parallel()
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, n := range []int{0, 1, 599, 600, 601, 5000, 86_400} {
		pts := make([]point, n)
		for i := range pts {
			pts[i] = point{float64(i), rng.Float64()}
		}
		if n > 4000 {
			pts[3456].y, pts[99].y = 1000, -1000
		}
		got := downsample(pts, 600, func(x float64) float64 { return x / float64(max(n, 1)) })
		if len(got) > 600 || n <= 600 && len(got) != n {
			t.Errorf("seed %d: %d points became %d", seed, n, len(got))
		}
		if !slices.IsSortedFunc(got, func(a, b point) int { return int(a.x - b.x) }) {
			t.Errorf("seed %d: %d points: order lost", seed, n)
		}
		if n > 4000 && (!slices.Contains(got, pts[3456]) || !slices.Contains(got, pts[99])) {
			t.Errorf("seed %d: %d points: an extreme is gone", seed, n)
		}
	}
}

func TestDownsampleKeepsGaps(t *testing.T) {
	t.Parallel()
	pts := make([]point, 6000)
	for i := range pts {
		pts[i] = point{float64(i), 1}
		if i >= 2000 && i < 4000 {
			pts[i].y = math.NaN()
		}
	}
	position := func(x float64) float64 { return x / 6000 }
	if got := len(segments(downsample(pts, 600, position))); got != 2 {
		t.Errorf("%d segments, want 2", got)
	}
	spans := summarize(pts, 200, position)
	if len(spans) != 200 || !math.IsNaN(spans[100].middle) || spans[10].middle != 1 {
		t.Errorf("%d spans, %+v, %+v", len(spans), spans[10], spans[100])
	}
}

func TestSummarize(t *testing.T) {
	t.Parallel()
	pts := []point{{0, 5}, {1, 1}, {2, 9}, {3, math.NaN()}, {10, 2}, {11, 2}}
	got := summarize(pts, 2, func(x float64) float64 { return x / 20 })
	want := []span{{1.5, 1, 5, 9}, {10.5, 2, 2, 2}} // the gap at 3 doesn't count
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSegments(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for pattern, want := range map[string]int{"": 0, ".": 0, "x": 1, "x.x": 2, "..xx..x.": 2, "xxx": 1} {
		var pts []point
		for i, c := range pattern {
			y := 1.0
			if c == '.' {
				y = nan
			}
			pts = append(pts, point{float64(i), y})
		}
		if got := len(segments(pts)); got != want {
			t.Errorf("%q has %d segments, want %d", pattern, got, want)
		}
	}
}

func labels(a axis) string {
	var out []string
	for _, tick := range a.ticks {
		if tick.label != "" {
			out = append(out, tick.label)
		}
	}
	return strings.Join(out, " | ")
}

func TestAxes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why  string
		a    axis
		want string
	}{
		{"hits and misses: three decades and more", logAxis(0.00025, 0.58, "s"), "1 ms | 10 ms | 100 ms | 1 s"},
		{"one decade: steps between", logAxis(0.3, 0.6, "s"), "200 ms | 500 ms | 1 s"},
		{"a single value", logAxis(0.01, 0.01, "s"), "5 ms | 10 ms | 20 ms"},
		{"memory up to its limit", linearAxis(0, 108e6, "B", 5), "0 B | 25 MB | 50 MB | 75 MB | 100 MB | 125 MB"},
		{"hit ratio", linearAxis(0.6, 1, "share", 5), "60 % | 70 % | 80 % | 90 % | 100 %"},
		{"nothing but zeros", linearAxis(0, 0, "count", 2), "0 | 0.5 | 1"},
		{"a quick profile", timeAxis(0, 70, 8), "0 | 10 s | 20 s | 30 s | 40 s | 50 s | 60 s | 70 s"},
		{"a quick profile on a phone", timeAxis(0, 70, 4), "0 | 30 s | 60 s"},
		{"a standard profile", timeAxis(0, 660, 8), "0 | 2 m | 4 m | 6 m | 8 m | 10 m"},
		{"a day", timeAxis(0, 86_400, 8), "0 | 3 h | 6 h | 9 h | 12 h | 15 h | 18 h | 21 h | 24 h"},
		{"two days", timeAxis(0, 172_800, 8), "0 | 6 h | 12 h | 18 h | 24 h | 30 h | 36 h | 42 h | 48 h"},
		{"7,800 requests have a 99.9th percentile", percentileAxis(7800), "0 % | 50 % | 90 % | 99 % | 99.9 %"},
		{"150,000 one nine more", percentileAxis(150_000), "0 % | 50 % | 90 % | 99 % | 99.9 % | 99.99 % | 99.999 %"},
	} {
		if got := labels(c.a); got != c.want {
			t.Errorf("%s: %s, want %s", c.why, got, c.want)
		}
		if c.a.position(c.a.min) != 0 || math.Abs(c.a.position(c.a.max)-1) > 1e-12 {
			t.Errorf("%s: ends at %v and %v", c.why, c.a.position(c.a.min), c.a.position(c.a.max))
		}
	}
}

func FuzzAxes(f *testing.F) {
	f.Add(0.0, 1.0)
	f.Add(1e-9, 1e9)
	f.Add(5.0, 5.0)
	f.Fuzz(func(t *testing.T, low, high float64) {
		low, high = min(low, high), max(low, high)
		// Nothing that is measured lies outside, or differs by less.
		if math.IsNaN(low) || low < 0 || high > 1e15 || high > low && high-low < 1e-6*high || high > 0 && high < 1e-9 {
			return
		}
		all := map[string]axis{"linear": linearAxis(low, high, "B", 5), "time": timeAxis(low, high, 8)}
		if low > 1e-7 && high <= 1e9 {
			all["log"] = logAxis(low, high, "s")
		}
		for name, a := range all {
			slack := 1e-8 * (a.max - a.min) // round steps are not round in binary
			if len(a.ticks) > 60 || a.max <= a.min || a.min > low+slack || a.max < high-slack {
				t.Errorf("%s axis of %v to %v: %v to %v, %d ticks", name, low, high, a.min, a.max, len(a.ticks))
			}
		}
	})
}

func Example_downsample() {
	pts := []point{{0, 1}, {1, 9}, {2, 1}, {3, 1}, {4, 1}, {5, 0}, {6, 1}, {7, 1}}
	fmt.Println(downsample(pts, 4, func(x float64) float64 { return x / 8 }))
	// Output: [{0 1} {1 9} {4 1} {5 0}]
}
