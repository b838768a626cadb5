package load

import (
	"math"
	"sync"
	"time"
)

// poisson is the pacer of a Poisson process whose rate follows a shape: many
// independent clients. Request i is due when the integral N(t) of the rate
// reaches the (i+1)-th arrival of a Poisson process of rate 1 (time rescaling:
// a process of rate 1, seen through the inverse of N, is one of rate N′; Cox &
// Lewis 1966, Brown et al., Neural Computation 14, 2002):
//
//	   N |                ,·'‾‾      S(i) = E(0) + … + E(i), the gaps E drawn
//	S(2) |- - - - - - -,·'           by a hash of the seed and the position,
//	S(1) |- - - - - ,·' |            −ln(1−u): exponential of mean 1.
//	     |       ,·' |  |
//	S(0) |- - -,'    |  |            The gaps in time are what the rate makes
//	     |  ,·' |    |  |            of them, with any shape.
//	   0 +------+----+--+---> t
//	            0    1  2
//
// A position's sum needs those before it. The pacer keeps the sum at the last
// position asked for, so that the next one costs one draw, and the sums at
// every [block]-th position it came by: 8 bytes each, 11 kB for 24 h at
// 1,000/s. A position further back starts from the nearest of these; the
// additions are the same and in the same order whatever was asked before, so
// is the result. A block is summed up by itself and then added, which leaves
// an error of some 10⁻⁹ requests after a day.
type poisson struct {
	shape
	gaps stream

	mu     sync.Mutex
	starts []float64 // of the blocks come by: the sum of all gaps before
	next   uint64    // position whose gap is added next …
	inside float64   // … and the sum of the gaps before it in its block
	end    uint64    // no position from here on is ever due
}

// block is how many positions lie between two sums that are kept.
const block = 1 << 16

func newPoisson(s shape, seed uint64) *poisson {
	return &poisson{shape: s, gaps: newStream(seed, arrivalStream), starts: []float64{0}, end: math.MaxUint64}
}

func (p *poisson) due(i uint64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i+1 < p.next { // back
		p.next, p.inside = i/block*block, 0
	}
	for p.next <= i {
		if i >= p.end {
			return never
		}
		if p.next%block == 0 {
			p.inside = 0
		}
		p.inside -= math.Log1p(-p.gaps.unit(p.next))
		p.next++
		if p.next%block == 0 && p.next/block == uint64(len(p.starts)) {
			sum := p.starts[len(p.starts)-1] + p.inside
			p.starts = append(p.starts, sum)
			if p.reach(sum) == never { // walking on would be in vain
				p.end = p.next
			}
		}
	}
	return p.reach(p.starts[i/block] + p.inside)
}
