package stat

import (
	"math"
	"math/rand/v2"
	"slices"

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

// resamples is the number of bootstrap replications: some 30 of them lie
// beyond a bound at 98.75 % (two looks, expanded), which is enough for its
// second digit.
const resamples = 4000

// Ratio estimates ΣNum ÷ ΣDen with bounds by the moving-block bootstrap
// (Künsch 1989): runs of ⌈m^⅓⌉ neighbouring intervals are drawn with
// replacement until m are together, 4,000 times, so that dependence between
// neighbours stays in. The bounds are quantiles of these replications, taken
// further out as Student's distribution is from the normal one, with as many
// degrees of freedom as there are separate blocks, less one (Hesterberg's
// expanded percentile interval, 2015). ok is false if ΣDen isn't positive.
func Ratio(series []Pair, confidence float64, seed uint64) (e Estimate, ok bool) {
	s := newSums(series)
	if e.Value, ok = s.total().ratio(); !ok {
		return Estimate{}, false
	}
	e.Low, e.High = e.Value, e.Value
	rng := rand.New(rand.NewPCG(seed, 0x6d6f76696e67))
	e.bound(s.draws(), confidence, func() (float64, bool) { return s.resample(rng).ratio() })
	return e, true
}

// Quotient estimates the ratio of two ratios, such as the mean of one arm over
// that of another. Each arm is resampled by itself, which is wider than the
// truth where a disturbance hits both at once.
func Quotient(a, b []Pair, confidence float64, seed uint64) (e Estimate, ok bool) {
	sa, sb := newSums(a), newSums(b)
	quotient := func(x, y Pair) (float64, bool) {
		num, ok1 := x.ratio()
		den, ok2 := y.ratio()
		return Pair{num, den}.ratioIf(ok1 && ok2)
	}
	if e.Value, ok = quotient(sa.total(), sb.total()); !ok {
		return Estimate{}, false
	}
	e.Low, e.High = e.Value, e.Value
	rng := rand.New(rand.NewPCG(seed, 0x71756f7469656e74))
	e.bound(min(sa.draws(), sb.draws()), confidence, func() (float64, bool) {
		return quotient(sa.resample(rng), sb.resample(rng))
	})
	return e, true
}

// bound sets Low and High from replications; blocks is how many separate
// blocks the shorter series has, 0 if it is too short.
func (e *Estimate) bound(blocks float64, confidence float64, replicate func() (float64, bool)) {
	if blocks < 2 || !(confidence > 0.5 && confidence < 1) {
		return
	}
	values := make([]float64, 0, resamples)
	for range resamples {
		if v, ok := replicate(); ok {
			values = append(values, v)
		}
	}
	// Replications without a denominator (an interval in which nothing
	// finished, over and over) would be left out in favour of good ones.
	if len(values) < resamples {
		return
	}
	slices.Sort(values)
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: blocks - 1}.Quantile(confidence)
	tail := distuv.UnitNormal.CDF(-math.Sqrt(blocks/(blocks-1)) * t)
	i := int(tail * resamples)
	// The estimate lies between its own bounds whatever the draw.
	e.Low = min(values[i], e.Value)
	e.High = max(values[resamples-1-i], e.Value)
	e.Bounded = true
}

// sums holds running totals, so that a block is one subtraction.
type sums struct {
	before []Pair // before[i] is the sum of the first i pairs
	length int    // of a block
}

func newSums(series []Pair) sums {
	before := make([]Pair, len(series)+1)
	for i, p := range series {
		before[i+1] = Pair{before[i].Num + p.Num, before[i].Den + p.Den}
	}
	return sums{before, blockLength(len(series))}
}

func (s sums) len() int { return len(s.before) - 1 }

func (s sums) total() Pair { return s.before[s.len()] }

// draws is the number of separate blocks, 0 for a series too short to bound.
func (s sums) draws() float64 {
	if s.len() < MinIntervals {
		return 0
	}
	return float64(s.len()) / float64(s.length)
}

func (s sums) resample(rng *rand.Rand) Pair {
	var sum Pair
	for left := s.len(); left > 0; {
		n := min(left, s.length)
		i := rng.IntN(s.len() - s.length + 1)
		sum.Num += s.before[i+n].Num - s.before[i].Num
		sum.Den += s.before[i+n].Den - s.before[i].Den
		left -= n
	}
	return sum
}

func (p Pair) ratio() (float64, bool) { return p.ratioIf(true) }

func (p Pair) ratioIf(ok bool) (float64, bool) {
	// A difference of running totals may leave a rounding error for a zero.
	r := p.Num / p.Den
	if !ok || !(p.Den > 1e-9) || math.IsNaN(r) || math.IsInf(r, 0) {
		return 0, false
	}
	return r, true
}
