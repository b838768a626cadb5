package optimizer

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"phasegate/optimizer/httpcache"
	"phasegate/optimizer/lru"
)

// kind tells the three things apart that stand under a cache key.
type kind uint8

const (
	stored  kind = iota // a complete response
	varying             // under a primary key: the responses stand under variant keys
	passing             // under a primary key: the last response couldn't be shared, so don't wait for the next
)

// object is one cache entry. Apart from its atomic fields it never changes, so
// readers share it without a lock; an update stores a new one.
type object struct {
	fresh  httpcache.Freshness
	head   []byte   // encoded fields
	body   []byte   // follows head in one allocation, unless the head is newer
	block  int      // bytes of the allocation that body is in
	fields []string // varying: the selecting fields, canonical and sorted
	id     uint64   // varying: part of the variant keys, so that those of a dropped entry can't be found again
	asked  int64    // Unix nanoseconds at which the request for it was sent; passing: until when
	status int
	kind   kind
	aged   bool // the upstream sent Age, so it wasn't the origin's own answer
	newer  bool // a 304 brought the head; the body is still where the first response put it

	credit    int8         // lifetimes for which it is renewed although nobody asks for it
	hot       atomic.Bool  // used at least once
	refreshAt atomic.Int64 // Unix nanoseconds from which a hit may start a background revalidation
}

// objectOverhead is what an object costs beyond head, body and key: the struct, and
// the cache's bookkeeping.
const objectOverhead = 192 + lru.Overhead

// size is what the object costs in the cache under a key of n bytes. The runtime
// rounds allocations up to classes that lie at most an eighth apart, so a
// sixteenth is the mean of what that wastes.
func (o *object) size(n int) int64 {
	b := int64(o.block)
	if o.newer {
		b += int64(cap(o.head))
	}
	return objectOverhead + int64(n) + b + b/16
}

// encode writes the header in the form that an object keeps: for each field two
// bytes of name length, four of value length, name, value; Date first, the others
// in the order of their names. Content-Length and Age are left out, because they are
// computed for each answer. After the head, in the same allocation, there is a body of
// n bytes, to be filled.
func encode(h http.Header, n int) (head, body []byte) {
	names := make([]string, 0, len(h))
	size := n
	for name, lines := range h {
		if name == "Content-Length" || name == "Age" || len(name) > 1<<16-1 {
			continue
		}
		names = append(names, name)
		for _, line := range lines {
			size += 6 + len(name) + len(line)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		switch {
		case a == "Date":
			return -1
		case b == "Date":
			return 1
		}
		return strings.Compare(a, b)
	})
	block := make([]byte, 0, size)
	for _, name := range names {
		for _, line := range h[name] {
			block = binary.LittleEndian.AppendUint16(block, uint16(len(name)))
			block = binary.LittleEndian.AppendUint32(block, uint32(len(line)))
			block = append(append(block, name...), line...)
		}
	}
	return block, block[len(block) : len(block)+n]
}

// next splits the first field off an encoded header.
func next(block []byte) (name, value, rest []byte) {
	n, v := int(binary.LittleEndian.Uint16(block)), int(binary.LittleEndian.Uint32(block[2:]))
	return block[6 : 6+n], block[6+n : 6+n+v], block[6+n+v:]
}

// field returns the first line of the named field, or nil.
func (o *object) field(name string) []byte {
	for rest := o.head; len(rest) > 0; {
		var key, value []byte
		key, value, rest = next(rest)
		if string(key) == name {
			return value
		}
	}
	return nil
}

// header decodes the stored header.
func (o *object) header() http.Header {
	h := http.Header{}
	for rest := o.head; len(rest) > 0; {
		var key, value []byte
		key, value, rest = next(rest)
		h[string(key)] = append(h[string(key)], string(value))
	}
	return h
}

// store is the cache with the fetches that are under way for it. Both stand under
// one lock per stripe of keys for everything but lookups, so that an invalidation and
// the arrival of a response fetched before it have an order: a fetch that began before
// an invalidation can't store after it.
type store struct {
	cache   *lru.Cache[*object]
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
// closed and never change afterwards.
type flight struct {
	variant string
	done    chan struct{}
	object  *object  // the response, if others may have it
	fields  []string // what it varies by
	values  []byte   // and the leader's values of that
	failed  bool     // the upstream gave no usable answer
	silent  bool     // or none at all
	since   uint64   // the stripe's count of purges at its begin
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

func newStore(cfg lru.Config) (*store, error) {
	cache, err := lru.New[*object](cfg)
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
// way, that flight is returned to wait for, and leader is false: there is then no
// ticket to end. Otherwise the caller fetches, and ends the ticket.
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
				return ticket{}, f, false
			}
		}
		f = &flight{variant: string(variant), since: st.count, done: make(chan struct{})}
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

// put stores a response and reports whether it did: not after an invalidation, not
// over a response that was asked for later, not if what it was made from is gone, not
// beyond the size of one entry. fields are what it varies by, selecting appends a
// request's values of them.
func (s *store) put(t *ticket, o *object, fields []string, selecting func(dst []byte, fields []string) []byte) bool {
	t.stripe.mu.Lock()
	defer t.stripe.mu.Unlock()
	if t.group.epoch != t.epoch || t.purged(o) {
		return false
	}
	primary := []byte(t.key)
	current, _ := s.cache.Peek(primary)
	founded := t.base == nil || current == t.base
	if !founded && (current == nil || current.kind != varying) {
		return false
	}
	if len(fields) > 0 {
		if current == nil || current.kind != varying || !containsAll(current.fields, fields) {
			// Responses of one resource may vary by different fields; the key then
			// takes all of them, which is never too few.
			if current != nil && current.kind == varying {
				fields = slices.Compact(slices.Sorted(slices.Values(slices.Concat(fields, current.fields))))
			}
			current = &object{kind: varying, fields: fields, id: s.ids.Add(1)}
			if !s.cache.Put(primary, current, current.size(len(primary)+32*len(fields))) {
				return false
			}
		}
		primary = selecting(variantKey(primary, current.id), current.fields)
		current, _ = s.cache.Peek(primary)
		founded = founded || current == t.base
	}
	if !founded || current != nil && current.kind == stored && current.asked > o.asked {
		return false
	}
	return s.cache.Put(primary, o, o.size(len(primary)))
}

// pass notes that the key's responses can't be shared, for a while. Variants are
// left alone: what holds for one needn't hold for the others.
func (s *store) pass(t *ticket, until time.Time) {
	t.stripe.mu.Lock()
	defer t.stripe.mu.Unlock()
	primary := []byte(t.key)
	if current, _ := s.cache.Peek(primary); t.group.epoch == t.epoch && (current == nil || current.kind != varying) {
		o := &object{kind: passing, asked: until.UnixNano()}
		s.cache.Put(primary, o, o.size(len(primary)))
	}
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
