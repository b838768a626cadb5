package recording

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http/httpguts"
)

const common = `192.0.2.1 - - [17/May/2015:10:05:03 +0200] `

func TestParseLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, line      string
		method, target string
		status         int
		size           int64
	}{
		{"common", common + `"GET /a HTTP/1.1" 200 512`, "GET", "/a", 200, 512},
		{"combined", common + `"GET /a?b=c HTTP/1.0" 404 9 "http://r.example/" "Agent/1.0 (x; y)"`, "GET", "/a?b=c", 404, 9},
		{"Apache writes - for no body", common + `"HEAD /a HTTP/1.1" 304 -`, "HEAD", "/a", 304, 0},
		{"nginx over HTTP/2", common + `"GET /a HTTP/2.0" 200 1 "-" "-"`, "GET", "/a", 200, 1},
		{"a user name", `h i Jane [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1`, "GET", "/", 200, 1},
		{"a user name with a blank, which Apache doesn't escape", `h i Jane Doe [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1`, "GET", "/", 200, 1},
		{"a virtual host in front, fields behind", `shop.example:80 ::1 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "-" 0.001 "-"`, "GET", "/", 200, 1},
		{"an escaped quote in the target", common + `"GET /a\"b HTTP/1.1" 200 1`, "GET", `/a"b`, 200, 1},
		{"an escaped backslash before the closing quote", common + `"GET /a\\ HTTP/1.1" 200 1`, "GET", `/a\`, 200, 1},
		{"bytes beyond ASCII are percent-encoded", common + `"GET /caf\xC3\xA9 HTTP/1.1" 200 1`, "GET", "/caf%C3%A9", 200, 1},
		{"raw ones too", common + "\"GET /caf\xc3\xa9 HTTP/1.1\" 200 1", "GET", "/caf%C3%A9", 200, 1},
		{"what is percent-encoded stays", common + `"GET /a%20b HTTP/1.1" 200 1`, "GET", "/a%20b", 200, 1},
		{"absolute form", common + `"GET http://h.example:80/a?b HTTP/1.1" 200 1`, "GET", "/a?b", 200, 1},
		{"absolute form without a path", common + `"GET HTTP://h.example HTTP/1.1" 200 1`, "GET", "/", 200, 1},
		{"absolute form with only a query", common + `"GET https://h.example?a=/b HTTP/1.1" 200 1`, "GET", "/?a=/b", 200, 1},
		{"no request has a fragment", common + `"GET /a#b HTTP/1.1" 200 1`, "GET", "/a", 200, 1},
		{"any method that is a token", common + `"M-SEARCH /a HTTP/1.1" 500 1`, "M-SEARCH", "/a", 500, 1},
		{"a quote in a later field doesn't matter", common + `"GET /a HTTP/1.1" 200 1 "-" "broken \" agent`, "GET", "/a", 200, 1},
	} {
		got, err := parseLine([]byte(tt.line))
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		if got.method != tt.method || got.target != tt.target || got.status != tt.status || got.size != tt.size {
			t.Errorf("%s: %s is %+v", tt.why, tt.line, got)
		}
	}
	got, err := parseLine([]byte(common + `"GET /a HTTP/1.1" 200 512`))
	if want := time.Date(2015, 5, 17, 8, 5, 3, 0, time.UTC); err != nil || !got.at.Equal(want) {
		t.Errorf("the time is %v, want %v (%v)", got.at, want, err)
	}
}

func TestParseLineRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ why, line, want string }{
		{"no log", "hello", "no [time]"},
		{"cut off in the time", `h - - [17/May/2015:10:0`, "no end"},
		{"another time format", `h - - [2015-05-17T10:05:03Z] "GET / HTTP/1.1" 200 1`, "isn't of the form"},
		{"cut off before the request", `h - - [17/May/2015:10:05:03 +0000]`, "no \"request\""},
		{"cut off in the request", common + `"GET /a`, "has no end"},
		{"cut off in an escape", common + `"GET /a\`, "has no end"},
		{"no status", common + `"GET / HTTP/1.1"`, "no status and size"},
		{"no size", common + `"GET / HTTP/1.1" 200`, "no status and size"},
		{"a status that isn't one", common + `"GET / HTTP/1.1" 2xx 1`, "status"},
		{"a status out of range", common + `"GET / HTTP/1.1" 999 1`, "allowed is 100 to 599"},
		{"a status with a sign", common + `"GET / HTTP/1.1" +20 1`, "allowed is 100 to 599"},
		{"a negative size", common + `"GET / HTTP/1.1" 200 -1`, "size"},
		{"a size beyond int64", common + `"GET / HTTP/1.1" 200 99999999999999999999`, "size"},
		{"the client sent nothing", common + `"-" 408 -`, "the client sent none"},
		{"a path that no server takes", common + `"GET /%zz HTTP/1.1" 400 1`, "without two hexadecimal digits"},
		{"TLS on a clear-text port", common + `"\x16\x03\x01" 400 1`, "doesn't begin with a method"},
		{"no version", common + `"GET /" 200 1`, "protocol version"},
		{"a tunnel", common + `"CONNECT h:25 HTTP/1.1" 405 1`, "tunnel"},
		{"asterisk form", common + `"OPTIONS * HTTP/1.0" 200 -`, "asks the server"},
		{"not a path", common + `"GET a HTTP/1.1" 400 1`, "neither a path nor an http URL"},
		{"another scheme", common + `"GET ftp://h/ HTTP/1.1" 400 1`, "neither a path nor an http URL"},
		{"a blank in the target would end it", common + `"GET /a b HTTP/1.1" 400 1`, "holds"},
		{"a line end would smuggle a request in", common + `"GET /a\r\nX:y HTTP/1.1" 400 1`, "holds"},
		{"only a fragment", common + `"GET # HTTP/1.1" 400 1`, "neither a path"},
	} {
		if got, err := parseLine([]byte(tt.line)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %s is %+v, %v; want an error with %q", tt.why, tt.line, got, err, tt.want)
		}
	}
}

// unfit says why a request that was accepted couldn't be written as it is.
func unfit(q found) string {
	if !strings.HasPrefix(q.target, "/") || strings.ContainsFunc(q.target, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }) {
		return "the target is no path"
	}
	if q.method == "CONNECT" || len(q.method) > 32 || !httpguts.ValidHeaderFieldName(q.method) {
		return "the method is none"
	}
	if q.size < 0 {
		return "the size is negative"
	}
	for _, f := range q.extra.Header {
		if !httpguts.ValidHeaderFieldName(f[0]) || strings.ContainsAny(f[1], "\r\n\x00") || notReplayed[strings.ToLower(f[0])] {
			return "a header field would spoil the message"
		}
	}
	return ""
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(common + `"GET /a?b=c HTTP/1.1" 200 512 "-" "x"`))
	f.Add([]byte(common + `"GET http://h/\x41\"\\ HTTP/2" 304 -`))
	f.Add([]byte(` [] "`))
	f.Add([]byte(common + `"\`))
	f.Fuzz(func(t *testing.T, line []byte) {
		l, err := parseLine(line)
		if err != nil {
			return
		}
		if fault := unfit(l); fault != "" || l.status < 100 || l.status > 599 {
			t.Errorf("%q gives %+v: %s", line, l, fault)
		}
	})
}

// What can't be read is named by the column where it begins.
func TestFaultsOfALogHaveColumns(t *testing.T) {
	t.Parallel()
	const good = `"GET /a HTTP/1.1"`
	for _, tt := range []struct {
		why, text string
		column    int
	}{
		{"no time", "  garbage", 3},
		{"a time that is none", "h - - [yesterday] " + good + " 200 1", 8},
		{"no request", common + "GET", len(common)},
		{"a request without end", common + `"GET /`, len(common) + 2},
		{"a request that is none", common + `"hello" 200 1`, len(common) + 2},
		{"a status", common + good + "  9000 1", len(common) + len(good) + 3},
		{"a size", common + good + " 200 -1", len(common) + len(good) + 6},
		{"JSON that is none", `{"status": }`, 12},
	} {
		r := empty("f", accessLog)
		_ = r.parse(strings.NewReader(tt.text+"\n"), (*Recording).logLines) // none of its lines can be replayed
		if len(r.Problems) != 1 || r.Problems[0].Line != 1 || r.Problems[0].Column != tt.column {
			t.Errorf("%s: %+v, want column %d", tt.why, r.Problems, tt.column)
		}
	}
}

func TestReadLogCounts(t *testing.T) {
	t.Parallel()
	text := common + `"GET /a HTTP/1.1" 200 1` + "\r\n" + // Windows line end
		"\n" + // blank
		"   \n" + // blank but for blanks
		"garbage\n" +
		common + `"GET /` + strings.Repeat("x", maxLine) + ` HTTP/1.1" 200 1` + "\n" +
		common + `"GET /b HTTP/1.1" 200 1` // no line end
	l, err := parsed(accessLog, text)
	if err != nil {
		t.Fatal(err)
	}
	if l.Lines != 6 || l.Blank != 2 || l.Malformed != 2 || l.Requests() != 2 || l.Targets() != 2 {
		t.Errorf("read %+v", l)
	}
	want := []Problem{{4, 1, "no [time]"}, {5, 1, "longer than 65536 bytes"}}
	if diff := cmp.Diff(want, l.Problems); diff != "" {
		t.Error(diff)
	}
	notices := strings.Join(l.Notices(), "\n")
	for _, part := range []string{"2 of 6 lines can't be replayed: line 4: no [time]; line 5:", "2 blank lines"} {
		if !strings.Contains(notices, part) {
			t.Errorf("the notices lack %q: %s", part, notices)
		}
	}
	// However bad a log is, what is kept of its faults is bounded.
	l, err = parsed(accessLog, strings.Repeat("x\n", 1000)+text)
	if err != nil || l.Malformed != 1002 || len(l.Problems) != keepReasons {
		t.Errorf("%d malformed, %d kept, %v", l.Malformed, len(l.Problems), err)
	}
}

func TestReadAccessLogErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	packed := pack(t, []byte(strings.Repeat(common+`"GET /a HTTP/1.1" 200 1`+"\n", 9000)))
	for _, tt := range []struct {
		why, path string
		want      []string
	}{
		{"no such file", filepath.Join(dir, "missing.log"), []string{"missing.log", "no such file"}},
		{"empty", write("empty.log", nil), []string{"empty.log", "holds no requests"}},
		{"only blank lines", write("blank.log", []byte("\n\r\n")), []string{"holds no requests"}},
		{"another format: the first reasons are named", write("text.log", []byte("\na\nb\nc\nd\n")),
			[]string{"text.log:2:1: no [time]; line 3: no [time]; line 4: no [time] (none of the 4 lines of this access log can be replayed"}},
		{"a damaged archive isn't the log", write("cut.gz", packed[:len(packed)/2]), []string{"cut.gz", "unexpected EOF"}},
		{"no archive behind the magic", write("bad.gz", []byte("\x1f\x8bxx")), []string{"bad.gz"}},
	} {
		_, err := ReadAccessLog(tt.path)
		if err == nil {
			t.Errorf("%s: no error", tt.why)
			continue
		}
		for _, part := range tt.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error %q lacks %q", tt.why, err, part)
			}
		}
	}
}

func pack(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The fixtures read as their README says; compressed under any name they read
// the same.
func TestFixtures(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file                       string
		requests, blank, malformed int
	}{
		{"shop.combined.log", 400, 0, 0},
		{"shop.common.log", 300, 1, 3},
	} {
		path := filepath.Join("..", "..", "fixtures", "traffic", tt.file)
		l, err := ReadAccessLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if l.Requests() != tt.requests || l.Blank != tt.blank || l.Malformed != tt.malformed {
			t.Errorf("%s: %d requests, %d blank, %d malformed: %v", tt.file, l.Requests(), l.Blank, l.Malformed, l.Problems)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		packed := filepath.Join(t.TempDir(), "packed") // told by its first bytes
		if err := os.WriteFile(packed, pack(t, text), 0o600); err != nil {
			t.Fatal(err)
		}
		z, err := ReadAccessLog(packed)
		if err != nil {
			t.Fatal(err)
		}
		z.Path = l.Path
		if diff := cmp.Diff(l, z, cmp.AllowUnexported(Recording{}, entry{}, outcome{})); diff != "" {
			t.Errorf("%s compressed differs: %s", tt.file, diff)
		}
		for _, r := range []int{200, 301, 404} {
			found := false
			for _, resource := range l.Catalog() {
				found = found || resource.Status == r
			}
			if !found {
				t.Errorf("%s: no path answers %d", tt.file, r)
			}
		}
	}
}

// The other recordings among the fixtures, as the README says.
func TestFixturesOfOtherKinds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file                      string
		read                      func(string) (*Recording, error)
		requests, malformed, body int
	}{
		{"shop.json.log", ReadAccessLog, 60, 2, 0},
		{"shop.har", ReadHAR, 32, 3, 1},
		{"shop.targets.http", ReadTargets, 5, 0, 1},
		{"shop.targets.json", ReadTargets, 4, 0, 1},
	} {
		r, err := tt.read(filepath.Join("..", "..", "fixtures", "traffic", tt.file))
		if err != nil {
			t.Fatal(err)
		}
		bodies := 0
		for _, x := range r.Extras() {
			if len(x.Body) > 0 {
				bodies++
			}
		}
		if r.Requests() != tt.requests || r.Malformed != tt.malformed || bodies != tt.body {
			t.Errorf("%s: %d requests, %d malformed, %d bodies: %v", tt.file, r.Requests(), r.Malformed, bodies, r.Problems)
		}
		if r.Timed() {
			if _, pass := r.Times(); pass < time.Second || pass > 10*time.Second {
				t.Errorf("%s: a pass of %s", tt.file, pass)
			}
		}
	}
}

// A real log, named by the environment, must read without a fault.
func TestRealLog(t *testing.T) {
	t.Parallel()
	path := os.Getenv("PHASEGATE_TEST_ACCESS_LOG")
	if path == "" {
		t.Skip("PHASEGATE_TEST_ACCESS_LOG names no log")
	}
	l, err := ReadAccessLog(path)
	if err != nil {
		t.Fatal(err)
	}
	statuses := map[int]int{}
	for _, r := range l.Catalog() {
		statuses[r.Status]++
	}
	t.Logf("%d requests, %d targets, %d malformed, %d blank; served statuses %v", l.Requests(), l.Targets(), l.Malformed, l.Blank, statuses)
	t.Logf("notices %q; problems %v", l.Notices(), l.Problems)
	if l.Malformed > l.Lines/100 {
		t.Errorf("%d of %d lines can't be replayed", l.Malformed, l.Lines)
	}
}

func BenchmarkParseLine(b *testing.B) {
	line := []byte(common + `"GET /presentations/kibana-search.png?x=1 HTTP/1.1" 200 203023 "http://r.example/" "Mozilla/5.0"`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseLine(line); err != nil {
			b.Fatal(err)
		}
	}
}
