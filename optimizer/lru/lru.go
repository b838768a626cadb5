// Package lru keeps values by key within a bound on their bytes, and drops the
// least recently used first.
//
// The package knows no HTTP and no clock: the caller says what an entry costs,
// and what a value means. It is sharded by a seeded hash of the key, so that no
// lock is shared by all keys; within one shard the order of use is exact.
//
// The bound is one for the whole cache, not one per shard, and it holds at every
// moment: an entry is admitted only after its bytes have been reserved. A shard
// that needs room gives up its own oldest entries while it holds its fair share,
// and takes from the fullest shard otherwise. So an entry may be larger than a
// shard's share, and with one shard the cache is a plain LRU.
package lru

import (
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Config sets the bounds. MaxBytes is required.
type Config struct {
	MaxBytes   int64   // bound on the sum of entry sizes
	MaxEntries int     // bound on the number of entries; 0: none
	Shards     int     // rounded up to a power of two; 0: 64
	MaxShare   float64 // largest share of MaxBytes one entry may take; 0: 1
}

// Validate reports every fault of the configuration, joined.
func (c Config) Validate() error {
	var faults []error
	if c.MaxBytes <= 0 {
		faults = append(faults, fmt.Errorf("config: MaxBytes is %d, must be above 0", c.MaxBytes))
	}
	if c.MaxEntries < 0 {
		faults = append(faults, fmt.Errorf("config: MaxEntries is %d, must be 0 (no bound) or above", c.MaxEntries))
	}
	if c.Shards < 0 || c.Shards > 1<<16 {
		faults = append(faults, fmt.Errorf("config: Shards is %d, must be 0 (the default, 64) to 65536", c.Shards))
	}
	if !(c.MaxShare >= 0 && c.MaxShare <= 1) {
		faults = append(faults, fmt.Errorf("config: MaxShare is %v, must be 0 (the default, 1) to 1", c.MaxShare))
	}
	return errors.Join(faults...)
}

// Cache is a bounded map in order of use. All methods may be called concurrently.
type Cache[V any] struct {
	seed       maphash.Seed
	shards     []shard[V]
	mask       uint64
	maxBytes   int64
	maxEntries int64
	maxEntry   int64
	fairShare  int64

	bytes     atomic.Int64
	entries   atomic.Int64
	evictions atomic.Uint64
}

// Stats is a snapshot of the cache's counters.
type Stats struct {
	Bytes     int64  // sum of entry sizes now
	Entries   int64  // entries now
	Evictions uint64 // entries dropped for room since the start
}

type shard[V any] struct {
	mu    sync.Mutex
	index map[string]*node[V]
	root  node[V] // root.next is the most, root.prev the least recently used
	bytes atomic.Int64
	_     [32]byte // keeps neighbouring shards' locks off one cache line
}

type node[V any] struct {
	prev, next *node[V]
	key        string
	size       int64
	value      V
}

// New returns an empty cache, or the faults of the configuration.
func New[V any](cfg Config) (*Cache[V], error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("lru: %w", err)
	}
	n := 64
	if cfg.Shards > 0 {
		for n = 1; n < cfg.Shards; n *= 2 {
		}
	}
	share := cfg.MaxShare
	if share == 0 {
		share = 1
	}
	c := &Cache[V]{
		seed:       maphash.MakeSeed(),
		shards:     make([]shard[V], n),
		mask:       uint64(n - 1),
		maxBytes:   cfg.MaxBytes,
		maxEntries: int64(cfg.MaxEntries),
		maxEntry:   int64(share * float64(cfg.MaxBytes)),
		fairShare:  max(1, cfg.MaxBytes/int64(n)), // above 0, so that an empty shard is never its own victim
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.index = make(map[string]*node[V])
		s.root.prev, s.root.next = &s.root, &s.root
	}
	return c, nil
}

// MaxEntrySize returns the largest size that Put accepts, in bytes.
func (c *Cache[V]) MaxEntrySize() int64 { return c.maxEntry }

// Get returns the value stored under key and marks it as just used. It doesn't
// allocate and doesn't keep key.
func (c *Cache[V]) Get(key []byte) (V, bool) {
	s := c.shard(key)
	s.mu.Lock()
	n := s.index[string(key)]
	if n == nil {
		s.mu.Unlock()
		var none V
		return none, false
	}
	if s.root.next != n {
		n.unlink()
		s.pushFront(n)
	}
	v := n.value
	s.mu.Unlock()
	return v, true
}

// Peek is Get without marking the entry as used.
func (c *Cache[V]) Peek(key []byte) (V, bool) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.index[string(key)]; n != nil {
		return n.value, true
	}
	var none V
	return none, false
}

// Put stores v under key as the most recently used entry and replaces what was
// there; a reader sees the old value or the new one, never neither, unless room
// for a larger value had to be taken from the old one itself. size is all that
// the entry costs, in bytes. It reports false, and leaves the cache as it was,
// if size is not positive or above MaxEntrySize.
func (c *Cache[V]) Put(key []byte, v V, size int64) bool {
	if size <= 0 || size > c.maxEntry {
		return false
	}
	s := c.shard(key)
	for {
		s.mu.Lock()
		n := s.index[string(key)]
		if n != nil {
			n.unlink()
			s.pushFront(n)
			if c.reserve(size-n.size, 0) {
				s.bytes.Add(size - n.size)
				n.value, n.size = v, size
				s.mu.Unlock()
				return true
			}
		} else if c.reserve(size, 1) {
			n = &node[V]{key: string(key), size: size, value: v}
			s.index[n.key] = n
			s.pushFront(n)
			s.bytes.Add(size)
			s.mu.Unlock()
			return true
		}
		s.mu.Unlock()
		c.evict(s)
	}
}

// Delete removes the entry and reports whether there was one.
func (c *Cache[V]) Delete(key []byte) bool {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.index[string(key)]
	if n == nil {
		return false
	}
	c.remove(s, n)
	return true
}

// DeleteFunc removes every entry for which drop reports true, and returns how
// many. It looks at every entry, one shard locked at a time; drop must be quick
// and must not call the cache.
func (c *Cache[V]) DeleteFunc(drop func(key string, v V) bool) int {
	removed := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for n := s.root.next; n != &s.root; {
			next := n.next
			if drop(n.key, n.value) {
				c.remove(s, n)
				removed++
			}
			n = next
		}
		s.mu.Unlock()
	}
	return removed
}

// Each calls visit for every entry, one shard locked at a time; visit must be quick
// and must not call the cache. It marks nothing as used.
func (c *Cache[V]) Each(visit func(key string, v V)) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for n := s.root.next; n != &s.root; n = n.next {
			visit(n.key, n.value)
		}
		s.mu.Unlock()
	}
}

// Stats returns the counters. They are read one by one, so under load they may
// be from slightly different moments.
func (c *Cache[V]) Stats() Stats {
	return Stats{Bytes: c.bytes.Load(), Entries: c.entries.Load(), Evictions: c.evictions.Load()}
}

// shard returns the shard that holds key. maphash is seeded per cache, so nobody
// outside can aim keys at one shard.
func (c *Cache[V]) shard(key []byte) *shard[V] {
	return &c.shards[maphash.Bytes(c.seed, key)&c.mask]
}

// reserve adds to the counters if the bounds allow it. Bytes and entries are
// reserved one after the other; a failed second step gives the first back.
func (c *Cache[V]) reserve(bytes, entries int64) bool {
	if !add(&c.bytes, bytes, c.maxBytes) {
		return false
	}
	limit := c.maxEntries
	if limit == 0 {
		limit = 1 << 62
	}
	if !add(&c.entries, entries, limit) {
		c.bytes.Add(-bytes)
		return false
	}
	return true
}

func add(counter *atomic.Int64, delta, limit int64) bool {
	for {
		now := counter.Load()
		if delta > 0 && now+delta > limit {
			return false
		}
		if counter.CompareAndSwap(now, now+delta) {
			return true
		}
	}
}

// evict drops one entry: the oldest of own while it holds its fair share, else
// the oldest of the fullest shard.
func (c *Cache[V]) evict(own *shard[V]) {
	victim := own
	if own.bytes.Load() < c.fairShare {
		for i := range c.shards {
			if s := &c.shards[i]; s.bytes.Load() > victim.bytes.Load() {
				victim = s
			}
		}
	}
	victim.mu.Lock()
	defer victim.mu.Unlock()
	if oldest := victim.root.prev; oldest != &victim.root {
		c.remove(victim, oldest)
		c.evictions.Add(1)
	}
}

// remove takes n out of s, which is locked.
func (c *Cache[V]) remove(s *shard[V], n *node[V]) {
	delete(s.index, n.key)
	n.unlink()
	s.bytes.Add(-n.size)
	c.bytes.Add(-n.size)
	c.entries.Add(-1)
}

func (s *shard[V]) pushFront(n *node[V]) {
	n.prev, n.next = &s.root, s.root.next
	n.next.prev = n
	s.root.next = n
}

func (n *node[V]) unlink() {
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = nil, nil
}
