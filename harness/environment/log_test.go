package environment

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"phasegate/harness/scenario"
)

// written runs chunks of output through a log and returns its last lines and
// its file.
func written(t testing.TB, limit int64, chunks ...string) (last []string, file string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.log")
	l, err := createLog(path)
	if err != nil {
		t.Fatal(err)
	}
	l.limit = limit
	s := &stream{log: l}
	for _, c := range chunks {
		if n, err := s.Write([]byte(c)); n != len(c) || err != nil {
			t.Fatalf("write: %d of %d, %v", n, len(c), err)
		}
	}
	s.end()
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return l.lines(tail), string(text)
}

func TestLog(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine)
	for _, tt := range []struct {
		why    string
		chunks []string
		last   []string
		file   string
	}{
		{"nothing", nil, nil, ""},
		{"lines come in any pieces", []string{"a", "b\nc\n\n", "d"}, []string{"ab", "c", "", "d"}, "ab\nc\n\nd\n"},
		{"line ends of another system", []string{"a\r\nb\r\n"}, []string{"a", "b"}, "a\r\nb\r\n"},
		{"what would steer a terminal is defused where it is shown", []string{"\x1b[2Ja\x00\xff\tb\n"}, []string{"\uFFFD[2Ja\uFFFD\uFFFD\tb"}, "\x1b[2Ja\x00\xff\tb\n"},
		{"a line of the largest size is whole", []string{long + "\n"}, []string{long}, long + "\n"},
		{"a longer one says what is missing", []string{long, "yy\n", "z\n"}, []string{long + " [2 more bytes]", "z"}, long + " [2 more bytes]\nz\n"},
	} {
		last, file := written(t, maxFile, tt.chunks...)
		if !slices.Equal(last, tt.last) || file != tt.file {
			t.Errorf("%s: last lines %.100q, file %.100q; want %.100q, %.100q", tt.why, last, file, tt.last, tt.file)
		}
	}
}

func TestLogKeepsLastLines(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 200 {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	last, file := written(t, maxFile, b.String())
	if len(last) != tail || last[0] != "line 150" || last[tail-1] != "line 199" {
		t.Errorf("last lines %q", last)
	}
	if file != b.String() {
		t.Error("the file isn't complete")
	}
	// A file that grew to its limit still has the end, where the reason stands.
	_, file = written(t, 100, b.String())
	if !strings.HasPrefix(file, "line 0\n") || !strings.Contains(file, "187 lines are missing but for the last ones]\nline 150\n") || !strings.HasSuffix(file, "line 199\n") {
		t.Errorf("file %q", file)
	}
}

// However output is cut into pieces, the log is the same.
func FuzzLog(f *testing.F) {
	f.Add("a\nb\r\n\nc", 1)
	f.Add(strings.Repeat("x", maxLine+3)+"\ny", 4095)
	f.Add("\x1b[0m\xff\n", 2)
	f.Fuzz(func(t *testing.T, text string, size int) {
		var chunks []string
		for c := range slices.Chunk([]byte(text), max(1, size)) {
			chunks = append(chunks, string(c))
		}
		last, file := written(t, maxFile, chunks...)
		wantLast, wantFile := written(t, maxFile, text)
		if !slices.Equal(last, wantLast) || file != wantFile {
			t.Errorf("in pieces of %d: %q, %q; whole %q, %q", size, last, file, wantLast, wantFile)
		}
	})
}

func TestParseListening(t *testing.T) {
	t.Parallel()
	listen, admin, err := parseListening("optimizer listening on http://127.0.0.1:1234 admin http://127.0.0.1:5678")
	if err != nil || listen.Host != "127.0.0.1:1234" || admin.Host != "127.0.0.1:5678" {
		t.Errorf("%v, %v, %v", listen, admin, err)
	}
	for _, line := range []string{
		"", "optimizer listening on", "optimizer listening on 127.0.0.1:1 admin 127.0.0.1:2",
		"optimizer listening on http:// admin http://127.0.0.1:1", "optimizer listening on http://h:1 admin ftp://h:2",
		"x optimizer listening on http://h:1 admin http://h:2",
	} {
		if _, _, err := parseListening(line); err == nil {
			t.Errorf("%q: no error", line)
		}
	}
}

func FuzzParseListening(f *testing.F) {
	f.Add("optimizer listening on http://127.0.0.1:1234 admin http://127.0.0.1:5678")
	f.Add("optimizer listening on http://[::1]:1 admin https://h:x")
	f.Fuzz(func(t *testing.T, line string) {
		listen, admin, err := parseListening(line)
		if err == nil && (listen.Host == "" || admin.Host == "") {
			t.Errorf("%q: %v, %v", line, listen, admin)
		}
	})
}

func TestParseReady(t *testing.T) {
	t.Parallel()
	p := plan(scenario.System{Name: "old"}, scenario.System{Name: "new"})
	arm := `{"url":"http://127.0.0.1:1","tls_url":"https://127.0.0.1:2"}`
	ready, err := parseReady(`{"control":"unix:/x","arms":{"old":`+arm+`,"new":`+arm+`},"ca_file":"/ca"}`, p)
	if err != nil || ready.Control != "unix:/x" || ready.Arms["new"].TLSURL != "https://127.0.0.1:2" || ready.CAFile != "/ca" {
		t.Errorf("%+v, %v", ready, err)
	}
	for _, tt := range []struct{ why, line, err string }{
		{"not JSON", "listening", "expected is its addresses as JSON"},
		{"no control", `{"arms":{"old":` + arm + `,"new":` + arm + `}}`, "no control address"},
		{"an arm is missing", `{"control":"x","arms":{"old":` + arm + `}}`, "arm new"},
		{"a listener is missing", `{"control":"x","arms":{"old":` + arm + `,"new":{"url":"http://h:1"}}}`, "arm new"},
	} {
		if _, err := parseReady(tt.line, p); err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v; want %q", tt.why, err, tt.err)
		}
	}
}

func FuzzParseReady(f *testing.F) {
	f.Add(`{"control":"x","arms":{"new":{"url":"http://h:1","tls_url":"https://h:2"}}}`)
	f.Add(`{"arms":null}`)
	p := plan(scenario.System{Name: "new"})
	f.Fuzz(func(t *testing.T, line string) {
		if ready, err := parseReady(line, p); err == nil && (ready.Control == "" || ready.Arms["new"].URL == "") {
			t.Errorf("%q: %+v", line, ready)
		}
	})
}
