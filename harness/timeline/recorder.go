package timeline

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"
)

// Config of a [Recorder].
type Config struct {
	Interval time.Duration // of the bins; 0 stands for one second
	Systems  []string      // names, at least one; an observation's system is an index into them
	// Over are the latencies that gates and triggers ask about. Requests that
	// took as long or longer are counted exactly, as they arrive.
	Over []time.Duration

	// Marks are where the stages of the run begin and end, ascending. Windows
	// from one mark to another stay exact however long ago they were.
	Marks []time.Duration
	// Recent is how long intervals are kept one by one, at least; before that
	// they are put together into the rows of a [Series]. 0 keeps them all.
	Recent time.Duration
	// Journal keeps what was taken in for [Recorder.Take].
	Journal bool
}

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.Interval < 0 {
		errs = append(errs, fmt.Errorf("interval is %v, must not be negative", c.Interval))
	}
	if len(c.Systems) == 0 {
		errs = append(errs, errors.New("no system named, at least one is needed"))
	}
	if c.Recent < 0 {
		errs = append(errs, fmt.Errorf("recent is %v, must not be negative", c.Recent))
	}
	if !slices.IsSorted(c.Marks) {
		errs = append(errs, fmt.Errorf("marks are %v, must ascend", c.Marks))
	}
	for i, name := range c.Systems {
		if slices.Contains(c.Systems[:i], name) {
			errs = append(errs, fmt.Errorf("system %q is named twice", name))
		}
	}
	return errors.Join(errs...)
}

// Usage is what a system used of the machine.
type Usage struct {
	Resident int64   `json:"resident"` // bytes now
	Peak     int64   `json:"peak"`     // bytes, the highest so far where the kernel keeps it; else 0
	CPU      float64 `json:"cpu"`      // share of the CPUs available, since the last sample

	// What the system itself says of its memory, bytes; 0 where it says nothing.
	LiveHeap     int64 `json:"live_heap,omitempty"`     // reachable at its last garbage collection
	CachePayload int64 `json:"cache_payload,omitempty"` // held by its cache; lies on the live heap

	// What it says of its circuit breakers; 0 where it says nothing.
	Breakers     int64 `json:"breakers,omitempty"`
	OpenBreakers int64 `json:"open_breakers,omitempty"`
}

// LedgerCounts are counters of the upstream's ledger: running totals when
// they are recorded, and the rise over an interval or window when read.
type LedgerCounts struct {
	Requests          int64 `json:"requests,omitempty"`     // all but probes
	Reads             int64 `json:"reads,omitempty"`        // GET and HEAD
	Conditional       int64 `json:"conditional,omitempty"`  // reads that revalidate
	NotModified       int64 `json:"not_modified,omitempty"` // of these, answered with 304
	Duplicates        int64 `json:"duplicates,omitempty"`   // reads of what was being fetched already
	HTTP2             int64 `json:"http2,omitempty"`        // requests over HTTP/2 …
	H2C               int64 `json:"h2c,omitempty"`          // … of these, in clear text
	Reused            int64 `json:"reused,omitempty"`       // requests that weren't the first on their connection
	Connections       int64 `json:"connections,omitempty"`
	Handshakes        int64 `json:"handshakes,omitempty"`         // TLS, completed …
	Resumed           int64 `json:"resumed,omitempty"`            // … of these, with an earlier session
	HandshakeFailures int64 `json:"handshake_failures,omitempty"` // TLS, begun and not completed
	GoAways           int64 `json:"goaways,omitempty"`            // connections that the upstream gave notice on
	Broken            int64 `json:"broken,omitempty"`             // answers, handshakes and connections, on purpose
}

func (c *LedgerCounts) add(d LedgerCounts) {
	c.Requests += d.Requests
	c.Reads += d.Reads
	c.Conditional += d.Conditional
	c.NotModified += d.NotModified
	c.Duplicates += d.Duplicates
	c.HTTP2 += d.HTTP2
	c.H2C += d.H2C
	c.Reused += d.Reused
	c.Connections += d.Connections
	c.Handshakes += d.Handshakes
	c.Resumed += d.Resumed
	c.HandshakeFailures += d.HandshakeFailures
	c.GoAways += d.GoAways
	c.Broken += d.Broken
}

// since is the rise from an earlier total. A total that fell was reset in
// between; what it counts now has come since.
func (c LedgerCounts) since(earlier LedgerCounts) LedgerCounts {
	if c.Requests < earlier.Requests || c.Connections < earlier.Connections || c.Handshakes < earlier.Handshakes {
		return c
	}
	return LedgerCounts{
		Requests:          c.Requests - earlier.Requests,
		Reads:             c.Reads - earlier.Reads,
		Conditional:       c.Conditional - earlier.Conditional,
		NotModified:       c.NotModified - earlier.NotModified,
		Duplicates:        c.Duplicates - earlier.Duplicates,
		HTTP2:             c.HTTP2 - earlier.HTTP2,
		H2C:               c.H2C - earlier.H2C,
		Reused:            c.Reused - earlier.Reused,
		Connections:       c.Connections - earlier.Connections,
		Handshakes:        c.Handshakes - earlier.Handshakes,
		Resumed:           c.Resumed - earlier.Resumed,
		HandshakeFailures: c.HandshakeFailures - earlier.HandshakeFailures,
		GoAways:           c.GoAways - earlier.GoAways,
		Broken:            c.Broken - earlier.Broken,
	}
}

// times is a share of the counts, each rounded.
func (c LedgerCounts) times(share float64) LedgerCounts {
	part := func(n int64) int64 { return int64(math.Round(float64(n) * share)) }
	return LedgerCounts{
		Requests:          part(c.Requests),
		Reads:             part(c.Reads),
		Conditional:       part(c.Conditional),
		NotModified:       part(c.NotModified),
		Duplicates:        part(c.Duplicates),
		HTTP2:             part(c.HTTP2),
		H2C:               part(c.H2C),
		Reused:            part(c.Reused),
		Connections:       part(c.Connections),
		Handshakes:        part(c.Handshakes),
		Resumed:           part(c.Resumed),
		HandshakeFailures: part(c.HandshakeFailures),
		GoAways:           part(c.GoAways),
		Broken:            part(c.Broken),
	}
}

// Recorder takes observations. Its methods may be called from any goroutine.
//
// What comes in is held back, cheaply, until it is looked at: by [Recorder.Take],
// [Recorder.Window] or [Recorder.Intervals]. Then it is folded into a [Series].
// So a recorder holds little more than what came since the last look.
type Recorder struct {
	interval time.Duration
	over     []time.Duration // ascending, distinct
	open     []*open         // by system

	mu      sync.Mutex // guards what follows, and is never held by a request
	series  *Series
	journal bool
	taken   []Entry
}

// open is what came in of one system since the last look.
type open struct {
	mu    sync.Mutex
	parts map[int]*fresh // by index of the interval
	last  int            // the one asked for last, which most are asked for again …
	part  *fresh         // … and what is open of it; nil for none
}

// fresh is a [Part] that still grows.
type fresh struct {
	counts           Counts
	over             []int64 // by Recorder.over
	latency, service []uint32
}

// New returns an empty recorder.
func New(c Config) (*Recorder, error) {
	series, err := NewSeries(c)
	if err != nil {
		return nil, err
	}
	r := &Recorder{interval: series.interval, over: series.over, series: series, journal: c.Journal}
	for range c.Systems {
		r.open = append(r.open, &open{parts: map[int]*fresh{}})
	}
	return r, nil
}

// Interval is the length of a bin.
func (r *Recorder) Interval() time.Duration { return r.interval }

// Systems are the names of the systems, in the order of their indices.
func (r *Recorder) Systems() []string { return slices.Clone(r.series.names) }

// Series is what observations are folded into. It changes whenever the recorder
// is looked at, by whoever does.
func (r *Recorder) Series() *Series { return r.series }

// Offer counts a request that falls due: call it when the request is
// dispatched, whatever becomes of it.
func (r *Recorder) Offer(system int, due time.Duration) {
	o := r.open[system]
	o.mu.Lock()
	r.part(o, due).counts.Offered++
	o.mu.Unlock()
}

// Record takes a request that finished.
func (r *Recorder) Record(system int, outcome Outcome) {
	latency, service := micros(outcome.Latency), micros(outcome.Service)
	o := r.open[system]
	o.mu.Lock()
	p := r.part(o, outcome.Due)
	p.counts.record(outcome)
	if outcome.Class == OK {
		r.part(o, outcome.Due+outcome.Latency).counts.GoodEnded++
	}
	sent := outcome.Due + outcome.Wait
	if outcome.Service > 0 {
		r.part(o, sent).counts.Sent++
	}
	if outcome.Class.Complete() {
		r.part(o, sent+outcome.Service).counts.CompleteEnded++
	}
	if outcome.Cacheable {
		r.part(o, sent).counts.recordSent(outcome)
	}
	for i, limit := range r.over {
		if outcome.Latency < limit {
			break
		}
		p.over[i]++
	}
	p.latency = append(p.latency, latency)
	if outcome.Service > 0 {
		p.service = append(p.service, service)
	}
	o.mu.Unlock()
}

// Cut takes a request that had been sent when the run's end cut it off: it has no
// outcome.
func (r *Recorder) Cut(system int, due, sent time.Duration) {
	o := r.open[system]
	o.mu.Lock()
	r.part(o, due).counts.CutOff++
	r.part(o, sent).counts.Sent++
	o.mu.Unlock()
}

// Connection takes a connection of the client's leg that was opened at a time.
func (r *Recorder) Connection(system int, at time.Duration) {
	o := r.open[system]
	o.mu.Lock()
	defer o.mu.Unlock()
	r.part(o, at).counts.ClientConnections++
}

// Handshake takes a TLS handshake of the client's leg, begun at a time, that has
// ended.
func (r *Recorder) Handshake(system int, at time.Duration, ok bool) {
	o := r.open[system]
	o.mu.Lock()
	defer o.mu.Unlock()
	c := &r.part(o, at).counts
	c.ClientHandshakes++
	if !ok {
		c.ClientHandshakeFailures++
	}
}

// Resources takes a sample of what the system used, up to at.
func (r *Recorder) Resources(system int, at time.Duration, u Usage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.apply(Entry{Resources: &Resources{System: r.series.names[system], At: at, Usage: u}})
}

// Ledger takes the running totals of the system's ledger as of at. The first
// one is the zero line. The rise since the last one is spread evenly over the
// time between them, and each interval gets its part, so that readings needn't
// fall on the intervals' bounds: where they come late, a window would else miss
// the requests of the time by which its last reading was later than its first.
func (r *Recorder) Ledger(system int, at time.Duration, total LedgerCounts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.apply(Entry{Ledger: &Ledger{System: r.series.names[system], At: at, LedgerCounts: total}})
}

// Window is [Series.Window] of all that came in until now.
func (r *Recorder) Window(system int, from, to time.Duration) Window {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fold()
	return r.series.Window(system, from, to)
}

// Intervals is [Series.Intervals] of all that came in until now.
func (r *Recorder) Intervals(system int, from, to time.Duration) []Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fold()
	return r.series.Intervals(system, from, to)
}

// Take folds what came in into the series, and returns all that was folded
// since the last Take, in order: another series to which it is applied is equal
// to this one. It is for recorders with [Config.Journal].
func (r *Recorder) Take() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fold()
	taken := r.taken
	r.taken = nil
	return taken
}

// fold empties what is open into the series. Call with r.mu held.
func (r *Recorder) fold() {
	for system, o := range r.open {
		o.mu.Lock()
		parts := o.parts
		o.parts, o.part = map[int]*fresh{}, nil // from here on parts is ours alone
		o.mu.Unlock()
		for _, i := range slices.Sorted(maps.Keys(parts)) {
			f := parts[i]
			p := &Part{
				System: r.series.names[system], Start: time.Duration(i) * r.interval,
				Counts: f.counts, Over: f.over, Latencies: int64(len(f.latency)), Services: int64(len(f.service)),
				latency: pack(f.latency), service: pack(f.service),
			}
			r.apply(Entry{Requests: p})
		}
	}
}

func (r *Recorder) apply(e Entry) {
	if err := r.series.Apply(e); err != nil {
		panic("timeline: " + err.Error()) // made here, for this series
	}
	if r.journal {
		r.taken = append(r.taken, e)
	}
}

// part returns what is open of the interval that at falls into. What is before
// the schedule's start belongs to the first one. Call with o.mu held.
func (r *Recorder) part(o *open, at time.Duration) *fresh {
	i := int(max(at, 0) / r.interval)
	if o.part != nil && o.last == i {
		return o.part
	}
	p := o.parts[i]
	if p == nil {
		p = &fresh{over: make([]int64, len(r.over))}
		o.parts[i] = p
	}
	o.last, o.part = i, p
	return p
}
