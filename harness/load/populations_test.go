package load

import (
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
)

func populated() scenario.Load {
	l := zipfLoad()
	l.Writes = scenario.Writes{Share: 0.1, Method: "PUT", Path: "/documents/{key}"}
	l.Also = []scenario.Population{
		{Share: 0.2, Path: "/texts/{key}", Count: 3, Fields: []scenario.Field{{Name: "Accept-Language", Values: []string{"de", "en"}}, {Name: "X-Tier", Values: []string{"a", "b", "c"}}}},
		{Share: 0.1, Path: "/search?q={key}", Count: 2, Close: true},
		{Share: 0.05, Path: "/home", Count: 1},
	}
	return l
}

func TestPopulations(t *testing.T) {
	t.Parallel()
	m := mixOf(t, populated(), 1)
	m.also.vary([]string{"Accept-Language"})
	const n = 100_000
	paths, methods, combined, closed := map[string]int{}, map[string]int{}, map[string]int{}, 0
	for i := range uint64(n) {
		r := m.at(i)
		target := string(m.appendTarget(nil, r.target))
		if int(r.target) >= m.targets() {
			t.Fatalf("target %d of %d", r.target, m.targets())
		}
		methods[r.method]++
		path := target
		if !strings.HasPrefix(path, "/search") {
			path = "/" + strings.Split(target, "/")[1]
		}
		paths[path]++
		if r.extra == nil {
			continue
		}
		var header []string
		for _, f := range r.extra.header {
			header = append(header, f[0]+": "+f[1])
			if f == [2]string{"Connection", "close"} {
				closed++
			}
		}
		if path == "/texts" {
			combined[target+" "+strings.Join(header, ", ")]++
			if want := "accept-language=" + r.extra.header[0][1]; r.extra.variant != want {
				t.Fatalf("%s selects %q, want %q", header, r.extra.variant, want)
			}
		}
	}
	near(t, "texts", paths["/texts"], n, 0.2)
	near(t, "one search", paths["/search?q=k1"], n, 0.05)
	near(t, "home", paths["/home"], n, 0.05)
	near(t, "writes, of all requests", methods["PUT"], n, 0.1)
	near(t, "the main kind", paths["/items"], n, 0.55)
	near(t, "closed connections", closed, n, 0.1)
	if len(combined) != 3*2*3 {
		t.Errorf("%d combinations of key and fields, want 18", len(combined))
	}
	for what, k := range combined {
		near(t, what, k, n, 0.2/18)
	}
}

// Adding a population leaves the other requests' keys as they were.
func TestPopulationsLeaveTheOthers(t *testing.T) {
	t.Parallel()
	alone, beside := mixOf(t, zipfLoad(), 1), mixOf(t, func() scenario.Load {
		l := zipfLoad()
		l.Also = []scenario.Population{{Share: 0.3, Path: "/home", Count: 1}}
		return l
	}(), 1)
	for i := range uint64(1000) {
		if a, b := alone.at(i), beside.at(i); b.target < beside.also.from && a.target != b.target {
			t.Fatalf("position %d: key %d, and %d beside a population", i, a.target, b.target)
		}
	}
}

func TestPopulationsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why  string
		also []scenario.Population
		want string
	}{
		{"more than all", []scenario.Population{{Share: 0.6, Path: "/a", Count: 1}, {Share: 0.6, Path: "/b", Count: 1}}, "number 2: a share of 0.6 beside 0.6"},
		{"no key", []scenario.Population{{Share: 0.1, Path: "/a"}}, "number 1: 0 keys"},
		{"no path", []scenario.Population{{Share: 0.1, Count: 1}}, "doesn't begin with /"},
		{"too many values", []scenario.Population{{Share: 0.1, Path: "/a", Count: 1, Fields: []scenario.Field{
			{Name: "a", Values: make([]string, 200)}, {Name: "b", Values: make([]string, 200)}}}}, "combinations"},
	} {
		l := zipfLoad()
		l.Also = tt.also
		if _, err := newMix(l, 1); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.why, err, tt.want)
		}
	}
}

func TestWrongAge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why             string
		field           string
		asked, complete time.Duration
		wrong           bool
	}{
		{"as it was", "60", time.Minute, time.Minute, false},
		{"none", "", time.Minute, time.Minute, true},
		{"none, of what may have been on its way", "", time.Second, 2 * time.Second, false},
		{"a second more, by a Date in whole seconds", "61", time.Minute, time.Minute, false},
		{"two less", "58", time.Minute, time.Minute, false},
		{"three less", "57", time.Minute, time.Minute, true},
		{"three more", "63", time.Minute, time.Minute, true},
		{"of when a slow answer was complete", "63", time.Minute, 62 * time.Second, false},
		{"zero for ever", "0", 3 * time.Second, 3 * time.Second, true},
		{"no number", "1.5", 2 * time.Second, 2 * time.Second, true},
	} {
		if got := wrongAge([]byte(tt.field), tt.asked, tt.complete); got != tt.wrong {
			t.Errorf("%s: Age %q at %v is wrong: %v", tt.why, tt.field, tt.asked, got)
		}
	}
}
