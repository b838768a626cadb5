package recording

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// told is what a recording's requests are, one line each.
func told(r *Recording) (lines []string) {
	for i := range r.Requests() {
		q := r.At(i)
		line := q.Method + " " + r.Target(q.Target)
		if q.Extra >= 0 {
			x := r.Extras()[q.Extra]
			for _, f := range x.Header {
				line += " | " + f[0] + ": " + f[1]
			}
			if len(x.Body) > 0 {
				line += " | " + string(x.Body)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func TestTargets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, text string
		want      []string
		problems  []string
	}{
		{"a line each", "GET http://h/a\nGET http://h/b?c=d\n", []string{"GET /a", "GET /b?c=d"}, nil},
		{"a path alone", "GET /a\n", []string{"GET /a"}, nil},
		{"comments, empty lines, Windows line ends, no last one", "# x\r\n\r\nGET http://h/a\r\nX-A: 1\r\n\r\n\r\n# y\r\nHEAD http://h/b", []string{"GET /a | X-A: 1", "HEAD /b"}, nil},
		{"header fields: sorted by name, as written, values in order", "GET http://h/\nx-b: 1\nX-A: 2\nx-b: 3\n", []string{"GET / | X-A: 2 | x-b: 1 | x-b: 3"}, nil},
		{"what changes a cache's duty is passed on", "GET http://h/\nAuthorization: Basic eA==\nCookie: a=b\nRange: bytes=0-1\nIf-None-Match: *\nCache-Control: no-cache\n",
			[]string{"GET / | Authorization: Basic eA== | Cache-Control: no-cache | Cookie: a=b | If-None-Match: * | Range: bytes=0-1"}, nil},
		{"what the generator sets isn't", "GET http://h/\nHost: other\nContent-Length: 9\nUser-Agent: x\nConnection: X-Hop\nX-Hop: 1\nAccept-Encoding: gzip\nExpect: 100-continue\n", []string{"GET /"}, nil},
		{"a bad one costs only itself", "GET http://h/a\n\nget http://h/b\nX-A: 1\n\nGET http://h/c\n", []string{"GET /a", "GET /c"}, []string{"line 3: bad method: get"}},
		{"with what belongs to it, up to the next", "hello\nX-A: 1\nGET http://h/c\n", []string{"GET /c"}, []string{"line 1: bad target: hello"}},
		{"a header field without a value", "GET http://h/a\nX-A:\n\nGET http://h/b\n", []string{"GET /b"}, []string{"line 1: bad header: X-A:"}},
		{"a header field with a name that is none", "GET http://h/a\nX(A): 1\n", nil, []string{"line 1: header field \"X(A)\""}},
		{"another scheme", "GET ftp://h/a\nGET /b\n", []string{"GET /b"}, []string{"line 1: request target \"ftp://h/a\""}},
		{"a line too long for vegeta, which would stop there without a word", "GET http://h/" + strings.Repeat("a", maxLine) + "\nGET http://h/b\n", []string{"GET /b"}, []string{"line 1: a line longer than"}},
		{"a body that isn't there", "POST http://h/a\n@nowhere.txt\nGET http://h/b\n", []string{"GET /b"}, []string{"line 1: the body's file nowhere.txt is neither in"}},

		{"JSON: a line each, with body and header fields", "\n" + `{"method":"GET","url":"http://h/a"}` + "\n\n" + `{"method":"POST","url":"http://h/b","body":"Rk9P","header":{"Content-Type":["text/plain"]}}`,
			[]string{"GET /a", "POST /b | Content-Type: text/plain | FOO"}, nil},
		{"a bad line of JSON costs only itself", `{"method":"GET","url":"http://h/a"}` + "\n{\nGET /x\n" + `{"url":"/b"}` + "\n" + `{"method":"GET"}` + "\n" + `{"method":"GET","url":"/c"}`,
			[]string{"GET /a", "GET /c"}, []string{"line 2: ", "line 3: ", "line 4: target: required method is missing", "line 5: target: required url is missing"}},
		{"a body longer than a log's line", `{"method":"PUT","url":"/b","body":"` + strings.Repeat("eHh4", maxLine/4) + `"}`, []string{"PUT /b | " + strings.Repeat("xxx", maxLine/4)}, nil},
		{"a field that would smuggle a request in", `{"method":"GET","url":"/b","header":{"X":["1\r\n\r\nGET /c"]}}`, nil, []string{"line 1: header field X has a value that can't be sent"}},
	} {
		r, err := parsed(targetList, tt.text)
		if (err != nil) != (tt.want == nil) {
			t.Errorf("%s: %v", tt.why, err)
		}
		if diff := cmp.Diff(tt.want, told(r)); diff != "" {
			t.Errorf("%s: %s", tt.why, diff)
		}
		if len(r.Problems) != len(tt.problems) || r.Malformed != len(tt.problems) {
			t.Errorf("%s: problems %v", tt.why, r.Problems)
			continue
		}
		for i, want := range tt.problems {
			if !strings.HasPrefix(r.Problems[i].String(), want) {
				t.Errorf("%s: problem %q, want %q", tt.why, r.Problems[i], want)
			}
		}
	}
}

// A body's file lies beside the list, wherever the run is started.
func TestTargetsReadBodies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other := write("other.txt", "absolute")
	write("body.txt", "beside")
	list := write("list", "POST /a\nX-A: 1\n@body.txt\nPOST /b\n@"+other+"\n\nPOST /c\n@testdata\nPOST /d\n@recording_test.go\n")
	r, err := ReadTargets(list)
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.ReadFile("recording_test.go")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"POST /a | X-A: 1 | beside", "POST /b | absolute", "POST /d | " + string(here)}
	if diff := cmp.Diff(want, told(r)); diff != "" {
		t.Error(diff)
	}
	if len(r.Problems) != 1 || r.Problems[0].Line != 7 {
		t.Errorf("problems %v, want one of line 7", r.Problems)
	}
}

func TestUnusableTargetsAreNamedByTheirLine(t *testing.T) {
	t.Parallel()
	_, err := parsed(targetList, "\n# a list\nhello\n")
	const want = "f:3:1: bad target: hello (none of the 1 targets of this target list can be replayed; allowed: vegeta's JSON or HTTP format)"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func FuzzTargets(f *testing.F) {
	f.Add("GET http://h/a\nX-A: 1\n\nPOST /b\n")
	f.Add(`{"method":"POST","url":"http://h/b","body":"Rk9P","header":{"A":["b"]}}`)
	f.Add("# x\nbad\n\n@\nGET h\n@@\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "@") {
			return // no files of this machine
		}
		r, err := parsed(targetList, text)
		if err == nil && r.Requests() == 0 {
			t.Errorf("%q holds nothing", text)
		}
		for i := range r.Requests() {
			q := r.At(i)
			found := found{method: q.Method, target: r.Target(q.Target)}
			if q.Extra >= 0 {
				found.extra = r.Extras()[q.Extra]
			}
			if fault := unfit(found); fault != "" {
				t.Errorf("%q gives %+v: %s", text, found, fault)
			}
		}
	})
}
