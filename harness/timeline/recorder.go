package timeline

import (
	"errors"
	"fmt"
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
	for i, name := range c.Systems {
		if slices.Contains(c.Systems[:i], name) {
			errs = append(errs, fmt.Errorf("system %q is named twice", name))
		}
	}
	return errors.Join(errs...)
}

// Usage is what a system used of the machine.
type Usage struct {
	Resident int64   // bytes now
	Peak     int64   // bytes, the highest so far where the kernel keeps it; else 0
	CPU      float64 // share of the CPUs available, since the last sample

	// What the system itself says of its memory, bytes; 0 where it says nothing.
	LiveHeap     int64 // reachable at its last garbage collection
	CachePayload int64 // held by its cache; lies on the live heap
}

// LedgerCounts are counters of the upstream's ledger: running totals when
// they are recorded, and the rise over an interval or window when read.
type LedgerCounts struct {
	Requests          int64 // all but probes
	Reads             int64 // GET and HEAD
	Conditional       int64 // reads that revalidate
	NotModified       int64 // of these, answered with 304
	HTTP2             int64 // requests over HTTP/2
	Reused            int64 // requests that weren't the first on their connection
	Connections       int64
	Handshakes        int64 // TLS, completed
	HandshakeFailures int64 // TLS, begun and not completed
}

func (c *LedgerCounts) add(d LedgerCounts) {
	c.Requests += d.Requests
	c.Reads += d.Reads
	c.Conditional += d.Conditional
	c.NotModified += d.NotModified
	c.HTTP2 += d.HTTP2
	c.Reused += d.Reused
	c.Connections += d.Connections
	c.Handshakes += d.Handshakes
	c.HandshakeFailures += d.HandshakeFailures
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
		HTTP2:             c.HTTP2 - earlier.HTTP2,
		Reused:            c.Reused - earlier.Reused,
		Connections:       c.Connections - earlier.Connections,
		Handshakes:        c.Handshakes - earlier.Handshakes,
		HandshakeFailures: c.HandshakeFailures - earlier.HandshakeFailures,
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
		HTTP2:             part(c.HTTP2),
		Reused:            part(c.Reused),
		Connections:       part(c.Connections),
		Handshakes:        part(c.Handshakes),
		HandshakeFailures: part(c.HandshakeFailures),
	}
}

// Recorder takes observations. Its methods may be called from any goroutine.
type Recorder struct {
	interval time.Duration
	over     []time.Duration // ascending, distinct
	names    []string
	systems  []*system
}

// system is the record of one arm.
type system struct {
	// sealing is held by the one who packs samples, which is done outside mu,
	// so that mu, which every request takes, is held for moments only.
	sealing sync.Mutex

	mu       sync.Mutex
	bins     map[int]*bin // by index of the interval
	newest   int          // highest index seen
	sealed   int          // bins below this index have been packed
	usage    []Sample     // in order of arrival
	ledger   LedgerCounts // last total …
	ledgerAt time.Duration
	ledgers  int // … of so many
}

// bin is one interval.
type bin struct {
	counts           Counts
	over             []int64 // by Recorder.over
	ledger           LedgerCounts
	haveLedger       bool // the readings cover it to its end
	latency, service samples
}

// New returns an empty recorder.
func New(c Config) (*Recorder, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("timeline: %w", err)
	}
	r := &Recorder{interval: c.Interval, names: slices.Clone(c.Systems), over: slices.Clone(c.Over)}
	if r.interval == 0 {
		r.interval = time.Second
	}
	slices.Sort(r.over)
	r.over = slices.Compact(r.over)
	for range c.Systems {
		r.systems = append(r.systems, &system{bins: make(map[int]*bin)})
	}
	return r, nil
}

// Interval is the length of a bin.
func (r *Recorder) Interval() time.Duration { return r.interval }

// Systems are the names of the systems, in the order of their indices.
func (r *Recorder) Systems() []string { return slices.Clone(r.names) }

// Offer counts a request that falls due: call it when the request is
// dispatched, whatever becomes of it.
func (r *Recorder) Offer(system int, due time.Duration) {
	s := r.systems[system]
	s.mu.Lock()
	r.bin(s, due).counts.Offered++
	s.mu.Unlock()
}

// Record takes a request that finished.
func (r *Recorder) Record(system int, o Outcome) {
	latency, service := micros(o.Latency), micros(o.Service)
	s := r.systems[system]
	s.mu.Lock()
	b := r.bin(s, o.Due)
	b.counts.record(o)
	if o.Cacheable {
		r.bin(s, o.Due+o.Wait).counts.recordSent(o)
	}
	for i, limit := range r.over {
		if o.Latency < limit {
			break
		}
		b.over[i]++
	}
	b.latency.raw = append(b.latency.raw, latency)
	if o.Service > 0 {
		b.service.raw = append(b.service.raw, service)
	}
	s.mu.Unlock()
}

// Resources takes a sample of what the system used, up to at.
func (r *Recorder) Resources(system int, at time.Duration, u Usage) {
	s := r.systems[system]
	s.mu.Lock()
	sample := Sample{At: at, Usage: u, Span: r.interval}
	if n := len(s.usage); n > 0 {
		sample.Span = max(at-s.usage[n-1].At, 0)
	}
	s.usage = append(s.usage, sample)
	s.mu.Unlock()
	r.seal(s)
}

// Ledger takes the running totals of the system's ledger as of at. The first
// one is the zero line. The rise since the last one is spread evenly over the
// time between them, and each interval gets its part, so that readings needn't
// fall on the intervals' bounds: where they come late, a window would else miss
// the requests of the time by which its last reading was later than its first.
func (r *Recorder) Ledger(system int, at time.Duration, total LedgerCounts) {
	s := r.systems[system]
	s.mu.Lock()
	if s.ledgers > 0 {
		rise, given := total.since(s.ledger), LedgerCounts{}
		for from := s.ledgerAt; ; {
			b := r.bin(s, from)
			end := (from/r.interval + 1) * r.interval
			if at < end {
				b.ledger.add(rise.since(given))
				break
			}
			part := rise.times(float64(end-s.ledgerAt) / float64(at-s.ledgerAt))
			b.ledger.add(part.since(given))
			b.haveLedger = true
			from, given = end, part
		}
	}
	s.ledger, s.ledgerAt = total, at
	s.ledgers++
	s.mu.Unlock()
	r.seal(s)
}

// bin returns the interval that at falls into. What is before the schedule's
// start belongs to the first one. Call with s.mu held.
func (r *Recorder) bin(s *system, at time.Duration) *bin {
	i := int(max(at, 0) / r.interval)
	b := s.bins[i]
	if b == nil {
		b = &bin{over: make([]int64, len(r.over))}
		s.bins[i] = b
		s.newest = max(s.newest, i)
	}
	return b
}

// linger is how long an interval's samples are kept as they came, for
// requests still under way. Later ones find their place all the same.
const linger = 10 * time.Second

// seal packs the samples of intervals that are done. It runs along with the
// samplers and readers, never on the path of a request.
func (r *Recorder) seal(s *system) {
	s.sealing.Lock()
	defer s.sealing.Unlock()
	s.mu.Lock()
	end := s.newest - int(linger/r.interval)
	first := s.sealed
	s.mu.Unlock()
	for i := first; i < end; i++ {
		s.mu.Lock()
		b := s.bins[i]
		s.sealed = i + 1
		if b == nil {
			s.mu.Unlock()
			continue
		}
		latency, service := b.latency, b.service
		s.mu.Unlock()
		packedLatency, packedService := latency.pack(), service.pack()
		s.mu.Lock()
		b.latency.replace(len(latency.raw), packedLatency)
		b.service.replace(len(service.raw), packedService)
		s.mu.Unlock()
	}
}
