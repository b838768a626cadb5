package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"phasegate/fixtures/systems"
)

// absentError says that a system isn't installed.
type absentError struct{ program string }

func (e *absentError) Error() string {
	return e.program + " isn't installed (Debian package " + strings.TrimSuffix(e.program, "d") + ")"
}

// system is a running system, the leader of a process group of its own.
type system struct {
	cmd    *exec.Cmd
	dir    string
	listen string
	most   atomic.Int64
	done   chan struct{}
	watch  sync.WaitGroup
}

// start starts a system with the budget, in 10^6 bytes.
func start(ctx context.Context, name string, budget int, upstream string) (*system, error) {
	s := &system{done: make(chan struct{})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.listen = l.Addr().String()
	l.Close()
	if s.dir, err = os.MkdirTemp("", "memory-"); err != nil {
		return nil, err
	}
	var argv []string
	if name == "optimizer" {
		argv, err = s.optimizer(budget, upstream)
	} else {
		argv, err = s.packaged(name, budget, upstream)
	}
	if err != nil {
		os.RemoveAll(s.dir)
		return nil, err
	}
	s.cmd = exec.Command(argv[0], argv[1:]...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	log := new(strings.Builder)
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		os.RemoveAll(s.dir)
		return nil, fmt.Errorf("start: %w", err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.listen)
		if err == nil {
			_, err = get(conn, bufio.NewReader(conn), "/health")
			conn.Close()
		}
		if err == nil {
			break
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("wait until it answers: %w; it says %s", err, log), s.stop())
		}
	}
	s.watch.Go(func() {
		for {
			select {
			case <-s.done:
				return
			case <-time.After(100 * time.Millisecond):
				s.look()
			}
		}
	})
	return s, nil
}

func (s *system) optimizer(budget int, upstream string) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(s.dir, "optimizer.yaml")
	text := fmt.Sprintf("listen: %s\nupstream:\n  url: http://%s\ncache:\n  max_memory_mb: %d\n", s.listen, upstream, budget)
	return []string{filepath.Join(filepath.Dir(self), "optimizer"), "--config", file}, os.WriteFile(file, []byte(text), 0o600)
}

func (s *system) packaged(name string, budget int, upstream string) ([]string, error) {
	program := map[string]string{"nginx": "nginx", "varnish": "varnishd", "haproxy": "haproxy"}[name]
	if program == "" {
		return nil, fmt.Errorf("found system %q; allowed are optimizer, nginx, varnish and haproxy", name)
	}
	path, err := exec.LookPath(program)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + program); err != nil {
			return nil, &absentError{program}
		}
	}
	settings := systems.Settings{Dir: s.dir, Listen: s.listen, Upstream: upstream, CacheBytes: int64(budget) * 1e6}
	if os.Geteuid() == 0 {
		root, err := user.LookupId("0")
		if err != nil {
			return nil, fmt.Errorf("find the superuser's name: %w", err)
		}
		settings.User = root.Username
	}
	server := systems.Server(name)
	text, err := systems.Render(server, settings)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(s.dir, systems.FileName(server))
	return append([]string{path}, systems.Arguments(server, file, settings)...), os.WriteFile(file, []byte(text), 0o600)
}

// look notes what the processes have now.
func (s *system) look() {
	all, err := procfs.AllProcs()
	if err != nil {
		return
	}
	sum := int64(0)
	for _, p := range all {
		if stat, err := p.Stat(); err != nil || stat.PGRP != s.cmd.Process.Pid && !s.descends(p.PID) {
			continue
		}
		if r, err := p.ProcSMapsRollup(); err == nil {
			sum += int64(r.Pss)
		}
		if status, err := p.NewStatus(); err == nil {
			s.raise(int64(status.VmHWM))
		}
	}
	s.raise(sum)
}

func (s *system) raise(n int64) { s.most.Store(max(s.most.Load(), n)) }

// descends reports whether a process comes from the system's.
func (s *system) descends(pid int) bool {
	for pid > 1 {
		if pid == s.cmd.Process.Pid {
			return true
		}
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return false
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		pid, _ = strconv.Atoi(fields[1])
	}
	return false
}

// peak is the most memory that was seen, a last look included.
func (s *system) peak() int64 {
	close(s.done)
	s.watch.Wait()
	s.look()
	return s.most.Load()
}

// disk is what its folder holds.
func (s *system) disk() (sum int64) {
	filepath.WalkDir(s.dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				sum += info.Sys().(*syscall.Stat_t).Blocks * 512
			}
		}
		return nil
	})
	return sum
}

// stop ends all its processes and removes its folder.
func (s *system) stop() error {
	select {
	case <-s.done:
	default:
		close(s.done)
	}
	s.watch.Wait()
	s.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { s.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
	}
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-ended
	return os.RemoveAll(s.dir)
}
