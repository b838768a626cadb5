package lru_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"phasegate/optimizer/lru"
)

func Example() {
	c, err := lru.New[string](lru.Config{MaxBytes: 100, Shards: 1})
	if err != nil {
		panic(err)
	}
	c.Put([]byte("a"), "alpha", 60)
	c.Put([]byte("b"), "beta", 60) // no room for both
	_, a := c.Get([]byte("a"))
	b, _ := c.Get([]byte("b"))
	fmt.Println(a, b, c.Stats())
	// Output: false beta {60 1 1}
}

func mustNew[V any](t testing.TB, cfg lru.Config) *lru.Cache[V] {
	t.Helper()
	c, err := lru.New[V](cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConfigFaultsAreJoined(t *testing.T) {
	t.Parallel()
	_, err := lru.New[int](lru.Config{MaxBytes: -1, MaxEntries: -2, Shards: -3, MaxShare: 2})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range []string{"MaxBytes", "MaxEntries", "Shards", "MaxShare"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("error doesn't name %s: %v", name, err)
		}
	}
}

// model is the LRU anyone would write first: a slice in order of use.
type model struct {
	maxBytes, maxEntry int64
	maxEntries         int
	entries            []entry // most recently used first
}

type entry struct {
	key   string
	value int
	size  int64
}

func (m *model) find(key string) int {
	return slices.IndexFunc(m.entries, func(e entry) bool { return e.key == key })
}

func (m *model) get(key string) (int, bool) {
	i := m.find(key)
	if i < 0 {
		return 0, false
	}
	e := m.entries[i]
	m.entries = slices.Insert(slices.Delete(m.entries, i, i+1), 0, e)
	return e.value, true
}

func (m *model) put(e entry) bool {
	if e.size <= 0 || e.size > m.maxEntry {
		return false
	}
	if i := m.find(e.key); i >= 0 {
		m.entries = slices.Delete(m.entries, i, i+1)
	}
	m.entries = slices.Insert(m.entries, 0, e)
	for m.bytes() > m.maxBytes || m.maxEntries > 0 && len(m.entries) > m.maxEntries {
		m.entries = m.entries[:len(m.entries)-1]
	}
	return true
}

func (m *model) bytes() (sum int64) {
	for _, e := range m.entries {
		sum += e.size
	}
	return sum
}

func TestOneShardIsExactlyThePlainModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &model{maxBytes: rapid.Int64Range(1, 60).Draw(t, "maxBytes"), maxEntries: rapid.IntRange(0, 6).Draw(t, "maxEntries")}
		m.maxEntry = m.maxBytes
		c, err := lru.New[int](lru.Config{MaxBytes: m.maxBytes, MaxEntries: m.maxEntries, Shards: 1})
		if err != nil {
			t.Fatal(err)
		}
		key := rapid.SampledFrom([]string{"", "a", "b", "c", "dd", "e", "f", "g"})
		t.Repeat(map[string]func(*rapid.T){
			"get": func(t *rapid.T) {
				k := key.Draw(t, "key")
				got, ok := c.Get([]byte(k))
				want, wantOK := m.get(k)
				if got != want || ok != wantOK {
					t.Fatalf("Get(%q) = %d, %v; model says %d, %v", k, got, ok, want, wantOK)
				}
			},
			"put": func(t *rapid.T) {
				e := entry{key.Draw(t, "key"), rapid.Int().Draw(t, "value"), rapid.Int64Range(-1, 70).Draw(t, "size")}
				if got, want := c.Put([]byte(e.key), e.value, e.size), m.put(e); got != want {
					t.Fatalf("Put(%v) = %v, model says %v", e, got, want)
				}
			},
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "key")
				i := m.find(k)
				if got := c.Delete([]byte(k)); got != (i >= 0) {
					t.Fatalf("Delete(%q) = %v, model says %v", k, got, i >= 0)
				}
				if i >= 0 {
					m.entries = slices.Delete(m.entries, i, i+1)
				}
			},
			"": func(t *rapid.T) {
				for _, e := range m.entries {
					if got, ok := c.Peek([]byte(e.key)); !ok || got != e.value {
						t.Fatalf("Peek(%q) = %d, %v; model holds %d", e.key, got, ok, e.value)
					}
				}
				if s := c.Stats(); s.Bytes != m.bytes() || s.Entries != int64(len(m.entries)) {
					t.Fatalf("stats %+v; model holds %d bytes in %d entries", s, m.bytes(), len(m.entries))
				}
			},
		})
	})
}

func TestManyShardsKeepTheBoundsAndTheLastPut(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		max := rapid.Int64Range(2, 500).Draw(t, "maxBytes")
		c, err := lru.New[int](lru.Config{MaxBytes: max, Shards: 8, MaxShare: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		for i, size := range rapid.SliceOfN(rapid.Int64Range(1, max), 1, 100).Draw(t, "sizes") {
			key := []byte{byte(i % 37)}
			stored := c.Put(key, i, size)
			if stored != (size <= c.MaxEntrySize()) {
				t.Fatalf("Put of %d bytes = %v, largest allowed is %d", size, stored, c.MaxEntrySize())
			}
			if got, ok := c.Get(key); stored && (!ok || got != i) {
				t.Fatalf("just put %d, got %d, %v", i, got, ok)
			}
			if s := c.Stats(); s.Bytes > max || s.Bytes < 0 || s.Entries < 0 {
				t.Fatalf("bound of %d bytes broken: %+v", max, s)
			}
		}
		c.DeleteFunc(func(string, int) bool { return true })
		if s := c.Stats(); s.Bytes != 0 || s.Entries != 0 {
			t.Fatalf("emptied, but %+v", s)
		}
	})
}

func TestBoundHoldsUnderConcurrency(t *testing.T) {
	t.Parallel()
	const max = 10_000
	c := mustNew[int](t, lru.Config{MaxBytes: max, MaxEntries: 50, Shards: 4})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2_000 {
				key := binary.LittleEndian.AppendUint32(nil, uint32((i*7+g)%300))
				switch i % 5 {
				case 0:
					c.Delete(key)
				case 1, 2:
					c.Get(key)
				default:
					c.Put(key, i, int64(100+i%900))
				}
				if s := c.Stats(); s.Bytes > max || s.Entries > 50 {
					t.Errorf("bounds broken: %+v", s)
					return
				}
			}
		})
	}
	wg.Wait()
	var bytes, entries int64
	c.DeleteFunc(func(string, int) bool { entries++; return false })
	if s := c.Stats(); s.Entries != entries {
		t.Errorf("stats count %d entries, there are %d", s.Entries, entries)
	}
	c.DeleteFunc(func(string, int) bool { return true })
	if bytes = c.Stats().Bytes; bytes != 0 {
		t.Errorf("%d bytes left in an empty cache", bytes)
	}
}

func TestReplacingNeverShowsAMiss(t *testing.T) {
	t.Parallel()
	c := mustNew[int](t, lru.Config{MaxBytes: 1_000, Shards: 1})
	c.Put([]byte("hot"), 0, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 5_000 {
			c.Put([]byte("hot"), i, 100+int64(i%3))
		}
	})
	for range 5_000 {
		if _, ok := c.Get([]byte("hot")); !ok {
			t.Error("a reader saw neither the old nor the new value")
			break
		}
	}
	wg.Wait()
}

func TestGetDoesNotAllocate(t *testing.T) {
	c := mustNew[*int](t, lru.Config{MaxBytes: 1_000})
	key := []byte("a key that is longer than a few bytes")
	c.Put(key, new(int), 10)
	if n := testing.AllocsPerRun(100, func() { c.Get(key) }); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}

func BenchmarkGet(b *testing.B) {
	c := mustNew[int](b, lru.Config{MaxBytes: 1 << 20})
	keys := make([][]byte, 1024)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "example.test/items/%d", i)
		c.Put(keys[i], i, 100)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Get(keys[i&1023])
	}
}
