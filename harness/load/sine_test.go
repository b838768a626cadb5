package load

import (
	"math"
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"

	vegeta "github.com/tsenart/vegeta/v12/lib"
	"pgregory.net/rapid"
)

func wave(t testing.TB, s scenario.Sine) even {
	t.Helper()
	shape, err := newSine(s)
	if err != nil {
		t.Fatal(err)
	}
	return even{shape}
}

func TestSineDue(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, tt := range []struct {
		why  string
		sine scenario.Sine
		i    uint64
		want time.Duration
	}{
		{"the first request is due at once", scenario.Sine{Mean: 100, Amplitude: 50, Period: 10 * s}, 0, 0},
		{"also at a trough of 0", scenario.Sine{Mean: 100, Amplitude: 100, Period: 10 * s, Start: vegeta.Trough}, 0, 0},
		{"a period holds mean × period", scenario.Sine{Mean: 100, Amplitude: 50, Period: 10 * s, Start: vegeta.Peak}, 1000, 10 * s},
		{"and so does every other: a day later nothing has drifted", scenario.Sine{Mean: 2400, Amplitude: 2399, Period: 10 * s, Start: 1}, 2400 * 86400, 86400 * s},
		{"no amplitude, no wave", scenario.Sine{Mean: 100, Period: 10 * s}, 250, 2500 * time.Millisecond},
		// N(P/2) = M·P/2 + A·P/π = 500·π + 1000 = 2570.796, at 314.16/s.
		{"the upper half comes first from the mean up", scenario.Sine{Mean: 100 * math.Pi, Amplitude: 100 * math.Pi, Period: 10 * s}, 2570, 4997467 * time.Microsecond},
		{"from the mean down the lower one does: half of a period's are due when it has turned", scenario.Sine{Mean: 100, Amplitude: 100, Period: 10 * s, Start: vegeta.MeanDown}, 1000, 10 * s},
		{"from the trough a half period is half of it: the wave is symmetric", scenario.Sine{Mean: 100, Amplitude: 100, Period: 10 * s, Start: vegeta.Trough}, 500, 5 * s},
		{"from the peak as well, where the rate is 0 just then", scenario.Sine{Mean: 101, Amplitude: 101, Period: 10 * s, Start: vegeta.Peak}, 505, 5 * s},
	} {
		p := wave(t, tt.sine)
		got := p.due(tt.i)
		// Where the rate is 0 a due time can't be told more finely than the
		// integral is: to its third root.
		if d := got - tt.want; d > time.Millisecond || d < -time.Millisecond {
			t.Errorf("%s: request %d is due at %v, want %v", tt.why, tt.i, got, tt.want)
		}
	}
}

// Whatever the wave, due times invert its integral, which is computed here
// from vegeta's rate by Simpson's rule within the first wave, and never decrease.
func TestSineInvertsItsIntegral(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		mean := rapid.IntRange(1, 5000).Draw(t, "mean")
		amplitude := rapid.IntRange(0, mean-1).Draw(t, "amplitude")
		period := time.Duration(rapid.IntRange(1000/mean+1, 3600_000).Draw(t, "period")) * time.Millisecond
		start := rapid.SampledFrom([]float64{vegeta.MeanUp, vegeta.Peak, vegeta.MeanDown, vegeta.Trough}).Draw(t, "start")
		i := rapid.Uint64Range(1, max(1, uint64(float64(mean)*period.Seconds()))).Draw(t, "i")
		ours, err := newSine(scenario.Sine{Mean: float64(mean), Amplitude: float64(amplitude), Period: period, Start: start})
		if err != nil {
			t.Fatal(err)
		}
		theirs := vegeta.SinePacer{Period: period, Mean: vegeta.Rate{Freq: mean, Per: time.Second}, Amp: vegeta.Rate{Freq: amplitude, Per: time.Second}, StartAt: start}
		due := even{ours}.due(i)
		const steps = 400
		h, sum := due.Seconds()/steps, 0.0
		for k := 0; k <= steps; k++ {
			weight := []float64{2, 4}[k%2]
			if k == 0 || k == steps {
				weight = 1
			}
			sum += weight * theirs.Rate(time.Duration(float64(due)*float64(k)/steps))
		}
		got := sum * h / 3
		if tolerance := 1e-6*float64(i) + 1e-3; math.Abs(got-float64(i)) > tolerance {
			t.Fatalf("until request %d, due at %v, vegeta's rate makes %v", i, due, got)
		}
		if before := (even{ours}).due(i - 1); before > due {
			t.Fatalf("request %d is due at %v, the one before at %v", i, due, before)
		}
	})
}

// The deepest wave, request by request, over three periods: as many as there
// must be, in order, and fewest at the troughs.
func TestSineCount(t *testing.T) {
	t.Parallel()
	p := wave(t, scenario.Sine{Mean: 1000, Amplitude: 1000, Period: 4 * time.Second})
	var quarters [12]int
	last := time.Duration(0)
	n := uint64(0)
	for ; ; n++ {
		due := p.due(n)
		if due < last {
			t.Fatalf("request %d is due at %v, after one due at %v", n, due, last)
		}
		if last = due; due >= 12*time.Second {
			break
		}
		quarters[due/time.Second]++
	}
	if n != 12000 {
		t.Errorf("%d requests in 12 s, want 12,000", n)
	}
	for i, got := range quarters { // 1000 ± 1000·2/π
		want := [4]int{1637, 1637, 363, 363}[i%4]
		if got < want-2 || got > want+2 {
			t.Errorf("second %d: %d requests, want %d", i, got, want)
		}
	}
}

func TestSineRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why  string
		sine scenario.Sine
		want string
	}{
		{"silence", scenario.Sine{Period: time.Second}, "about 0/s"},
		{"no number", scenario.Sine{Mean: math.NaN(), Period: time.Second}, "about NaN/s"},
		{"a rate below 0", scenario.Sine{Mean: 1, Amplitude: 2, Period: time.Second}, "allowed is 0 to the mean"},
		{"an amplitude below 0", scenario.Sine{Mean: 1, Amplitude: -1, Period: time.Second}, "allowed is 0 to the mean"},
		{"no period", scenario.Sine{Mean: 1}, "a period of 0s"},
		{"no start", scenario.Sine{Mean: 1, Period: 1, Start: math.Inf(1)}, "starts at"},
	} {
		if _, err := newPacer(scenario.Load{Sine: &tt.sine}, 0); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.why, err, tt.want)
		}
	}
}
