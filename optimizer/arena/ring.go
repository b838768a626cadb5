package arena

import (
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring says where in its part of the memory entries lie. Below head is what was written
// or spared in this turn; from head to tail is free; from tail to top lies what is left
// of the turn before; above that nothing lies. Entries follow one another without a space.
type ring struct {
	start           int64 // of its part
	head, tail, top int64
	high            int64 // up to here memory was written, and is resident
	turns           uint64
}

// trial is the ring at the beginning of the memory, if the policy has one.
type trial struct {
	ring
	end     int64
	entries atomic.Int64 // that are found
	ghost   *ghost       // nil without a trial
}

// What one allocation may move on its way: so many times its own size, and a little.
// The next entry goes though it was used; so an allocation is never slow because
// nearly everything is in use.
const (
	spareFactor = 4
	spareLeast  = 256 << 10
)

// mostSought is how many places one allocation tries, the later half without sparing
// anything. So what it drops in vain is bounded, whatever is held.
const mostSought = 4

// lastTurn is the turn, from the one in which thinning begins, in which nothing is spared
// any more: what is left is held.
const lastTurn = 2

// trialShare is the largest share of the trial that one entry may take.
const trialShare = 0.25

// onTrial reports whether what lies at the offset is on trial.
func (c *core) onTrial(offset int64) bool { return offset < c.trial.end }

// ringOf is the ring in which the entry lies.
func (c *core) ringOf(h *header) *ring {
	if c.onTrial(c.offset(h)) {
		return &c.trial.ring
	}
	return &c.ring
}

// end is where the ring's part of the memory ends.
func (c *core) end(r *ring) int64 {
	if r == &c.trial.ring {
		return c.trial.end
	}
	return c.limit()
}

// place makes room for a new entry and returns where. The rings are locked, here and
// below.
func (c *core) place(size int64) (offset int64, ok bool) {
	spare := max(spareLeast, spareFactor*size)
	if size <= int64(trialShare*float64(c.trial.end)) {
		if offset, ok = c.take(&c.trial.ring, size, &spare); ok {
			return offset, true
		} // all that is on trial is held
	}
	return c.take(&c.ring, size, &spare)
}

// take makes room for size bytes in the ring and returns where. What is moved for it is
// taken off spare. Nothing is dropped before there is known to be a place; what is spared
// there, or found just then, may still leave too little of it, and another is sought.
func (c *core) take(r *ring, size int64, spare *int64) (offset int64, ok bool) {
	sought := 0
	for ended := true; ; {
		switch {
		case r.tail-r.head >= size, r.tail == r.top && c.end(r)-r.head >= size:
			offset = r.head
			r.head += size
			r.high = max(r.high, r.head)
			if r.tail == r.top {
				r.tail, r.top = r.head, r.head
			}
			return offset, true
		case !ended:
			ended = c.examine(r, spare)
		case sought == mostSought || !c.seek(r, size):
			return 0, false
		default:
			if sought++; sought > mostSought/2 {
				*spare = 0
			}
			ended = false
		}
	}
}

// seek goes to the next place where size bytes lie together that are free or nobody's
// who holds them, in this turn or in the next. What lies before it stays as it is. If
// there is no such place, so does everything.
func (c *core) seek(r *ring, size int64) bool {
	if begin, found := c.span(r, r.head, r.tail, size); found {
		if begin > r.head {
			c.skip(r, begin)
		}
		return true
	}
	c.fillGap(r)
	begin, found := c.span(r, r.start, r.start, size)
	if found {
		c.skip(r, r.top)
		c.turn(r)
		c.skip(r, begin)
	}
	return found
}

// span returns where the first size bytes begin of which nothing is held. It looks at
// the entries from at on; from begin to there all is free, and above the last one too.
func (c *core) span(r *ring, begin, at, size int64) (int64, bool) {
	for at-begin < size {
		if at == r.top {
			return begin, c.end(r)-begin >= size
		}
		h := c.at(at)
		at += int64(h.size) * unit
		if h.pins.Load() > 0 {
			begin = at
		}
	}
	return begin, true
}

// examine looks at the next entry of the last turn: it goes, unless it is held, or
// spared, or passes its trial. At the end of a turn the next one begins. It reports
// whether the gap ended there, with the turn or at what is held.
func (c *core) examine(r *ring, spare *int64) (ended bool) {
	if r.tail == r.top {
		c.turn(r)
		return true
	}
	h := c.at(r.tail)
	size := int64(h.size) * unit
	if h.pins.Load() > 0 {
		c.skip(r, r.tail+size)
		return true
	}
	to, mark, stays := int64(0), h.mark.Load(), false
	if r == &c.ring {
		mark, stays = c.policy.Spare(mark)
		to, stays = r.head, stays && *spare > 0 && r.head+size <= c.limit()
	} else if *spare > 0 && (c.policy.Passes(mark) || c.roomy(size)) {
		mark = 0
		to, stays = c.take(&c.ring, size, spare) // now, since others' shards are locked for it
	}
	moved, held := c.judge(r, h, to, mark, stays)
	if moved {
		*spare -= size
	} else if stays && r != &c.ring {
		c.ring.head -= size
	}
	return held
}

// thin drops entries until there are no more than allowed, or the rest is held.
func (c *core) thin() {
	spare := int64(spareLeast)
	for first, tried := c.ring.turns, c.trial.turns; c.entries.Load() > c.maxCount && c.ring.turns <= first+lastTurn; {
		if c.ring.turns == first+lastTurn {
			spare = 0
		}
		if float64(c.trial.entries.Load()) > c.policy.Trial()*float64(c.maxCount) && c.trial.turns < tried+lastTurn {
			c.examine(&c.trial.ring, &spare)
		} else {
			c.examine(&c.ring, &spare)
		}
	}
}

// roomy reports whether the main ring takes what didn't pass its trial too: nothing that
// passed would have to go for it, or much was deleted.
func (c *core) roomy(size int64) bool {
	if c.maxCount > 0 && c.entries.Load() >= c.maxCount {
		return false
	}
	limit := c.limit()
	return c.ring.turns == 0 && limit-c.ring.head >= size || c.bytes.Load() < limit/4*3
}

// judge moves the entry at the ring's tail to another place, with the mark, or drops it.
// It reports whether it moved it: not if it turns out to be held, or isn't found any more.
func (c *core) judge(r *ring, h *header, to int64, mark uint32, stays bool) (moved, held bool) {
	size, hash := int64(h.size)*unit, h.hash // fixed: what isn't held isn't published any more
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.pins.Load() > 0 { // somebody found it just now
		c.skip(r, r.tail+size)
		return false, true
	}
	slot := s.search(hash, func(v uint64) bool { return v == slotOf(r.tail, hash) })
	switch {
	case slot < 0:
	case !stays:
		c.drop(s, slot)
		c.evictions.Add(1)
		if r != &c.ring {
			c.trial.ghost.add(hash)
		}
	default:
		h.mark.Store(mark)
		if to != r.tail {
			copy(unsafe.Slice((*byte)(unsafe.Pointer(c.at(to))), size), unsafe.Slice((*byte)(unsafe.Pointer(h)), size))
			s.table[slot] = slotOf(to, hash)
		}
		if r == &c.ring {
			r.head += size
		} else {
			c.trial.entries.Add(-1)
		}
		moved = true
	}
	r.tail += size
	return moved, false
}

// skip leaves what lies from the tail up to the offset where it is. The gap before it is
// lost for this turn.
func (c *core) skip(r *ring, to int64) {
	c.fillGap(r)
	r.head, r.tail = to, to
}

func (c *core) fillGap(r *ring) {
	if gap := r.tail - r.head; gap > 0 {
		c.fill(r.head, gap)
	}
}

// fill makes the gap an entry that nobody holds or finds. It may be one unit, so only
// the header's first half is written.
func (c *core) fill(offset, size int64) {
	h := c.at(offset)
	h.size, h.hash = uint32(size/unit), 0
	h.pins.Store(0)
}

// turn begins the ring's next turn. If the index has grown, the end of the memory is
// given up for it.
func (c *core) turn(r *ring) {
	r.top, r.head, r.tail = r.head, r.start, r.start
	r.turns++
	page := int64(os.Getpagesize())
	if end := (max(c.end(r), r.top) + page - 1) &^ (page - 1); r.high > end {
		unix.Madvise(c.memory[end:], unix.MADV_DONTNEED) // fails only for what isn't mapped
		r.high = end
	}
}
