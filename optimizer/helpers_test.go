package optimizer_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"phasegate/optimizer"
)

// fasthttp's worker pool sweeps every ten seconds, and ends at the next sweep after
// it was stopped.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// proxy is an optimizer before an upstream of the test's own.
type proxy struct {
	t        testing.TB
	o        *optimizer.Optimizer
	url      string
	admin    string
	upstream string
	client   *http.Client
	asked    *atomic.Int64 // requests that reached the upstream of start's
}

type option func(*optimizer.Config)

func start(t testing.TB, upstream http.HandlerFunc, options ...option) *proxy {
	t.Helper()
	asked := new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		upstream(w, r)
	}))
	t.Cleanup(server.Close)
	cfg := optimizer.Config{Listen: "127.0.0.1:0"}
	cfg.Upstream.URL = server.URL
	for _, o := range options {
		o(&cfg)
	}
	p := before(t, cfg)
	p.asked = asked
	return p
}

// before is an optimizer before an upstream that runs already.
func before(t testing.TB, cfg optimizer.Config) *proxy {
	t.Helper()
	p := &proxy{t: t, upstream: cfg.Upstream.URL}
	var err error
	if p.o, err = optimizer.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := p.o.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.url, p.admin = "http://"+p.o.Addr().String(), "http://"+p.o.AdminAddr().String()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	p.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := p.o.Stop(t.Context()); err != nil && t.Context().Err() == nil {
			t.Errorf("stop: %v", err)
		}
	})
	return p
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) cache() string { return a.header.Get("Cache-Status") }

// do sends a request; fields are "Name: value" lines.
func (p *proxy) do(method, target, body string, fields ...string) answer {
	p.t.Helper()
	a, err := p.try(method, target, body, fields...)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, target, err)
	}
	return a
}

func (p *proxy) try(method, target, body string, fields ...string) (answer, error) {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, p.url+target, r)
	if err != nil {
		return answer{}, err
	}
	for _, line := range fields {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text)}, err
}

func (p *proxy) get(target string, fields ...string) answer {
	p.t.Helper()
	return p.do("GET", target, "", fields...)
}

// wantAsked checks how often the upstream was asked since the start.
func (p *proxy) wantAsked(n int64, why string) {
	p.t.Helper()
	if got := p.asked.Load(); got != n {
		p.t.Errorf("%s: upstream asked %d times, want %d", why, got, n)
	}
}

// raw sends bytes on a connection of their own and returns the first answer and
// whether the connection was closed after it.
func (p *proxy) raw(request string) (status int, closed bool) {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.o.Addr().String())
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, request)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		p.t.Fatalf("answer to %q: %v", request, err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode, resp.Close
}

// eventually waits until the condition holds; it fails the test after 10 s.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for range 2000 {
		if condition() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}
