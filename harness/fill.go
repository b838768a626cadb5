package harness

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/gate"
	"phasegate/harness/load"
	"phasegate/harness/probe"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// environmentOf says where and how a run is made.
func environmentOf(plan *scenario.Plan, opts Options) result.Environment {
	machine := probe.Machine()
	source := plan.Source
	if source == "" {
		source = "embedded"
	}
	upstream := opts.Upstream
	if plan.Upstream == nil {
		upstream = "none"
	}
	return result.Environment{
		Go: runtime.Version(), CPUs: machine.CPUs, CPUModel: machine.CPUModel, Memory: machine.Memory,
		Kernel: machine.Kernel, OS: machine.OS,
		Upstream: upstream, Commit: opts.Commit, Command: opts.Command, Source: source,
	}
}

// newResult starts the result with what is known before anything ran.
func newResult(plan *scenario.Plan, head head) *result.Result {
	return &result.Result{
		Schema:      result.Schema,
		Scenario:    plan.Name,
		Title:       plan.Title,
		Profile:     plan.Profile,
		Seed:        plan.Seed,
		TimeScale:   plan.TimeScale,
		Started:     head.Started,
		Environment: head.Environment,
		Notices:     append([]string{}, head.Notices...),
		Systems:     map[string]result.System{},
	}
}

func (r *record) notice(format string, args ...any) {
	r.res.Notices = append(r.res.Notices, fmt.Sprintf(format, args...))
}

// fill turns what was observed into the result. Whatever wasn't reached is
// left out of it.
func (r *record) fill() {
	if r.begun == nil {
		return
	}
	for _, s := range r.plan.Systems {
		r.res.Systems[s.Name] = r.system(s.Name)
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
	r.fillKills()
	r.fillDrills()
	r.fillTriggers()
	r.fillTimeline()
}

// system describes one arm: what it is, and how it ended if it did so by itself.
func (r *record) system(name string) result.System {
	s, end := r.begun.system(name), r.ended.Systems[name]
	out := result.System{
		Kind: s.Kind, URL: s.URL, Command: s.Command, LogFile: s.LogFile, Version: s.Setup.Version, CPUs: s.CPUs,
		Metrics: map[string]*float64{}, Exit: end.Exit,
	}
	if out.Exit != "" {
		out.LogTail = end.LogTail
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
func (r *record) measured(name string) {
	s, w := r.res.Systems[name], r.data.Windows[name]
	s.Requests = w.Requests
	s.Errors, s.Missing, s.Counts = map[string]int64{}, map[string]string{}, map[string]result.Count{}
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
		if part, all, of, ok := gate.Counted(m, name, r.data); ok {
			s.Counts[m.Name] = result.Count{Part: part, All: all, Of: of}
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
	s.Growth = r.growth(name)
	s.Setup = r.setup(name, s)
	s.ClientLeg, s.UpstreamLeg = r.clientLeg(name), r.upstreamLeg(name)
	r.res.Systems[name] = s

	if n := w.Class[timeline.Unproven]; n > 0 {
		r.notice("%d answers of the %s system carried no self-description of the mock upstream, so they count as errors: a proxy has to pass the field %s on (load.verify: off judges by status alone, and offers nothing that rests on proof)", n, name, wire.Header)
	}
	claimed, hits := s.Metrics["claimed_hit_ratio"], s.Metrics["cache_hit_ratio"]
	// A failed request is no hit, and claims nothing.
	slack := 0.02 + float64(w.Errors())/float64(max(w.Requests, 1))
	if claimed != nil && hits != nil && math.Abs(*claimed-*hits) > slack {
		text := fmt.Sprintf("the %s system claims a hit ratio of %.1f %% in its headers; the upstream's ledger says %.1f %%", name, 100**claimed, 100**hits)
		if *claimed < *hits {
			text += " (a request that waits for another's fetch is a miss to its client and nothing to the upstream)"
		}
		r.notice("%s", text)
	}
}

// setup is what must be alike where systems are compared.
func (r *record) setup(name string, s result.System) *result.Setup {
	begun := r.begun.system(name).Setup
	out := &result.Setup{
		CacheBytes: begun.CacheBytes, AccessLog: begun.AccessLog,
		UpstreamHTTP2: s.Metrics["http2_adoption"], UpstreamReuse: s.Metrics["connection_reuse"],
	}
	if i := r.armIndex(name); i < len(r.report.Arms) {
		arm := r.report.Arms[i]
		out.Warmed = int64(arm.Prewarmed - arm.PrewarmFailed)
	}
	return out
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
func (r *record) fillExits() {
	for _, arm := range r.plan.Systems {
		exit := r.res.Systems[arm.Name].Exit
		if exit == "" {
			continue
		}
		ended, verdict, reason := 1.0, result.Fail, "it ended by itself: "+exit
		if arm.Name == scenario.Old {
			verdict = result.Inconclusive
			reason += "; need a run in which it goes on to the end, to compare the new system with"
		}
		r.res.Gates = append(r.res.Gates, result.Gate{
			Gate: "unexpected_exits <= 0", Metric: "unexpected_exits", System: arm.Name, Op: string(scenario.LessEqual),
			Unit: string(scenario.Count), Value: &ended, Confidence: r.plan.Confidence, Samples: 1,
			Verdict: verdict, Reason: reason, Looks: 1, Implied: true,
		})
	}
}

func (r *record) fillTriggers() {
	for i, t := range r.plan.Triggers {
		s := r.triggers[i].Status()
		out := result.Trigger{
			Condition: t.Text, System: t.System, For: t.For.Seconds(), Action: t.Action,
			State: string(s.State), Reason: s.Reason, Worst: s.Worst, Evaluations: s.Evaluations, WithData: s.WithData,
			PendingAt: seconds(s.PendingAt), FiredAt: seconds(s.FiredAt),
			Threshold: t.Threshold, Unit: string(t.Metric.Unit),
		}
		if s.FiredAt != nil {
			out.Reason = ""
		} else if reason, ok := r.data.Missing[t.System][t.Metric.Name]; ok {
			out.State, out.Reason, out.Worst, out.WithData = "unknown", reason, nil, 0
		} else if s.Worst == nil {
			out.State = "unknown"
		}
		r.res.Triggers = append(r.res.Triggers, out)
	}
}

func (r *record) fillLoad() {
	rep := r.report
	out := &result.Load{
		Source: r.begun.Source, ClosedLoop: r.plan.Load.Max,
		Connections: map[string]int{}, Retried: map[string]int64{}, Queued: map[string]int64{}, CPU: r.ended.CPU,
	}
	to := r.until()
	if rep.Interrupted {
		to = min(to, rep.Elapsed) // which may have been in the warm-up
	}
	var asked []asked
	for i, arm := range rep.Arms {
		w := r.series.Window(i, 0, to)
		if w.Seconds > 0 {
			out.OfferedRate += float64(w.Offered) / w.Seconds
			out.SentRate += float64(w.Sent) / w.Seconds
			out.Completed += float64(w.CompleteEnded) / w.Seconds
		}
		asked = append(asked, askedOf(arm, &w))
	}
	if rep.SteadyLag.Requests > 0 {
		out.LagP50, out.LagP99, out.LagMax = seconds(&rep.SteadyLag.P50), seconds(&rep.SteadyLag.P99), seconds(&rep.SteadyLag.Max)
	}
	for _, arm := range rep.Arms {
		out.Connections[arm.Name] = int(arm.Connections)
		for _, s := range arm.Protocols {
			out.Spoken = append(out.Spoken, result.Spoken{System: arm.Name, Protocol: s.Protocol, Requests: int64(s.Requests), Connections: int64(s.Connections)})
		}
		out.Prewarmed += int64(arm.Prewarmed)
		out.PrewarmFailed += int64(arm.PrewarmFailed)
		out.Retried[arm.Name], out.Queued[arm.Name] = int64(arm.Retried), int64(arm.Queued)
		if arm.PrewarmFailed > 0 {
			r.notice("%d of %d targets got no usable answer while prewarming: %s", arm.PrewarmFailed, arm.Prewarmed, prewarmReasons(arm.PrewarmFailures))
		}
		if arm.Retried > 0 {
			r.notice("%d requests to the %s system were sent again: it had closed the connection that they were sent on without an answer, or, over HTTP/2, had said that it didn't touch them", arm.Retried, arm.Name)
		}
		if arm.Queued > 0 && r.plan.Load.Connections == 0 {
			r.notice("%d of %d requests to the %s system found all its %d connections busy: their wait is in the latency; load.connections raises the number", arm.Queued, arm.Offered, arm.Name, arm.Limit)
		}
		if arm.Earlier > 0 {
			r.notice("%d answers of the %s system were made before this run began: its cache was warm from something else, and its hits aren't what the run itself has led to", arm.Earlier, arm.Name)
		}
		if arm.Name == scenario.New && r.begun.Replayed && arm.Steady.Cacheable > 0 && arm.Earlier == 0 {
			r.notice("%s system: %s", arm.Name, arm.Steady)
		}
	}
	if out.Stolen = r.data.Stolen; out.Stolen > gate.MaxStolen {
		r.notice("the machine lost %.1f %% of its CPU time to others on its host in the steady state: latencies are longer than the systems made them. A limit that was kept was kept; a broken one proves something only by requests that waited for the upstream", 100*out.Stolen)
	}
	out.LogSkipped = r.begun.Skipped
	r.fillShortfall(asked)
	r.res.Load = out
}

// prewarmReasons says why targets got no usable answer, the most frequent reasons
// first, and of the rest how many there were.
func prewarmReasons(failures []load.PrewarmFailure) string {
	const most = 3
	var parts []string
	rest := 0
	for i, f := range failures {
		switch {
		case i >= most:
			rest += f.Count
		case f.Status > 0:
			parts = append(parts, fmt.Sprintf("%d with status %d", f.Count, f.Status))
		case f.Kind == timeline.Timeout.String():
			parts = append(parts, fmt.Sprintf("%d timed out", f.Count))
		case f.Kind == timeline.Transport.String():
			parts = append(parts, fmt.Sprintf("%d refused, reset or cut off", f.Count))
		default:
			parts = append(parts, fmt.Sprintf("%d with a %s answer", f.Count, f.Kind))
		}
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("%d for other reasons", rest))
	}
	return strings.Join(parts, ", ")
}

// asked is what one system was sent of what was due, until the time up to which
// it is judged. All but why some were never sent is counted by intervals.
type asked struct {
	system            string
	due, sent         int64 // sent in time
	late              int64 // sent later
	waiting           int64 // still in line when the run ended
	expired, unopened int64 // never sent: no connection was free, or none could be opened …
	unsent            int64 // … or for another reason
}

func askedOf(arm load.ArmReport, w *timeline.Window) asked {
	a := asked{system: arm.Name, due: w.Offered, sent: w.Sent, waiting: max(w.Pending()-w.CutOff, 0)}
	never := max(w.Requests-w.Service.TotalCount(), 0)
	a.late = max(a.due-a.sent-a.waiting-never, 0)
	a.expired = min(int64(arm.Expired), never)
	a.unopened = min(int64(arm.Unopened), never-a.expired)
	a.unsent = never - a.expired - a.unopened
	return a
}

// fillShortfall says first of all where a system wasn't sent what was due: its
// figures are those of a lighter load. Where the load as a whole falls short, so
// does that of a system.
func (r *record) fillShortfall(systems []asked) {
	var notices []string
	for _, a := range systems {
		if float64(a.sent) >= 0.99*float64(a.due) {
			continue
		}
		text := fmt.Sprintf("only %d of %d requests due to the %s system were sent in time (%.1f %%), so its figures are those of a lighter load than the scenario's", a.sent, a.due, a.system, 100*float64(a.sent)/float64(a.due))
		for _, part := range []struct {
			n    int64
			what string
		}{
			{a.late, "; %d were sent after the end of what is judged, when a connection became free"},
			{a.expired, "; %d found every connection busy until their timeout"},
			{a.waiting, "; %d still waited for a connection when the run ended"},
			{a.unopened, "; for %d no connection could be opened"},
			{a.unsent, "; %d got a connection too late to be sent before their timeout"},
		} {
			if part.n > 0 {
				text += fmt.Sprintf(part.what, part.n)
			}
		}
		notices = append(notices, text)
	}
	r.res.Notices = slices.Insert(r.res.Notices, 0, notices...)
}

// conclude gives the run its verdict.
func (r *record) conclude() {
	res := r.res
	res.Duration = r.ended.Duration
	res.Complete = !r.ended.Interrupted && r.ended.Failure == ""
	switch {
	case r.ended.Interrupted:
		res.Incomplete = "interrupted: what was measured until then is here, and nothing passes on it"
	case r.ended.Failure != "":
		res.Incomplete = "broken off: the environment failed"
		res.Error = r.ended.Failure
	}
	res.Verdict = result.Pass
	for i := range res.Gates {
		g := &res.Gates[i]
		switch {
		case res.Error != "" && g.Verdict != result.Inconclusive:
			g.Verdict, g.Reason = result.Inconclusive, "the environment failed, which is no fault of any system"
		case !res.Complete && g.Verdict == result.Pass:
			g.Verdict, g.Reason = result.Inconclusive, "nothing passes on a part of a run"
		}
		if !res.Complete && g.Verdict == result.Inconclusive {
			g.Reason += "; " + r.rest(g)
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

// rest says what a gate of an incomplete run still waits for.
func (r *record) rest(g *result.Gate) string {
	if r.ended.Failure != "" {
		return "need a run in which the environment doesn't fail"
	}
	if m, ok := scenario.Lookup(g.Metric); ok && m.Source == scenario.FromSequential {
		return "the run was interrupted before the sequential stage, its last: run it to the end"
	}
	left := r.stages.end(min(r.stages.looked+1, r.stages.looks)) - r.report.Elapsed
	if left <= 0 || g.Drill > 0 {
		return "the run was interrupted after its schedule: run it to the end"
	}
	due := ""
	if rate := r.rate(g.System); rate > 0 && !math.IsInf(rate, 0) {
		due = fmt.Sprintf(" (%s requests at %s)", unit.Count(int64(math.Ceil(left.Seconds()*rate))), unit.Exact(rate, "1/s"))
	}
	return fmt.Sprintf("the run was interrupted %s before the end of its schedule%s: run it to the end", unit.Duration(math.Ceil(left.Seconds())), due)
}

func seconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	s := d.Seconds()
	return &s
}
