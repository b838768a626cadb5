package load

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"time"

	"phasegate/harness/scenario"
)

// never is the due time of a request that the schedule doesn't reach.
const never = time.Duration(math.MaxInt64)

// pacer says when every request is due.
type pacer interface {
	// due returns the due time of request i (from 0), measured from the
	// schedule's start: never decreasing in i, [never] beyond the end.
	due(i uint64) time.Duration
}

// shape is a course of the offered rate: it says when the integral of the
// rate, N(t), reaches n.
type shape interface {
	// reach never decreases in n and is [never] where N stays below it.
	reach(n float64) time.Duration
}

// even is the pacer whose request i is due when N(t) reaches i: with a
// constant rate, at equal distances.
type even struct{ shape }

func (e even) due(i uint64) time.Duration { return e.reach(float64(i)) }

// newPacer returns the pacer of a load's rate and arrivals.
func newPacer(l scenario.Load, seed uint64) (pacer, error) {
	var s shape
	var err error
	if l.Sine != nil {
		s, err = newSine(*l.Sine)
	} else {
		s, err = newRates(l.Rate)
	}
	switch {
	case err != nil:
		return nil, err
	case l.Poisson:
		return newPoisson(s, seed), nil
	}
	return even{s}, nil
}

// rates is an offered rate that changes piece by piece, each
// piece constant or linear. Request i is due when the integral of the rate
// reaches i:
//
//	rate
//	 r1 -|            ,·'|‾‾‾‾‾      The area from 0 to t is N(t), the number
//	     |        ,·'####|           of requests due before t. In a piece that
//	 r0 -|‾‾‾‾‾|'########|           starts at T with N(T) = n and rate r0, and
//	     |#####|#########|           climbs by a per second,
//	   0 +-----+---------+---> t
//	     0     T         T+For         N(T+x) = n + r0·x + a·x²/2.
//
// With d = i − n, the root is x = 2d / (r0 + √(r0² + 2·a·d)), a form that
// neither divides by a = 0 nor cancels when a is small.
//
// Every due time is computed from i alone, so that no rounding adds up.
// vegeta's pacers answer a similar question and aren't used here: its constant
// pacer rounds the period to whole nanoseconds, which at 2,400/s runs 6 ms
// ahead within an hour, and its linear and sine pacers approximate.
type rates struct {
	pieces []piece
}

type piece struct {
	start float64 // seconds
	n     float64 // requests due before start
	rate  float64 // at the start, per second
	slope float64 // per second, per second
}

// newRates reads consecutive segments. The last one holds its final rate
// until the end.
func newRates(segments []scenario.Segment) (*rates, error) {
	if len(segments) == 0 {
		return nil, errors.New("rate: none is given")
	}
	r := &rates{}
	var start, n float64
	for i, s := range segments {
		for _, v := range []float64{s.From, s.To} {
			if !(v >= 0) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("rate: segment %d goes from %v/s to %v/s; allowed is 0 or more", i+1, s.From, s.To)
			}
		}
		last := i == len(segments)-1
		if s.For < 0 || (s.For == 0 && !last) {
			return nil, fmt.Errorf("rate: segment %d lasts %v; only the last one may have no length", i+1, s.For)
		}
		if s.For == 0 && s.From != s.To {
			return nil, fmt.Errorf("rate: segment %d climbs from %v/s to %v/s in no time", i+1, s.From, s.To)
		}
		if s.For > 0 {
			length := s.For.Seconds()
			r.pieces = append(r.pieces, piece{start: start, n: n, rate: s.From, slope: (s.To - s.From) / length})
			start += length
			n += (s.From + s.To) / 2 * length
		}
		if last {
			r.pieces = append(r.pieces, piece{start: start, n: n, rate: s.To})
		}
	}
	return r, nil
}

func (r *rates) reach(at float64) time.Duration {
	// The last piece with n <= i: pieces without requests share their n with
	// the next one and so are passed over.
	k := sort.Search(len(r.pieces), func(k int) bool { return r.pieces[k].n > at }) - 1
	p := r.pieces[k]
	d := at - p.n
	// A piece that falls to a rate of 0 can leave a root that rounding made
	// negative.
	root := p.rate + math.Sqrt(max(0, p.rate*p.rate+2*p.slope*d))
	if root == 0 {
		if p.slope > 0 { // the very start of a climb from 0
			return seconds(p.start)
		}
		return never
	}
	return seconds(p.start + 2*d/root)
}

// seconds converts to the nearest nanosecond, and to never what is too late
// for a Duration.
func seconds(s float64) time.Duration {
	ns := math.Round(s * 1e9)
	if ns >= math.MaxInt64 {
		return never
	}
	return time.Duration(ns)
}

// Connections returns how many connections a system needs for rate (requests
// per second) at a typical latency: Little's law, with half as much again for
// the latency's swings (L = 1.5·λ·W; Little, Operations Research 9, 1961). It
// is never below 16, so that a fast system isn't measured through a queue
// whenever a few answers take longer.
func Connections(rate float64, latency time.Duration) int {
	const least = 16
	need := math.Ceil(rate * latency.Seconds() * 1.5)
	if !(need > least) {
		return least
	}
	return int(min(need, math.MaxInt32))
}
