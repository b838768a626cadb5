package scenario

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"phasegate/fixtures/upstream/wire"
)

// The names of the two arms of the split.
const (
	Old = "old"
	New = "new"
)

// Plan is a scenario compiled for one profile: every default filled in, every
// unit converted, nothing left to look up. The harness runs it as it stands.
type Plan struct {
	Name, Title string
	Source      string // file the scenario was read from, "" when embedded
	Origin      Origin // what it was compiled from
	Profile     string
	Seed        uint64
	// TimeScale divides the triggers' windows and `for` (60 turns 5 m into 5 s).
	TimeScale float64

	Upstream *Upstream // nil: the only system is a URL with an upstream of its own
	// Systems has the old one first, and only New where the scenario has no
	// other. Old may have Share 0: all traffic has moved, and it stands by.
	Systems []System
	Load    Load
	Prewarm Prewarm

	Warmup, Steady time.Duration
	Extensions     int // how often the steady state may be run on to decide a gate
	Sequential     Sequential

	Confidence float64 // of each gate's one-sided bound
	// AbortOnFailure stops the run as soon as a gate has failed for certain.
	AbortOnFailure bool
	Gates          []Gate
	Triggers       []Trigger
	Drills         []Drill // after the steady state, one by one

	// Notices are what compiling decided that a reader of the figures must
	// know: prewarm dropped for a log, keys that don't apply, a time scale.
	Notices []string
}

// Origin is what a plan was compiled from: [Compile] of these makes the same
// plan again.
type Origin struct {
	Text    []byte // the scenario's source
	File    string // its name in messages
	Options Options
}

// System looks an arm up by name; nil if the plan has none of that name.
func (p *Plan) System(name string) *System {
	for i := range p.Systems {
		if p.Systems[i].Name == name {
			return &p.Systems[i]
		}
	}
	return nil
}

// Kind of a system.
type Kind string

// The kinds that this version can start or reach.
const (
	KindOptimizer Kind = "optimizer" // our reference proxy, a child process
	KindNginx     Kind = "nginx"     // these three from their packages, set up by fixtures/systems
	KindVarnish   Kind = "varnish"
	KindHAProxy   Kind = "haproxy"
	KindDirect    Kind = "direct"    // no system: straight to the upstream
	KindCommand   Kind = "command"   // any program, given {listen} and {upstream}
	KindContainer Kind = "container" // an image, run in a container
	KindURL       Kind = "url"       // a server already running; nothing is started
)

// Packaged reports whether a kind is a server from a package, that is started
// with a configuration of ours.
func (k Kind) Packaged() bool { return k == KindNginx || k == KindVarnish || k == KindHAProxy }

// Cache is what a system's configuration says about its cache in general, in
// the optimizer's words.
type Cache struct {
	// MaxMemory is cache.max_memory_mb in bytes: what the whole process may take.
	MaxMemory  int64
	DefaultTTL time.Duration // cache.default_ttl: lifetime of responses that name none; 0: they aren't stored
	AccessLog  bool          // telemetry.access_log; a packaged system never has one
}

// Bytes is the room for stored responses with what keeping them costs: as much as
// the optimizer takes of its limit, whose program and heap have the rest. Below the
// least limit that it starts with, 40 MB, it is 39 % for the others.
func (c Cache) Bytes() int64 {
	return int64(max(0.98*float64(c.MaxMemory)-23.6e6, 0.39*float64(c.MaxMemory)))
}

// System is one arm: what is started, or reached, and its share of the load.
type System struct {
	Name   string // Old or New
	Kind   Kind
	Share  float64        // of the traffic, 0 to 1
	Config map[string]any // KindOptimizer: the optimizer's own configuration …
	// … and where it is written: "FILE:LINE:COL", or the flag of the command line.
	ConfigAt string
	// Cache is what of Config is said in general. Set for KindOptimizer and the
	// packaged kinds.
	Cache Cache
	// UpstreamTLS points a KindOptimizer, KindNginx or KindHAProxy at the
	// upstream's TLS port, where HTTP/2 is offered, instead of the clear-text one.
	UpstreamTLS bool
	// Command is the argument vector of a KindCommand before substitution of
	// {listen}, {upstream}, {upstream_tls}, {ca} and {admin}; it holds {listen}.
	// Of a KindContainer it is what follows the entry point, nil for the image's own.
	Command   []string
	CommandAt string // where its program is written, like ConfigAt
	// Image or Dockerfile is what a KindContainer runs; Env is added to its
	// environment after the same substitution, and Port is where it listens (0
	// for 8080).
	Image, Dockerfile string
	Env               map[string]string
	Port              int
	// Limit is what the scenario says of the container's limits; [Plan.Limits] has
	// what holds.
	Limit Limits
	// Metrics is where a KindCommand or KindContainer serves Prometheus text, before substitution
	// of {listen} and {admin}; "" where it doesn't.
	Metrics string
	URL     *url.URL // KindURL: scheme and host, no path
}

// Limits of a container, which the kernel enforces: a system that needs more
// memory is killed, and one that needs more CPU time waits for it.
type Limits struct {
	Memory int64   // bytes; 0 for none
	CPUs   float64 // 0 for none
}

// Limits returns the limits of a system's container: the scenario's, and where
// it sets none of memory, the most that a trigger on memory lets it have.
func (p *Plan) Limits(name string) Limits {
	limits := p.System(name).Limit
	if limits.Memory > 0 {
		return limits
	}
	for _, t := range p.Triggers {
		if t.System == name && t.Metric.Name == "memory" && (t.Op == Greater || t.Op == GreaterEqual) {
			limits.Memory = max(limits.Memory, int64(t.Threshold))
		}
	}
	return limits
}

// Legs returns the legs of the new system on which the plan's drills worsen the
// network, so that a proxy has to stand there in the whole run.
func (p *Plan) Legs() (client, upstream bool) {
	for _, d := range p.Drills {
		client = client || d.Fault.Network.Leg == ClientLeg
		upstream = upstream || d.Fault.Network.Leg == UpstreamLeg
	}
	return client, upstream
}

// Contained reports whether a system of the plan runs in a container in any
// case, so that its upstream must too.
func (p *Plan) Contained() bool {
	return slices.ContainsFunc(p.Systems, func(s System) bool { return s.Kind == KindContainer })
}

// Upstream describes the mock upstream.
type Upstream struct {
	Listen       string // fixed address for the new system's clear-text port; "" picks a free one
	Latency      Latency
	BodyMin      int64 // bytes
	BodyMax      int64
	CacheControl string
	Vary         []string
	Paths        []UpstreamPath
	TLS          wire.TLS
	MaxStreams   int // per HTTP/2 connection; 0 for no limit that matters
	GoAway       wire.GoAway
}

// UpstreamPath is what holds for the paths with a prefix; of several the first
// one counts.
type UpstreamPath struct {
	Prefix       string
	CacheControl string
	Errors       float64 // share of the reads that are answered with 503
}

// Latency of the upstream: Fixed, or a log-normal Mean and P95.
type Latency struct {
	Fixed, Mean, P95 time.Duration
}

// Typical is the latency a request to the upstream is expected to take.
func (l Latency) Typical() time.Duration { return max(l.Fixed, l.Mean) }

// Load is the traffic, for all arms together.
type Load struct {
	Rate        []Segment       // consecutive, from the start of the warm-up; the last one lasts until the end. Nil if Sine, Max or Keys.PaceLog
	Sine        *Sine           // instead of Rate; nil for none
	Max         bool            // closed loop instead of Rate: each of Connections clients sends its next request when its last has ended
	Poisson     bool            // arrivals of a Poisson process of that rate, instead of even distances
	Protocols   []ProtocolShare // of the client's leg, in the order of their names; nil is HTTP1 alone
	Connections int             // per system; 0 sizes the pool by Little's law: rate × latency × 1.5
	Streams     int             // per HTTP/2 connection; 0 is DefaultStreams
	Path        string          // "/items/{key}"; for generated keys
	Keys        Keys
	Writes      Writes
	Also        []Population  // for generated keys
	Timeout     time.Duration // from the due time
	Verify      bool          // check answers against the mock upstream's self-description
}

// Protocol of the client's leg.
type Protocol string

// The protocols of the client's leg.
const (
	HTTP1 Protocol = "http/1.1"
	H2    Protocol = "h2"  // HTTP/2 over TLS, negotiated by ALPN
	H2C   Protocol = "h2c" // HTTP/2 in clear text, by prior knowledge
)

// ProtocolShare is one protocol of the client's leg and its share of the
// requests, above 0; all of a load add up to 1.
type ProtocolShare struct {
	Protocol Protocol
	Share    float64
}

// DefaultStreams is how many requests share an HTTP/2 connection where the
// scenario sets no limit, which is what most servers allow.
const DefaultStreams = 100

// Segment of the offered rate: from From to To requests per second, linearly,
// over For. The last one is constant and has For 0: it lasts until the end.
type Segment struct {
	From, To float64
	For      time.Duration
}

// Sine is an offered rate that swings about its mean, from the start of the
// warm-up on: Mean + Amplitude·sin(Start + 2π·t/Period).
type Sine struct {
	Mean, Amplitude float64 // requests per second; the amplitude is at most the mean
	Period          time.Duration
	Start           float64 // radians, as in vegeta's SinePacer: 0 mean-up, π/2 peak, π mean-down, 3π/2 trough
}

// Peak is the highest rate that is offered, in requests per second; 0 where a
// recording's own times decide.
func (l Load) Peak() float64 {
	peak := 0.0
	if l.Sine != nil {
		peak = l.Sine.Mean + l.Sine.Amplitude
	}
	for _, s := range l.Rate {
		peak = max(peak, s.From, s.To)
	}
	return peak
}

// Distribution of generated keys.
type Distribution string

// The distributions of generated keys.
const (
	Zipf    Distribution = "zipf"
	Uniform Distribution = "uniform"
	HotSet  Distribution = "hot"
)

// Keys chooses the request target of every request: generated by a
// distribution, or replayed from a recorded file.
type Keys struct {
	Distribution Distribution // "" when there is a File
	Count        int          // distinct keys; 0 when there is a File
	Exponent     float64      // zipf: P(rank k) ∝ k^−Exponent
	HotKeys      float64      // hot: share of the keys that is hot …
	HotTraffic   float64      // … and the share of requests that goes to them

	AccessLog string  // file, plain or .gz, as the next two; at most one is set
	Targets   string  // in vegeta's JSON or HTTP format
	HAR       string  // of a browser
	FileAt    string  // where the one that is set is written: "FILE:LINE:COL", or the flag of the command line
	PaceLog   bool    // due times from the file instead of Load.Rate …
	Speed     float64 // … that many times as fast (1 is the file's own pace)
	Repeat    bool    // start over at the file's end
}

// File is the recorded file that requests are replayed from; "" where they are
// generated.
func (k Keys) File() string { return cmp.Or(k.AccessLog, k.Targets, k.HAR) }

// Writes are mixed into generated load. Share 0 means none.
type Writes struct {
	Share  float64
	Method string
	Path   string
}

// Population is a further kind of read in generated load, with keys and header
// fields of its own. All its keys are asked for alike.
type Population struct {
	Share  float64 // of all requests; what populations and writes leave goes to Load.Path
	Path   string
	Count  int     // distinct keys
	Fields []Field // that each of its requests carries
	Close  bool    // the client closes its connection after the answer; HTTP/1.1 only
}

// Field is a request header field with one of its values, drawn for each
// request.
type Field struct {
	Name   string
	Values []string
}

// Prewarm fills the new system before the clock starts. Top 0 means no prewarm.
type Prewarm struct {
	Top         int // most popular keys, in order
	Concurrency int
}

// Sequential is the closed-loop stage of one client. Zero means none.
type Sequential struct {
	Direct int // requests straight to the upstream
	Hits   int // requests for one warm key through the new system
}

// Gate is one claim to be judged at the end of the steady state.
type Gate struct {
	Condition
	System  string
	Implied bool // not written: judged because verification is on
}

// Trigger fires when its condition held at every evaluation for its whole For.
type Trigger struct {
	Condition
	System string
	For    time.Duration // before scaling; 0 fires at the first bad evaluation
	Action string        // "immediate", "gradual" or Alert
}

// Alert is the [Trigger.Action] that rolls nothing back. A drill that expects
// [NoTrigger] doesn't mean it: a fault is there to be told of. One that fires in the
// steady state fails the run like any trigger.
const Alert = "alert"

// Drill is a planned fault with an expected outcome.
type Drill struct {
	Text   string // "partition for 30s; expect error_rate < 1%, no trigger"
	Fault  Fault
	Expect []Expectation
}

// FaultKind is what a fault breaks.
type FaultKind string

// The kinds of fault that this version injects, beside those that the mock
// upstream makes by itself ([wire.FaultKinds]).
const (
	Partition FaultKind = "partition" // the container is taken off its network
	Pause     FaultKind = "pause"     // the container's processes stand still
	Worse     FaultKind = "network"   // one leg of the new system gets slow or unreliable
)

// FaultKinds returns every kind there is.
func FaultKinds() []FaultKind {
	kinds := []FaultKind{Partition, Pause, Worse}
	for _, k := range wire.FaultKinds() {
		kinds = append(kinds, FaultKind(k))
	}
	return kinds
}

// The legs of the new system, which a [Worse] network is on.
const (
	ClientLeg   = "client"   // between the load and it
	UpstreamLeg = "upstream" // between it and the upstream
)

// Network is how bad one is; what is zero is as it was. Times are as they stand.
type Network struct {
	Leg             string
	Latency, Jitter time.Duration // added to each round trip, ± Jitter
	Bandwidth       int64         // bytes per second, each way, of each connection
	SlowClose       time.Duration // by which the end of a connection is late
	Reset           float64       // share of connections that are reset when the first answer comes
	Timeout         time.Duration // nothing gets through, and the connection ends after so long
	Slice           int64         // bytes; answers come in pieces of about this size, a millisecond apart
	LimitData       int64         // bytes; connections end after so much of answers
}

// How connections are counted that met a worse network: all through which something
// was sent meanwhile, and those that it ended, or whose end it delayed.
const (
	MetConnections = "connections"
	MetReset       = "reset"
	MetLimit       = "limit_data"
	MetClose       = "slow_close"
)

// DistantRegion is the profile of that name.
func DistantRegion() Network {
	return Network{Latency: 80 * time.Millisecond, Jitter: 20 * time.Millisecond, Reset: 0.01}
}

// String returns "client leg: 80ms ± 20ms, 1 % reset".
func (n Network) String() string {
	var parts []string
	add := func(is bool, format string, args ...any) {
		if is {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(n.Latency > 0 && n.Jitter == 0, "%s", n.Latency)
	add(n.Latency > 0 && n.Jitter > 0, "%s ± %s", n.Latency, n.Jitter)
	add(n.Bandwidth > 0, "%.4g kB/s", float64(n.Bandwidth)/1000)
	add(n.Reset > 0, "%.4g %% reset", 100*n.Reset)
	add(n.Timeout > 0, "nothing gets through, ended after %s", n.Timeout)
	add(n.Slice > 0, "pieces of %d B", n.Slice)
	add(n.LimitData > 0, "ended after %d B", n.LimitData)
	add(n.SlowClose > 0, "closes %s late", n.SlowClose)
	return n.Leg + " leg: " + strings.Join(parts, ", ")
}

// AtUpstream reports whether the mock upstream makes the fault by itself.
func (k FaultKind) AtUpstream() bool { return slices.Contains(wire.FaultKinds(), wire.FaultKind(k)) }

// TargetUpstream is the [Fault.Target] that isn't a system.
const TargetUpstream = "upstream"

// Fault is what a drill breaks, and for how long.
type Fault struct {
	Kind   FaultKind
	Target string        // TargetUpstream, New or Old
	For    time.Duration // before scaling
	// Wire is the whole of one that the mock upstream makes; all times in it are
	// as they stand.
	Wire wire.Fault
	// Network is the whole of a Worse one.
	Network Network
}

// String returns "partition of the upstream for 30s", or "slow_body (2s) of the
// upstream for 30s".
func (f Fault) String() string {
	if f.Kind == Worse {
		return fmt.Sprintf("network (%s) for %s", f.Network, plain(f.For))
	}
	if f.Kind.AtUpstream() {
		return fmt.Sprintf("%s of the %s for %s", f.Wire, f.Target, plain(f.For))
	}
	target := f.Target
	if target != TargetUpstream {
		target += " system"
	}
	return fmt.Sprintf("%s of the %s for %s", f.Kind, target, plain(f.For))
}

// plain is a duration without parts that are 0: "20m".
func plain(d time.Duration) string {
	text := d.String()
	for _, of := range [][2]string{{"m0s", "m"}, {"h0m", "h"}} {
		if rest, ok := strings.CutSuffix(text, of[0]); ok {
			text = rest + of[1]
		}
	}
	return text
}

// NoTrigger is the [Expectation.Text] that no trigger fires.
const NoTrigger = "no trigger"

// Expectation is what must hold in a drill: a condition on the new system while
// the fault is there, or a statement.
type Expectation struct {
	Text      string
	Condition *Condition // nil for a statement
}
