package gate

import (
	"fmt"
	"math"
	"slices"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// State of a trigger, in the words of Prometheus alerting rules.
type State string

// The states.
const (
	Inactive State = "inactive" // the condition didn't hold
	Pending  State = "pending"  // it holds, and not for long enough yet
	Firing   State = "firing"   // it has held at every evaluation for the whole For
)

// MinRequests is the least number of requests in a window that are data, or of
// whatever else the metric is a share of. A window with fewer neither fires a
// trigger nor resolves it.
const MinRequests = 50

// maxStretch is how many times its length a window may become to hold
// [MinRequests]: ten minutes instead of one. Who brings fewer in them is asked
// too rarely for a rollback to rest on it, since the oldest of them say nothing
// of now.
const maxStretch = 10

// WindowLength is the length of the sliding window that a trigger looks at
// when its system gets rate requests per second: a minute divided by the time
// scale, but at least five seconds, and long enough for [MinRequests]. Where a
// metric counts what is rarer than requests it looks back further, see [Stretch].
func WindowLength(rate, scale float64) time.Duration {
	length := max(scaled(time.Minute, scale), 5*time.Second)
	if rate > 0 {
		if seconds := math.Ceil(MinRequests / rate); seconds < 1e8 {
			length = max(length, time.Duration(seconds)*time.Second)
		}
	}
	return length
}

// LongestWindow is the length that the window of a trigger on m gets at the most.
func LongestWindow(m scenario.Metric, rate, scale float64) time.Duration {
	length := WindowLength(rate, scale)
	if Rare(m) {
		length *= maxStretch
	}
	return length
}

// Rare reports whether a metric is a share of what not every request brings:
// requests that reach the upstream, TLS handshakes.
func Rare(m scenario.Metric) bool {
	return m.Estimator == scenario.ByShare && counted(m) != ofRequests
}

// Stretch returns the window that a trigger on m looks at where w is the last
// one of [WindowLength]: w itself, or, if that holds fewer than [MinRequests] of
// what a rare metric counts, the shortest one of whole intervals that ends where
// w does and holds as many. It begins at earliest or later; since returns the
// counts from a time on to the end of w.
//
// Where w holds none at all it stays as it is: nothing is known of now then,
// and what was known before mustn't go on to count.
func Stretch(m scenario.Metric, w timeline.Window, earliest time.Duration, since func(from time.Duration) timeline.Window) timeline.Window {
	if !Rare(m) || w.From <= earliest {
		return w
	}
	if t, missing := tallyOf(m, &w); missing != "" || t.n >= MinRequests {
		return w
	}
	longest := since(earliest)
	t, _ := tallyOf(m, &longest)
	n := 0.0
	for i := len(t.counts) - 1; i >= 0; i-- {
		if n += t.counts[i].N; n >= MinRequests {
			return since(t.starts[i])
		}
	}
	return longest
}

// scaled divides d by a time scale; a scale that isn't positive is 1.
func scaled(d time.Duration, scale float64) time.Duration {
	if !(scale > 0) || math.IsInf(scale, 0) {
		return d
	}
	return time.Duration(float64(d) / scale)
}

// Status is what there is to report of a trigger.
type Status struct {
	State     State
	For       time.Duration  // scaled time that the condition must hold
	PendingAt *time.Duration // when it last became pending, before firing for the first time; nil if never
	FiredAt   *time.Duration // when it first fired; nil if it didn't
	Worst     *float64       // the worst window seen, in the metric's unit; nil without data
	Reason    string         // why it had no data at the last evaluation; "" if it had

	Evaluations int // so far
	WithData    int // of these, those that had data: at the others nothing was watched
}

// Trigger follows one rollback trigger through a run. It isn't safe for
// concurrent use.
type Trigger struct {
	rule    scenario.Trigger
	timeout time.Duration
	status  Status
	held    time.Duration // how long the condition has held, while pending
	last    time.Duration // time of the last evaluation
}

// NewTrigger returns an inactive trigger whose For is divided by scale. Requests time
// out after timeout; where that is 0, no stall of the load generator excuses anything.
func NewTrigger(t scenario.Trigger, scale float64, timeout time.Duration) *Trigger {
	return &Trigger{rule: t, timeout: timeout, status: Status{State: Inactive, For: scaled(t.For, scale)}}
}

// Status returns what is known so far.
func (t *Trigger) Status() Status { return t.status }

// Observe evaluates the trigger at a time, later than the one before, on basic, the
// window of [WindowLength] that ends there, and on what [Stretch] made of it, and
// returns its new state. stolen is the share of the machine's CPU time that was lost
// to others in that window (see [MaxStolen]).
//
// While the condition holds, the time between evaluations adds up until For is
// reached; one evaluation at which it doesn't hold starts over. At one without
// data the state stays, and the time since the last one doesn't count.
//
// On a stretched window the condition holds only while the basic one has a bad one
// too, or a second's worth of them would count for as long as they are among the
// last [MinRequests]. Without one it doesn't hold, and starts over, if by the share
// of the stretched window chance would hardly have left them out. If it may have,
// as of a fault that lasts and is rare, the state stays, and the time doesn't count.
func (t *Trigger) Observe(at time.Duration, basic, stretched timeline.Window, stolen float64) State {
	s := &t.status
	elapsed := max(at-t.last, 0)
	t.last = at
	now, why := t.see(&basic, &stretched, at, stolen)
	s.Evaluations++
	if s.Reason = why; why != "" {
		return s.State
	}
	s.WithData++
	if s.Worst == nil || worse(t.rule.Op, now.value, *s.Worst) {
		s.Worst = &now.value
	}
	if now.open {
		return s.State
	}
	if !now.holds {
		s.State = Inactive
		return s.State
	}
	if s.State == Inactive {
		s.State, t.held = Pending, 0
		if s.FiredAt == nil {
			s.PendingAt = &at
		}
	} else {
		t.held += elapsed
	}
	if s.State == Pending && t.held >= s.For {
		s.State = Firing
		if s.FiredAt == nil {
			s.FiredAt = &at
		}
	}
	return s.State
}

// worse reports whether a is further in the direction in which the trigger fires.
func worse(op scenario.Op, a, b float64) bool {
	if atMost(op) {
		return a < b
	}
	return a > b
}

// sight is one evaluation of a trigger's condition.
type sight struct {
	value float64
	holds bool
	open  bool // whether it still holds can't be told
}

// see evaluates the condition on a window that ends at a time, and on the basic one
// that it was stretched from. why says why it has no data; "" if it has.
func (t *Trigger) see(basic, w *timeline.Window, at time.Duration, stolen float64) (s sight, why string) {
	c := t.rule.Condition
	m := c.Metric
	few := func(n float64, of string) string {
		if n >= MinRequests {
			return ""
		}
		return fmt.Sprintf("%s %s in its window of %s are fewer than %d", formatCount(n), of, formatSeconds(w.Seconds), MinRequests)
	}
	switch {
	case m.Source == scenario.FromNowhere && m.Why != "":
		return s, m.Why
	case m.Name == "latency_improvement", m.Source == scenario.FromSequential, m.Source == scenario.FromNowhere, m.Estimator == scenario.ByTime:
		return s, m.Name + " can't be measured in a trigger's window"
	case m.Source == scenario.FromGenerator && m.Unit == scenario.Seconds:
		return t.seeLatency(w, at, stolen, few)
	case m.Name == "memory":
		if len(w.Resources) == 0 {
			return s, "the system's memory was not sampled"
		}
		// The peak never falls again; a trigger resolves when memory does.
		s.value = float64(w.Resources[len(w.Resources)-1].Resident)
	case m.Estimator == scenario.BySlope:
		f, missing := slopeOf(m, w, 0.95)
		if missing != "" {
			return s, missing
		}
		if f.span < leastSpan {
			return s, "a slope needs a window of " + formatSeconds(leastSpan.Seconds())
		}
		s.value = f.Slope.Value
	case m.Estimator == scenario.ByShare:
		counts, missing := tallyOf(m, w)
		if missing == "" {
			missing = few(counts.n, counts.of)
		}
		if missing != "" {
			return s, missing
		}
		s.value = counts.share()
		if stalled := stallOf(w, t.timeout); c.Holds(s.value) && stalled.sum > 0 {
			counts.k -= failuresIn(m) * stalled.sum
			if !c.Holds(counts.share()) {
				return s, stalled.why(t.timeout)
			}
		}
		if s.holds = c.Holds(s.value); s.holds && w.From < basic.From {
			s.holds, s.open = stillBad(c, counts, basic)
		}
		return s, ""
	default:
		if m.Source == scenario.FromGenerator {
			if why := few(float64(max(w.Offered, w.Requests)), ofRequests); why != "" {
				return s, why
			}
		}
		v, missing := point(m, Data{}, *w)
		if missing != "" {
			return s, missing
		}
		s.value = v
	}
	if math.IsNaN(s.value) || math.IsInf(s.value, 0) {
		return s, m.Name + " has no value"
	}
	s.holds = c.Holds(s.value)
	return s, ""
}

// leastChance is how likely it must be that a fault which goes on has left out the
// basic window, for it not to be over.
const leastChance = 0.05

// stillBad reports whether a condition that holds on a stretched window, with these
// counts, does so by what the basic one has too; or whether that is open, since the
// basic one has too few to tell.
func stillBad(c scenario.Condition, stretched tally, basic *timeline.Window) (holds, open bool) {
	recent, _ := tallyOf(c.Metric, basic) // it was stretched, so there are some
	if atMost(c.Op) {
		recent, stretched = recent.complement(), stretched.complement()
	}
	if recent.k > 0 {
		return true, false
	}
	return false, math.Pow(1-stretched.share(), recent.n) >= leastChance
}

// seeLatency counts the victims of a system that hangs too: requests that are still
// pending and fell due longer ago than the threshold have taken longer than
// it, however they end. Their latency so far stands for their latency.
func (t *Trigger) seeLatency(w *timeline.Window, at time.Duration, stolen float64, few func(float64, string) string) (s sight, why string) {
	type stuck struct {
		n   int64
		age time.Duration
	}
	c := t.rule.Condition
	var victims []stuck
	var total int64
	var sum float64
	longest := w.MaxLatency
	for i := range w.Intervals {
		in := &w.Intervals[i]
		// Counted from the interval's end, so that all of them are as old.
		if n, age := in.Pending(), at-in.End; n > 0 && age >= limit(c) {
			victims = append(victims, stuck{n, age})
			total += n
			sum += float64(n) * age.Seconds()
			longest = max(longest, age)
		}
	}
	n := w.Requests + total
	if why := few(float64(n), ofRequests); why != "" {
		return s, why
	}
	switch c.Metric.Name {
	case "mean_latency":
		s.value = (w.LatencySum + sum) / float64(n)
		s.holds = c.Holds(s.value)
	case "max_latency":
		s.value = longest.Seconds()
		s.holds = c.Holds(s.value)
	default:
		merged := timeline.NewHistogram()
		if w.Latency != nil {
			merged.Merge(w.Latency)
		}
		for _, v := range victims {
			_ = merged.RecordValues(min(v.age, timeline.Longest).Microseconds(), v.n)
		}
		value, ok := timeline.Quantile(merged, c.Metric.Quantile)
		if !ok {
			return s, noRequests(w)
		}
		s.value = min(value, longest).Seconds()
		s.holds = c.Holds(s.value)
		if over, counted := w.Over[limit(c)]; counted {
			// Exactly: p95 > T if more than 5 % took longer than T.
			const slack = 1e-9
			tooMany := float64(over+total) > (1-c.Metric.Quantile)*float64(n)+slack
			s.holds = tooMany != atMost(c.Op)
		}
	}
	if why := excuse(w.MaxLag, "at most", stolen, c.Threshold); why != "" && s.holds && !atMost(c.Op) && !t.surelySlow(w, at, stolen, n) {
		return s, why
	}
	return s, ""
}

// surelySlow reports whether a condition on latency holds by what nobody but the
// system can have done to n requests, all others counted as if they had taken no
// time. The latency of requests that the load generator was [onTime] for is the
// system's; of others, what they took from their own send less the longest lag, and
// timeouts that no [stall] explains. On a starved machine it is the latency of those
// that waited for the upstream, and these timeouts.
func (t *Trigger) surelySlow(w *timeline.Window, at time.Duration, stolen float64, n int64) bool {
	c, lag := t.rule.Condition, w.MaxLag
	stalled := stallOf(w, t.timeout)
	calm := onTime(w, at, time.Duration(c.Threshold/10*float64(time.Second)))
	counted := slices.Index(w.Limits, limit(c))
	var over, pending int64
	var sum float64
	var longest time.Duration
	for i := range w.Intervals {
		in := &w.Intervals[i]
		timeouts := float64(in.Class[timeline.Timeout]) - stalled.of(i)
		switch {
		case stolen > MaxStolen:
			sum += in.BlockingSum + timeouts*t.timeout.Seconds()
			if in.Blocking > 0 { // one took as long as they did on average
				longest = max(longest, time.Duration(in.BlockingSum/float64(in.Blocking)*float64(time.Second)))
			}
		case calm[i]:
			sum += in.LatencySum
			longest = max(longest, in.MaxLatency)
			if counted >= 0 {
				over += in.Over[counted]
			}
		default:
			sum += max(in.ServiceSum-float64(in.Requests)*lag.Seconds(), timeouts*t.timeout.Seconds())
			longest = max(longest, in.MaxService-lag)
		}
		if timeouts > 0 {
			longest = max(longest, t.timeout)
		}
		age := at - in.End
		if !calm[i] {
			age -= lag
		}
		if k := in.Pending(); k > 0 && age >= limit(c) {
			pending += k
			sum += float64(k) * age.Seconds()
			longest = max(longest, age)
		}
	}
	switch c.Metric.Name {
	case "mean_latency":
		return c.Holds(sum / float64(n))
	case "max_latency":
		return c.Holds(longest.Seconds())
	}
	rest := stalled.without(*w)
	slow := max(over, surelySlow(&rest, limit(c)+lag, stolen))
	return float64(slow+pending) > (1-c.Metric.Quantile)*float64(n)
}
