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

// SelfCPU returns the CPU time, user and system, that this process has used
// so far, its children not included.
func SelfCPU() time.Duration {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
