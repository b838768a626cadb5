package load

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
)

// Log is an access log, ready to be replayed.
type Log struct {
	Path      string    // of the file
	Lines     int       // in the file
	Blank     int       // lines without any text
	Malformed int       // lines that can't be replayed
	Problems  []Problem // the first of them

	entries  []entry
	methods  []string
	paths    []string // request targets in the order of their first request
	methodID map[string]uint8
	pathID   map[string]uint32
	outcomes map[outcome]int
}

// Problem is a line that can't be replayed.
type Problem struct {
	Line   int // from 1
	Reason string
}

// String returns "line 17: no [time]".
func (p Problem) String() string { return fmt.Sprintf("line %d: %s", p.Line, p.Reason) }

type entry struct {
	second int64 // since 1970
	path   uint32
	method uint8
}

// outcome is how a path was answered; a log counts how often each was.
type outcome struct {
	path   uint32
	status int16
	size   int64
	head   bool // HEAD: the logged size isn't the resource's
}

func newLog() *Log {
	return &Log{methodID: map[string]uint8{}, pathID: map[string]uint32{}, outcomes: map[outcome]int{}}
}

func (l *Log) add(line logLine) {
	method, ok := l.methodID[line.method]
	if !ok {
		if len(l.methods) > math.MaxUint8 {
			l.reject(fmt.Errorf("method %q is the log's %dth; %d are allowed", line.method, len(l.methods)+1, len(l.methods)))
			return
		}
		method = uint8(len(l.methods))
		l.methodID[line.method] = method
		l.methods = append(l.methods, line.method)
	}
	path, ok := l.pathID[line.target]
	if !ok {
		path = uint32(len(l.paths))
		l.pathID[line.target] = path
		l.paths = append(l.paths, line.target)
	}
	l.entries = append(l.entries, entry{second: line.at.Unix(), path: path, method: method})
	l.outcomes[outcome{path: path, status: int16(line.status), size: line.size, head: line.method == "HEAD"}]++
}

// Requests returns how many requests the log holds.
func (l *Log) Requests() int { return len(l.entries) }

// Targets returns how many distinct request targets they are for.
func (l *Log) Targets() int { return len(l.paths) }

// Repetition returns how many of the log's reads are the first for their
// target, over all arms together and from an empty cache.
func (l *Log) Repetition() Repetition {
	r := Repetition{}
	seen := newSet(len(l.paths))
	s := replay{log: l}
	for i := range l.entries {
		if q := s.at(uint64(i)); q.cacheable() {
			r.count(seen.add(q.target))
		}
	}
	return r
}

// Notices returns what a reader of figures made from this log must know, a
// sentence each: lines left out, and times that run backwards.
func (l *Log) Notices() []string {
	var notices []string
	if l.Malformed > 0 {
		text := fmt.Sprintf("%s: %d of %d lines can't be replayed", l.Path, l.Malformed, l.Lines)
		for i, p := range l.Problems[:min(3, len(l.Problems))] {
			text += [...]string{": ", "; ", "; "}[i] + p.String()
		}
		if more := l.Malformed - 3; more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
		notices = append(notices, text)
	}
	if l.Blank > 0 {
		notices = append(notices, fmt.Sprintf("%s: %d blank lines skipped", l.Path, l.Blank))
	}
	back, most := 0, int64(0)
	latest := l.entries[0].second
	for _, e := range l.entries {
		if e.second < latest {
			back++
			most = max(most, latest-e.second)
		}
		latest = max(latest, e.second)
	}
	if back > 0 {
		notices = append(notices, fmt.Sprintf("%s: %d of %d requests are logged after later ones, by up to %s; the logged order is kept",
			l.Path, back, len(l.entries), time.Duration(most)*time.Second))
	}
	return notices
}

// Catalog returns what the mock upstream must answer for every path of the
// log:
//
//   - the status that the path was answered with most often, if that was 3xx
//     (not 304) or 4xx; anything else, and a draw, stands for 200;
//   - with the size that this status was logged with most often; for 200 with
//     that of a 2xx, and of 206 (a part of the resource) only where there is
//     nothing else. "-" is 0. Of equally frequent sizes it is the larger one.
//     What HEAD was logged with doesn't count.
func (l *Log) Catalog() wire.Catalog {
	type tally struct {
		status map[int]int
		size   map[int]map[int64]int // by served status; 206 for itself
	}
	tallies := make([]tally, len(l.paths))
	for o, n := range l.outcomes {
		t := &tallies[o.path]
		if t.status == nil {
			t.status, t.size = map[int]int{}, map[int]map[int64]int{}
		}
		served := servedStatus(int(o.status))
		t.status[served] += n
		sized := served
		switch s := int(o.status); {
		case s == 206:
			sized = 206
		case served == 200 && s/100 != 2:
			continue // 304 and 5xx say nothing of the resource's size
		}
		if !o.head {
			if t.size[sized] == nil {
				t.size[sized] = map[int64]int{}
			}
			t.size[sized][o.size] += n
		}
	}
	catalog := make(wire.Catalog, len(l.paths))
	for path, t := range tallies {
		status := mostFrequent(t.status, func(a, b int) bool { return a < b })
		sizes := t.size[status]
		if status == 200 && len(sizes) == 0 {
			sizes = t.size[206]
		}
		catalog[l.paths[path]] = wire.Resource{
			Status: status,
			Size:   mostFrequent(sizes, func(a, b int64) bool { return a > b }),
		}
	}
	return catalog
}

// servedStatus is the status that the mock upstream answers with for a logged
// one.
func servedStatus(logged int) int {
	if logged/100 == 4 || logged/100 == 3 && logged != 304 {
		return logged
	}
	return 200
}

// mostFrequent returns the key with the highest count; of several the one
// that is better than the others. Of none it returns 0.
func mostFrequent[K cmp.Ordered](counts map[K]int, better func(a, b K) bool) K {
	var best K
	n := 0
	for k, c := range counts {
		if c > n || c == n && better(k, best) {
			best, n = k, c
		}
	}
	return best
}

// Length returns how long replaying the log once takes: at the load's rate, or
// at the log's own pace times its speed. A rate that falls to 0 before the
// log's end never gets there; the largest Duration stands for that.
func (l *Log) Length(load scenario.Load) time.Duration {
	if load.Keys.PaceLog {
		return newLogPace(l, load.Keys).pass
	}
	r, err := newRates(load.Rate)
	if err != nil {
		return 0
	}
	return r.due(uint64(len(l.entries)))
}

// Peak returns the rate of the log's busiest second when it is replayed at its
// own pace times its speed, in requests per second.
func (l *Log) Peak(k scenario.Keys) float64 {
	p := newLogPace(l, k)
	busiest := 0
	for first, last := 0, 0; last < len(p.dues); last++ {
		for p.dues[last]-p.dues[first] >= time.Second {
			first++
		}
		busiest = max(busiest, last-first+1)
	}
	return float64(busiest)
}

// logPace is the pacer of the log's own times. A log is in the order in which
// answers ended, so its times may run backwards; requests keep the logged
// order, and the k-th of them is due at the k-th earliest of the times. Those
// have a resolution of one second: the requests of one second are spread
// evenly over it. All sent at its start, they would be a burst that nobody had
// sent.
type logPace struct {
	dues   []time.Duration // of one pass
	pass   time.Duration   // length of one pass
	repeat bool
}

func newLogPace(l *Log, k scenario.Keys) *logPace {
	speed := k.Speed
	if speed == 0 {
		speed = 1
	}
	p := &logPace{dues: make([]time.Duration, len(l.entries)), repeat: k.Repeat}
	times := make([]int64, len(l.entries))
	for i, e := range l.entries {
		times[i] = e.second
	}
	slices.Sort(times)
	first, last := times[0], times[len(times)-1]
	for i := 0; i < len(times); {
		j := i + 1
		for j < len(times) && times[j] == times[i] {
			j++
		}
		for n := i; n < j; n++ {
			at := float64(times[i]-first) + float64(n-i)/float64(j-i)
			p.dues[n] = seconds(at / speed)
		}
		i = j
	}
	p.pass = seconds(float64(last-first+1) / speed)
	return p
}

func (p *logPace) due(i uint64) time.Duration {
	n := uint64(len(p.dues))
	pass := i / n
	if pass > 0 && (!p.repeat || pass > uint64(math.MaxInt64/p.pass)-1) {
		return never
	}
	return time.Duration(pass)*p.pass + p.dues[i%n]
}

// once ends another pacer after n requests, where a log is replayed once.
type once struct {
	pacer
	n uint64
}

func (o once) due(i uint64) time.Duration {
	if i >= o.n {
		return never
	}
	return o.pacer.due(i)
}

// replay is the source of a log's requests, over and over.
type replay struct{ log *Log }

func (s replay) at(i uint64) request {
	e := s.log.entries[i%uint64(len(s.log.entries))]
	return request{method: s.log.methods[e.method], target: e.path}
}

func (s replay) appendTarget(dst []byte, target uint32) []byte {
	return append(dst, s.log.paths[target]...)
}

func (s replay) targets() int { return len(s.log.paths) }

func (s replay) popular(n int) []request {
	reads := map[uint32]int{}
	for i := range s.log.entries {
		if r := s.at(uint64(i)); r.cacheable() {
			reads[r.target]++
		}
	}
	order := slices.SortedFunc(maps.Keys(reads), func(a, b uint32) int {
		return cmp.Or(cmp.Compare(reads[b], reads[a]), cmp.Compare(a, b))
	})
	top := make([]request, 0, len(order))
	for _, target := range order[:max(0, min(n, len(order)))] {
		top = append(top, request{method: "GET", target: target})
	}
	return top
}
