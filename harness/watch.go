package harness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/environment"
	"phasegate/harness/probe"
	"phasegate/harness/timeline"
)

// watch looks at a running load once an interval: it samples resources and
// ledgers, evaluates the triggers and reports progress.
type watch struct {
	r        *run
	samplers []sampler // by arm; nil where the process isn't ours
	claims   []*claims // by arm; nil where the system says nothing of itself
	began    chan time.Time
	base     time.Time     // when the schedule started
	end      time.Duration // of the schedule
	ended    bool          // it has ended, and so has every request
	drill    string        // what is drilled; "" while gates are measured
}

// sampler samples a system's process tree or container.
type sampler interface {
	Sample() (probe.Usage, error)
}

// samplerOf returns the sampler of a system; nil if it isn't ours.
func samplerOf(s *environment.System) sampler {
	switch {
	case s.Container != nil:
		return containerSampler(s.Container)
	case s.Supervisor != 0:
		return probe.Below(s.Supervisor)
	}
	return nil
}

func newWatch(r *run) *watch {
	w := &watch{r: r, began: make(chan time.Time, 1), end: r.stages.end(r.stages.looks)}
	for _, arm := range r.arms {
		w.samplers = append(w.samplers, samplerOf(r.env.Systems()[arm.Name]))
		w.claims = append(w.claims, newClaims(r.env.Systems()[arm.Name].Metrics, claimEvery))
	}
	return w
}

// begin is told when the schedule starts: the timeline's clock.
func (w *watch) begin(now time.Time) { w.began <- now }

// run looks once an interval until ctx ends, takes every planned look but the
// last, and ends the load by cancel when there is no sense in going on: every
// gate is decided, one has failed for certain and the plan says to stop on that,
// or the mock upstream has died.
func (w *watch) run(ctx context.Context, cancel context.CancelCauseFunc) {
	select {
	case w.base = <-w.began:
		w.r.note(entry{Started: &w.base})
	case <-ctx.Done():
		return
	}
	var upstreamDied <-chan struct{}
	if u := w.r.env.Upstream(); u != nil {
		upstreamDied = u.Died()
	}
	for _, s := range w.samplers {
		if s != nil {
			_, _ = s.Sample() // the CPU share of the first interval counts from here
		}
	}
	for _, c := range w.claims {
		if c != nil {
			defer c.start(ctx, func() time.Duration { return time.Since(w.base) })()
		}
	}
	if w.r.env.Control() != nil {
		for i := range w.r.arms {
			w.r.recorder.Ledger(i, 0, timeline.LedgerCounts{}) // they were reset before
		}
	}
	w.readMachine(0)
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	next, early := 1, time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			w.ended = context.Cause(ctx) == errEnded
			w.sample(context.WithoutCancel(ctx), time.Since(w.base))
			return
		case <-upstreamDied:
			u := w.r.env.Upstream()
			cancel(&environment.Error{
				Op: "keep it running", System: "upstream", Err: errors.New(u.Exit()), Log: u.LogTail(20), File: u.LogFile,
			})
			return
		case <-ticker.C:
		}
		now := time.Since(w.base)
		w.sample(ctx, now)
		at := now.Round(Interval)
		w.r.flush()
		w.r.note(entry{Evaluate: &at})
		w.progress(now)
		if err := w.r.evidence.err; err != nil {
			cancel(err)
			return
		}
		if w.drill != "" {
			continue
		}
		if s := w.r.stages; next < s.looks && now >= s.end(next)+w.r.plan.Load.Timeout {
			if w.r.decided(next, w.r.generator.SteadyLag()) {
				cancel(errDecided)
			}
			next++
		}
		// A long run is looked at less often, since each look reads all of it.
		if at := now.Truncate(Interval); w.r.plan.AbortOnFailure && ctx.Err() == nil && at-early >= max(Interval, now/600) {
			if early = at; w.r.failed(at, w.r.generator.SteadyLag()) {
				cancel(errFailed)
			}
		}
	}
}

// sample reads every arm's resources and ledger. What can't be read is left
// out: a gap in the record, which no gate takes for a zero.
func (w *watch) sample(ctx context.Context, at time.Duration) {
	for i, s := range w.samplers {
		if s == nil {
			continue
		}
		usage, err := s.Sample()
		switch {
		case errors.Is(err, probe.ErrGone):
			w.samplers[i] = nil
		case err == nil:
			claimed := w.claims[i].at(at)
			w.r.recorder.Resources(i, at, timeline.Usage{
				Resident: usage.Resident, Peak: usage.Peak, CPU: usage.CPU,
				LiveHeap: claimed.LiveHeap, CachePayload: claimed.CachePayload,
				Breakers: claimed.Breakers, OpenBreakers: claimed.OpenBreakers,
			})
			if g, ok := s.(*probe.GroupSampler); ok {
				w.kills(i, g.Kills(), at)
			}
		}
	}
	w.ledgers(ctx)
	w.readMachine(at)
}

// readMachine reads how much of its CPU time the machine has lost to others.
func (w *watch) readMachine(at time.Duration) {
	if total, stolen, err := probe.MachineCPU(); err == nil {
		w.r.note(entry{Machine: &machineCPU{at, total, stolen}})
	}
}

// ledgers reads every arm's ledger, as of the middle of the time that it takes.
// What is read after the schedule's end is as of the end of the interval that it
// ends in: nothing falls due later, what comes until then is of what did, and an
// interval that a recording ends within is covered too.
func (w *watch) ledgers(ctx context.Context) {
	control := w.r.env.Control()
	if control == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for i, arm := range w.r.arms {
		asked := time.Since(w.base)
		if ledger, err := control.Ledger(ctx, arm.Name, false); err == nil {
			at := (asked + time.Since(w.base)) / 2
			if w.ended || at > w.end {
				at = (w.end + Interval - 1).Truncate(Interval)
			}
			w.r.recorder.Ledger(i, at, counts(ledger))
		}
	}
}

func (w *watch) progress(now time.Duration) {
	s := w.r.stages
	p := Progress{Stage: "steady", Done: (now - s.warmup).Seconds(), Total: (time.Duration(s.looks) * s.steady).Seconds()}
	if now < s.warmup {
		p = Progress{Stage: "warmup", Done: now.Seconds(), Total: s.warmup.Seconds()}
	}
	if w.drill != "" {
		p = Progress{Stage: "drill", Done: now.Seconds(), Total: w.end.Seconds()}
	}
	p.Done = min(p.Done, p.Total)
	arm := len(w.r.plan.Systems) - 1
	last := w.r.recorder.Window(arm, now-2*Interval, now-Interval)
	if last.Requests > 0 {
		p95 := time.Duration(last.Latency.ValueAtQuantile(95)) * time.Microsecond
		p.Text = fmt.Sprintf("%s: %d requests/s, p95 %s, %d errors", w.r.plan.Systems[arm].Name,
			last.Offered, p95.Round(10*time.Microsecond), last.Errors())
	}
	w.r.opts.Progress(p)
}

// counts picks what the timeline keeps of a ledger.
func counts(l wire.Ledger) timeline.LedgerCounts {
	return timeline.LedgerCounts{
		Requests: int64(l.Requests), Reads: int64(l.Reads),
		Conditional: int64(l.Conditional), NotModified: int64(l.NotModified), Duplicates: int64(l.Duplicates),
		HTTP2: int64(l.Protocols["h2"] + l.Protocols["h2c"]), H2C: int64(l.Protocols["h2c"]),
		Reused: int64(l.Reused), Connections: int64(l.Connections),
		Handshakes: int64(l.Handshakes), Resumed: int64(l.Resumed), HandshakeFailures: int64(l.HandshakeFailures),
		GoAways: int64(l.GoAways), Broken: int64(l.Broken),
	}
}
