package gate

import (
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
	"phasegate/harness/timeline"
)

// The table of verdicts.md, and what each rule needs besides.
func TestNeedOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, gate     string
		looks         int
		clean, oneBad int64
		of            string
	}{
		{"0.5 % of errors", "error_rate < 0.5%", 1, 598, 947, "requests"},
		{"99.95 % availability", "availability > 99.95%", 1, 5990, 9486, "requests"},
		{"99.98 %", "availability > 99.98%", 1, 14978, 23718, "requests"},
		{"99.99 %, with one failure 47,437", "availability > 99.99%", 1, 29956, 47437, "requests"},
		{"with one extension 36,887", "availability > 99.99%", 2, 36887, 55715, "requests"},
		{"59 handshakes show more than 95 %", "negotiation_success > 95%", 1, 59, 93, "TLS handshakes"},
		{"p95 is a share of 5 %", "p95_latency < 10ms", 1, 59, 93, "requests"},
		{"hits are counted over what a cache may answer", "cache_hit_ratio > 70%", 1, 9, 14, "cacheable requests"},
		{"no sample shows exactly all", "availability >= 100%", 1, 0, 0, "requests"},
		{"a count is decided by whatever there is", "wrong_responses <= 0", 1, 1, 0, "requests"},
		{"a mean is bounded by its intervals", "throughput > 15/s", 1, 0, 0, ""},
	} {
		c, err := scenario.ParseCondition(tt.gate)
		if err != nil {
			t.Fatal(err)
		}
		n := NeedOf(scenario.Gate{Condition: c}, Look{Planned: tt.looks})
		if n.Clean != tt.clean || n.OneBad != tt.oneBad || n.Of != tt.of {
			t.Errorf("%s: %s needs %d, with one bad %d %s; want %d, %d %s", tt.why, tt.gate, n.Clean, n.OneBad, n.Of, tt.clean, tt.oneBad, tt.of)
		}
		if n.Allowed > 0 {
			if p := stat.Power(n.Power, n.Truth, n.Allowed, n.Confidence); p < Power || n.Power <= n.OneBad {
				t.Errorf("%s: power %g at %d, %d with one bad", tt.why, p, n.Power, n.OneBad)
			}
		}
	}
	// A piece of 2 MiB is 10 MB/hour over 755 s, and 100 MB/hour over less than the least.
	for text, want := range map[string]time.Duration{"memory_growth_rate < 10MB/hour": 755 * time.Second, "memory_growth_rate < 100MB/hour": 5 * time.Minute} {
		slope, _ := scenario.ParseCondition(text)
		if n := NeedOf(scenario.Gate{Condition: slope}, Look{}); n.Length != want || n.Intervals != 0 {
			t.Errorf("%s: %+v, want a length of %s", text, n, want)
		}
	}
	// A run too short for a line asks for what the plan says, and so does one
	// without noise: the plan is where both end.
	for _, text := range []string{"memory_growth_rate < 10MB/hour", "memory_growth_rate < 100MB/hour"} {
		need := NeedOf(gateOn(t, text), Look{})
		for _, seconds := range []int{2, 3, 30, 65, 299} {
			j := judgeMemory(t, text, make([]float64, seconds))
			lacking := int(need.Length/time.Second) - seconds
			if want := formatCount(float64(lacking)*120) + " requests at 120/s"; j.Verdict != Inconclusive || !strings.Contains(j.Reason, want) {
				t.Errorf("%s after %d s: want another %d s, %s: %s", text, seconds, lacking, want, j.Reason)
			}
		}
	}
	mean, _ := scenario.ParseCondition("cpu < 20%")
	if n := NeedOf(scenario.Gate{Condition: mean}, Look{}); n.Intervals != stat.MinIntervals {
		t.Errorf("a mean: %+v", n)
	}
}

// What a plan says that a gate needs is what the judge asks for: at the clean
// sample it passes, one request or one interval below it doesn't.
func TestNeedIsWhatJudgesAsk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		gate string
		bad  int64
	}{{"availability > 99.95%", 0}, {"availability > 99.95%", 1}, {"error_rate < 0.5%", 0}, {"error_rate < 0.5%", 1}} {
		c, err := scenario.ParseCondition(tt.gate)
		if err != nil {
			t.Fatal(err)
		}
		g := scenario.Gate{Condition: c, System: scenario.New}
		need := NeedOf(g, Look{})
		n := need.Clean
		if tt.bad == 1 {
			n = need.OneBad
		}
		judge := func(n int64, intervals int) Verdict {
			w := timeline.Window{Seconds: float64(intervals), Intervals: make([]timeline.Interval, intervals)}
			w.Requests, w.Offered = n, n
			w.Class[timeline.OK], w.Class[timeline.Transport] = n-tt.bad, tt.bad
			for i := range w.Intervals {
				w.Intervals[i].Requests = n / int64(intervals)
			}
			return Judge(g, Data{Windows: map[string]timeline.Window{scenario.New: w}}, Look{}).Verdict
		}
		at, below, shorter := judge(n, need.Intervals), judge(n-1, need.Intervals), judge(10*n, need.Intervals-1)
		if at != Pass || below != Inconclusive || shorter != Inconclusive {
			t.Errorf("%s with %d bad: %s at %d in %d intervals, %s with one request fewer, %s with one interval fewer", tt.gate, tt.bad, at, n, need.Intervals, below, shorter)
		}
	}
}

// What is said to be counted is what is counted.
func TestCountedAgreesWithTheTally(t *testing.T) {
	t.Parallel()
	w := timeline.Window{HaveLedger: true, Intervals: make([]timeline.Interval, 1)}
	w.Intervals[0].HaveLedger = true
	for _, c := range []*timeline.Counts{&w.Counts, &w.Intervals[0].Counts} {
		*c = timeline.Counts{Requests: 9, Offered: 9, Proven: 9, Cacheable: 9, CacheableProven: 9, ClaimHit: 9, ClientHandshakes: 9}
	}
	w.Intervals[0].Ledger = timeline.LedgerCounts{Requests: 3, Reads: 2, Handshakes: 1}
	for _, m := range scenario.All() {
		if m.Estimator != scenario.ByShare || m.Source == scenario.FromNowhere {
			continue
		}
		tally, missing := tallyOf(m, &w)
		switch {
		case missing != "":
			t.Errorf("%s: %s", m.Name, missing)
		case tally.of != counted(m) && m.Name != "blocking_ratio": // of the answers to cacheable requests
			t.Errorf("%s is counted over %q, and %q is said", m.Name, tally.of, counted(m))
		}
	}
}

// A run is extended where that may decide something, and not in vain.
func TestMayDecide(t *testing.T) {
	t.Parallel()
	minute := run{seconds: 60, rate: 20, outcome: always(hit())}
	for _, tt := range []struct {
		why, gate string
		left      time.Duration
		change    func(*Data)
		want      bool
	}{
		{"it passes already", "error_rate < 0.5%", time.Minute, nil, false},
		{"5,990 requests take five minutes", "availability > 99.95%", 5 * time.Minute, nil, true},
		{"and not one", "availability > 99.95%", time.Minute, nil, false},
		{"no sample shows exactly all", "availability >= 100%", time.Hour, nil, false},
		{"not measurable by this version", "dashboard_uptime > 99.9%", time.Hour, nil, false},
		{"a system that doesn't offer it", "memory <= 200MB", time.Hour, func(d *Data) {
			d.Missing = map[string]map[string]string{scenario.New: {"memory": "not ours to sample"}}
		}, false},
		{"as many seconds again, with a part of a request", "p95_latency < 10ms", 5 * time.Second, func(d *Data) {
			*d = run{seconds: 5, rate: 33, outcome: always(hit())}.data(t, gateOn(t, "p95_latency < 10ms"))
			d.Rate = map[string]float64{scenario.New: 33.3}
		}, true},
		{"handshakes that may still come", "client_negotiation_success > 95%", time.Minute, nil, true},
		{"more time doesn't make a machine faster", "p95_latency < 1ms", time.Hour, func(d *Data) { d.Stolen = 0.2 }, false},
		{"requests that are under way", "wrong_responses <= 0", time.Minute, func(d *Data) {
			w := d.Windows[scenario.New]
			w.Offered += 5
			d.Windows[scenario.New] = w
		}, true},
	} {
		g := gateOn(t, tt.gate)
		d := minute.data(t, g)
		if tt.change != nil {
			tt.change(&d)
		}
		if got := MayDecide(g, d, Look{Number: 1, Planned: 1}, tt.left); got != tt.want {
			t.Errorf("%s: %t: %+v", tt.why, got, Judge(g, d, Look{}))
		}
	}
}
