package environment

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"
)

// eventually waits, as long as a loaded machine may need, until done.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// alive returns which of the processes are alive.
func alive(pids []int) (living []int) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, state, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " ")
		if state[0] != 'Z' && state[0] != 'X' {
			living = append(living, pid)
		}
	}
	return living
}

func TestSuperviseExitCode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		args   []string
		code   int
		report string
	}{
		{"success", []string{"sh", "-c", "exit 0"}, 0, "exit exit status 0\n"},
		{"the command's own code", []string{"sh", "-c", "exit 3"}, 3, "exit exit status 3\n"},
		{"killed by a signal: 128 + its number, as shells have it", []string{"sh", "-c", "kill -KILL $$"}, 137, "exit signal: killed\n"},
		{"flags after the command are the command's", []string{"sh", "-c", "exit $1", "x", "4"}, 4, "exit exit status 4\n"},
		{"not found", []string{"/no/such/program"}, 127, "error "},
		{"not executable", []string{"/etc/passwd"}, 127, "error "},
		{"what the command leaves behind doesn't hold it up", []string{"sh", "-c", "setsid sleep 1000 & exit 5"}, 5, "exit exit status 5\n"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			s := supervision{grace: time.Second, status: 3, args: tt.args}
			cmd := exec.Command(executable(), s.command()...)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			status := filepath.Join(t.TempDir(), "status")
			f, err := os.Create(status)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cmd.ExtraFiles = []*os.File{f}
			out, err := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code %d (%v); want %d; output %q", code, err, tt.code, out)
			}
			if got, _ := os.ReadFile(status); !strings.Contains(string(got), tt.report) {
				t.Errorf("reported %q; want %q in it", got, tt.report)
			}
		})
	}
}

func TestParseSupervision(t *testing.T) {
	t.Parallel()
	cpu := 1
	want := supervision{remove: "/tmp/phasegate-1", grace: time.Second, status: 3, cpu: &cpu, args: []string{"a", "--grace", "--"}}
	got, err := parseSupervision(want.command()[1:])
	if err != nil || got.remove != want.remove || got.grace != want.grace || got.status != want.status || got.cpu == nil || *got.cpu != 1 || !slices.Equal(got.args, want.args) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, tt := range []struct {
		why  string
		args []string
		err  string
	}{
		{"nothing to run", []string{"--grace", "1s", "--"}, "no command"},
		{"a typo must not start anything", []string{"--grade", "1s", "--", "a"}, "not defined: -grade"},
		{"only folders that are ours are removed", []string{"--remove", "/home", "--", "a"}, "not one of the private folders"},
		{"nor one relative to wherever we are", []string{"--remove", "phasegate-1", "--", "a"}, "not one of the private folders"},
		{"negative time", []string{"--grace", "-1s", "--", "a"}, "negative"},
		{"negative processor", []string{"--cpu", "-1", "--", "a"}, "negative"},
		{"no processor", []string{"--cpu", "all", "--", "a"}, "invalid value"},
	} {
		if _, err := parseSupervision(tt.args); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v; want %q", tt.why, err, tt.err)
		}
		if code := Supervise(tt.args); code != 2 {
			t.Errorf("%s: exit code %d; want 2", tt.why, code)
		}
	}
}

func FuzzParseSupervision(f *testing.F) {
	f.Add("--grace\n1s\n--\nsh\n-c\nexit")
	f.Add("--remove\n/tmp/phasegate-1\nsh")
	f.Add("--remove=/tmp/../phasegate-1\n--status=3\n--\n--")
	f.Fuzz(func(t *testing.T, lines string) {
		s, err := parseSupervision(strings.Split(lines, "\n"))
		if err != nil {
			return
		}
		again, err := parseSupervision(s.command()[1:])
		if err != nil || again.grace != s.grace || again.remove != s.remove || again.status != s.status || !slices.Equal(again.args, s.args) {
			t.Errorf("%+v became %+v, %v", s, again, err)
		}
	})
}

// startHarness starts a harness whose system runs a script, in a process group
// of its own, and returns all processes under it and under its supervisors.
func startHarness(t *testing.T, script string) (cmd *exec.Cmd, told toldBy, pids []int) {
	t.Helper()
	cmd = exec.Command(executable(), "harness", script, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
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
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the harness: %v", err)
	}
	if err := json.Unmarshal(line, &told); err != nil {
		t.Fatal(err)
	}
	return cmd, told, descendants(cmd.Process.Pid)
}

var trees = []struct{ why, script string }{
	{"a single process", `wait`},
	{"children, one of them in a session of its own", `sleep 1000 & setsid sleep 1000 & wait`},
	{"a daemon: the parent of its parent has ended", `(setsid sh -c 'sleep 1000 & exec sleep 1000' &) ; wait`},
	{"deaf to SIGTERM, as are its children", `trap '' TERM; sleep 1000 & setsid sleep 1000 & wait; wait`},
	{"stopped", `sleep 1000 & kill -STOP $!; kill -STOP $$`},
	{"forking when it gets SIGTERM", `trap 'setsid sleep 1000 & exit' TERM; sleep 1000 & wait`},
}

// Whatever a system has forked ends when the harness is killed, which can't
// clean up any more, and the private folder goes too.
func TestHarnessKilled(t *testing.T) {
	t.Parallel()
	for _, tt := range trees {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			cmd, told, pids := startHarness(t, tt.script)
			if len(pids) < 5 { // two supervisors, upstream, shell, proxy
				t.Fatalf("processes %v; want 5 at least", pids)
			}
			if _, err := os.Stat(told.Temp); err != nil {
				t.Fatal(err)
			}
			// The group of the harness: nobody below may be in it.
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all processes end", func() bool { return len(alive(pids)) == 0 })
			if _, err := os.Stat(told.Temp); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the private folder is still there: %v", err)
			}
		})
	}
}

// A supervisor that is killed takes its command with it, even when nobody is
// left to see that.
func TestSupervisorKilledAlone(t *testing.T) {
	t.Parallel()
	s := supervision{grace: time.Second, args: []string{"sleep", "1000"}}
	cmd := exec.Command(executable(), s.command()...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	eventually(t, "it runs the command", func() bool {
		pids = descendants(cmd.Process.Pid)
		return len(pids) == 1
	})
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, "the command ends", func() bool { return len(alive(pids)) == 0 })
}

// The harness that sees its supervisor killed ends the command's process group
// as well.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	_, told, _ := startHarness(t, `sleep 1000 & wait`)
	pids := append(descendants(told.Supervisor), told.Supervisor)
	if len(pids) != 4 { // and shell, proxy, sleep
		t.Fatalf("processes %v; want 4", pids)
	}
	if err := syscall.Kill(told.Supervisor, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all its processes end", func() bool { return len(alive(pids)) == 0 })
}

// Ctrl-C reaches the process group at the terminal: the harness decides when
// the systems end.
func TestInterruptSparesSystems(t *testing.T) {
	t.Parallel()
	cmd, told, pids := startHarness(t, `wait`)
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 5 {
		resp, err := client.Get(told.URL + wire.ProbePath)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if living := alive(pids); len(living) != len(pids) {
		t.Errorf("of processes %v only %v live", pids, living)
	}
}
