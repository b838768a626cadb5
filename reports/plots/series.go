package plots

import (
	"math"
	"slices"
)

// point is one sample of a line; y is NaN where nothing was measured, which
// breaks the line.
type point struct{ x, y float64 }

// downsample returns at most limit points of pts (ascending in x) so
// that the drawn line covers the same pixels: position maps x to 0…1 across the
// figure, and of each of limit/2 equal slices the lowest and the highest sample
// are kept, in their order. A slice without any sample stays a gap; a gap
// narrower than a slice closes.
func downsample(pts []point, limit int, position func(x float64) float64) []point {
	if len(pts) <= limit {
		return pts
	}
	n := limit / 2
	slice := func(p point) int {
		return min(max(int(position(p.x)*float64(n)), 0), n-1)
	}
	out := make([]point, 0, limit)
	for i := 0; i < len(pts); {
		at := slice(pts[i])
		low, high := -1, -1
		first := i
		for ; i < len(pts) && slice(pts[i]) == at; i++ {
			y := pts[i].y
			if math.IsNaN(y) {
				continue
			}
			if low < 0 || y < pts[low].y {
				low = i
			}
			if high < 0 || y > pts[high].y {
				high = i
			}
		}
		switch {
		case low < 0:
			out = append(out, point{pts[first].x, math.NaN()})
		case low == high:
			out = append(out, pts[low])
		default:
			out = append(out, pts[min(low, high)], pts[max(low, high)])
		}
	}
	return out
}

// span is what one slice of a figure holds of a line with too many points.
type span struct {
	x, low, middle, high float64 // NaN but for x in a slice without a sample
}

// summarize cuts the room of a line into n slices and gives the lowest, the
// median and the highest sample of each. A line through all extremes would fill
// the figure with a zigzag that hides where most samples lie.
func summarize(pts []point, n int, position func(x float64) float64) []span {
	var out []span
	for i := 0; i < len(pts); {
		at := int(position(pts[i].x) * float64(n))
		s := span{math.NaN(), math.NaN(), math.NaN(), math.NaN()}
		var ys []float64
		first := i
		for ; i < len(pts) && int(position(pts[i].x)*float64(n)) == at; i++ {
			if !math.IsNaN(pts[i].y) {
				ys = append(ys, pts[i].y)
			}
		}
		s.x = (pts[first].x + pts[i-1].x) / 2
		if len(ys) > 0 {
			slices.Sort(ys)
			s.low, s.middle, s.high = ys[0], ys[len(ys)/2], ys[len(ys)-1]
		}
		out = append(out, s)
	}
	return out
}

// segments cuts pts at its gaps.
func segments(pts []point) [][]point {
	var out [][]point
	start := 0
	for i := range len(pts) + 1 {
		if i < len(pts) && !math.IsNaN(pts[i].y) {
			continue
		}
		if i > start {
			out = append(out, pts[start:i])
		}
		start = i + 1
	}
	return out
}

// extent returns the smallest and largest value of the lines that keep accepts;
// ok is false where there is none.
func extent(lines []line, keep func(y float64) bool) (low, high float64, ok bool) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, p := range l.points {
			if !math.IsNaN(p.y) && keep(p.y) {
				low, high = min(low, p.y), max(high, p.y)
			}
		}
	}
	return low, high, low <= high
}
