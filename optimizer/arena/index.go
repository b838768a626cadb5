package arena

import (
	"bytes"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

const (
	shards   = 128 // locks; of a hash's 32 bits, 7 choose one
	minTable = 512 // slots: a page
	tagBits  = 24
	tagMask  = 1<<tagBits - 1
)

// shard is the index of a part of the keys: an open-addressed table with linear
// probing. A slot is the entry's offset in units, plus one, above the tag of its key's
// hash; 0 is free. The tag also says where probing begins, so that a table grows
// without touching the entries.
type shard struct {
	mu    sync.Mutex
	table []uint64
	used  int
	_     [24]byte // keeps neighbouring locks off one cache line
}

func (c *core) hash(key []byte) uint32 {
	return uint32(maphash.Bytes(c.seed, key) & (shards<<tagBits - 1))
}

func (c *core) shard(hash uint32) *shard { return &c.shards[hash>>tagBits] }

func (s *shard) offset(slot int) int64 { return int64(s.table[slot]>>tagBits-1) * unit }

func slotOf(offset int64, hash uint32) uint64 {
	return uint64(offset/unit+1)<<tagBits | uint64(hash&tagMask)
}

func (s *shard) home(v uint64) int { return int(v&tagMask) & (len(s.table) - 1) }

// search returns the first slot of the hash's run that accepts, or -1 minus the free
// slot at the run's end.
func (s *shard) search(hash uint32, accepts func(v uint64) bool) int {
	mask := len(s.table) - 1
	for slot := int(hash&tagMask) & mask; ; slot = (slot + 1) & mask {
		switch v := s.table[slot]; {
		case v == 0:
			return -1 - slot
		case v&tagMask == uint64(hash&tagMask) && accepts(v):
			return slot
		}
	}
}

// lookup returns the key's slot, or a number below 0. The shard is locked, here and below.
func (c *core) lookup(s *shard, hash uint32, key []byte) int {
	return s.search(hash, func(v uint64) bool {
		return bytes.Equal(c.at(int64(v>>tagBits-1)*unit).keyBytes(), key)
	})
}

// insert puts an entry under its key.
func (c *core) insert(h *header, hash uint32, key []byte) bool {
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := c.lookup(s, hash, key)
	offset := c.offset(h)
	if c.onTrial(offset) && c.returns(s, slot, hash) {
		h.mark.Store(c.policy.Returned())
	}
	if slot >= 0 {
		c.account(s.offset(slot), -1)
		c.account(offset, 1)
		s.table[slot] = slotOf(offset, hash)
		return true
	}
	if s.used >= len(s.table)*7/8 {
		if s.grow(&c.index) != nil {
			return false
		}
		slot = c.lookup(s, hash, key)
	}
	s.table[-1-slot] = slotOf(offset, hash)
	s.used++
	c.account(offset, 1)
	return true
}

// account counts the entry at the offset as found or, with -1, not any more.
func (c *core) account(offset, n int64) {
	c.entries.Add(n)
	c.bytes.Add(n * int64(c.at(offset).size) * unit)
	if c.onTrial(offset) {
		c.trial.entries.Add(n)
	}
}

// returns reports whether a key is known to be in use: what stands in its slot, if that
// is one, passed its trial or would, or its trial was not long ago.
func (c *core) returns(s *shard, slot int, hash uint32) bool {
	if slot >= 0 {
		old := s.offset(slot)
		return !c.onTrial(old) || c.policy.Passes(c.at(old).mark.Load())
	}
	return c.trial.ghost.forget(hash, c.entries.Load()-c.trial.entries.Load())
}

// drop takes the slot out of the index, and moves up what was probed past it.
func (c *core) drop(s *shard, slot int) {
	c.account(s.offset(slot), -1)
	s.used--
	mask := len(s.table) - 1
	for next := (slot + 1) & mask; s.table[next] != 0; next = (next + 1) & mask {
		// What stands at next may move to slot if its home isn't between the two.
		if home := s.home(s.table[next]); (next-home)&mask >= (next-slot)&mask {
			s.table[slot] = s.table[next]
			slot = next
		}
	}
	s.table[slot] = 0
}

// grow doubles the table; at first it makes one.
func (s *shard) grow(total *atomic.Int64) error {
	n := max(minTable, 2*len(s.table))
	memory, err := mmap(int64(n) * 8)
	if err != nil {
		return err
	}
	old := s.table
	s.table = unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(memory))), n)
	for _, v := range old {
		if v != 0 {
			slot := s.home(v)
			for s.table[slot] != 0 {
				slot = (slot + 1) & (n - 1)
			}
			s.table[slot] = v
		}
	}
	total.Add(int64(n-len(old)) * 8)
	unmapTable(old)
	return nil
}

func unmapTable(table []uint64) {
	if len(table) > 0 {
		munmap(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(table))), len(table)*8))
	}
}

func mmap(n int64) ([]byte, error) {
	return syscall.Mmap(-1, 0, int(n), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
}

func munmap(memory []byte) { syscall.Munmap(memory) } // fails only for what isn't mapped
