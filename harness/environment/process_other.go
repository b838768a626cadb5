//go:build !linux

package environment

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

var (
	terminateSignal = os.Interrupt
	killSignal      = os.Kill
)

func ownGroup(*exec.Cmd) {}
func killGroup(int)      {}

// Supervise needs Linux: it is the kernel that hands orphans to an adopter.
func Supervise(args []string) int {
	_, err := parseSupervision(args)
	fmt.Fprintln(os.Stderr, "phasegate supervise: not on", runtime.GOOS, err)
	return 2
}
