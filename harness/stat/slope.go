package stat

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// Point is one observation of a quantity over time; X in any unit.
type Point struct{ X, Y float64 }

// Fit is a straight line through points.
type Fit struct {
	Slope    Estimate // in Y per X, with its one-sided bounds
	X, Y     float64  // the points' mean, which the line goes through
	Error    float64  // standard error of the slope, the one that its bounds rest on
	Freedom  float64  // degrees of freedom of Error; 0 where the slope isn't bounded
	distance float64  // of a bound from the slope
}

// At is the line's Y at x.
func (f Fit) At(x float64) float64 { return f.Y + f.Slope.Value*(x-f.X) }

// harmonics are the numbers of components that the error of a slope is
// estimated from; the estimate that gives the widest bound counts.
var harmonics = []int{3, 6, 12}

// Slope fits a line by least squares, with bounds that hold although
// neighbouring points depend on each other.
//
// The points are written as a sum of orthonormal polynomials on their X. Of
// these the second is the line. The next ones, of degree 2, 3, …, are as slow
// as a series can be without being a line, so if there is no more to the series
// than a line and a disturbance that forgets itself within the run, their
// coefficients are drawn from the same distribution as the error of the line's
// own, whatever dependence the disturbance has at short range. The root of the
// mean square of k of them is therefore a standard error, and slope/error has
// Student's distribution with k degrees of freedom (Sun 2011, "Robust trend
// inference with series variance estimator", J. Econometrics 164). k = 3, 6 and
// 12 are taken, and the one that gives the widest bound counts: few components
// see slow dependence, and many see the rest more exactly.
//
// That covers dependence that fades (to 1/e) within 1/24 of the run. Sen's
// bounds on the Theil–Sen slope, which take the points as independent, called
// 15 to 40 % of level series growing where neighbours depended so.
//
// ok is false with fewer than two distinct X. Slope.Bounded is false with
// fewer than five.
func Slope(points []Point, confidence float64) (f Fit, ok bool) {
	n := len(points)
	if n < 2 {
		return Fit{}, false
	}
	low, high := points[0].X, points[0].X
	for _, p := range points {
		f.X += p.X / float64(n)
		f.Y += p.Y / float64(n)
		low, high = min(low, p.X), max(high, p.X)
	}
	if !(high > low) {
		return Fit{}, false
	}
	half := (high - low) / 2
	x, y := make([]float64, n), make([]float64, n)
	for i, p := range points {
		x[i], y[i] = (p.X-f.X)/half, p.Y-f.Y
	}
	parts := components(x, y, harmonics[len(harmonics)-1]+2)
	// parts[1] is the slope times the length of x.
	scale := half * math.Sqrt(dot(x, x))
	value := parts[1] / scale
	f.Slope = Estimate{Value: value, Low: value, High: value}
	if !(confidence > 0.5 && confidence < 1) {
		return f, true
	}
	for _, k := range harmonics {
		if k+2 > len(parts) {
			break
		}
		e := math.Sqrt(dot(parts[2:k+2], parts[2:k+2])/float64(k)) / scale
		if d := e * student(float64(k), confidence); f.Freedom == 0 || d > f.distance {
			f.Error, f.Freedom, f.distance = e, float64(k), d
		}
	}
	if f.Freedom > 0 {
		f.Slope = Estimate{Value: value, Low: value - f.distance, High: value + f.distance, Bounded: true}
	}
	return f, true
}

// Detectable is the smallest slope that points such as these tell from none:
// whose bound at that confidence lies on the right side of 0 with that
// probability. It is (t_confidence + t_power) · Error (Bloom 1995, "Minimum
// detectable effects", Evaluation Review 19), and +Inf where there is no error
// to go by.
func (f Fit) Detectable(confidence, power float64) float64 {
	if !(f.Freedom > 0) {
		return math.Inf(1)
	}
	return (student(f.Freedom, confidence) + student(f.Freedom, power)) * f.Error
}

func student(freedom, probability float64) float64 {
	return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: freedom}.Quantile(probability)
}

// components are the coefficients of y in the first so many orthonormal
// polynomials on x, which lies about in −1 … 1: fewer where x has not so many
// distinct values. Each polynomial is x times the last one, made orthogonal to
// all before it (twice, for what rounding leaves).
func components(x, y []float64, count int) []float64 {
	next := make([]float64, len(x))
	for i := range next {
		next[i] = 1
	}
	var basis [][]float64
	var parts []float64
	for len(basis) < min(count, len(x)) {
		before := math.Sqrt(dot(next, next))
		for range 2 {
			for _, b := range basis {
				d := dot(b, next)
				for i := range next {
					next[i] -= d * b[i]
				}
			}
		}
		length := math.Sqrt(dot(next, next))
		if !(length > 1e-9*before) {
			break
		}
		b := make([]float64, len(next))
		for i := range next {
			b[i] = next[i] / length
			next[i] = b[i] * x[i]
		}
		basis, parts = append(basis, b), append(parts, dot(b, y))
	}
	return parts
}

func dot(a, b []float64) (sum float64) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
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
