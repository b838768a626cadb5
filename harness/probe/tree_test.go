package probe

import (
	"os"
	"slices"
	"testing"
)

// Both ways to find a tree find the same one.
func TestChildren(t *testing.T) {
	t.Parallel()
	pid, _ := launch(t, "parent", "3", "parent", "1", "hold", "1")
	all := tree(pid)
	if len(all) != 7 || all[0] != pid {
		t.Fatalf("tree %v; want %d and six more", all, pid)
	}
	scanned := scan()
	for _, p := range all {
		want := slices.Sorted(slices.Values(scanned[p]))
		if listsChildren() {
			if got := slices.Sorted(slices.Values(childrenByTask(p))); !slices.Equal(got, want) {
				t.Errorf("children of %d: %v by its threads, %v by a scan", p, got, want)
			}
		}
	}
	if len(scanned[pid]) != 3 {
		t.Errorf("%d children by a scan; want 3", len(scanned[pid]))
	}
}

func TestParentOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, stat string
		parent    int
		ok        bool
	}{
		{"as the kernel writes it", "7 (sh) S 3 7 7 0 -1 4194560", 3, true},
		{"a name may hold what looks like the end of it", "7 (a) R 9 (b) S 3 7", 3, true},
		{"a name may hold line ends", "7 (a\n) S 1) S 3 7", 3, true},
		{"cut short", "7 (sh) S", 0, false},
		{"empty: the process ended while it was read", "", 0, false},
		{"not a number", "7 (sh) S x", 0, false},
	} {
		if parent, ok := parentOf([]byte(tt.stat)); parent != tt.parent || ok != tt.ok {
			t.Errorf("%s: %q: %d, %t; want %d, %t", tt.why, tt.stat, parent, ok, tt.parent, tt.ok)
		}
	}
}

func FuzzParentOf(f *testing.F) {
	self, _ := os.ReadFile("/proc/self/stat")
	f.Add(self)
	f.Add([]byte("7 (a) R 9 (b) S 3 7"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if parent, ok := parentOf(stat); ok && parent < 0 {
			t.Errorf("%q: parent %d", stat, parent)
		}
	})
}
