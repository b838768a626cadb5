package arena

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring says where in the memory entries lie. Below head is what was written or spared
// in this turn; from head to tail is free; from tail to top lies what is left of the
// turn before; above that nothing lies. Entries follow one another without a space.
type ring struct {
	head, tail, top int64
	high            int64 // up to here memory was written, and is resident
	turns           uint64
}

// What one allocation may spare on its way: so many times its own size, and a little.
// The next entry goes though it was used; so an allocation is never slow because
// nearly everything is in use.
const (
	spareFactor = 4
	spareLeast  = 256 << 10
)

// take makes room for size bytes and returns where. The ring is locked, here and below.
func (c *core) take(size int64) (offset int64, ok bool) {
	r := &c.ring
	spared := int64(0)
	for first := r.turns; ; {
		switch {
		case r.tail-r.head >= size, r.tail == r.top && c.limit()-r.head >= size:
			offset = r.head
			r.head += size
			r.high = max(r.high, r.head)
			if r.tail == r.top {
				r.tail, r.top = r.head, r.head
			}
			return offset, true
		case r.tail == r.top && r.turns >= first+2:
			return 0, false // once around everything that is left was held
		default:
			spared += c.examine(spared < max(spareLeast, spareFactor*size))
		}
	}
}

// examine looks at the next entry of the last turn: it goes, unless it is held, or
// spared. It returns how many bytes it spared. At the end of a turn the next one begins.
func (c *core) examine(spare bool) (spared int64) {
	r := &c.ring
	if r.tail == r.top {
		c.turn()
		return 0
	}
	h := c.at(r.tail)
	size := int64(h.size) * unit
	if h.pins.Load() > 0 {
		c.stay(size)
		return 0
	}
	hash := h.hash // fixed: what isn't held isn't published any more
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.pins.Load() > 0 { // somebody found it just now
		c.stay(size)
		return 0
	}
	slot := s.search(hash, func(v uint64) bool { return v == slotOf(r.tail, hash) })
	if slot >= 0 {
		if mark, stays := c.policy.Spare(h.mark.Load()); spare && stays && r.head+size <= c.limit() {
			h.mark.Store(mark)
			if r.head != r.tail {
				copy(unsafe.Slice((*byte)(unsafe.Pointer(c.at(r.head))), size), unsafe.Slice((*byte)(unsafe.Pointer(h)), size))
				s.table[slot] = slotOf(r.head, hash)
			}
			r.head += size
			r.tail += size
			return size
		}
		c.drop(s, slot)
		c.evictions.Add(1)
	}
	r.tail += size
	return 0
}

// stay leaves the entry at the tail where it is. The gap before it is lost for this turn.
func (c *core) stay(size int64) {
	r := &c.ring
	if gap := r.tail - r.head; gap > 0 {
		c.fill(r.head, gap)
	}
	r.tail += size
	r.head = r.tail
}

// fill makes the gap an entry that nobody holds or finds. It may be one unit, so only
// the header's first half is written.
func (c *core) fill(offset, size int64) {
	h := c.at(offset)
	h.size, h.hash = uint32(size/unit), 0
	h.pins.Store(0)
}

// turn begins the next turn. If the index has grown, the end of the memory is given up
// for it.
func (c *core) turn() {
	r := &c.ring
	r.top, r.head, r.tail = r.head, 0, 0
	r.turns++
	page := int64(os.Getpagesize())
	if end := (max(c.limit(), r.top) + page - 1) &^ (page - 1); r.high > end {
		unix.Madvise(c.memory[end:], unix.MADV_DONTNEED) // fails only for what isn't mapped
		r.high = end
	}
}
