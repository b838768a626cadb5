package optimizer

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp"

	"phasegate/optimizer/eventloop"
	"phasegate/optimizer/httpcache"
)

// wire is a connection whose client has said all that it will say.
type wire struct {
	io.Reader
	bytes.Buffer
	net.Conn
}

func (w *wire) Read(b []byte) (int, error)       { return w.Reader.Read(b) }
func (w *wire) Write(b []byte) (int, error)      { return w.Buffer.Write(b) }
func (w *wire) Close() error                     { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (w *wire) LocalAddr() net.Addr              { return w.RemoteAddr() }

// paths are the two ways to a hit, of one handler.
type paths struct {
	h      *handler
	server *fasthttp.Server
	fast   eventloop.Reply
}

func newPaths(t testing.TB, options ...func(*Config)) *paths {
	t.Helper()
	cfg := Config{}
	cfg.Upstream.URL = "http://upstream.test"
	for _, o := range options {
		o(&cfg)
	}
	o, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.cancel)
	o.handler.do = func(*http.Request) (*http.Response, error) { return nil, errHungUp }
	server := o.newServer()
	server.ConnState = nil // tells the event loop
	return &paths{o.handler, server, o.handler.newFastPath()}
}

// slow is the answer of the path that answers everything.
func (p *paths) slow(request string) string {
	w := &wire{Reader: strings.NewReader(request)}
	_ = p.server.ServeConn(w)
	return w.String()
}

// store puts a response under api.test/path; lines are "Name: value".
func (p *paths) store(t testing.TB, path string, status int, body string, vary []string, request http.Header, lines ...string) {
	t.Helper()
	header := http.Header{"Date": {"Sun, 01 Mar 2026 12:00:00 GMT"}}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		header[name] = append(header[name], value)
	}
	encoded := fieldsOf(header)
	o := newObject(p.h.store.cache, 100, encoded.size, len(body))
	defer o.release()
	encoded.write(o.head, header)
	copy(o.body, body)
	o.status, o.fresh = uint16(status), httpcache.Freshness{Born: time.Now().Add(-17 * time.Second).UnixNano(), Lifetime: time.Hour}
	o.refreshAt.Store(time.Now().Add(time.Hour).UnixNano())
	tk, _, _ := p.h.store.begin([]byte("api.test"+path), nil, false)
	defer tk.end()
	f := &fetch{header: request}
	if !p.h.store.put(&tk, o, vary, f.selecting) {
		t.Fatal("not stored")
	}
}

// fill stores responses that differ in whatever an answer depends on.
func (p *paths) fill(t testing.TB) {
	p.store(t, "/", 200, "hello", nil, nil, "Content-Type: text/plain", "Cache-Control: max-age=3600", `Etag: "v1"`)
	p.store(t, "/bare", 200, "no type", nil, nil)
	p.store(t, "/empty", 200, "", nil, nil, "Content-Type: text/plain")
	p.store(t, "/all", 200, strings.Repeat("x", 5000), nil, nil, "Server: origin/1", "Content-Type: a/b", "Content-Encoding: gzip", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2",
		"X-A: 1", "X-A: 2", "Link: </a>; rel=preload", "Via: 1.1 other", "Cache-Status: other; hit", "Content-Language: de", "Last-Modified: Sun, 01 Mar 2026 11:00:00 GMT", "X-Empty: ")
	p.store(t, "/missing", 404, "not found", nil, nil, "Content-Type: text/html")
	p.store(t, "/moved", 301, "", nil, nil, "Location: /elsewhere")
	p.store(t, "/odd", 299, "odd", nil, nil)
	p.store(t, "/gone", 204, "", nil, nil)
	p.store(t, "/two-types", 200, "x", nil, nil, "Content-Type: a/b", "Content-Type: c/d")
	p.store(t, "/no-type", 200, "x", nil, nil, "Content-Type: ")
	p.store(t, "/large", 200, strings.Repeat("y", maxFast+1), nil, nil)
	p.store(t, "/q?a=1&b=%20", 200, "query", nil, nil)
	p.store(t, "/vary", 200, "de", []string{"Accept-Language", "X-Device"}, http.Header{"Accept-Language": {"de, en"}, "X-Device": {"a", "b"}}, "Vary: Accept-Language, X-Device")
	p.store(t, "/vary", 200, "none", []string{"Accept-Language", "X-Device"}, http.Header{}, "Vary: Accept-Language, X-Device")
	p.store(t, "/agent", 200, "agent", []string{"User-Agent"}, http.Header{"User-Agent": {"wrk"}}, "Vary: User-Agent")
}

// Both paths give the same bytes, or the fast one leaves the request to the other.
func TestTheFastPathAnswersAsTheOtherDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPaths(t)
		p.fill(t)
		for _, tt := range []struct {
			line   string // method and target
			fields string
			fast   bool
		}{
			{"GET /", "", true},
			{"HEAD /", "", true},
			{"GET /", "user-agent: wrk|accept: */*|Accept-Encoding: gzip|X-Forwarded-For: 1.2.3.4", true},
			{"GET /", "Connection: keep-alive|Cookie: a=b|Authorization: Basic x|TE: trailers", true}, // what is stored may be used for everybody
			{"GET /bare", "", true},
			{"GET /empty", "", true},
			{"GET /all", "", true},
			{"HEAD /all", "", true},
			{"GET /missing", "", true},
			{"HEAD /missing", "", true},
			{"GET /moved", "", true},
			{"GET /odd", "", true},
			{"GET /q?a=1&b=%20", "", true},
			{"GET /vary", "", true},
			{"GET /vary", "Accept-Language: de,  en|X-Device: a|x-device: \tb ", true},
			{"GET /vary", "Accept-Language: DE,en|X-Device: a, b", true},
			// Not plain.
			{"GET /gone", "", false},
			{"HEAD /empty", "", false}, // has no Content-Length on the other path
			{"GET /two-types", "", false},
			{"GET /no-type", "", false},
			{"GET /large", "", false},
			{"GET /agent", "User-Agent: wrk", false},
			{"GET /", "Range: bytes=0-1", false},
			{"GET /", `If-None-Match: "v1"`, false},
			{"GET /", "if-modified-since: Sun, 01 Mar 2026 11:00:00 GMT", false},
			{"GET /", `If-Match: "v1"`, false},
			{"GET /", "Cache-Control: no-cache", false},
			{"GET /", "pragma: no-cache", false},
			{"GET /", "Connection: close", false},
			{"GET /", "Connection: Upgrade|Upgrade: websocket", false},
			{"GET /", "Content-Length: 0", false},
			{"GET /", "Transfer-Encoding: chunked", false},
			{"GET /", "Trailer: X", false},
			{"GET /", "Expect: 100-continue", false},
			{"POST /", "", false},
			{"PURGE /", "", false},
			{"GET http://api.test/", "", false},
			// Not there, or not valid.
			{"GET /vary", "Accept-Language: fr", false},
			{"GET /nothing", "", false},
			{"GET /#a", "", false},
			{"GET /%zz", "", false},
			{"GET /", "X y: 1", false},
			{"GET /", "X : 1", false},
			{"GET /", ": 1", false},
			{"GET /", "X: 1| folded", false},
			{"GET /", "X: a\x01", false},
			{"GET /", "X: a\nY: b", false},
			{"GET /", "Host: other.test", false},
			{"GET /", strings.Repeat("X: 1|", 60) + "X: 1", false},
		} {
			request := tt.line + " HTTP/1.1\r\nHost: API.test\r\n"
			if tt.fields != "" {
				request += strings.ReplaceAll(tt.fields, "|", "\r\n") + "\r\n"
			}
			request += "\r\n"
			got, ok := p.fast(nil, []byte(request), nil)
			if ok != tt.fast {
				t.Errorf("%q: answered %v, want %v", request, ok, tt.fast)
			}
			if want := p.slow(request); ok && string(got) != want {
				t.Errorf("%q:\n%q, the other path\n%q", request, got, want)
			}
		}
		for _, request := range []string{
			"GET / HTTP/1.0\r\nHost: api.test\r\n\r\n", "GET / HTTP/1.1\nHost: api.test\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\n\r\n",
			"GET /  HTTP/1.1\r\nHost: api.test\r\n\r\n", "GET\t/ HTTP/1.1\r\nHost: api.test\r\n\r\n", "get / HTTP/1.1\r\nHost: api.test\r\n\r\n",
			"GET // HTTP/1.1\r\nHost: api.test/\r\n\r\n", "GET /\x00aaaaaaaa HTTP/1.1\r\nHost: api.test\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n",
		} {
			if got, ok := p.fast(nil, []byte(request), nil); ok {
				t.Errorf("%q: answered %q", request, got)
			}
		}
	})
}

// Whatever a hit depends on beside the request.
func TestTheFastPathLeavesWhatNeedsMore(t *testing.T) {
	t.Parallel()
	request := []byte("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
	synctest.Test(t, func(t *testing.T) {
		p := newPaths(t)
		p.fill(t)
		o := p.h.store.peek([]byte("api.test/"))
		defer o.release()
		hits := func() bool { _, ok := p.fast(nil, request, nil); return ok }
		if !hits() || !o.hot.Load() {
			t.Fatal("a hit isn't answered, or not marked as used")
		}
		o.refreshAt.Store(time.Now().UnixNano())
		if hits() {
			t.Error("answered although the entry is due for renewal")
		}
		o.refreshAt.Store(time.Now().Add(2 * time.Hour).UnixNano())
		time.Sleep(time.Hour - 17*time.Second - 1)
		if !hits() {
			t.Error("left although the entry is fresh for another nanosecond")
		}
		time.Sleep(time.Nanosecond)
		if hits() {
			t.Error("answered beyond the lifetime")
		}
		p.store(t, "/", 200, "again", nil, nil)
		if !hits() {
			t.Error("left although there is a new response")
		}
		p.h.store.invalidate([]byte("api.test/"))
		if hits() {
			t.Error("answered after the invalidation")
		}
	})
}

// FuzzFastPath holds the paths against each other for requests of any form.
func FuzzFastPath(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: api.test\r\n\r\n", "HEAD /all HTTP/1.1\r\nhOST:api.test\r\nX: y\r\n\r\n", "GET /vary HTTP/1.1\r\nHost: api.test \r\nAccept-Language: de,en\r\nX-Device: a,b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: api.test\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", "GET / HTTP/1.1\r\nHost: api.test\r\n X: y\r\n\r\n", "GET / HTTP/1.1\r\nHost: api.test\r\nX: \xff\r\n\r\n",
		"GET /q?a=1&b=%20 HTTP/1.1\r\nHost: api.test\r\nTE: x\r\nKeep-Alive: 1\r\nProxy-Connection: close\r\n\r\n", "GET / HTTP/1.1\r\nHost: api.test\r\nContent-Type: \r\nCookie: ;;=\r\n\r\n",
	} {
		f.Add(seed)
	}
	p := newPaths(f)
	p.fill(f)
	f.Fuzz(func(t *testing.T, request string) {
		end := strings.Index(request, "\r\n\r\n")
		if end < 0 {
			return
		}
		request = request[:end+4]
		got, ok := p.fast([]byte("before"), []byte(request), nil)
		if !ok {
			return
		}
		want := p.slow(request)
		if withoutAge(string(got)) != "before"+withoutAge(want) {
			t.Errorf("%q:\n%q, the other path\n%q", request, got, want)
		}
	})
}

// withoutAge leaves the age out, which may differ by a second.
func withoutAge(answer string) string {
	before, after, _ := strings.Cut(answer, "\r\nAge: ")
	_, after, _ = strings.Cut(after, "\r\n")
	return before + after
}

func BenchmarkFastHit(b *testing.B) {
	for name, path := range map[string]string{"plain": "/all", "vary": "/vary"} {
		b.Run(name, func(b *testing.B) {
			p := newPaths(b)
			p.fill(b)
			request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: api.test\r\nAccept-Language: de, en\r\nX-Device: a,b\r\nUser-Agent: wrk\r\nAccept: */*\r\n\r\n", path)
			out := make([]byte, 0, 16<<10)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := p.fast(out, request, nil); !ok {
					b.Fatal("left")
				}
			}
		})
	}
}

func TestAFastHitDoesNotAllocate(t *testing.T) {
	p := newPaths(t)
	p.fill(t)
	out := make([]byte, 0, 16<<10)
	for _, path := range []string{"/all", "/vary"} {
		request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: api.test\r\nAccept-Language: de, en\r\nX-Device: a,b\r\n\r\n", path)
		if n := testing.AllocsPerRun(200, func() {
			if _, ok := p.fast(out, request, nil); !ok {
				t.Fatal("left")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", path, n)
		}
	}
}
