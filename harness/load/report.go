package load

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"phasegate/harness/timeline"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what a run of the schedule did.
type Report struct {
	Started     time.Time     // when the schedule began: due time 0
	Elapsed     time.Duration // until the last request had ended
	Interrupted bool          // cancelled before the schedule's end

	Offered    uint64 // requests that were due
	Sent       uint64 // of them, those that were written to a connection
	Completed  uint64 // of them, those with a complete response, whatever it was
	Unfinished uint64 // cut off by the interruption; they are no outcome

	Lag       Lag // of the whole schedule
	SteadyLag Lag // of what was due after the warm-up

	// Lags and SteadyLags are what Lag and SteadyLag are read from, in
	// microseconds; nil if the schedule wasn't begun.
	Lags, SteadyLags *hdrhistogram.Histogram `json:"-"`

	Arms []ArmReport // in the order of Config.Arms
}

// Lag is how late the generator itself was: from the due time to the send, of
// requests for which a connection was free (to one still to be opened: to the
// beginning of that).
type Lag struct {
	Requests      uint64
	P50, P99, Max time.Duration
}

// ArmReport is one arm's part of a Report.
type ArmReport struct {
	Name                     string
	Offered, Sent, Completed uint64
	Queued                   uint64 // found every connection busy when due
	Expired                  uint64 // of them, those whose timeout passed before one was free: never sent
	Unopened                 uint64 // never sent, since a connection for them couldn't be opened, by an error and not by the timeout
	Limit                    int    // of connections
	Connections              uint64 // opened during the run
	Retried                  uint64 // sent again since a reused connection had ended silently, or, over HTTP/2, since the server said that it hadn't touched them
	Proven                   uint64 // complete answers with a readable self-description
	Unproven                 uint64 // and those without, or not looked at
	Earlier                  uint64 // answers made before the run began: the cache was warm from something else
	Methods                  map[string]uint64
	Protocols                []Spoken // what was spoken, which need not be what was asked for

	All    Repetition // of the whole schedule
	Steady Repetition // of what was due after the warm-up

	Prewarmed     int // targets asked for by Prewarm
	PrewarmFailed int // of them without a usable answer
	// PrewarmFailures has one entry for every reason of these, the most frequent
	// first.
	PrewarmFailures []PrewarmFailure

	// Failures has one entry for every kind of failure that occurred: the
	// classes in their order, then "stale".
	Failures []Failure
}

// PrewarmFailure counts targets that got no usable answer for one reason.
type PrewarmFailure struct {
	Kind   string // as timeline.Class names it
	Status int    // of the answers, where that was the fault; else 0
	Count  int
}

// Spoken is what was done over one protocol, as it was on the wire.
type Spoken struct {
	Protocol    string // "http/1.0", "http/1.1", "h2" or "h2c"
	Requests    uint64 // with a complete response
	Connections uint64 // opened; those of a server that answers with HTTP/1.0 count as http/1.1
}

// wireProtocol is a protocol as it was on the wire.
type wireProtocol uint8

const (
	wireHTTP10 wireProtocol = iota
	wireHTTP11
	wireH2
	wireH2C
	wireProtocols
)

// wireNames are those that the mock upstream's ledger uses.
var wireNames = [wireProtocols]string{"http/1.0", "http/1.1", "h2", "h2c"}

// connected counts a connection that was opened.
func (s *side) connected(p wireProtocol) {
	s.arm.dialled[p].Add(1)
	s.sink.Connection(s.arm.index, time.Since(s.base))
}

// Failure counts one kind of failure and tells of the first few.
type Failure struct {
	Kind     string // as timeline.Class names it, or "stale"
	Count    uint64
	Examples []string // sentences
}

// Repetition counts how often reads were the first for their target on an arm,
// a prewarmed one counting as known. What is first can't be in a cache.
type Repetition struct {
	Cacheable uint64 // GET and HEAD requests
	First     uint64 // of them, the first for their target
}

// MaxHitRatio is the highest hit ratio that a cache can reach which held
// nothing but what was prewarmed; 0 without any request.
func (r Repetition) MaxHitRatio() float64 {
	if r.Cacheable == 0 {
		return 0
	}
	return 1 - float64(r.First)/float64(r.Cacheable)
}

// String says so in a sentence.
func (r Repetition) String() string {
	return fmt.Sprintf("a cold cache can hit at most %.1f %% of these requests: %d of %d were the first for their target",
		100*r.MaxHitRatio(), r.First, r.Cacheable)
}

func (r *Repetition) count(first bool) {
	r.Cacheable++
	if first {
		r.First++
	}
}

// set is a set of small numbers.
type set []uint64

func newSet(n int) set { return make(set, (n+63)/64) }

// add reports whether v wasn't in the set before.
func (s set) add(v uint32) bool {
	bit := uint64(1) << (v % 64)
	known := s[v/64]&bit != 0
	s[v/64] |= bit
	return !known
}

// keepExamples is how many failures of a kind are told of.
const (
	keepExamples = 3
	maxExample   = 300 // bytes
	staleKind    = timeline.Classes
)

// arm is an Arm at work.
type arm struct {
	Arm
	index  int    // in Config.Arms
	from   string // what the mock upstream's answers to this arm are marked with
	verify bool   // answers against their self-description; only changed between stages
	armSide
	armTally
	written versions
	dialled [wireProtocols]atomic.Uint64
	seen    set
}

// dispatched is counted by the dispatcher alone.
type dispatched struct {
	offered, queued uint64
	all, steady     Repetition
	methods         methodCounts
}

// methodCounts are requests by method: there are so few that looking at each is
// faster than a map.
type methodCounts []methodCount

type methodCount struct {
	name string
	n    uint64
}

// byName is what a report says of them.
func (m methodCounts) byName() map[string]uint64 {
	named := make(map[string]uint64, len(m))
	for _, c := range m {
		named[c.name] = c.n
	}
	return named
}

// armTally is counted where requests end.
type armTally struct {
	dispatched

	prewarmed       int
	prewarmFailures []PrewarmFailure

	mu                                                  sync.Mutex
	sent, completed, retried, proven, unproven, earlier uint64
	expired, unopened                                   uint64
	answers                                             [wireProtocols]uint64
	failures                                            [timeline.Classes + 1]Failure
}

func (a *arm) tally(name string, j job, x *exchange, target func() []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x.sent {
		a.sent++
	} else if errors.Is(x.why, errExpired) {
		a.expired++
	} else if x.Class == timeline.Transport {
		a.unopened++
	}
	if x.retried {
		a.retried++
	}
	if x.complete {
		a.completed++
		a.answers[x.protocol]++
		if x.earlier {
			a.earlier++
		}
		if x.Proven {
			a.proven++
		} else {
			a.unproven++
		}
	}
	if x.Class != timeline.OK {
		a.fail(int(x.Class), name, j, x, target)
	}
	if x.Stale {
		a.fail(staleKind, name, j, x, target)
	}
}

func (a *arm) fail(kind int, name string, j job, x *exchange, target func() []byte) {
	f := &a.failures[kind]
	f.Count++
	if len(f.Examples) < keepExamples {
		f.Examples = append(f.Examples, sentence(name, j, x.why, target()))
	}
}

// failPrewarm counts a target that got no usable answer.
func (a *arm) failPrewarm(x *exchange) {
	why := PrewarmFailure{Kind: x.Class.String()}
	if x.Class == timeline.ServerError || x.Class == timeline.Status {
		why.Status = x.status
	}
	i := slices.IndexFunc(a.prewarmFailures, func(f PrewarmFailure) bool { return f.Kind == why.Kind && f.Status == why.Status })
	if i < 0 {
		i = len(a.prewarmFailures)
		a.prewarmFailures = append(a.prewarmFailures, why)
	}
	a.prewarmFailures[i].Count++
}

// sentence is how one failure is told of.
func sentence(arm string, j job, why error, target []byte) string {
	return cut(fmt.Sprintf("%s: %s %.120s, due at %s: %v", arm, j.method, target, j.due.Round(time.Millisecond), why))
}

func cut(text string) string {
	if len(text) > maxExample {
		return text[:maxExample] + "…"
	}
	return text
}

func (a *arm) report() ArmReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := ArmReport{
		Name: a.Name, Offered: a.offered, Sent: a.sent, Completed: a.completed,
		Queued: a.queued, Expired: a.expired, Unopened: a.unopened, Limit: a.Connections, Retried: a.retried,
		Proven: a.proven, Unproven: a.unproven, Earlier: a.earlier, Methods: a.methods.byName(),
		All: a.all, Steady: a.steady,
		Prewarmed: a.prewarmed, PrewarmFailures: slices.Clone(a.prewarmFailures),
	}
	for _, f := range a.prewarmFailures {
		r.PrewarmFailed += f.Count
	}
	slices.SortFunc(r.PrewarmFailures, func(f, g PrewarmFailure) int {
		return cmp.Or(cmp.Compare(g.Count, f.Count), cmp.Compare(f.Kind, g.Kind), cmp.Compare(f.Status, g.Status))
	})
	for p := range wireProtocols {
		spoken := Spoken{Protocol: wireNames[p], Requests: a.answers[p], Connections: a.dialled[p].Load()}
		if r.Connections += spoken.Connections; spoken.Requests+spoken.Connections > 0 {
			r.Protocols = append(r.Protocols, spoken)
		}
	}
	for kind, f := range a.failures {
		if f.Count == 0 {
			continue
		}
		f.Kind = "stale"
		if kind != staleKind {
			f.Kind = timeline.Class(kind).String()
		}
		f.Examples = slices.Clone(f.Examples)
		r.Failures = append(r.Failures, f)
	}
	return r
}

// versions remembers the version that each write of ours made.
type versions struct {
	any atomic.Bool
	mu  sync.RWMutex
	of  map[string]uint64
}

// version returns 0 for a target that was never written.
func (v *versions) version(target []byte) uint64 {
	if !v.any.Load() {
		return 0
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.of[string(target)]
}

func (v *versions) raise(target []byte, version uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.of == nil {
		v.of = map[string]uint64{}
	}
	v.of[string(target)] = max(v.of[string(target)], version)
	v.any.Store(true)
}

// lagClock gathers the lag of sends, in microseconds.
type lagClock struct {
	mu          sync.Mutex // HTTP/2 streams have senders of their own
	all, steady *hdrhistogram.Histogram
}

func newLagClock() *lagClock {
	histogram := func() *hdrhistogram.Histogram { return hdrhistogram.New(1, time.Minute.Microseconds(), 3) }
	return &lagClock{all: histogram(), steady: histogram()}
}

func (l *lagClock) record(lag time.Duration, steady bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := min(max(lag.Microseconds(), 0), time.Minute.Microseconds())
	_ = l.all.RecordValue(v) // within range by construction
	if steady {
		_ = l.steady.RecordValue(v)
	}
}

// SteadyLag is [Report.SteadyLag] so far: it may be asked while the schedule runs.
func (g *Generator) SteadyLag() Lag {
	g.lag.mu.Lock()
	defer g.lag.mu.Unlock()
	return LagOf(g.lag.steady)
}

// LagOf reads a Lag from a histogram of microseconds.
func LagOf(h *hdrhistogram.Histogram) Lag {
	us := func(v int64) time.Duration { return time.Duration(v) * time.Microsecond }
	return Lag{
		Requests: uint64(h.TotalCount()),
		P50:      us(h.ValueAtQuantile(50)), P99: us(h.ValueAtQuantile(99)), Max: us(h.Max()),
	}
}
