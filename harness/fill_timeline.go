package harness

import (
	"cmp"
	"slices"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
	"phasegate/reports/result"
)

// fillTimeline puts the run on one clock, which starts with the warm-up: the
// stages, the intervals of each arm, and the drills where they took place.
func (r *record) fillTimeline() {
	s, length := r.stages, r.report.Elapsed
	if length == 0 {
		return
	}
	steadyEnd := min(r.until(), length)
	if s.warmup > 0 {
		r.res.Marks = append(r.res.Marks, result.Mark{Name: "warmup", To: min(s.warmup, length).Seconds()})
	}
	if s.warmup < length {
		r.res.Marks = append(r.res.Marks, result.Mark{Name: "steady", From: s.warmup.Seconds(), To: steadyEnd.Seconds()})
	}
	for i, arm := range r.plan.Systems {
		for _, b := range r.series.Intervals(i, 0, steadyEnd) {
			out := r.interval(arm, b)
			if out.Stage = result.StageSteady; b.Start < s.warmup {
				out.Stage = result.StageWarmup
			}
			r.res.Timeline = append(r.res.Timeline, out)
		}
	}
	r.drillTimelines(steadyEnd)
	slices.SortStableFunc(r.res.Timeline, func(a, b result.Interval) int { return cmp.Compare(a.T, b.T) })
}

// drillTimelines appends what was observed in the drills, each after all that
// was before it: a machine's clock may be set back in between.
func (r *record) drillTimelines(before time.Duration) {
	for n, plan := range r.plan.Drills {
		d := r.drilled[n]
		if d == nil || d.started.IsZero() {
			continue
		}
		// Without the monotonic reading, which is not in the evidence.
		at := max(d.started.Round(0).Sub(r.report.Started.Round(0)).Truncate(time.Millisecond), before)
		if d.fault != nil {
			r.res.Marks = append(r.res.Marks, result.Mark{
				Name: result.DrillMark(n+1, plan.Fault.String()), From: (at + d.fault.From).Seconds(), To: (at + d.fault.To).Seconds(),
			})
		}
		for i, arm := range r.plan.Systems {
			for j, b := range d.series.Intervals(i, 0, d.length) {
				out := r.interval(arm, b)
				out.Stage, out.T = result.StageDrill, (at + b.End).Seconds()
				if j == 0 {
					from := (at + b.Start).Seconds()
					out.From = &from
				}
				r.res.Timeline = append(r.res.Timeline, out)
			}
		}
		before = at + d.length
	}
}

// interval is one of an arm's, in whatever stage.
func (r *record) interval(arm scenario.System, b timeline.Summary) result.Interval {
	out := result.Interval{
		T: b.End.Seconds(), System: arm.Name, Split: arm.Share,
		Offered: b.Offered, Requests: b.Requests, Errors: b.Errors(),
		P50: seconds(b.P50), P95: seconds(b.P95), P99: seconds(b.P99),
		Cacheable: b.Cacheable, CPU: b.CPU,
	}
	if b.Memory != nil {
		memory := float64(*b.Memory)
		out.Memory = &memory
	}
	if _, missing := r.data.Missing[arm.Name]["cache_hit_ratio"]; b.HaveLedger && !missing {
		reads := b.Ledger.Reads
		out.UpstreamRequests = &reads
		if b.CacheableProven > 0 { // where nothing answered, nothing was hit
			ratio := max(0, float64(b.CacheableProven-reads)/float64(b.Cacheable))
			out.HitRatio = &ratio
		}
	}
	return out
}
