package arena_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"phasegate/optimizer/arena"
)

func Example() {
	a, err := arena.New(arena.Config{MaxBytes: 4 << 20})
	if err != nil {
		panic(err)
	}
	e, _ := a.Alloc(10, 5)
	copy(e.Value(), "alpha")
	a.Publish(e, []byte("a"))
	e.Release()
	e, found := a.Get([]byte("a"))
	fmt.Println(found, string(e.Value()), a.Stats().Entries)
	e.Release()
	// Output: true alpha 1
}

// put stores n bytes that tell of the key and the version.
func put(a *arena.Arena, key string, n int, version byte) bool {
	e, ok := a.Alloc(len(key), n)
	if !ok {
		return false
	}
	defer e.Release()
	pattern(e.Value(), key, version)
	return a.Publish(e, []byte(key))
}

func pattern(b []byte, key string, version byte) {
	for i := range b {
		b[i] = version ^ key[i%len(key)] ^ byte(i>>8)
	}
}

// intact reports the version of a value that put stored under key, whole.
func intact(b []byte, key string) (version byte, ok bool) {
	if len(b) == 0 {
		return 0, true
	}
	version = b[0] ^ key[0]
	want := make([]byte, len(b))
	pattern(want, key, version)
	return version, bytes.Equal(b, want)
}

func TestConfigFaultsAreJoined(t *testing.T) {
	t.Parallel()
	_, err := arena.New(arena.Config{MaxBytes: -1, MaxEntries: -2, MaxShare: 2})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"MaxBytes", "MaxEntries", "MaxShare"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("error doesn't name %s: %v", name, err)
		}
	}
}

var policies = []arena.Policy{arena.LRU{}, arena.S3FIFO{}}

// eachPolicy runs the test for each of them.
func eachPolicy(t *testing.T, test func(t *testing.T, policy arena.Policy)) {
	t.Parallel()
	for _, policy := range policies {
		t.Run(fmt.Sprintf("%T", policy), func(t *testing.T) {
			t.Parallel()
			test(t, policy)
		})
	}
}

// Whatever is stored, held, dropped and evicted: what is found is what was stored last
// under that key, what is held doesn't change, and the account is right.
func TestAgreesWithAPlainMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		bound := rapid.Int64Range(arena.MinBytes, arena.MinBytes+(300<<10)).Draw(t, "bound")
		count := rapid.IntRange(0, 1).Draw(t, "bounded") * rapid.IntRange(1, 100).Draw(t, "count")
		policy := rapid.SampledFrom(policies).Draw(t, "policy")
		a, err := arena.New(arena.Config{MaxBytes: bound, MaxEntries: count, Policy: policy})
		if err != nil {
			t.Fatal(err)
		}
		type held struct {
			e       arena.Entry
			key     string
			version byte
		}
		last := map[string]byte{}
		var holds []held
		over := 0 // so many of them may stand beyond the bound: the next that is stored makes it good
		version := byte(0)
		key := rapid.Custom(func(t *rapid.T) string {
			n := rapid.IntRange(0, 300).Draw(t, "n")
			return fmt.Sprintf("key %d %s", n, strings.Repeat("x", n%40))
		})
		fill := func(t *rapid.T) {
			size := rapid.IntRange(1, 3000).Draw(t, "about")
			for i := range rapid.IntRange(1, 300).Draw(t, "many") {
				k := fmt.Sprintf("key %d %s", i, strings.Repeat("x", i%40))
				version++
				if put(a, k, size*(i*7%5)/2, version) {
					last[k] = version
					over = len(holds)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k := key.Draw(t, "key")
				size := rapid.OneOf(rapid.IntRange(0, 2000), rapid.IntRange(0, 1<<19)).Draw(t, "size")
				version++
				if put(a, k, size, version) {
					last[k] = version
					over = len(holds)
				} else if arena.Size(len(k), size) <= a.MaxEntrySize() && len(holds) == 0 {
					t.Fatalf("no room for %d bytes, and nothing is held", size)
				}
			},
			"cut": func(t *rapid.T) {
				k := key.Draw(t, "key")
				size := rapid.IntRange(0, 100_000).Draw(t, "size")
				e, ok := a.Alloc(len(k), size+rapid.IntRange(0, 100_000).Draw(t, "more"))
				if !ok {
					return
				}
				defer e.Release()
				if rapid.Bool().Draw(t, "last") || put(a, "key 1 x", 10, 0) {
					delete(last, "key 1 x")
					a.Delete([]byte("key 1 x"))
				}
				version++
				pattern(e.Value()[:size], k, version)
				if a.Trim(e, size); a.Publish(e, []byte(k)) {
					last[k] = version
					over = len(holds)
				}
			},
			"fill": fill,
			"hold": func(t *rapid.T) {
				k := key.Draw(t, "key")
				if e, ok := a.Get([]byte(k)); ok {
					holds = append(holds, held{e, k, last[k]})
					over = max(over, len(holds))
				}
			},
			"release": func(t *rapid.T) {
				if len(holds) > 0 {
					i := rapid.IntRange(0, len(holds)-1).Draw(t, "i")
					holds[i].e.Release()
					holds = append(holds[:i], holds[i+1:]...)
				}
			},
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "key")
				if _, stored := last[k]; a.Delete([]byte(k)) && !stored {
					t.Fatalf("deleted %q, which wasn't there", k)
				}
				delete(last, k)
			},
			"delete many": func(t *rapid.T) {
				with := rapid.SampledFrom([]byte("0123456789")).Draw(t, "digit")
				a.DeleteFunc(func(k, _ []byte) bool { return k[4] == with })
				for k := range last {
					if k[4] == with {
						delete(last, k)
					}
				}
			},
			"": func(t *rapid.T) {
				for _, h := range holds {
					if v, ok := intact(h.e.Value(), h.key); !ok || len(h.e.Value()) > 0 && v != h.version {
						t.Fatalf("what is held of %q changed: version %d, want %d, whole %v", h.key, v, h.version, ok)
					}
				}
				var entries, size int64
				a.Each(func(k, value []byte) {
					entries++
					size += arena.Size(len(k), len(value))
					want, stored := last[string(k)]
					if v, ok := intact(value, string(k)); !stored || !ok || len(value) > 0 && v != want {
						t.Fatalf("%q: version %d, want %d (%v), whole %v", k, v, want, stored, ok)
					}
				})
				s := a.Stats()
				if s.Entries != entries || s.Bytes != size || s.Bytes > bound || count > 0 && s.Entries > int64(count+over) {
					t.Fatalf("stats %+v, but there are %d entries of %d bytes; %d allowed, of %d", s, entries, size, bound, count)
				}
			},
		})
		for _, h := range holds {
			h.e.Release()
		}
	})
}

// While values come, go, slide and are replaced, whoever holds one reads it whole, and
// nothing is held in the end.
func TestWhatIsHeldStaysWhole(t *testing.T) { eachPolicy(t, heldStaysWhole) }

func heldStaysWhole(t *testing.T, policy arena.Policy) {
	a, err := arena.New(arena.Config{MaxBytes: arena.MinBytes + 200<<10, Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	key := func() string { return fmt.Sprint("key ", rand.IntN(20)*rand.IntN(20)) }
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 1000 {
				k := key()
				switch {
				case g < 3:
					put(a, k, rand.IntN(1+rand.IntN(20_000)), byte(rand.Int()))
				case g == 3 && rand.IntN(10) == 0:
					a.Delete([]byte(k))
				default:
					e, ok := a.Get([]byte(k))
					if !ok {
						continue
					}
					again := e.Hold()
					e.Release()
					if _, ok := intact(again.Value(), k); !ok {
						t.Errorf("%q isn't whole", k)
					}
					again.Release()
				}
			}
		})
	}
	wg.Wait()
	if s := a.Stats(); s.Evictions == 0 {
		t.Error("nothing was tried")
	}
	for i := range 20 { // what was left held would be in the way of the largest
		if !put(a, fmt.Sprint("large ", i%2), int(a.MaxEntrySize())-1000, 1) {
			t.Fatal("no room although nothing is held")
		}
	}
	a.DeleteFunc(func(_, _ []byte) bool { return true })
	if s := a.Stats(); s.Bytes != 0 || s.Entries != 0 {
		t.Errorf("emptied, but %+v", s)
	}
}

// However the rest is held, what finds no room drops nothing, and what has room beside
// it drops about as much as it takes.
func TestWhatIsHeldDoesNotCostTheRest(t *testing.T) { eachPolicy(t, heldCostsNothing) }

func heldCostsNothing(t *testing.T, policy arena.Policy) {
	a := roomFor(t, policy)
	once(a, "before ", 10_000)
	var keys []string
	a.Each(func(key, _ []byte) { keys = append(keys, string(key)) })
	slices.SortFunc(keys, func(x, y string) int { return strings.Compare(fmt.Sprintf("%12s", x), fmt.Sprintf("%12s", y)) }) // as they lie
	free := map[string]bool{}
	for i, key := range keys {
		e, _ := a.Peek([]byte(key))
		if i%100 == 0 { // of 100,000 bytes, about
			defer e.Release()
			continue
		}
		e.Release()
		free[key] = true
	}
	lost := func() (n int) {
		for key := range free {
			if !there(a, key) {
				n++
				delete(free, key)
			}
		}
		return n
	}
	for i := range 50 {
		if put(a, "large", 150_000, 1) {
			t.Fatalf("the %dth found room, with what is held every 100,000 bytes", i+1)
		}
	}
	if n := lost(); n != 0 {
		t.Errorf("%d entries went for what found no room, %d stayed", n, len(free))
	}
	for key := range free {
		use(a, key)
	}
	for i := range 10 {
		if !put(a, fmt.Sprint("fits ", i), 60_000, 1) {
			t.Fatalf("the %dth finds no room, with 100,000 bytes between what is held", i+1)
		}
		if n := lost(); n > 4*70 {
			t.Errorf("%d entries of 1,000 bytes went for one of 60,000", n)
		}
	}
}

// What an entry was cut down by is free memory at once if nothing came after it, and
// otherwise in the next turn.
func TestTrimGivesTheRestBack(t *testing.T) { eachPolicy(t, trims) }

func trims(t *testing.T, policy arena.Policy) {
	a := roomFor(t, policy)
	large := int(a.MaxEntrySize()) - 1000
	for i := range 40 {
		e, ok := a.Alloc(10, large)
		if !ok {
			t.Fatalf("no room for the %dth", i+1)
		}
		if i%2 == 1 {
			put(a, "after", 10, 1)
		}
		n := large / 20 * (i % 20)
		pattern(e.Value()[:n], "cut", byte(i))
		a.Trim(e, n)
		if len(e.Value()) != n || !a.Publish(e, []byte("cut")) {
			t.Fatalf("%d bytes, not %d", len(e.Value()), n)
		}
		e.Release()
		got, _ := a.Get([]byte("cut"))
		if v, ok := intact(got.Value(), "cut"); !ok || n > 0 && v != byte(i) {
			t.Errorf("of %d bytes: version %d, want %d, whole %v", n, v, i, ok)
		}
		got.Release()
		a.Delete([]byte("cut"))
	}
	if policy != (arena.LRU{}) {
		return
	}
	a.DeleteFunc(func(_, _ []byte) bool { return true })
	once(a, "small ", 3000)
	e, ok := a.Alloc(10, 1_000_000) // all there is
	if !ok {
		t.Fatal("no room")
	}
	before := a.Stats().Evictions
	a.Trim(e, 10)
	e.Release()
	once(a, "more ", 900)
	if n := a.Stats().Evictions - before; n != 0 {
		t.Errorf("%d entries went although there was room", n)
	}
}

func TestGetDoesNotAllocate(t *testing.T) {
	a, err := arena.New(arena.Config{MaxBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	key := []byte("a key that is longer than a few bytes")
	put(a, string(key), 10, 1)
	if n := testing.AllocsPerRun(100, func() {
		e, _ := a.Get(key)
		e.Release()
	}); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}

// What is in use survives any number of turns of what is used once; what isn't, goes.
func TestWhatIsUsedStays(t *testing.T) { eachPolicy(t, usedStays) }

func usedStays(t *testing.T, policy arena.Policy) {
	a, err := arena.New(arena.Config{MaxBytes: arena.MinBytes + 1<<20, Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	put(a, "hot", 1000, 1)
	for i := range 10_000 {
		if i == 5000 {
			put(a, "cold", 1000, 1)
		}
		put(a, fmt.Sprint("once ", i), 1000, 1)
		if i%100 == 0 {
			e, ok := a.Get([]byte("hot"))
			if !ok {
				t.Fatalf("dropped after %d others", i+1)
			}
			e.Release()
		}
	}
	if _, ok := a.Peek([]byte("cold")); ok {
		t.Error("what was never used is still there")
	}
}

func BenchmarkGet(b *testing.B) {
	a, err := arena.New(arena.Config{MaxBytes: 4 << 20})
	if err != nil {
		b.Fatal(err)
	}
	keys := make([][]byte, 1024)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "example.test/items/%d", i)
		put(a, string(keys[i]), 100, 1)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e, _ := a.Get(keys[i&1023])
		e.Release()
	}
}
