package stat

// Tolerated is the largest number of failures among n requests at which the
// upper bound on their share is still below limit; −1 where n is too few even
// without one, and for a limit that can't be undercut.
func Tolerated(n int64, limit, confidence float64) int64 {
	if n <= 0 || !(limit > 0 && limit < 1) || !(confidence > 0 && confidence < 1) {
		return -1
	}
	// Beyond limit·n the share itself is at the limit.
	low, high := int64(-1), int64(limit*float64(n))+1
	for high-low > 1 {
		if mid := low + (high-low)/2; Upper(float64(mid), float64(n), confidence) < limit {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}

// Power is the exact probability that n independent requests, each of which
// fails with probability truth, show that their share is below limit: that no
// more of them fail than are [Tolerated].
func Power(n int64, truth, limit, confidence float64) float64 {
	c := Tolerated(n, limit, confidence)
	switch {
	case c < 0 || !(truth >= 0 && truth < 1):
		return 0
	case truth == 0:
		return 1
	}
	return binomialAtMost(float64(c), float64(n), truth)
}

// SampleForPower is the n from which on a run decides, with at least the given
// probability, that a share whose true value is truth lies below limit; and how
// many failures are tolerated there. Requests count as independent; 0, −1 if
// no affordable sample does.
//
// Power isn't monotone in n: it jumps up where one more failure is tolerated,
// n(c) = [SampleFor](c), and sinks until n(c+1). What is asked for is the first
// n(c) behind which no dip falls below power, which is the first whose own dip,
// at n(c+1) − 1, doesn't: dips get shallower as c grows.
func SampleForPower(truth, limit, power, confidence float64) (n, failures int64) {
	if !(truth >= 0 && truth < limit && limit < 1) || !(power > 0 && power < 1) || !(confidence > 0 && confidence < 1) {
		return 0, -1
	}
	enough := func(c int64) bool {
		end := SampleFor(c+1, limit, confidence)
		return end == 0 || truth == 0 || binomialAtMost(float64(c), float64(end-1), truth) >= power
	}
	c := int64(0)
	if !enough(0) {
		c = firstTrue(1, enough)
	}
	if n = SampleFor(c, limit, confidence); n == 0 {
		return 0, -1
	}
	return n, c
}
