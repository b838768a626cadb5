package load

import (
	"math"
	"slices"
	"testing"
	"time"

	"phasegate/harness/scenario"
)

func random(t testing.TB, l scenario.Load, seed uint64) *poisson {
	t.Helper()
	l.Poisson = true
	p, err := newPacer(l, seed)
	if err != nil {
		t.Fatal(err)
	}
	return p.(*poisson)
}

// Sequential, backwards, at random, twice: a position is due when it is due.
func TestPoissonIsAFunctionOfThePosition(t *testing.T) {
	t.Parallel()
	load := scenario.Load{Rate: flat(1000)}
	const n = 3*block + 7
	var want [n]time.Duration
	p := random(t, load, 7)
	for i := range want {
		want[i] = p.due(uint64(i))
		if i > 0 && want[i] < want[i-1] {
			t.Fatalf("request %d is due at %v, after one due at %v", i, want[i], want[i-1])
		}
	}
	fresh := random(t, load, 7)
	for _, i := range []int{n - 1, 0, 1, block, block - 1, 2*block + 1, 2 * block, 2 * block, 5, 2*block - 1, n - 1, block + 1} {
		for name, p := range map[string]*poisson{"used": p, "fresh": fresh} {
			if got := p.due(uint64(i)); got != want[i] {
				t.Errorf("%s: request %d is due at %v, and was due at %v in sequence", name, i, got, want[i])
			}
		}
	}
	if random(t, load, 8).due(0) == want[0] {
		t.Error("another seed gives the same arrivals")
	}
	if len(p.starts) != 4 {
		t.Errorf("%d sums kept for %d positions", len(p.starts), n)
	}
}

// The counts of equal stretches of a Poisson process of constant rate are
// independent with variance = mean; constant arrivals have variance 0. The
// bounds are four standard errors for the seed at hand.
func TestPoissonCountsAreDispersed(t *testing.T) {
	t.Parallel()
	const seed, stretches, mean = 11, 2000, 50
	p := random(t, scenario.Load{Rate: flat(mean)}, seed)
	var counts [stretches]float64
	gaps := []float64{}
	last := time.Duration(0)
	for i := uint64(0); ; i++ {
		due := p.due(i)
		if due >= stretches*time.Second {
			break
		}
		counts[due/time.Second]++
		gaps = append(gaps, (due-last).Seconds()*mean)
		last = due
	}
	sum, squares, lagged := 0.0, 0.0, 0.0
	for i, c := range counts {
		sum += c
		squares += (c - mean) * (c - mean)
		if i > 0 {
			lagged += (c - mean) * (counts[i-1] - mean)
		}
	}
	if dispersion := squares / stretches / mean; math.Abs(dispersion-1) > 4*math.Sqrt(2.0/stretches) {
		t.Errorf("seed %d: variance ÷ mean is %.3f, want 1", seed, dispersion)
	}
	if got := sum / stretches; math.Abs(got-mean) > 4*math.Sqrt(mean/float64(stretches)) {
		t.Errorf("seed %d: %.2f requests/s, want %d", seed, got, mean)
	}
	if correlation := lagged / squares; math.Abs(correlation) > 4/math.Sqrt(stretches) {
		t.Errorf("seed %d: neighbouring seconds correlate by %.3f, want 0", seed, correlation)
	}
	// The gaps are exponential: Kolmogorov–Smirnov at 0.1 % (1.95/√n).
	slices.Sort(gaps)
	worst := 0.0
	for i, g := range gaps {
		worst = max(worst, math.Abs(1-math.Exp(-g)-float64(i)/float64(len(gaps))))
	}
	if limit := 1.95 / math.Sqrt(float64(len(gaps))); worst > limit {
		t.Errorf("seed %d: the gaps' distribution is off by %.4f, allowed %.4f", seed, worst, limit)
	}
}

// With every shape the arrivals follow its rate: the count of each stretch is
// within four standard deviations of the shape's own.
func TestPoissonFollowsTheShape(t *testing.T) {
	t.Parallel()
	const seed = 3
	for _, tt := range []struct {
		why  string
		load scenario.Load
	}{
		{"a ramp", scenario.Load{Rate: []scenario.Segment{{From: 0, To: 2000, For: 20 * time.Second}, {From: 2000, To: 2000}}}},
		{"steps with a pause", scenario.Load{Rate: []scenario.Segment{{From: 500, To: 500, For: 5 * time.Second}, {For: 5 * time.Second}, {From: 900, To: 900}}}},
		{"a wave", scenario.Load{Sine: &scenario.Sine{Mean: 1000, Amplitude: 1000, Period: 13 * time.Second}}},
	} {
		constant, err := newPacer(tt.load, seed)
		if err != nil {
			t.Fatal(err)
		}
		count := func(p pacer) (seconds [25]float64) {
			for i := uint64(0); ; i++ {
				due := p.due(i)
				if due >= 25*time.Second {
					return seconds
				}
				seconds[due/time.Second]++
			}
		}
		want, got := count(constant), count(random(t, tt.load, seed))
		for s := range want {
			if math.Abs(got[s]-want[s]) > 4*math.Sqrt(want[s])+1 {
				t.Errorf("%s, seed %d: %v requests in second %d, want about %v", tt.why, seed, got[s], s, want[s])
			}
		}
	}
}

// A rate that ends has a last request, and asking for one far behind it is
// answered at once.
func TestPoissonEnds(t *testing.T) {
	t.Parallel()
	p := random(t, scenario.Load{Rate: []scenario.Segment{{From: 100, To: 0, For: 10 * time.Second}, {}}}, 1)
	if got := p.due(math.MaxUint64); got != never {
		t.Errorf("the last request conceivable is due at %v", got)
	}
	n := uint64(0)
	for ; p.due(n) != never; n++ {
	}
	if n < 400 || n > 600 {
		t.Errorf("%d requests, want about 500", n)
	}
}

func BenchmarkDue(b *testing.B) {
	for name, load := range map[string]scenario.Load{
		"constant": {Rate: flat(2000)},
		"poisson":  {Rate: flat(2000), Poisson: true},
		"sine":     {Sine: &scenario.Sine{Mean: 2000, Amplitude: 1500, Period: 10 * time.Minute}},
	} {
		b.Run(name, func(b *testing.B) {
			p, err := newPacer(load, 1)
			if err != nil {
				b.Fatal(err)
			}
			for i := uint64(0); b.Loop(); i++ {
				p.due(i)
			}
		})
	}
}
