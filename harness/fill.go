package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/environment"
	"phasegate/harness/gate"
	"phasegate/harness/probe"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
	"phasegate/reports/result"
)

// newResult starts the record with what is known before anything ran.
func newResult(plan *scenario.Plan, opts Options) *result.Result {
	machine := probe.Machine()
	source := plan.Source
	if source == "" {
		source = "embedded"
	}
	upstream := opts.Upstream
	if plan.Upstream == nil {
		upstream = "none"
	}
	r := &result.Result{
		Schema:    result.Schema,
		Scenario:  plan.Name,
		Title:     plan.Title,
		Profile:   plan.Profile,
		Seed:      plan.Seed,
		TimeScale: plan.TimeScale,
		Started:   time.Now().UTC(),
		Environment: result.Environment{
			Go: runtime.Version(), CPUs: machine.CPUs, CPUModel: machine.CPUModel, Memory: machine.Memory,
			Kernel: machine.Kernel, OS: machine.OS,
			Upstream: upstream, Commit: opts.Commit, Command: opts.Command, Source: source,
		},
		Notices: append([]string{}, plan.Notices...),
		Systems: map[string]result.System{},
	}
	return r
}

func (r *run) notice(format string, args ...any) {
	r.res.Notices = append(r.res.Notices, fmt.Sprintf(format, args...))
}

// fill turns what was observed into the result. Whatever wasn't reached is
// left out of it.
func (r *run) fill() {
	if r.env == nil {
		return
	}
	for _, s := range r.plan.Systems {
		r.res.Systems[s.Name] = r.system(s.Name)
	}
	if r.recorder == nil {
		return
	}
	r.collect()
	if r.stages.stopped > 0 {
		r.res.Stopped = seconds(&r.stages.stopped)
	}
	r.fillLoad()
	for _, s := range r.plan.Systems {
		r.measured(s.Name)
	}
	for _, g := range r.plan.Gates {
		r.res.Gates = append(r.res.Gates, asResult(g, r.judge(g)))
	}
	r.fillExits()
	for _, d := range r.plan.Drills {
		r.res.Gates = append(r.res.Gates, result.Gate{
			Gate: d.Text, Metric: "drill", System: scenario.New, Verdict: result.Inconclusive,
			Reason: "this version injects no faults, so the drill was not run",
		})
	}
	r.fillTriggers()
	r.fillTimeline()
}

// system describes one arm: what it is, and how it ended if it did so by itself.
func (r *run) system(name string) result.System {
	s := r.env.Systems()[name]
	out := result.System{
		Kind: string(s.Kind), URL: s.URL.String(), Command: s.Command,
		Metrics: map[string]*float64{}, Exit: s.Exit(),
	}
	if s.LogFile != "" {
		if rel, err := filepath.Rel(r.opts.Out, s.LogFile); err == nil {
			out.LogFile = rel
		}
	}
	if out.Exit != "" {
		out.LogTail = s.LogTail(20)
		r.notice("the %s system ended by itself: %s", name, out.Exit)
	}
	for _, g := range r.plan.Gates {
		if g.Metric.Name == "memory" && g.System == name {
			out.MemoryLimit = &g.Threshold
		}
	}
	return out
}

// measured fills in what one arm's steady state was measured to be.
func (r *run) measured(name string) {
	s, w := r.res.Systems[name], r.data.Windows[name]
	s.Requests = w.Requests
	s.Errors, s.Missing = map[string]int64{}, map[string]string{}
	for class := timeline.OK + 1; class < timeline.Classes; class++ {
		if n := w.Class[class]; n > 0 {
			s.Errors[class.String()] = n
		}
	}
	for _, m := range scenario.All() {
		value, missing := gate.Estimate(m, name, r.data)
		s.Metrics[m.Name] = value
		if value == nil {
			s.Missing[m.Name] = missing
		}
	}
	// Encoding a histogram in memory can't fail; if it did, the counts would
	// still stand beside the gap.
	s.Histogram, _ = result.EncodeHistogram(w.Latency)
	s.ServiceHistogram, _ = result.EncodeHistogram(w.Service)
	if i := r.armIndex(name); i < len(r.report.Arms) {
		for _, f := range r.report.Arms[i].Failures {
			s.Examples = append(s.Examples, f.Examples...)
		}
	}
	r.res.Systems[name] = s

	if n := w.Class[timeline.Unproven]; n > 0 {
		r.notice("%d answers of the %s system carried no self-description of the mock upstream, so they count as errors: a proxy has to pass the field %s on (load.verify: off judges by status alone, and offers nothing that rests on proof)", n, name, wire.Header)
	}
	claimed, hits := s.Metrics["claimed_hit_ratio"], s.Metrics["cache_hit_ratio"]
	if claimed != nil && hits != nil && w.Errors() == 0 && math.Abs(*claimed-*hits) > 0.02 {
		text := fmt.Sprintf("the %s system claims a hit ratio of %.1f %% in its headers; the upstream's ledger says %.1f %%", name, 100**claimed, 100**hits)
		if *claimed < *hits {
			text += " (a request that waits for another's fetch is a miss to its client and nothing to the upstream)"
		}
		r.notice("%s", text)
	}
}

func asResult(g scenario.Gate, j gate.Judgement) result.Gate {
	return result.Gate{
		Gate: g.Text, Metric: g.Metric.Name, System: g.System, Op: string(g.Op),
		Threshold: g.Threshold, Unit: string(g.Metric.Unit),
		Value: j.Value, Low: j.Low, High: j.High, Confidence: j.Confidence, Samples: j.Samples,
		Verdict: result.Verdict(j.Verdict), Reason: j.Reason, Looks: j.Looks, Implied: g.Implied,
	}
}

// fillExits adds a gate that nobody has to write for a system that ended by
// itself: whatever the others say, it isn't ready. Of the old system it says
// that there was nothing to compare with.
func (r *run) fillExits() {
	for _, arm := range r.plan.Systems {
		exit := r.res.Systems[arm.Name].Exit
		if exit == "" {
			continue
		}
		ended, verdict := 1.0, result.Fail
		if arm.Name == scenario.Old {
			verdict = result.Inconclusive
		}
		r.res.Gates = append(r.res.Gates, result.Gate{
			Gate: "unexpected_exits <= 0", Metric: "unexpected_exits", System: arm.Name, Op: string(scenario.LessEqual),
			Unit: string(scenario.Count), Value: &ended, Confidence: r.plan.Confidence, Samples: 1,
			Verdict: verdict, Reason: "it ended by itself: " + exit, Looks: 1, Implied: true,
		})
	}
}

func (r *run) fillTriggers() {
	if r.watch == nil {
		return
	}
	for i, t := range r.plan.Triggers {
		s := r.watch.triggers[i].Status()
		out := result.Trigger{
			Condition: t.Text, System: t.System, For: s.For.Seconds(), Action: t.Action,
			State: string(s.State), Reason: s.Reason, Worst: s.Worst,
			PendingAt: seconds(s.PendingAt), FiredAt: seconds(s.FiredAt),
			Threshold: t.Threshold, Unit: string(t.Metric.Unit),
		}
		if s.FiredAt != nil {
			out.Reason = ""
		}
		if reason, ok := r.data.Missing[t.System][t.Metric.Name]; ok {
			out.State, out.Reason, out.Worst = "unknown", reason, nil
		} else if s.Worst == nil {
			out.State = "unknown"
		}
		r.res.Triggers = append(r.res.Triggers, out)
	}
}

func (r *run) fillTimeline() {
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
	for i, arm := range r.arms {
		_, ledgerMissing := r.data.Missing[arm.Name]["cache_hit_ratio"]
		for _, b := range r.recorder.Intervals(i, 0, steadyEnd) {
			out := result.Interval{
				T: b.End.Seconds(), System: arm.Name, Stage: "steady", Split: arm.Share,
				Offered: b.Offered, Requests: b.Requests, Errors: b.Errors(),
				P50: seconds(b.P50), P95: seconds(b.P95), P99: seconds(b.P99),
				Cacheable: b.Cacheable, CPU: b.CPU,
			}
			if b.Start < s.warmup {
				out.Stage = "warmup"
			}
			if b.Memory != nil {
				memory := float64(*b.Memory)
				out.Memory = &memory
			}
			if b.HaveLedger && !ledgerMissing {
				reads := b.Ledger.Reads
				out.UpstreamRequests = &reads
				if b.CacheableProven > 0 { // where nothing answered, nothing was hit
					ratio := max(0, float64(b.CacheableProven-reads)/float64(b.Cacheable))
					out.HitRatio = &ratio
				}
			}
			r.res.Timeline = append(r.res.Timeline, out)
		}
	}
	slices.SortStableFunc(r.res.Timeline, func(a, b result.Interval) int { return cmp.Compare(a.T, b.T) })
}

func (r *run) fillLoad() {
	rep := r.report
	out := &result.Load{
		Source:      r.source(),
		OfferedRate: rep.OfferedRate, SentRate: rep.SentRate, Completed: rep.CompletedRate,
		Connections: map[string]int{}, Retried: map[string]int64{}, Queued: map[string]int64{}, CPU: probe.SelfCPU().Seconds(),
	}
	if rep.SteadyLag.Requests > 0 {
		out.LagP50, out.LagP99, out.LagMax = seconds(&rep.SteadyLag.P50), seconds(&rep.SteadyLag.P99), seconds(&rep.SteadyLag.Max)
	}
	for _, arm := range rep.Arms {
		out.Connections[arm.Name] = int(arm.Connections)
		out.Prewarmed += int64(arm.Prewarmed)
		out.PrewarmFailed += int64(arm.PrewarmFailed)
		out.Retried[arm.Name], out.Queued[arm.Name] = int64(arm.Retried), int64(arm.Queued)
		if arm.PrewarmFailed > 0 {
			r.notice("%d of %d targets got no usable answer while prewarming", arm.PrewarmFailed, arm.Prewarmed)
		}
		if arm.Retried > 0 {
			r.notice("%d requests to the %s system were sent again: it had closed the connection that they were sent on without an answer", arm.Retried, arm.Name)
		}
		if arm.Queued > 0 && r.plan.Load.Connections == 0 {
			r.notice("%d of %d requests to the %s system found all its %d connections busy: their wait is in the latency; load.connections raises the number", arm.Queued, arm.Offered, arm.Name, arm.Limit)
		}
		if arm.Name == scenario.New && r.log != nil && arm.Steady.Cacheable > 0 {
			r.notice("%s system: %s", arm.Name, arm.Steady)
		}
	}
	if out.Stolen = r.data.Stolen; out.Stolen > gate.MaxStolen {
		r.notice("the machine lost %.1f %% of its CPU time to others on its host in the steady state: latencies are longer than the systems made them. A limit that was kept was kept; a broken one proves something only by requests that waited for the upstream", 100*out.Stolen)
	}
	if r.log != nil {
		out.LogSkipped = int64(r.log.Malformed + r.log.Blank)
	}
	// What a system refused to take was offered to it all the same.
	tried := rep.Sent
	for _, arm := range rep.Arms {
		for _, f := range arm.Failures {
			if f.Kind == timeline.Transport.String() || f.Kind == timeline.Timeout.String() {
				tried += f.Count
			}
		}
	}
	if float64(tried) < 0.99*float64(rep.Offered) && !rep.Interrupted {
		r.notice("only %d of %d requests due were sent (%.1f %%): the figures are those of a lighter load than the scenario's",
			rep.Sent, rep.Offered, 100*float64(rep.Sent)/float64(rep.Offered))
	}
	r.res.Load = out
}

// source says in one line where the requests come from.
func (r *run) source() string {
	l := r.plan.Load
	if r.log != nil {
		return fmt.Sprintf("access log %s: %d requests, %d distinct targets", l.Keys.AccessLog, r.log.Requests(), r.log.Targets())
	}
	text := fmt.Sprintf("%s over %d keys", l.Keys.Distribution, l.Keys.Count)
	if l.Keys.Distribution == scenario.Zipf {
		text = fmt.Sprintf("zipf (exponent %g) over %d keys", l.Keys.Exponent, l.Keys.Count)
	}
	if l.Writes.Share > 0 {
		text += fmt.Sprintf(", %.3g %% %s %s", 100*l.Writes.Share, l.Writes.Method, l.Writes.Path)
	}
	return text
}

// conclude gives the run its verdict.
func (r *run) conclude(ctx context.Context, err error) {
	res := r.res
	res.Complete = err == nil && ctx.Err() == nil
	switch {
	case ctx.Err() != nil:
		res.Incomplete = "interrupted: what was measured until then is here, and nothing passes on it"
	case err != nil:
		res.Incomplete = "broken off: the environment failed"
		res.Error = err.Error()
		var environmentErr *environment.Error
		if errors.As(err, &environmentErr) {
			res.Error = environmentErr.Detail()
		}
	}
	res.Verdict = result.Pass
	for i := range res.Gates {
		g := &res.Gates[i]
		switch {
		case res.Error != "" && g.Verdict != result.Inconclusive:
			g.Verdict, g.Reason = result.Inconclusive, "the environment failed, which is no fault of any system"
		case !res.Complete && g.Verdict == result.Pass:
			g.Verdict, g.Reason = result.Inconclusive, "the run is incomplete"
		}
		switch {
		case g.Verdict == result.Fail:
			res.Verdict = result.Fail
		case g.Verdict == result.Inconclusive && res.Verdict == result.Pass:
			res.Verdict = result.Inconclusive
		}
	}
	for _, t := range res.Triggers {
		if t.FiredAt != nil {
			res.Verdict = result.Fail
		}
	}
	switch {
	case res.Error != "":
		res.Verdict = result.EnvError
	case res.Verdict == result.Pass && (!res.Complete || len(res.Gates) == 0):
		res.Verdict = result.Inconclusive
	}
}

func seconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	s := d.Seconds()
	return &s
}
