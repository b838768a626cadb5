package probe

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func files(pairs ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return m
}

const (
	statusOf77 = "Name:\tproxy\nVmHWM:\t   40000 kB\nVmRSS:\t   30000 kB\n"
	v1Mounts   = "30 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
		"31 20 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"32 20 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	v1Groups = "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/docker/abc\n"
	v1       = "sys/fs/cgroup/memory/docker/abc/"
	v1CPU    = "sys/fs/cgroup/cpu,cpuacct/docker/abc/"
	v2Mounts = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
	v2       = "sys/fs/cgroup/system.slice/docker-abc.scope/"
)

func version1() fstest.MapFS {
	return files("proc/77/cgroup", v1Groups, "proc/self/mountinfo", v1Mounts, "proc/77/status", statusOf77,
		v1+"cgroup.procs", "77\n78\n", v1+"memory.stat", "cache 900\nrss 1\ntotal_cache 900\ntotal_rss 50000000\ntotal_mapped_file 2000000\n",
		v1+"memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", v1CPU+"cpuacct.usage", "1500000000\n")
}

func version2() fstest.MapFS {
	return files("proc/77/cgroup", "0::/system.slice/docker-abc.scope\n", "proc/self/mountinfo", v2Mounts, "proc/77/status", statusOf77,
		v2+"cgroup.procs", "77\n78\n", v2+"memory.stat", "anon 50000000\nfile 999000000\nfile_mapped 2000000\n",
		v2+"memory.events", "low 0\nmax 12\noom 3\noom_kill 2\n", v2+"cpu.stat", "usage_usec 1500000\nuser_usec 1\n")
}

// Engines of both kinds exist, and most machines of a developer have only one.
func TestGroup(t *testing.T) {
	t.Parallel()
	with := func(m fstest.MapFS, pairs ...string) fstest.MapFS {
		for name, file := range files(pairs...) {
			m[name] = file
		}
		return m
	}
	usual := Reading{Resident: 52_000_000, CPU: 1500 * time.Millisecond, Kills: 2}
	for _, tt := range []struct {
		why     string
		root    fstest.MapFS
		want    Reading
		version string
	}{
		{"version 1, with an empty version 2 mounted beside it", version1(), usual, "(version 1)"},
		{"version 2: what is cached in file isn't resident", version2(), usual, "(version 2)"},
		{"a single process: the kernel's high-water mark can't be missed", with(version2(), v2+"cgroup.procs", "77\n"),
			Reading{Resident: 52_000_000, Peak: 40_000 << 10, CPU: usual.CPU, Kills: 2}, "(version 2)"},
		{"a single process whose program was in memory before: its own resident set is larger",
			with(version1(), v1+"cgroup.procs", "77\n", v1+"memory.stat", "total_rss 3000000\ntotal_mapped_file 0\n"),
			Reading{Resident: 30_000 << 10, Peak: 40_000 << 10, CPU: usual.CPU, Kills: 2}, "(version 1)"},
		{"a kernel without the events has no kills to tell", with(version2(), v2+"memory.events", "low 0\n"),
			Reading{Resident: 52_000_000, CPU: usual.CPU}, "(version 2)"},
		{"a mount that shows the hierarchy from the container's parent on",
			with(version2(), "proc/self/mountinfo", "30 20 0:26 /system.slice /sys/fs/cgroup/system.slice rw - cgroup2 cgroup rw\n"), usual, "(version 2)"},
	} {
		g, err := findGroup(tt.root, 77, "abc")
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		got, err := g.read()
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil || !strings.HasSuffix(g.String(), tt.version) {
			t.Errorf("%s: %s, %v (-want +got):\n%s", tt.why, g, err, diff)
		}
	}
}

// Figures of the wrong group would be worse than none: the engine is asked then.
func TestGroupOutOfReach(t *testing.T) {
	t.Parallel()
	other := version2()
	other[v2+"cgroup.procs"] = &fstest.MapFile{Data: []byte("1\n2\n")}
	unmounted := version1()
	unmounted["proc/self/mountinfo"] = &fstest.MapFile{Data: []byte("1 1 0:1 / / rw - ext4 disk rw\n")}
	controllers := version2()
	delete(controllers, v2+"memory.stat")
	for _, tt := range []struct {
		why  string
		root fs.FS
		pid  int
		id   string
		want string
	}{
		{"the engine says no number", version2(), 0, "abc", "its number isn't known"},
		{"the engine is on another machine", version2(), 1234, "abc", "proc/1234/cgroup"},
		{"there the number is somebody else's", other, 77, "abc", "has other processes"},
		{"and here that of a process in a group of its own", version2(), 77, "def", "isn't that of container def"},
		{"the hierarchy isn't mounted in this container", unmounted, 77, "abc", "no file system shows"},
		{"the controller isn't delegated", controllers, 77, "abc", "memory.stat"},
	} {
		if _, err := findGroup(tt.root, tt.pid, tt.id); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.why, err, tt.want)
		}
	}
}

func TestGroupSampler(t *testing.T) {
	t.Parallel()
	readings := []Reading{{Resident: 10, CPU: time.Second}, {Resident: 30, Peak: 50, CPU: 2 * time.Second, Kills: 1}, {Resident: 20, CPU: time.Second}}
	s := Sampling("a list", 1, func() (Reading, error) {
		if len(readings) == 0 {
			return Reading{}, ErrGone
		}
		r := readings[0]
		readings = readings[1:]
		return r, nil
	})
	first, _ := s.Sample()
	if first != (Usage{Resident: 10, Peak: 10}) {
		t.Errorf("first sample %+v: CPU use needs two", first)
	}
	time.Sleep(time.Millisecond)
	second, _ := s.Sample()
	if second.Resident != 30 || second.Peak != 50 || second.CPU <= 0 || s.Kills() != 1 {
		t.Errorf("second sample %+v, kills %d", second, s.Kills())
	}
	// An engine's account may be older than the last; time used doesn't fall.
	third, _ := s.Sample()
	if third.Peak != 50 || third.CPU != 0 {
		t.Errorf("third sample %+v: a peak stays, CPU time doesn't fall", third)
	}
	if _, err := s.Sample(); !errors.Is(err, ErrGone) || s.Source() != "a list" {
		t.Errorf("after the end: %v, want ErrGone", err)
	}
}
