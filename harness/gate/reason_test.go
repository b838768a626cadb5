package gate

import (
	"testing"

	"phasegate/harness/scenario"
)

func TestFormatUnit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		unit scenario.Unit
		v    float64
		want string
	}{
		{scenario.Seconds, 0, "0s"},
		{scenario.Seconds, 0.000_234, "234µs"},
		{scenario.Seconds, 0.0031, "3.1ms"},
		{scenario.Seconds, 0.464, "464ms"},
		{scenario.Seconds, 2.5, "2.5s"},
		{scenario.Seconds, 1234, "1,234s"}, // never fewer digits than the integer part
		{scenario.Bytes, 512, "512 B"},
		{scenario.Bytes, 8192, "8.19 kB"},
		{scenario.Bytes, 61_400_000, "61.4 MB"},
		{scenario.Bytes, 2_000_000_000, "2 GB"},
		{scenario.BytesPerHour, -1_200_000, "-1.2 MB/hour"},
		{scenario.Share, 0, "0 %"},
		{scenario.Share, 1, "100 %"},
		{scenario.Share, 0.312, "31.2 %"},
		{scenario.Share, 0.000384, "0.0384 %"},
		{scenario.Share, 0.9995, "99.95 %"},
		{scenario.Share, 0.999616, "99.9616 %"}, // three digits of what is missing to all
		{scenario.Share, 0.7, "70 %"},
		{scenario.PerSecond, 119.87, "120/s"},
		{scenario.Count, 12345678, "12,345,678"},
		{scenario.Count, -1234, "-1,234"},
		{scenario.Ratio, 2164, "2,164x"},
		{"furlong", 3.14159, "3.14"},
	} {
		if got := formatUnit(tt.unit, tt.v); got != tt.want {
			t.Errorf("%g %s = %q, want %q", tt.v, tt.unit, got, tt.want)
		}
	}
}

func TestFormatLong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		seconds float64
		want    string
	}{
		{0, "1 s"}, // never nothing: it is said where something is missing
		{27.2, "28 s"},
		{119.5, "120 s"},
		{121, "3 min"}, // rounded up, so that it is enough
		{7300, "3 h"},
		{86400 * 3, "3 days"},
	} {
		if got := formatLong(tt.seconds); got != tt.want {
			t.Errorf("formatLong(%g) = %q, want %q", tt.seconds, got, tt.want)
		}
	}
}

// A condition built by hand has no text of its own.
func TestConditionText(t *testing.T) {
	t.Parallel()
	m, _ := scenario.Lookup("p95_latency")
	c := claim{Condition: scenario.Condition{Metric: m, Op: scenario.Less, Threshold: 0.01}}
	if got := c.text(); got != "p95_latency < 10ms" {
		t.Errorf("text = %q", got)
	}
	if got := c.percentile(); got != "95" {
		t.Errorf("percentile = %q", got)
	}
	c.Metric.Quantile = 0.999
	if got := c.percentile(); got != "99.9" {
		t.Errorf("percentile = %q", got)
	}
}
