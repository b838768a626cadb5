package environment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// lastResort is how long a supervisor goes on killing what doesn't die: a
// process that the kernel holds in an uninterruptible wait.
const lastResort = 5 * time.Second

// Supervise is the program of the hidden command
//
//	phasegate supervise [--grace DURATION] [--remove DIR] [--status FD] [--cpu N] -- COMMAND ARG…
//
// args is what follows "supervise". It runs the command, in a process group of
// its own, until the first of: the command ends; standard input ends, because
// the harness that holds its other end is gone, for whatever reason; SIGTERM,
// SIGINT or SIGHUP. Then it ends every descendant of the command, wherever it
// may have forked or daemonised itself to: SIGTERM, and SIGKILL to what is
// left after the grace time (default 5 s). SIGQUIT cuts the grace time short.
//
// If the harness is gone it then removes DIR. It reports on descriptor FD.
// The result is the exit code: the command's, 128 + N if signal N ended it,
// 127 if it could not be started, 2 for wrong arguments.
func Supervise(args []string) int {
	s, err := parseSupervision(args)
	if err != nil {
		complain("%v", err)
		return 2
	}

	// A child with a parent-death signal gets it when the *thread* that
	// started it ends, so this one stays.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)
	// A complaint to a harness that is gone must not end us before our work is
	// done. (Caught, not ignored: the command would inherit that.)
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, unix.SIGPIPE)
	defer signal.Stop(broken)

	report := func(word, text string) {}
	if s.status > 0 {
		syscall.CloseOnExec(s.status) // the command has no business with it
		status := os.NewFile(uintptr(s.status), "status")
		defer status.Close()
		report = func(word, text string) { fmt.Fprintf(status, "%s %s\n", word, text) }
	}
	lost := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(lost)
	}()
	if s.remove != "" {
		defer func() {
			select {
			case <-lost:
				os.RemoveAll(s.remove)
			default: // the harness does it
			}
		}()
	}

	// Orphaned descendants become our children, so nothing escapes, and once
	// we have no children there are no descendants.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		report(statusError, fmt.Sprintf("become the adopter of orphans: %v", err))
		return 127
	}
	if s.cpu != nil {
		// Of this thread, from which the command has it.
		var only unix.CPUSet
		only.Set(*s.cpu)
		if err := unix.SchedSetaffinity(0, &only); err != nil {
			report(statusError, fmt.Sprintf("keep it to processor %d: %v", *s.cpu, err))
			return 127
		}
	}
	pid, err := start(s.args)
	if err != nil {
		report(statusError, err.Error())
		complain("%v", err)
		return 127
	}
	report(statusPID, strconv.Itoa(pid))

	ended := make(chan unix.WaitStatus, 1)
	alone := make(chan struct{})
	go func() {
		defer close(alone)
		reap(pid, func(status unix.WaitStatus) {
			report(statusExit, describe(status))
			ended <- status
		})
	}()

	asked := make(chan struct{}) // closed by SIGQUIT: no grace
	select {
	case <-alone:
	case <-lost:
	case sig := <-signals:
		if sig == unix.SIGQUIT {
			close(asked)
		}
	case status := <-ended:
		ended <- status // for the exit code
	}
	select {
	case <-asked:
	default:
		go func() {
			for sig := range signals {
				if sig == unix.SIGQUIT {
					close(asked)
					return
				}
			}
		}()
	}
	terminate(alone, asked, s.grace)

	select {
	case status := <-ended:
		if status.Signaled() {
			return 128 + int(status.Signal())
		}
		return status.ExitStatus()
	default:
		return 128 + int(unix.SIGKILL)
	}
}

func complain(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "phasegate supervise: "+format+"\n", args...)
}

// start runs the command in a process group of its own, so that a Ctrl-C at
// the terminal reaches the harness and not the system, and dies with us even
// if we are killed.
func start(args []string) (pid int, err error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	pid, err = syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 0, fmt.Errorf("execute %s: %w", path, err)
	}
	return pid, nil
}

// reap waits for children, ours and adopted ones, until there are none, and
// tells the end of the one with the number pid.
func reap(pid int, tell func(unix.WaitStatus)) {
	for {
		var status unix.WaitStatus
		child, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil: // ECHILD
			return
		case child == pid && (status.Exited() || status.Signaled()):
			tell(status)
			pid = 0 // its number may come again
		}
	}
}

// terminate ends all descendants and returns when alone is closed.
func terminate(alone, now <-chan struct{}, grace time.Duration) {
	for _, pid := range descendants(os.Getpid()) {
		unix.Kill(pid, unix.SIGTERM)
		unix.Kill(pid, unix.SIGCONT) // a stopped process would never see it
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-alone:
		return
	case <-now:
	case <-timer.C:
		if left := len(descendants(os.Getpid())); left > 0 {
			complain("%d process(es) still there %v after SIGTERM: killed", left, grace)
		}
	}
	// Whatever is forked while we look is found at the next look.
	deadline := time.Now().Add(lastResort)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		left := descendants(os.Getpid())
		for _, pid := range left {
			unix.Kill(pid, unix.SIGKILL)
		}
		select {
		case <-alone:
			return
		case <-time.After(pause):
		}
		if time.Now().After(deadline) {
			complain("can't be killed: processes %v", left)
			return
		}
	}
}

// descendants returns the living descendants of pid, without pid itself.
func descendants(pid int) []int {
	procs, err := procfs.AllProcs()
	if err != nil {
		return nil
	}
	children := make(map[int][]int)
	dead := make(map[int]bool)
	for _, p := range procs {
		if stat, err := p.Stat(); err == nil {
			children[stat.PPID] = append(children[stat.PPID], p.PID)
			dead[p.PID] = stat.State == "Z" || stat.State == "X"
		}
	}
	all := []int{pid}
	var living []int
	for i := 0; i < len(all); i++ {
		if i > 0 && !dead[all[i]] {
			living = append(living, all[i])
		}
		all = append(all, children[all[i]]...)
	}
	return living
}

// describe renders a status as os.ProcessState does.
func describe(status unix.WaitStatus) string {
	if status.Signaled() {
		text := "signal: " + status.Signal().String()
		if status.CoreDump() {
			text += " (core dumped)"
		}
		return text
	}
	return "exit status " + strconv.Itoa(status.ExitStatus())
}
