package forecast

import (
	"fmt"
	"time"

	"phasegate/harness/gate"
	"phasegate/harness/load"
	"phasegate/harness/recording"
	"phasegate/harness/scenario"
)

const (
	// Interval is how long one interval of the timeline lasts, and how often
	// resources, ledgers and triggers are looked at.
	Interval = time.Second

	// SequentialTime bounds each half of the sequential stage: a system without
	// a cache would otherwise take minutes for what should be hits.
	SequentialTime = 20 * time.Second
)

// InputError says that a file named by the scenario can't be used. Its text
// begins with where the scenario names it.
type InputError struct{ Err error }

func (e *InputError) Error() string { return e.Err.Error() }
func (e *InputError) Unwrap() error { return e.Err }

// Schedule is what a plan comes to once its recording, if it has one, has been
// read: when which stage begins, and how much each system is asked. A run keeps
// to it, and a forecast goes by it.
type Schedule struct {
	Plan     *scenario.Plan
	Recorded *recording.Recording // nil unless one is replayed

	Warmup, Steady time.Duration // lengths; Steady is one look's worth
	Looks          int           // planned: 1 + extensions
	Ends           time.Duration // of a recording that isn't started over, on the clock of the stages; else 0
	Notices        []string      // what a reader of the figures must know of the recording

	pace, busiest float64 // of a recording at its own pace: requests per second on average, and in its busiest second
}

// NewSchedule reads what is to be replayed and fits the stages to it: a
// recording that ends before the steady state would is judged whole, from its
// first request on, since cutting a warm-up off would judge what is left of it.
// The error is an [InputError].
func NewSchedule(plan *scenario.Plan) (*Schedule, error) {
	s := &Schedule{Plan: plan, Warmup: plan.Warmup, Steady: plan.Steady, Looks: 1 + plan.Extensions}
	keys := plan.Load.Keys
	recorded, err := recording.Read(keys)
	if err != nil {
		return nil, &InputError{fmt.Errorf("%s: load.keys: %w", keys.FileAt, err)}
	}
	if recorded == nil {
		return s, nil
	}
	s.Recorded, s.Notices = recorded, recorded.Notices()
	length := load.Length(recorded, plan.Load, plan.Seed)
	if keys.PaceLog {
		s.pace, s.busiest = float64(recorded.Requests())/length.Seconds(), load.Peak(recorded, keys)
	}
	if keys.Repeat {
		return s, nil
	}
	say := func(format string, args ...any) { s.Notices = append(s.Notices, fmt.Sprintf(format, args...)) }
	s.Ends = length
	ends := length.Round(10 * time.Millisecond)
	switch {
	case length < s.End(1):
		s.Warmup, s.Steady, s.Looks = 0, length, 1
		say("the %s ends after %s: all of it is judged, without a warm-up, and the steady state of %s is not filled", recorded.Kind, ends, plan.Steady)
	case length < s.End(s.Looks):
		s.Looks = int((length - s.Warmup) / s.Steady)
		say("the %s ends after %s: it is long enough for %d of %d planned looks", recorded.Kind, ends, s.Looks, 1+plan.Extensions)
	}
	return s, nil
}

// End is where look number n (from 1) ends, on the clock that starts with the
// warm-up.
func (s *Schedule) End(n int) time.Duration { return s.Warmup + time.Duration(n)*s.Steady }

func (s *Schedule) look(number int) gate.Look {
	return gate.Look{Number: number, Planned: s.Looks, Confidence: s.Plan.Confidence, Watched: s.Plan.AbortOnFailure}
}

// Connections is the size of a system's pool: the scenario's, or by Little's
// law from the rate it is offered and the upstream's latency.
func (s *Schedule) Connections(system scenario.System) int {
	if s.Plan.Load.Connections > 0 {
		return s.Plan.Load.Connections
	}
	latency := s.Plan.Load.Timeout
	if s.Plan.Upstream != nil {
		latency = s.Plan.Upstream.Latency.Typical()
	}
	return load.Connections(s.Peak()*system.Share, latency)
}

// streams is how many requests to a system can be under way at once.
func (s *Schedule) streams(system scenario.System) int {
	n := s.Connections(system)
	for _, leg := range s.Plan.Load.Protocols {
		if leg.Protocol != scenario.HTTP1 {
			return n * s.Plan.Load.Streams
		}
	}
	return n
}

// Offered is what an arm is offered, in requests per second: the mean of a
// recording replayed at its own pace and of a sine, else the highest of the
// schedule.
func (s *Schedule) Offered(name string) float64 {
	total := s.Peak()
	if sine := s.Plan.Load.Sine; sine != nil {
		total = sine.Mean
	}
	if s.Plan.Load.Keys.PaceLog {
		total = s.pace
	}
	return total * s.Plan.System(name).Share
}

// GoingOn is what an arm would be offered beyond the schedule's end, in requests per
// second: by it the requests that a gate needs become a time.
func (s *Schedule) GoingOn(name string) float64 {
	if rates := s.Plan.Load.Rate; len(rates) > 0 {
		return rates[len(rates)-1].To * s.Plan.System(name).Share
	}
	return s.Offered(name)
}

// Peak is the highest rate of all arms together, in requests per second.
func (s *Schedule) Peak() float64 {
	if s.Plan.Load.Keys.PaceLog {
		return s.busiest
	}
	return s.Plan.Load.Peak()
}

// ClosedLoop is why a run at the highest rate says nothing about latency.
const ClosedLoop = "load.rate is max, a closed loop: no request is due at a time of its own, so a stall holds back the requests that would have shown it (coordinated omission), and the times measured are service times"

// Unscheduled reports whether a metric is of latency in a run without a
// schedule to measure it from; see [ClosedLoop].
func Unscheduled(plan *scenario.Plan, m scenario.Metric) bool {
	return plan.Load.Max && m.Source == scenario.FromGenerator && (m.Unit == scenario.Seconds || m.Name == "latency_improvement")
}

// LeadTime is how long a drill's load goes on as in the steady state before its
// fault.
const LeadTime = 5 * time.Second

// FaultLength is how long a drill's fault is there.
func FaultLength(plan *scenario.Plan, d scenario.Drill) time.Duration {
	return time.Duration(float64(d.Fault.For) / plan.TimeScale)
}

// DrillLength is how long a drill's load lasts, with rate requests per second to
// the new system: until triggers have had a window of [gate.WindowLength] after
// the fault, and requests the time to end.
func DrillLength(plan *scenario.Plan, d scenario.Drill, rate float64) time.Duration {
	after := max(gate.WindowLength(rate, plan.TimeScale), plan.Load.Timeout)
	return (LeadTime + FaultLength(plan, d) + after + Interval).Round(Interval)
}
