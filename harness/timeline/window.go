package timeline

import (
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Counts are numbers of requests that fell due in an interval or window,
// where nothing else is said.
type Counts struct {
	Offered  int64          // fell due
	Requests int64          // finished, in whatever way
	Class    [Classes]int64 // of these, by how they ended

	Proven   int64 // carried the mock upstream's self-description
	Blocking int64 // waited for the upstream; known of proven ones only

	// GET and HEAD requests. They are compared with what the upstream saw, so
	// they are those that were sent in the interval, whenever they fell due.
	Cacheable, CacheableProven, CacheableBlocking int64

	Stale     int64
	ClaimHit  int64 // the answer's headers say that it came from a cache …
	ClaimMiss int64 // … or that it didn't
	Beyond    int64 // took longer than Longest

	// Sums in seconds, and the longest ones exactly.
	LatencySum, ServiceSum, BlockingSum float64 // BlockingSum: latency of Blocking ones
	MaxLatency, MaxService, MaxLag      time.Duration
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
	c.Cacheable += d.Cacheable
	c.Proven += d.Proven
	c.CacheableProven += d.CacheableProven
	c.Blocking += d.Blocking
	c.CacheableBlocking += d.CacheableBlocking
	c.Stale += d.Stale
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

// Sample is one look at what a system uses.
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

// Window merges the intervals that begin in [from, to): from is best given as a
// multiple of the interval. The last interval ends at to at the latest, so that
// a rate over it is one over the time in which requests could be due. Requests
// that fell due there and aren't finished are in it as Pending.
func (r *Recorder) Window(system int, from, to time.Duration) Window {
	first, bins, usage := r.read(system, from, to)
	w := Window{
		From:   time.Duration(first) * r.interval,
		To:     time.Duration(first+len(bins)) * r.interval,
		Limits: slices.Clone(r.over), Over: make(map[time.Duration]int64, len(r.over)),
		Latency: NewHistogram(), Service: NewHistogram(),
		Intervals: make([]Interval, len(bins)), Resources: usage,
	}
	w.To = max(w.From, min(w.To, to))
	w.Seconds = (w.To - w.From).Seconds()
	for _, limit := range r.over {
		w.Over[limit] = 0
	}
	for i := range bins {
		b := &bins[i]
		w.Intervals[i] = r.makeInterval(first+i, b)
		w.Intervals[i].End = min(w.Intervals[i].End, to)
		w.Counts.add(&b.counts)
		for j, n := range b.over {
			w.Over[r.over[j]] += n
		}
		w.Ledger.add(b.ledger)
		w.HaveLedger = w.HaveLedger || b.haveLedger
		b.latency.addTo(w.Latency)
		b.service.addTo(w.Service)
	}
	return w
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

// Intervals are the bins that begin in [from, to), in order, without gaps.
func (r *Recorder) Intervals(system int, from, to time.Duration) []Summary {
	first, bins, usage := r.read(system, from, to)
	summaries := make([]Summary, len(bins))
	for i := range bins {
		s := &summaries[i]
		s.Interval = r.makeInterval(first+i, &bins[i])
		if q := bins[i].latency.quantiles(0.5, 0.95, 0.99); q != nil {
			s.P50, s.P95, s.P99 = &q[0], &q[1], &q[2]
		}
		var cpu, span float64
		for len(usage) > 0 && usage[0].At < s.End {
			s.Memory = &usage[0].Resident
			cpu += usage[0].CPU * usage[0].Span.Seconds()
			span += usage[0].Span.Seconds()
			usage = usage[1:]
		}
		if span > 0 {
			cpu /= span
			s.CPU = &cpu
		}
	}
	return summaries
}

// read copies what begins in [from, to); the samples in it are shared and
// must not be written.
func (r *Recorder) read(system int, from, to time.Duration) (first int, bins []bin, usage []Sample) {
	s := r.systems[system]
	r.seal(s)
	from, to = max(from, 0), max(to, 0)
	first = int((from + r.interval - 1) / r.interval)
	bins = make([]bin, max(int((to+r.interval-1)/r.interval)-first, 0))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range bins {
		if b := s.bins[first+i]; b != nil {
			bins[i] = *b
			bins[i].over = slices.Clone(b.over)
		}
	}
	for _, u := range s.usage {
		if u.At >= from && u.At < to {
			usage = append(usage, u)
		}
	}
	slices.SortStableFunc(usage, func(a, b Sample) int { return int(a.At - b.At) })
	return first, bins, usage
}

func (r *Recorder) makeInterval(index int, b *bin) Interval {
	start := time.Duration(index) * r.interval
	i := Interval{
		Start: start, End: start + r.interval,
		Counts: b.counts, Over: b.over, Ledger: b.ledger, HaveLedger: b.haveLedger,
	}
	if i.Over == nil {
		i.Over = make([]int64, len(r.over))
	}
	return i
}

// quantiles returns one value for each of qs, which must rise, as a histogram
// would give them; nil if there is no sample.
func (s samples) quantiles(qs ...float64) []time.Duration {
	values, counts := s.sorted()
	var total int64
	for _, n := range counts {
		total += n
	}
	if total == 0 {
		return nil
	}
	result := make([]time.Duration, 0, len(qs))
	var below int64
	i := 0
	for _, q := range qs {
		for place := rank(q, total); below+counts[i] < place; {
			below += counts[i]
			i++
		}
		_, highest := bucket(values[i])
		result = append(result, time.Duration(highest)*time.Microsecond)
	}
	return result
}
