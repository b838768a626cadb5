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
// drift or a cold start is no false alarm; intervals are taken as independent
// of each other otherwise, and the calibration shows how much dependence that
// stands.
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
	for i, x := range seen {
		t := float64(i + 1)
		for j, g := range stakes {
			if x > 0 {
				wealth[j] += math.Log1p(g * float64(planned) / budget * x)
			}
			now[j] = wealth[j] - t*math.Log1p(g*float64(planned)/t)
		}
		if floats.LogSumExp(now) >= limit {
			return true
		}
	}
	return false
}
