package probe

import (
	"bufio"
	"os"
	"runtime"
	"strings"
)

// Facts describe the machine a run was made on.
type Facts struct {
	CPUModel  string  // as the processor calls itself, "" where unknown
	CPUs      int     // processors that this process may run on
	Available float64 // CPUs available: less than CPUs where a control group limits their time
	Memory    int64   // bytes of main memory, 0 where unknown
	Kernel    string  // release: "6.12.9-amd64"
	OS        string  // "Debian GNU/Linux 12 (bookworm)", or the platform's name
}

// Machine returns the facts of this machine. What can't be found out is left
// at its zero value.
func Machine() Facts {
	f := Facts{CPUs: runtime.NumCPU(), Available: Available(), OS: osName("/etc/os-release")}
	f.CPUModel, f.Memory, f.Kernel = hardware()
	return f
}

// osName reads PRETTY_NAME from an os-release file.
func osName(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return runtime.GOOS
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
			if name = strings.Trim(strings.TrimSpace(name), `"'`); name != "" {
				return name
			}
		}
	}
	return runtime.GOOS
}
