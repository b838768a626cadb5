// Package atomicfile writes files whole or not at all: what a reader finds
// under a name is always the old content or the new, never half of either.
package atomicfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// Write calls fill with a buffered writer to a temporary file beside path and,
// if fill succeeds and the bytes are on disk, renames that file to path. After
// an error nothing is left behind and an older file at path is untouched. The
// error names path and the step that failed; it wraps fill's own.
func Write(path string, fill func(io.Writer) error) (err error) {
	f, err := create(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			// The close error of a file that is thrown away says nothing new.
			_ = f.Close()
			err = fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	b := bufio.NewWriterSize(f, 64<<10)
	if err := fill(b); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return err
	}
	// Without this a crash after the rename could leave an empty file under the
	// final name on file systems that order metadata before data.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// create opens a new hidden file in path's folder. os.CreateTemp would make it
// readable by its owner only; reports are meant to be shared, so the process's
// umask decides.
func create(path string) (*os.File, error) {
	dir, base := filepath.Split(path)
	for range 100 {
		name := filepath.Join(dir, fmt.Sprintf(".%s.%08x", base, rand.Uint32()))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	return nil, errors.New("no free temporary name after 100 tries")
}
