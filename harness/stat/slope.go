package stat

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Point is one observation of a quantity over time; X in any unit.
type Point struct{ X, Y float64 }

// Slope is the Theil–Sen estimate, the median of the slopes between all pairs
// of points, with Sen's bounds: the order statistics of these slopes at ranks
// taken from the distribution of Kendall's S (exact up to 60 points, normal
// beyond). The bounds hold for points whose deviations from the line are
// independent of each other; [Troughs] makes such points from a saw-tooth. ok
// is false with fewer than two distinct X. Bounded is false where there are
// too few points for the confidence: with three, no bound can be at 95 %.
func Slope(points []Point, confidence float64) (e Estimate, ok bool) {
	slopes := make([]float64, 0, len(points)*(len(points)-1)/2)
	for i, a := range points {
		for _, b := range points[:i] {
			if s := (a.Y - b.Y) / (a.X - b.X); a.X != b.X && !math.IsNaN(s) && !math.IsInf(s, 0) {
				slopes = append(slopes, s)
			}
		}
	}
	if len(slopes) == 0 {
		return Estimate{}, false
	}
	slices.Sort(slopes)
	n := len(slopes)
	e.Value = slopes[n/2]
	if n%2 == 0 {
		e.Value = slopes[n/2-1]/2 + slopes[n/2]/2
	}
	e.Low, e.High = e.Value, e.Value
	if r := kendallRank(len(points), 1-confidence); r > 0 && r <= n {
		e.Low, e.High, e.Bounded = slopes[r-1], slopes[n-r], true
	}
	return e, true
}

// kendallRank is the largest r such that fewer than r of the n(n−1)/2 slopes
// lie below the true one with a probability of at most tail; 0 if there is
// none. The number of slopes below the truth is distributed as the inversions
// of a random permutation.
func kendallRank(n int, tail float64) int {
	if n < 2 || !(tail > 0 && tail < 0.5) {
		return 0
	}
	if n > 60 {
		// Sen's normal approximation; var S = n(n−1)(2n+5)/18.
		f := float64(n)
		pairs := f * (f - 1) / 2
		c := distuv.UnitNormal.Quantile(1-tail) * math.Sqrt(f*(f-1)*(2*f+5)/18)
		return max(0, int(math.Floor((pairs-c)/2)))
	}
	// probability[i] of i inversions: the i-th element adds 0 … i−1 of them.
	probability := []float64{1}
	for size := 2; size <= n; size++ {
		next := make([]float64, len(probability)+size-1)
		for i, p := range probability {
			for j := range size {
				next[i+j] += p / float64(size)
			}
		}
		probability = next
	}
	var sum float64
	for r, p := range probability {
		if sum += p; sum > tail {
			return r
		}
	}
	return 0
}

// Troughs thins points, in order of X, to the lowest one of every stretch of
// the given width, counted from the first X; a last stretch that is less than
// half full is left out. Resident memory of a collected heap is a saw-tooth
// whose troughs are what remains in use.
func Troughs(points []Point, width float64) []Point {
	if len(points) == 0 || !(width > 0) {
		return nil
	}
	var troughs []Point
	first, last := points[0].X, points[len(points)-1].X
	stretch := -1
	for _, p := range points {
		s := int((p.X - first) / width)
		if first+(float64(s)+0.5)*width > last && s > 0 {
			break
		}
		switch {
		case s != stretch:
			troughs = append(troughs, p)
			stretch = s
		case p.Y < troughs[len(troughs)-1].Y:
			troughs[len(troughs)-1] = p
		}
	}
	return troughs
}
