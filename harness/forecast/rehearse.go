package forecast

import (
	"container/heap"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/gate"
	"phasegate/harness/load"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// maxRehearsed is how many requests of a schedule are looked at one by one:
// enough for every profile of a few minutes, and a few seconds of work.
const maxRehearsed = 4_000_000

// rehearsal sends the load's own request sequence, in thought and in no time,
// to the best systems there could be, and records what the engine would: they
// never fail, answer a hit at once, hold everything, and ask the upstream only
// for what no cache can have. What they can't reach, nothing can.
//
// A read is then slow only if it is the first for its target on its arm, from
// the beginning of the schedule and beyond what was prewarmed, or comes while
// that first answer is still on its way. A target whose copy has outlived all
// that Cache-Control allows, or that was written to, must be fetched again: an
// upstream request, which counts against hits; but refreshing ahead would spare
// the client the wait. The counts tell these apart from an ordinary cache,
// which refreshes what is stale in the background and fetches the rest when it
// is asked for.
//
// Where load.connections limits them, requests wait in line for a connection as
// they do in a run, and are given up after the timeout.
//
// The upstream's latencies are spread evenly over its distribution, so that
// shares of them are exact; the mock upstream draws from the same one.
type rehearsal struct {
	schedule  *Schedule
	recorder  *timeline.Recorder
	arms      []rehearsed
	thinking  thinking
	positions uint64        // looked at
	complete  bool          // to the schedule's end
	last      time.Duration // due time of the last one looked at
}

// rehearsed is one arm of a rehearsal.
type rehearsed struct {
	system scenario.System
	policy func(target string) wire.Policy
	copies map[string]*copyOf
	ledger timeline.LedgerCounts // of the best cache
	drawn  uint64                // latencies
	pool   pool

	warmup, first int64  // requests due in the warm-up, and up to the first look
	steady        demand // up to the last look
}

// demand counts requests due in the steady state.
type demand struct {
	Requests, Reads int64
	Writes          int64 // whatever isn't GET or HEAD goes to the upstream, and is waited for
	First           int64 // reads that are the first for their target
	Coalesced       int64 // reads that come while the first answer is on its way
	Expired         int64 // reads of a copy older than its lifetime and any allowance
	Rewritten       int64 // reads that are the first after a write to their target
	Refreshed       int64 // reads of a stale copy that may be served: an ordinary cache refreshes it in the background
	Uncacheable     int64 // reads of what may not be stored, or not be used without asking
	Fetched         int64 // upstream reads, at least

	Queued    int64 // found every connection busy
	Lost      int64 // of them, those that were given up
	LostReads int64 // of those, reads
}

// waiting is how many requests wait for the upstream whatever the cache; with
// ordinary, those of one that doesn't refresh ahead.
func (d demand) waiting(ordinary bool) int64 {
	n := d.Writes - (d.Lost - d.LostReads) + d.First + d.Coalesced + d.Uncacheable
	if ordinary {
		n += d.Expired + d.Rewritten
	}
	return n
}

// copyOf is a stored answer.
type copyOf struct {
	ready    time.Duration // when the answer that it began with is complete
	best     time.Duration // when the best cache last fetched it
	ordinary time.Duration // when an ordinary one did
	written  bool          // since then
}

// rehearse goes through the plan's schedule, but for what comes after the first
// most requests. The error is an [InputError] where a file that the scenario
// names can't be used.
func rehearse(plan *scenario.Plan, most uint64) (*rehearsal, error) {
	schedule, err := NewSchedule(plan)
	if err != nil {
		return nil, err
	}
	h := &rehearsal{schedule: schedule}
	sequence := plan.Load
	sequence.Protocols = nil // what is asked for doesn't depend on them, and addresses have none here
	config := load.Config{
		Load: sequence, Recording: schedule.Recorded, Length: schedule.End(schedule.Looks), Warmup: schedule.Warmup, Seed: plan.Seed,
	}
	if schedule.Recorded != nil {
		config.Catalog = schedule.Recorded.Catalog()
	}
	policy := func(string) wire.Policy { return wire.Policy{} }
	var names []string
	if u := plan.Upstream; u != nil {
		var err error
		if policy, err = policies(u); err != nil {
			return nil, &InputError{fmt.Errorf("upstream.cache_control: %w", err)}
		}
		if h.thinking, err = newThinking(u.Latency); err != nil {
			return nil, &InputError{fmt.Errorf("upstream.latency: %w", err)}
		}
	}
	for _, s := range plan.Systems {
		// Nobody is called: the sequence doesn't depend on addresses.
		config.Arms = append(config.Arms, load.Arm{Name: s.Name, Share: s.Share, Connections: 1, URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}})
		a := rehearsed{system: s, policy: policy, copies: map[string]*copyOf{}}
		if plan.Load.Connections > 0 {
			a.pool.size = schedule.streams(s)
		}
		h.arms = append(h.arms, a)
		names = append(names, s.Name)
	}
	h.recorder, err = timeline.New(timeline.Config{Interval: Interval, Systems: names, Over: gate.Thresholds(plan.Gates, plan.Triggers)})
	if err != nil {
		return nil, fmt.Errorf("set up the timeline: %w", err)
	}
	generator, err := load.New(config)
	if err != nil {
		return nil, fmt.Errorf("set up the load: %w", err)
	}
	defer generator.Close()
	if i := slices.IndexFunc(plan.Systems, func(s scenario.System) bool { return s.Name == scenario.New }); i >= 0 && plan.Prewarm.Top > 0 {
		for _, target := range generator.Popular(plan.Prewarm.Top) {
			h.arms[i].copies[target] = &copyOf{}
		}
	}
	h.walk(generator, config.Catalog, most)
	return h, nil
}

// policies tells what a target's answers say to caches.
func policies(u *scenario.Upstream) (func(target string) wire.Policy, error) {
	var paths []wire.PathConfig
	var of []wire.Policy
	for _, p := range append(slices.Clone(u.Paths), scenario.UpstreamPath{CacheControl: u.CacheControl}) {
		policy, err := wire.ParsePolicy(p.CacheControl)
		if err != nil {
			return nil, err
		}
		paths, of = append(paths, wire.PathConfig(p)), append(of, policy)
	}
	return func(target string) wire.Policy { return of[wire.PathIndex(paths, target)] }, nil
}

// walk goes through the sequence in order.
func (h *rehearsal) walk(generator *load.Generator, catalog wire.Catalog, most uint64) {
	s := h.schedule
	read := time.Duration(0) // up to when the ledgers are read
	ledgers := func(until time.Duration) {
		for ; read <= until; read += Interval {
			for i := range h.arms {
				if h.schedule.Plan.Upstream != nil {
					h.recorder.Ledger(i, read, h.arms[i].ledger)
				}
			}
		}
	}
	ledgers(0)
	for ; h.positions < most; h.positions++ {
		req, ok := generator.At(h.positions)
		if !ok {
			h.complete = !h.schedule.Plan.Load.Max // a closed loop has no schedule to look at
			break
		}
		ledgers(req.Due)
		h.last = req.Due
		a := &h.arms[req.Arm]
		var none demand
		count := &none
		if req.Due < s.Warmup {
			a.warmup++
		} else {
			count = &a.steady
			if req.Due < s.End(1) {
				a.first++
			}
		}
		status := http.StatusOK
		if logged, ok := catalog[req.Target]; ok {
			status = logged.Status
		}
		h.recorder.Offer(req.Arm, req.Due)
		h.recorder.Record(req.Arm, h.answer(a, req, status, count))
	}
	if h.complete {
		ledgers(s.End(s.Looks))
	}
}

// answer is what becomes of a request in the best case.
func (h *rehearsal) answer(a *rehearsed, req load.Request, status int, count *demand) timeline.Outcome {
	o := timeline.Outcome{Due: req.Due, Proven: h.schedule.Plan.Load.Verify}
	o.Cacheable = req.Method == http.MethodGet || req.Method == http.MethodHead
	count.Requests++
	limit, queued := h.schedule.Plan.Load.Timeout, a.pool.wait(req.Due)
	if queued > 0 {
		count.Queued++
	}
	if limit > 0 && queued >= limit {
		if count.Lost++; o.Cacheable {
			count.Reads++
			count.LostReads++
		} else {
			count.Writes++
		}
		o.Latency = queued
		return h.ended(o)
	}
	now := req.Due + queued
	wait := func() {
		o.Blocking = o.Proven
		o.Service = h.thinking.draw(a.drawn)
		a.drawn++
		a.ledger.Requests++
		a.ledger.HTTP2++
		a.ledger.Reused++
	}
	fetch := func() {
		a.ledger.Reads++
		count.Fetched++
	}
	fresh, grace, storable := a.policy(req.Target).Lifetimes(status, false)
	c := a.copies[req.Target]
	if o.Cacheable {
		count.Reads++
	}
	switch {
	case !o.Cacheable:
		count.Writes++
		if c != nil && load.Writes(req.Method) {
			c.written = true
		}
		wait()
	case h.schedule.Plan.Upstream == nil:
		// Nobody knows what is behind it.
	case a.system.Kind == scenario.KindDirect || !storable || fresh+grace == 0:
		count.Uncacheable++
		fetch()
		wait()
	case c == nil && a.system.Kind == scenario.KindURL:
		// Already running, so it may hold whatever it was asked for before.
	case c == nil:
		count.First++
		fetch()
		wait()
		born := now + o.Service
		a.copies[req.Target] = &copyOf{ready: born, best: born, ordinary: born}
	case now < c.ready:
		count.Coalesced++
		o.Blocking, o.Service = o.Proven, c.ready-now
	default:
		h.reuse(a, c, now, fresh, grace, count, fetch)
	}
	o.Wait, o.Latency = queued, queued+o.Service
	held := o.Service
	if limit > 0 { // who waits longer hangs up
		held = min(held, limit-queued)
	}
	a.pool.take(now, held)
	return h.ended(o)
}

// reuse answers a read from a copy, at once, and keeps its age.
func (h *rehearsal) reuse(a *rehearsed, c *copyOf, now, fresh, grace time.Duration, count *demand, fetch func()) {
	again := func() {
		fetch()
		a.ledger.Requests++
		a.ledger.HTTP2++
		a.ledger.Reused++
		c.best = now
	}
	switch age := now - c.ordinary; {
	case c.written:
		count.Rewritten++
		again()
		c.ordinary, c.written = now, false
		return
	case age > fresh+grace:
		count.Expired++
		c.ordinary = now
	case age > fresh:
		count.Refreshed++
		c.ordinary = now
	}
	if now-c.best > fresh+grace {
		again()
	}
}

// ended applies the timeout: who waits longer gets no answer.
func (h *rehearsal) ended(o timeline.Outcome) timeline.Outcome {
	if limit := h.schedule.Plan.Load.Timeout; o.Latency >= limit && limit > 0 {
		o.Latency, o.Class, o.Proven, o.Blocking = limit, timeline.Timeout, false, false
	}
	o.Service = max(o.Latency-o.Wait, 0)
	return o
}

// pool are an arm's connections, or the streams on them: the times at which those
// that were taken are free again, in a heap. One of size 0 has no limit.
type pool struct {
	size  int
	until []time.Duration
}

// wait is how long a request that is due then waits for a connection.
func (p *pool) wait(due time.Duration) time.Duration {
	if p.size == 0 || len(p.until) < p.size {
		return 0
	}
	return max(0, p.until[0]-due)
}

// take occupies the first connection to be free.
func (p *pool) take(from, length time.Duration) {
	switch {
	case p.size == 0 || length == 0:
	case len(p.until) < p.size:
		heap.Push(p, from+length)
	default:
		p.until[0] = from + length
		heap.Fix(p, 0)
	}
}

func (p *pool) Len() int           { return len(p.until) }
func (p *pool) Less(i, j int) bool { return p.until[i] < p.until[j] }
func (p *pool) Swap(i, j int)      { p.until[i], p.until[j] = p.until[j], p.until[i] }
func (p *pool) Push(x any)         { p.until = append(p.until, x.(time.Duration)) }

// Pop implements heap.Interface; no connection is ever closed.
func (p *pool) Pop() any {
	last := p.until[len(p.until)-1]
	p.until = p.until[:len(p.until)-1]
	return last
}

// data is what the gates would be judged by.
func (h *rehearsal) data(look int) gate.Data {
	d := gate.Data{Windows: map[string]timeline.Window{}, Missing: map[string]map[string]string{}, Rate: map[string]float64{}}
	end := h.schedule.End(look)
	if !h.complete {
		end = min(end, h.last.Truncate(Interval))
	}
	for i, a := range h.arms {
		d.Windows[a.system.Name] = h.recorder.Window(i, h.schedule.Warmup, end)
		d.Rate[a.system.Name] = h.schedule.GoingOn(a.system.Name)
	}
	return d
}

// thinking is the distribution of the upstream's latency.
type thinking struct {
	fixed     time.Duration // where sigma is 0
	mu, sigma float64       // of its logarithm, in seconds
	mean      time.Duration
}

func newThinking(l scenario.Latency) (thinking, error) {
	mu, sigma, err := wire.Latency{Fixed: l.Fixed, Mean: l.Mean, P95: l.P95}.LogNormal()
	return thinking{fixed: l.Typical(), mu: mu, sigma: sigma, mean: l.Typical()}, err
}

// draw returns latencies that fill the distribution evenly: the i-th is the
// quantile at the fractional part of i golden ratios.
func (t thinking) draw(i uint64) time.Duration {
	if t.sigma == 0 {
		return t.fixed
	}
	_, u := math.Modf((float64(i) + 0.5) * (math.Sqrt(5) - 1) / 2)
	z := distuv.UnitNormal.Quantile(min(max(u, 1e-9), 1-1e-9))
	return time.Duration(math.Exp(t.mu+t.sigma*z) * float64(time.Second))
}

// beyond is the share of its answers that take d or longer.
func (t thinking) beyond(d time.Duration) float64 {
	switch {
	case d <= 0:
		return 1
	case t.sigma > 0:
		return distuv.UnitNormal.Survival((math.Log(d.Seconds()) - t.mu) / t.sigma)
	case t.fixed >= d:
		return 1
	}
	return 0
}
