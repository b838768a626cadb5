package container

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	types "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
)

// keepImages is how many images of one name are kept in the engine, beside those of the
// last hour, which a run beside this one may be about to use.
const keepImages = 3

// IsStatic reports whether the file is a program that needs nothing else: an
// ELF executable without an interpreter, which is what loads libraries.
func IsStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// Build returns the image that holds nothing but a static binary, as its entry
// point. It is built once for every content of the binary.
func (e *Engine) Build(ctx context.Context, name, binary string) (image string, err error) {
	const program = "/program"
	dockerfile := []byte("FROM scratch\nCOPY program " + program + "\nENTRYPOINT [\"" + program + "\"]\n")
	content, err := os.ReadFile(binary)
	if err != nil {
		return "", fmt.Errorf("build the image of %s: %w", name, err)
	}
	sum := sha256.New()
	sum.Write(dockerfile)
	sum.Write(content)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, file := range []struct {
		name string
		mode int64
		data []byte
	}{{"Dockerfile", 0o644, dockerfile}, {"program", 0o755, content}} {
		if err := w.WriteHeader(&tar.Header{Name: file.name, Mode: file.mode, Size: int64(len(file.data))}); err != nil {
			return "", fmt.Errorf("build the image of %s: %w", name, err)
		}
		w.Write(file.data) // a buffer takes everything
	}
	w.Close()
	return e.build(ctx, name, sum, testcontainers.FromDockerfile{ContextArchive: bytes.NewReader(archive.Bytes())})
}

// BuildFile returns the image of a Dockerfile, whose folder is its context. It
// is built once for every content of the folder.
func (e *Engine) BuildFile(ctx context.Context, name, dockerfile string) (image string, err error) {
	dir, file := filepath.Split(dockerfile)
	dir = filepath.Clean(dir)
	sum := sha256.New()
	if err := hashFolder(sum, os.DirFS(dir), file); err != nil {
		return "", fmt.Errorf("build the image of %s from %s: %w", name, dockerfile, err)
	}
	return e.build(ctx, name, sum, testcontainers.FromDockerfile{Context: dir, Dockerfile: file})
}

// hashFolder hashes the names, modes and contents of all files of a folder, and where
// its links point.
func hashFolder(sum hash.Hash, folder fs.FS, dockerfile string) error {
	fmt.Fprintf(sum, "%q\n", dockerfile)
	if _, err := fs.Stat(folder, dockerfile); err != nil {
		return err
	}
	return fs.WalkDir(folder, ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type()&fs.ModeSymlink != 0 {
			target, err := fs.ReadLink(folder, path)
			fmt.Fprintf(sum, "%q -> %q\n", path, target)
			return err
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%q %v %d\n", path, info.Mode(), info.Size())
		f, err := folder.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(sum, f)
		return err
	})
}

// build builds what isn't there under the hash of its content.
func (e *Engine) build(ctx context.Context, name string, sum hash.Hash, from testcontainers.FromDockerfile) (string, error) {
	repository := "phasegate-" + name
	tag := hex.EncodeToString(sum.Sum(nil))[:16]
	image := repository + ":" + tag
	if _, err := e.api.ImageInspect(ctx, image); !errdefs.IsNotFound(err) {
		return image, err
	}
	var said bytes.Buffer
	from.Repo, from.Tag, from.KeepImage, from.BuildLogWriter = repository, tag, true, &said
	from.BuildOptionsModifier = func(o *client.ImageBuildOptions) { o.Labels = map[string]string{labelImage: name} }
	provider, err := testcontainers.NewDockerProvider()
	if err != nil {
		return "", fmt.Errorf("build the image of %s: %w", name, err)
	}
	defer provider.Close()
	if _, err := provider.BuildImage(ctx, &testcontainers.ContainerRequest{FromDockerfile: from}); err != nil {
		return "", fmt.Errorf("build the image of %s: %w\n%s", name, err, bytes.TrimSpace(said.Bytes()))
	}
	e.prune(ctx, repository)
	return image, nil
}

// prune removes the oldest images of a repository of ours. One that a container
// needs stays; whatever else keeps one from being removed, a later run meets
// it again.
func (e *Engine) prune(ctx context.Context, repository string) {
	images, err := e.api.ImageList(ctx, client.ImageListOptions{Filters: client.Filters{}.Add("reference", repository)})
	if err != nil || len(images.Items) <= keepImages {
		return
	}
	slices.SortFunc(images.Items, func(a, b types.Summary) int { return cmp.Compare(b.Created, a.Created) })
	for _, old := range images.Items[keepImages:] {
		if time.Since(time.Unix(old.Created, 0)) < time.Hour {
			continue
		}
		for _, tag := range old.RepoTags {
			_, _ = e.api.ImageRemove(ctx, tag, client.ImageRemoveOptions{PruneChildren: true})
		}
	}
}

// Ensure has the engine fetch an image that it lacks.
func (e *Engine) Ensure(ctx context.Context, image string) error {
	if _, err := e.api.ImageInspect(ctx, image); !errdefs.IsNotFound(err) {
		return err
	}
	provider, err := testcontainers.NewDockerProvider()
	if err != nil {
		return fmt.Errorf("fetch the image %s: %w", image, err)
	}
	defer provider.Close()
	if err := provider.PullImage(ctx, image); err != nil {
		return fmt.Errorf("fetch the image %s, which the engine doesn't have: %w", image, err)
	}
	return nil
}
