package main

import (
	"bufio"
	"compress/gzip"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"sort"
	"strconv"
	"text/tabwriter"

	"github.com/maypok86/otter/v2"

	"phasegate/optimizer/arena"
	"phasegate/optimizer/lru"
)

// replacements are what is compared. All objects have 1 KiB, and each replacement has
// room for so many of them. Plain LRU, otter and Belady's optimum count objects and
// nothing else. The two of the arena have the same bytes, in which entries with their
// keys, the index and s3fifo's table of dropped keys must fit: as many bytes as it takes
// for lru to keep that many objects. Each key is asked for in turn, and put after a miss.
var replacements = []struct {
	name string
	hits func(keys []uint64, room int) (int, error)
}{
	{"plain LRU", plainHits},
	{"lru (ours)", func(keys []uint64, room int) (int, error) { return arenaHits(keys, room, arena.LRU{}) }},
	{"s3fifo (ours)", func(keys []uint64, room int) (int, error) { return arenaHits(keys, room, arena.S3FIFO{}) }},
	{"otter (W-TinyLFU)", otterHits},
	{"optimum (Belady)", optimalHits},
}

// rooms are the sizes of the caches, in objects.
var rooms = []int{512, 2048, 8192, 32768}

const objectBytes = 1 << 10

// hitRatios prints the hit ratio of each replacement, on the recorded keys of a file, one
// number a line, perhaps gzipped, and on generated ones.
func hitRatios(w io.Writer, file string) error {
	const requests, universe = 400_000, 200_000
	generated := func(renewed, scans int) []uint64 {
		return zipfKeys(rand.New(rand.NewPCG(7, 11)), requests, universe, renewed, scans)
	}
	loads := []struct {
		name string
		keys []uint64
	}{
		{"zipf", generated(0, 0)},
		{"zipf, 1 in 50 asks for one that is new in its rank", generated(50, 0)},
		{"zipf, each 20,000 a scan of 10,000", generated(0, 20_000)},
	}
	switch recorded, err := readKeys(file); {
	case errors.Is(err, fs.ErrNotExist), file == "":
		fmt.Fprintf(w, "SKIPPED: recorded keys: there is no file %q; name one, of a number a line\n\n", file)
	case err != nil:
		return fmt.Errorf("read the recorded keys: %w", err)
	default:
		loads = append(loads, loads[0])
		copy(loads[1:], loads)
		loads[0].name, loads[0].keys = "recorded", recorded
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "KEYS\tROOM")
	for _, r := range replacements {
		fmt.Fprintf(table, "\t%s", r.name)
	}
	fmt.Fprintln(table)
	for _, load := range loads {
		different := map[uint64]bool{}
		for _, key := range load.keys {
			different[key] = true
		}
		fmt.Fprintf(w, "%s: %d requests, %d different keys\n", load.name, len(load.keys), len(different))
		for _, room := range rooms {
			if room > len(different)/2 {
				continue // nearly all fit
			}
			fmt.Fprintf(table, "%s\t%d", load.name, room)
			for _, r := range replacements {
				hits, err := r.hits(load.keys, room)
				if err != nil {
					return fmt.Errorf("%s, room for %d, %s: %w", load.name, room, r.name, err)
				}
				fmt.Fprintf(table, "\t%.2f %%", 100*float64(hits)/float64(len(load.keys)))
			}
			fmt.Fprintln(table)
		}
	}
	fmt.Fprintln(w)
	return table.Flush()
}

// readKeys reads one number a line.
func readKeys(name string) (keys []uint64, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text := bufio.NewReader(file)
	if magic, _ := text.Peek(2); string(magic) == "\x1f\x8b" {
		unzipped, err := gzip.NewReader(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		text = bufio.NewReader(unzipped)
	}
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		key, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: found %q; allowed is a number", name, len(keys)+1, lines.Text())
		}
		keys = append(keys, key)
	}
	return keys, lines.Err()
}

// zipfKeys draws requests for universe keys with popularity 1/rank. One in renewed gives
// a rank, drawn alike, to a key that is new; after each so many of scans, half as many
// keys come that never come again. 0 is never.
func zipfKeys(r *rand.Rand, requests, universe, renewed, scans int) []uint64 {
	sum := make([]float64, universe)
	total := 0.0
	ranks := make([]uint64, universe)
	for i := range sum {
		total += 1 / float64(i+1)
		sum[i], ranks[i] = total, uint64(i)
	}
	draw := func() int { return sort.SearchFloat64s(sum, r.Float64()*total) }
	next := uint64(universe)
	keys := make([]uint64, 0, requests)
	for i := 1; len(keys) < requests; i++ {
		if renewed > 0 && i%renewed == 0 {
			ranks[draw()] = next
			next++
		}
		keys = append(keys, ranks[draw()])
		if scans > 0 && i%scans == 0 {
			for range scans / 2 {
				keys = append(keys, next)
				next++
			}
		}
	}
	return keys[:requests]
}

func plainHits(keys []uint64, room int) (hits int, err error) {
	c, err := lru.New[struct{}](lru.Config{MaxBytes: int64(room), Shards: 1})
	if err != nil {
		return 0, err
	}
	for _, key := range keys {
		k := binary.BigEndian.AppendUint64(nil, key)
		if _, ok := c.Get(k); ok {
			hits++
		} else {
			c.Put(k, struct{}{}, 1)
		}
	}
	return hits, nil
}

// arenaHits has an arena of the bytes in which lru keeps so many objects.
func arenaHits(keys []uint64, room int, policy arena.Policy) (hits int, err error) {
	bytes, err := arenaBytes(room)
	if err != nil {
		return 0, err
	}
	a, err := arena.New(arena.Config{MaxBytes: bytes, Policy: policy})
	if err != nil {
		return 0, err
	}
	for _, key := range keys {
		hit, err := ask(a, key)
		if err != nil {
			return 0, err
		}
		if hit {
			hits++
		}
	}
	return hits, nil
}

// arenaBytes finds the bytes by trying.
func arenaBytes(room int) (int64, error) {
	bytes := arena.MinBytes/2 + int64(room)*arena.Size(8, objectBytes)
	for range 20 {
		a, err := arena.New(arena.Config{MaxBytes: bytes})
		if err != nil {
			return 0, err
		}
		for key := range 2 * room {
			if _, err := ask(a, uint64(key)); err != nil {
				return 0, err
			}
		}
		missing := int64(room) - a.Stats().Entries
		if missing == 0 {
			return bytes, nil
		}
		bytes += missing * arena.Size(8, objectBytes)
	}
	return 0, fmt.Errorf("find the bytes in which %d objects are kept: not found in 20 steps, the last of %d", room, bytes)
}

// ask asks for a key, and puts it after a miss.
func ask(a *arena.Arena, key uint64) (hit bool, err error) {
	k := binary.BigEndian.AppendUint64(make([]byte, 0, 8), key)
	if e, ok := a.Get(k); ok {
		e.Release()
		return true, nil
	}
	e, ok := a.Alloc(len(k), objectBytes)
	if !ok {
		return false, errors.New("no room for an object")
	}
	defer e.Release()
	if !a.Publish(e, k) {
		return false, errors.New("an object isn't taken")
	}
	return false, nil
}

// otterHits has otter do its work at once, on the caller's time.
func otterHits(keys []uint64, room int) (hits int, err error) {
	c, err := otter.New(&otter.Options[uint64, struct{}]{MaximumSize: room, Executor: func(work func()) { work() }})
	if err != nil {
		return 0, err
	}
	defer c.StopAllGoroutines()
	for _, key := range keys {
		if _, ok := c.GetIfPresent(key); ok {
			hits++
		} else {
			c.Set(key, struct{}{})
		}
		c.CleanUp()
	}
	return hits, nil
}

// optimalHits drops whatever is used again last, be it the newest.
func optimalHits(keys []uint64, room int) (hits int, err error) {
	next := make([]int, len(keys)) // use of the same key
	last := map[uint64]int{}
	for i := len(keys) - 1; i >= 0; i-- {
		next[i] = len(keys)
		if n, ok := last[keys[i]]; ok {
			next[i] = n
		}
		last[keys[i]] = i
	}
	stored := map[uint64]int{} // key → its next use
	var order uses
	for i, key := range keys {
		if _, ok := stored[key]; ok {
			hits++
		}
		stored[key] = next[i]
		heap.Push(&order, nextUse{next[i], key})
		for len(stored) > room {
			// What is out of date in the heap was due before now, so it is never on top
			// of what is stored.
			delete(stored, heap.Pop(&order).(nextUse).key)
		}
	}
	return hits, nil
}

type nextUse struct {
	at  int
	key uint64
}

// uses is a heap with the last of them on top.
type uses []nextUse

func (u uses) Len() int           { return len(u) }
func (u uses) Less(i, j int) bool { return u[i].at > u[j].at }
func (u uses) Swap(i, j int)      { u[i], u[j] = u[j], u[i] }
func (u *uses) Push(x any)        { *u = append(*u, x.(nextUse)) }
func (u *uses) Pop() any {
	last := (*u)[len(*u)-1]
	*u = (*u)[:len(*u)-1]
	return last
}
