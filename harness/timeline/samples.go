package timeline

import (
	"encoding/binary"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// samples are the latencies of one interval in microseconds: as they came
// while the interval is young, and later as a list of histogram buckets with
// their counts, about three bytes each. Nothing is lost that a histogram would
// keep, and a day of one-second intervals stays affordable: a dense histogram
// takes 139 kB, of which a second fills a few hundred buckets.
type samples struct {
	raw    []uint32
	packed []byte // pairs of varints: distance from the last bucket, count
}

// each yields every bucket's lowest value and count. Values may repeat.
func (s samples) each(yield func(value uint32, count int64)) {
	var value uint64
	for p := s.packed; len(p) > 0; {
		step, n := binary.Uvarint(p)
		count, m := binary.Uvarint(p[n:])
		p = p[n+m:]
		value += step
		yield(uint32(value), int64(count))
	}
	for _, v := range s.raw {
		yield(v, 1)
	}
}

// addTo records every sample in h.
func (s samples) addTo(h *hdrhistogram.Histogram) {
	s.each(func(value uint32, count int64) {
		_ = h.RecordValues(int64(value), count) // in range: see micros
	})
}

// sorted returns the buckets' lowest values in ascending order with their counts.
func (s samples) sorted() (values []uint32, counts []int64) {
	type entry struct {
		value uint32
		count int64
	}
	var entries []entry
	s.each(func(value uint32, count int64) {
		low, _ := bucket(value)
		entries = append(entries, entry{low, count})
	})
	slices.SortFunc(entries, func(a, b entry) int { return int(a.value) - int(b.value) })
	for _, e := range entries {
		if n := len(values); n > 0 && values[n-1] == e.value {
			counts[n-1] += e.count
			continue
		}
		values, counts = append(values, e.value), append(counts, e.count)
	}
	return values, counts
}

// pack returns the same samples in packed form.
func (s samples) pack() []byte {
	values, counts := s.sorted()
	packed := make([]byte, 0, 3*len(values))
	last := uint32(0)
	for i, v := range values {
		packed = binary.AppendUvarint(packed, uint64(v-last))
		packed = binary.AppendUvarint(packed, uint64(counts[i]))
		last = v
	}
	return slices.Clip(packed)
}

// replace puts in the packed form of everything up to the first n raw values.
// Those that have come since stay behind it as they are.
func (s *samples) replace(n int, packed []byte) {
	s.raw, s.packed = slices.Clone(s.raw[n:]), packed
}
