package recording

import (
	"cmp"

	"phasegate/fixtures/upstream/wire"
)

// Catalog returns what the mock upstream must answer for every path of whose
// answers something is recorded:
//
//   - the status that the path was answered with most often, if that was 3xx
//     (not 304) or 4xx; anything else, and a draw, stands for 200;
//   - with the size that this status was recorded with most often; for 200 with
//     that of a 2xx, and of 206 (a part of the resource) only where there is
//     nothing else. "-" is 0. Of equally frequent sizes it is the larger one.
//     What HEAD was recorded with doesn't count.
func (r *Recording) Catalog() wire.Catalog {
	type tally struct {
		status map[int]int
		size   map[int]map[int64]int // by served status; 206 for itself
	}
	tallies := make([]tally, len(r.paths))
	for o, n := range r.outcomes {
		t := &tallies[o.path]
		if t.status == nil {
			t.status, t.size = map[int]int{}, map[int]map[int64]int{}
		}
		served := servedStatus(int(o.status))
		t.status[served] += n
		sized := served
		switch s := int(o.status); {
		case s == 206:
			sized = 206
		case served == 200 && s/100 != 2:
			continue // 304 and 5xx say nothing of the resource's size
		}
		if !o.head {
			if t.size[sized] == nil {
				t.size[sized] = map[int64]int{}
			}
			t.size[sized][o.size] += n
		}
	}
	catalog := make(wire.Catalog, len(r.paths))
	for path, t := range tallies {
		if t.status == nil {
			continue
		}
		status := mostFrequent(t.status, func(a, b int) bool { return a < b })
		sizes := t.size[status]
		if status == 200 && len(sizes) == 0 {
			sizes = t.size[206]
		}
		catalog[r.paths[path]] = wire.Resource{
			Status: status,
			Size:   mostFrequent(sizes, func(a, b int64) bool { return a > b }),
		}
	}
	return catalog
}

// servedStatus is the status that the mock upstream answers with for a logged
// one.
func servedStatus(logged int) int {
	if logged/100 == 4 || logged/100 == 3 && logged != 304 {
		return logged
	}
	return 200
}

// mostFrequent returns the key with the highest count; of several the one
// that is better than the others. Of none it returns 0.
func mostFrequent[K cmp.Ordered](counts map[K]int, better func(a, b K) bool) K {
	var best K
	n := 0
	for k, c := range counts {
		if c > n || c == n && better(k, best) {
			best, n = k, c
		}
	}
	return best
}
