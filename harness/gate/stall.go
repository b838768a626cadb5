package gate

import (
	"fmt"
	"math"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// stall is what a load generator that stood still may have done to a system:
// requests that timed out, and can't be held against it.
//
// Requests are dispatched in the order in which they fall due. So one that is got
// to with a lag of L shows that from its due time on, for L, nothing was sent at
// all. Where L is the timeout or more, that request had lost before it was sent,
// whatever the system is like: its failure is the machine's. And so may be that of
// every other one that timed out and of whose time, from when it was due until
// its timeout, a part lay in there: it was under way and nobody took its answer,
// or it was sent with what of its time was left, together with all that had
// gathered. A shorter lag leaves time for an answer, and excuses nothing.
//
// This only says what the machine can explain, and not that it did: the requests
// stay failed, and nothing passes by it. A gate on errors that wouldn't fail if
// all of these had been answered is inconclusive in place of failed; see
// [claim.blameStall]; and a trigger on errors or latency whose condition wouldn't
// hold then has no data. What failed otherwise (5xx, a connection that was reset, a
// wrong answer) was the system's doing and counts as ever.
type stall struct {
	longest  time.Duration
	timeouts []float64 // that it may explain, by interval
	sum      float64
}

// stallOf finds what was stalled of a window. A timeout of 0 is an unknown one.
func stallOf(w *timeline.Window, timeout time.Duration) stall {
	s := stall{longest: w.MaxLag}
	if timeout <= 0 || w.MaxLag < timeout {
		return s
	}
	s.timeouts = make([]float64, len(w.Intervals))
	explain := func(in *timeline.Interval, i int) { s.timeouts[i] = float64(in.Class[timeline.Timeout]) }
	until := time.Duration(-1) // nothing was sent, as far as intervals up to here show
	for i := range w.Intervals {
		in := &w.Intervals[i]
		if in.MaxLag >= timeout {
			// Which of an interval's requests was so late isn't known.
			until = max(until, in.End, in.Start+in.MaxLag)
		}
		if in.Start < until {
			explain(in, i)
		}
	}
	from := time.Duration(-1) // begins the next one in which nothing was sent
	for i := len(w.Intervals) - 1; i >= 0; i-- {
		in := &w.Intervals[i]
		if in.MaxLag >= timeout {
			from = in.Start
		}
		if from >= 0 && from < in.End+timeout {
			explain(in, i)
		}
	}
	for _, n := range s.timeouts {
		s.sum += n
	}
	return s
}

// of is how many timeouts of an interval it may explain.
func (s stall) of(i int) float64 {
	if s.timeouts == nil {
		return 0
	}
	return s.timeouts[i]
}

// without is the window in which the requests that it may explain were never due,
// for who counts the requests that got no answer.
func (s stall) without(w timeline.Window) timeline.Window {
	w.Requests -= int64(s.sum)
	w.Class[timeline.Timeout] -= int64(s.sum)
	return w
}

// onTime tells of each interval of a window, as it is known at a time, whether the
// load generator left its requests alone from when they were due until they had
// ended: it was never later than tolerable for one of them, nor for one that fell
// due meanwhile.
func onTime(w *timeline.Window, at, tolerable time.Duration) []bool {
	calm := make([]bool, len(w.Intervals))
	until := time.Duration(-1) // it is late, as far as intervals up to here show
	for i := range w.Intervals {
		in := &w.Intervals[i]
		if in.MaxLag > tolerable {
			until = max(until, in.End, in.Start+in.MaxLag)
		}
		calm[i] = in.Start >= until
	}
	from := time.Duration(math.MaxInt64) // it is late next
	for i := len(w.Intervals) - 1; i >= 0; i-- {
		in := &w.Intervals[i]
		if in.MaxLag > tolerable {
			from = in.Start
		}
		ended := in.End + in.MaxLatency
		if in.Pending() > 0 {
			ended = max(ended, at)
		}
		calm[i] = calm[i] && ended <= from
	}
	return calm
}

// why says what happened.
func (s stall) why(timeout time.Duration) string {
	return fmt.Sprintf("the load generator stood still: it was up to %s late to get to a request, which times out after %s, and %s requests that timed out were due or under way then",
		formatSeconds(s.longest.Seconds()), formatSeconds(timeout.Seconds()), formatCount(s.sum))
}

// failuresIn says what a metric counts: requests that failed (1), as those do that
// time out, ones that didn't (-1), or something else (0).
func failuresIn(m scenario.Metric) float64 {
	switch m.Name {
	case "error_rate", "timeout_rate":
		return 1
	case "availability":
		return -1
	}
	return 0
}

// ofErrors reports whether a claim limits how many requests fail, and so may be
// broken by those that time out.
func (c claim) ofErrors() bool {
	failures := failuresIn(c.Metric)
	return failures > 0 && atMost(c.Op) || failures < 0 && !atMost(c.Op)
}

// blameStall takes back a failure of a gate on errors that a stall of the load
// generator explains: one that wouldn't be, by the very rule that it is judged by,
// if the requests which the stall may have cost had been answered.
func (c claim) blameStall(j *Judgement) {
	if j.Verdict != Fail || !c.ofErrors() {
		return
	}
	s := stallOf(&c.window, c.data.Timeout)
	if s.sum == 0 {
		return
	}
	rest, _ := tallyOf(c.Metric, &c.window) // it was judged, so it is there
	answered := -failuresIn(c.Metric)
	rest.k += answered * s.sum
	for i, n := range s.timeouts {
		rest.counts[i].K += answered * n
	}
	why := s.why(c.data.Timeout)
	c.hasty = true
	if c.judgeShare(rest, c.Threshold).verdict == Fail {
		j.Reason += "; " + why + ", but it fails without these too"
		return
	}
	j.Verdict, j.Reason = Inconclusive, why+", without which it doesn't fail; otherwise: "+j.Reason
	j.need = need{text: fmt.Sprintf("need a run in which the load generator is never as late as %s, from a quieter machine or a lower load.rate", formatSeconds(c.data.Timeout.Seconds()))}
}

// surely is the part of the bad requests of each interval that nobody but the
// system can have made bad; of the others, why says who may have.
func (c claim) surely(bad tally) (sure []float64, why string) {
	sure = bad.bySecond()
	switch {
	case c.ofErrors():
		s := stallOf(&c.window, c.data.Timeout)
		if s.sum == 0 {
			return sure, ""
		}
		for i := range sure {
			sure[i] -= s.timeouts[i]
		}
		return sure, s.why(c.data.Timeout)
	case c.Metric.Estimator == scenario.ByQuantile && atMost(c.Op) && bad.k > 0:
		if why = excuse(c.lag(), c.lagOf(), c.data.Stolen, c.Threshold); why == "" {
			return sure, ""
		}
		part := min(1, float64(c.surelySlow())/bad.k)
		for i := range sure {
			sure[i] *= part
		}
	}
	return sure, why
}
