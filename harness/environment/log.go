package environment

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"unicode"
)

// Bounds of a process's log. What goes beyond maxFile isn't written, but its
// last lines are, when the process ends.
const (
	maxLine = 8 << 10   // bytes of a line; the rest of it is dropped
	maxFile = 256 << 20 // bytes of a file
	tail    = 50        // lines kept in memory
)

// log is one process's log: a file, and its last lines in memory.
type log struct {
	mu      sync.Mutex
	file    *os.File
	err     error // the first failed write; the process goes on without a file
	limit   int64
	written int64
	dropped int64    // lines beyond the limit
	last    []string // at most tail lines, oldest first
}

// createLog starts a log file anew.
func createLog(path string) (*log, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &log{file: f, limit: maxFile}, nil
}

// add appends a line, which has no line end.
func (l *log) add(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = append(l.last, printable(line))
	if len(l.last) > tail {
		l.last = append(l.last[:0], l.last[len(l.last)-tail:]...)
	}
	if l.written+int64(len(line)) >= l.limit {
		l.dropped++
		return
	}
	l.write(append(line, '\n'))
}

func (l *log) write(b []byte) {
	if l.err != nil {
		return
	}
	n, err := l.file.Write(b)
	l.written += int64(n)
	l.err = err
}

// lines returns the last n lines, oldest first.
func (l *log) lines(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.last[max(0, len(l.last)-max(0, n)):]...)
}

// contains reports whether one of the last lines holds text, in any case.
func (l *log) contains(text string) bool {
	for _, line := range l.lines(tail) {
		if strings.Contains(strings.ToLower(line), text) {
			return true
		}
	}
	return false
}

func (l *log) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped > 0 {
		l.write(fmt.Appendf(nil, "[phasegate: the log reached %d bytes, from here on %d lines are missing but for the last ones]\n%s\n",
			l.written, l.dropped, strings.Join(l.last, "\n")))
	}
	return errors.Join(l.err, l.file.Close())
}

// printable makes a line safe to show: no control characters, which might
// steer a terminal, and valid UTF-8.
func printable(line []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, strings.TrimRight(string(line), "\r"))
}

// stream is one output of a process on its way to the log, line by line. It is
// written to by one goroutine.
type stream struct {
	log   *log
	first func(line string) // told the first line; may be nil
	line  []byte
	long  int // bytes of the current line beyond maxLine
}

// Write takes whatever came; it never fails, as the process could do nothing
// about it.
func (s *stream) Write(b []byte) (int, error) {
	n := len(b)
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			s.take(b)
			return n, nil
		}
		s.take(b[:i])
		s.flush()
		b = b[i+1:]
	}
}

func (s *stream) take(b []byte) {
	fits := min(len(b), maxLine-len(s.line))
	s.line = append(s.line, b[:fits]...)
	s.long += len(b) - fits
}

func (s *stream) flush() {
	if s.long > 0 {
		s.line = fmt.Appendf(s.line, " [%d more bytes]", s.long)
	}
	if s.first != nil {
		s.first(strings.TrimRight(string(s.line), "\r"))
		s.first = nil
	}
	s.log.add(s.line)
	s.line, s.long = s.line[:0], 0
}

// end logs what came after the last line end.
func (s *stream) end() {
	if len(s.line) > 0 {
		s.flush()
	}
}
