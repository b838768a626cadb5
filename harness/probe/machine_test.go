package probe

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/fstest"
	"time"
)

func TestMachine(t *testing.T) {
	t.Parallel()
	m := Machine()
	t.Logf("%+v", m)
	if m.CPUs != runtime.NumCPU() || m.Available <= 0 || m.Available > float64(m.CPUs) {
		t.Errorf("CPUs %d, available %v", m.CPUs, m.Available)
	}
	if got := len(CPUs()); runtime.GOOS == "linux" && got != m.CPUs {
		t.Errorf("%d numbers of processors, want %d", got, m.CPUs)
	}
	if m.OS == "" {
		t.Error("no name of the operating system")
	}
	if runtime.GOOS == "linux" && (m.Kernel == "" || m.Memory < 64*mib) {
		t.Errorf("kernel %q, memory %d", m.Kernel, m.Memory)
	}
}

func TestOSName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ why, text, want string }{
		{"quoted", "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n", "Debian GNU/Linux 12 (bookworm)"},
		{"single quotes are allowed too", "PRETTY_NAME='A 1'", "A 1"},
		{"no quotes", "PRETTY_NAME=Arch\n", "Arch"},
		{"no name", "NAME=x\n", runtime.GOOS},
		{"an empty name", "PRETTY_NAME=\"\"\n", runtime.GOOS},
	} {
		file := filepath.Join(t.TempDir(), "os-release")
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := osName(file); got != tt.want {
			t.Errorf("%s: %q; want %q", tt.why, got, tt.want)
		}
	}
	if got := osName(filepath.Join(t.TempDir(), "none")); got != runtime.GOOS {
		t.Errorf("no file: %q; want %q", got, runtime.GOOS)
	}
}

func TestMachineCPU(t *testing.T) {
	t.Parallel()
	total, stolen, err := MachineCPU()
	if err != nil {
		t.Fatal(err)
	}
	if total <= 0 || stolen < 0 || stolen > total || total < SelfCPU() {
		t.Errorf("%v of CPU time, %v of it stolen", total, stolen)
	}
}

func TestSelfCPU(t *testing.T) {
	t.Parallel()
	before := SelfCPU()
	deadline := time.Now().Add(5 * time.Second)
	for SelfCPU() < before+20*time.Millisecond {
		if time.Now().After(deadline) {
			t.Fatalf("CPU time went from %v to %v in 5 s of work", before, SelfCPU())
		}
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	const (
		v2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
		v1 = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
			"33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
		// Inside a container the mount's root is the container's own group.
		inside = "32 31 0:29 /docker/7 /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	)
	for _, tt := range []struct {
		why           string
		cgroup, mount string
		files         map[string]string
		want          float64
	}{
		{"no control groups at all", "", "", nil, math.Inf(1)},
		{"v2 without a limit", "0::/a\n", v2, map[string]string{"sys/fs/cgroup/a/cpu.max": "max 100000\n"}, math.Inf(1)},
		{"v2 with a limit", "0::/a\n", v2, map[string]string{"sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 1.5},
		{"v2: the group above is tighter", "0::/a/b\n", v2, map[string]string{
			"sys/fs/cgroup/a/b/cpu.max": "400000 100000\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
		}, 0.5},
		{"v2 in a namespace: the group is the mount itself", "0::/\n", v2, map[string]string{"sys/fs/cgroup/cpu.max": "200000 100000"}, 2},
		{"v1 with a limit", "3:cpu,cpuacct:/a\n0::/\n", v1, map[string]string{
			"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "25000\n", "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
		}, 0.25},
		{"v1 without a limit", "3:cpu,cpuacct:/a\n", v1, map[string]string{
			"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
		}, math.Inf(1)},
		{"v1 in a container", "3:cpu:/docker/7\n", inside, map[string]string{
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
		}, 3},
		{"another controller's limit is none of the CPU's", "4:memory:/a\n", v1, map[string]string{
			"sys/fs/cgroup/memory/a/cpu.cfs_quota_us": "1\n", "sys/fs/cgroup/memory/a/cpu.cfs_period_us": "100000\n",
		}, math.Inf(1)},
		{"malformed lines are passed over", "x\n0::/a\n", "garbage\n" + v2, map[string]string{"sys/fs/cgroup/a/cpu.max": "0 0\n"}, math.Inf(1)},
	} {
		root := fstest.MapFS{
			"proc/self/cgroup":    {Data: []byte(tt.cgroup)},
			"proc/self/mountinfo": {Data: []byte(tt.mount)},
		}
		for name, text := range tt.files {
			root[name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := quota(root); got != tt.want {
			t.Errorf("%s: %v CPUs; want %v", tt.why, got, tt.want)
		}
	}
}

func FuzzQuota(f *testing.F) {
	f.Add("0::/a\n", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "150000 100000\n")
	f.Add("3:cpu:/../..\n", "32 31 0:29 /a sys rw - cgroup cgroup rw,cpu\n", "max")
	f.Fuzz(func(t *testing.T, cgroup, mountinfo, limit string) {
		root := fstest.MapFS{
			"proc/self/cgroup":        {Data: []byte(cgroup)},
			"proc/self/mountinfo":     {Data: []byte(mountinfo)},
			"sys/fs/cgroup/cpu.max":   {Data: []byte(limit)},
			"sys/fs/cgroup/a/cpu.max": {Data: []byte(limit)},
		}
		if got := quota(root); !(got > 0) {
			t.Errorf("%v CPUs", got)
		}
	})
}
