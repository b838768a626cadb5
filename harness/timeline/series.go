package timeline

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// MaxRows is about how many rows a [Series] keeps of each system whatever the
// run's length: an hour in seconds.
const MaxRows = 3600

// Series is what was observed, folded together in the order in which it was
// taken in: the same entries always make the same series, and so the same
// windows, to the last bit. It isn't safe for concurrent use.
//
// Its memory is bounded. Intervals older than [Config.Recent] become rows: of
// one interval in a run of up to [MaxRows], of as many as keep the number of
// rows below it in a longer one (30 s in a day). Rows keep the counts and the
// quantiles; their histograms are added up from mark to mark.
//
// Bounds stay right with wider rows. The design effect compares how the rows'
// residuals vary with how independent requests would: what fails together
// within a row adds to the row's residual in full, so dependence up to the
// row's length, which narrower rows would have to find between neighbours, is
// inside; the batches of an eighth and of a fifth of all rows are as long in
// seconds as they were, and more than a thousand rows leave degrees of freedom
// enough. The bounds on means rest on the same batches.
type Series struct {
	interval time.Duration
	over     []time.Duration // ascending, distinct
	names    []string
	tracks   []*track

	marks  []int // indices of intervals, ascending
	recent int   // intervals kept one by one; 0 for all
	width  int   // intervals in a row
}

// track is the series of one system.
type track struct {
	bins   map[int]*bin // by index of the interval, from closed on
	newest int          // highest index seen
	closed int          // intervals below this index are in rows

	rows   []row
	stages []stage
	total  Counts

	usage    []Sample // in order of time
	thinned  int      // of these, so many stand for a row
	ledger   LedgerCounts
	ledgerAt time.Duration
	ledgers  int
}

// bin is one interval.
type bin struct {
	tally
	latency, service packed
}

// tally is what is counted in an interval or row.
type tally struct {
	counts     Counts
	over       []int64 // by Series.over
	ledger     LedgerCounts
	haveLedger bool // the readings cover it to its end
}

// row is several intervals put together.
type row struct {
	tally
	start, end int
	quantiles  []time.Duration // p50, p95, p99; nil where nothing finished
}

// stage adds up the histograms of the rows from one mark to the next.
type stage struct {
	start, end       int
	latency, service *hdrhistogram.Histogram
}

// NewSeries returns an empty series.
func NewSeries(c Config) (*Series, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("timeline: %w", err)
	}
	s := &Series{interval: c.Interval, names: slices.Clone(c.Systems), over: slices.Clone(c.Over), width: 1}
	if s.interval == 0 {
		s.interval = time.Second
	}
	slices.Sort(s.over)
	s.over = slices.Compact(s.over)
	for range c.Systems {
		s.tracks = append(s.tracks, &track{bins: map[int]*bin{}})
	}
	for _, mark := range c.Marks {
		if i := s.ceil(mark); i > 0 {
			s.marks = append(s.marks, i)
		}
	}
	s.marks = slices.Compact(s.marks)
	if c.Recent > 0 && len(s.marks) > 0 {
		s.recent = max(s.ceil(c.Recent), 1)
		s.width = rowWidth(s.marks[len(s.marks)-1])
	}
	return s, nil
}

// rowWidth is a width that a reader knows from clocks, in intervals, by which n
// of them make at most MaxRows rows.
func rowWidth(n int) int {
	for _, width := range []int{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600} {
		if n <= width*MaxRows {
			return width
		}
	}
	return (n + MaxRows - 1) / MaxRows
}

// ceil is the index of the first interval that begins at or after a time.
func (s *Series) ceil(at time.Duration) int {
	at = max(at, 0)
	i := int(at / s.interval)
	if at%s.interval > 0 {
		i++
	}
	return i
}

// Apply folds one entry in. It fails on one that isn't of this series.
func (s *Series) Apply(e Entry) error {
	switch {
	case e.Requests != nil:
		return s.requests(e.Requests)
	case e.Resources != nil:
		return s.resources(e.Resources)
	case e.Ledger != nil:
		return s.ledger(e.Ledger)
	}
	return nil
}

func (s *Series) track(name string) (*track, error) {
	i := slices.Index(s.names, name)
	if i < 0 {
		return nil, fmt.Errorf("system %q; allowed: %q", name, s.names)
	}
	return s.tracks[i], nil
}

// farthest is the latest time of an entry: so far nothing overflows.
const farthest = 100 * 365 * 24 * time.Hour

func (s *Series) requests(p *Part) error {
	t, err := s.track(p.System)
	switch {
	case err != nil:
		return err
	case len(p.Over) != len(s.over):
		return fmt.Errorf("%d counts of requests over a limit, and there are %d limits", len(p.Over), len(s.over))
	case p.Start < 0 || p.Start > farthest || p.Start%s.interval != 0:
		return fmt.Errorf("an interval that starts at %v; allowed: multiples of %v from 0 on", p.Start, s.interval)
	}
	t.total.add(&p.Counts)
	i := int(p.Start / s.interval)
	if i < t.closed {
		// Too late for the row's quantiles, not for its counts.
		row, stage := t.at(i)
		row.add(p.Counts, p.Over)
		p.latency.addTo(stage.latency)
		p.service.addTo(stage.service)
		return nil
	}
	b := s.bin(t, i)
	b.add(p.Counts, p.Over)
	b.latency = merge(b.latency, p.latency)
	b.service = merge(b.service, p.service)
	s.close(t)
	return nil
}

// Total counts all that was taken in of a system, whenever it was.
func (s *Series) Total(system int) Counts { return s.tracks[system].total }

func (t *tally) add(c Counts, over []int64) {
	t.counts.add(&c)
	for i, n := range over {
		t.over[i] += n
	}
}

func (s *Series) resources(u *Resources) error {
	t, err := s.track(u.System)
	if err != nil {
		return err
	}
	sample := Sample{At: u.At, Usage: u.Usage, Span: s.interval}
	if n := len(t.usage); n > 0 {
		sample.Span = max(u.At-t.usage[n-1].At, 0)
	}
	t.usage = append(t.usage, sample)
	t.newest = max(t.newest, int(u.At/s.interval))
	s.close(t)
	return nil
}

func (s *Series) ledger(l *Ledger) error {
	t, err := s.track(l.System)
	switch {
	case err != nil:
		return err
	case l.At < 0 || l.At > farthest:
		return fmt.Errorf("a reading of the ledger at %v; allowed: from 0 to %v", l.At, farthest)
	}
	if t.ledgers > 0 && l.At-t.ledgerAt <= maxGap {
		rise, given := l.since(t.ledger), LedgerCounts{}
		for from := t.ledgerAt; ; {
			i := int(max(from, 0) / s.interval)
			to, last := s.tally(t, i)
			end := (from/s.interval + 1) * s.interval
			if l.At < end {
				to.ledger.add(rise.since(given))
				break
			}
			part := rise.times(float64(end-t.ledgerAt) / float64(l.At-t.ledgerAt))
			to.ledger.add(part.since(given))
			to.haveLedger = to.haveLedger || last
			from, given = end, part
		}
	}
	t.ledger, t.ledgerAt = l.LedgerCounts, l.At
	t.ledgers++
	s.close(t) // also where no request comes
	return nil
}

// maxGap is the longest time between two readings of a ledger that a rise is
// spread over. After a longer one the reading is a new zero line.
const maxGap = time.Hour

// tally is what counts interval i: its own bin, or the row that it is in; last
// tells whether that ends with it.
func (s *Series) tally(t *track, i int) (to *tally, last bool) {
	if i < t.closed {
		row, _ := t.at(i)
		return &row.tally, i == row.end-1
	}
	return &s.bin(t, i).tally, true
}

// at finds the row and the stage that hold interval i, which is closed.
func (t *track) at(i int) (*row, *stage) {
	r, _ := slices.BinarySearchFunc(t.rows, i, func(r row, i int) int { return cmp.Compare(r.end-1, i) })
	n, _ := slices.BinarySearchFunc(t.stages, i, func(g stage, i int) int { return cmp.Compare(g.end-1, i) })
	return &t.rows[r], &t.stages[n]
}

func (s *Series) bin(t *track, i int) *bin {
	b := t.bins[i]
	if b == nil {
		b = &bin{tally: tally{over: make([]int64, len(s.over))}}
		t.bins[i] = b
		t.newest = max(t.newest, i)
	}
	return b
}

// next is where the row that begins at an interval ends: with its width,
// counted from the last mark, or at the next one. open is false beyond the last
// mark, where intervals stay as they are.
func (s *Series) next(i int) (end int, open bool) {
	m, found := slices.BinarySearch(s.marks, i)
	if found {
		m++
	}
	if m == len(s.marks) {
		return i + 1, false
	}
	origin := 0
	if m > 0 {
		origin = s.marks[m-1]
	}
	return min(origin+((i-origin)/s.width+1)*s.width, s.marks[m]), true
}

// close makes rows of the intervals that aren't recent any more.
func (s *Series) close(t *track) {
	if s.recent == 0 {
		return
	}
	for {
		end, open := s.next(t.closed)
		if !open || end > t.newest-s.recent {
			return
		}
		row, latency, service := s.row(t, t.closed, end)
		if n := len(t.stages); n == 0 || slices.Contains(s.marks, t.closed) {
			t.stages = append(t.stages, stage{start: t.closed, latency: NewHistogram(), service: NewHistogram()})
		}
		g := &t.stages[len(t.stages)-1]
		g.end = end
		latency.addTo(g.latency)
		service.addTo(g.service)
		t.rows = append(t.rows, row)
		for i := t.closed; i < end; i++ {
			delete(t.bins, i)
		}
		t.closed = end
		s.thin(t, time.Duration(end)*s.interval)
	}
}

// row puts the intervals of [start, end) together.
func (s *Series) row(t *track, start, end int) (r row, latency, service packed) {
	r = s.count(t, start, end)
	var latencies, services []packed
	for i := start; i < end; i++ {
		if b := t.bins[i]; b != nil {
			latencies, services = append(latencies, b.latency), append(services, b.service)
		}
	}
	latency, service = merge(latencies...), merge(services...)
	r.quantiles = latency.quantiles(0.5, 0.95, 0.99)
	return r, latency, service
}

// count adds up what was counted in the intervals of [start, end).
func (s *Series) count(t *track, start, end int) row {
	r := row{tally: tally{over: make([]int64, len(s.over))}, start: start, end: end}
	for i := start; i < end; i++ {
		r.haveLedger = false // as the last one has it
		if b := t.bins[i]; b != nil {
			r.add(b.counts, b.over)
			r.tally.ledger.add(b.ledger)
			r.haveLedger = b.haveLedger
		}
	}
	return r
}

// thin leaves one sample of the resources of each row that ends before a time.
func (s *Series) thin(t *track, end time.Duration) {
	if s.width == 1 {
		return
	}
	n := t.thinned
	for n < len(t.usage) && t.usage[n].At < end {
		n++
	}
	if n == t.thinned {
		return
	}
	t.usage[t.thinned] = thinned(t.usage[t.thinned:n])
	t.usage = slices.Delete(t.usage, t.thinned+1, n)
	t.thinned++
}

func thinned(samples []Sample) Sample {
	least := samples[0]
	var span time.Duration
	var cpu float64
	var peak, open int64
	for _, s := range samples {
		open = max(open, s.OpenBreakers)
		if s.Resident < least.Resident {
			least = s
		}
		peak = max(peak, s.Peak, s.Resident)
		span += s.Span
		cpu += s.CPU * s.Span.Seconds()
	}
	least.Peak, least.Span, least.OpenBreakers = peak, span, open
	if span > 0 {
		least.CPU = cpu / span.Seconds()
	}
	return least
}
