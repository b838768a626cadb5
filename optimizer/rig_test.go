package optimizer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/valyala/fasthttp"
)

// rig is a handler without a network, before an upstream that a test scripts. Within
// a synctest bubble its clock is the bubble's.
type rig struct {
	t testing.TB
	h *handler

	mu     sync.Mutex
	asked  []*http.Request
	answer func(*http.Request) (*http.Response, error)
}

func newRig(t testing.TB, answer func(*http.Request) (*http.Response, error), options ...func(*Config)) *rig {
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
	r := &rig{t: t, h: o.handler, answer: answer}
	r.h.do = func(req *http.Request) (*http.Response, error) {
		r.mu.Lock()
		r.asked = append(r.asked, req)
		answer := r.answer
		r.mu.Unlock()
		return answer(req)
	}
	t.Cleanup(func() { o.cancel(); r.h.workers.Wait() })
	return r
}

// asks returns how often the upstream was asked so far.
func (r *rig) asks() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

type reply struct {
	status int
	header http.Header
	body   string
}

// do sends one request; fields are "Name: value" lines.
func (r *rig) do(method, target string, fields ...string) reply {
	ctx := new(fasthttp.RequestCtx)
	ctx.Init(new(fasthttp.Request), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	head := method + " " + target + " HTTP/1.1\r\n" + strings.Join(append(fields, "Host: api.test"), "\r\n") + "\r\n\r\n"
	if err := ctx.Request.Header.Read(bufio.NewReader(strings.NewReader(head))); err != nil {
		r.t.Errorf("%q: %v", head, err)
	}
	ctx.Response.Header.SetNoDefaultContentType(true) // as the server has it
	r.h.serve(ctx)
	a := reply{status: ctx.Response.StatusCode(), header: http.Header{}}
	for name, value := range ctx.Response.Header.All() {
		a.header.Add(string(name), string(value))
	}
	if stream := ctx.Response.BodyStream(); stream != nil {
		body, err := io.ReadAll(stream)
		if err != nil {
			r.t.Errorf("%s %s: %v", method, target, err)
		}
		ctx.Response.CloseBodyStream()
		a.body = string(body)
		return a
	}
	a.body = string(ctx.Response.Body())
	return a
}

// respond makes an upstream's response of "Name: value" lines. Date is now unless a
// line says otherwise.
func respond(req *http.Request, status int, body string, lines ...string) *http.Response {
	resp := &http.Response{StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req, Header: http.Header{}}
	resp.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		if value = strings.TrimPrefix(value, " "); name == "Date" {
			resp.Header.Del(name)
		}
		resp.Header.Add(name, value)
	}
	if req.Method == http.MethodHead || status == http.StatusNotModified || status == http.StatusNoContent {
		resp.ContentLength, body = -1, ""
		if n, err := strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64); err == nil {
			resp.ContentLength = n
		}
	} else {
		resp.ContentLength = int64(len(body))
		resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	resp.Body = io.NopCloser(bytes.NewReader([]byte(body)))
	return resp
}

var errHungUp = errors.New("the upstream hung up")

// step is one request of a client in a row of a table, what the upstream answers if
// it is asked, and what the client must get. Parts of a string are separated by |.
// In the fields that hold dates a signed number stands for so many seconds from now.
type step struct {
	wait time.Duration
	// ask begins with the method, GET if it begins with a field line or is empty, and
	// may name a target: "HEAD /b|Range: bytes=0-1".
	ask string
	// up is "status|lines…|body=…", "hang up" for none; status 200 if it begins
	// otherwise, and a body that tells this answer from others.
	up string
	// want begins with who answers: "hit" the cache, "miss" the upstream, asked without
	// conditions, "etag" or "lm" after it was asked with that condition, "none" no
	// matter who. Then follow status, lines, "!Name" for a field that must be absent,
	// "Age: >n", body=…, and "up:" with a line, or "query: " with the query, that the upstream saw.
	want string
}

// run plays the steps on a handler of its own and reports the first that went wrong.
func run(t *testing.T, steps []step, options ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil, options...)
		for i, s := range steps {
			time.Sleep(s.wait * time.Second)
			before := r.asks()
			r.mu.Lock()
			r.answer = func(req *http.Request) (*http.Response, error) { return s.upstream(req, i) }
			r.mu.Unlock()
			method, target, fields := s.request()
			a := r.do(method, target, fields...)
			synctest.Wait() // for what goes on in the background
			r.mu.Lock()
			asked := slices.Clone(r.asked[before:])
			r.mu.Unlock()
			if fault := s.check(a, asked); fault != "" {
				t.Errorf("step %d, %q after %q: %s\nanswer %d %v %q", i+1, s.ask, s.up, fault, a.status, a.header, a.body)
				break
			}
		}
	})
}

// relative replaces a signed number of seconds in a field that holds a date.
func relative(line string) string {
	name, value, _ := strings.Cut(line, ": ")
	switch name {
	case "Date", "Expires", "Last-Modified", "If-Modified-Since", "If-Range":
		if n, err := strconv.Atoi(value); err == nil && strings.ContainsAny(value[:1], "+-") {
			return name + ": " + time.Now().Add(time.Duration(n)*time.Second).UTC().Format(http.TimeFormat)
		}
	}
	return line
}

func (s step) request() (method, target string, fields []string) {
	method, target = http.MethodGet, "/"
	for i, part := range strings.Split(s.ask, "|") {
		switch {
		case part == "":
		case i == 0 && !strings.Contains(part, ": "):
			m, path, ok := strings.Cut(part, " ")
			if method = m; ok {
				target = path
			}
		default:
			fields = append(fields, relative(part))
		}
	}
	return method, target, fields
}

func (s step) upstream(req *http.Request, n int) (*http.Response, error) {
	if s.up == "hang up" {
		return nil, errHungUp
	}
	status, body, lines := 200, fmt.Sprintf("answer %d", n+1), []string(nil)
	for i, part := range strings.Split(s.up, "|") {
		switch code, err := strconv.Atoi(part); {
		case part == "":
		case i == 0 && err == nil:
			status = code
		case strings.HasPrefix(part, "body="):
			body = part[len("body="):]
		default:
			lines = append(lines, relative(part))
		}
	}
	return respond(req, status, body, lines...), nil
}

// check returns what is wrong, or nothing.
func (s step) check(a reply, asked []*http.Request) string {
	parts := strings.Split(s.want, "|")
	who := "hit"
	if len(asked) > 0 {
		switch h := asked[len(asked)-1].Header; {
		case h.Get("If-None-Match") != "":
			who = "etag"
		case h.Get("If-Modified-Since") != "":
			who = "lm"
		default:
			who = "miss"
		}
	}
	if parts[0] != "none" && parts[0] != who && !(parts[0] == "swr" && strings.Contains(a.header.Get("Cache-Status"), "hit; ttl=-")) {
		return fmt.Sprintf("answered by %s, want %s", who, parts[0])
	}
	for _, part := range parts[1:] {
		code, err := strconv.Atoi(part)
		name, value, _ := strings.Cut(relative(part), ": ")
		got := strings.Join(a.header.Values(name), ", ")
		least, _ := strconv.Atoi(strings.TrimPrefix(value, ">"))
		n, notNumber := strconv.Atoi(got)
		switch {
		case err == nil && a.status != code:
			return fmt.Sprintf("status %d, want %d", a.status, code)
		case err == nil:
		case strings.HasPrefix(part, "body="):
			if a.body != part[len("body="):] {
				return fmt.Sprintf("body %q, want %q", a.body, part)
			}
		case strings.HasPrefix(part, "query: "): // of the target that the upstream must have seen
			if len(asked) == 0 || asked[len(asked)-1].URL.RawQuery != value {
				return fmt.Sprintf("the upstream didn't see %q", part)
			}
		case strings.HasPrefix(part, "up:"): // a line that the upstream must have seen
			name, value, _ := strings.Cut(part[len("up:"):], ": ")
			if len(asked) == 0 || strings.Join(asked[len(asked)-1].Header.Values(name), ", ") != value {
				return fmt.Sprintf("the upstream didn't see %q", part)
			}
		case strings.HasPrefix(part, "!"):
			if a.header.Values(part[1:]) != nil {
				return fmt.Sprintf("has %s: %s", part[1:], a.header.Get(part[1:]))
			}
		case strings.HasPrefix(value, ">"):
			if notNumber != nil || n <= least {
				return fmt.Sprintf("%s is %q, want more than %d", name, got, least)
			}
		case got != value:
			return fmt.Sprintf("%s is %q, want %q", name, got, value)
		}
	}
	return ""
}
