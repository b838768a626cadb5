package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// DefaultTimeout is the timeout of a load that names none.
const DefaultTimeout = 5 * time.Second

// Arm is one system that gets a share of the load.
type Arm struct {
	Name        string
	URL         *url.URL // http or https, without a path
	Share       float64  // of the requests, 0 to 1; all arms together get 1
	Connections int      // at most so many at once
}

// Sink takes what is observed. It is called from many goroutines at once.
type Sink interface {
	Offer(arm int, due time.Duration) // a request is due
	Record(arm int, o timeline.Outcome)
}

// Config describes a Generator's work.
type Config struct {
	Arms    []Arm
	Load    scenario.Load // Timeout 0 is DefaultTimeout; Protocol "" is http/1.1
	Log     *Log          // replayed; nil where the load is generated
	Catalog wire.Catalog  // statuses to expect besides 2xx, by request target
	Run     string        // of the mock upstream, as its answers name it
	Vary    []string      // request fields by which the mock upstream selects a variant
	Length  time.Duration // of the schedule: requests are due before this
	// Warmup is how much of the schedule comes before the steady state. It
	// only matters for the parts of the report that leave it out.
	Warmup time.Duration
	Seed   uint64
	Sink   Sink                // nil drops what is observed
	Begin  func(now time.Time) // told when the schedule begins (due time 0); may be nil
	TLS    *tls.Config         // for https arms; nil trusts the host's authorities
}

// Generator sends one scenario's load. Its stages run one after another, in
// any order; only Close may be called at any time.
type Generator struct {
	arms    []*arm
	source  source
	pacer   pacer
	split   split
	sink    Sink
	begin   func(time.Time)
	catalog wire.Catalog
	vary    []string
	since   time.Time // answers made later than this are of this run
	timeout time.Duration
	length  time.Duration
	warmup  time.Duration

	dial       func(ctx context.Context, network, address string) (net.Conn, error)
	newSleeper func() sleeper

	mu     sync.Mutex
	closed bool
	busy   bool
	ran    bool
	cancel context.CancelFunc // of the stage under way
	stages sync.WaitGroup
}

// sleeper sleeps for the dispatcher, on whose goroutine it is made and used.
type sleeper interface {
	sleep(time.Duration) // may return early
	close()
}

// armSide is what an arm's connections need.
type armSide struct {
	address string
	head    []byte // of every request, from after the target on
	tls     *tls.Config
}

var (
	errClosed = errors.New("the load generator is closed")
	errBusy   = errors.New("the load generator is busy with another stage")
	errRan    = errors.New("the load generator has run its schedule already")
)

// New checks config and prepares a generator; nothing is sent. The error joins
// all faults of the configuration.
func New(config Config) (*Generator, error) {
	g := &Generator{
		sink:    config.Sink,
		begin:   config.Begin,
		catalog: config.Catalog,
		vary:    config.Vary,
		since:   time.Now(),
		timeout: config.Load.Timeout,
		length:  config.Length,
		warmup:  config.Warmup,

		dial:       new(net.Dialer).DialContext,
		newSleeper: newSleeper,
	}
	if g.sink == nil {
		g.sink = discard{}
	}
	if g.begin == nil {
		g.begin = func(time.Time) {}
	}
	if g.timeout == 0 {
		g.timeout = DefaultTimeout
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if g.timeout < 0 {
		fault("timeout %s; allowed is more than 0", g.timeout)
	}
	if g.length <= 0 {
		fault("a schedule of %s; allowed is more than 0", g.length)
	}
	if p := config.Load.Protocol; p != "" && p != "http/1.1" {
		fault("protocol %q; allowed is http/1.1", p)
	}
	if err := g.prepareRequests(config); err != nil {
		faults = append(faults, err)
	}
	if err := g.prepareArms(config); err != nil {
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	for _, a := range g.arms {
		a.seen = newSet(g.source.targets())
	}
	return g, nil
}

func (g *Generator) prepareRequests(config Config) error {
	keys := config.Load.Keys
	if config.Log == nil {
		if keys.AccessLog != "" {
			return fmt.Errorf("keys: the access log %s isn't loaded", keys.AccessLog)
		}
		if keys.PaceLog {
			return errors.New("keys: the pace of a log, but no log")
		}
		source, err := newMix(config.Load, config.Seed)
		pacer, err2 := newRates(config.Load.Rate)
		g.source, g.pacer = source, pacer
		return errors.Join(err, err2)
	}
	log := config.Log
	g.source = replay{log}
	if keys.PaceLog {
		if !(keys.Speed >= 0) {
			return fmt.Errorf("keys: a speed of %v; allowed is more than 0", keys.Speed)
		}
		g.pacer = newLogPace(log, keys)
		return nil
	}
	pacer, err := newRates(config.Load.Rate)
	if err != nil {
		return err
	}
	g.pacer = pacer
	if !keys.Repeat {
		g.pacer = once{pacer: pacer, n: uint64(log.Requests())}
	}
	return nil
}

func (g *Generator) prepareArms(config Config) error {
	if len(config.Arms) == 0 {
		return errors.New("no arm to send load to")
	}
	var faults []error
	shares := make([]float64, 0, len(config.Arms))
	for _, described := range config.Arms {
		shares = append(shares, described.Share)
		a := &arm{Arm: described, index: len(g.arms), verify: config.Load.Verify}
		if config.Run != "" {
			a.from = wire.Mark(config.Run, a.Name)
		}
		a.methods = map[string]uint64{}
		if err := a.prepare(config.TLS); err != nil {
			faults = append(faults, fmt.Errorf("arm %s: %w", described.Name, err))
		}
		g.arms = append(g.arms, a)
	}
	var err error
	if g.split, err = newSplit(config.Seed, shares); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

func (a *arm) prepare(secured *tls.Config) error {
	u := a.URL
	if a.Connections < 1 {
		return fmt.Errorf("%d connections; allowed is 1 or more", a.Connections)
	}
	if u == nil {
		return errors.New("no URL")
	}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if port == "" || u.Hostname() == "" {
		return fmt.Errorf("URL %q; allowed is http://HOST[:PORT] or https://HOST[:PORT]", u)
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("URL %q; allowed is a URL without path, query and user: the request targets are the load's", u)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	a.address = net.JoinHostPort(u.Hostname(), port)
	a.head = []byte(" HTTP/1.1\r\nHost: " + u.Host + "\r\nUser-Agent: " + userAgent + "\r\n")
	if u.Scheme == "https" {
		a.tls = &tls.Config{}
		if secured != nil {
			a.tls = secured.Clone()
		}
		a.tls.ServerName = u.Hostname()
		a.tls.NextProtos = []string{"http/1.1"}
	}
	return nil
}

// userAgent is the User-Agent of every request.
const userAgent = "phasegate"

// variant is the one that the mock upstream selects for a request.
func (g *Generator) variant(r request) string {
	return wire.Variant(g.vary, func(name string) string {
		var values []string
		if strings.EqualFold(name, "User-Agent") {
			values = append(values, userAgent)
		}
		if r.extra != nil {
			for _, f := range r.extra.header {
				if strings.EqualFold(f[0], name) {
					values = append(values, f[1])
				}
			}
		}
		return strings.Join(values, ", ")
	})
}

// Request is one position of a request sequence.
type Request struct {
	Due    time.Duration // from the schedule's start
	Arm    int           // index into Config.Arms
	Method string
	Target string // path and query
}

// At returns position i (from 0) of the sequence; false beyond the schedule's
// end.
func (g *Generator) At(i uint64) (Request, bool) {
	due := g.pacer.due(i)
	if due >= g.length {
		return Request{}, false
	}
	r := g.source.at(i)
	return Request{Due: due, Arm: g.split.arm(i), Method: r.method, Target: string(g.source.appendTarget(nil, r.target))}, true
}

// Popular returns the request targets that are read most, in falling order;
// at most n. They are what Prewarm asks for.
func (g *Generator) Popular(n int) []string {
	top := g.source.popular(n)
	targets := make([]string, len(top))
	for i, r := range top {
		targets[i] = string(g.source.appendTarget(nil, r.target))
	}
	return targets
}

// enter begins a stage: the context it works under ends with ctx and with
// Close. leave must be called at its end.
func (g *Generator) enter(ctx context.Context) (_ context.Context, leave func(), _ error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return nil, nil, errClosed
	case g.busy:
		return nil, nil, errBusy
	}
	ctx, g.cancel = context.WithCancel(ctx)
	g.busy = true
	g.stages.Add(1)
	return ctx, func() {
		g.mu.Lock()
		g.busy = false
		g.cancel()
		g.mu.Unlock()
		g.stages.Done()
	}, nil
}

// Close cuts off the stage under way, if there is one, and waits until it has
// ended and nothing is left running.
func (g *Generator) Close() {
	g.mu.Lock()
	g.closed = true
	if g.busy {
		g.cancel()
	}
	g.mu.Unlock()
	g.stages.Wait()
}

type discard struct{}

func (discard) Offer(int, time.Duration)     {}
func (discard) Record(int, timeline.Outcome) {}
