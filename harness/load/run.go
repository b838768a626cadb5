package load

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"phasegate/harness/timeline"
)

// Run keeps the whole schedule, once, and returns when the last request has
// ended. When ctx is cancelled it stops at once: requests under way are cut
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
		a.dialled.Store(0) // those of earlier stages aren't of the run
	}

	r := &running{g: g, lag: newLagClock(), base: time.Now()}
	for _, a := range g.arms {
		r.pools = append(r.pools, &pool{
			g: g, arm: a, ctx: ctx, base: r.base, limit: a.Connections,
			record: r.record, lost: r.lose,
		})
	}
	g.begin(r.base)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.dispatch()
		r.pending.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		r.stop.Store(true)
	}
	for _, p := range r.pools {
		p.close()
	}
	<-done
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
	pools   []*pool
	lag     lagClock
	stop    atomic.Bool
	lost    atomic.Uint64
	pending sync.WaitGroup // requests that are due and have not ended
	ended   bool           // the dispatcher reached the schedule's end
}

// nap is the longest single sleep, so that a stop is seen soon.
const nap = 50 * time.Millisecond

// dispatch sends every request when it is due.
func (r *running) dispatch() {
	g := r.g
	s := g.newSleeper()
	defer s.close()
	for i := uint64(0); ; i++ {
		due := g.pacer.due(i)
		if due >= g.length {
			r.ended = true
			return
		}
		req, at := g.source.at(i), g.split.arm(i)
		steady := due >= g.warmup
		a := g.arms[at]
		var late time.Duration
		for {
			if r.stop.Load() {
				return
			}
			wait := due - time.Since(r.base)
			if wait <= 0 {
				late = -wait
				break
			}
			s.sleep(min(wait, nap))
		}
		g.sink.Offer(at, due)
		r.pending.Add(1)
		sent, free := r.pools[at].dispatch(job{request: req, due: due, lag: late})
		if free {
			r.lag.record(sent.Sub(r.base)-due, steady)
		}
		a.offer(req, steady, free)
	}
}

// offer counts a request that was due.
func (a *arm) offer(r request, steady, free bool) {
	a.offered++
	if !free {
		a.queued++
	}
	a.methods[r.method]++
	if r.cacheable() {
		first := a.seen.add(r.target)
		a.all.count(first)
		if steady {
			a.steady.count(first)
		}
	}
}

// record takes a request's outcome.
func (r *running) record(a *arm, j job, x *exchange) {
	g := r.g
	target := func() []byte { return g.source.appendTarget(nil, j.target) }
	if x.Class == timeline.OK && x.Proven && writes(j.method) {
		a.written.raise(target(), x.version)
	}
	if !x.Class.Usable() {
		// Whoever gets no answer waits in vain, however soon that is known: a
		// system that refuses quickly must not look fast.
		x.Latency = max(x.Latency, g.timeout)
	}
	a.tally(a.Name, j, x, target)
	g.sink.Record(a.index, x.Outcome)
	r.pending.Done()
}

// writes reports whether a method changes its target, so that a cache has to
// give up what it holds (RFC 9111, section 4.4).
func writes(method string) bool {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return true
	}
	return false
}

// lose takes a request that was cut off.
func (r *running) lose() {
	r.lost.Add(1)
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
	if span := min(report.Elapsed, r.g.length).Seconds(); span > 0 {
		report.OfferedRate = float64(report.Offered) / span
		report.SentRate = float64(report.Sent) / span
		report.CompletedRate = float64(report.Completed) / span
	}
	return report
}
