package load

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/recording"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// userAgent is how the generator names itself.
const userAgent = "phasegate"

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
	Cut(arm int, due, sent time.Duration)         // the run's end cut off a request that was sent then
	Connection(arm int, at time.Duration)         // was opened at that time of the schedule
	Handshake(arm int, at time.Duration, ok bool) // over TLS, begun at that time of the schedule, has ended
}

// Config describes a Generator's work.
type Config struct {
	Arms []Arm
	Load scenario.Load // Timeout 0 is DefaultTimeout, Streams 0 scenario.DefaultStreams
	// Recording is what is replayed; nil where the load is generated.
	Recording *recording.Recording
	Catalog   wire.Catalog  // statuses to expect besides 2xx, by request target
	Run       string        // of the mock upstream, as its answers name it
	Vary      []string      // request fields by which the mock upstream selects a variant
	Length    time.Duration // of the schedule: requests are due before this
	// Warmup is how much of the schedule comes before the steady state. It
	// only matters for the parts of the report that leave it out.
	Warmup time.Duration
	Seed   uint64
	Sink   Sink                // nil drops what is observed
	Raw    *Raw                // gets every result too; nil for none
	Begin  func(now time.Time) // told when the schedule begins (due time 0); may be nil
	TLS    *tls.Config         // for https arms; nil trusts the host's authorities
}

// Generator sends one scenario's load. Its stages run one after another, in
// any order; only Close may be called at any time.
type Generator struct {
	arms      []*arm
	source    source
	pacer     pacer // nil for a closed loop
	split     split
	leg       split // among protocols
	protocols []scenario.Protocol
	streams   int // per HTTP/2 connection
	sink      Sink
	raw       *Raw
	begin     func(time.Time)
	catalog   wire.Catalog
	since     time.Time // answers made later than this are of this run
	plain     string    // variant that a request without a header of its own selects
	timeout   time.Duration
	length    time.Duration
	warmup    time.Duration
	lag       *lagClock // of the schedule

	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	newEngine func() engine

	mu     sync.Mutex
	closed bool
	busy   bool
	ran    bool
	cancel context.CancelFunc // of the stage under way
	stages sync.WaitGroup
}

// armSide is what an arm's connections need.
type armSide struct {
	address string
	origin  string // the URL without a path
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
		raw:     config.Raw,
		begin:   config.Begin,
		catalog: config.Catalog,
		since:   time.Now(),
		plain:   variantOf(nil, config.Vary),
		timeout: config.Load.Timeout,
		length:  config.Length,
		warmup:  config.Warmup,
		lag:     newLagClock(),

		dial:      new(net.Dialer).DialContext,
		newEngine: newEngine,
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
	if err := g.prepareRequests(config); err != nil {
		faults = append(faults, err)
	}
	if err := g.prepareProtocols(config); err != nil {
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
	if config.Recording == nil {
		if keys.File() != "" {
			return fmt.Errorf("keys: %s isn't loaded", keys.File())
		}
		if keys.PaceLog {
			return errors.New("keys: the pace of a recording, but no recording")
		}
		source, err := newMix(config.Load, config.Seed)
		if err == nil {
			source.also.vary(config.Vary)
		}
		if config.Load.Max {
			g.source = source
			return err
		}
		pacer, err2 := newPacer(config.Load, config.Seed)
		g.source, g.pacer = source, pacer
		return errors.Join(err, err2)
	}
	g.source = newReplay(config.Recording, config.Vary)
	if keys.PaceLog {
		if !(keys.Speed >= 0) {
			return fmt.Errorf("keys: a speed of %v; allowed is more than 0", keys.Speed)
		}
		g.pacer = newRecordedPace(config.Recording, keys)
		return nil
	}
	if config.Load.Max {
		return nil
	}
	pacer, err := newPacer(config.Load, config.Seed)
	if err != nil {
		return err
	}
	g.pacer = pacer
	if !keys.Repeat {
		g.pacer = once{pacer: pacer, n: uint64(config.Recording.Requests())}
	}
	return nil
}

func (g *Generator) prepareProtocols(config Config) error {
	described := config.Load.Protocols
	if len(described) == 0 {
		described = []scenario.ProtocolShare{{Protocol: scenario.HTTP1, Share: 1}}
	}
	shares := make([]float64, 0, len(described))
	for _, p := range described {
		switch p.Protocol {
		case scenario.HTTP1, scenario.H2, scenario.H2C:
		default:
			return fmt.Errorf("protocol %q; allowed are %s, %s and %s", p.Protocol, scenario.HTTP1, scenario.H2, scenario.H2C)
		}
		g.protocols = append(g.protocols, p.Protocol)
		shares = append(shares, p.Share)
	}
	g.streams = cmp.Or(config.Load.Streams, scenario.DefaultStreams)
	if g.streams < 0 {
		return fmt.Errorf("%d streams per connection; allowed is 1 or more", g.streams)
	}
	var err error
	if g.leg, err = newSplit(newStream(config.Seed, protocolStream), shares); err != nil {
		return fmt.Errorf("protocols: %w", err)
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
		if err := a.prepare(config.TLS, g.protocols); err != nil {
			faults = append(faults, fmt.Errorf("arm %s: %w", described.Name, err))
		}
		g.arms = append(g.arms, a)
	}
	var err error
	if g.split, err = newSplit(newStream(config.Seed, splitStream), shares); err != nil {
		faults = append(faults, fmt.Errorf("arms: %w", err))
	}
	return errors.Join(faults...)
}

func (a *arm) prepare(secured *tls.Config, protocols []scenario.Protocol) error {
	u := a.URL
	if least := max(1, len(protocols)); a.Connections < least {
		return fmt.Errorf("%d connections; allowed is %d or more, one for every protocol", a.Connections, least)
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
	for _, p := range protocols {
		if scheme := schemes[p]; scheme != "" && scheme != u.Scheme {
			return fmt.Errorf("URL %q for protocol %s; allowed is %s://HOST[:PORT]", u, p, scheme)
		}
	}
	if u.Port() != "" {
		port = u.Port()
	}
	a.address = net.JoinHostPort(u.Hostname(), port)
	a.origin = u.Scheme + "://" + u.Host
	a.head = []byte(" HTTP/1.1\r\nHost: " + u.Host + "\r\nUser-Agent: " + userAgent + "\r\n")
	if u.Scheme == "https" {
		a.tls = &tls.Config{}
		if secured != nil {
			a.tls = secured.Clone()
		}
		a.tls.ServerName = u.Hostname()
	}
	return nil
}

// onlyHTTP1 reports whether all connections are an engine's.
func (g *Generator) onlyHTTP1() bool {
	return !slices.ContainsFunc(g.protocols, func(p scenario.Protocol) bool { return p != scenario.HTTP1 })
}

// schemes are those of the protocols that go with one only.
var schemes = map[scenario.Protocol]string{scenario.H2: "https", scenario.H2C: "http"}

// lanes are an arm's pools, one for every protocol. They share the arm's
// connections by their shares of the requests, with at least one each.
func (g *Generator) lanes(ctx context.Context, a *arm, r *running) []lane {
	var lanes []lane
	from := 0.0
	for k, p := range g.protocols {
		spare := float64(a.Connections - len(g.protocols))
		upTo := g.leg.upTo[k]
		limit := 1 + int(math.Round(spare*upTo)) - int(math.Round(spare*from))
		from = upTo
		if p == scenario.HTTP1 {
			lanes = append(lanes, &pool{g: g, arm: a, ctx: ctx, base: r.base, engine: r.engine, limit: limit, record: r.record, lost: r.lose})
			continue
		}
		m := newMultiplex(g, a, r.base)
		m.ctx, m.limit, m.streams, m.record, m.lost, m.late = ctx, limit, g.streams, r.record, r.lose, r.late
		lanes = append(lanes, m)
	}
	return lanes
}

// Request is one position of a request sequence.
type Request struct {
	Due      time.Duration // from the schedule's start
	Arm      int           // index into Config.Arms
	Protocol scenario.Protocol
	Method   string
	Target   string // path and query
}

// At returns position i (from 0) of the sequence; false beyond the schedule's
// end, and where there is none.
func (g *Generator) At(i uint64) (Request, bool) {
	if g.pacer == nil {
		return Request{}, false
	}
	due := g.pacer.due(i)
	if due >= g.length {
		return Request{}, false
	}
	r := g.source.at(i)
	return Request{
		Due: due, Arm: g.split.at(i), Protocol: g.protocols[g.leg.at(i)],
		Method: r.method, Target: string(g.source.appendTarget(nil, r.target)),
	}, true
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

func (discard) Offer(int, time.Duration)              {}
func (discard) Record(int, timeline.Outcome)          {}
func (discard) Cut(int, time.Duration, time.Duration) {}

func (discard) Connection(int, time.Duration)      {}
func (discard) Handshake(int, time.Duration, bool) {}
