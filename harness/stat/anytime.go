package stat

import (
	"math"

	"gonum.org/v1/gonum/floats"
)

// stakes are what an interval with all of its allowance gone is worth beyond
// one with none: small ones see a slight excess that lasts, large ones a few
// intervals in which everything fails. All are played, each with an equal part.
var stakes = []float64{0.05, 0.2, 0.7, 2.5, 10, 100}

// AnytimeLower is a lower bound on what is to be expected of the sum of a
// quantity over all the planned intervals of a run, from the intervals seen so
// far, that holds at the given confidence however often one looks: the
// probability that it is ever above the truth is at most 1 − confidence. What is
// still to come counts as 0, so the bound says what is certain already.
//
// For a supposed sum B and a stake g, with θ = g · planned / B,
//
//	W_t = Π_{i ≤ t} (1 + θ·x_i) ÷ (1 + θ·B/t)^t
//
// stays below a martingale that starts at 1 wherever the expectations of the
// intervals, whatever each of them is, add up to B or less: Π(1 + θ·E x_i) is
// largest when the t of them share B evenly. By Ville's inequality a mean of
// such W reaches 1/α with a probability of at most α, over all times together.
// The bound is the largest B that was refuted at some time. It asks nothing of
// the distribution within an interval, whose requests may all fail together,
// and nothing of how the expectation changes from one to the next, so that a
// drift or a cold start is no false alarm.
//
// Intervals are independent of each other in this argument. For those that
// aren't, the logarithm of W is divided by (1 + r) ÷ (1 − r), by which the
// correlation r of neighbours makes a sum vary more; a power below 1 of what
// stays below a martingale does so too, so where there is no dependence nothing
// is lost but time. Without it, the calibration found 10 % of false stops with
// seven tenths of an interval's deviation carried over to the next.
//
// It is a capital process in the sense of Waudby-Smith & Ramdas (Estimating
// means of bounded random variables by betting, JRSS B 86, 2024), with the run's
// whole allowance as its null hypothesis. A confidence sequence for the share
// so far (Howard, Ramdas, McAuliffe & Sekhon 2021) decides sooner and is no
// guarantee here: it stops runs whose failures all come in their first tenth.
func AnytimeLower(seen []float64, planned int, confidence float64) float64 {
	var sum float64
	for _, x := range seen {
		sum += max(x, 0)
	}
	if !(sum > 0) || math.IsInf(sum, 0) || len(seen) > planned || !AnytimeBeyond(seen, planned, sum*1e-12, confidence) {
		return 0
	}
	// No sum of expectations is refuted that is as large as what was seen.
	low, high := sum*1e-12, sum
	for high/low > 1+1e-6 {
		if mid := math.Sqrt(low * high); AnytimeBeyond(seen, planned, mid, confidence) {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}

// AnytimeBeyond reports whether [AnytimeLower] is above budget: one evaluation
// where finding the bound takes dozens.
func AnytimeBeyond(seen []float64, planned int, budget, confidence float64) bool {
	if !(budget > 0) || !(confidence > 0 && confidence < 1) || len(seen) > planned {
		return false
	}
	wealth := make([]float64, len(stakes)) // logarithms of Π(1 + θ·x_i)
	now := make([]float64, len(stakes))
	limit := math.Log(float64(len(stakes)) / (1 - confidence))
	var past series
	for i, x := range seen {
		x = max(x, 0)
		past.add(x)
		t, temper := float64(i+1), past.temper()
		for j, g := range stakes {
			wealth[j] += math.Log1p(g * float64(planned) / budget * x)
			now[j] = (wealth[j] - t*math.Log1p(g*float64(planned)/t)) / temper
		}
		if floats.LogSumExp(now) >= limit {
			return true
		}
	}
	return false
}

// series is what is kept of the intervals so far, to see how neighbours go
// together.
type series struct {
	n, sum, squares, products, first, last float64
}

func (s *series) add(x float64) {
	if s.n == 0 {
		s.first = x
	} else {
		s.products += s.last * x
	}
	s.n++
	s.sum += x
	s.squares += x * x
	s.last = x
}

// temper is (1 + r) ÷ (1 − r), with the bias of a short series taken out of r as
// in [neighbours], and r from 0 to 0.7, which is as far as the calibration goes:
// an outage that begins in the middle of a run has all but 1 and is one all the
// same. Below [MinIntervals] nothing is known of r, and it counts as 0.
func (s *series) temper() float64 {
	mean := s.sum / s.n
	variance := s.squares - s.n*mean*mean
	if s.n < MinIntervals || !(variance > 1e-9*s.squares) {
		return 1
	}
	r := (s.products - mean*(2*s.sum-s.first-s.last) + (s.n-1)*mean*mean) / variance
	r = min(max(0, r+(1+3*r)/s.n), 0.7)
	return (1 + r) / (1 - r)
}
