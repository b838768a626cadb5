package result

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// finite replaces, in copies of the parts it touches, every pointer to a
// number that isn't finite by nil, and returns their names.
func finite(r *Result) (faults []string) {
	check := func(name string, p **float64) {
		if *p != nil && (math.IsNaN(**p) || math.IsInf(**p, 0)) {
			faults = append(faults, name)
			*p = nil
		}
	}
	r.Gates = slices.Clone(r.Gates)
	for i := range r.Gates {
		g := &r.Gates[i]
		name := fmt.Sprintf("gates[%d].", i)
		check(name+"value", &g.Value)
		check(name+"low", &g.Low)
		check(name+"high", &g.High)
	}
	r.Triggers = slices.Clone(r.Triggers)
	for i := range r.Triggers {
		t := &r.Triggers[i]
		name := fmt.Sprintf("triggers[%d].", i)
		check(name+"pending_at", &t.PendingAt)
		check(name+"fired_at", &t.FiredAt)
		check(name+"rollback_time", &t.RollbackTime)
		check(name+"worst", &t.Worst)
	}
	systems := make(map[string]System, len(r.Systems))
	for _, arm := range slices.Sorted(maps.Keys(r.Systems)) {
		s := r.Systems[arm]
		metrics := make(map[string]*float64, len(s.Metrics))
		for _, metric := range slices.Sorted(maps.Keys(s.Metrics)) {
			v := s.Metrics[metric]
			check("systems."+arm+".metrics."+metric, &v)
			metrics[metric] = v
		}
		s.Metrics = metrics
		check("systems."+arm+".memory_limit", &s.MemoryLimit)
		if s.Growth != nil {
			s.Growth = s.Growth.clone()
			s.Growth.each(func(name string, p **float64) { check("systems."+arm+".growth."+name, p) })
		}
		systems[arm] = s
	}
	r.Systems = systems
	r.Timeline = slices.Clone(r.Timeline)
	for i := range r.Timeline {
		in := &r.Timeline[i]
		name := fmt.Sprintf("timeline[%d].", i)
		check(name+"from", &in.From)
		check(name+"p50", &in.P50)
		check(name+"p95", &in.P95)
		check(name+"p99", &in.P99)
		check(name+"hit_ratio", &in.HitRatio)
		check(name+"memory", &in.Memory)
		check(name+"cpu", &in.CPU)
	}
	if r.Load != nil {
		load := *r.Load
		check("load.schedule_lag_p50", &load.LagP50)
		check("load.schedule_lag_p99", &load.LagP99)
		check("load.schedule_lag_max", &load.LagMax)
		r.Load = &load
	}
	return faults
}
