// Package arena keeps values by key in memory of its own, outside the Go heap, and
// drops what wasn't used lately when room is needed.
//
// All values lie one after the other in one mapping, which is written like a ring: a
// new value goes where the oldest ones were. An old one that was used since its last
// turn gets another chance: it slides down to the front of the gap, so that the gap
// stays in one piece and holds values of any size. That is the clock approximation of
// LRU, without a list. With a policy that has a trial there are two such rings, and a
// value that passes goes from the one to the other. The index has no pointers either,
// eight bytes an entry, and is mapped too, so that the garbage collector has nothing to
// look at and no garbage counts: the bytes of the bound are the bytes that are resident.
//
// # Where the memory goes
//
// Of an optimizer of 100 MB that has seen 400,000 responses of 1 KiB, by the kernel's
// account of its mappings (10^6 bytes, measured with entries of 1,296 bytes): the arena
// with its index 74.5; the program 14.2, of which 6.5 are instructions, 7.0 read-only
// data, most of it the runtime's tables of functions, and 0.7 variables; the Go heap with
// garbage and stacks 6.6; the runtime's own 2.7; together 98.4. Of the arena, 79 % was
// bodies. An entry had 272 bytes beside its body: 32 of this package, 24 of key, 80 that
// package optimizer decides by, 125 of header fields, and the rest of the last unit. It
// has 208 since a common name is one byte, which leaves 76 of the fields, and since this
// package's part has no padding.
//
// Whoever reads gets the value where it lies, pinned: it is neither moved nor
// overwritten until it is released, even if it is dropped or replaced meanwhile.
// Whoever writes allocates first, fills the memory at his leisure, and then publishes
// it under a key; so a body arrives where it stays.
//
// The package knows no HTTP and no clock.
package arena

import (
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Config sets the bounds. MaxBytes is required.
type Config struct {
	MaxBytes   int64   // bound on the memory, index included
	MaxEntries int     // bound on the number of entries; 0: none
	MaxShare   float64 // largest share of MaxBytes one entry may take; 0: 1
	Policy     Policy  // nil: LRU
}

// MinBytes is the least that MaxBytes may be: the index at its smallest, and a little.
const MinBytes = 2 * shards * minTable * 8

// Validate reports every fault of the configuration, joined.
func (c Config) Validate() error {
	var faults []error
	if c.MaxBytes < MinBytes {
		faults = append(faults, fmt.Errorf("config: MaxBytes is %d, must be %d or above", c.MaxBytes, MinBytes))
	}
	if c.MaxEntries < 0 {
		faults = append(faults, fmt.Errorf("config: MaxEntries is %d, must be 0 (no bound) or above", c.MaxEntries))
	}
	if !(c.MaxShare >= 0 && c.MaxShare <= 1) {
		faults = append(faults, fmt.Errorf("config: MaxShare is %v, must be 0 (the default, 1) to 1", c.MaxShare))
	}
	return errors.Join(faults...)
}

// Stats is a snapshot of the counters.
type Stats struct {
	Bytes     int64  // bytes of the entries now, with their keys and bookkeeping
	Entries   int64  // entries now
	Evictions uint64 // entries dropped for room since the start
}

// Arena is a bounded map. Its methods may be called concurrently. Its memory is
// returned when neither it nor an Entry of it can be reached any more.
type Arena struct{ *core }

// core is what outlives the last reference, to unmap the memory.
type core struct {
	memory   []byte
	base     unsafe.Pointer
	policy   Policy
	seed     maphash.Seed
	maxCount int64
	maxEntry int64
	shards   [shards]shard

	mu    sync.Mutex // of the rings: never taken with a shard's lock held
	ring  ring
	trial trial

	index, bytes, entries atomic.Int64 // index: bytes of the tables
	evictions             atomic.Uint64
}

// header stands before each entry. Offsets and sizes of entries are multiples of unit.
type header struct {
	size   uint32 // units, header included
	hash   uint32 // shard and tag of its key
	pins   atomic.Uint32
	mark   atomic.Uint32
	key    uint32 // bytes
	keyCap uint32 // bytes kept for the key
	value  uint32 // bytes
}

const (
	unit       = 16
	headerSize = int64(unsafe.Sizeof(header{}))
	maxValue   = 1 << 31
)

// New maps the memory, or reports the faults of the configuration.
func New(cfg Config) (*Arena, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("arena: %w", err)
	}
	memory, err := mmap(cfg.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("arena: map %d bytes: %w", cfg.MaxBytes, err)
	}
	c := &core{memory: memory, base: unsafe.Pointer(unsafe.SliceData(memory)), policy: cfg.Policy, seed: maphash.MakeSeed(), maxCount: int64(cfg.MaxEntries)}
	if c.policy == nil {
		c.policy = LRU{}
	}
	share := cfg.MaxShare
	if share == 0 {
		share = 1
	}
	for i := range c.shards {
		if err := c.shards[i].grow(&c.index); err != nil {
			c.unmap()
			return nil, fmt.Errorf("arena: map the index: %w", err)
		}
	}
	if onTrial := c.policy.Trial(); onTrial > 0 {
		if c.trial.ghost, err = newGhost(cfg.MaxBytes); err != nil {
			c.unmap()
			return nil, fmt.Errorf("arena: map the table of dropped keys: %w", err)
		}
		c.index.Add(c.trial.ghost.size())
		c.trial.end = int64(onTrial*float64(c.limit())) &^ (unit - 1)
		c.ring = ring{start: c.trial.end, head: c.trial.end, tail: c.trial.end, top: c.trial.end}
	}
	c.maxEntry = min(int64(share*float64(c.limit())), c.limit()-c.trial.end, maxValue)
	a := &Arena{c}
	runtime.AddCleanup(a, (*core).unmap, c)
	return a, nil
}

func (c *core) unmap() {
	munmap(c.memory)
	for i := range c.shards {
		unmapTable(c.shards[i].table)
	}
	if c.trial.ghost != nil {
		c.trial.ghost.unmap()
	}
}

// limit is what the index leaves of the memory for entries.
func (c *core) limit() int64 { return (int64(len(c.memory)) - c.index.Load()) &^ (unit - 1) }

// MaxEntrySize returns the largest size of one entry, in bytes, with its key and bookkeeping.
func (a *Arena) MaxEntrySize() int64 { return a.maxEntry }

// Size is what a value of n bytes costs under a key of up to keyCap bytes.
func Size(keyCap, n int) int64 {
	return (valueAt(int64(keyCap)) + int64(n) + unit - 1) &^ (unit - 1)
}

// valueAt is where the value begins in an entry.
func valueAt(keyCap int64) int64 { return (headerSize + keyCap + 7) &^ 7 }

// Stats returns the counters. They are read one by one, so under load they may
// be from slightly different moments.
func (a *Arena) Stats() Stats {
	return Stats{Bytes: a.bytes.Load(), Entries: a.entries.Load(), Evictions: a.evictions.Load()}
}

// Entry is memory of the arena that is held: it stays what and where it is until
// Release. The zero Entry holds nothing.
type Entry struct {
	arena *Arena
	h     *header
}

// Value is the entry's memory, aligned to 8 bytes. After Publish whoever else holds
// the entry reads it too.
func (e Entry) Value() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(e.h), valueAt(int64(e.h.keyCap)))), e.h.value)
}

func (h *header) keyBytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(h), headerSize)), h.key)
}

// Held reports whether there is an entry at all.
func (e Entry) Held() bool { return e.h != nil }

// Hold holds the entry once more, for another Release. The caller must hold it.
func (e Entry) Hold() Entry {
	if e.h != nil {
		e.h.pins.Add(1)
	}
	return e
}

// Release gives the entry up; the caller must not touch its value any more. One that
// wasn't published is then free memory.
func (e Entry) Release() {
	if e.h != nil {
		e.h.pins.Add(^uint32(0))
	}
}

// at is the entry at an offset.
func (c *core) at(offset int64) *header { return (*header)(unsafe.Add(c.base, offset)) }

func (c *core) offset(h *header) int64 { return int64(uintptr(unsafe.Pointer(h)) - uintptr(c.base)) }

// Get holds the entry under key and marks it as used. It doesn't allocate and doesn't
// keep key.
func (a *Arena) Get(key []byte) (Entry, bool) { return a.find(key, true) }

// Peek is Get without marking the entry as used.
func (a *Arena) Peek(key []byte) (Entry, bool) { return a.find(key, false) }

func (a *Arena) find(key []byte, use bool) (Entry, bool) {
	hash := a.hash(key)
	s := a.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := a.lookup(s, hash, key)
	if slot < 0 {
		return Entry{}, false
	}
	h := a.at(s.offset(slot))
	h.pins.Add(1)
	if use {
		mark := h.mark.Load()
		if next := a.policy.Used(mark); next != mark {
			h.mark.Store(next)
		}
	}
	return Entry{a, h}, true
}

// Alloc takes memory for a value of n bytes under a key of at most keyCap bytes, and
// holds it. Nobody finds it before Publish. It fails if that is more than one entry may
// take, or if too much of the arena is held; then it drops little or nothing.
func (a *Arena) Alloc(keyCap, n int) (Entry, bool) {
	size := Size(keyCap, n)
	if keyCap < 0 || n < 0 || n > maxValue || size > a.maxEntry {
		return Entry{}, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	offset, ok := a.place(size)
	if !ok {
		return Entry{}, false
	}
	h := a.at(offset)
	h.size, h.hash, h.key, h.keyCap, h.value = uint32(size/unit), 0, 0, uint32(keyCap), uint32(n)
	h.mark.Store(0)
	h.pins.Store(1)
	return Entry{a, h}, true
}

// Trim gives up the end of the value of an entry that isn't published: n bytes of it stay.
func (a *Arena) Trim(e Entry, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	offset, before, size := a.offset(e.h), int64(e.h.size)*unit, Size(int(e.h.keyCap), n)
	e.h.value, e.h.size = uint32(n), uint32(size/unit)
	switch r := a.ringOf(e.h); {
	case offset+before == r.head: // nothing was written after it
		r.head = offset + size
	case size < before:
		a.fill(offset+size, before-size)
	}
}

// Publish puts the entry, which the caller got from Alloc and goes on holding, under
// key, and replaces what was there: a reader gets the old value or the new one, never
// neither. It reports false, and does nothing, if the key is longer than was said, or
// the index can't grow.
func (a *Arena) Publish(e Entry, key []byte) bool {
	if len(key) > int(e.h.keyCap) {
		return false
	}
	hash := a.hash(key)
	e.h.key, e.h.hash = uint32(len(key)), hash
	copy(e.h.keyBytes(), key)
	if !a.insert(e.h, hash, key) {
		return false
	}
	if a.maxCount > 0 && a.entries.Load() > a.maxCount {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.thin()
	}
	return true
}

// Delete drops the entry under key and reports whether there was one. Who holds it
// keeps it.
func (a *Arena) Delete(key []byte) bool {
	hash := a.hash(key)
	s := a.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := a.lookup(s, hash, key)
	if slot < 0 {
		return false
	}
	a.drop(s, slot)
	return true
}

// DeleteFunc drops every entry for which drop reports true, and returns how many. It
// looks at every entry, one shard locked at a time; drop must be quick, must not call
// the arena, and must not keep what it is given.
func (a *Arena) DeleteFunc(drop func(key, value []byte) bool) int {
	removed := 0
	for i := range a.shards {
		s := &a.shards[i]
		s.mu.Lock()
		for slot := 0; slot < len(s.table); {
			if s.table[slot] != 0 {
				h := a.at(s.offset(slot))
				if drop(h.keyBytes(), Entry{h: h}.Value()) {
					a.drop(s, slot) // another entry may take its slot
					removed++
					continue
				}
			}
			slot++
		}
		s.mu.Unlock()
	}
	return removed
}

// Each calls visit for every entry, one shard locked at a time; visit must be quick,
// must not call the arena, and must not keep what it is given. It marks nothing as used.
func (a *Arena) Each(visit func(key, value []byte)) {
	for i := range a.shards {
		s := &a.shards[i]
		s.mu.Lock()
		for slot, v := range s.table {
			if v != 0 {
				h := a.at(s.offset(slot))
				visit(h.keyBytes(), Entry{h: h}.Value())
			}
		}
		s.mu.Unlock()
	}
}
