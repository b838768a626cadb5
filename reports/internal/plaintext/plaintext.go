// Package plaintext makes text of unknown origin safe to show.
package plaintext

import (
	"strings"
	"unicode"
)

// Line returns s as one line: breaks become spaces, and what would steer a
// terminal or reorder text (control characters, bidirectional controls) becomes
// a visible dot.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r', r == '\u2028', r == '\u2029':
			return ' '
		case unicode.IsControl(r), r == unicode.ReplacementChar, unicode.Is(unicode.Bidi_Control, r):
			return '·'
		}
		return r
	}, s)
}

// Lines applies [Line] to each of list.
func Lines(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = Line(s)
	}
	return out
}
