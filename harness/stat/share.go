package stat

import (
	"math"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat/distuv"
)

// Upper is the one-sided Clopper–Pearson upper bound on a share of which k in
// n were seen: the p at which seeing k or fewer has probability 1 − confidence.
// k and n needn't be whole, so that they can be an effective sample. No sample
// (n ≤ 0) and arguments without meaning give 1.
func Upper(k, n, confidence float64) float64 {
	if !(n > 0) || !(k < n) || !(confidence < 1) {
		return 1
	}
	k = max(k, 0)
	if confidence <= 0 {
		return k / n
	}
	if k == 0 {
		// (1−p)^n = 1−c, solved without losing digits for small p.
		return -math.Expm1(math.Log1p(-confidence) / n)
	}
	if k*(1-k/n) > manyFailures {
		return wilson(k+0.5, n, distuv.UnitNormal.Quantile(confidence))
	}
	return betaQuantile(k+1, n-k, confidence)
}

// Lower is the one-sided Clopper–Pearson lower bound: the p at which seeing k
// or more in n has probability 1 − confidence. No sample gives 0.
func Lower(k, n, confidence float64) float64 {
	if !(n > 0) || !(k > 0) || !(confidence < 1) {
		return 0
	}
	k = min(k, n)
	if confidence <= 0 {
		return k / n
	}
	if k == n {
		return math.Exp(math.Log1p(-confidence) / n)
	}
	if k*(1-k/n) > manyFailures {
		return wilson(k-0.5, n, -distuv.UnitNormal.Quantile(confidence))
	}
	return betaQuantile(k, n-k+1, 1-confidence)
}

// Interval is the two-sided Clopper–Pearson interval, which leaves
// (1 − confidence)/2 on each side.
func Interval(k, n, confidence float64) (low, high float64) {
	side := 1 - (1-confidence)/2
	return Lower(k, n, side), Upper(k, n, side)
}

// manyFailures is the binomial variance beyond which the normal distribution
// takes over: it is right to six digits there, and the incomplete beta function
// no longer is at ten times as much.
const manyFailures = 1e6

// wilson is the score bound (Wilson 1927) at z standard errors; with half a
// failure added (taken away for a lower bound) it approaches Clopper–Pearson's.
func wilson(k, n, z float64) float64 {
	p, zz := k/n, z*z/n
	return min(max((p+zz/2+z*math.Sqrt(max(p*(1-p)/n+zz/(4*n), 0)))/(1+zz), 0), 1)
}

// betaQuantile inverts the regularised incomplete beta function I(x; a, b) = y.
// The library's inverse is fast but has no stated accuracy, so its answer is
// checked with the function itself, and found by bisection where it is off.
func betaQuantile(a, b, y float64) float64 {
	x := mathext.InvRegIncBeta(a, b, y)
	if x > 0 && x < 1 && math.Abs(mathext.RegIncBeta(a, b, x)-y) <= 1e-9*min(y, 1-y) {
		return x
	}
	low, high := 0.0, 1.0
	for range 200 {
		x = low + (high-low)/2
		if x == low || x == high {
			break
		}
		if mathext.RegIncBeta(a, b, x) < y {
			low = x
		} else {
			high = x
		}
	}
	return x
}

// binomialAtMost is the probability of k or fewer of n at a share of p between
// 0 and 1, for any k and n that aren't negative.
func binomialAtMost(k, n, p float64) float64 {
	switch {
	case k >= n:
		return 1
	case k == 0:
		return math.Exp(n * math.Log1p(-p))
	case n*p*(1-p) > manyFailures:
		return distuv.UnitNormal.CDF((k + 0.5 - n*p) / math.Sqrt(n*p*(1-p)))
	default:
		return mathext.RegIncBeta(n-k, k+1, 1-p)
	}
}

// maxSample ends searches for a sample size: more than anyone will run.
const maxSample = int64(1) << 40

// SampleFor is the smallest n of which failures may fail while the upper
// bound on their share is still below limit. With no failure it is
// ln(1 − confidence) / ln(1 − limit): 5,990 for 0.05 % at 95 %. It is 0 for a
// limit that can't be undercut or always is (outside 0 to 1), or one below
// what 2^40 requests could show.
func SampleFor(failures int64, limit, confidence float64) int64 {
	if !(limit > 0 && limit < 1) || !(confidence > 0 && confidence < 1) || failures < 0 {
		return 0
	}
	decided := func(n int64) bool { return Upper(float64(failures), float64(n), confidence) < limit }
	return firstTrue(failures+1, decided)
}

// firstTrue is the smallest n ≥ from with decided(n), which must be monotone;
// 0 if there is none up to maxSample.
func firstTrue(from int64, decided func(int64) bool) int64 {
	if decided(from) {
		return from
	}
	low, high := from, 2*from+1
	for !decided(high) {
		if high >= maxSample {
			return 0
		}
		low, high = high, 2*high
	}
	for high-low > 1 {
		if mid := low + (high-low)/2; decided(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

// More is how many requests beyond n must be seen until the share of k in n,
// if it stays what it is now, is decided against limit: its upper bound below
// it, or its lower bound above. effect is the design effect (1 for independent
// requests). ok is false where the present share is so close to the limit
// that no affordable sample decides it, and where there is no sample.
func More(k, n, effect, limit, confidence float64) (more int64, ok bool) {
	if !(n > 0) || !(k >= 0 && k <= n) || !(limit > 0 && limit < 1) || !(confidence > 0 && confidence < 1) {
		return 0, false
	}
	share, effect := k/n, max(effect, 1)
	// The bounds are beyond the limit if what was seen is improbable at the
	// limit itself: one evaluation where finding a bound takes dozens.
	above := 1.0
	if k > 0 {
		above += (effect - 1) * clusterGrowth(limit, share)
	}
	decided := func(extra int64) bool {
		size := n + float64(extra)
		failures := share * size
		if share < limit {
			return binomialAtMost(failures/above, size/above, limit) < 1-confidence
		}
		return binomialAtMost((size-failures)/effect, size/effect, 1-limit) < 1-confidence
	}
	if decided(0) {
		return 0, true
	}
	more = firstTrue(1, decided)
	return more, more > 0
}
