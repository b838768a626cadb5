package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

// base is what a test binary needs for itself, with room for -race.
const base = 48 * mib

func sample(t *testing.T, s *Sampler) Usage {
	t.Helper()
	u, err := s.Sample()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v, %d processes, %v of CPU time", u, s.Processes(), s.CPUTime())
	return u
}

func within(t *testing.T, what string, got, low, high int64) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: %d MiB; want %d to %d MiB", what, got/mib, low/mib, high/mib)
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	shared := filepath.Join(t.TempDir(), "shared")
	if err := os.WriteFile(shared, make([]byte, 64*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	size := strconv.Itoa(64 * mib)
	for _, tt := range []struct {
		why       string
		args      []string
		processes int
		low, high int64
	}{
		{
			"a single process counts its resident set",
			[]string{"hold", size}, 1, 64 * mib, 64*mib + base,
		},
		{
			"what children hold counts for the tree",
			[]string{"parent", "2", "hold", size}, 3, 128 * mib, 128*mib + 3*base,
		},
		{
			"pages shared by several processes count once, not three times",
			[]string{"parent", "3", "map", shared}, 4, 64 * mib, 64*mib + 2*base,
		},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			pid, _ := launch(t, tt.args...)
			s := New(pid)
			u := sample(t, s)
			if s.Processes() != tt.processes {
				t.Errorf("%d processes; want %d", s.Processes(), tt.processes)
			}
			within(t, "memory", u.Resident, tt.low, tt.high)
			within(t, "peak", u.Peak, u.Resident, tt.high)
		})
	}
}

// The high-water mark shows what was held and given back between two samples.
func TestPeakOfSingleProcess(t *testing.T) {
	// Not parallel: this process is the one that is sampled.
	s := New(os.Getpid())
	before := sample(t, s)
	if err := resident(96 * mib); err != nil {
		t.Fatal(err)
	}
	if err := unix.Munmap(kept); err != nil {
		t.Fatal(err)
	}
	after := sample(t, s)
	if after.Peak < 96*mib || after.Peak < before.Peak {
		t.Errorf("peak %d MiB after 96 MiB were resident, %d MiB before", after.Peak/mib, before.Peak/mib)
	}
}

// The peak of a tree stays when a process ends and takes its memory with it.
func TestPeakOfTreeStays(t *testing.T) {
	t.Parallel()
	s := New(0)
	s.peak = 100 * mib
	pid, _ := launch(t, "hold", strconv.Itoa(mib))
	s.root = pid
	if u := sample(t, s); u.Peak != 100*mib {
		t.Errorf("peak %d MiB; want the earlier 100 MiB", u.Peak/mib)
	}
}

func TestCPUTime(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why   string
		below bool
		args  []string
	}{
		{"of the process itself", false, []string{"burn", "200ms"}},
		{"of a running child", false, []string{"parent", "1", "burn", "200ms"}},
		{"of a child that has ended", false, []string{"waited", "spent", "200ms"}},
		{"of what an adopter waited for, without the adopter's own", true, []string{"parent", "1", "waited", "spent", "200ms"}},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			pid, _ := launch(t, tt.args...)
			s := New(pid)
			s.below = tt.below
			// Two clocks: the kernel rounds each of them to its tick.
			if u := sample(t, s); s.CPUTime() < 180*time.Millisecond {
				t.Errorf("CPU time %v; want the 200ms that were burnt", s.CPUTime())
			} else if u.CPU != 0 {
				t.Errorf("CPU share %v in the first sample; want 0", u.CPU)
			}
		})
	}
}

func TestCPUShare(t *testing.T) {
	t.Parallel()
	pid, _ := launch(t, "hold", "1")
	s := New(pid)
	sample(t, s)
	// As if 10 s had passed in which 2 s less had been used before: share is
	// Δcpu ÷ (Δt × CPUs), here on 4 CPUs.
	s.available = 4
	s.sampled = time.Now().Add(-10 * time.Second)
	s.cpu -= 2 * time.Second
	u := sample(t, s)
	if u.CPU < 0.049 || u.CPU > 0.055 {
		t.Errorf("CPU share %v; want 2 s ÷ (10 s × 4) = 0.05", u.CPU)
	}
	// CPU time that got lost doesn't make the share negative.
	s.cpu = time.Hour
	if u := sample(t, s); u.CPU != 0 || s.CPUTime() != time.Hour {
		t.Errorf("share %v, time %v after a fall; want 0 and no fall", u.CPU, s.CPUTime())
	}
}

// A daemonised process leaves its parent's tree, but not its adopter's.
func TestBelowSeesOrphans(t *testing.T) {
	t.Parallel()
	pid, end := launch(t, "orphan", "hold", strconv.Itoa(64*mib))
	s := Below(pid)
	u := sample(t, s)
	if s.Processes() != 1 {
		t.Errorf("%d processes; want only the orphan: not the adopter, not the one between", s.Processes())
	}
	within(t, "memory", u.Resident, 64*mib, 64*mib+base)
	end()
	if _, err := s.Sample(); !errors.Is(err, ErrGone) {
		t.Errorf("after the end: %v; want ErrGone", err)
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	pid, end := launch(t, "hold", "1")
	s := New(pid)
	sample(t, s)

	t.Run("another process of the same number", func(t *testing.T) {
		other := New(pid)
		other.born = 1
		if _, err := other.Sample(); !errors.Is(err, ErrGone) {
			t.Errorf("%v; want ErrGone", err)
		}
	})
	t.Run("nothing below", func(t *testing.T) {
		if _, err := Below(pid).Sample(); !errors.Is(err, ErrGone) {
			t.Errorf("%v; want ErrGone", err)
		}
	})

	end()
	_, err := s.Sample()
	if !errors.Is(err, ErrGone) {
		t.Errorf("%v; want ErrGone", err)
	}
	if want := fmt.Sprintf("sample process %d: the process has ended", pid); err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
}

// A process that has ended and wasn't waited for is as gone as any.
func TestZombieIsGone(t *testing.T) {
	t.Parallel()
	pid, _ := launch(t, "middle", "hold", "1")
	s := New(pid)
	deadline := time.Now().Add(5 * time.Second)
	for {
		_, err := s.Sample()
		if errors.Is(err, ErrGone) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v; want ErrGone", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func ExampleSampler() {
	s := New(os.Getpid())
	u, err := s.Sample()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Processes() >= 1, u.Resident > 0, u.Peak >= u.Resident)
	// Output: true true true
}

func BenchmarkSample(b *testing.B) {
	s := New(os.Getpid())
	for b.Loop() {
		if _, err := s.Sample(); err != nil {
			b.Fatal(err)
		}
	}
}
