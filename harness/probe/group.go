package probe

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Reading is what a container held and had used at one time.
type Reading struct {
	Resident int64         // bytes that can't be given back: anonymous memory and mapped files
	Peak     int64         // bytes at most, as far as known; at least Resident
	CPU      time.Duration // since its start
	Kills    int64         // processes that the kernel killed for want of memory
}

// GroupSampler samples one container. It isn't safe for concurrent use.
//
// Resident memory of a control group is its anonymous memory and its mapped
// files (rss and mapped_file of version 1, anon and file_mapped of version 2),
// which is what a process's resident set is; what the kernel caches for it
// isn't counted, as it gives that back when memory is short. Pages that were
// there before the container, such as its program's, count for whoever read
// them first; so where the group is a single process whose resident set is
// larger, that holds, and its high-water mark with it.
type GroupSampler struct {
	read      func() (Reading, error)
	source    string
	available float64

	sampled time.Time
	last    Reading
}

// Sampling returns a sampler of a container's readings, which come from source;
// its CPU use is a share of cpus.
func Sampling(source string, cpus float64, read func() (Reading, error)) *GroupSampler {
	return &GroupSampler{read: read, source: source, available: cpus}
}

// Group returns a sampler of the control group of the container id, which the
// process pid is in; its CPU use is a share of cpus. The error says why the group
// can't be read from here: the engine is on another machine, or its groups aren't
// mounted here.
func Group(pid int, id string, cpus float64) (*GroupSampler, error) {
	g, err := findGroup(os.DirFS("/"), pid, id)
	if err != nil {
		return nil, err
	}
	return Sampling(g.String(), cpus, g.read), nil
}

// Source says where the figures come from: "its control group (version 1)".
func (s *GroupSampler) Source() string { return s.source }

// Kills returns how many processes the kernel had killed for want of memory
// when the container was last sampled.
func (s *GroupSampler) Kills() int64 { return s.last.Kills }

// Sample reads the usage now. The error is ErrGone once the container has ended.
func (s *GroupSampler) Sample() (Usage, error) {
	at := time.Now()
	now, err := s.read()
	if err != nil {
		return Usage{}, err
	}
	now.Peak = max(now.Peak, now.Resident, s.last.Peak)
	now.CPU = max(now.CPU, s.last.CPU)
	u := Usage{Resident: now.Resident, Peak: now.Peak}
	if passed := at.Sub(s.sampled); !s.sampled.IsZero() && passed > 0 {
		u.CPU = (now.CPU - s.last.CPU).Seconds() / (passed.Seconds() * s.available)
	}
	s.last, s.sampled = now, at
	return u, nil
}

// group is a control group's folders, seen from the root of the file system.
type group struct {
	root        fs.FS
	version     int
	memory, cpu string // the same folder in version 2
}

func (g group) String() string { return fmt.Sprintf("its control group (version %d)", g.version) }

// findGroup finds the group of a container's process. A machine may have both
// versions mounted; the one that has the memory controller counts.
func findGroup(root fs.FS, pid int, id string) (group, error) {
	fail := func(err error) (group, error) {
		return group{}, fmt.Errorf("find the control group of process %d: %w", pid, err)
	}
	if pid <= 0 {
		return fail(errors.New("its number isn't known"))
	}
	groups, err := fs.ReadFile(root, fmt.Sprintf("proc/%d/cgroup", pid))
	if err != nil {
		return fail(err)
	}
	mounts, err := fs.ReadFile(root, "proc/self/mountinfo")
	if err != nil {
		return fail(err)
	}
	find := func(controller string) string {
		for line := range strings.Lines(string(groups)) {
			fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(fields) != 3 || !slices.Contains(strings.Split(fields[1], ","), controller) {
				continue
			}
			for _, m := range cgroupMounts(string(mounts), controller) {
				if below, ok := strings.CutPrefix(fields[2], m.root); ok {
					return strings.TrimPrefix(path.Join(m.point, below), "/")
				}
			}
		}
		return ""
	}
	g := group{root: root, version: 1, memory: find("memory"), cpu: find("cpuacct")}
	if g.memory == "" {
		g.version, g.memory = 2, find("")
		g.cpu = g.memory
	}
	if g.memory == "" || g.cpu == "" {
		return fail(errors.New("no file system shows its memory and CPU time"))
	}
	// Whoever counts processes otherwise than the engine may find one of that number
	// that has nothing to do with it. Engines name a container's group by its ID.
	if !strings.Contains(g.memory, id) {
		return fail(fmt.Errorf("%s isn't that of container %s", g.memory, id))
	}
	// A path that is right for another machine's process may exist here too.
	if members, err := g.members(); err != nil {
		return fail(err)
	} else if !slices.Contains(members, pid) {
		return fail(fmt.Errorf("%s has other processes", g.memory))
	}
	_, err = g.read()
	if err != nil {
		return fail(err)
	}
	return g, nil
}

func (g group) members() ([]int, error) {
	text, err := fs.ReadFile(g.root, path.Join(g.memory, "cgroup.procs"))
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

func (g group) read() (Reading, error) {
	names := struct{ anonymous, mapped, kills, cpu, cpuField string }{"total_rss", "total_mapped_file", "memory.oom_control", "cpuacct.usage", ""}
	unit := time.Nanosecond
	if g.version == 2 {
		names.anonymous, names.mapped, names.kills, names.cpu, names.cpuField = "anon", "file_mapped", "memory.events", "cpu.stat", "usage_usec"
		unit = time.Microsecond
	}
	stat, err := g.fields(path.Join(g.memory, "memory.stat"))
	if err != nil {
		return Reading{}, err
	}
	cpu, err := g.fields(path.Join(g.cpu, names.cpu))
	if err != nil {
		return Reading{}, err
	}
	used, ok := cpu[names.cpuField]
	anonymous, okMemory := stat[names.anonymous]
	if !ok || !okMemory {
		return Reading{}, fmt.Errorf("read %s: no %s or %s in it", g.memory, names.anonymous, names.cpu)
	}
	r := Reading{Resident: anonymous + stat[names.mapped], CPU: time.Duration(used) * unit}
	if events, err := g.fields(path.Join(g.memory, names.kills)); err == nil {
		r.Kills = events["oom_kill"]
	}
	members, err := g.members()
	switch {
	case err != nil || len(members) == 0:
		return Reading{}, fmt.Errorf("read %s: %w", g.memory, ErrGone)
	case len(members) == 1:
		now, peak := g.process(members[0])
		r.Resident, r.Peak = max(r.Resident, now), peak
	}
	return r, nil
}

// process is the resident set of a process and the kernel's high-water mark of it.
func (g group) process(pid int) (now, peak int64) {
	status, _ := fs.ReadFile(g.root, fmt.Sprintf("proc/%d/status", pid))
	for line := range bytes.Lines(status) {
		name, value, _ := strings.Cut(string(line), ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			now = kib << 10
		case "VmHWM":
			peak = kib << 10
		}
	}
	return now, peak
}

// fields reads a file of lines "NAME VALUE"; a value without a name is named "".
func (g group) fields(file string) (map[string]int64, error) {
	text, err := fs.ReadFile(g.root, file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.Join(err, ErrGone)
		}
		return nil, err
	}
	fields := map[string]int64{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok {
			name, value = "", name
		}
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			fields[name] = n
		}
	}
	return fields, nil
}
