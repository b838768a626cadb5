package load

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"phasegate/harness/timeline"
)

// Run keeps the whole schedule, once, and returns when the last request has
// ended. With Load.Max there is no schedule: the clients are kept busy for its
// length, a request is due when its client is free for it, and latency is
// service time and, over HTTP/1.1, the moment for which it waits to leave with
// others. When ctx is cancelled it stops at once: requests under way are cut
// off and don't count as outcomes, the report is of what was done until then,
// and the error is that of ctx.
func (g *Generator) Run(ctx context.Context) (Report, error) {
	ctx, leave, err := g.enter(ctx)
	if err != nil {
		return Report{}, err
	}
	defer leave()
	if g.ran {
		return Report{}, errRan
	}
	g.ran = true
	for _, a := range g.arms {
		for p := range a.dialled {
			a.dialled[p].Store(0) // those of earlier stages aren't of the run
		}
	}

	r := &running{g: g, lag: g.lag, base: time.Now(), engine: g.newEngine()}
	for _, a := range g.arms {
		if g.pacer != nil {
			r.lanes = append(r.lanes, g.lanes(ctx, a, r))
		}
	}
	g.begin(r.base)
	if g.pacer == nil {
		err = (&loop{running: r, ctx: ctx}).run()
	} else {
		err = r.keep(ctx)
	}
	if err != nil {
		return Report{}, err
	}
	report := r.report()
	if report.Interrupted {
		return report, ctx.Err()
	}
	return report, nil
}

// running is one run of the schedule.
type running struct {
	g       *Generator
	base    time.Time
	lanes   [][]lane // by arm and protocol
	engine  engine   // of the dispatcher
	lag     *lagClock
	stop    atomic.Bool
	lost    atomic.Uint64
	pending sync.WaitGroup // requests that are due and have not ended
	ended   bool           // the dispatcher reached the schedule's end
}

// keep keeps the schedule, and ends when everything has that was due.
func (r *running) keep(ctx context.Context) error {
	drained, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- r.drive(drained) }()
	var err error
	select {
	case <-drained:
	case <-ctx.Done():
		r.stop.Store(true)
	case err = <-ended: // it didn't begin
	}
	for _, lane := range slices.Concat(r.lanes...) {
		lane.close()
	}
	r.engine.stop()
	if err == nil {
		err = <-ended
	}
	return err
}

// drive is the thread that dispatches, and has HTTP/1.1's connections go on until
// they are closed.
func (r *running) drive(drained chan<- struct{}) error {
	if err := r.engine.open(r.g.onlyHTTP1(), false); err != nil {
		return err
	}
	defer r.engine.close()
	r.dispatch()
	go func() {
		r.pending.Wait()
		close(drained)
	}()
	r.engine.serve()
	return nil
}

// nap is the longest single sleep, so that a stop is seen soon.
const nap = 50 * time.Millisecond

// dispatch sends every request when it is due.
func (r *running) dispatch() {
	g := r.g
	for i := uint64(0); ; i++ {
		due := g.pacer.due(i)
		if due >= g.length {
			r.ended = true
			return
		}
		req, at, leg := g.source.at(i), g.split.at(i), g.leg.at(i)
		steady := due >= g.warmup
		a := g.arms[at]
		var late time.Duration
		for {
			if r.stop.Load() {
				return
			}
			wait := due - time.Since(r.base)
			if wait <= 0 {
				if late = -wait; late > patience {
					r.engine.idle(r.base.Add(due)) // behind, and answers go on coming
				}
				break
			}
			r.engine.idle(r.base.Add(min(due, due-wait+nap)))
		}
		g.sink.Offer(at, due)
		r.pending.Add(1)
		sent, free := r.lanes[at][leg].dispatch(job{request: req, due: due, seq: i, lag: late})
		if free && !sent.IsZero() {
			r.late(due, sent.Sub(r.base))
		}
		a.offer(req, steady, free)
	}
}

// late counts how long after its due time a request was sent for which a
// connection was free.
func (r *running) late(due, sent time.Duration) { r.lag.record(sent-due, due >= r.g.warmup) }

// offer counts a request that was due.
func (a *arm) offer(r request, steady, free bool) {
	a.offered++
	if !free {
		a.queued++
	}
	a.methods.count(r.method)
	if r.cacheable() {
		first := a.seen.add(r.target)
		a.all.count(first)
		if steady {
			a.steady.count(first)
		}
	}
}

// count counts one.
func (m *methodCounts) count(name string) {
	for i := range *m {
		if (*m)[i].name == name {
			(*m)[i].n++
			return
		}
	}
	*m = append(*m, methodCount{name, 1})
}

// record takes a request's outcome.
func (r *running) record(a *arm, j job, x *exchange) {
	g := r.g
	target := func() []byte { return g.source.appendTarget(nil, j.target) }
	if x.Class == timeline.OK && x.Proven && Writes(j.method) {
		a.written.raise(target(), x.version)
	}
	if !x.Class.Usable() {
		// Whoever gets no answer waits in vain, however soon that is known: a
		// system that refuses quickly must not look fast.
		x.Latency = max(x.Latency, g.timeout)
	}
	a.tally(a.Name, j, x, target)
	if g.raw != nil {
		g.raw.add(rawResult(a, r.base, j, x, target()))
	}
	g.sink.Record(a.index, x.Outcome)
	r.pending.Done()
}

// Writes reports whether a method changes its target, so that a cache has to
// give up what it holds (RFC 9111, section 4.4).
func Writes(method string) bool {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return true
	}
	return false
}

// lose takes a request that was cut off, on its way or (nil) before it was sent.
func (r *running) lose(a *arm, x *exchange) {
	r.lost.Add(1)
	if x != nil && x.sent {
		r.g.sink.Cut(a.index, x.Due, x.Due+x.Wait)
	}
	r.pending.Done()
}

// report sums up once everything has ended.
func (r *running) report() Report {
	report := Report{
		Started:     r.base,
		Elapsed:     time.Since(r.base),
		Unfinished:  r.lost.Load(),
		Interrupted: !r.ended || r.lost.Load() > 0,
		Lag:         LagOf(r.lag.all),
		SteadyLag:   LagOf(r.lag.steady),
		Lags:        r.lag.all,
		SteadyLags:  r.lag.steady,
	}
	for _, a := range r.g.arms {
		part := a.report()
		report.Offered += part.Offered
		report.Sent += part.Sent
		report.Completed += part.Completed
		report.Arms = append(report.Arms, part)
	}
	return report
}
