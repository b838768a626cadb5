package optimizer

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"phasegate/optimizer/arena"
)

// store is the cache with the fetches that are under way for it. Both stand under
// one lock per stripe of keys for everything but lookups, so that an invalidation and
// the arrival of a response fetched before it have an order: a fetch that began before
// an invalidation can't store after it.
type store struct {
	cache   *arena.Arena
	seed    maphash.Seed
	stripes [128]stripe
	ids     atomic.Uint64
}

type stripe struct {
	mu     sync.Mutex
	groups map[string]*group // by primary key, while fetches are under way
	count  uint64            // of purges since the start
	purges []purge           // those that a fetch under way may fall under
	under  map[uint64]int    // fetches under way, by the count at their begin
}

// group is the fetches under way for one primary key.
type group struct {
	epoch   uint64 // raised by every invalidation
	members int
	flights []*flight // those that others may wait for
}

// flight is a fetch that others may wait for. Its results are set before done is
// closed and never change afterwards. Its object is held until the last of those who
// began and joined it leaves.
type flight struct {
	refs    atomic.Int32
	variant string
	done    chan struct{}
	object  *object  // the response, if others may have it
	fields  []string // what it varies by
	values  []byte   // and the leader's values of that
	failed  bool     // the upstream gave no usable answer
	silent  bool     // or none at all
	unsent  error    // and wasn't asked, nor can be for those who waited
	since   uint64   // the stripe's count of purges at its begin
}

// leave gives up a part in the flight: the leader's with release, a follower's when he
// has used or renounced what it brought.
func (f *flight) leave() {
	if f.refs.Add(-1) == 0 {
		f.object.release()
	}
}

// ticket is the right to store what a fetch brings, unless its key is invalidated
// meanwhile.
type ticket struct {
	stripe *stripe
	key    string
	group  *group
	epoch  uint64
	since  uint64  // the stripe's count of purges at its begin
	base   *object // what the response was made from, if it was: a stored one
	flight *flight // nil if nobody may wait for this fetch
}

func newStore(cfg arena.Config) (*store, error) {
	cache, err := arena.New(cfg)
	if err != nil {
		return nil, err
	}
	s := &store{cache: cache, seed: maphash.MakeSeed()}
	for i := range s.stripes {
		s.stripes[i].groups = make(map[string]*group)
	}
	return s, nil
}

func (s *store) stripe(primary []byte) *stripe {
	return &s.stripes[maphash.Bytes(s.seed, primary)%uint64(len(s.stripes))]
}

// begin announces a fetch. If it is shared and one for the same variant is under
// way, that flight is returned to wait for and to leave, and leader is false: there is
// then no ticket to end. Otherwise the caller fetches, and ends the ticket.
func (s *store) begin(primary, variant []byte, shared bool) (t ticket, f *flight, leader bool) {
	st := s.stripe(primary)
	st.mu.Lock()
	defer st.mu.Unlock()
	g := st.groups[string(primary)]
	if g == nil {
		g = &group{}
		st.groups[string(primary)] = g
	}
	if shared {
		for _, f := range g.flights {
			if f.variant == string(variant) && f.since == st.count {
				f.refs.Add(1)
				return ticket{}, f, false
			}
		}
		f = &flight{variant: string(variant), since: st.count, done: make(chan struct{})}
		f.refs.Store(1)
		g.flights = append(g.flights, f)
	}
	g.members++
	t = ticket{stripe: st, key: string(primary), group: g, epoch: g.epoch, flight: f}
	st.enter(&t)
	return t, f, true
}

// release lets those who wait for the flight go, with what it has; later requests
// don't join it any more. Calling it again does nothing.
func (t *ticket) release() {
	if t.flight == nil {
		return
	}
	t.stripe.mu.Lock()
	i := slices.Index(t.group.flights, t.flight)
	if i >= 0 {
		t.group.flights = slices.Delete(t.group.flights, i, i+1)
	}
	t.stripe.mu.Unlock()
	close(t.flight.done)
	t.flight.leave()
	t.flight = nil
}

// end gives the ticket back.
func (t *ticket) end() {
	t.release()
	t.stripe.mu.Lock()
	defer t.stripe.mu.Unlock()
	t.stripe.leave(t)
	if t.group.members--; t.group.members == 0 {
		delete(t.stripe.groups, t.key)
	}
}

// peek is a view of what stands under the key, for the caller to release, or nil.
func (s *store) peek(key []byte) *object {
	e, ok := s.cache.Peek(key)
	if !ok {
		return nil
	}
	o := view(e)
	return &o
}

// put stores a response and reports whether it did: not after an invalidation, not
// over a response that was asked for later, not if what it was made from is gone, not
// without room. fields are what it varies by, selecting appends a request's values of
// them. The caller goes on holding the object.
func (s *store) put(t *ticket, o *object, fields []string, selecting func(dst []byte, fields []string) []byte) bool {
	t.stripe.mu.Lock()
	defer t.stripe.mu.Unlock()
	if t.group.epoch != t.epoch || t.purged(o) {
		return false
	}
	primary := []byte(t.key)
	current := s.peek(primary)
	defer func() { current.release() }()
	founded := t.base == nil || current.same(t.base)
	if !founded && (current == nil || current.kind != varying) {
		return false
	}
	if len(fields) > 0 {
		varies := current != nil && current.kind == varying
		var known []string
		if varies {
			known = current.selectingFields(nil)
		}
		id := uint64(0)
		if varies && containsAll(known, fields) {
			id, fields = current.id, known
		} else {
			// Responses of one resource may vary by different fields; the key then
			// takes all of them, which is never too few.
			if varies {
				fields = slices.Compact(slices.Sorted(slices.Values(slices.Concat(fields, known))))
			}
			id = s.ids.Add(1)
			if !s.putVarying(primary, fields, id) {
				return false
			}
		}
		primary = selecting(variantKey(primary, id), fields)
		current.release() // known, and fields with it, were of use to here
		current = s.peek(primary)
		founded = founded || current.same(t.base)
	}
	if !founded || current != nil && current.kind == stored && current.asked > o.asked {
		return false
	}
	return s.publish(o, primary)
}

// publish puts the object under the key. If that is longer than was foreseen, because
// the resource varies by more than this response says, a copy is stored.
func (s *store) publish(o *object, key []byte) bool {
	if s.cache.Publish(o.entry, key) {
		return true
	}
	e, ok := s.cache.Alloc(len(key), len(o.entry.Value()))
	if !ok {
		return false
	}
	defer e.Release()
	copy(e.Value(), o.entry.Value())
	return s.cache.Publish(e, key)
}

// putVarying notes what the resource varies by.
func (s *store) putVarying(primary []byte, fields []string, id uint64) bool {
	names := strings.Join(fields, "\x00") + "\x00"
	o := newObject(s.cache, len(primary), 0, len(names))
	if o == nil {
		return false
	}
	defer o.release()
	copy(o.body, names)
	o.kind, o.id = varying, id
	return s.cache.Publish(o.entry, primary)
}

// pass notes that the key's responses can't be shared, for a while. Variants are
// left alone: what holds for one needn't hold for the others.
func (s *store) pass(t *ticket, until time.Time) {
	t.stripe.mu.Lock()
	defer t.stripe.mu.Unlock()
	primary := []byte(t.key)
	current := s.peek(primary)
	defer current.release()
	if t.group.epoch != t.epoch || current != nil && current.kind == varying {
		return
	}
	o := newObject(s.cache, len(primary), 0, 0)
	if o == nil {
		// Without this note requests wait for one another; with what stands there
		// they would get what can't be shared any more.
		s.cache.Delete(primary)
		return
	}
	defer o.release()
	o.kind, o.asked = passing, until.UnixNano()
	s.cache.Publish(o.entry, primary)
}

// variantKey begins the key of a variant. A primary key holds no NUL.
func variantKey(primary []byte, id uint64) []byte {
	key := make([]byte, 0, len(primary)+64)
	return appendVariant(append(key, primary...), id)
}

func appendVariant(dst []byte, id uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(dst, 0), id)
}

// invalidate drops what is stored under the key. When it returns, no request that
// begins later sees a response fetched before.
func (s *store) invalidate(primary []byte) bool {
	st := s.stripe(primary)
	st.mu.Lock()
	defer st.mu.Unlock()
	if g := st.groups[string(primary)]; g != nil {
		g.epoch++
		g.flights = nil
	}
	return s.cache.Delete(primary)
}

func containsAll(set, members []string) bool {
	for _, m := range members {
		if !slices.Contains(set, m) {
			return false
		}
	}
	return true
}

// matches reports whether a waiting request with these values may have the
// flight's response.
func (f *flight) matches(selecting func(dst []byte, fields []string) []byte) bool {
	return len(f.fields) == 0 || bytes.Equal(f.values, selecting(nil, f.fields))
}
