package main

import (
	"math/rand/v2"
	"testing"
)

func TestHitsAreCounted(t *testing.T) {
	t.Parallel()
	// Room for 2: LRU never hits a cycle of 3, the optimum keeps two of it.
	keys := []uint64{1, 2, 3, 1, 2, 3, 1, 2, 3}
	if hits, err := plainHits(keys, 2); err != nil || hits != 0 {
		t.Errorf("plain LRU: %d, %v, want 0", hits, err)
	}
	if hits, err := optimalHits(keys, 2); err != nil || hits != 4 {
		t.Errorf("optimum: %d, %v, want 4", hits, err)
	}
}

// No replacement beats the optimum, and none but the optimum is far from plain LRU on a
// plain zipf load.
func TestReplacementsAreComparable(t *testing.T) {
	t.Parallel()
	keys := zipfKeys(rand.New(rand.NewPCG(1, 2)), 40_000, 10_000, 50, 8000)
	best, err := optimalHits(keys, 512)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := plainHits(keys, 512)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range replacements {
		hits, err := r.hits(keys, 512)
		if err != nil || hits > best || hits < plain*9/10 {
			t.Errorf("%s: %d hits, %v; plain LRU has %d, the optimum %d", r.name, hits, err, plain, best)
		}
	}
}
