package environment

import (
	"fmt"
	"strings"
)

// Error says that the environment could not be brought up. Errors about a
// cancelled context are none of these.
type Error struct {
	Op     string   // what was being done: "wait until it answers"
	System string   // to which system: "old", "new" or "upstream"; "" where it is about none
	Err    error    // what was found, and for how long it was waited
	Hint   string   // what to do about it, one sentence; may be empty
	Log    []string // the process's last log lines; may be empty
	File   string   // the log they are from
}

// Error returns one line without the log and the hint.
func (e *Error) Error() string {
	if e.System == "" {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s: %s: %v", e.System, e.Op, e.Err)
}

// Unwrap returns what was found.
func (e *Error) Unwrap() error { return e.Err }

// Detail returns everything that is known, in several lines: the error, the
// last log lines, the hint.
func (e *Error) Detail() string {
	var b strings.Builder
	b.WriteString(e.Error())
	if len(e.Log) > 0 {
		fmt.Fprintf(&b, "\nThe last lines of %s:", e.File)
		for _, line := range e.Log {
			b.WriteString("\n  | " + line)
		}
	} else if e.File != "" {
		fmt.Fprintf(&b, "\n%s is empty.", e.File)
	}
	if e.Hint != "" {
		b.WriteString("\n" + e.Hint)
	}
	return b.String()
}
