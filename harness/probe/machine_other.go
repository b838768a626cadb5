//go:build !linux

package probe

import "time"

func hardware() (cpu string, memory int64, kernel string) { return "", 0, "" }

// SelfCPU returns 0: this platform's CPU times aren't read.
func SelfCPU() time.Duration { return 0 }
