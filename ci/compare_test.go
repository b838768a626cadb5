package ci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"phasegate/reports/result"
)

func comparisonOf(t *testing.T, p *invocation) *result.Comparison {
	t.Helper()
	c, err := result.ReadComparison(filepath.Join(p.out, result.ComparisonFile))
	if err != nil {
		t.Fatalf("%v\nstderr:\n%s", err, &p.stderr)
	}
	return c
}

// Two of the same, and none at all: the real programs, every file, and runs
// that can be verified one by one.
func TestCompare(t *testing.T) {
	t.Parallel()
	p := unraced(t, "compare", tiny, "--systems", "optimizer,small={kind: optimizer, config: {cache: {max_memory_mb: 50}}},direct",
		"--rounds", "2", "--set", "profiles.quick.steady=2s")
	p.run(1) // direct has no hits
	c := comparisonOf(t, p)
	if !c.Complete || c.Rounds != 2 || len(c.Systems) != 3 {
		t.Fatalf("complete %t, %d rounds, %d systems", c.Complete, c.Rounds, len(c.Systems))
	}
	for i, want := range []struct {
		name    string
		verdict result.Verdict
	}{{"optimizer", result.Pass}, {"small", result.Pass}, {"direct", result.Fail}} {
		if s := c.Systems[i]; s.Name != want.name || (s.Verdict == result.Fail) != (want.verdict == result.Fail) || len(s.Runs) != 2 {
			t.Errorf("%s: %s after %d runs, want %s", s.Name, s.Verdict, len(s.Runs), want.verdict)
		}
	}
	for _, name := range []string{"compare.json", "compare.html", "summary.md", "small/2/result.json", "direct/1/evidence/SHA256SUMS"} {
		if _, err := os.Stat(filepath.Join(p.out, name)); err != nil {
			t.Error(err)
		}
	}
	unfair := map[string]string{}
	for _, f := range c.Fairness {
		unfair[f.Check] = f.State
	}
	if unfair["warmed alike"] != result.Held || unfair["same cache size in force"] != result.Violated {
		t.Errorf("fairness: %v; half of the cache is not the same, and the rest is", unfair)
	}
	if !strings.Contains(p.stdout.String(), "NOT FAIR") || !strings.Contains(p.stdout.String(), "compare.html") {
		t.Errorf("the terminal doesn't say so:\n%s", &p.stdout)
	}
	unraced(t, "verify", filepath.Join(p.out, "small", "1")).run(0)

	page, err := os.ReadFile(filepath.Join(p.out, "compare.html"))
	if err != nil {
		t.Fatal(err)
	}
	unraced(t, "report", filepath.Join(p.out, "compare.json")).run(0)
	again, err := os.ReadFile(filepath.Join(p.out, "compare.html"))
	if err != nil || string(again) != string(page) {
		t.Errorf("made again from its record, the page differs (%v)", err)
	}

	later := unraced(t, "compare", tiny, "--systems", "optimizer", "--rounds", "1", "--set", "profiles.quick.steady=2s",
		"--baseline", filepath.Join(p.out, "compare.json"))
	if err := later.Start(); err != nil {
		t.Fatal(err)
	}
	later.wait(3) // two seconds decide no share
	if b := comparisonOf(t, later).Baseline; b == nil || len(b.Values) == 0 || len(b.Differs) > 0 {
		t.Errorf("the same machine, program and settings are held against as %+v", b)
	}
}

func TestCompareInterrupted(t *testing.T) {
	t.Parallel()
	p := unraced(t, "compare", tiny, "--systems", "direct,optimizer", "--rounds", "3", "--set", "profiles.quick.steady=2s")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	p.until("the second round", func() bool { return strings.Contains(p.stderr.String(), "round 2 of 3") })
	p.Process.Signal(os.Interrupt)
	p.wait(130)
	c := comparisonOf(t, p)
	if c.Complete || c.Rounds != 1 || !strings.Contains(c.Incomplete, "1 of 3 rounds") || len(c.Metrics) == 0 {
		t.Errorf("complete %t, %d rounds, %q, %d metrics", c.Complete, c.Rounds, c.Incomplete, len(c.Metrics))
	}
}

// Revisions are built from the repository, if this is one, and nothing of that
// stays.
func TestCompareRevisions(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("../.git"); err != nil {
		t.Skip("not a git repository: clone one to test the comparison of revisions")
	}
	p := unraced(t, "compare", "--refs", "HEAD,HEAD", "--rounds", "8", "--set", "profiles.quick.steady=1s", "--set", "load.rate=300/s",
		"--tolerance", "900%") // a machine busy with other tests is no place to find less
	p.run(0)
	c := comparisonOf(t, p)
	if c.Regression == nil || !c.Regression.Identical || c.Systems[0].Revision == "" || c.Systems[1].Name != "HEAD-2" {
		t.Errorf("regression %+v of %+v", c.Regression, c.Systems)
	}
	if left, _ := filepath.Glob(filepath.Join(p.out, ".*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What ci/regression-power.sh plants still fits the program.
func TestSlowdownApplies(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git on PATH: install it to test the patch")
	}
	cmd := exec.Command("git", "apply", "--check", "ci/testdata/slowdown.patch")
	cmd.Dir = ".."
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("plant the slowdown: %v\n%s", err, said)
	}
}
