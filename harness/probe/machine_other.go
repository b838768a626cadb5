//go:build !linux

package probe

import (
	"errors"
	"time"
)

func hardware() (cpu string, memory int64, kernel string) { return "", 0, "" }

// MachineCPU returns nothing: this platform's CPU times aren't read.
func MachineCPU() (total, stolen time.Duration, err error) { return 0, 0, errors.ErrUnsupported }

// CPUs are not known on this platform.
func CPUs() []int { return nil }

// cpuClock reads nothing: this platform has no such clock.
func cpuClock(int) (time.Duration, bool) { return 0, false }

// SelfCPU returns 0: this platform's CPU times aren't read.
func SelfCPU() time.Duration { return 0 }
