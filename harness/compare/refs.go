package compare

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"phasegate/harness/environment"
)

// buildFolder is where revisions are built, below the comparison's folder.
const buildFolder = ".revisions"

// Built is one revision of the optimizer, built for a comparison.
type Built struct {
	Name   string // usable as a folder's name: "main", "HEAD"
	Commit string
	Binary string // path
}

// ErrRevision says that the repository doesn't know a revision.
var ErrRevision = errors.New("unknown revision")

// Build builds the optimizer of each revision that a git repository knows, from
// an archive of it: nothing is checked out and nothing in the repository
// changes. What is built lies below out until [RemoveBuilt]; one that a killed
// comparison left is built anew. dir is any folder in the repository. Nothing is
// built if the error is an [ErrRevision].
func Build(ctx context.Context, dir, out string, refs []string) ([]Built, error) {
	if err := RemoveBuilt(out); err != nil {
		return nil, err
	}
	top, err := git(ctx, dir, "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	commits := make([]string, len(refs))
	for i, ref := range refs {
		if commits[i], err = git(ctx, top, "rev-parse", "--verify", "--end-of-options", ref+"^{commit}"); err != nil {
			return nil, fmt.Errorf("%w %s: %w", ErrRevision, ref, err)
		}
	}
	var built []Built
	for i, ref := range refs {
		commit := commits[i]
		b := Built{Name: folderName(ref), Commit: commit}
		for n := 2; taken(built, b.Name); n++ {
			b.Name = fmt.Sprintf("%s-%d", folderName(ref), n)
		}
		if b.Binary, err = build(ctx, top, filepath.Join(out, buildFolder, b.Name), commit); err != nil {
			return nil, fmt.Errorf("build the optimizer of %s: %w", ref, err)
		}
		built = append(built, b)
	}
	return built, nil
}

// RemoveBuilt removes what [Build] made.
func RemoveBuilt(out string) error {
	if err := os.RemoveAll(filepath.Join(out, buildFolder)); err != nil {
		return fmt.Errorf("remove the revisions that were built: %w", err)
	}
	return nil
}

// fresh copies a program for one round, and returns what removes the copy. Two
// files with the same bytes differ by some percent of CPU time per request for as
// long as they stay in memory where they are, in every round alike. Placed anew
// in each round, that is noise that the interval counts, instead of a difference
// that it shows.
func fresh(binary string, round int) (path string, remove func() error, err error) {
	path = fmt.Sprintf("%s-%d", binary, round)
	from, err := os.Open(binary)
	if err != nil {
		return "", nil, fmt.Errorf("copy the program: %w", err)
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o777)
	if err == nil {
		// Through a buffer: a file system that shares blocks may share their pages too.
		_, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 1<<20))
		err = errors.Join(err, to.Close())
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("copy the program: %w", err), os.RemoveAll(path))
	}
	return path, func() error { return os.Remove(path) }, nil
}

// Changed says whether the working tree of the repository has changes that no
// revision holds.
func Changed(ctx context.Context, dir string) bool {
	text, err := git(ctx, dir, "status", "--porcelain", "--untracked-files=no")
	return err == nil && text != ""
}

var notInFolder = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

func folderName(ref string) string {
	name := strings.TrimLeft(notInFolder.ReplaceAllString(ref, "-"), ".-_")
	if name == "" {
		name = "revision"
	}
	return name[:min(len(name), 40)]
}

func taken(built []Built, name string) bool {
	for _, b := range built {
		if b.Name == name {
			return true
		}
	}
	return false
}

// build unpacks a commit, builds the optimizer from it and keeps the binary
// only.
func build(ctx context.Context, top, dir, commit string) (binary string, err error) {
	source := filepath.Join(dir, "source")
	defer func() { err = errors.Join(err, os.RemoveAll(source)) }()
	if err := unpack(ctx, top, commit, source); err != nil {
		return "", err
	}
	binary, err = filepath.Abs(filepath.Join(dir, "optimizer"))
	if err != nil {
		return "", err
	}
	// Trimmed paths, so that what is the same gives the same binary.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "./optimizer/cmd/optimizer")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0") // static, as a container needs it
	if said, err := environment.Gently(cmd).CombinedOutput(); err != nil {
		return "", errors.Join(ctx.Err(), fmt.Errorf("%w\n%s", err, strings.TrimSpace(string(said))))
	}
	return binary, nil
}

// unpack writes the files of a commit into a folder of its own.
func unpack(ctx context.Context, top, commit, dir string) error {
	cmd := exec.CommandContext(ctx, "git", "-C", top, "archive", "--format=tar", commit)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	wrote := extract(tar.NewReader(out), dir)
	_, _ = io.Copy(io.Discard, out) // so that git can end
	if err := cmd.Wait(); err != nil {
		return errors.Join(ctx.Err(), fmt.Errorf("git archive: %w %s", err, strings.TrimSpace(said.String())))
	}
	return wrote
}

func extract(archive *tar.Reader, dir string) error {
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue // folders are made with their files; the build needs no links
		}
		if !filepath.IsLocal(h.Name) {
			return fmt.Errorf("the archive has a file %q outside of its folder", h.Name)
		}
		path := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o666)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, archive)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", errors.Join(ctx.Err(), fmt.Errorf("git %s: %w %s", args[0], err, strings.TrimSpace(said.String())))
	}
	return strings.TrimSpace(string(out)), nil
}
