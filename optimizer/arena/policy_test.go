package arena_test

import (
	"fmt"
	"testing"

	"phasegate/optimizer/arena"
)

// roomFor is an arena with room for some 4,000 entries of 1,000 bytes.
func roomFor(t *testing.T, policy arena.Policy) *arena.Arena {
	t.Helper()
	a, err := arena.New(arena.Config{MaxBytes: arena.MinBytes + 4<<20, Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// once puts entries that nobody uses.
func once(a *arena.Arena, name string, n int) {
	for i := range n {
		put(a, fmt.Sprint(name, i), 1000, 1)
	}
}

func use(a *arena.Arena, key string) (found bool) {
	e, found := a.Get([]byte(key))
	e.Release()
	return found
}

func there(a *arena.Arena, key string) (found bool) {
	e, found := a.Peek([]byte(key))
	e.Release()
	return found
}

// What was used twice on trial outlasts any number of entries that are used once, and
// LRU doesn't have that.
func TestAScanDoesNotDriveOutWhatWasUsed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		policy arena.Policy
		want   int
	}{{arena.LRU{}, 0}, {arena.S3FIFO{}, 100}} {
		a := roomFor(t, tt.policy)
		once(a, "before ", 5000)
		for i := range 100 {
			key := fmt.Sprint("used ", i)
			put(a, key, 1000, 1)
			use(a, key)
			use(a, key)
		}
		once(a, "scan ", 50_000)
		stayed := 0
		for i := range 100 {
			if there(a, fmt.Sprint("used ", i)) {
				stayed++
			}
		}
		if stayed != tt.want {
			t.Errorf("%T: %d of 100 stayed, want %d", tt.policy, stayed, tt.want)
		}
	}
}

// A key that comes back soon after its trial passes the next one; one that comes back
// after more than the main ring holds doesn't, nor does one that is new.
func TestAKeyThatComesBackSoonPasses(t *testing.T) {
	t.Parallel()
	a := roomFor(t, arena.S3FIFO{})
	once(a, "before ", 10_000)
	put(a, "late", 1000, 1)
	once(a, "between ", 8000)
	put(a, "soon", 1000, 1)
	once(a, "then ", 1000)
	if there(a, "soon") || there(a, "late") {
		t.Fatal("the trial is longer than a tenth")
	}
	for _, key := range []string{"soon", "late", "new"} {
		put(a, key, 1000, 1)
	}
	once(a, "after ", 1000)
	if !there(a, "soon") || there(a, "late") || there(a, "new") {
		t.Errorf("there are soon: %v, late: %v, new: %v; want only soon", there(a, "soon"), there(a, "late"), there(a, "new"))
	}
}

// A new version of what passed passes, though nobody has used it yet.
func TestANewVersionKeepsItsPlace(t *testing.T) {
	t.Parallel()
	a := roomFor(t, arena.S3FIFO{})
	once(a, "before ", 5000)
	put(a, "used", 1000, 1)
	use(a, "used")
	use(a, "used")
	once(a, "then ", 1000)
	put(a, "used", 1000, 2)
	once(a, "after ", 1000)
	if !there(a, "used") {
		t.Error("it went")
	}
}

// All the memory is used where nothing is used twice, from the first and after it was
// emptied, by bytes and by count.
func TestNoMemoryIsLeftToTheTrial(t *testing.T) {
	t.Parallel()
	lru, a := roomFor(t, arena.LRU{}), roomFor(t, arena.S3FIFO{})
	once(lru, "", 20_000)
	for range 2 {
		once(a, "", 20_000)
		if got, want := a.Stats().Entries, lru.Stats().Entries; got < want*7/10 { // the rest is for what passes
			t.Errorf("%d entries, with LRU %d", got, want)
		}
		a.DeleteFunc(func(_, _ []byte) bool { return true })
	}
	b, err := arena.New(arena.Config{MaxBytes: arena.MinBytes + 4<<20, MaxEntries: 100, Policy: arena.S3FIFO{}})
	if err != nil {
		t.Fatal(err)
	}
	once(b, "", 1000)
	if got := b.Stats().Entries; got != 100 {
		t.Errorf("%d entries, want 100", got)
	}
}

// What is too large for the trial is stored, and so is what finds the trial held.
func TestTheTrialTurnsNothingAway(t *testing.T) {
	t.Parallel()
	a := roomFor(t, arena.S3FIFO{})
	once(a, "before ", 5000)
	if !put(a, "large", int(a.MaxEntrySize())-1000, 1) || !there(a, "large") {
		t.Error("no room for the largest")
	}
	var held []arena.Entry
	for range 2000 { // half the memory
		e, ok := a.Alloc(10, 1000)
		if !ok {
			t.Fatalf("no room after %d", len(held))
		}
		held = append(held, e)
	}
	for _, e := range held {
		e.Release()
	}
}
