package environment

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// How long a supervisor may take for its own part, beside the process's.
const (
	startTime = 10 * time.Second // to come up
	stopTime  = 3 * time.Second  // to end, after the grace time
	drainTime = time.Second      // to hand over the last log lines
)

// patience is how long a program of the user's toolchain has to tidy up.
const patience = 5 * time.Second

// Gently makes the end of a command's context interrupt it, so that it can remove
// what it has made, as go build does, and end its children; it is killed if that
// takes long.
func Gently(cmd *exec.Cmd) *exec.Cmd {
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = patience
	return cmd
}

// process is a running command with its supervisor, seen from the harness.
type process struct {
	command    []string
	pid        atomic.Int64 // of the command, once it is executing
	supervisor int
	log        *log
	logFile    string
	first      chan string   // the first line of standard output
	died       chan struct{} // closed when the command has ended
	ended      chan struct{} // closed when nothing of it is left, its log included

	cmd     *exec.Cmd
	grace   time.Duration
	explain func(how string) string // adds what else is known of its end
	begun   time.Time

	mu       sync.Mutex
	stopping bool
	exit     string // how the command ended by itself
	err      error  // of the end: left processes, the log
}

// Environ returns this process's environment without what the optimizer would take
// for settings: those are the scenario's, which the result tells.
func Environ() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "OPTIMIZER_") })
}

// spawner starts processes.
type spawner struct {
	self   []string
	logDir string
	temp   string
	grace  time.Duration
	cpu    *int // that what is started is kept to; nil for any

	explain func(how string) string // of the process; nil adds nothing
}

// spawn runs a command under a supervisor and waits until it is executing. The
// error is an *Error or the context's.
func (s spawner) spawn(ctx context.Context, name string, command []string) (*process, error) {
	const op = "start it"
	fail := func(err error, hint string) (*process, error) {
		return nil, &Error{Op: op, System: name, Err: err, Hint: hint}
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		hint := fmt.Sprintf("Install %s or give its full path; PATH is %s.", command[0], os.Getenv("PATH"))
		if strings.ContainsRune(command[0], filepath.Separator) {
			hint = "Check that this path names an executable file."
		}
		return fail(err, hint)
	}
	file := filepath.Join(s.logDir, name+".log")
	log, err := createLog(file)
	if err != nil {
		return fail(err, "Choose an output folder that can be written.")
	}

	p := &process{
		command: command, log: log, logFile: file, grace: s.grace, explain: s.explain, begun: time.Now(),
		first: make(chan string, 1), died: make(chan struct{}), ended: make(chan struct{}),
	}
	supervision := supervision{remove: s.temp, grace: s.grace, status: 3, cpu: s.cpu, args: append([]string{path}, command[1:]...)}
	p.cmd = exec.Command(s.self[0], append(append([]string(nil), s.self[1:]...), supervision.command()...)...)
	// The supervisor's standard input ends when this process does. No
	// parent-death signal: that is sent when the starting thread ends, and
	// threads of this process come and go.
	lifeline, err := p.cmd.StdinPipe()
	if err != nil {
		return fail(errors.Join(err, log.close()), "")
	}
	status, write, err := os.Pipe()
	if err != nil {
		return fail(errors.Join(err, lifeline.Close(), log.close()), "")
	}
	out := &stream{log: log, first: func(line string) { p.first <- line }}
	errs := &stream{log: log}
	p.cmd.Stdout, p.cmd.Stderr = out, errs
	p.cmd.Env = Environ()
	p.cmd.ExtraFiles = []*os.File{write} // descriptor 3
	p.cmd.WaitDelay = drainTime
	ownGroup(p.cmd)
	err = p.cmd.Start()
	write.Close()
	if err != nil {
		return fail(errors.Join(fmt.Errorf("start the supervisor: %w", err), status.Close(), lifeline.Close(), log.close()), "")
	}
	p.supervisor = p.cmd.Process.Pid

	started := make(chan error, 1)
	go func() {
		p.follow(status, started)
		p.orphaned()
		err := p.cmd.Wait()
		out.end()
		errs.end()
		p.finish(err, lifeline, status)
	}()

	timer := time.NewTimer(startTime)
	defer timer.Stop()
	select {
	case err = <-started:
		if err != nil {
			<-p.ended
			return nil, p.failed(name, op, err, "")
		}
		return p, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = &Error{Op: op, System: name, Err: fmt.Errorf("its supervisor %q said nothing for %v", p.cmd.Args, startTime)}
	}
	return nil, errors.Join(err, p.stop(ctx))
}

// failed wraps an error about a process with the last lines of its log.
func (p *process) failed(name, op string, err error, hint string) *Error {
	return &Error{Op: op, System: name, Err: err, Hint: hint, Log: p.log.lines(20), File: p.logFile}
}

// follow reads the supervisor's reports until it has ended. It sends the
// outcome of the start once.
func (p *process) follow(status io.Reader, started chan<- error) {
	running := false
	reports := bufio.NewScanner(status)
	for reports.Scan() {
		word, text, _ := strings.Cut(reports.Text(), " ")
		switch word {
		case statusPID:
			if pid, err := strconv.Atoi(text); err == nil {
				p.pid.Store(int64(pid))
				running = true
				started <- nil
			}
		case statusError:
			started <- errors.New(text)
			running = true
		case statusExit:
			p.end(text)
		}
	}
	if !running {
		started <- errors.New("its supervisor ended without a word")
	}
}

// end records how the command ended.
func (p *process) end(how string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.died:
		return
	default:
	}
	if !p.stopping {
		p.exit = fmt.Sprintf("%s after %.1f s", how, time.Since(p.begun).Seconds())
		if p.explain != nil {
			p.exit = p.explain(p.exit)
		}
	}
	close(p.died)
}

// orphaned takes care of what a supervisor leaves that ended without saying how
// its command did: it was killed, and the command with it. The command's group
// is all that can still be found of the rest.
func (p *process) orphaned() {
	select {
	case <-p.died:
	default:
		killGroup(int(p.pid.Load()))
	}
}

// finish is the end of the supervisor.
func (p *process) finish(waited error, files ...io.Closer) {
	select {
	case <-p.died:
	default:
		p.end(fmt.Sprintf("its supervisor ended (%v)", p.cmd.ProcessState))
	}
	var err error
	if errors.Is(waited, exec.ErrWaitDelay) {
		err = errors.New("a process that can't be killed holds its output open")
	}
	for _, f := range files {
		// The lifeline may have been closed by Wait.
		if closed := f.Close(); closed != nil && !errors.Is(closed, os.ErrClosed) {
			err = errors.Join(err, closed)
		}
	}
	if closed := p.log.close(); closed != nil {
		err = errors.Join(err, fmt.Errorf("write its log: %w", closed))
	}
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	close(p.ended)
}

// stop ends the process and all its descendants: SIGTERM, and SIGKILL after
// the grace time, or at once when ctx ends.
func (p *process) stop(ctx context.Context) error {
	p.mu.Lock()
	p.stopping = true
	p.mu.Unlock()

	p.cmd.Process.Signal(terminateSignal)
	timer := time.NewTimer(p.grace + stopTime)
	defer timer.Stop()
	select {
	case <-p.ended:
		return p.outcome()
	case <-ctx.Done():
		p.cmd.Process.Signal(killSignal)
	case <-timer.C:
	}
	timer.Reset(stopTime)
	select {
	case <-p.ended:
		return p.outcome()
	case <-timer.C:
	}
	// The supervisor itself hangs.
	killGroup(int(p.pid.Load()))
	p.cmd.Process.Kill()
	timer.Reset(stopTime)
	select {
	case <-p.ended:
		return p.outcome()
	case <-timer.C:
		return fmt.Errorf("process %d (supervisor %d) could not be ended", p.pid.Load(), p.supervisor)
	}
}

func (p *process) outcome() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// exited returns how the command ended by itself, "" if it didn't.
func (p *process) exited() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit
}

// drained waits, for a bounded time, until a dead process's log is complete.
func (p *process) drained() {
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
	}
}
