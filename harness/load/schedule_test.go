package load

import (
	"math"
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

func TestRatesDue(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, tt := range []struct {
		why  string
		rate []scenario.Segment
		i    uint64
		want time.Duration
	}{
		{"the first request is due at once", flat(120), 0, 0},
		{"a period that isn't whole nanoseconds is rounded once", flat(2400), 1, 416667},
		{"and not once per request: an hour later nothing has drifted", flat(2400), 2400 * 3600, 3600 * s},
		{"a fraction per second", flat(0.1), 3, 30 * s},
		{"a climb from 0 starts at its start", []scenario.Segment{{From: 0, To: 100, For: 10 * s}}, 0, 0},
		{"N = 5t²: half of the climb's 500 come after 7.07 s", []scenario.Segment{{From: 0, To: 100, For: 10 * s}}, 250, 7071067812},
		{"after the last climb its rate is held", []scenario.Segment{{From: 0, To: 100, For: 10 * s}}, 600, 11 * s},
		{"a fall to 0 ends with its last request", []scenario.Segment{{From: 100, To: 0, For: 10 * s}}, 500, never},
		{"a fall is a climb backwards", []scenario.Segment{{From: 100, To: 0, For: 10 * s}}, 250, 10*s - 7071067812},
		{"a pause holds no requests", []scenario.Segment{{From: 10, To: 10, For: s}, {For: 5 * s}, {From: 10, To: 10}}, 10, 6 * s},
		{"the last before the pause", []scenario.Segment{{From: 10, To: 10, For: s}, {For: 5 * s}, {From: 10, To: 10}}, 9, 900 * time.Millisecond},
		{"steps carry fractions over: 1.5 requests, then 2/s", []scenario.Segment{{From: 1.5, To: 1.5, For: s}, {From: 2, To: 2}}, 2, 1250 * time.Millisecond},
		{"no rate, no request", flat(0), 0, never},
	} {
		r, err := newRates(tt.rate)
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		if got := (even{r}).due(tt.i); got != tt.want {
			t.Errorf("%s: request %d of %v is due at %v, want %v", tt.why, tt.i, tt.rate, got, tt.want)
		}
	}
}

func flat(rate float64) []scenario.Segment { return []scenario.Segment{{From: rate, To: rate}} }

// The schedule of a phase holds exactly rate × length requests, in order.
func TestRatesCount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rate   []scenario.Segment
		length time.Duration
		want   uint64
	}{
		{flat(2400), 70 * time.Second, 168000},
		{flat(120), 65 * time.Second, 7800},
		{flat(1000.0 / 3), 30 * time.Second, 10000},
		{[]scenario.Segment{{From: 100, To: 300, For: 20 * time.Second}}, 20 * time.Second, 4000},
	} {
		r, err := newRates(tt.rate)
		if err != nil {
			t.Fatal(err)
		}
		p, n, last := even{r}, uint64(0), time.Duration(0)
		for ; p.due(n) < tt.length; n++ {
			if p.due(n) < last {
				t.Fatalf("%v: request %d is due at %v, after one due at %v", tt.rate, n, p.due(n), last)
			}
			last = p.due(n)
		}
		if n != tt.want {
			t.Errorf("%v has %d requests in %v, want %d", tt.rate, n, tt.length, tt.want)
		}
	}
}

// vegeta's linear pacer is another author's reading of the same ramp: at any
// due time it must agree on the rate, and its own hits must come when ours do,
// within the one request by which it starts counting later.
func TestRampAgreesWithVegeta(t *testing.T) {
	t.Parallel()
	ours, err := newRates([]scenario.Segment{{From: 50, To: 250, For: 20 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	theirs := vegeta.LinearPacer{StartAt: vegeta.Rate{Freq: 50, Per: time.Second}, Slope: 10}
	elapsed := time.Duration(0)
	for hit := range uint64(3000) {
		wait, stop := theirs.Pace(elapsed, hit)
		if stop {
			t.Fatal("vegeta stops")
		}
		elapsed += max(wait, 0)
		period := time.Duration(1e9 / theirs.Rate(elapsed))
		if d := elapsed - (even{ours}).due(hit); d < -period/10 || d > period*11/10 {
			t.Fatalf("request %d is due at %v, vegeta's at %v", hit, even{ours}.due(hit), elapsed)
		}
	}
}

func TestRatesRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rate []scenario.Segment
		want string
	}{
		{nil, "none is given"},
		{flat(-1), "allowed is 0 or more"},
		{flat(math.NaN()), "allowed is 0 or more"},
		{flat(math.Inf(1)), "allowed is 0 or more"},
		{[]scenario.Segment{{From: 1, To: 1}, {From: 2, To: 2}}, "only the last one may have no length"},
		{[]scenario.Segment{{From: 1, To: 2}}, "in no time"},
	} {
		if _, err := newRates(tt.rate); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("newRates(%v) = %v, want an error with %q", tt.rate, err, tt.want)
		}
	}
}

func TestConnections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		rate    float64
		latency time.Duration
		want    int
	}{
		{"the old arm of phase 1: 1,058 in flight, half as many again", 2280, 464 * time.Millisecond, 1587},
		{"the new arm, were every request a miss", 120, 464 * time.Millisecond, 84},
		{"a fast system still has room for a few slow answers", 500, 200 * time.Microsecond, 16},
		{"nothing known", 0, 0, 16},
		{"absurd figures don't overflow", 1e300, time.Hour, math.MaxInt32},
	} {
		if got := Connections(tt.rate, tt.latency); got != tt.want {
			t.Errorf("%s: Connections(%v, %v) = %d, want %d", tt.why, tt.rate, tt.latency, got, tt.want)
		}
	}
}
