package probe

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/procfs"
)

// ErrGone says that no process is left to sample.
var ErrGone = errors.New("the process has ended")

// Usage is what a process tree held and used when it was sampled.
type Usage struct {
	Resident int64   // bytes now
	Peak     int64   // bytes at most, as far as known (see Sampler)
	CPU      float64 // share of the CPUs available (0 to 1) used since the last sample; 0 in the first
}

// Sampler samples one process tree. It isn't safe for concurrent use.
//
// Memory of a single process is its resident set (VmRSS), and Peak the kernel's
// high-water mark of it (VmHWM), which no rhythm of sampling can miss. Of
// several processes it is the sum of their proportional set sizes (Pss of
// smaps_rollup), so that shared pages count once, and Peak is the largest sum
// that was sampled. Where a process's Pss may not be read (it belongs to
// somebody else) its resident set counts instead: too much, never too little.
//
// CPU time is that of every process of the tree, by the clock that the kernel
// keeps of it, and of those that ended and were waited for (cutime, cstime), in
// ticks of 10 ms.
type Sampler struct {
	root      int
	below     bool // the root itself isn't part of the system
	available float64

	born    uint64 // start time of the root: tells it from a later process of its number
	sampled time.Time
	cpu     time.Duration
	peak    int64
	alive   int
}

// New returns a Sampler of the process pid and its descendants.
func New(pid int) *Sampler {
	return &Sampler{root: pid, available: Available()}
}

// Below returns a Sampler of the descendants of the process pid without pid
// itself. Under a supervisor that adopts orphans these are all processes of the
// system, however they were forked.
func Below(pid int) *Sampler {
	s := New(pid)
	s.below = true
	return s
}

// Sample reads the tree's usage now. The error is ErrGone once the root has
// ended (Below: once nothing lives under it).
func (s *Sampler) Sample() (Usage, error) {
	at := time.Now()
	procs, err := s.read()
	if err != nil {
		return Usage{}, err
	}

	var u Usage
	var total time.Duration
	alive := procs[:0:0]
	for _, p := range procs {
		total += waitedCPU(p.stat)
		if !s.below || p.PID != s.root {
			total += ownCPU(p)
			if !dead(p.stat) {
				alive = append(alive, p)
			}
		}
	}
	u.Resident, u.Peak = memory(alive)
	if u.Resident == 0 { // all ended while they were being read
		return Usage{}, s.gone()
	}
	s.peak = max(s.peak, u.Peak)
	u.Peak = s.peak

	// A child whose parent ignores SIGCHLD takes its CPU time with it.
	total = max(total, s.cpu)
	if passed := at.Sub(s.sampled); !s.sampled.IsZero() && passed > 0 {
		u.CPU = (total - s.cpu).Seconds() / (passed.Seconds() * s.available)
	}
	s.cpu, s.sampled, s.alive = total, at, len(alive)
	return u, nil
}

// CPUTime returns the CPU time that the tree had used when it was last sampled,
// since it started, ended processes included. It never falls.
func (s *Sampler) CPUTime() time.Duration { return s.cpu }

// Processes returns how many processes were alive in the last sample.
func (s *Sampler) Processes() int { return s.alive }

type process struct {
	procfs.Proc
	stat procfs.ProcStat
}

// read returns the root and its descendants; those that end meanwhile are
// left out.
func (s *Sampler) read() ([]process, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, fmt.Errorf("sample process %d: %w", s.root, err)
	}
	var procs []process
	for _, pid := range tree(s.root) {
		p, err := fs.Proc(pid)
		if err != nil {
			continue
		}
		stat, err := p.Stat()
		if err != nil {
			continue
		}
		procs = append(procs, process{p, stat})
	}
	if len(procs) == 0 || procs[0].PID != s.root || dead(procs[0].stat) {
		return nil, s.gone()
	}
	if s.born == 0 {
		s.born = procs[0].stat.Starttime
	}
	if procs[0].stat.Starttime != s.born {
		return nil, s.gone()
	}
	return procs, nil
}

func (s *Sampler) gone() error {
	return fmt.Errorf("sample process %d: %w", s.root, ErrGone)
}

// memory returns the bytes resident now, and at most.
func memory(procs []process) (now, peak int64) {
	if len(procs) == 1 {
		status, err := procs[0].NewStatus()
		if err != nil {
			return 0, 0
		}
		return int64(status.VmRSS), int64(max(status.VmHWM, status.VmRSS))
	}
	for _, p := range procs {
		if rollup, err := p.ProcSMapsRollup(); err == nil {
			now += int64(rollup.Pss)
		} else if errors.Is(err, os.ErrPermission) {
			now += int64(p.stat.ResidentMemory())
		}
	}
	return now, now
}

// dead reports whether the process has ended and waits to be reaped.
func dead(stat procfs.ProcStat) bool {
	return stat.State == "Z" || stat.State == "X"
}

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on every
// platform that Go runs on.
const tick = 10 * time.Millisecond

// ownCPU is the process's time without its children's. The ticks of its stat are
// too coarse for differences within a second: 3,000 requests of 30 µs are 9 of them.
func ownCPU(p process) time.Duration {
	if used, ok := cpuClock(p.PID); ok {
		return used
	}
	return time.Duration(p.stat.UTime+p.stat.STime) * tick
}

func waitedCPU(stat procfs.ProcStat) time.Duration {
	return time.Duration(stat.CUTime+stat.CSTime) * tick
}
