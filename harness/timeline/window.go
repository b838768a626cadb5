package timeline

import (
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Counts are numbers of requests that fell due in an interval or window,
// where nothing else is said.
type Counts struct {
	Offered  int64   `json:"offered,omitempty"`  // fell due
	Requests int64   `json:"requests,omitempty"` // finished, in whatever way
	Class    ByClass `json:"class,omitzero"`     // of these, by how they ended
	CutOff   int64   `json:"cut_off,omitempty"`  // had been sent, and the run's end cut them off

	Proven   int64 `json:"proven,omitempty"`   // carried the mock upstream's self-description
	Blocking int64 `json:"blocking,omitempty"` // waited for the upstream; known of proven ones only

	// What the load generator did in the interval, whenever it fell due: requests
	// that it sent, finished or not, and whole answers that it had read.
	Sent          int64 `json:"sent,omitempty"`
	CompleteEnded int64 `json:"complete_ended,omitempty"`

	// Good ones that ended in the interval, whenever they fell due: what a system
	// gets done.
	GoodEnded int64 `json:"good_ended,omitempty"`

	// GET and HEAD requests. They are compared with what the upstream saw, so
	// they are those that were sent in the interval, whenever they fell due.
	Cacheable         int64 `json:"cacheable,omitempty"`
	CacheableProven   int64 `json:"cacheable_proven,omitempty"`
	CacheableBlocking int64 `json:"cacheable_blocking,omitempty"`

	Truncated int64 `json:"truncated,omitempty"` // of class Transport, cut off within the body
	Stale     int64 `json:"stale,omitempty"`
	WrongAge  int64 `json:"wrong_age,omitempty"`  // no Age where there has to be one, or a wrong one
	ClaimHit  int64 `json:"claim_hit,omitempty"`  // the answer's headers say that it came from a cache …
	ClaimMiss int64 `json:"claim_miss,omitempty"` // … or that it didn't
	Beyond    int64 `json:"beyond,omitempty"`     // took longer than Longest

	// The client's leg, as it was on the wire.
	ClientHTTP1       int64 `json:"client_http1,omitempty"`       // answered over HTTP/1.1 or 1.0
	ClientHTTP2       int64 `json:"client_http2,omitempty"`       // answered over HTTP/2
	ClientReused      int64 `json:"client_reused,omitempty"`      // answered on a connection that had brought an answer before
	ClientConnections int64 `json:"client_connections,omitempty"` // opened in the interval
	// TLS handshakes that began in the interval, and those of them that didn't end in
	// the protocol asked for.
	ClientHandshakes        int64 `json:"client_handshakes,omitempty"`
	ClientHandshakeFailures int64 `json:"client_handshake_failures,omitempty"`

	// Sums in seconds, and the longest ones exactly.
	LatencySum  float64       `json:"latency_sum,omitempty"`
	ServiceSum  float64       `json:"service_sum,omitempty"`
	BlockingSum float64       `json:"blocking_sum,omitempty"` // latency of Blocking ones
	MaxLatency  time.Duration `json:"max_latency_ns,omitempty"`
	MaxService  time.Duration `json:"max_service_ns,omitempty"`
	MaxLag      time.Duration `json:"max_lag_ns,omitempty"`
}

// Good is the number of requests that ended as they should.
func (c *Counts) Good() int64 { return c.Class[OK] }

// Errors is the number of requests that count for error_rate.
func (c *Counts) Errors() int64 { return c.Requests - c.Class[OK] }

// Usable is the number of requests that got an answer that could be used.
func (c *Counts) Usable() int64 {
	var n int64
	for class, count := range c.Class {
		if Class(class).Usable() {
			n += count
		}
	}
	return n
}

// Pending is the number of requests that fell due and haven't finished.
func (c *Counts) Pending() int64 { return max(c.Offered-c.Requests, 0) }

func (c *Counts) record(o Outcome) {
	c.Requests++
	c.Class[o.Class]++
	seconds := o.Latency.Seconds()
	c.LatencySum += seconds
	c.ServiceSum += o.Service.Seconds()
	c.MaxLatency = max(c.MaxLatency, o.Latency)
	c.MaxService = max(c.MaxService, o.Service)
	c.MaxLag = max(c.MaxLag, o.Lag)
	if o.Latency > Longest {
		c.Beyond++
	}
	if o.Truncated {
		c.Truncated++
	}
	if o.Proven {
		c.Proven++
	}
	if o.Blocking {
		c.Blocking++
		c.BlockingSum += seconds
	}
	if o.Stale {
		c.Stale++
	}
	if o.WrongAge {
		c.WrongAge++
	}
	if o.HTTP1 {
		c.ClientHTTP1++
	}
	if o.HTTP2 {
		c.ClientHTTP2++
	}
	if o.Reused {
		c.ClientReused++
	}
	switch o.Claim {
	case ClaimHit:
		c.ClaimHit++
	case ClaimMiss:
		c.ClaimMiss++
	}
}

// recordSent counts a cacheable request where it was sent.
func (c *Counts) recordSent(o Outcome) {
	c.Cacheable++
	if o.Proven {
		c.CacheableProven++
	}
	if o.Blocking {
		c.CacheableBlocking++
	}
}

func (c *Counts) add(d *Counts) {
	c.Offered += d.Offered
	c.Requests += d.Requests
	for i, n := range d.Class {
		c.Class[i] += n
	}
	c.CutOff += d.CutOff
	c.Sent += d.Sent
	c.CompleteEnded += d.CompleteEnded
	c.GoodEnded += d.GoodEnded
	c.Cacheable += d.Cacheable
	c.Proven += d.Proven
	c.CacheableProven += d.CacheableProven
	c.Blocking += d.Blocking
	c.CacheableBlocking += d.CacheableBlocking
	c.Truncated += d.Truncated
	c.Stale += d.Stale
	c.WrongAge += d.WrongAge
	c.ClientHTTP1 += d.ClientHTTP1
	c.ClientHTTP2 += d.ClientHTTP2
	c.ClientReused += d.ClientReused
	c.ClientConnections += d.ClientConnections
	c.ClientHandshakes += d.ClientHandshakes
	c.ClientHandshakeFailures += d.ClientHandshakeFailures
	c.ClaimHit += d.ClaimHit
	c.ClaimMiss += d.ClaimMiss
	c.Beyond += d.Beyond
	c.LatencySum += d.LatencySum
	c.ServiceSum += d.ServiceSum
	c.BlockingSum += d.BlockingSum
	c.MaxLatency = max(c.MaxLatency, d.MaxLatency)
	c.MaxService = max(c.MaxService, d.MaxService)
	c.MaxLag = max(c.MaxLag, d.MaxLag)
}

// Sample is one look at what a system uses; in a row of a long run, the one
// with the least memory of all looks in it, with their highest Peak and their
// mean CPU.
type Sample struct {
	At   time.Duration
	Span time.Duration // since the sample before, which CPU is the mean over
	Usage
}

// Interval is one bin of a [Window].
type Interval struct {
	Start, End time.Duration
	Counts
	Over       []int64      // latencies at or above each of Window.Limits
	Ledger     LedgerCounts // rise over the interval
	HaveLedger bool         // false: the readings don't reach its end
}

// Window is what was observed of one system between two times. The zero
// Window is one in which nothing was.
type Window struct {
	From, To time.Duration
	Seconds  float64 // length
	Counts
	Limits []time.Duration         // Config.Over, ascending and distinct
	Over   map[time.Duration]int64 // latencies at or above each of Limits

	Latency, Service *hdrhistogram.Histogram // microseconds; nil in the zero Window

	Intervals  []Interval   // in order, without gaps
	Resources  []Sample     // in order
	Ledger     LedgerCounts // rise over the window
	HaveLedger bool         // false: no ledger was read
}

// Ledgered is the part of the window that readings of the ledger cover: from
// the first interval that they reach the end of to the last one. What was sent
// since the last reading hasn't been seen by the ledger yet, and would look like
// hits. Counts
// and Ledger are those of that part; histograms, Over and Resources are left out.
func (w *Window) Ledgered() Window {
	first := slices.IndexFunc(w.Intervals, func(i Interval) bool { return i.HaveLedger })
	if first < 0 {
		return Window{}
	}
	end := len(w.Intervals)
	for !w.Intervals[end-1].HaveLedger {
		end--
	}
	part := Window{
		From: w.Intervals[first].Start, To: w.Intervals[end-1].End,
		Intervals: w.Intervals[first:end], HaveLedger: true,
	}
	part.Seconds = (part.To - part.From).Seconds()
	for i := range part.Intervals {
		part.Counts.add(&part.Intervals[i].Counts)
		part.Ledger.add(part.Intervals[i].Ledger)
	}
	return part
}

// Summary is one bin as a timeline shows it.
type Summary struct {
	Interval
	P50, P95, P99 *time.Duration // of latency; nil where nothing finished
	Memory        *int64         // last resident bytes; nil where there is no sample
	CPU           *float64       // mean share of the CPUs available
}
