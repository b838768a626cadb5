package recording

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// ReadTargets reads a target list in one of vegeta's formats, told apart by
// the first byte of text: JSON (an object per line) or HTTP (a line with
// method and URL, header fields, and @FILE for a body). A body's file is
// looked for beside the target list, and then, as vegeta does, in the working
// directory.
//
// Each target is parsed by vegeta's own code. It gets one at a time, so that
// one which can't be replayed costs only itself and has a line to be named by.
func ReadTargets(path string) (*Recording, error) {
	return read(path, targetList, (*Recording).targets)
}

func (r *Recording) targets(b *bufio.Reader) error {
	lines := &targetLines{Scanner: bufio.NewScanner(b), count: &r.Lines}
	lines.Buffer(nil, maxBody/3*4+maxLine) // a JSON target brings its body in base64
	chunk, decoder := httpChunk, httpTarget
	if startsJSON(b) {
		chunk, decoder = jsonChunk, jsonTarget
	}
	for {
		text, first := chunk(lines)
		if text == nil {
			return lines.Err()
		}
		q, err := decoder(text, filepath.Dir(r.Path))
		if err != nil {
			r.reject(first, 1, err)
			continue
		}
		if err := r.add(first, 1, q); err != nil {
			return err
		}
	}
}

// startsJSON reports whether the first byte that isn't white space opens an
// object.
func startsJSON(b *bufio.Reader) bool {
	for n := 64; ; n *= 2 {
		head, err := b.Peek(n)
		if text := bytes.TrimLeft(head, " \t\r\n"); len(text) > 0 {
			return text[0] == '{'
		}
		if err != nil {
			return false
		}
	}
}

// targetLines reads lines without the white space around them, and lets the
// one read last be read again.
type targetLines struct {
	*bufio.Scanner
	count *int
	again bool
}

func (l *targetLines) next() ([]byte, bool) {
	if l.again {
		l.again = false
	} else if !l.Scan() {
		return nil, false
	} else {
		*l.count++
	}
	return bytes.TrimSpace(l.Bytes()), true
}

// jsonChunk returns the text of the next target; nil at the end.
func jsonChunk(l *targetLines) (text []byte, first int) {
	for {
		line, ok := l.next()
		if !ok || len(line) > 0 {
			return line, *l.count
		}
	}
}

// startsTarget is how vegeta recognizes the first line of a target.
var startsTarget = regexp.MustCompile(`^[A-Z]+\s`)

// httpChunk returns the text of the next target; nil at the end. It ends
// before an empty line, after the one that names the body's file, and, right
// after its own first line, before the next target's. What begins with
// anything but a target is passed on, up to the next target, to be refused.
func httpChunk(l *targetLines) (text []byte, first int) {
	for {
		line, ok := l.next()
		if !ok {
			return nil, 0
		}
		if len(line) > 0 && line[0] != '#' {
			text, first = append(append(text, line...), '\n'), *l.count
			break
		}
	}
	right := startsTarget.Match(text)
	for n := 1; ; n++ {
		line, ok := l.next()
		switch {
		case !ok || len(line) == 0:
			return text, first
		case startsTarget.Match(line) && (n == 1 || !right):
			l.again = true
			return text, first
		}
		if text = append(append(text, line...), '\n'); line[0] == '@' && right {
			return text, first
		}
	}
}

func jsonTarget(text []byte, _ string) (found, error) {
	var t vegeta.Target
	if err := vegeta.NewJSONTargeter(bytes.NewReader(append(text, '\n')), nil, nil).Decode(&t); err != nil {
		return found{}, err
	}
	return asked(&t)
}

func httpTarget(text []byte, folder string) (found, error) {
	var b strings.Builder
	for line := range bytes.Lines(text) {
		if len(line) > maxLine-1 { // where vegeta's scanner would end without a word
			return found{}, fmt.Errorf("a line longer than %d bytes", maxLine-2)
		}
		if line[0] == '@' {
			path, err := findBody(string(line[1:len(line)-1]), folder)
			if err != nil {
				return found{}, err
			}
			line = []byte("@" + path + "\n")
		}
		b.Write(line)
	}
	var t vegeta.Target
	err := vegeta.NewHTTPTargeter(strings.NewReader(b.String()), nil, nil).Decode(&t)
	if err != nil {
		return found{}, err
	}
	return asked(&t)
}

// findBody returns the path of the file that a target names for its body.
func findBody(name, folder string) (string, error) {
	path := name
	if !filepath.IsAbs(name) {
		path = filepath.Join(folder, name)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			path = name
		}
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("the body's file %s is neither in %s nor in the working directory", name, folder)
	case err != nil:
		return "", fmt.Errorf("the body's file: %w", err)
	case !info.Mode().IsRegular() || info.Size() > maxBody:
		return "", fmt.Errorf("the body's file %s isn't a file of at most %d bytes", name, maxBody)
	}
	return path, nil
}

// asked makes a request of a target.
func asked(t *vegeta.Target) (q found, err error) {
	if err = checkMethod(t.Method); err != nil {
		return q, err
	}
	if q.target, q.host, err = originForm([]byte(t.URL)); err != nil {
		return q, err
	}
	var fields [][2]string
	for _, name := range slices.Sorted(maps.Keys(t.Header)) { // of a map's fields only a sorted order is the same every time
		for _, value := range t.Header[name] {
			fields = append(fields, [2]string{name, value})
		}
	}
	q.method, q.extra.Body = t.Method, t.Body
	q.extra.Header, err = replayed(fields, nil)
	return q, err
}
