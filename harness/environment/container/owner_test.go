package container

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// What a living run owns must never be removed, and what nobody knows of
// stays: only an owner that is known to have ended loses its containers.
func TestOwnerGone(t *testing.T) {
	t.Parallel()
	us := owner{"host", "boot", "pid:[1]", 10, 500}
	table := func(pid int) (uint64, bool) {
		born, alive := map[int]uint64{20: 700}[pid]
		return born, alive
	}
	for _, tt := range []struct {
		why   string
		owner owner
		gone  bool
	}{
		{"it runs", owner{"host", "boot", "pid:[1]", 20, 700}, false},
		{"it has ended", owner{"host", "boot", "pid:[1]", 21, 700}, true},
		{"its number came again", owner{"host", "boot", "pid:[1]", 20, 699}, true},
		{"the machine was started again since", owner{"host", "earlier", "pid:[1]", 20, 700}, true},
		{"numbers of another namespace say nothing here", owner{"host", "boot", "pid:[2]", 21, 700}, false},
		{"so do those of another machine at the same engine", owner{"other", "boot2", "pid:[1]", 21, 700}, false},
	} {
		if got := tt.owner.gone(us, table); got != tt.gone {
			t.Errorf("%s: gone %v", tt.why, got)
		}
		back, err := parseOwner(tt.owner.String())
		if back != tt.owner || err != nil {
			t.Errorf("%s: %+v, %v after a round trip", tt.why, back, err)
		}
	}
	for _, text := range []string{"", "a/b/c", "h/b/n/pid/1", "h/b/n/1/x"} {
		if _, err := parseOwner(text); err == nil {
			t.Errorf("%q is no owner, and was taken for one", text)
		}
	}
	if me := self(); me.gone(me, birth) {
		t.Errorf("this process takes itself for gone: %v", me)
	}
}

// The tag stands for the content: whatever may change the image changes it.
func TestHashFolder(t *testing.T) {
	t.Parallel()
	hash := func(m fstest.MapFS, dockerfile string) string {
		sum := sha256.New()
		if err := hashFolder(sum, m, dockerfile); err != nil {
			return err.Error()
		}
		return string(sum.Sum(nil))
	}
	file := func(text string, mode os.FileMode) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(text), Mode: mode}
	}
	base := fstest.MapFS{"Dockerfile": file("FROM scratch", 0o644), "bin/a": file("x", 0o755)}
	same := fstest.MapFS{"bin/a": file("x", 0o755), "Dockerfile": file("FROM scratch", 0o644)}
	if hash(base, "Dockerfile") != hash(same, "Dockerfile") {
		t.Error("the same content has two tags: it would be built at every use")
	}
	for why, other := range map[string]fstest.MapFS{
		"another content": {"Dockerfile": file("FROM scratch", 0o644), "bin/a": file("y", 0o755)},
		"another name":    {"Dockerfile": file("FROM scratch", 0o644), "bin/b": file("x", 0o755)},
		"another mode":    {"Dockerfile": file("FROM scratch", 0o644), "bin/a": file("x", 0o644)},
		"one more file":   {"Dockerfile": file("FROM scratch", 0o644), "bin/a": file("x", 0o755), "c": file("", 0o644)},
		"no Dockerfile":   {"bin/a": file("x", 0o755)},
	} {
		if hash(base, "Dockerfile") == hash(other, "Dockerfile") {
			t.Errorf("%s, the same tag", why)
		}
	}
}

func TestIsStatic(t *testing.T) {
	t.Parallel()
	if IsStatic("owner_test.go") || IsStatic("nowhere") {
		t.Error("what is no program was taken for a static one")
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "program"), source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !IsStatic(filepath.Join(dir, "program")) {
		t.Error("a program built without cgo isn't taken for a static one")
	}
	// The shell needs the C library, wherever it is linked in the usual way.
	if shell, err := exec.Command("ldd", "/bin/sh").CombinedOutput(); err == nil && strings.Contains(string(shell), "=>") && IsStatic("/bin/sh") {
		t.Error("the shell, which needs libraries, was taken for static")
	}
}
