package plaintext_test

import (
	"slices"
	"testing"

	"phasegate/reports/internal/plaintext"
)

func TestLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"p95_latency < 10ms – µs":   "p95_latency < 10ms – µs", // ordinary text is left alone
		"a\nb\tc\r":                 "a b c ",                  // one line stays one line
		"\x1b[31mred\x1b[0m\a\x7f":  "·[31mred·[0m··",          // terminal escapes
		"\u0085\u009b":              "··",                      // the same as C1 controls
		"abc\u202egnp.exe\u2066":    "abc·gnp.exe·",            // text that reads backwards
		"\xff broken":               "· broken",                // not UTF-8
		"new\u2028line\u2029breaks": "new line breaks",
	} {
		if got := plaintext.Line(in); got != want {
			t.Errorf("Line(%q) = %q, want %q", in, got, want)
		}
	}
	if got := plaintext.Lines([]string{"a\n", "b"}); !slices.Equal(got, []string{"a ", "b"}) {
		t.Errorf("Lines = %q", got)
	}
}
