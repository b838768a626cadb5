package harness

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/environment"
	"phasegate/harness/gate"
	"phasegate/harness/probe"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// watch looks at a running load once an interval: it samples resources and
// ledgers, evaluates the triggers and reports progress.
type watch struct {
	r        *run
	triggers []*gate.Trigger
	samplers []*probe.Sampler // by arm; nil where the process isn't ours
	began    chan time.Time
	base     time.Time    // when the schedule started
	cpu      []machineCPU // in order of time
}

// machineCPU is a reading of the machine's CPU time.
type machineCPU struct {
	at            time.Duration
	total, stolen time.Duration
}

func newWatch(r *run) *watch {
	w := &watch{r: r, began: make(chan time.Time, 1)}
	for _, t := range r.plan.Triggers {
		w.triggers = append(w.triggers, gate.NewTrigger(t, r.plan.TimeScale))
	}
	for _, arm := range r.arms {
		var s *probe.Sampler
		if system := r.env.Systems()[arm.Name]; system.Supervisor != 0 {
			s = probe.Below(system.Supervisor)
		}
		w.samplers = append(w.samplers, s)
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
	w.ledgers(ctx) // their zero
	w.readMachine(0)
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	next, early := 1, time.Duration(0)
	for {
		select {
		case <-ctx.Done():
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
		w.evaluate(now.Round(Interval))
		w.progress(now)
		if s := w.r.stages; next < s.looks && now >= s.end(next)+w.r.plan.Load.Timeout {
			if w.r.decided(next) {
				cancel(errDecided)
			}
			next++
		}
		// A long run is looked at less often, since each look reads all of it.
		if at := now.Truncate(Interval); w.r.plan.AbortOnFailure && ctx.Err() == nil && at-early >= max(Interval, now/600) {
			if early = at; w.r.failed(at) {
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
			w.r.recorder.Resources(i, at, timeline.Usage(usage))
		}
	}
	w.ledgers(ctx)
	w.readMachine(at)
}

// readMachine reads how much of its CPU time the machine has lost to others.
func (w *watch) readMachine(at time.Duration) {
	if total, stolen, err := probe.MachineCPU(); err == nil {
		w.cpu = append(w.cpu, machineCPU{at, total, stolen})
	}
}

// stolen is the share of the machine's CPU time that others took between two
// times, from the readings that lie nearest before them.
func (w *watch) stolen(from, to time.Duration) float64 {
	before := func(t time.Duration) machineCPU {
		i := sort.Search(len(w.cpu), func(i int) bool { return w.cpu[i].at > t+Interval/2 })
		return w.cpu[max(i-1, 0)]
	}
	if len(w.cpu) == 0 {
		return 0
	}
	a, b := before(from), before(to)
	if b.total <= a.total {
		return 0
	}
	return float64(b.stolen-a.stolen) / float64(b.total-a.total)
}

// ledgers reads every arm's ledger, as of the middle of the time that it takes.
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
			w.r.recorder.Ledger(i, (asked+time.Since(w.base))/2, counts(ledger))
		}
	}
}

// evaluate hands every trigger its sliding window, once an interval: at is a
// whole one, whatever the tick's own lateness, so that five evaluations are
// five intervals. Triggers are armed when the steady state starts, so their
// windows never reach back into the warm-up.
func (w *watch) evaluate(at time.Duration) {
	s := w.r.stages
	if at <= s.warmup || at > s.end(s.looks) {
		return // not armed yet, or nothing is due any more
	}
	for i, t := range w.r.plan.Triggers {
		arm := w.r.armIndex(t.System)
		length := gate.WindowLength(w.r.rate(t.System), w.r.plan.TimeScale)
		window := w.r.recorder.Window(arm, max(at-length, s.warmup), at)
		if late := at - w.r.plan.Load.Timeout; t.Metric.Estimator == scenario.ByShare && window.Pending() > window.Requests && late > s.warmup {
			// Most of it hasn't ended. What fell due a timeout earlier has, one
			// way or another: a system that hangs is seen by its timeouts.
			window = w.r.recorder.Window(arm, max(late-length, s.warmup), late)
		}
		w.triggers[i].Observe(at, window, w.stolen(at-length, at))
	}
}

func (w *watch) progress(now time.Duration) {
	s := w.r.stages
	p := Progress{Stage: "steady", Done: (now - s.warmup).Seconds(), Total: (time.Duration(s.looks) * s.steady).Seconds()}
	if now < s.warmup {
		p = Progress{Stage: "warmup", Done: now.Seconds(), Total: s.warmup.Seconds()}
	}
	p.Done = min(p.Done, p.Total)
	arm := len(w.r.plan.Systems) - 1
	last := w.r.recorder.Window(arm, now-2*Interval, now-Interval)
	if last.Requests > 0 {
		p95 := time.Duration(last.Latency.ValueAtQuantile(95)) * time.Microsecond
		p.Text = fmt.Sprintf("%s: %d requests/s, p95 %s, %d errors", w.r.plan.Systems[arm].Name,
			last.Requests, p95.Round(10*time.Microsecond), last.Errors())
	}
	w.r.opts.Progress(p)
}

// counts picks what the timeline keeps of a ledger.
func counts(l wire.Ledger) timeline.LedgerCounts {
	return timeline.LedgerCounts{
		Requests: int64(l.Requests), Reads: int64(l.Reads),
		Conditional: int64(l.Conditional), NotModified: int64(l.NotModified),
		HTTP2:  int64(l.Protocols["h2"] + l.Protocols["h2c"]),
		Reused: int64(l.Reused), Connections: int64(l.Connections),
		Handshakes: int64(l.Handshakes), HandshakeFailures: int64(l.HandshakeFailures),
	}
}
