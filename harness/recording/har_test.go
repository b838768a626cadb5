package recording

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"

	"github.com/google/go-cmp/cmp"
)

// harOf wraps entries, one a line from line 2 on, as browsers do.
func harOf(entries ...string) string {
	return `{"log":{"version":"1.2","creator":{"name":"x"},"pages":[{"id":1}],"entries":[` + "\n" + strings.Join(entries, ",\n") + "\n]}}\n"
}

// at is an entry that began so many milliseconds after noon; more is what its
// request has besides, behind a comma.
func at(ms int, method, url string, status, size int, more string) string {
	return fmt.Sprintf(`{"startedDateTime":"2026-09-16T12:00:%06.3f+00:00","request":{"method":%q,"url":%q%s},"response":{"status":%d,"bodySize":%d,"content":{"size":77}}}`,
		float64(ms)/1000, method, url, more, status, size)
}

func TestHAR(t *testing.T) {
	t.Parallel()
	const form = `,"postData":{"mimeType":"application/x-www-form-urlencoded","params":[{"name":"a b","value":"c&d"},{"name":"e","value":""}]}`
	for _, tt := range []struct {
		why      string
		entry    string
		want     string
		resource wire.Resource
	}{
		{"a page", at(0, "GET", "https://h.example/a?b=c#top", 200, 512, ""), "GET /a?b=c", wire.Resource{Status: 200, Size: 512}},
		{"a size that the browser doesn't know is the content's", at(0, "GET", "https://h/a", 200, -1, ""), "GET /a", wire.Resource{Status: 200, Size: 77}},
		{"a redirect", at(0, "GET", "http://h", 301, 0, ""), "GET /", wire.Resource{Status: 301, Size: 77}},
		{"no pseudo field, nothing of the connection, no secret", at(0, "GET", "https://h/a", 200, 1,
			`,"headers":[{"name":":method","value":"GET"},{"name":"Accept","value":"*/*"},{"name":"cookie","value":"a=b"},{"name":"Authorization","value":"x"},{"name":"connection","value":"keep-alive"},{"name":"Accept-Encoding","value":"br"}]`),
			"GET /a | Accept: */*", wire.Resource{Status: 200, Size: 1}},
		{"a body with its type", at(0, "POST", "https://h/a", 200, 1, `,"postData":{"mimeType":"text/plain","text":"hello"}`), "POST /a | Content-Type: text/plain | hello", wire.Resource{Status: 200, Size: 1}},
		{"the type that was sent counts", at(0, "POST", "https://h/a", 200, 1, `,"headers":[{"name":"content-type","value":"a/b"}],"postData":{"mimeType":"text/plain","text":"hello"}`), "POST /a | content-type: a/b | hello", wire.Resource{Status: 200, Size: 1}},
		{"a form whose text is missing", at(0, "POST", "https://h/a", 200, 1, form), "POST /a | Content-Type: application/x-www-form-urlencoded | a+b=c%26d&e=", wire.Resource{Status: 200, Size: 1}},
	} {
		r, err := parsed(harFile, harOf(tt.entry))
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		if diff := cmp.Diff([]string{tt.want}, told(r)); diff != "" {
			t.Errorf("%s: %s", tt.why, diff)
		}
		if got := r.Catalog()[r.Target(0)]; got != tt.resource {
			t.Errorf("%s: answered with %+v, want %+v", tt.why, got, tt.resource)
		}
	}
}

// What never left the browser isn't sent, and is told of by its line.
func TestHAREntriesThatCantBeReplayed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ why, entry, want string }{
		{"inline", at(0, "GET", "data:image/png;base64,AA", 200, 1, ""), "neither a path nor an http URL"},
		{"no host", at(0, "GET", "/a", 200, 1, ""), "is no http URL"},
		{"a socket", at(0, "GET", "wss://h/a", 101, 1, ""), "neither a path nor an http URL"},
		{"aborted", at(0, "GET", "https://h/a", 0, -1, ""), "there was no answer"},
		{"from the browser's cache", strings.Replace(at(0, "GET", "https://h/a", 200, 1, ""), `{`, `{"_fromCache":"disk",`, 1), "its own disk cache"},
		{"no time", `{"request":{"method":"GET","url":"https://h/"},"response":{"status":200}}`, "startedDateTime"},
		{"another type", `{"startedDateTime":7}`, "cannot unmarshal"},
		{"no object", `17`, "cannot unmarshal"},
		{"no method", at(0, "", "https://h/a", 200, 1, ""), "token"},
		{"a field that would smuggle a request in", at(0, "GET", "https://h/a", 200, 1, `,"headers":[{"name":"X","value":"a\r\nb"}]`), "can't be sent"},
	} {
		r, err := parsed(harFile, harOf(at(0, "GET", "https://h/ok", 200, 1, ""), tt.entry))
		if err != nil || r.Requests() != 1 || len(r.Problems) != 1 || r.Problems[0].Line != 3 || !strings.Contains(r.Problems[0].Reason, tt.want) {
			t.Errorf("%s: %v, problems %v; want one of line 3 with %q", tt.why, err, r.Problems, tt.want)
		}
		if _, err := parsed(harFile, harOf(tt.entry)); err == nil || !strings.HasPrefix(err.Error(), "f:2:1: ") || !strings.Contains(err.Error(), "none of the 1 entries of this HAR file") {
			t.Errorf("%s, and nothing else: %v", tt.why, err)
		}
	}
}

func TestHARFilesThatAreNone(t *testing.T) {
	t.Parallel()
	whole := harOf(at(0, "GET", "https://h/a", 200, 1, ""), at(1, "GET", "https://h/b", 200, 1, ""))
	for _, tt := range []struct{ why, text, want string }{
		{"empty", "", "f:1:1: read the HAR file: unexpected EOF"},
		{"cut off in an entry", whole[:len(whole)-40], "f:3:125: read the HAR file: unexpected EOF"},
		{"cut off between entries", whole[:strings.LastIndex(whole, ",\n")], "f:2:160: read the HAR file: unexpected EOF"},
		{"no JSON", "hello", "f:1:1: read the HAR file: invalid character"},
		{"another JSON", `{"a":1}`, `f:1:7: read the HAR file: no "log"`},
		{"no entries", `{"log":{"version":"1.2"}}`, `no "entries"`},
		{"entries of another kind", `{"log":{"entries":{}}}`, "isn't a list"},
		{"nothing in it", harOf(), "it holds no requests"},
	} {
		if _, err := parsed(harFile, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.why, err, tt.want)
		}
	}
	if r, err := parsed(harFile, "\ufeff"+whole); err != nil || r.Requests() != 2 {
		t.Errorf("with a byte order mark: %v", err)
	}
}

// Entries are in the order in which a page's parts were found; what counts is
// when they were asked for.
func TestHARIsReplayedInTheOrderOfTime(t *testing.T) {
	t.Parallel()
	r, err := parsed(harFile, harOf(at(500, "GET", "https://h/b", 200, 1, ""), at(0, "GET", "https://h/a", 200, 1, ""), at(1500, "GET", "https://i/c", 200, 1, `,"headers":[{"name":"Cookie","value":"a=b"}]`)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"GET /a", "GET /b", "GET /c"}, told(r)); diff != "" {
		t.Error(diff)
	}
	due, pass := r.Times()
	if diff := cmp.Diff([]time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond}, due); diff != "" || pass != 2250*time.Millisecond {
		t.Errorf("%s, a pass of %s", diff, pass)
	}
	notices := strings.Join(r.Notices(), "\n")
	for _, part := range []string{"f: the requests are for 2 hosts (h, i), and all go to the systems under test", "f: 1 requests carried Cookie or Authorization"} {
		if !strings.Contains(notices, part) {
			t.Errorf("the notices lack %q: %s", part, notices)
		}
	}
	if strings.Contains(notices, "logged after") {
		t.Errorf("sorted, nothing runs backwards: %s", notices)
	}
}

func FuzzHAR(f *testing.F) {
	f.Add(harOf(at(0, "GET", "https://h/a?b#c", 200, 1, `,"headers":[{"name":"A","value":"b"}],"postData":{"text":"x"}`)))
	f.Add(harOf(`{"startedDateTime":7}`, "17"))
	f.Add(`{"log":{"entries":[{}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parsed(harFile, text)
		if err == nil && r.Requests() == 0 {
			t.Errorf("%q holds nothing", text)
		}
		for _, p := range r.Problems {
			if p.Line < 1 || p.Line > strings.Count(text, "\n")+1 {
				t.Errorf("%q: problem %v", text, p)
			}
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
