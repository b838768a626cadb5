package gate

import (
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

func TestWindowLength(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why         string
		rate, scale float64
		want        time.Duration
	}{
		{"a minute", 120, 1, time.Minute},
		{"scaled to a second, and so five", 120, 60, 5 * time.Second},
		{"50 requests take longer", 2, 60, 25 * time.Second},
		{"rounded up to whole seconds", 7, 60, 8 * time.Second},
		{"unscaled, and slow", 0.5, 1, 100 * time.Second},
		{"no rate known", 0, 60, 5 * time.Second},
		{"no scale is none", 120, 0, time.Minute},
		{"hardly any rate", 1e-300, 60, 5 * time.Second},
		{"too little to wait for", 1e-7, 60, 5 * time.Second}, // ten times as long is no time.Duration any more
	} {
		if got := WindowLength(tt.rate, tt.scale); got != tt.want {
			t.Errorf("%s: WindowLength(%g, %g) = %v, want %v", tt.why, tt.rate, tt.scale, got, tt.want)
		}
	}
}

// rareRun has so many upstream requests, reads and handshakes in each of its seconds,
// and a hundred requests. Some of the upstream's are bad: they go over HTTP/1.1, are
// duplicates, or fail.
func rareRun(t testing.TB, bad func(second int, n int64) int64, perSecond ...int64) *timeline.Recorder {
	t.Helper()
	rec, err := timeline.New(timeline.Config{Systems: []string{scenario.New}})
	if err != nil {
		t.Fatal(err)
	}
	var l timeline.LedgerCounts
	for second, n := range perSecond {
		at := time.Duration(second) * time.Second
		rec.Ledger(0, at, l)
		k := bad(second, n)
		l.Requests, l.HTTP2 = l.Requests+n, l.HTTP2+n-k
		l.Reads, l.Duplicates = l.Reads+n, l.Duplicates+k
		l.Handshakes, l.HandshakeFailures = l.Handshakes+n-k, l.HandshakeFailures+k
		for i := range 100 {
			o := hit()
			o.Due = at + time.Duration(i)*10*ms
			rec.Offer(0, o.Due)
			rec.Record(0, o)
		}
	}
	rec.Ledger(0, time.Duration(len(perSecond))*time.Second, l)
	return rec
}

// badFrom makes all bad from a second on.
func badFrom(from int) func(second int, n int64) int64 {
	return func(second int, n int64) int64 {
		if second < from {
			return 0
		}
		return n
	}
}

// stretched is the window of five seconds that ends at a time, and what becomes of
// it, stretched to earliest at the most.
func stretched(t testing.TB, metric string, rec *timeline.Recorder, end, earliest time.Duration) (basic, w timeline.Window) {
	t.Helper()
	m, ok := scenario.Lookup(metric)
	if !ok {
		t.Fatalf("no metric %s", metric)
	}
	basic = rec.Window(0, max(end-5*time.Second, earliest), end)
	return basic, Stretch(m, basic, earliest, func(from time.Duration) timeline.Window { return rec.Series().Counted(0, from, end) })
}

// The window of what is rare reaches back as far as it needs, and no further than
// it may.
func TestWindowReachesBackForWhatIsRare(t *testing.T) {
	t.Parallel()
	evenly := func(n int64, seconds int) []int64 {
		all := make([]int64, seconds)
		for i := range all {
			all[i] = n
		}
		return all
	}
	quiet := append(evenly(7, 60), 0, 0, 0, 0, 0)
	for _, tt := range []struct {
		why, metric string
		perSecond   []int64
		earliest    time.Duration
		length      time.Duration
		reason      string
	}{
		{"35 in five seconds, 56 in eight", "http2_adoption", evenly(7, 60), 10 * time.Second, 8 * time.Second, ""},
		{"handshakes", "negotiation_success", evenly(2, 60), 10 * time.Second, 25 * time.Second, ""},
		{"reuse", "connection_reuse", evenly(5, 60), 10 * time.Second, 10 * time.Second, ""},
		{"enough in five seconds", "http2_adoption", evenly(10, 60), 10 * time.Second, 5 * time.Second, ""},
		{"exactly as many as there may be", "negotiation_success", evenly(1, 60), 10 * time.Second, 50 * time.Second, ""},
		{"too few in all", "negotiation_success", evenly(1, 60), 20 * time.Second, 40 * time.Second, "40 TLS handshakes in its window of 40s are fewer than 50"},
		{"what it is armed at bounds it", "http2_adoption", evenly(7, 60), 57 * time.Second, 3 * time.Second, "21 upstream requests in its window of 3s"},
		{"nothing in five seconds: what was before isn't now", "http2_adoption", quiet, 10 * time.Second, 5 * time.Second, "no request reached the upstream"},
		{"a single one is now", "http2_adoption", append(evenly(7, 60), 0, 0, 0, 0, 1), 10 * time.Second, 12 * time.Second, ""},
		{"requests aren't rare", "error_rate", evenly(0, 60), 10 * time.Second, 5 * time.Second, ""},
	} {
		end := time.Duration(len(tt.perSecond)) * time.Second
		basic, w := stretched(t, tt.metric, rareRun(t, badFrom(1000), tt.perSecond...), end, tt.earliest)
		trigger := NewTrigger(scenario.Trigger{Condition: condition(t, tt.metric+" < 80%")}, 1, 0)
		trigger.Observe(end, basic, w, 0)
		if s := trigger.Status(); w.To != end || w.To-w.From != tt.length || !strings.Contains(s.Reason, tt.reason) || (s.Reason == "") != (tt.reason == "") {
			t.Errorf("%s: %s from %v to %v, %q; want %v, %q", tt.why, tt.metric, w.From, w.To, s.Reason, tt.length, tt.reason)
		}
	}
}

// As the window is no longer than it must be, what changes shows within seconds.
func TestRareTriggerSeesAChangeSoon(t *testing.T) {
	t.Parallel()
	trigger := NewTrigger(scenario.Trigger{Condition: condition(t, "http2_adoption < 80%"), For: 5 * time.Minute}, 60, 0)
	all := make([]int64, 40)
	for i := range all {
		all[i] = 7
	}
	rec := rareRun(t, badFrom(20), all...)
	m, _ := scenario.Lookup("http2_adoption")
	for at := time.Second; at <= 40*time.Second; at += time.Second {
		basic, w := stretched(t, "http2_adoption", rec, at, max(at-LongestWindow(m, 100, 60), 0))
		trigger.Observe(at, basic, w, 0)
	}
	s := trigger.Status()
	// Of 56 requests in eight seconds 14 in two are a quarter.
	if s.FiredAt == nil || *s.PendingAt != 22*time.Second || *s.FiredAt != 27*time.Second || s.Evaluations != 40 || s.WithData != 33 {
		t.Errorf("%+v", s)
	}
}

// One second's bad ones are among the last fifty for long, and are a fault that lasts
// for no longer than its second for that.
func TestStretchedWindowProlongsNoFault(t *testing.T) {
	t.Parallel()
	const length, start = 165, 100
	for _, tt := range []struct {
		why   string
		burst int64 // bad ones more, in the second from start on
		bad   func(second int, n int64) int64
		fired int           // at which second; 0 for never
		at    map[int]State // after so many seconds
	}{
		{"three in a second", 3, nil, 0, map[int]State{
			100: Inactive, 101: Pending, 105: Pending, // it is among the last five seconds
			106: Pending, 130: Pending, // which it may have left out
			145: Inactive,
		}},
		{"so many that chance would have brought more", 30, nil, 0, map[int]State{100: Inactive, 101: Pending, 105: Pending, 106: Inactive, 107: Inactive}},
		{"all, from then on", 0, badFrom(start), 108, map[int]State{102: Inactive, 103: Pending, 107: Pending, 108: Firing, 165: Firing}},
		{"all, for seven seconds", 0, func(s int, n int64) int64 {
			if s < start || s >= start+7 {
				return 0
			}
			return n
		}, 108, map[int]State{103: Pending, 108: Firing, 112: Firing, 160: Inactive}},
		{"one of twelve, and none for more than five seconds", 0, func(s int, _ int64) int64 {
			if s >= start && s%10 == 0 {
				return 1
			}
			return 0
		}, 131, map[int]State{125: Pending, 130: Pending, 131: Firing, 165: Firing}},
	} {
		perSecond := make([]int64, length) // 1.2
		for i := range perSecond {
			if perSecond[i] = 1; i%5 == 4 {
				perSecond[i] = 2
			}
		}
		perSecond[start] += tt.burst
		bad := tt.bad
		if bad == nil {
			bad = func(s int, _ int64) int64 {
				if s == start {
					return tt.burst
				}
				return 0
			}
		}
		rec := rareRun(t, bad, perSecond...)
		for _, when := range []string{"negotiation_success < 95%", "http2_adoption <= 95%", "duplicate_fetches > 5%"} {
			rule := scenario.Trigger{Condition: condition(t, when), For: 5 * time.Minute}
			trigger := NewTrigger(rule, 60, 0)
			for second := 95; second <= length; second++ {
				at := time.Duration(second) * time.Second
				basic, w := stretched(t, rule.Metric.Name, rec, at, max(at-LongestWindow(rule.Metric, 100, 60), 0))
				got := trigger.Observe(at, basic, w, 0)
				if want, told := tt.at[second]; told && got != want {
					t.Errorf("%s: %s: %s after %d s, want %s", tt.why, when, got, second, want)
				}
			}
			s := trigger.Status()
			fired := 0
			if s.FiredAt != nil {
				fired = int(s.FiredAt.Seconds())
			}
			if fired != tt.fired || s.Reason != "" || s.WithData != s.Evaluations {
				t.Errorf("%s: %s: fired at %d, want %d: %+v", tt.why, when, fired, tt.fired, s)
			}
		}
	}
}

func TestLongestWindow(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]time.Duration{
		"http2_adoption": 50 * time.Second, "connection_reuse": 50 * time.Second, "negotiation_success": 50 * time.Second,
		"duplicate_fetches": 50 * time.Second, "client_negotiation_success": 50 * time.Second,
		"error_rate": 5 * time.Second, "p95_latency": 5 * time.Second, "memory": 5 * time.Second, "wrong_responses": 5 * time.Second,
	} {
		m, ok := scenario.Lookup(name)
		if got := LongestWindow(m, 100, 60); !ok || got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
