package environment

import (
	"os/exec"
	"syscall"
)

// The signals that a supervisor understands.
const (
	terminateSignal = syscall.SIGTERM // end, with grace
	killSignal      = syscall.SIGQUIT // end now
)

// ownGroup keeps the terminal's signals from the process.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// killGroup kills the process group of a command.
func killGroup(pid int) {
	if pid > 0 {
		syscall.Kill(-pid, syscall.SIGKILL)
	}
}
