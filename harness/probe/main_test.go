package probe

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The test binary, started again with one of these as its first argument, is a
// process to be sampled. Each prints a line when it is as its name says, and
// ends when its standard input does.
var roles = map[string]func(args []string){
	"hold":   hold,    // BYTES: of its own memory
	"map":    mapFile, // FILE: a shared mapping, all of it resident
	"burn":   burn,    // DURATION: of CPU time, then wait
	"spent":  spent,   // DURATION: then end at once
	"parent": parent,  // N ROLE ARGS…: N children of that role, all running
	"waited": waited,  // ROLE ARGS…: a child that has ended and was waited for
	"orphan": orphan,  // ROLE ARGS…: a grandchild whose parent has ended
	"middle": middle,  // ROLE ARGS…: starts it and ends
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if role := roles[os.Args[1]]; role != nil {
			role(os.Args[2:])
			return
		}
	}
	// Under -race a process would wait for a second before it ends.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	goleak.VerifyTestMain(m)
}

// wait tells the test that all is set up, and blocks until it is over.
func wait() {
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var kept []byte

// resident keeps size bytes resident, outside of the Go heap: under -race that
// one takes several times as much.
func resident(size int) (err error) {
	kept, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	return err
}

func hold(args []string) {
	size, err := strconv.Atoi(args[0])
	check(err)
	check(resident(size))
	wait()
}

func mapFile(args []string) {
	f, err := os.Open(args[0])
	check(err)
	info, err := f.Stat()
	check(err)
	kept, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	check(err)
	wait()
}

func spent(args []string) {
	d, err := time.ParseDuration(args[0])
	check(err)
	for SelfCPU() < d {
	}
}

func burn(args []string) {
	spent(args)
	wait()
}

func start(args []string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	out, err := cmd.StdoutPipe()
	check(err)
	check(cmd.Start())
	bufio.NewReader(out).ReadString('\n')
	return cmd
}

func parent(args []string) {
	n, err := strconv.Atoi(args[0])
	check(err)
	for range n {
		start(args[1:])
	}
	wait()
}

func waited(args []string) {
	check(start(args).Wait())
	wait()
}

// orphan is a supervisor in small: it adopts what its descendants leave.
func orphan(args []string) {
	check(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	check(start(append([]string{"middle"}, args...)).Wait())
	wait()
}

func middle(args []string) {
	start(args)
	fmt.Println("ready")
}

// launch starts the test binary in a role and returns its PID once it is
// ready, and a function that ends it; it ends with the test at the latest.
func launch(t *testing.T, args ...string) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			in.Close()
			cmd.Wait()
		}
	}
	t.Cleanup(end)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q: printed %q, %v", args, line, err)
	}
	return cmd.Process.Pid, end
}
