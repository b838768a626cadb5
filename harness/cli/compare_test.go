package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is wrong with the request is said before anything is started.
func TestCompareUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why  string
		args []string
		want string
	}{
		{"nothing to compare", []string{"compare"}, "one of --systems and --refs"},
		{"both at once", []string{"compare", "--systems", "a,b", "--refs", "a,b"}, "one of --systems and --refs"},
		{"no scenario", []string{"--systems", "optimizer,direct"}, "no scenario"},
		{"one system", []string{"compare", "--systems", "optimizer"}, "nothing to be compared with"},
		{"an unknown kind", []string{"compare", "--systems", "optimizer,squid"}, "unknown system"},
		{"a fault in a system of one's own", []string{"compare", "--systems", "optimizer,a={kind: command, command: [x]}"}, "no argument has {listen}"},
		{"an unknown scenario", []string{"comparison", "--systems", "optimizer,direct"}, "no scenario"},
		{"rounds", []string{"compare", "--systems", "optimizer,direct", "--rounds=-1"}, "allowed: 1 to 1000"},
		{"rounds that can't show anything", []string{"--refs", "a,b", "--rounds", "7"}, "allowed: 8 to 1000"},
		{"three revisions", []string{"--refs", "a,b,c"}, "allowed: two revisions"},
		{"no tolerance", []string{"--refs", "a,b", "--tolerance", "0"}, "allowed: a share above 0"},
		{"a tolerance that is none", []string{"--refs", "a,b", "--tolerance", "some"}, "allowed: a share above 0"},
		{"an upstream of no kind", []string{"compare", "--systems", "optimizer,direct", "--upstream", "vm"}, `must be one of "process","container","auto"`},
		{"no baseline", []string{"compare", "--systems", "optimizer", "--baseline", "missing.json"}, "--baseline: read result"},
	} {
		out := filepath.Join(t.TempDir(), "out")
		args := append([]string{"compare", "--out", out}, c.args...)
		if c.why == "nothing to compare" {
			args = append([]string{"compare", "--out", out}, c.args[1:]...)
		}
		code, _, stderr := call(args...)
		if code != exitUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit code %d, %q; want %d and %q", c.why, code, stderr, exitUsage, c.want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: the output folder was made", c.why)
		}
	}
}
