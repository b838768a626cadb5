package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Pool sends requests to one upstream. Its methods may be called concurrently.
type Pool struct {
	cfg     Config
	url     *url.URL
	address string      // host and port
	tls     *tls.Config // nil: clear text
	dialer  *net.Dialer
	http2   *http.Transport // makes single connections
	breaker *breaker
	budget  *budget
	line    *line
	ctx     context.Context // of dials that belong to no single request
	cancel  context.CancelFunc

	wantsHTTP2  bool
	fallenUntil atomic.Int64 // Unix nanoseconds; 0: HTTP/2 is spoken, if it is wanted
	onTrial     atomic.Bool  // so is HTTP/1.1, which hasn't answered yet
	bare        atomic.Bool  // HTTP/1.1 isn't offered by ALPN, but spoken

	// The line's lock guards these.
	placed      int          // requests over HTTP/1.1
	kept        []*http1Conn // in order of last use
	tidying     *time.Timer  // closes some of them
	tidies      bool         // it is set
	conns       []*http2Conn // in order of opening
	leaving     []*http2Conn // after a GOAWAY, or too old
	streams     uint32       // that the upstream last allowed on a connection
	dialing     int
	failing     bool      // the last one of these to end failed
	noDialUntil time.Time // unless there is no connection
	fell        time.Time // when it fell back to HTTP/1.1, or stayed there after another try
	told        spoken    // what the log was told last
	untold      []func()  // lines of the log to be written; while there are any, one goroutine writes them

	open          atomic.Int64 // connections of HTTP/1.1
	dials         atomic.Uint64
	fresh, reused [2]atomic.Uint64
	goAways       atomic.Uint64
	retriesDenied atomic.Uint64
	handshakes    *tally
	failures      *tally
	fallbacks     *tally
	retries       *tally
}

// New makes a pool; it opens no connection yet.
func New(cfg Config) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.WithDefaults()
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("upstream.url: %w", err)
	}
	p := &Pool{
		cfg: cfg, url: u, address: hostPort(u), budget: newBudget(*cfg.RetryBudget),
		dialer:     &net.Dialer{Timeout: cfg.DialTimeout, KeepAlive: 30 * time.Second},
		wantsHTTP2: cfg.Protocol == H2C || cfg.Protocol == Auto && u.Scheme == "https", streams: assumedStreams,
		handshakes: newTally("plain", "full", "resumed"), failures: newTally(handshakeReasons...),
		fallbacks: newTally(fallbackReasons...), retries: newTally(retryReasons...),
	}
	if !cfg.Breaker.Disabled {
		p.breaker = newBreaker(cfg.Breaker)
	}
	if u.Scheme == "https" {
		if p.tls, err = cfg.tlsConfig(u.Hostname()); err != nil {
			return nil, err
		}
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.line = &line{take: p.take, more: p.makeMore, first: p.dialsFirst, giveBack: p.leave, room: cfg.MaxWaiting, patience: cfg.WaitTimeout}
	if p.http2, err = newHTTP2Transport(cfg); err != nil {
		return nil, err
	}
	return p, nil
}

func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// URL returns the upstream's address; it must not be changed.
func (p *Pool) URL() *url.URL { return p.url }

// ErrRequestBody marks an error that the reader of a request body returned because
// the client didn't deliver it: the exchange ends, and the upstream isn't to blame.
var ErrRequestBody = errors.New("read the request's body from the client")

// Do sends req and returns the answer as soon as its header is there. The caller
// closes the body, or reads it to its end. Redirects aren't followed.
//
// While the breaker is open nothing is sent, and the error is an *OpenError. Where
// every connection is in use and no more may wait for one, or none became free in time,
// nothing is sent either, and the error is a *BusyError; where the first connection wasn't
// ready in time, it wraps the context's cause. An exchange counts as failed
// when it ends in another error or in status 500, 502, 503 or 504; one whose context
// the caller cancelled, or whose body, or the cause of whose cancellation, is
// ErrRequestBody, or that ends in ErrRequestHeaderTooLong, doesn't count.
func (p *Pool) Do(req *http.Request) (*http.Response, error) {
	done := func(error) {}
	if p.breaker != nil {
		var err error
		if done, err = p.breaker.allow(); err != nil {
			return nil, err
		}
	}
	resp, err := p.send(req)
	done(outcome(req, resp, err))
	if err != nil {
		return nil, fmt.Errorf("ask upstream %s: %w", p.url.Host, err)
	}
	return resp, nil
}

// outcome says what an exchange tells of the upstream: nil is good, and context.Canceled
// nothing.
func outcome(req *http.Request, resp *http.Response, err error) error {
	cause := context.Cause(req.Context())
	switch {
	case err == nil && Failed(resp.StatusCode):
		return errStatus
	case err == nil:
		return nil
	case errors.Is(cause, context.Canceled), errors.Is(cause, ErrRequestBody), errors.Is(err, ErrRequestBody),
		errors.As(err, new(*BusyError)), errors.As(err, new(*OpenError)), errors.Is(err, errMalformed), errors.Is(err, ErrRequestHeaderTooLong):
		return context.Canceled
	}
	return err
}

// take gives leave to send a request, if it can go at once. The line's lock is held.
func (p *Pool) take() (grant, bool) {
	if p.speaksHTTP2() {
		return p.takeStream()
	}
	if p.placed >= p.cfg.MaxConnectionsPerHost {
		return grant{}, false
	}
	p.placed++
	return grant{kept: p.takeKept()}, true
}

// leave gives a grant back when its request has been answered or has failed.
func (p *Pool) leave(g grant) {
	p.line.mu.Lock()
	defer p.line.mu.Unlock()
	if c := g.stream; c == nil {
		p.placed--
		if g.kept != nil {
			p.keep(g.kept)
		}
	} else if c.active--; c.retired {
		c.retire()
	}
	p.line.serveLocked()
}

// makeMore has connections opened for those who wait. Over HTTP/1.1 each request that
// has its place sees to that itself. The line's lock is held.
func (p *Pool) makeMore(waiting int) {
	if p.speaksHTTP2() {
		p.dialMore(waiting)
	}
}

// dialsFirst reports whether there is no connection of HTTP/2 yet, but one on its way, and
// it is what who waits needs. The line's lock is held.
func (p *Pool) dialsFirst() bool {
	return len(p.conns) == 0 && p.dialing > 0 && p.fallenUntil.Load() == 0
}

// Failed reports whether the status says that the upstream isn't well: the ones
// that RFC 5861 §4 counts as errors.
func Failed(status int) bool {
	return status == 500 || status == 502 || status == 503 || status == 504
}

// Stats is a snapshot of the pool.
type Stats struct {
	Upstream string           // host and port
	Protocol map[string]Usage // h2 and http/1.1
	Dials    uint64           // connections opened since the start
	Streams  int              // requests under way over HTTP/2

	Handshakes map[string]uint64 // connections made ready for requests, over HTTP/2 with SETTINGS exchanged, by kind: plain, full, resumed
	Failures   map[string]uint64 // tries to open one that failed before that, by reason
	Fallbacks  map[string]uint64 // from HTTP/2 to HTTP/1.1, and further tries of HTTP/2 that left it at that, by reason
	GoAways    uint64            // HTTP/2 connections that the upstream gave notice on

	Waiting int               // requests that wait for a connection, or a stream
	Waits   Histogram         // how long requests waited, over HTTP/2 for connections to be opened, too; those that didn't are among them
	Refused map[string]uint64 // times that a request or a probe got none, by reason: full, timeout

	Retries       map[string]uint64 // by reason
	RetriesDenied uint64            // for want of budget

	State State // the breaker's

	Out       bool              // of its group's upstreams it is left out for now
	Ejections map[string]uint64 // times that it was, by reason: requests, probes
	Probes    map[string]uint64 // by outcome: good, bad
}

// Usage is what happens over one protocol.
type Usage struct {
	Active, Idle, Leaving int    // connections now: with requests, without, and those that take no more
	Fresh, Reused         uint64 // requests that got a new connection, or one used before
}

// Stats returns the pool's counters, read one by one.
func (p *Pool) Stats() Stats {
	s := Stats{
		Upstream: p.url.Host, Protocol: map[string]Usage{}, Dials: p.dials.Load(),
		Handshakes: p.handshakes.copy(), Failures: p.failures.copy(), Fallbacks: p.fallbacks.copy(), GoAways: p.goAways.Load(),
		Waits:   p.line.waits.snapshot(),
		Refused: map[string]uint64{"full": p.line.full.Load(), "timeout": p.line.gaveUp.Load()},
		Retries: p.retries.copy(), RetriesDenied: p.retriesDenied.Load(),
	}
	one := Usage{Fresh: p.fresh[overHTTP1].Load(), Reused: p.reused[overHTTP1].Load()}
	two := Usage{Fresh: p.fresh[overHTTP2].Load(), Reused: p.reused[overHTTP2].Load()}
	p.line.mu.Lock()
	p.sweep()
	s.Waiting = p.line.queue.Len()
	open := int(p.open.Load())
	one.Active = min(p.placed, open)
	one.Idle = open - one.Active
	for _, c := range p.conns {
		s.Streams += c.active
		if c.active > 0 {
			two.Active++
		}
	}
	two.Idle = len(p.conns) - two.Active
	two.Leaving = len(p.leaving)
	for _, c := range p.leaving {
		s.Streams += c.active
	}
	p.line.mu.Unlock()
	s.Protocol[alpnHTTP1], s.Protocol[alpnHTTP2] = one, two
	if p.breaker != nil {
		s.State = p.breaker.state()
	}
	return s
}

// used counts a request by the connection it got.
func (p *Pool) used(kind int, before bool) {
	if before {
		p.reused[kind].Add(1)
	} else {
		p.fresh[kind].Add(1)
	}
}

// Close closes the connections that are idle now; those in use close with their
// last request.
func (p *Pool) Close() {
	p.cancel()
	p.closeHTTP2()
	p.closeHTTP1()
}

// tally counts rare events by name.
type tally struct {
	mu sync.Mutex
	n  map[string]uint64
}

// newTally names those that are shown before the first one happens.
func newTally(names ...string) *tally {
	t := &tally{n: map[string]uint64{}}
	for _, name := range names {
		t.n[name] = 0
	}
	return t
}

func (t *tally) add(name string) {
	t.mu.Lock()
	t.n[name]++
	t.mu.Unlock()
}

func (t *tally) copy() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.n)
}
