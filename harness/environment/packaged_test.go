package environment

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"phasegate/harness/scenario"
)

// installed skips a test, and says what to install, where a kind's program isn't
// here.
func installed(t *testing.T, kind scenario.Kind) {
	t.Helper()
	if _, err := packages[kind].find(scenario.New); err != nil {
		var absent *Error
		errors.As(err, &absent)
		t.Skip(absent.Detail())
	}
}

// Every server comes up under its supervisor with all that it forks, answers
// through to its arm of the upstream over what the load speaks, says nothing
// wrong, and leaves nothing.
func TestPackaged(t *testing.T) {
	t.Parallel()
	only := func(p scenario.Protocol) []scenario.ProtocolShare {
		return []scenario.ProtocolShare{{Protocol: p, Share: 1}}
	}
	for _, tt := range []struct {
		why       string
		kind      scenario.Kind
		protocols []scenario.ProtocolShare
		processes int // at least
		scheme    string
		stored    int64
	}{
		{"a master, workers and a cache manager", scenario.KindNginx, nil, 3, "http", 74.4e6},
		{"this nginx may speak nothing else at a clear-text port then", scenario.KindNginx, only(scenario.H2C), 3, "http", 74.4e6},
		{"over TLS it may be a mix", scenario.KindNginx, []scenario.ProtocolShare{{Protocol: scenario.HTTP1, Share: 0.5}, {Protocol: scenario.H2, Share: 0.5}}, 3, "https", 74.4e6},
		{"a manager and its child", scenario.KindVarnish, nil, 2, "http", 74.4e6},
		{"both at one port", scenario.KindVarnish, only(scenario.H2C), 2, "http", 74.4e6},
		{"threads of one process; its cache in whole MiB", scenario.KindHAProxy, nil, 1, "http", 70 << 20},
		{"both at one port", scenario.KindHAProxy, only(scenario.H2C), 1, "http", 70 << 20},
		{"with a certificate of its own", scenario.KindHAProxy, only(scenario.H2), 1, "https", 70 << 20},
	} {
		t.Run(string(tt.kind)+": "+tt.why, func(t *testing.T) {
			t.Parallel()
			installed(t, tt.kind)
			p := plan(fromPackage(tt.kind))
			p.Load.Protocols = tt.protocols
			e := startPlan(t, p)
			system := e.Systems()[scenario.New]
			if system.URL.Scheme != tt.scheme {
				t.Errorf("load goes to %v; want %s", system.URL, tt.scheme)
			}
			if ledger, err := e.Control().Ledger(t.Context(), scenario.New, false); err != nil || ledger.Probes == 0 {
				t.Errorf("%d probes through it, %v", ledger.Probes, err)
			}
			if s := system.Setup; s.Version == "" || s.CacheBytes == nil || *s.CacheBytes != tt.stored || s.AccessLog == nil || *s.AccessLog {
				t.Errorf("set up as %+v", s)
			}
			pids := descendants(system.Supervisor)
			if len(pids) < tt.processes {
				t.Errorf("under the supervisor are %v; want %d processes", pids, tt.processes)
			}
			for _, line := range system.LogTail(50) {
				if strings.Contains(line, "[warn") || strings.Contains(line, "[alert") || strings.Contains(line, "[emerg") || strings.Contains(line, "[WARN") || strings.Contains(line, "[ALERT") {
					t.Errorf("it complains: %s", line)
				}
			}
			if err := e.Stop(t.Context()); err != nil {
				t.Error(err)
			}
			if left := alive(append(pids, system.Supervisor)); len(left) > 0 {
				t.Errorf("processes %v are left", left)
			}
			if exit := system.Exit(); exit != "" {
				t.Errorf("exit %q of a system that was stopped", exit)
			}
		})
	}
}

// A harness that is killed can't stop them, and they have families.
func TestHarnessKilledPackaged(t *testing.T) {
	t.Parallel()
	for _, kind := range []scenario.Kind{scenario.KindNginx, scenario.KindVarnish, scenario.KindHAProxy} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			installed(t, kind)
			cmd, told, pids := startHarness(t, "kind "+string(kind))
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all processes end", func() bool { return len(alive(pids)) == 0 })
			if _, err := os.Stat(told.Temp); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the private folder is still there: %v", err)
			}
		})
	}
}

func TestPackagedAbsent(t *testing.T) {
	t.Parallel()
	_, err := packaged{program: "no-such-server", debian: "no-such-package"}.find(scenario.New)
	var absent *Error
	if !errors.As(err, &absent) {
		t.Fatalf("%T %v; want an *Error", err, err)
	}
	for _, want := range []string{"new: start it: ", "no-such-server", "/usr/sbin", "Install the Debian package no-such-package (apt-get install no-such-package), or put no-such-server on PATH."} {
		if !strings.Contains(absent.Detail(), want) {
			t.Errorf("%s\nlacks %q", absent.Detail(), want)
		}
	}
}

// What nginx can't do at one port is said before it would refuse half the load.
func TestPackagedRefuses(t *testing.T) {
	t.Parallel()
	installed(t, scenario.KindNginx)
	version := packages[scenario.KindNginx].told(t.Context(), func() string { path, _ := packages[scenario.KindNginx].find(""); return path }())
	if atLeast(version, eitherProtocol) {
		t.Skipf("nginx %s tells HTTP/2 from HTTP/1.1 by itself: the refusal concerns those before 1.25.1", version)
	}
	p := plan(fromPackage(scenario.KindNginx))
	p.Load.Protocols = []scenario.ProtocolShare{{Protocol: scenario.HTTP1, Share: 0.5}, {Protocol: scenario.H2C, Share: 0.5}}
	e, err := Start(t.Context(), config(t, p))
	if err == nil {
		e.Stop(t.Context())
		t.Fatal("it started")
	}
	if want := "either HTTP/1.1 or h2c at a clear-text port, not both"; !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %q", err, want)
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, version string
		want         bool
	}{
		{"the first that can", "1.25.1", true},
		{"numbers, not letters", "1.9.15", false},
		{"a longer one", "1.25.1.2", true},
		{"the last that can't", "1.25.0", false},
		{"a newer one", "2.0", true},
		{"unknown: the old way works everywhere", "", false},
	} {
		if got := atLeast(tt.version, eitherProtocol); got != tt.want {
			t.Errorf("%s: %q is %v", tt.why, tt.version, got)
		}
	}
	for said, want := range map[string]string{
		"nginx version: nginx/1.22.1\n":                                     "1.22.1",
		"varnishd (varnish-7.1.1 revision 7cee)\n":                          "7.1.1",
		"HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org": "2.6.12",
	} {
		if m := release.FindStringSubmatch(said); m == nil || m[1] != want {
			t.Errorf("%q: version %q; want %s", said, m, want)
		}
	}
}

func TestConnections(t *testing.T) {
	t.Parallel()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for _, load := range []int{0, 100, 1_000_000_000} {
		if n := connections(load); n < 1 || uint64(n)*4 > max(limit.Max, 4) || n < min(load, int(min(limit.Max, 1<<40)/4)) {
			t.Errorf("%d connections for %d of the load and %d files", n, load, limit.Max)
		}
	}
}
