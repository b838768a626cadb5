package arena

import (
	"sync"
	"unsafe"
)

// ghost remembers the keys that didn't pass their trial, by 31 bits of their hash, as
// long as the main ring would have kept them. Its table is mapped, like the index, and
// of a fixed size: one slot for each kilobyte of the arena. Where entries are smaller, it
// forgets the oldest of a bucket too soon.
type ghost struct {
	mu    sync.Mutex
	slots []uint32 // buckets of ways, the newest first; tag of the key's hash above the hour it was dropped; 0: free
	clock uint64   // keys so far
}

const (
	ghostBytes = 1 << 10 // of the arena, for a slot
	ways       = 8
	hour       = 64 // keys
)

func newGhost(arenaBytes int64) (*ghost, error) {
	n := int64(ways)
	for n*2 <= arenaBytes/ghostBytes {
		n *= 2
	}
	memory, err := mmap(n * 4)
	if err != nil {
		return nil, err
	}
	return &ghost{slots: unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(memory))), n)}, nil
}

func (g *ghost) size() int64 { return int64(len(g.slots)) * 4 }

func (g *ghost) unmap() {
	munmap(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(g.slots))), g.size()))
}

func (g *ghost) bucket(hash uint32) (slots []uint32, tag uint32) {
	at := int(hash) % (len(g.slots) / ways) * ways
	return g.slots[at : at+ways], hash>>15<<16 | 1<<16 // never 0
}

// add remembers a key.
func (g *ghost) add(hash uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clock++
	slots, tag := g.bucket(hash)
	copy(slots[1:], slots)
	slots[0] = tag | uint32(uint16(g.clock/hour))
}

// forget reports whether the key is one of so many that were added last, or nearly, and
// forgets it.
func (g *ghost) forget(hash uint32, last int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	slots, tag := g.bucket(hash)
	for i, v := range slots {
		if v>>16 == tag>>16 {
			slots[i] = 0
			return int64(uint16(g.clock/hour)-uint16(v))*hour <= last
		}
	}
	return false
}
