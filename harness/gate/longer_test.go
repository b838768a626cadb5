package gate

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

var needed = regexp.MustCompile(`need ([0-9,]+) more requests \(about |need .* more \(([0-9,]+) requests at `)

// "Need n more" is kept: the same run, that much longer, is decided.
func TestNeedMoreDecides(t *testing.T) {
	t.Parallel()
	const rate = 100
	uneven := func(i int) timeline.Outcome { // the seconds differ by turns
		o := hit()
		o.Latency += time.Duration(i/rate%2) * 4 * ms
		return o
	}
	for _, tt := range []struct {
		gate    string
		run     run
		verdict Verdict
	}{
		{"availability > 99.95%", run{seconds: 40, outcome: always(hit())}, Pass},
		{"error_rate < 0.5%", run{seconds: 4, outcome: every(400, failed(timeline.Status), hit())}, Pass},
		{"error_rate < 0.5%", run{seconds: 20, outcome: every(150, failed(timeline.Status), hit())}, Fail},
		{"p95_latency < 10ms", run{seconds: 5, outcome: every(25, miss(), hit())}, Pass},
		{"p95_latency < 10ms", run{seconds: 5, outcome: every(17, miss(), hit())}, Fail},
		{"p95_latency > 10ms", run{seconds: 5, outcome: every(17, miss(), hit())}, Pass},
		{"cache_hit_ratio > 70%", run{seconds: 1, outcome: every(4, miss(), hit()), reads: func(i int) bool { return i%4 == 3 }}, Pass},
		{"throughput > 50/s", run{seconds: 7, outcome: always(hit())}, Pass},
		{"mean_latency < 4.2ms", run{seconds: 20, outcome: uneven}, Pass},
		{"mean_latency < 3.8ms", run{seconds: 20, outcome: uneven}, Fail},
		{"memory_growth_rate < 10MB/hour", run{seconds: 3, rate: 2, outcome: always(hit()), memory: func(int) int64 { return 60e6 }}, Pass},
		{"memory_growth_rate < 10MB/hour", run{seconds: 65, rate: 2, outcome: always(hit()), memory: func(int) int64 { return 60e6 }}, Pass},
		{"memory_growth_rate < 10MB/hour", run{seconds: 600, rate: 2, outcome: always(hit()), memory: func(second int) int64 { return 60e6 + int64(second)*12e6/3600 }}, Fail},
	} {
		g := gateOn(t, tt.gate)
		if tt.run.rate == 0 {
			tt.run.rate = rate
		}
		j := Judge(g, tt.run.data(t, g), Look{})
		m := needed.FindStringSubmatch(j.Reason)
		if j.Verdict != Inconclusive || m == nil {
			t.Errorf("%s after %d s: %s, want an inconclusive one that says how many more: %s", tt.gate, tt.run.seconds, j.Verdict, j.Reason)
			continue
		}
		more, err := strconv.Atoi(strings.ReplaceAll(m[1]+m[2], ",", ""))
		if err != nil {
			t.Fatal(err)
		}
		tt.run.seconds += (more + tt.run.rate - 1) / tt.run.rate
		if after := Judge(g, tt.run.data(t, g), Look{}); after.Verdict != tt.verdict {
			t.Errorf("%s: %s\n%d s in all: %s, want %s: %s", tt.gate, j.Reason, tt.run.seconds, after.Verdict, tt.verdict, after.Reason)
		}
	}
}

// What no sample mends names what would.
func TestExcusesSayWhatHelps(t *testing.T) {
	t.Parallel()
	g := gateOn(t, "p95_latency < 10ms")
	sentLate := hit()
	sentLate.Latency += 9 * ms
	for _, tt := range []struct {
		why    string
		change func(*Data)
		want   string
	}{
		{"a late generator", func(d *Data) { d.LagP99 = ptr(3 * ms) }, "; more requests don't help: need a lag (p99) of at most 1ms instead of 3ms, from a quieter machine or a lower load.rate"},
		{"a starved machine", func(d *Data) { d.Stolen = 0.1 }, "; more requests don't help: need a machine of which others take at most 2 %"},
		{"both", func(d *Data) { d.Stolen, d.LagP99 = 0.1, ptr(3*ms) },
			"need a machine of which others take at most 2 %, and a lag (p99) of at most 1ms instead of 3ms, from a quieter machine or a lower load.rate"},
	} {
		d := run{seconds: 20, rate: 100, outcome: always(sentLate)}.data(t, g)
		tt.change(&d)
		if j := Judge(g, d, Look{}); j.Verdict != Inconclusive || !strings.HasSuffix(j.Reason, tt.want) {
			t.Errorf("%s: %s: %s, want %q", tt.why, j.Verdict, j.Reason, tt.want)
		}
	}
}

// What is undecided for want of a sample, while a verdict would be taken back for
// the lag, asks for both.
func TestUndecidedNamesTheLagToo(t *testing.T) {
	t.Parallel()
	g := gateOn(t, "p99_latency < 10ms")
	d := run{seconds: 10, rate: 6, outcome: always(hit())}.data(t, g)
	for _, tt := range []struct {
		why  string
		lag  time.Duration
		want string
	}{
		{"a lag that is no matter", ms / 2, "; need 239 more requests (about 40 s at 6/s)"},
		{"beyond a tenth of the limit", 3 * ms, "; the load generator was the bottleneck: it was up to 3ms late (p99) to get to a request, which is more than a tenth of 10ms; " +
			"need 239 more requests (about 40 s at 6/s), and a lag (p99) of at most 1ms instead of 3ms, from a quieter machine or a lower load.rate, for a fail to count"},
	} {
		d.LagP99 = &tt.lag
		if j := Judge(g, d, Look{}); j.Verdict != Inconclusive || !strings.HasSuffix(j.Reason, tt.want) {
			t.Errorf("%s: %s: %s", tt.why, j.Verdict, j.Reason)
		}
	}
}

// A recording that has ended has no more requests to decide a gate by.
func TestNeedBeyondARecording(t *testing.T) {
	t.Parallel()
	g := gateOn(t, "p99_latency < 10ms")
	d := run{seconds: 10, rate: 6, outcome: always(hit())}.data(t, g)
	const need = "need 239 more requests (about 40 s at 6/s)"
	for _, tt := range []struct {
		left float64
		want string
	}{
		{300, need},
		{120, need + ", and the log has only 120 more; load.keys.repeat: true starts it over"},
		{0, need + ", and the log has no more; load.keys.repeat: true starts it over"},
	} {
		d.Left = map[string]float64{scenario.New: tt.left}
		if j := Judge(g, d, Look{}); j.Verdict != Inconclusive || !strings.HasSuffix(j.Reason, "; "+tt.want) {
			t.Errorf("with %g left: %s: %s", tt.left, j.Verdict, j.Reason)
		}
	}
}

// A rate of thousands in every second is one of more than 100/s, however much it
// rose; of a limit nearer to it, what is asked for decides.
func TestUnevenRateIsDecided(t *testing.T) {
	t.Parallel()
	rates := []int64{9000, 9500, 11000, 14000, 16000, 19000, 22000, 25000, 27000, 28000}
	judge := func(text string, n int) Judgement {
		w := timeline.Window{Seconds: float64(n)}
		for i := range n {
			at := i % (2 * len(rates))
			rate := rates[min(at, 2*len(rates)-1-at)]
			in := timeline.Interval{Start: time.Duration(i) * time.Second, End: time.Duration(i+1) * time.Second}
			in.Offered, in.Requests, in.GoodEnded = rate, rate, rate
			w.Intervals = append(w.Intervals, in)
			w.Offered, w.Requests, w.GoodEnded = w.Offered+rate, w.Requests+rate, w.GoodEnded+rate
		}
		return Judge(gateOn(t, text), Data{Windows: map[string]timeline.Window{scenario.New: w}}, Look{})
	}
	if j := judge("throughput > 100/s", 10); j.Verdict != Pass {
		t.Errorf("%s: %s [%g, %g]", j.Verdict, j.Reason, *j.Low, *j.High)
	}
	j := judge("throughput > 9000/s", 10)
	match := regexp.MustCompile(`need ([\d,]+) more requests \(about (\d+) s at`).FindStringSubmatch(j.Reason)
	if j.Verdict != Inconclusive || match == nil {
		t.Fatalf("%s: %s", j.Verdict, j.Reason)
	}
	more, _ := strconv.Atoi(match[2])
	if j := judge("throughput > 9000/s", 10+more); j.Verdict != Pass {
		t.Errorf("after %s: %s: %s", match[0], j.Verdict, j.Reason)
	}
	if j := judge("throughput > 9000/s", 10+more/2); j.Verdict != Inconclusive {
		t.Errorf("after half of it: %s", j.Verdict)
	}
}
