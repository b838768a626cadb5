package unit_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"phasegate/reports/unit"
)

func TestFormat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    float64
		unit string
		want string
	}{
		// The figures of the documentation.
		{0.0031, "s", "3.1 ms"}, {61e6, "B", "61.0 MB"}, {0.972, "share", "97.2 %"}, {120, "1/s", "120.0/s"},
		// Each step of a prefix, and rounding that reaches the next one.
		{0.00018, "s", "180.0 µs"}, {0.464, "s", "464.0 ms"}, {12.34, "s", "12.3 s"}, {0.99996, "s", "1.0 s"},
		{999, "B", "999 B"}, {999.97e3, "B", "1.0 MB"}, {2.5e9, "B", "2.5 GB"},
		// Below the smallest step two digits still show.
		{2.5e-7, "s", "0.25 µs"},
		// Zero is not "no sample", and has no false precision.
		{0, "s", "0 µs"}, {0, "share", "0 %"}, {0, "count", "0"}, {0, "1/s", "0/s"}, {0, "B", "0 B"},
		// Shares close to their ends are where the gates are.
		{0.9998, "share", "99.980 %"}, {0.00042, "share", "0.042 %"}, {1, "share", "100 %"}, {0.5, "share", "50.0 %"},
		{1 - 1e-15, "share", "100 %"},
		// Slopes may be negative.
		{-1.25e6, "B/h", "-1.2 MB/h"},
		// Large numbers are grouped and lose the decimal.
		{2280.4, "1/s", "2,280/s"}, {2164.1, "ratio", "2,164×"}, {42.13, "ratio", "42.1×"}, {7800, "count", "7,800"}, {1234567, "count", "1,234,567"},
		// A unit from a later version is shown as it is.
		{1.5, "J", "1.5 J"}, {1.5, "", "1.5"},
		// JSON can't hold these, a result in memory can.
		{math.NaN(), "s", "–"}, {math.Inf(1), "ratio", "–"},
	} {
		if got := unit.Format(c.v, c.unit); got != c.want {
			t.Errorf("Format(%v, %q) = %q, want %q", c.v, c.unit, got, c.want)
		}
	}
	if got := unit.Pointer(nil, "s"); got != unit.None {
		t.Errorf("Pointer(nil) = %q, want %q", got, unit.None)
	}
}

func TestExactKeepsWhatPeopleChose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    float64
		unit string
		want string
	}{
		{0.010, "s", "10 ms"}, {0.0125, "s", "12.5 ms"}, {300, "s", "300 s"},
		{0.9995, "share", "99.95 %"}, {0.005, "share", "0.5 %"}, {0.7, "share", "70 %"}, {0.9999, "share", "99.99 %"},
		{100e6, "B", "100 MB"}, {104857600, "B", "104.8576 MB"}, {10e6, "B/h", "10 MB/h"},
		{2164, "ratio", "2,164×"}, {15, "1/s", "15/s"}, {0, "count", "0"}, {0, "share", "0 %"},
	} {
		if got := unit.Exact(c.v, c.unit); got != c.want {
			t.Errorf("Exact(%v, %q) = %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

// A reader who sees "10.0 ms < 10 ms: pass" stops trusting the report.
func TestBesideNeverLooksEqual(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v, bound float64
		unit     string
		want     string
	}{
		{0.00997, 0.010, "s", "9.97 ms"},
		{0.0099999, 0.010, "s", "9.9999 ms"},
		{0.010, 0.010, "s", "10.0 ms"}, // it is equal
		{0.0031, 0.010, "s", "3.1 ms"},
		{0.999502, 0.9995, "share", "99.9502 %"},
		{100_000_001, 100e6, "B", "100.000001 MB"},
	} {
		if got := unit.Beside(&c.v, c.bound, c.unit); got != c.want {
			t.Errorf("Beside(%v, %v, %q) = %q, want %q", c.v, c.bound, c.unit, got, c.want)
		}
	}
	if got := unit.Beside(nil, 1, "s"); got != unit.None {
		t.Errorf("Beside(nil) = %q, want %q", got, unit.None)
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0 µs", 0.45: "450 ms", 5: "5 s", 65: "65 s", 119.5: "119.5 s", 300: "5 m", 330: "5 m 30 s", 5400: "1 h 30 m", 86400: "24 h",
		5.123456789: "5.123 s", math.NaN(): "–",
	} {
		if got := unit.Duration(v); got != want {
			t.Errorf("Duration(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	p95, first := unit.Of("p95_latency")
	memory, later := unit.Of("memory")
	strange, last := unit.Of("alert_response_time")
	if p95.Unit != "s" || memory.Unit != "B" || strange.Unit != "s" || strange.Label != "alert response time" {
		t.Errorf("got %+v, %+v, %+v", p95, memory, strange)
	}
	if first >= later || later >= last {
		t.Errorf("ranks %d, %d, %d are not ascending", first, later, last)
	}
	if growth, _ := unit.Of("memory_growth_rate"); growth.Unit != "B/h" {
		t.Errorf("memory_growth_rate has unit %q: the ending _rate must not win over the list", growth.Unit)
	}
}

func FuzzFormat(f *testing.F) {
	for _, v := range []float64{0, 1, -1, 0.999999, 1e-300, 1e300, math.Inf(-1)} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v float64) {
		for _, u := range []string{"s", "B", "B/h", "share", "1/s", "count", "ratio", ""} {
			for _, got := range []string{unit.Format(v, u), unit.Exact(v, u), unit.Beside(&v, 0.5, u), unit.Duration(v)} {
				if got == "" || strings.Contains(got, "NaN") || strings.Contains(got, "Inf") {
					t.Errorf("%v %s gives %q", v, u, got)
				}
			}
		}
	})
}

func ExampleFormat() {
	fmt.Println(unit.Format(0.0031, "s"))
	fmt.Println(unit.Format(61e6, "B"))
	fmt.Println(unit.Format(0.9998, "share"))
	// Output:
	// 3.1 ms
	// 61.0 MB
	// 99.980 %
}
