package timeline

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// packed is a sample of times in microseconds as a list of histogram buckets
// with their counts, about three bytes each: pairs of varints, the distance
// from the last bucket's lowest value and the count. Nothing is lost that a
// histogram would keep; a dense one takes 139 kB, of which a second fills a few
// hundred buckets.
type packed []byte

// pack makes a packed sample of values as they came.
func pack(raw []uint32) packed {
	if len(raw) == 0 {
		return nil
	}
	entries := make([]entry, len(raw))
	for i, v := range raw {
		low, _ := bucket(v)
		entries[i] = entry{low, 1}
	}
	return packEntries(entries)
}

// packHistogram makes a packed sample of a histogram of microseconds.
func packHistogram(h *hdrhistogram.Histogram) packed {
	var entries []entry
	for _, bar := range h.Distribution() {
		if bar.Count > 0 {
			entries = append(entries, entry{uint32(bar.From), bar.Count})
		}
	}
	return packEntries(entries)
}

// merge puts samples together.
func merge(samples ...packed) packed {
	var entries []entry
	var last packed
	filled := 0
	for _, s := range samples {
		if len(s) > 0 {
			filled, last = filled+1, s
		}
	}
	if filled < 2 {
		return last
	}
	for _, s := range samples {
		s.each(func(value uint32, count int64) { entries = append(entries, entry{value, count}) })
	}
	return packEntries(entries)
}

// entry is a bucket's lowest value and its count.
type entry struct {
	value uint32
	count int64
}

func packEntries(entries []entry) packed {
	slices.SortFunc(entries, func(a, b entry) int { return int(a.value) - int(b.value) })
	p := make(packed, 0, 3*len(entries))
	last := uint32(0)
	for i := 0; i < len(entries); {
		value, count := entries[i].value, int64(0)
		for ; i < len(entries) && entries[i].value == value; i++ {
			count += entries[i].count
		}
		p = binary.AppendUvarint(p, uint64(value-last))
		p = binary.AppendUvarint(p, uint64(count))
		last = value
	}
	return slices.Clip(p)
}

// each yields every bucket's lowest value and count, in ascending order.
func (p packed) each(yield func(value uint32, count int64)) {
	var value uint64
	for len(p) > 0 {
		step, n := binary.Uvarint(p)
		count, m := binary.Uvarint(p[n:])
		p = p[n+m:]
		value += step
		yield(uint32(value), int64(count))
	}
}

// total is the number of values.
func (p packed) total() (n int64) {
	p.each(func(_ uint32, count int64) { n += count })
	return n
}

// addTo records every value in h.
func (p packed) addTo(h *hdrhistogram.Histogram) {
	p.each(func(value uint32, count int64) {
		_ = h.RecordValues(int64(value), count) // in range: see micros
	})
}

// quantiles returns one value for each of qs, which must rise, as a histogram
// would give them; nil if there is no sample.
func (p packed) quantiles(qs ...float64) []time.Duration {
	total := p.total()
	if total == 0 {
		return nil
	}
	result := make([]time.Duration, 0, len(qs))
	var seen int64
	p.each(func(value uint32, count int64) {
		seen += count
		for len(result) < len(qs) && rank(qs[len(result)], total) <= seen {
			_, highest := bucket(value)
			result = append(result, time.Duration(highest)*time.Microsecond)
		}
	})
	return result
}
