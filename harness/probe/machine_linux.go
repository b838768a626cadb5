package probe

import (
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

func hardware() (cpu string, memory int64, kernel string) {
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if infos, err := fs.CPUInfo(); err == nil && len(infos) > 0 {
			cpu = infos[0].ModelName
		}
		if info, err := fs.Meminfo(); err == nil && info.MemTotalBytes != nil {
			memory = int64(*info.MemTotalBytes)
		}
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		kernel = unix.ByteSliceToString(name.Release[:])
	}
	return cpu, memory, kernel
}

// MachineCPU returns the CPU time of all processors since the machine started,
// and how much of it was stolen: a virtual processor had work, and the host
// ran somebody else's (proc(5), /proc/stat).
func MachineCPU() (total, stolen time.Duration, err error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, 0, err
	}
	s, err := fs.Stat()
	if err != nil {
		return 0, 0, err
	}
	c := s.CPUTotal // Guest and GuestNice are in User and Nice
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	return seconds(c.User + c.Nice + c.System + c.Idle + c.Iowait + c.IRQ + c.SoftIRQ + c.Steal), seconds(c.Steal), nil
}

// CPUs are the numbers of the processors that this process may run on; nil where
// that can't be told.
func CPUs() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var list []int
	for cpu := 0; len(list) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			list = append(list, cpu)
		}
	}
	return list
}

// cpuClock reads the CPU-time clock of a process, which counts the threads that
// have ended too (clock_getcpuclockid(3); the number is made as in the kernel's
// MAKE_PROCESS_CPUCLOCK, with CPUCLOCK_SCHED); false if there is no such process.
func cpuClock(pid int) (time.Duration, bool) {
	var used unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|2), &used) != nil {
		return 0, false
	}
	return time.Duration(used.Nano()), true
}

// SelfCPU returns the CPU time, user and system, that this process has used
// so far, its children not included.
func SelfCPU() time.Duration {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
