package harness

import (
	"context"
	"fmt"
	"time"

	"phasegate/harness/environment"
	"phasegate/harness/probe"
	"phasegate/harness/scenario"
	"phasegate/reports/result"
)

// engineFigures is the source of figures where a control group can't be read.
const engineFigures = "the container engine's own account"

// kills is how many processes of a system's container the kernel had killed for
// want of memory.
type kills struct {
	System string        `json:"system"`
	Count  int64         `json:"count"`
	At     time.Duration `json:"at_ns"`
}

// containerSampler samples a container by its control group, or by the engine's
// account where that can't be read from here.
func containerSampler(c *environment.Container) *probe.GroupSampler {
	if s, err := probe.Group(c.PID, c.ID, availableTo(c)); err == nil {
		return s
	}
	return probe.Sampling(engineFigures, availableTo(c), func() (probe.Reading, error) {
		ctx, cancel := context.WithTimeout(context.Background(), Interval)
		defer cancel()
		u, err := c.Usage(ctx)
		r := probe.Reading{Resident: u.Resident, CPU: u.CPU}
		if u.OOM {
			r.Kills = 1
		}
		return r, err
	})
}

// availableTo is how many CPUs a system of ours may use; c is nil for a process.
func availableTo(c *environment.Container) float64 {
	if c != nil && c.Limits.CPUs > 0 {
		return min(c.Limits.CPUs, probe.Available())
	}
	return probe.Available()
}

// tellContainers says of every system in a container what its figures rest on.
func (r *run) tellContainers() {
	if err := r.env.Swept(); err != nil {
		r.notice("what an earlier run left in the container engine is still there: %v", err)
	}
	for i, arm := range r.arms {
		c := r.env.Systems()[arm.Name].Container
		if limits := r.plan.System(arm.Name).Limit; c == nil && limits != (scenario.Limits{}) {
			r.notice("the %s system isn't held to its limits (%s): it runs as a process, and they are set on containers (--upstream container)", arm.Name, limitsText(limits))
		}
		if c == nil {
			continue
		}
		at := "the container's own address"
		if c.Published {
			at = "a port published on loopback"
		}
		source := r.watch.samplers[i].(*probe.GroupSampler).Source()
		r.notice("the %s system runs in a container (%s; %s), reached by %s; its memory and CPU are read from %s", arm.Name, c.Image, limitsText(c.Limits), at, source)
	}
}

func limitsText(l scenario.Limits) string {
	text := "no limit of memory"
	if l.Memory > 0 {
		text = fmt.Sprintf("at most %.4g MB", float64(l.Memory)/1e6)
	}
	if l.CPUs > 0 {
		text += fmt.Sprintf(" and %.4g CPUs", l.CPUs)
	}
	return text
}

// kills notes how many processes of a container were killed, when that changes.
func (w *watch) kills(arm int, count int64, at time.Duration) {
	name := w.r.arms[arm].Name
	if count > w.r.killed[name] {
		w.r.note(entry{Kills: &kills{System: name, Count: count, At: at}})
	}
}

// fillKills adds a gate that nobody has to write for a system of which the
// kernel killed something for want of memory, whether it went on or not.
func (r *record) fillKills() {
	for _, arm := range r.plan.Systems {
		seen, end := r.killed[arm.Name], r.ended.Systems[arm.Name]
		if seen == 0 && !end.OOM {
			continue
		}
		count, verdict := float64(max(seen, 1)), result.Fail
		if arm.Name == scenario.Old {
			verdict = result.Inconclusive
		}
		r.res.Gates = append(r.res.Gates, result.Gate{
			Gate: "oom_kills <= 0", Metric: "oom_kills", System: arm.Name, Op: string(scenario.LessEqual),
			Unit: string(scenario.Count), Value: &count, Confidence: r.plan.Confidence, Samples: 1,
			Verdict: verdict, Looks: 1, Implied: true,
			Reason: fmt.Sprintf("the kernel killed %.0f of its processes for want of memory: its container has %s", count, limitsText(r.plan.Limits(arm.Name))),
		})
	}
}
