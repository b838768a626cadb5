package stat

// QuantileRanks are the ranks (1 to n) of the order statistics that bound the
// q-quantile of the distribution a sample of n was drawn from, each at the
// given one-sided confidence, whatever the distribution (Hahn & Meeker, 5.2):
// the largest l with P(Binomial(n, q) ≥ l) ≥ confidence, and the smallest u
// with P(Binomial(n, q) < u) ≥ confidence. A sample too small for a bound
// gives 0 for it: nothing below n = 59 bounds a 95th percentile from above at
// 95 %.
func QuantileRanks(n int64, q, confidence float64) (low, high int64) {
	if n <= 0 || !(q > 0 && q < 1) || !(confidence > 0 && confidence < 1) {
		return 0, 0
	}
	atMost := func(k int64) float64 { return binomialAtMost(float64(k), float64(n), q) }
	// A whisker of slack: 1 − confidence isn't exact in binary, the ranks are.
	const slack = 1e-12
	search := func(cond func(k int64) bool) int64 { // smallest k in [0, n] with cond
		lo, hi := int64(-1), n
		for hi-lo > 1 {
			if mid := lo + (hi-lo)/2; cond(mid) {
				hi = mid
			} else {
				lo = mid
			}
		}
		return hi
	}
	low = search(func(k int64) bool { return atMost(k) > 1-confidence+slack })
	high = search(func(k int64) bool { return atMost(k) >= confidence-slack }) + 1
	if high > n {
		high = 0
	}
	return low, high
}
