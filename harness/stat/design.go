package stat

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// Count is what one interval of a run saw: K of N.
type Count struct{ K, N float64 }

// DesignEffect estimates by which factor requests that fail together, in the
// same second or in neighbouring ones, make the share ΣK/ΣN vary more than
// independent requests would (Kish 1965). The effective sample is n divided by
// it. It is never below 1.
//
// The share p is a ratio of sums over m intervals, so its variance is that of
// the residuals e = K − p·N: m/(m−1) · Σe² / n² if intervals are independent
// of each other. Divided by the binomial variance p(1−p)/n that is the effect
// within intervals. For the dependence between them see [longRunVariance]; what
// reaches beyond a fifth of the run can't be told from a trend, and isn't
// covered.
//
// Fewer than two failures (or successes) say nothing about clustering: the effect
// is then 1. That is the assumption that a zero-failure sample size makes too.
// It is 1 below [MinIntervals] that are [Filled] as well, where nothing is known
// of it: who speaks of more than those intervals has no bound then.
func DesignEffect(counts []Count, confidence float64) float64 {
	residuals, _, independent := deviations(counts, confidence)
	if residuals == nil {
		return 1
	}
	return max(1, longRunVariance(residuals, confidence)/independent)
}

// RunDesignEffect is [DesignEffect] for a bound by which a claim fails, which is
// one about this very run: a run that changed its level varies around its levels
// (see [aroundLevels]). changes are the indices of the counts with which a new
// one begins; none where the effect is that of [DesignEffect].
func RunDesignEffect(counts []Count, confidence float64) (effect float64, changes []int) {
	residuals, index, independent := deviations(counts, confidence)
	if residuals == nil {
		return 1, nil
	}
	residuals, changes = aroundLevels(residuals)
	for i, at := range changes {
		changes[i] = index[at]
	}
	return max(1, longRunVariance(residuals, confidence)/independent), changes
}

// RoundsEffect is [DesignEffect] for counts of rounds, which start afresh and in an
// order drawn at random, so that none depends on another: what is left is that
// requests of a round go together. Below [MinRounds] it is 1, where nothing is
// known of that.
func RoundsEffect(rounds []Count, confidence float64) float64 {
	var k, n, squares float64
	for _, c := range rounds {
		k += c.K
		n += c.N
	}
	m, p := float64(Filled(rounds)), k/n
	if m < MinRounds || !(k >= 2) || !(n-k >= 2) || !(confidence > 0.5 && confidence < 1) {
		return 1
	}
	for _, c := range rounds {
		e := c.K - p*c.N
		squares += e * e
	}
	return max(1, m/(m-1)*squares*studentFactor(m-1, confidence)/(n*p*(1-p)))
}

// Filled is how many of the intervals have a sample.
func Filled(counts []Count) (n int) {
	for _, c := range counts {
		if c.filled() {
			n++
		}
	}
	return n
}

func (c Count) filled() bool { return c.K != 0 || c.N != 0 }

// deviations are the residuals of the intervals with a sample, their indices,
// and the variance that their sum would have if requests were independent; nil
// where they say nothing about clustering.
func deviations(counts []Count, confidence float64) (residuals []float64, index []int, independent float64) {
	var k, n float64
	for i, c := range counts {
		k += c.K
		n += c.N
		if c.filled() {
			index = append(index, i)
		}
	}
	if len(index) < MinIntervals || !(k >= 2) || !(n-k >= 2) || !(confidence > 0.5 && confidence < 1) {
		return nil, nil, 0
	}
	p := k / n
	for _, i := range index {
		residuals = append(residuals, counts[i].K-p*counts[i].N)
	}
	return residuals, index, n * p * (1 - p)
}

// ClusteredUpper is [Upper] for a sample with the given design effect. Failures
// that come in clusters vary in proportion to their number, so at the share
// that the bound supposes, which is larger than the one seen, the effect is
// larger too: 1 + (effect − 1) · bound ÷ share, at most twice. Without that, a
// run that happened to meet few clusters would look both better and more
// certain; without an end to it, a handful of failures in one cluster, such as
// the first connections of a run, would bound nothing.
func ClusteredUpper(k, n, effect, confidence float64) float64 {
	bound := Upper(k, n, confidence)
	if !(effect > 1) || !(k > 0) || !(n > k) {
		return bound
	}
	// The supposed share rises to its fixed point.
	for range 100 {
		e := 1 + (effect-1)*clusterGrowth(bound, k/n)
		next := Upper(k/e, n/e, confidence)
		if next <= bound*(1+1e-9) {
			break
		}
		bound = next
	}
	return bound
}

// clusterGrowth is by how much clusters count for more at a supposed share
// than at the one seen, which isn't 0.
func clusterGrowth(supposed, seen float64) float64 {
	return min(max(1, supposed/seen), 2)
}

// ClusteredLower is [Lower] for a sample with the given design effect.
func ClusteredLower(k, n, effect, confidence float64) float64 {
	effect = max(effect, 1)
	return Lower(k/effect, n/effect, confidence)
}

// longRunVariance is the variance of the sum of residuals that add up to zero,
// one per interval, as the largest of four estimates: from single intervals,
// from overlapping batches of m/8 and m/5 neighbours (Meketon & Schmeiser 1984),
// and from single intervals times (1 + r) ÷ (1 − r), which is what the
// correlation r of neighbours makes of it where dependence fades geometrically,
// as in AR(1) and in bursts of random length. Batches are short of dependence
// that reaches beyond them, and r is blind to any that its neighbours don't
// show; together they meet the calibration.
//
// These are estimates from few values; so that a lucky one doesn't flatter the
// bound, each is multiplied by the squared ratio of Student's to the normal
// quantile at the confidence of the bound that it will be used for (Korn &
// Graubard 1998), with m/b − 1 degrees of freedom for batches of b. Overlapping
// ones would have half as many again if intervals were independent; where they
// aren't, that let pass 7 % of the runs at the threshold.
func longRunVariance(residuals []float64, confidence float64) float64 {
	m, largest := len(residuals), 0.0
	for _, b := range []int{1, max(1, m/8), max(1, m/5)} {
		runs := float64(m) / float64(b)
		freedom := runs - 1
		// Residuals add up to zero, which takes b/m of a batch's variance away.
		variance := runs / (runs - 1) * blockVariance(residuals, b) * float64(m)
		if b == 1 {
			r := neighbours(residuals)
			variance *= (1 + r) / (1 - r)
			freedom *= (1 - r) / (1 + r)
		}
		largest = max(largest, variance*studentFactor(max(freedom, 2), confidence))
	}
	return largest
}

// neighbours is the correlation of neighbouring residuals, from 0 to 0.9, with
// the bias of a short series taken out: it comes out too low by (1 + 3r)/m
// (Kendall 1954; Marriott & Pope 1954). What it makes of the variance rises
// steeply with it, so one and a half standard errors are added.
func neighbours(residuals []float64) float64 {
	var products, squares float64
	for i, e := range residuals {
		squares += e * e
		if i > 0 {
			products += e * residuals[i-1]
		}
	}
	if !(squares > 0) {
		return 0
	}
	m, r := float64(len(residuals)), products/squares
	return min(max(0, r+(1+3*r)/m+1.5*math.Sqrt((1-r*r)/m)), 0.9)
}

// blockVariance is the mean square of the sums of b neighbouring values, over
// all runs of b, per value.
func blockVariance(values []float64, b int) float64 {
	var sum, squares float64
	for i, v := range values {
		sum += v
		if i >= b {
			sum -= values[i-b]
		}
		if i >= b-1 {
			squares += sum * sum
		}
	}
	return squares / float64(len(values)-b+1) / float64(b)
}

// studentFactor is (t/z)² at the given confidence.
func studentFactor(freedom, confidence float64) float64 {
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: freedom}.Quantile(confidence)
	z := distuv.UnitNormal.Quantile(confidence)
	return max(1, t*t/(z*z))
}
