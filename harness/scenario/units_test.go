package scenario

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, text string
		want      time.Duration
	}{
		{"the smallest", "1ns", 1},
		{"both spellings of micro", "1us", time.Microsecond},
		{"the other one", "1µs", time.Microsecond},
		{"a fraction", "0.5ms", 500 * time.Microsecond},
		{"no digit before the point", ".5s", 500 * time.Millisecond},
		{"no time is a time", "0s", 0},
		{"minutes, both ways", "2m", 2 * time.Minute},
		{"in full", "2min", 2 * time.Minute},
		{"a sum", "1h30m5s", time.Hour + 30*time.Minute + 5*time.Second},
		{"a sum with white space", "1h 30m", 90 * time.Minute},
		{"days", "2d", 48 * time.Hour},
	} {
		if got, err := parseDuration(tt.text); err != nil || got != tt.want {
			t.Errorf("%s: %v, %v, want %v", tt.why, got, err, tt.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0B": 0, "512B": 512, "8KiB": 8192, "8kB": 8000, "8KB": 8000, "1.5KiB": 1536, "100MB": 100e6, "100 MiB": 100 << 20, "1GiB": 1 << 30, "2TB": 2e12,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestParseRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{"200/s": 200, "2.1/s": 2.1, "90/m": 1.5, "90/min": 1.5, "3600/h": 1, "7200 / hour": 2, "0/s": 0} {
		if got, err := parseRate(text); err != nil || math.Abs(got-want) > 1e-12 {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
}

// Whatever is written, a unit's parser returns a finite number that is not
// negative, or an error that says what was found and what is allowed.
func FuzzUnits(f *testing.F) {
	units := []Unit{Seconds, Bytes, BytesPerHour, Share, PerSecond, Count, Ratio, Dollars, Points}
	for _, text := range []string{"", "-", ".", "1", "10ms", "1h30m", "5 m", "100MB", "10MB/hour", "70%", "0.7", "200/s", "42x", "$0.03", "9", "-1s", "1e9", "NaN", "0x10", "1_000", "٣s", "9" + strings.Repeat("0", 400) + "TB"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, u := range units {
			n, err := u.parse(text)
			switch {
			case err != nil:
				if n != 0 || !strings.Contains(err.Error(), "; allowed: ") || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s %q: %v, %v", u, text, n, err)
				}
			case math.IsNaN(n) || math.IsInf(n, 0) || n < 0:
				t.Errorf("%s %q: %v", u, text, n)
			}
		}
	})
}
