package compare

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repository makes one with two revisions of an optimizer, the first tagged
// "good", and returns its folder.
func repository(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"git", "go"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s on PATH: install it to test what builds revisions", program)
		}
	}
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) {
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	run("init", "-q")
	write("go.mod", "module phasegate\n\ngo 1.24\n")
	write("optimizer/cmd/optimizer/main.go", "package main\n\nfunc main() { println(\"one\") }\n")
	run("add", ".")
	run("commit", "-qm", "one")
	run("tag", "good")
	write("README", "changed\n")
	run("add", ".")
	run("commit", "-qm", "the program is the same")
	write("optimizer/cmd/optimizer/main.go", "package main\n\nfunc main() { println(\"two\") }\n")
	run("add", ".")
	run("commit", "-qm", "two")
	write("optimizer/cmd/optimizer/main.go", "package main\n\nfunc main() { println(\"uncommitted\") }\n")
	return dir
}

func TestBuildRevisions(t *testing.T) {
	t.Parallel()
	dir, out := repository(t), t.TempDir()
	before, err := exec.Command("git", "-C", dir, "status", "--porcelain").Output()
	if err != nil {
		t.Fatal(err)
	}
	built, err := Build(t.Context(), filepath.Join(dir, "optimizer"), out, []string{"good", "HEAD", "HEAD~1", "HEAD"})
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ name, says string }{{"good", "one"}, {"HEAD", "two"}, {"HEAD-1", "one"}, {"HEAD-2", "two"}}
	for i, b := range built {
		said, err := exec.Command(b.Binary).CombinedOutput()
		if err != nil || strings.TrimSpace(string(said)) != want[i].says || b.Name != want[i].name || len(b.Commit) < 40 {
			t.Errorf("%+v says %q (%v), want %+v", b, said, err, want[i])
		}
	}
	if !sameFile(built[0].Binary, built[2].Binary) || sameFile(built[0].Binary, built[1].Binary) {
		t.Error("the same source doesn't give the same program, or different ones do")
	}
	if !Changed(t.Context(), dir) {
		t.Error("uncommitted changes are not seen")
	}
	after, _ := exec.Command("git", "-C", dir, "status", "--porcelain").Output()
	worktrees, _ := exec.Command("git", "-C", dir, "worktree", "list").Output()
	if string(after) != string(before) || strings.Count(string(worktrees), "\n") != 1 {
		t.Errorf("the repository was changed:\n%s\n%s", after, worktrees)
	}
	if left, _ := filepath.Glob(filepath.Join(out, buildFolder, "*", "source")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := RemoveBuilt(out); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(out); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestBuildExplains(t *testing.T) {
	t.Parallel()
	dir := repository(t)
	for _, c := range []struct {
		why, dir, ref, want string
		unknown             bool
	}{
		{"a slip", dir, "mian", "unknown revision mian", true},
		{"an option is no revision", dir, "--all", "unknown revision --all", true},
		{"not in a repository", os.TempDir(), "HEAD", "find the repository", false},
	} {
		out := t.TempDir()
		if _, err := Build(t.Context(), c.dir, out, []string{"HEAD", c.ref}); err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrRevision) != c.unknown {
			t.Errorf("%s: error %v, want it to contain %q", c.why, err, c.want)
		}
		if left, _ := os.ReadDir(out); len(left) > 0 {
			t.Errorf("%s: built %v", c.why, left)
		}
	}
}
