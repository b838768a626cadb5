package timeline

import (
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	ms = time.Millisecond
	s  = time.Second
)

func newRecorder(t testing.TB, over ...time.Duration) *Recorder {
	t.Helper()
	r, err := New(Config{Systems: []string{"old", "new"}, Over: over})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNewRejects(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		config Config
		want   []string
	}{
		{Config{}, []string{"no system"}},
		{Config{Interval: -s}, []string{"interval is -1s", "no system"}}, // every fault at once
		{Config{Systems: []string{"new", "new"}}, []string{`"new" is named twice`}},
	} {
		_, err := New(tt.config)
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("New(%+v) = %v, want %q", tt.config, err, want)
			}
		}
	}
}

// A stall belongs to the seconds in which the requests were due, not to the
// one in which they finished.
func TestBinnedByDueTime(t *testing.T) {
	t.Parallel()
	r := newRecorder(t)
	for i := range 30 { // ten a second; the system answers nothing until 2.5 s
		due := time.Duration(i) * 100 * ms
		r.Offer(1, due)
		r.Record(1, Outcome{Due: due, Latency: max(2500*ms-due, ms), Service: ms})
	}
	w := r.Window(1, 0, 3*s)
	var got []time.Duration
	for _, i := range w.Intervals {
		if i.Offered != 10 || i.Requests != 10 {
			t.Errorf("interval at %v has %d offered, %d finished, want 10 of each", i.Start, i.Offered, i.Requests)
		}
		got = append(got, i.MaxLatency)
	}
	if want := []time.Duration{2500 * ms, 1500 * ms, 500 * ms}; !cmp.Equal(got, want) {
		t.Errorf("longest latency per second %v, want %v", got, want)
	}
	if n := r.Window(0, 0, 3*s).Requests; n != 0 {
		t.Errorf("the other system has %d requests", n)
	}
}

func TestOverIsExact(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, 10*ms+1, 10*ms, 50*ms, 10*ms) // out of order, one twice
	for _, latency := range []time.Duration{10*ms - 1, 10 * ms, 10*ms + 1, 49 * ms, 50 * ms, time.Hour} {
		r.Record(0, Outcome{Due: 2 * s, Latency: latency})
	}
	w := r.Window(0, 0, 5*s)
	// A nanosecond is below the histogram's resolution and decides a gate.
	if want := map[time.Duration]int64{10 * ms: 5, 10*ms + 1: 4, 50 * ms: 2}; !cmp.Equal(w.Over, want) {
		t.Errorf("Over = %v, want %v", w.Over, want)
	}
	if want := []time.Duration{10 * ms, 10*ms + 1, 50 * ms}; !cmp.Equal(w.Limits, want) {
		t.Errorf("Limits = %v, want %v", w.Limits, want)
	}
	for i, interval := range w.Intervals {
		want := []int64{0, 0, 0}
		if i == 2 {
			want = []int64{5, 4, 2}
		}
		if !cmp.Equal(interval.Over, want) {
			t.Errorf("interval %d: Over = %v, want %v", i, interval.Over, want)
		}
	}
	if w.Beyond != 1 || w.MaxLatency != time.Hour {
		t.Errorf("%d beyond the histogram, longest %v, want 1 and 1h", w.Beyond, w.MaxLatency)
	}
	if top := w.Latency.Max(); w.Latency.TotalCount() != 6 || top < Longest.Microseconds() {
		t.Errorf("histogram has %d values up to %d µs: what is beyond must be counted at its end", w.Latency.TotalCount(), top)
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	r := newRecorder(t)
	for _, o := range []Outcome{
		{Latency: 464 * ms, Service: 463 * ms, Cacheable: true, Proven: true, Blocking: true, Claim: ClaimMiss},
		{Latency: 2 * ms, Service: ms, Cacheable: true, Proven: true, Claim: ClaimHit, Stale: true},
		{Latency: 3 * ms, Service: ms, Cacheable: true, Proven: true, Claim: ClaimHit, Class: Wrong},
		{Latency: 400 * ms, Service: 400 * ms, Proven: true, Blocking: true}, // a write
		{Latency: 5 * s, Class: Timeout, Cacheable: true},                    // never sent: no service time
		{Latency: ms, Class: Transport, Cacheable: true},
		{Latency: ms, Class: ServerError, Cacheable: true},
		{Latency: ms, Class: Status, Cacheable: true},
		{Latency: ms, Class: Unproven, Cacheable: true},
	} {
		r.Offer(0, 0)
		r.Record(0, o)
	}
	r.Offer(0, 500*ms)
	w := r.Window(0, 0, s)
	got := map[string]int64{
		"offered": w.Offered, "requests": w.Requests, "pending": w.Pending(), "good": w.Good(), "errors": w.Errors(), "usable": w.Usable(),
		"cacheable": w.Cacheable, "proven": w.Proven, "cacheable proven": w.CacheableProven, "blocking": w.Blocking, "cacheable blocking": w.CacheableBlocking,
		"stale": w.Stale, "hits claimed": w.ClaimHit, "misses claimed": w.ClaimMiss, "wrong": w.Class[Wrong],
		"latencies": w.Latency.TotalCount(), "services": w.Service.TotalCount(),
	}
	want := map[string]int64{
		"offered": 10, "requests": 9, "pending": 1, "good": 3, "errors": 6, "usable": 6,
		"cacheable": 8, "proven": 4, "cacheable proven": 3, "blocking": 2, "cacheable blocking": 1,
		"stale": 1, "hits claimed": 2, "misses claimed": 1, "wrong": 1,
		"latencies": 9, "services": 4,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("counts (-want +got):\n%s", d)
	}
	if d := w.LatencySum - 5.873; d > 1e-9 || d < -1e-9 {
		t.Errorf("latencies add up to %g s, want 5.873", w.LatencySum)
	}
	if d := w.BlockingSum - 0.864; d > 1e-9 || d < -1e-9 {
		t.Errorf("blocking latencies add up to %g s, want 0.864", w.BlockingSum)
	}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	r := newRecorder(t)
	if w := r.Window(0, 0, 3*s); w.HaveLedger {
		t.Error("a ledger that nobody read is there")
	}
	// Prewarming left 4,000 reads in the ledger; they are the zero line.
	r.Ledger(0, 20*ms, LedgerCounts{Requests: 4000, Reads: 4000})
	if w := r.Window(0, 0, 3*s); w.HaveLedger {
		t.Error("one total makes no rise")
	}
	r.Ledger(0, 1010*ms, LedgerCounts{Requests: 4005, Reads: 4004, Connections: 3, Reused: 2})
	r.Ledger(0, 1990*ms, LedgerCounts{Requests: 4007, Reads: 4006, Connections: 3, Reused: 4, Conditional: 2, NotModified: 1})
	// The upstream restarted: what it counts now is new.
	r.Ledger(0, 3000*ms, LedgerCounts{Requests: 9, Reads: 8, HTTP2: 4, H2C: 1, Handshakes: 3, Resumed: 2, HandshakeFailures: 1, GoAways: 2})
	w := r.Window(0, 0, 4*s)
	want := []LedgerCounts{
		{Requests: 5, Reads: 4, Connections: 3, Reused: 2},
		{Requests: 2, Reads: 2, Reused: 2, Conditional: 2, NotModified: 1},
		{Requests: 9, Reads: 8, HTTP2: 4, H2C: 1, Handshakes: 3, Resumed: 2, HandshakeFailures: 1, GoAways: 2},
		{},
	}
	for i, interval := range w.Intervals {
		if d := cmp.Diff(want[i], interval.Ledger); d != "" || interval.HaveLedger != (i < 3) {
			t.Errorf("interval %d (have %t) (-want +got):\n%s", i, interval.HaveLedger, d)
		}
	}
	sum := LedgerCounts{Requests: 16, Reads: 14, Conditional: 2, NotModified: 1, HTTP2: 4, H2C: 1, Reused: 4, Connections: 3, Handshakes: 3, Resumed: 2, HandshakeFailures: 1, GoAways: 2}
	if d := cmp.Diff(sum, w.Ledger); d != "" || !w.HaveLedger {
		t.Errorf("window (have %t) (-want +got):\n%s", w.HaveLedger, d)
	}
}

// What the upstream saw is compared with what was sent meanwhile: a queue that
// grows must not look like hits.
func TestCacheableCountsWhereItWasSent(t *testing.T) {
	t.Parallel()
	r := newRecorder(t)
	r.Record(0, Outcome{Due: 900 * ms, Wait: 300 * ms, Cacheable: true, Proven: true, Blocking: true})
	w := r.Window(0, 0, 2*s)
	due, sent := w.Intervals[0], w.Intervals[1]
	if due.Requests != 1 || due.Blocking != 1 || due.Cacheable != 0 || due.CacheableBlocking != 0 {
		t.Errorf("where it fell due: %+v", due.Counts)
	}
	if sent.Requests != 0 || sent.Cacheable != 1 || sent.CacheableProven != 1 || sent.CacheableBlocking != 1 {
		t.Errorf("where it was sent: %+v", sent.Counts)
	}
}

// A queue that is worked off after the schedule's end is no throughput within it.
func TestGoodCountsWhereItEnded(t *testing.T) {
	t.Parallel()
	r := newRecorder(t)
	r.Record(0, Outcome{Due: 900 * ms, Latency: 300 * ms})
	r.Record(0, Outcome{Due: 900 * ms, Latency: 300 * ms, Class: Status})
	w := r.Window(0, 0, 2*s)
	if due, ended := w.Intervals[0].Counts, w.Intervals[1].Counts; due.Good() != 1 || due.GoodEnded != 0 || ended.GoodEnded != 1 {
		t.Errorf("due: %d good, %d ended; ended: %d", due.Good(), due.GoodEnded, ended.GoodEnded)
	}
}

// Readings that come late, and later at the end of a window than at its begin,
// take nothing from it and add nothing to it.
func TestLedgerReadLate(t *testing.T) {
	t.Parallel()
	r := newRecorder(t)
	at := func(at time.Duration) { // 100 reads a second
		r.Ledger(0, at, LedgerCounts{Requests: int64(at / (10 * ms)), Reads: int64(at / (10 * ms))})
	}
	for _, reading := range []time.Duration{0, 1010 * ms, 2150 * ms, 4300 * ms} {
		at(reading)
	}
	w := r.Window(0, 1*s, 4*s)
	for _, interval := range w.Intervals {
		if interval.Ledger.Reads != 100 || !interval.HaveLedger {
			t.Errorf("%v: %d reads, covered %t", interval.Start, interval.Ledger.Reads, interval.HaveLedger)
		}
	}
}

func TestLedgered(t *testing.T) {
	t.Parallel()
	r := newRecorder(t)
	for i := range 60 { // ten a second, of which one reaches the upstream
		r.Record(0, Outcome{Due: time.Duration(i) * 100 * ms, Cacheable: true})
	}
	if w := r.Window(0, 0, 6*s); w.Ledgered().HaveLedger {
		t.Error("a ledger that nobody read covers something")
	}
	for second := 1; second <= 5; second++ { // read from second 1 on, and not at the end of the last
		r.Ledger(0, time.Duration(second)*s, LedgerCounts{Requests: int64(second), Reads: int64(second)})
	}
	w := r.Window(0, 0, 6*s)
	part := w.Ledgered()
	if part.From != s || part.To != 5*s || part.Seconds != 4 || part.Cacheable != 40 || part.Ledger.Reads != 4 || len(part.Intervals) != 4 || !part.HaveLedger {
		t.Errorf("covered: %v to %v, %d requests, %d reads", part.From, part.To, part.Cacheable, part.Ledger.Reads)
	}
	if w.Cacheable != 60 || w.Ledger.Reads != 4 {
		t.Errorf("the window itself changed: %d requests, %d reads", w.Cacheable, w.Ledger.Reads)
	}
}

func TestResources(t *testing.T) {
	t.Parallel()
	r := newRecorder(t)
	r.Resources(0, s, Usage{Resident: 60, Peak: 70, CPU: 0.1})
	r.Resources(0, 1500*ms, Usage{Resident: 50, Peak: 70, CPU: 0.4})
	r.Resources(0, 1900*ms, Usage{Resident: 65, Peak: 71, CPU: 0.1})
	r.Resources(0, 4*s, Usage{Resident: 1, Peak: 71, CPU: 0.9})
	want := []Sample{
		{At: s, Span: s, Usage: Usage{Resident: 60, Peak: 70, CPU: 0.1}},
		{At: 1500 * ms, Span: 500 * ms, Usage: Usage{Resident: 50, Peak: 70, CPU: 0.4}},
		{At: 1900 * ms, Span: 400 * ms, Usage: Usage{Resident: 65, Peak: 71, CPU: 0.1}},
	}
	if d := cmp.Diff(want, r.Window(0, s, 4*s).Resources); d != "" {
		t.Errorf("resources (-want +got):\n%s", d)
	}
	got := r.Intervals(0, 0, 3*s)
	if got[0].Memory != nil || got[0].CPU != nil || got[2].Memory != nil {
		t.Error("seconds without a sample have memory or CPU")
	}
	// CPU is a mean over time: 1 s × 0.1, 0.5 s × 0.4, 0.4 s × 0.1.
	if m, c := got[1].Memory, got[1].CPU; m == nil || *m != 65 || c == nil || *c < 0.178 || *c > 0.179 {
		t.Errorf("second 1: memory %v, CPU %v, want 65 and 0.1789", m, c)
	}
}

// Intervals in rows count what single ones count, latecomers included, and have
// their quantiles; the histograms between marks are the same.
func TestRowsLoseNothing(t *testing.T) {
	t.Parallel()
	const seed = 4
	rng := rand.New(rand.NewPCG(seed, 0))
	plain := newRecorder(t, 20*ms)
	rows, err := New(Config{Systems: []string{"old", "new"}, Over: []time.Duration{20 * ms}, Marks: []time.Duration{10 * s, 60 * s, 3 * 3600 * s}, Recent: 5 * s})
	if err != nil {
		t.Fatal(err)
	}
	record := func(due time.Duration) {
		o := Outcome{Due: due, Latency: time.Duration(rng.ExpFloat64() * float64(20*ms)), Service: ms, Cacheable: true, Proven: true}
		rows.Record(0, o)
		plain.Record(0, o)
	}
	for second := range 100 {
		for range 50 {
			record(time.Duration(second)*s + time.Duration(rng.IntN(1000))*ms)
		}
		for _, r := range []*Recorder{rows, plain} {
			r.Ledger(0, time.Duration(second)*s+3*ms, LedgerCounts{Reads: int64(second * second), Requests: int64(second * second)})
			r.Resources(0, time.Duration(second)*s, Usage{Resident: int64(1000 - second), Peak: 2000, CPU: 0.25})
			r.Window(0, 0, s)
		}
	}
	for range 20 {
		record(33 * s) // finished after its second was put into a row
	}
	for _, at := range [][2]time.Duration{{0, 10 * s}, {10 * s, 60 * s}, {0, 60 * s}, {10 * s, 100 * s}, {97 * s, 99 * s}} {
		a, b := rows.Window(0, at[0], at[1]), plain.Window(0, at[0], at[1])
		if d := cmp.Diff(b.Counts, a.Counts, cmpopts.EquateApprox(1e-9, 0)); d != "" || !a.Latency.Equals(b.Latency) || !a.Service.Equals(b.Service) {
			t.Errorf("seed %d: window %v: %d and %d values (-plain +rows):\n%s", seed, at, a.Latency.TotalCount(), b.Latency.TotalCount(), d)
		}
		c, all := rows.Series().Counted(0, at[0], at[1]), a
		if all.Latency, all.Service, all.Resources = nil, nil, nil; !cmp.Equal(c, all) {
			t.Errorf("seed %d: window %v, counted alone (-window +counted):\n%s", seed, at, cmp.Diff(all, c))
		}
		if a.From != b.From || a.To != b.To || a.Ledger != b.Ledger || a.Over[20*ms] != b.Over[20*ms] || a.HaveLedger != b.HaveLedger {
			t.Errorf("seed %d: window %v: %v to %v, ledger %v, over %v; want %v to %v, %v, %v", seed, at, a.From, a.To, a.Ledger, a.Over, b.From, b.To, b.Ledger, b.Over)
		}
	}
	// 3 h in 3,600 rows are 5 s each, counted from the marks; the last is cut off.
	w := rows.Window(0, 10*s, 98*s)
	if len(w.Intervals) != 18 || w.Intervals[1].Start != 15*s || w.Intervals[17].Start != 95*s || w.Intervals[17].End != 98*s {
		t.Errorf("seed %d: %d intervals, the last from %v to %v", seed, len(w.Intervals), w.Intervals[len(w.Intervals)-1].Start, w.Intervals[len(w.Intervals)-1].End)
	}
	if u := w.Resources[0]; u.Resident != 986 || u.Span != 5*s || u.CPU != 0.25 || len(w.Resources) > 30 {
		t.Errorf("seed %d: the first of %d samples is %+v", seed, len(w.Resources), u)
	}
	for i, sum := range rows.Intervals(0, 40*s, 60*s) {
		h := plain.Window(0, sum.Start, sum.End).Latency
		for _, q := range []struct {
			q   float64
			got time.Duration
		}{{0.5, *sum.P50}, {0.95, *sum.P95}, {0.99, *sum.P99}} {
			if want, _ := Quantile(h, q.q); q.got != want {
				t.Errorf("seed %d: row %d: quantile %g = %v, the histogram says %v", seed, i, q.q, q.got, want)
			}
		}
	}
	// Inside of a stage that isn't recent its histogram can't be had: the window
	// says that it is shorter.
	if w := rows.Window(0, 20*s, 60*s); w.Seconds != 0 || w.Requests != 0 || w.Latency.TotalCount() != 0 {
		t.Errorf("a window from the middle of a stage covers %v to %v, %d requests", w.From, w.To, w.Requests)
	}
	if w := rows.Window(0, 10*s, 40*s); w.Seconds != 0 || w.Requests != 0 || w.Latency.TotalCount() != 0 {
		t.Errorf("a window into the middle of a stage covers %v to %v, %d requests", w.From, w.To, w.Requests)
	}
}

func TestWindowEdges(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, ms)
	r.Record(0, Outcome{Due: -s, Latency: ms}) // before the start: in the first interval
	r.Record(0, Outcome{Due: 5 * s, Latency: ms})
	for _, tt := range []struct {
		from, to         time.Duration
		intervals        int
		requests         int64
		wantFrom, wantTo time.Duration
	}{
		{0, s, 1, 1, 0, s},
		{-10 * s, s, 1, 1, 0, s},   // a trigger's window reaching back before the start
		{s, 5 * s, 4, 0, s, 5 * s}, // due at its end: not in it; the empty ones are
		{s, 6 * s, 5, 1, s, 6 * s},
		{0, 8 * s, 8, 2, 0, 8 * s},                // seconds without requests count for rates
		{500 * ms, 5500 * ms, 5, 1, s, 5500 * ms}, // those that begin in it, the last one cut off
		{4 * s, 4 * s, 0, 0, 4 * s, 4 * s},
		{4 * s, 2 * s, 0, 0, 4 * s, 4 * s},
	} {
		w := r.Window(0, tt.from, tt.to)
		if len(w.Intervals) != tt.intervals || w.Requests != tt.requests || w.From != tt.wantFrom || w.To != tt.wantTo || w.Seconds != (tt.wantTo-tt.wantFrom).Seconds() {
			t.Errorf("Window(%v, %v): %d intervals, %d requests, %v to %v, %g s", tt.from, tt.to, len(w.Intervals), w.Requests, w.From, w.To, w.Seconds)
		}
		if n := len(r.Intervals(0, tt.from, tt.to)); n != tt.intervals {
			t.Errorf("Intervals(%v, %v): %d", tt.from, tt.to, n)
		}
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, 5*ms)
	var wg sync.WaitGroup
	const senders, each = 16, 500
	for g := range senders {
		wg.Go(func() {
			for i := range each {
				due := time.Duration(i) * 60 * ms // 30 s: early ones are packed meanwhile
				r.Offer(g%2, due)
				r.Record(g%2, Outcome{Due: due, Latency: time.Duration(i%10) * ms, Service: ms})
			}
		})
	}
	wg.Go(func() {
		for i := range 20 {
			r.Resources(0, time.Duration(i)*s, Usage{})
			r.Ledger(1, time.Duration(i)*s, LedgerCounts{Requests: int64(i)})
			if w := r.Window(i%2, 0, 30*s); w.Latency.TotalCount() != w.Requests {
				t.Errorf("a window of %d requests has %d latencies", w.Requests, w.Latency.TotalCount())
			}
		}
	})
	wg.Wait()
	for system := range 2 {
		w := r.Window(system, 0, 30*s)
		if want := int64(senders / 2 * each); w.Offered != want || w.Requests != want || w.Latency.TotalCount() != want || w.Over[5*ms] != want/2 {
			t.Errorf("system %d: %d offered, %d finished, %d latencies, %d over 5 ms, want %d and half of it", system, w.Offered, w.Requests, w.Latency.TotalCount(), w.Over[5*ms], want)
		}
	}
}

// A day at 1,000 requests a second and a look a second: 2 × 2,880 rows of 30 s
// at 0.5 kB, histograms of two stages and of the recent past, and the samples of
// the resources of as many rows. 8 MiB hold it, and a second of requests as
// they came (both arms: 8 kB). A request in a hundred stands for all: what is
// bounded isn't their number.
func TestMemoryOfADayIsBounded(t *testing.T) {
	const day, rate = 24 * 3600, 1000 / 100
	rng := rand.New(rand.NewPCG(1, 1))
	before := heap()
	r, err := New(Config{
		Systems: []string{"old", "new", "silent"}, Over: []time.Duration{ms, 10 * ms, 50 * ms},
		Marks: []time.Duration{600 * s, (600 + day) * s}, Recent: 75 * s, Journal: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var most uint64
	latencies := make([]time.Duration, 4096) // drawing them would be most of the test
	for i := range latencies {
		latencies[i] = time.Duration(rng.ExpFloat64() * float64(20*ms))
	}
	drawn := 0
	for second := range 600 + day {
		for i := range rate {
			due := time.Duration(second)*s + time.Duration(i)*s/rate
			r.Offer(i%2, due)
			r.Record(i%2, Outcome{Due: due, Latency: latencies[drawn%len(latencies)], Service: ms, Cacheable: true})
			drawn++
		}
		for system := range 3 { // of which the last gets no request
			r.Resources(system, time.Duration(second+1)*s, Usage{Resident: 1})
			r.Ledger(system, time.Duration(second+1)*s, LedgerCounts{Reads: int64(second)})
		}
		r.Take()
		if second%20000 == 0 {
			most = max(most, heap())
		}
	}
	most = max(most, heap())
	if used, budget := int64(most)-int64(before), int64(8<<20); used > budget {
		t.Errorf("a day takes %d bytes, want at most %d", used, budget)
	}
	w := r.Window(1, 600*s, (600+day)*s)
	if want := int64(day * rate / 2); w.Requests != want || w.Latency.TotalCount() != want || len(w.Intervals) != day/30 || len(r.Intervals(1, 0, (600+day)*s)) != (600+day)/30 {
		t.Errorf("%d requests, %d latencies, %d rows", w.Requests, w.Latency.TotalCount(), len(w.Intervals))
	}
	runtime.KeepAlive(r)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkRecord(b *testing.B) {
	r := newRecorder(b, ms, 10*ms, 50*ms, 100*ms)
	o := Outcome{Latency: 3 * ms, Service: 2 * ms, Cacheable: true, Proven: true}
	b.SetParallelism(500) // 1,000 goroutines on two processors
	b.RunParallel(func(pb *testing.PB) {
		o := o
		for pb.Next() {
			o.Due += 25 * time.Microsecond
			r.Offer(0, o.Due)
			r.Record(0, o)
		}
	})
}

// BenchmarkLog is what a look costs the load generator's process: both
// histograms of a second of one system.
func BenchmarkLog(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	raw := make([]uint32, 1000)
	for i := range raw {
		raw[i] = uint32(rng.ExpFloat64() * 20000)
	}
	p := &Part{latency: pack(raw), service: pack(raw)}
	var size counter
	log, err := NewLogWriter(&size, time.Unix(1, 0), s, "benchmark")
	if err != nil {
		b.Fatal(err)
	}
	size = 0
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Log(log, log); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(size)/float64(b.N), "bytes/part")
}

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// A breaker that was open between two samples without is still seen once a row holds
// them.
func TestThinnedKeepsTheOpenBreakers(t *testing.T) {
	t.Parallel()
	got := thinned([]Sample{
		{Span: s, Usage: Usage{Resident: 5, Breakers: 2}}, {Span: s, Usage: Usage{Resident: 9, Breakers: 2, OpenBreakers: 1}}, {Span: s, Usage: Usage{Resident: 7, Breakers: 2}},
	})
	if got.OpenBreakers != 1 || got.Breakers != 2 || got.Resident != 5 {
		t.Errorf("%+v", got)
	}
}
