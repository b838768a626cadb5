package stat

import (
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat/distuv"
)

// Pair is one interval's contribution to a ratio of sums: latencies and
// requests for a mean, responses and seconds for a rate.
type Pair struct{ Num, Den float64 }

// Estimate is a value with its one-sided bounds. Bounded is false where the
// sample has no bounds to offer; Low and High are then equal to Value.
type Estimate struct {
	Value, Low, High float64
	Bounded          bool
}

// MinIntervals is the least number of intervals from which a bound is made.
const MinIntervals = 10

// Ratio estimates ΣNum ÷ ΣDen, with bounds from the variance of the residuals
// Num − value · Den, neighbours that go together included: see
// [longRunVariance].
//
// The bounds allow for skewness. Where an interval is rarely much worse than
// the rest, a run that met few such intervals looks both better and more
// certain than one that met many; so half of the distance from the lowest interval
// is bounded from above on the scale of its logarithm, and so is, from below,
// half of that from the highest one: the whole of it would do for a process
// whose intervals are log-normal, and isn't enough where counting adds a
// symmetric noise. Where intervals are alike that makes no difference.
//
// The moving-block bootstrap (Künsch 1989; blocks of ⌈m^⅓⌉, expanded
// percentiles) stood here before, and failed its calibration: of runs at the
// threshold it let pass about 10 % where half of an interval's deviation is
// carried over to the next, and 16 % where seven tenths are.
//
// What never is below 0, such as a rate or a latency, has no bound below 0, and
// where the variance says next to nothing of how near it comes, its lower bound
// is the one by [staked], which needs none: of few intervals whose neighbours seem
// to go together the variance is unknown by an order of magnitude, and a
// rate of thousands in every one of them is still none of a hundred.
//
// ok is false if ΣDen isn't positive. With fewer than [MinIntervals] that have
// a denominator there are no bounds.
func Ratio(series []Pair, confidence float64) (e Estimate, ok bool) {
	return ratio(series, confidence, nil)
}

// RunRatio is [Ratio] with bounds for a claim to fail by, which is one about this
// very run: one that changed its level varies around its levels (see
// [RunDesignEffect]).
func RunRatio(series []Pair, confidence float64) (e Estimate, ok bool) {
	return ratio(series, confidence, aroundLevels)
}

func ratio(series []Pair, confidence float64, levels func([]float64) ([]float64, []int)) (e Estimate, ok bool) {
	var sum Pair
	positive := true
	filled := make([]Pair, 0, len(series))
	lowest, highest := math.Inf(1), math.Inf(-1)
	for _, p := range series {
		sum.Num += p.Num
		sum.Den += p.Den
		positive = positive && p.Num >= 0
		if p.Den > 0 {
			filled = append(filled, p)
			lowest, highest = min(lowest, p.Num/p.Den), max(highest, p.Num/p.Den)
		}
	}
	value := sum.Num / sum.Den
	if !(sum.Den > 0) || math.IsNaN(value) || math.IsInf(value, 0) {
		return Estimate{}, false
	}
	e = Estimate{Value: value, Low: value, High: value}
	if len(filled) < MinIntervals || !(confidence > 0.5 && confidence < 1) {
		return e, true
	}
	residuals := make([]float64, len(filled))
	for i, p := range filled {
		residuals[i] = p.Num - value*p.Den
	}
	if levels != nil {
		residuals, _ = levels(residuals)
	}
	off := distuv.UnitNormal.Quantile(confidence) * math.Sqrt(longRunVariance(residuals, confidence)) / sum.Den
	low, high := value-skewed(off, (highest-value)/2), value+skewed(off, (value-lowest)/2)
	if positive && low < value/2 {
		nums := make([]float64, len(filled))
		for i, p := range filled {
			nums[i] = p.Num
		}
		low = max(low, staked(nums, min(neighbours(residuals), 0.7), confidence)/sum.Den)
	}
	if math.IsNaN(low) || math.IsInf(low, 0) || math.IsNaN(high) || math.IsInf(high, 0) {
		return e, true
	}
	e.Low, e.High, e.Bounded = low, high, true
	return e, true
}

// staked is a lower bound on what is to be expected of a sum of values that
// aren't negative, by the capital process of [AnytimeLower] at its end alone, with
// r the correlation of neighbours. AnytimeLower itself knows no r before
// [MinIntervals] and holds to what it found there: of runs at the threshold it let
// pass 7 % where seven tenths of a deviation are carried over.
func staked(values []float64, r, confidence float64) float64 {
	n, sum := float64(len(values)), floats.Sum(values)
	limit := math.Log(float64(len(stakes)) / (1 - confidence))
	beyond := func(bound float64) bool {
		wealth := make([]float64, len(stakes))
		for j, g := range stakes {
			for _, x := range values {
				wealth[j] += math.Log1p(g*n/bound*x) - math.Log1p(g)
			}
			wealth[j] *= (1 - r) / (1 + r)
		}
		return floats.LogSumExp(wealth) >= limit
	}
	low, high := sum*1e-6, sum
	if !(sum > 0) || !beyond(low) {
		return 0
	}
	for high/low > 1+1e-4 {
		if mid := math.Sqrt(low * high); beyond(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}

// skewed is how far a distance may grow whose logarithm is off by as much as
// the distance itself is, to first order: so by not more than four times of what
// it is off, where the first order says nothing any more. Without an end to it, a
// CPU that falls evenly from 13 to 9 % is bounded by 74 %; the calibration is the
// same to a run with it.
func skewed(off, distance float64) float64 {
	if !(off > 0 && distance > 0) {
		return max(off, 0)
	}
	return min(distance*math.Expm1(off/distance), 4*off)
}

// Quotient estimates the ratio of two positive ratios, such as the mean of one
// arm over that of another. The relative distances to their bounds add up in
// quadrature: the arms are taken as independent of each other, which is wider
// than the truth where a disturbance hits both at once. There are no bounds
// where one of the arms has none, or its lower one isn't positive.
func Quotient(a, b []Pair, confidence float64) (e Estimate, ok bool) {
	return quotient(a, b, confidence, Ratio)
}

// RunQuotient is [Quotient] with bounds for a claim to fail by, of [RunRatio].
func RunQuotient(a, b []Pair, confidence float64) (e Estimate, ok bool) {
	return quotient(a, b, confidence, RunRatio)
}

func quotient(a, b []Pair, confidence float64, ratio func([]Pair, float64) (Estimate, bool)) (e Estimate, ok bool) {
	num, ok1 := ratio(a, confidence)
	den, ok2 := ratio(b, confidence)
	value := num.Value / den.Value
	if !ok1 || !ok2 || math.IsNaN(value) || math.IsInf(value, 0) {
		return Estimate{}, false
	}
	e = Estimate{Value: value, Low: value, High: value}
	if !num.Bounded || !den.Bounded || !(num.Low > 0 && den.Low > 0) {
		return e, true
	}
	e.Low = value * math.Exp(-math.Hypot(math.Log(num.Value/num.Low), math.Log(den.High/den.Value)))
	e.High = value * math.Exp(math.Hypot(math.Log(num.High/num.Value), math.Log(den.Value/den.Low)))
	e.Bounded = true
	return e, true
}
