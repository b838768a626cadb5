package load

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"phasegate/harness/recording"
	"phasegate/harness/scenario"
)

// Length returns how long replaying a recording once takes: at the load's
// rate, whose arrivals may be drawn by the seed, or at the recording's own
// pace times its speed. A rate that falls to 0 before the recording's end never
// gets there; the largest Duration stands for that.
func Length(r *recording.Recording, load scenario.Load, seed uint64) time.Duration {
	if load.Keys.PaceLog {
		return newRecordedPace(r, load.Keys).pass
	}
	p, err := newPacer(load, seed)
	if err != nil {
		return 0
	}
	return p.due(uint64(r.Requests()))
}

// Peak returns the rate of a recording's busiest second when it is replayed at
// its own pace times its speed, in requests per second.
func Peak(r *recording.Recording, k scenario.Keys) float64 {
	p := newRecordedPace(r, k)
	busiest := 0
	for first, last := 0, 0; last < len(p.dues); last++ {
		for p.dues[last]-p.dues[first] >= time.Second {
			first++
		}
		busiest = max(busiest, last-first+1)
	}
	return float64(busiest)
}

// Repeats returns how many of a recording's reads are the first for their
// target, over all arms together and from an empty cache.
func Repeats(r *recording.Recording) Repetition {
	sum := Repetition{}
	seen := newSet(r.Targets())
	for i := range r.Requests() {
		q := r.At(i)
		if (request{method: q.Method}).cacheable() {
			sum.count(seen.add(q.Target))
		}
	}
	return sum
}

// recordedPace is the pacer of a recording's own times, some number of times
// as fast.
type recordedPace struct {
	dues   []time.Duration // of one pass
	pass   time.Duration   // length of one pass
	repeat bool
}

func newRecordedPace(r *recording.Recording, k scenario.Keys) *recordedPace {
	speed := k.Speed
	if speed == 0 {
		speed = 1
	}
	p := &recordedPace{repeat: k.Repeat}
	p.dues, p.pass = r.Times()
	scale := func(d time.Duration) time.Duration { return seconds(d.Seconds() / speed) }
	for i, d := range p.dues {
		p.dues[i] = scale(d)
	}
	p.pass = max(1, scale(p.pass))
	return p
}

func (p *recordedPace) due(i uint64) time.Duration {
	n := uint64(len(p.dues))
	pass := i / n
	if pass > 0 && (!p.repeat || pass > uint64(math.MaxInt64/p.pass)-1) {
		return never
	}
	return time.Duration(pass)*p.pass + p.dues[i%n]
}

// once ends another pacer after n requests, where a recording is replayed
// once.
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

// replay is the source of a recording's requests, over and over.
type replay struct {
	*recording.Recording
	extras []extra
}

func newReplay(r *recording.Recording, vary []string) replay {
	s := replay{Recording: r}
	for _, x := range r.Extras() {
		s.extras = append(s.extras, newExtra(x.Header, x.Body, vary))
	}
	return s
}

func (s replay) at(i uint64) request {
	q := s.At(int(i % uint64(s.Requests())))
	r := request{method: q.Method, target: q.Target}
	if q.Extra >= 0 {
		r.extra = &s.extras[q.Extra]
	}
	return r
}

func (s replay) appendTarget(dst []byte, target uint32) []byte {
	return append(dst, s.Target(target)...)
}

func (s replay) targets() int { return s.Targets() }

func (s replay) popular(n int) []request {
	reads := map[uint32]int{}
	for i := range s.Requests() {
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
