package timeline

import (
	"bytes"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestQuantile(t *testing.T) {
	t.Parallel()
	h := NewHistogram()
	if _, ok := Quantile(h, 0.95); ok {
		t.Error("an empty histogram has a quantile")
	}
	if _, ok := Quantile(nil, 0.95); ok {
		t.Error("no histogram has a quantile")
	}
	for i := range 100 {
		_ = h.RecordValue(int64(i+1) * 10)
	}
	for _, tt := range []struct {
		q    float64
		want time.Duration
	}{
		{0, 10 * time.Microsecond},
		{0.5, 500 * time.Microsecond},
		{0.95, 950 * time.Microsecond}, // 95 of 100 are at or below it
		{0.951, 960 * time.Microsecond},
		{0.999, 1000 * time.Microsecond},
		{1, 1000 * time.Microsecond},
		{7, 1000 * time.Microsecond},
	} {
		if got, ok := Quantile(h, tt.q); got != tt.want || !ok {
			t.Errorf("Quantile(%g) = %v, %t, want %v", tt.q, got, ok, tt.want)
		}
	}
	if _, ok := Quantile(h, math.NaN()); ok {
		t.Error("the NaN quantile has a value")
	}
}

// The packed form groups values as the histogram does; if the library ever
// changed its grid, the two would drift apart here.
func TestBucketIsTheHistograms(t *testing.T) {
	t.Parallel()
	h := NewHistogram()
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Uint32Range(0, uint32(Longest.Microseconds())).Draw(t, "v")
		low, high := bucket(v)
		if low > v || high < v {
			t.Fatalf("bucket of %d is %d to %d", v, low, high)
		}
		if !h.ValuesAreEquivalent(int64(low), int64(v)) || !h.ValuesAreEquivalent(int64(v), int64(high)) ||
			h.ValuesAreEquivalent(int64(v), int64(high)+1) || (low > 0 && h.ValuesAreEquivalent(int64(low)-1, int64(v))) {
			t.Fatalf("bucket of %d is %d to %d, the histogram disagrees", v, low, high)
		}
	})
}

func TestSamplesPack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOf(rapid.Uint32Range(0, uint32(Longest.Microseconds()))).Draw(t, "values")
		late := rapid.SliceOfN(rapid.Uint32Range(0, 5000), 0, 5).Draw(t, "late")
		want := NewHistogram()
		for _, v := range slices.Concat(values, late) {
			_ = want.RecordValue(int64(v))
		}
		// Packed in two parts and put together, and read back from a histogram.
		for _, s := range []packed{merge(pack(values), pack(late)), packHistogram(want)} {
			got := NewHistogram()
			s.addTo(got)
			if !got.Equals(want) || s.total() != want.TotalCount() {
				t.Fatalf("%d values became %d", want.TotalCount(), got.TotalCount())
			}
		}
		if !bytes.Equal(merge(pack(values), pack(late)), packHistogram(want)) {
			t.Fatal("the same sample is packed in two ways")
		}
	})
}

func TestMicros(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		d    time.Duration
		want uint32
	}{
		{0, 0},
		{-time.Second, 0}, // a clock that stepped back
		{499, 0},
		{500, 1}, // the nearest microsecond
		{time.Minute, 60_000_000},
		{time.Hour, 60_000_000},
		{math.MaxInt64, 60_000_000}, // no overflow
	} {
		if got := micros(tt.d); got != tt.want {
			t.Errorf("micros(%v) = %d, want %d", tt.d, got, tt.want)
		}
	}
}
