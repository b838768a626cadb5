package timeline

import (
	"math"
	"math/bits"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The range and resolution of every histogram: microseconds, three digits.
// What took longer than Longest is counted there, and in Counts.Beyond.
const (
	Longest = time.Minute
	digits  = 3
)

// NewHistogram returns an empty histogram of microseconds, from 1 µs to
// [Longest] with three digits.
func NewHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, Longest.Microseconds(), digits)
}

// micros is the value under which d is put into a histogram: the nearest
// microsecond within its range.
func micros(d time.Duration) uint32 {
	return uint32((min(max(d, 0), Longest) + 500*time.Nanosecond) / time.Microsecond)
}

// gridBits is how many leading bits of a value a histogram with three digits
// tells apart: its buckets are linear in 2,048 steps, and double from there.
const gridBits = 11

// bucket returns the lowest value in v's bucket, and the bucket's last one.
func bucket(v uint32) (lowest, highest uint32) {
	shift := max(bits.Len32(v)-gridBits, 0)
	lowest = v >> shift << shift
	return lowest, lowest + 1<<shift - 1
}

// Quantile reads the q-quantile from a histogram of microseconds: the smallest
// recorded value with a share of at least q of all values at or below it, to
// the histogram's resolution. ok is false for an empty histogram.
func Quantile(h *hdrhistogram.Histogram, q float64) (d time.Duration, ok bool) {
	if h == nil || h.TotalCount() == 0 || math.IsNaN(q) {
		return 0, false
	}
	n := h.TotalCount()
	// The library rounds the rank; a whole one is left as it is.
	percent := 100 * float64(rank(q, n)) / float64(n)
	return time.Duration(h.ValueAtPercentile(percent)) * time.Microsecond, true
}

// rank is the place of the q-quantile among n values in order, 1 to n.
func rank(q float64, n int64) int64 {
	const slack = 1e-9 // 0.95 × 100 isn't exactly 95
	return min(max(int64(math.Ceil(q*float64(n)-slack)), 1), n)
}
