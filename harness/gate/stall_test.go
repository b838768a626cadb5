package gate

import (
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// frozen is a run of 65 s at 300/s, in which the machine stands still from 20 s on
// and the load generator then sends at once what has gathered. What has waited for
// longer than the timeout of 5 s is late for certain, of the rest every other one,
// and so is what was under way for the last 100 ms; then is a system of which that
// is all that can be said.
func frozen(still time.Duration, then func(i int) timeline.Outcome) run {
	const rate, timeout = 300, 5 * time.Second
	late := failed(timeline.Timeout)
	late.Latency, late.Service = timeout, 0
	return run{seconds: 65, rate: rate, outcome: func(i int) timeline.Outcome {
		due := time.Duration(i) * time.Second / rate
		lag := 20*time.Second + still - due
		o := then(i)
		switch {
		case still == 0 || lag <= 0 || lag > still+100*ms:
			return o
		case lag > still: // under way
			return late
		case lag >= timeout || i%2 == 0:
			o = late
		}
		o.Lag = lag
		return o
	}}
}

// at makes one of ten of the requests that fall due in a time o.
func at(from, to time.Duration, o timeline.Outcome) func(int) timeline.Outcome {
	return func(i int) timeline.Outcome {
		if due := time.Duration(i) * time.Second / 300; due >= from && due < to && i%10 == 1 {
			return o
		}
		return hit()
	}
}

// A machine that stood still is no failure of the system, and no pass either: what
// else failed still counts, and what failed in another way at the same time too.
func TestStallExcusesTimeouts(t *testing.T) {
	t.Parallel()
	const timeout = 5 * time.Second
	stands := "the load generator stood still: it was up to 14s late to get to a request, which times out after 5s, and 3,480 requests that timed out were due or under way then"
	for _, tt := range []struct {
		why, gate string
		run       run
		timeout   time.Duration
		verdict   Verdict
		reason    string
	}{
		{"14 s", "error_rate < 0.5%", frozen(14*time.Second, always(hit())), timeout, Inconclusive, stands + ", without which it doesn't fail; otherwise: error_rate is 17.8 % (3,480 of 19,500 requests"},
		{"and what is needed", "error_rate < 0.5%", frozen(14*time.Second, always(hit())), timeout, Inconclusive, "; need a run in which the load generator is never as late as 5s, from a quieter machine or a lower load.rate"},
		{"the same for what was there", "availability > 99.98%", frozen(14*time.Second, always(hit())), timeout, Inconclusive, stands},
		{"and for timeouts by themselves", "timeout_rate < 0.5%", frozen(14*time.Second, always(hit())), timeout, Inconclusive, stands},
		{"where none may fail", "error_rate <= 0%", frozen(14*time.Second, always(hit())), timeout, Inconclusive, stands},
		{"errors of another time fail it", "error_rate < 0.5%", frozen(14*time.Second, at(50*time.Second, time.Minute, failed(timeline.ServerError))), timeout, Fail,
			stands + ", but it fails without these too"},
		{"and so do timeouts", "availability > 99.98%", frozen(14*time.Second, at(50*time.Second, time.Minute, failed(timeline.Timeout))), timeout, Fail, "but it fails without these too"},
		{"timeouts well before it were the system's", "availability > 99.98%", frozen(14*time.Second, at(2*time.Second, 14*time.Second, failed(timeline.Timeout))), timeout, Fail, "but it fails without these too"},
		{"what is refused or cut off meanwhile is the system's, too", "availability > 99.98%", frozen(14*time.Second, at(29*time.Second, 34*time.Second, failed(timeline.Transport))), timeout, Fail, "but it fails without these too"},
		{"a lag that leaves time for an answer excuses nothing", "error_rate < 0.5%", frozen(4900*ms, always(hit())), timeout, Fail, "error_rate is"},
		{"nor does one against a timeout that isn't known", "error_rate < 0.5%", frozen(14*time.Second, always(hit())), 0, Fail, "error_rate is"},
		{"a claim that requests fail isn't broken by them", "error_rate > 50%", frozen(14*time.Second, always(hit())), timeout, Fail, "at most"},
		{"a limit that is kept is kept", "error_rate < 99%", frozen(14*time.Second, always(hit())), timeout, Pass, ""},
		{"no stall, no excuse", "error_rate < 0.5%", frozen(0, at(0, time.Minute, failed(timeline.Timeout))), timeout, Fail, "error_rate is"},
		{"a request without an answer isn't slow for sure", "p95_latency < 10ms", frozen(14*time.Second, always(hit())), timeout, Inconclusive, "the load generator was the bottleneck"},
		{"unless the system didn't give it", "p95_latency < 10ms", frozen(14*time.Second, always(failed(timeline.Timeout))), timeout, Fail, "surely took longer"},
	} {
		g := gateOn(t, tt.gate)
		d := tt.run.data(t, g)
		d.LagP99 = ptr(13 * time.Second)
		without := Judge(g, d, Look{})
		d.Timeout = tt.timeout
		j := Judge(g, d, Look{})
		if j.Verdict != tt.verdict || !strings.Contains(j.Reason, tt.reason) {
			t.Errorf("%s: %s: %s, want %s with %q: %s", tt.why, tt.gate, j.Verdict, tt.verdict, tt.reason, j.Reason)
		}
		if j.Verdict != without.Verdict && (without.Verdict != Fail || j.Verdict != Inconclusive) {
			t.Errorf("%s: %s became %s", tt.why, without.Verdict, j.Verdict)
		}
		if *j.Value != *without.Value || j.Samples != without.Samples {
			t.Errorf("%s: %v of %d became %v of %d: failed requests stay failed", tt.why, *without.Value, without.Samples, *j.Value, j.Samples)
		}
	}
}

// A run isn't stopped on what a stall explains, and is on what it doesn't.
func TestStallStopsNoRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		run     run
		certain bool
	}{
		{"14 s", frozen(14*time.Second, always(hit())), false},
		{"and a system that fails", frozen(14*time.Second, at(0, 15*time.Second, failed(timeline.ServerError))), true},
	} {
		g := gateOn(t, "error_rate < 0.5%")
		tt.run.seconds = 40
		d := tt.run.data(t, g)
		d.Timeout = 5 * time.Second
		j, certain := JudgeEarly(g, d, Look{Number: 1, Planned: 1, Watched: true}, Early{
			After: 40 * time.Second, Left: 25 * time.Second, Intervals: 65, Remaining: map[string]float64{scenario.New: 25 * 300}, Watch: true,
		})
		if certain != tt.certain || (j.Withheld == "") != tt.certain || !certain && !strings.Contains(j.Withheld, "stood still") {
			t.Errorf("%s: certain %t, withheld %q: %s", tt.why, certain, j.Withheld, j.Reason)
		}
	}
}

// Nor does a trigger fire, or resolve, on what a stall explains.
func TestStallFiresNoTrigger(t *testing.T) {
	t.Parallel()
	broken := at(0, 15*time.Second, failed(timeline.ServerError))
	timedOut := failed(timeline.Timeout)
	timedOut.Latency = 5 * time.Second
	for _, tt := range []struct {
		why, when string
		run       run
		timeout   time.Duration
		fires     bool
		reason    string
	}{
		{"14 s", "error_rate > 5%", frozen(14*time.Second, always(hit())), 5 * time.Second, false, "stood still"},
		{"by what was there", "availability < 95%", frozen(14*time.Second, always(hit())), 5 * time.Second, false, "stood still"},
		{"and a system that fails", "error_rate > 1%", frozen(14*time.Second, broken), 5 * time.Second, true, ""},
		{"and too few errors besides", "error_rate > 5%", frozen(14*time.Second, broken), 5 * time.Second, false, "stood still"},
		{"no stall, no excuse", "error_rate > 5%", frozen(0, at(0, time.Minute, failed(timeline.Timeout))), 5 * time.Second, true, ""},
		{"nor against a timeout that isn't known", "error_rate > 5%", frozen(14*time.Second, always(hit())), 0, true, ""},
		{"a condition that doesn't hold anyway", "error_rate > 50%", frozen(14*time.Second, always(hit())), 5 * time.Second, false, ""},
		{"nor by how long these took", "p95_latency > 50ms", frozen(14*time.Second, always(hit())), 5 * time.Second, false, "up to 14s late"},
		{"on average", "mean_latency > 50ms", frozen(14*time.Second, always(hit())), 5 * time.Second, false, "up to 14s late"},
		{"at the longest", "max_latency > 1s", frozen(14*time.Second, always(hit())), 5 * time.Second, false, "up to 14s late"},
		{"a limit on latency that is kept is kept", "max_latency > 6s", frozen(14*time.Second, always(hit())), 5 * time.Second, false, ""},
		{"a system that is slow at other times", "p95_latency > 50ms", frozen(14*time.Second, always(miss())), 5 * time.Second, true, ""},
		{"slow on average", "mean_latency > 50ms", frozen(14*time.Second, always(miss())), 5 * time.Second, true, ""},
		{"slow at the longest", "max_latency > 400ms", frozen(14*time.Second, always(miss())), 5 * time.Second, true, ""},
		{"but not for as long", "max_latency > 500ms", frozen(14*time.Second, always(miss())), 5 * time.Second, false, "up to 14s late"},
		{"and one that gives too few no answer at other times", "p95_latency > 50ms", frozen(14*time.Second, at(0, 15*time.Second, failed(timeline.Transport))), 5 * time.Second, false, "up to 14s late"},
		{"or all of them", "p95_latency > 50ms", frozen(14*time.Second, always(failed(timeline.Timeout))), 5 * time.Second, true, ""},
		{"timeouts well before it took as long as that", "mean_latency > 50ms", frozen(14*time.Second, at(0, 14*time.Second, timedOut)), 5 * time.Second, true, ""},
		{"a lag that leaves time for an answer", "max_latency > 1s", frozen(2*time.Second, always(hit())), 5 * time.Second, true, ""},
	} {
		tt.run.seconds = 40
		rule := scenario.Trigger{Condition: condition(t, tt.when)}
		trigger := NewTrigger(rule, 1, tt.timeout)
		w := tt.run.window(t, Thresholds(nil, []scenario.Trigger{rule})...)
		fired := trigger.Observe(40*time.Second, w, w, 0) == Firing
		if s := trigger.Status(); fired != tt.fires || !strings.Contains(s.Reason, tt.reason) || (tt.reason == "") != (s.Reason == "") {
			t.Errorf("%s: %s: fires %t, want %t; no data for %q, want %q", tt.why, tt.when, fired, tt.fires, s.Reason, tt.reason)
		}
	}
}
