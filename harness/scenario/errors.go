package scenario

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one fault of a scenario, at its place. Its text begins
// "FILE:LINE:COL: ". A fault that came from the command line has File
// "--set PATH=VALUE" or "--system X" and no Line.
type Error struct {
	File string
	Line int // from 1; 0 if the fault isn't in the file
	Col  int // from 1, in characters
	Msg  string
}

// Error returns the place and the message.
func (e *Error) Error() string { return e.place().String() + ": " + e.Msg }

func (e *Error) place() place { return place{e.File, e.Line, e.Col} }

// Errors are all faults of one scenario, in the order of their lines; those of
// the command line come last.
type Errors []*Error

// Error returns one fault per line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, fault := range e {
		lines[i] = fault.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find each [Error].
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, fault := range e {
		errs[i] = fault
	}
	return errs
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b *Error) int {
		if (a.Line == 0) != (b.Line == 0) {
			return b.Line - a.Line
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}

// place is where a value was written.
type place struct {
	file      string
	line, col int // 0 for the command line
}

func (p place) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.col)
}

// fault returns an error at p.
func (p place) fault(format string, args ...any) *Error {
	return &Error{p.file, p.line, p.col, fmt.Sprintf(format, args...)}
}

// listed joins words for a message: "a, b, c".
func listed[S ~string](words []S) string {
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = string(w)
	}
	return strings.Join(parts, ", ")
}

// oneLine keeps text that others wrote within the line of its message.
func oneLine(text string) string {
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(text)
}
