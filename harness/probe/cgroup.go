package probe

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Available returns how many CPUs this process and its children may use: the
// processors in its affinity mask, or less where a control group limits their
// time (1.5 for a quota of 150 ms in 100 ms).
func Available() float64 { return available() }

var available = sync.OnceValue(func() float64 {
	return min(float64(runtime.NumCPU()), quota(os.DirFS("/")))
})

// quota returns the tightest limit, in CPUs, that a control group puts on this
// process, +Inf where there is none or none can be read. root is the root of
// the file system.
//
// Version 2 has "MAX PERIOD" in cpu.max ("max" for no limit), version 1 has
// cpu.cfs_quota_us (-1 for no limit) and cpu.cfs_period_us; each group on the
// way up may have a limit of its own, and the smallest holds.
func quota(root fs.FS) float64 {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return math.Inf(1)
	}
	mounts, err := fs.ReadFile(root, "proc/self/mountinfo")
	if err != nil {
		return math.Inf(1)
	}
	limit := math.Inf(1)
	for line := range strings.Lines(string(groups)) {
		// hierarchy:controllers:path, where version 2 is hierarchy 0 without controllers
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		read, controller := quotaV1, "cpu"
		if fields[0] == "0" && fields[1] == "" {
			read, controller = quotaV2, ""
		} else if !slices.Contains(strings.Split(fields[1], ","), "cpu") {
			continue
		}
		for _, m := range cgroupMounts(string(mounts), controller) {
			dir := m.point
			// The mount shows the hierarchy from m.root downwards.
			if below, ok := strings.CutPrefix(fields[2], m.root); ok {
				dir = path.Join(m.point, below)
			}
			for {
				limit = min(limit, read(root, strings.TrimPrefix(dir, "/")))
				if dir == m.point || len(dir) < len(m.point) {
					break
				}
				dir = path.Dir(dir)
			}
		}
	}
	return limit
}

type mount struct{ root, point string }

// cgroupMounts reads from /proc/self/mountinfo where the hierarchy of version 1
// with a controller is mounted, or with "" that of version 2.
func cgroupMounts(mountinfo, controller string) []mount {
	var mounts []mount
	for line := range strings.Lines(mountinfo) {
		// id parent major:minor root point options optional… - type source superoptions
		front, back, ok := strings.Cut(line, " - ")
		f, b := strings.Fields(front), strings.Fields(back)
		if !ok || len(f) < 5 || len(b) < 3 {
			continue
		}
		if controller == "" && b[0] == "cgroup2" || controller != "" && b[0] == "cgroup" && slices.Contains(strings.Split(b[2], ","), controller) {
			mounts = append(mounts, mount{root: f[3], point: f[4]})
		}
	}
	return mounts
}

func quotaV2(root fs.FS, dir string) float64 {
	text, _ := fs.ReadFile(root, path.Join(dir, "cpu.max"))
	limit, period, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	return share(limit, period)
}

func quotaV1(root fs.FS, dir string) float64 {
	limit, _ := fs.ReadFile(root, path.Join(dir, "cpu.cfs_quota_us"))
	period, _ := fs.ReadFile(root, path.Join(dir, "cpu.cfs_period_us"))
	return share(strings.TrimSpace(string(limit)), strings.TrimSpace(string(period)))
}

// share returns limit ÷ period, and no limit where either isn't a positive
// number ("max", "-1", a missing file).
func share(limit, period string) float64 {
	l, err := strconv.ParseUint(limit, 10, 63)
	p, perr := strconv.ParseUint(period, 10, 63)
	if err != nil || perr != nil || l == 0 || p == 0 {
		return math.Inf(1)
	}
	return float64(l) / float64(p)
}
