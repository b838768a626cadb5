package arena

import (
	"math/rand/v2"
	"testing"
)

func TestGhostForgets(t *testing.T) {
	t.Parallel()
	g, err := newGhost(64 << 20) // 65,536 slots
	if err != nil {
		t.Fatal(err)
	}
	defer g.unmap()
	r := rand.New(rand.NewPCG(1, 2))
	hashes := make([]uint32, 200_000)
	for i := range hashes {
		hashes[i] = r.Uint32() >> 1
		g.add(hashes[i])
	}
	const last = 30_000
	count := func(hashes []uint32) (known int) {
		for _, hash := range hashes {
			if g.forget(hash, last) {
				known++
			}
		}
		return known
	}
	young := hashes[len(hashes)-last:]
	if got := count(young); got < last*97/100 {
		t.Errorf("%d of the last %d are known", got, last)
	}
	if got := count(young); got > last/100 {
		t.Errorf("%d are known a second time", got)
	}
	for _, hash := range hashes {
		g.add(hash)
	}
	if got := count(hashes[len(hashes)-2*last : len(hashes)-last-hour]); got > last/100 {
		t.Errorf("%d of those before the last %d are known", got, last)
	}
	for i := range hashes {
		hashes[i] = r.Uint32() >> 1
	}
	if got := count(hashes); got > len(hashes)/100 {
		t.Errorf("%d of %d are known that never came", got, len(hashes))
	}
}
