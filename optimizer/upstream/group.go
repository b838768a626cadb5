package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Group sends requests to one of several upstreams that serve the same API, each with a
// pool and a breaker of its own. Those that fail are left out for a while, but never the
// last one. Its methods may be called concurrently.
type Group struct {
	cfg     Config
	members []*member
	turn    atomic.Uint64
	mu      sync.Mutex // held by whoever leaves one out
}

// member is one upstream of a group.
type member struct {
	pool     *Pool
	pending  atomic.Int64 // requests without a header yet
	failures atomic.Int64 // in a row

	until atomic.Int64 // Unix nanoseconds: left out so long for failed requests
	sick  atomic.Bool  // left out for failed probes
	times int          // left out for failed requests without a good while in between
	last  time.Duration

	ejections *tally
	probes    *tally
}

// NewGroup makes a group of upstream.url and upstream.urls; it opens no connection yet.
func NewGroup(cfg Config) (*Group, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Group{cfg: cfg.WithDefaults()}
	for _, address := range append([]string{cfg.URL}, cfg.URLs...) {
		one := cfg
		one.URL, one.URLs = address, nil
		pool, err := New(one)
		if err != nil {
			return nil, err
		}
		g.members = append(g.members, &member{pool: pool, ejections: newTally(byRequests, byProbes), probes: newTally("good", "bad")})
	}
	return g, nil
}

// URL returns the first upstream's address; it must not be changed. Requests for it go to
// any of them.
func (g *Group) URL() *url.URL { return g.members[0].pool.URL() }

// Do sends req, as Pool.Do does, to the upstream whose turn it is, or that has the fewest
// requests pending. One that isn't to be asked, or surely didn't process the request, is
// passed over for the next, unless something of a body was read that can't be had again.
// What one has no room for goes to none that is left out: that would take it as long to
// fail as it may, and the error is the *BusyError at once.
func (g *Group) Do(req *http.Request) (*http.Response, error) {
	if len(g.members) == 1 {
		return g.members[0].pool.Do(req)
	}
	req, giveUp := repeatable(req)
	resp, err := g.do(req)
	if err != nil {
		giveUp()
	}
	return resp, err
}

// do sends a request that is repeatable.
func (g *Group) do(req *http.Request) (*http.Response, error) {
	var worst error
	turn, busy := g.turn.Add(1), false
	tried := make([]bool, len(g.members))
	for {
		i := g.pick(turn, tried, busy)
		if i < 0 {
			return nil, worst
		}
		tried[i] = true
		m := g.members[i]
		m.pending.Add(1)
		resp, err := m.pool.Do(m.readdress(req, g.URL()))
		m.pending.Add(-1)
		g.book(m, outcome(req, resp, err))
		if err == nil {
			return resp, nil
		}
		full := errors.As(err, new(*BusyError))
		busy = busy || full
		// Why one failed says more than that another one is given a rest, and less than
		// that one is well and may have room in a moment.
		if worst == nil || full || !busy && !errors.As(err, new(*OpenError)) {
			worst = err
		}
		if !passedOver(err) || req.Context().Err() != nil {
			return nil, err
		}
		again, failed := repeat(req)
		if failed != nil {
			return nil, fmt.Errorf("%w; and its body can't be sent again: %w", err, failed)
		}
		req = again
	}
}

// passedOver reports whether nothing was asked of the upstream, as far as it knows.
func passedOver(err error) bool {
	return errors.As(err, new(*OpenError)) || errors.As(err, new(*BusyError)) || errors.As(err, new(*unprocessedError))
}

// readdress has the request, made for the group's URL, go to the member.
func (m *member) readdress(req *http.Request, from *url.URL) *http.Request {
	to := m.pool.URL()
	if to.Host == from.Host {
		return req
	}
	req = req.WithContext(req.Context())
	there := *req.URL
	there.Host = to.Host
	req.URL = &there
	if req.Host == from.Host {
		req.Host = to.Host
	}
	return req
}

// pick chooses among those that are in and weren't tried, or, if there are none and it
// needn't be one that is in, among the others that weren't; -1 if there are none of them
// either. It is the turn of one of those that it chooses among, so that all of them share
// what would have gone to another one.
func (g *Group) pick(turn uint64, tried []bool, onlyIn bool) int {
	now := time.Now()
	in, out := make([]int, 0, len(g.members)), make([]int, 0, len(g.members))
	for i, m := range g.members {
		switch {
		case tried[i]:
		case m.in(now):
			in = append(in, i)
		default:
			out = append(out, i)
		}
	}
	if len(in) == 0 && !onlyIn {
		in = out
	}
	if len(in) == 0 {
		return -1
	}
	first := int(turn % uint64(len(in)))
	best := in[first]
	if g.cfg.Balance == LeastPending {
		for n := range in {
			if i := in[(first+n)%len(in)]; g.members[i].pending.Load() < g.members[best].pending.Load() {
				best = i
			}
		}
	}
	return best
}

func (m *member) in(now time.Time) bool {
	return !m.sick.Load() && now.UnixNano() >= m.until.Load()
}

// Reasons why one is left out, as the metrics name them.
const (
	byRequests = "requests"
	byProbes   = "probes"
)

// maxEjection bounds how long one is left out for failed requests.
const maxEjection = 5 * time.Minute

// book takes note of how a request ended.
func (g *Group) book(m *member, outcome error) {
	switch {
	case outcome == nil:
		if m.failures.Load() != 0 {
			m.failures.Store(0)
		}
	case errors.Is(outcome, context.Canceled):
	case m.failures.Add(1) >= int64(g.cfg.EjectAfter):
		g.eject(m)
	}
}

// eject leaves the member out, twice as long as the last time unless it was well for as
// long in between.
func (g *Group) eject(m *member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if !g.spared(m, now) {
		return
	}
	if now.UnixNano()-m.until.Load() > int64(m.last) {
		m.times = 0
	}
	m.last = maxEjection
	if m.times < 16 {
		m.last = min(g.cfg.EjectFor<<m.times, maxEjection)
	}
	m.times++
	m.until.Store(now.Add(m.last).UnixNano())
	m.failures.Store(0)
	m.ejections.add(byRequests)
}

// spared reports whether the member is in and can be left out: another one is in.
func (g *Group) spared(m *member, now time.Time) bool {
	if !m.in(now) {
		return false
	}
	for _, other := range g.members {
		if other != m && other.in(now) {
			return true
		}
	}
	return false
}

// Watch asks every upstream for upstream.health.path, each upstream.health.interval, and
// leaves out those that don't answer well, until ctx ends. Without a path it returns at once.
func (g *Group) Watch(ctx context.Context) {
	if g.cfg.Health.Path == "" {
		return
	}
	var watching sync.WaitGroup
	for _, m := range g.members {
		watching.Go(func() { g.watch(ctx, m) })
	}
	watching.Wait()
}

func (g *Group) watch(ctx context.Context, m *member) {
	tick := time.NewTicker(g.cfg.Health.Interval)
	defer tick.Stop()
	for good, bad := 0, 0; ; {
		err := m.probe(ctx, g.cfg.Health)
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, new(*BusyError)): // busy isn't sick
		case err != nil:
			m.probes.add("bad")
			good, bad = 0, bad+1
		default:
			m.probes.add("good")
			good, bad = good+1, 0
		}
		if good >= g.cfg.Health.Healthy {
			m.sick.Store(false)
		}
		if bad >= g.cfg.Health.Unhealthy {
			g.mu.Lock()
			if g.spared(m, time.Now()) {
				m.sick.Store(true)
				m.ejections.add(byProbes)
			}
			g.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// probe asks once, past the breaker. Any status from 200 to 399 is a good answer.
func (m *member) probe(ctx context.Context, h Health) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	u := *m.pool.URL()
	u.Path, u.RawPath = h.Path, ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "optimizer-health")
	resp, err := m.pool.send(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, 64<<10); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("status %d, must be 200 to 399", resp.StatusCode)
	}
	return nil
}

// Stats returns the upstreams' counters, in the order of the configuration.
func (g *Group) Stats() []Stats {
	now := time.Now()
	all := make([]Stats, len(g.members))
	for i, m := range g.members {
		all[i] = m.pool.Stats()
		all[i].Out, all[i].Ejections, all[i].Probes = !m.in(now), m.ejections.copy(), m.probes.copy()
	}
	return all
}

// Close closes the connections of all, see Pool.Close.
func (g *Group) Close() {
	for _, m := range g.members {
		m.pool.Close()
	}
}
