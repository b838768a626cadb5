package arena

// Policy decides which entries stay. An entry has a mark, 0 when it is new. The memory
// is one ring, or two: with a trial, what is new lies there first, and must earn its
// place in the main ring.
type Policy interface {
	// Trial is the share of the memory for the trial, below 1; 0: there is none.
	Trial() float64
	// Returned is the mark of an entry on trial that isn't quite new: it replaces one
	// that had passed, or its key was dropped from the trial not long ago.
	Returned() uint32
	// Used returns the mark of an entry that is used.
	Used(mark uint32) uint32
	// Passes says whether an entry at the end of its trial goes on to the main ring, where
	// it has no mark.
	Passes(mark uint32) bool
	// Spare says whether an entry of the main ring whose turn has come stays for another,
	// and with which mark.
	Spare(mark uint32) (next uint32, stays bool)
}

// LRU gives another turn to what was used in the last one.
type LRU struct{}

// Trial is none.
func (LRU) Trial() float64 { return 0 }

// Returned is for policies with a trial.
func (LRU) Returned() uint32 { return 0 }

// Used marks the entry.
func (LRU) Used(uint32) uint32 { return 1 }

// Passes is for policies with a trial.
func (LRU) Passes(uint32) bool { return false }

// Spare takes the mark.
func (LRU) Spare(mark uint32) (uint32, bool) { return 0, mark > 0 }

// S3FIFO is the policy of Yang et al., "FIFO queues are all you need for cache eviction"
// (SOSP 2023): most of what comes is never used again, so it goes after a short trial,
// and what is in use isn't driven out by it. The mark counts uses, up to three.
//
// It differs in that a key that comes back soon after its trial is on trial again, with
// the mark that lets it pass, since Alloc doesn't know the key; and in that entries
// larger than a quarter of the trial have none.
type S3FIFO struct{}

// Trial is a tenth.
func (S3FIFO) Trial() float64 { return 0.1 }

// Returned counts as used twice.
func (S3FIFO) Returned() uint32 { return 2 }

// Used counts to three.
func (S3FIFO) Used(mark uint32) uint32 { return min(mark+1, 3) }

// Passes wants two uses.
func (S3FIFO) Passes(mark uint32) bool { return mark >= 2 }

// Spare takes one use off.
func (S3FIFO) Spare(mark uint32) (uint32, bool) { return max(mark, 1) - 1, mark > 0 }
