package load

import (
	"fmt"
	"math"
	"time"

	"phasegate/harness/scenario"
)

// sine is an offered rate that swings about its mean M by the amplitude A in
// periods of P seconds, from the phase O on (vegeta's SinePacer, with its
// names for where it starts):
//
//	rate              peak
//	M+A -|          ,-'''-.             R(t) = M + A·sin(O + 2π·t/P)
//	     |       ,-'#######`-.
//	     |     ,'############|`.        The area from 0 to t is N(t), the
//	 M  -|----'##############|--\-------- number of requests due before t:
//	     | mean-up ##########|   \ mean-down           /
//	     |###################|    `.                 ,'
//	M-A -|###################|      `-.           ,-'
//	     |###################|         `'-.....-'' trough
//	   0 +-------------------+-----------------------+---> t
//	     0                   t                       P
//
//	N(t) = M·t + A·P/2π · (cos O − cos(O + θ)),  θ = 2π·t/P
//	     = M·t + A·P/π · sin(O + θ/2)·sin(θ/2)
//
// The second form doesn't cancel where θ is small. A period holds exactly M·P
// requests whatever its phase, so that request i falls into period
// ⌊i/(M·P)⌋, and where in it N reaches the rest has to be found numerically:
// by Newton's steps (the rate is the derivative) inside a bracket that every
// step narrows, and by halving the bracket where a step would leave it or
// convergence is slow, as at a trough where the rate is 0. N never decreases
// since A ≤ M, so there is one root, and nothing to drift: the error is that
// of one evaluation of N.
type sine struct {
	scenario.Sine
	period float64 // seconds
	each   float64 // requests in a period
}

func newSine(s scenario.Sine) (*sine, error) {
	switch {
	case !(s.Mean > 0) || math.IsInf(s.Mean, 0):
		return nil, fmt.Errorf("rate: a sine about %v/s; allowed is more than 0", s.Mean)
	case !(s.Amplitude >= 0 && s.Amplitude <= s.Mean):
		return nil, fmt.Errorf("rate: a sine of amplitude %v/s about %v/s; allowed is 0 to the mean", s.Amplitude, s.Mean)
	case s.Period <= 0:
		return nil, fmt.Errorf("rate: a sine with a period of %s; allowed is more than 0", s.Period)
	case math.IsNaN(s.Start) || math.IsInf(s.Start, 0):
		return nil, fmt.Errorf("rate: a sine that starts at %v", s.Start)
	}
	return &sine{Sine: s, period: s.Period.Seconds(), each: s.Mean * s.Period.Seconds()}, nil
}

// area is N(t) for a t from 0 to one period.
func (s *sine) area(t float64) float64 {
	half := math.Pi * t / s.period
	return s.Mean*t + s.Amplitude*s.period/math.Pi*math.Sin(s.Start+half)*math.Sin(half)
}

func (s *sine) reach(n float64) time.Duration {
	passed := math.Floor(n / s.each)
	rest := n - passed*s.each
	switch {
	case rest <= 0: // rounding
		return seconds(passed * s.period)
	case rest >= s.each:
		return seconds((passed + 1) * s.period)
	}
	const (
		exact = 1e-10 // seconds: a tenth of what a due time can tell
		quick = 8     // steps that Newton's method needs at most where it is fast
	)
	low, high := 0.0, s.period
	t := rest / s.Mean
	for step := 0; high-low > exact; step++ {
		over := s.area(t) - rest
		if over > 0 {
			high = t
		} else {
			low = t
		}
		next := t - over/(s.Mean+s.Amplitude*math.Sin(s.Start+2*math.Pi*t/s.period))
		if math.Abs(next-t) <= exact/2 {
			break
		}
		if !(next > low && next < high) || step >= quick {
			next = low + (high-low)/2
			if next == low || next == high { // neighbours: no number lies between
				break
			}
		}
		t = next
	}
	return seconds(passed*s.period + t)
}
