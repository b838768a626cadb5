package load

import (
	"math"
	"slices"
	"strings"
	"testing"

	"phasegate/harness/scenario"
)

func zipfLoad() scenario.Load {
	return scenario.Load{
		Path: "/items/{key}",
		Keys: scenario.Keys{Distribution: scenario.Zipf, Count: 5000, Exponent: 1.1},
	}
}

func mixOf(t *testing.T, l scenario.Load, seed uint64) *mix {
	t.Helper()
	m, err := newMix(l, seed)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// near fails unless k of n is within 5 standard errors of share p: a chance of
// less than one in a million, and the seed is fixed.
func near(t *testing.T, what string, k, n int, p float64) {
	t.Helper()
	if off := math.Abs(float64(k)/float64(n) - p); off > 5*math.Sqrt(p*(1-p)/float64(n)) {
		t.Errorf("%s: %d of %d is %.4f, want %.4f", what, k, n, float64(k)/float64(n), p)
	}
}

func TestDistributions(t *testing.T) {
	t.Parallel()
	const n = 200_000
	sum := 0.0
	for k := 1; k <= 5000; k++ {
		sum += math.Pow(float64(k), -1.1)
	}
	for _, tt := range []struct {
		why  string
		keys scenario.Keys
		want map[int]float64 // cumulated share up to a rank
	}{
		{"zipf 1.1: P(rank 1) = 1/H, and rank 2 has 2^-1.1 of that",
			scenario.Keys{Distribution: scenario.Zipf, Count: 5000, Exponent: 1.1},
			map[int]float64{1: 1 / sum, 2: (1 + math.Pow(2, -1.1)) / sum}},
		{"zipf 0 is uniform, which math/rand's Zipf can't do",
			scenario.Keys{Distribution: scenario.Zipf, Count: 100, Exponent: 0},
			map[int]float64{1: 0.01, 50: 0.5}},
		{"zipf below 1",
			scenario.Keys{Distribution: scenario.Zipf, Count: 2, Exponent: 0.5},
			map[int]float64{1: 1 / (1 + math.Sqrt2/2)}},
		{"uniform", scenario.Keys{Distribution: scenario.Uniform, Count: 10}, map[int]float64{1: 0.1, 9: 0.9}},
		{"hot: a tenth of the keys get 90 %",
			scenario.Keys{Distribution: scenario.HotSet, Count: 1000, HotKeys: 0.1, HotTraffic: 0.9},
			map[int]float64{50: 0.45, 100: 0.9, 550: 0.95}},
		{"hot: at least one key is hot, however small the share",
			scenario.Keys{Distribution: scenario.HotSet, Count: 10, HotKeys: 0.001, HotTraffic: 0.5},
			map[int]float64{1: 0.5}},
		{"hot: where all keys are, traffic can't differ",
			scenario.Keys{Distribution: scenario.HotSet, Count: 4, HotKeys: 1, HotTraffic: 0.5},
			map[int]float64{1: 0.25}},
	} {
		l := zipfLoad()
		l.Keys = tt.keys
		m := mixOf(t, l, 7)
		counts := make([]int, tt.keys.Count+1)
		for i := range uint64(n) {
			counts[m.at(i).target+1]++
		}
		for rank := 1; rank <= tt.keys.Count; rank++ {
			counts[rank] += counts[rank-1]
			if p, ok := tt.want[rank]; ok {
				near(t, tt.why, counts[rank], n, p)
			}
		}
		if counts[tt.keys.Count] != n {
			t.Errorf("%s: %d of %d keys are within the count", tt.why, counts[tt.keys.Count], n)
		}
	}
}

func TestMixWritesAndSplit(t *testing.T) {
	t.Parallel()
	const n = 100_000
	l := zipfLoad()
	l.Writes = scenario.Writes{Share: 0.01, Method: "POST", Path: "/orders"}
	m := mixOf(t, l, 3)
	s, err := newSplit(newStream(3, splitStream), []float64{0.95, 0.05})
	if err != nil {
		t.Fatal(err)
	}
	writes, second, both := 0, 0, 0
	for i := range uint64(n) {
		r, arm := m.at(i), s.at(i)
		if target := string(m.appendTarget(nil, r.target)); r.method == "POST" {
			writes++
			both += arm
			if target != "/orders" {
				t.Fatalf("a write goes to %s", target)
			}
		} else if !strings.HasPrefix(target, "/items/k") || r.method != "GET" {
			t.Fatalf("a read is %s %s", r.method, target)
		}
		second += arm
	}
	near(t, "writes", writes, n, 0.01)
	near(t, "requests of the second arm", second, n, 0.05)
	near(t, "writes of the second arm (the draws are independent)", both, writes, 0.05)
}

// Positions are independent of one another and of what else is drawn: adding
// writes changes those positions alone, another seed changes nearly all.
func TestMixIsAFunctionOfPosition(t *testing.T) {
	t.Parallel()
	l := zipfLoad()
	plain, again, other := mixOf(t, l, 1), mixOf(t, l, 1), mixOf(t, l, 2)
	l.Writes = scenario.Writes{Share: 0.1, Method: "PUT", Path: "/items/{key}"}
	written := mixOf(t, l, 1)
	differ := 0
	for i := uint64(5000); i > 0; i-- { // any order gives the same
		want := plain.at(i)
		if got := again.at(i); got != want {
			t.Fatalf("position %d is %v, then %v", i, want, got)
		}
		if got := written.at(i); got.method == "GET" && got != want {
			t.Fatalf("position %d is %v without writes, %v with", i, want, got)
		} else if got.method == "PUT" && string(written.appendTarget(nil, got.target)) != string(plain.appendTarget(nil, want.target)) {
			t.Fatalf("position %d writes another key than it would read", i)
		}
		if other.at(i) != want {
			differ++
		}
	}
	if differ < 4000 {
		t.Errorf("another seed changes only %d of 5000 positions", differ)
	}
}

// Saved results and prewarmed caches rely on what these draws are: the values
// are SplitMix64's, and may not change with a release.
func TestDrawsStayTheSame(t *testing.T) {
	t.Parallel()
	m := mixOf(t, zipfLoad(), 1)
	var got []string
	for i := range uint64(6) {
		got = append(got, string(m.appendTarget(nil, m.at(i).target)))
	}
	if want := goldenKeys; !slices.Equal(got, want) {
		t.Errorf("seed 1 draws %q, want %q", got, want)
	}
	// The reference implementation's first output from state 0.
	if got := stream(0).at(0); got != 0xe220a8397b1dcdaf {
		t.Errorf("SplitMix64 from 0 begins with %#x", got)
	}
}

func TestPopular(t *testing.T) {
	t.Parallel()
	m := mixOf(t, zipfLoad(), 1)
	var got []string
	for _, r := range m.popular(3) {
		got = append(got, r.method+" "+string(m.appendTarget(nil, r.target)))
	}
	if want := []string{"GET /items/k1", "GET /items/k2", "GET /items/k3"}; !slices.Equal(got, want) {
		t.Errorf("popular(3) = %q", got)
	}
	if n := len(m.popular(1 << 20)); n != 5000 {
		t.Errorf("popular(2^20) has %d of 5000", n)
	}
	if n := len(m.popular(-1)); n != 0 {
		t.Errorf("popular(-1) has %d", n)
	}
	l := zipfLoad()
	l.Path = "/one"
	one := mixOf(t, l, 1)
	if top := one.popular(10); len(top) != 1 || string(one.appendTarget(nil, top[0].target)) != "/one" {
		t.Errorf("a path without a key has popular targets %v", top)
	}
}

func TestMixRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why  string
		edit func(*scenario.Load)
		want string
	}{
		{"no path", func(l *scenario.Load) { l.Path = "" }, "doesn't begin with /"},
		{"a blank would end the target", func(l *scenario.Load) { l.Path = "/a b" }, "which a request target can't"},
		{"a line end would smuggle a header in", func(l *scenario.Load) { l.Path = "/a\r\nX: y" }, "which a request target can't"},
		{"no keys", func(l *scenario.Load) { l.Keys.Count = 0 }, "a count of 0"},
		{"a negative exponent", func(l *scenario.Load) { l.Keys.Exponent = -1 }, "exponent of -1"},
		{"an exponent that isn't a number", func(l *scenario.Load) { l.Keys.Exponent = math.NaN() }, "exponent of NaN"},
		{"no distribution", func(l *scenario.Load) { l.Keys.Distribution = "" }, "allowed are zipf, uniform and hot"},
		{"no hot keys", func(l *scenario.Load) { l.Keys = scenario.Keys{Distribution: scenario.HotSet, Count: 9} }, "some keys must be hot"},
		{"a share above 1", func(l *scenario.Load) { l.Writes.Share = 1.5 }, "allowed is 0 to 1"},
		{"writes that read", func(l *scenario.Load) { l.Writes = scenario.Writes{Share: 0.1, Method: "GET", Path: "/"} }, "one that writes"},
		{"a method with a blank", func(l *scenario.Load) { l.Writes = scenario.Writes{Share: 0.1, Method: "PO ST", Path: "/"} }, "one that writes"},
	} {
		l := zipfLoad()
		tt.edit(&l)
		if _, err := newMix(l, 1); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: the error is %v, want one with %q", tt.why, err, tt.want)
		}
	}
	for _, shares := range [][]float64{{0.5, 0.4}, {1.5, -0.5}, {math.NaN()}} {
		if _, err := newSplit(newStream(1, splitStream), shares); err == nil {
			t.Errorf("newSplit accepts %v", shares)
		}
	}
}

// An arm without a share gets nothing, wherever it stands.
func TestSplitWithoutShare(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		shares []float64
		empty  int
	}{{[]float64{0, 1}, 0}, {[]float64{1, 0}, 1}, {[]float64{0.3, 0.7, 0}, 2}} {
		s, err := newSplit(newStream(1, splitStream), tt.shares)
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(10_000) {
			if s.at(i) == tt.empty {
				t.Fatalf("shares %v: position %d goes to arm %d", tt.shares, i, tt.empty)
			}
		}
	}
}

var goldenKeys = []string{"/items/k21", "/items/k1", "/items/k711", "/items/k1", "/items/k2", "/items/k135"}
