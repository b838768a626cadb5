package harness

import (
	"fmt"
	"math"
	"time"

	"phasegate/harness/forecast"
	"phasegate/harness/gate"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// collect gathers what the gates are judged on: the steady state up to the
// looks taken, and the reasons for what a system can't offer.
func (r *record) collect() {
	r.data.Values = map[string]map[string]gate.Measured{scenario.New: r.values}
	r.data.Cold = map[string]gate.Cold{}
	for _, arm := range r.report.Arms {
		if r.begun.Replayed && arm.Earlier == 0 {
			r.data.Cold[arm.Name] = gate.Cold{First: int64(arm.Steady.First), Requests: int64(arm.Steady.Cacheable)}
		}
	}
	r.data.Windows = map[string]timeline.Window{}
	r.data.Missing = map[string]map[string]string{}
	r.data.Rate = map[string]float64{}
	r.data.Left = map[string]float64{}
	r.data.Timeout = r.plan.Load.Timeout
	var longest time.Duration
	for i, arm := range r.plan.Systems {
		w := r.series.Window(i, r.stages.warmup, r.until())
		r.data.Windows[arm.Name] = w
		longest = max(longest, w.MaxLag)
		r.data.Rate[arm.Name] = r.rate(arm.Name)
		r.data.Missing[arm.Name] = r.missing(arm.Name, w)
		if ends := r.begun.Ends; ends > 0 {
			r.data.Left[arm.Name] = max(ends-r.until(), 0).Seconds() * r.rate(arm.Name)
		}
	}
	r.data.Stolen = r.cpu.stolen(r.stages.warmup, r.until())
	// Where no request found a connection free no quantile is known; the longest lag is more.
	r.data.LagP99, r.data.LagAtMost = &longest, true
	if lag := r.report.SteadyLag; lag.Requests > 0 {
		r.data.LagP99, r.data.LagAtMost = &lag.P99, false
	}
}

// until is where what is judged ends: with the last look taken, where a failure
// stopped the run, or where it was broken off before the first look.
func (r *record) until() time.Duration {
	if r.stages.stopped > 0 {
		return r.stages.stopped
	}
	end := r.stages.end(max(1, r.stages.looked))
	if r.report.Interrupted && r.stages.looked == 0 {
		end = max(r.stages.warmup, min(end, r.report.Elapsed.Truncate(Interval)))
	}
	return end
}

// missing names the metrics that a system can't offer, and why.
func (r *record) missing(name string, w timeline.Window) map[string]string {
	system := r.begun.system(name)
	missing := map[string]string{}
	because := func(source scenario.Source, reason string) {
		for _, m := range scenario.All() {
			if m.Source == source {
				missing[m.Name] = reason
			}
		}
	}
	asked := scenario.All()
	for _, g := range r.plan.Gates {
		asked = append(asked, g.Metric)
	}
	for _, t := range r.plan.Triggers {
		asked = append(asked, t.Metric)
	}
	for _, m := range asked {
		if forecast.Unscheduled(r.plan, m) {
			missing[m.Name] = forecast.ClosedLoop
		}
	}
	if r.noSequence != "" {
		because(scenario.FromSequential, r.noSequence)
	}
	switch {
	case system.Kind == string(scenario.KindDirect):
		because(scenario.FromResources, "there is no system to sample: requests go straight to the upstream")
	case !system.Sampled:
		because(scenario.FromResources, fmt.Sprintf("the process behind %s is not ours to sample", system.URL))
	}
	switch {
	case !r.begun.Ledger:
		because(scenario.FromLedger, "the scenario has no mock upstream whose ledger would count")
	case w.Usable() == 0:
		because(scenario.FromLedger, fmt.Sprintf("no request to %s got an answer, so its silence towards the upstream means nothing", system.URL))
	case r.foreign && system.Kind == string(scenario.KindURL):
		because(scenario.FromLedger, fmt.Sprintf("a probe through %s got no self-description of this run's mock upstream, so the upstream's ledger says nothing about it", system.URL))
	case w.Proven == 0:
		because(scenario.FromLedger, fmt.Sprintf("no answer of %s carried the mock upstream's self-description, so the upstream's ledger says nothing about it", system.URL))
	}
	return missing
}

// judge gives one gate its verdict on what has been collected.
func (r *record) judge(g scenario.Gate) gate.Judgement {
	if r.stages.stopped > 0 {
		j, _ := r.judgeEarly(g, false)
		return j
	}
	return gate.Judge(g, r.data, r.look(max(1, r.stages.looked)))
}

// judgeEarly judges one gate before the next planned look; see
// [gate.JudgeEarly].
func (r *record) judgeEarly(g scenario.Gate, watch bool) (j gate.Judgement, certain bool) {
	next, at := r.stages.looked+1, r.until()
	left := r.stages.end(next) - at
	early := gate.Early{
		After:     at - r.stages.warmup,
		Left:      left,
		Intervals: int((r.stages.end(next) - r.stages.warmup + Interval - 1) / Interval),
		Remaining: map[string]float64{},
		Watch:     watch,
	}
	for _, s := range r.begun.Systems {
		// Which system gets a request is drawn, and a Poisson process' number is
		// too: five standard deviations more don't come.
		expected := left.Seconds() * s.Peak
		early.Remaining[s.Name] = expected + 5*math.Sqrt(expected)
		if r.plan.Load.Max {
			early.Remaining[s.Name] = math.Inf(1) // a closed loop sends whatever is taken: no share of that is certain
		}
	}
	return gate.JudgeEarly(g, r.data, r.look(next), early)
}

func (r *record) look(number int) gate.Look {
	return gate.Look{Number: number, Planned: r.stages.looks, Confidence: r.plan.Confidence, Watched: r.plan.AbortOnFailure}
}
