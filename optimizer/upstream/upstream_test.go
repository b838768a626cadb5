package upstream_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"phasegate/optimizer/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	defer server.Close()
	pool, err := upstream.New(upstream.Config{URL: server.URL})
	if err != nil {
		panic(err)
	}
	defer pool.Close()
	req, _ := http.NewRequest("GET", server.URL, nil)
	resp, err := pool.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(string(body))
	// Output: HTTP/1.1
}

func newPool(t *testing.T, cfg upstream.Config) *upstream.Pool {
	t.Helper()
	p, err := upstream.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func ask(t *testing.T, p *upstream.Pool, method string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.URL().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := p.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// both speaks HTTP/1.1 and h2c. /hang never answers.
func both(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
		}
		io.WriteString(w, r.Proto)
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

func TestFaultsAreJoinedAndNameTheirKeys(t *testing.T) {
	t.Parallel()
	err := upstream.Config{
		URL: "ftp://x", Protocol: "spdy", MaxConnectionsPerHost: -1, Timeout: 5,
		Breaker: upstream.Breaker{ErrorShare: 2, MinRequests: -3},
	}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, key := range []string{"upstream.url", "upstream.protocol", "upstream.max_connections_per_host", "upstream.timeout", "breaker.error_share", "breaker.min_requests"} {
		if !strings.Contains(err.Error(), key+":") {
			t.Errorf("%s isn't named in %v", key, err)
		}
	}
}

// Of a request's time the upstream gets half at least, whatever the line takes: the default
// goes by that, and what is set beyond it is a fault.
func TestWaitingTakesHalfOfTheTimeAtMost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		timeout, set, wait time.Duration
		fault              string
	}{
		{0, 0, 5 * time.Second, "<nil>"},
		{time.Minute, 0, 5 * time.Second, "<nil>"},
		{4 * time.Second, 0, 2 * time.Second, "<nil>"},
		{time.Millisecond, 0, time.Millisecond, "<nil>"},
		{0, 15 * time.Second, 15 * time.Second, "<nil>"},
		{0, 16 * time.Second, 16 * time.Second, "upstream.wait_timeout: 16s, must be at most half of upstream.timeout: 15s of 30s"},
		{4 * time.Second, 5 * time.Second, 5 * time.Second, "upstream.wait_timeout: 5s, must be at most half of upstream.timeout: 2s of 4s"},
	} {
		cfg := upstream.Config{URL: "http://127.0.0.1:1", Timeout: tt.timeout, WaitTimeout: tt.set}
		if wait, fault := cfg.WithDefaults().WaitTimeout, fmt.Sprint(cfg.Validate()); wait != tt.wait || fault != tt.fault {
			t.Errorf("%v with %v: %v, %s", tt.timeout, tt.set, wait, fault)
		}
	}
}

func TestProtocolIsChosenAsConfigured(t *testing.T) {
	t.Parallel()
	proto := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	for _, tt := range []struct {
		why      string
		tls      bool
		offers   func(*http.Protocols) // what the upstream speaks
		protocol string
		want     string
	}{
		{"clear text is HTTP/1.1 although the upstream could do h2c", false, func(p *http.Protocols) { p.SetHTTP1(true); p.SetUnencryptedHTTP2(true) }, "auto", "HTTP/1.1"},
		{"h2c by prior knowledge", false, func(p *http.Protocols) { p.SetHTTP1(true); p.SetUnencryptedHTTP2(true) }, "h2c", "HTTP/2.0"},
		{"ALPN prefers h2", true, func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(true) }, "auto", "HTTP/2.0"},
		{"ALPN falls back", true, func(p *http.Protocols) { p.SetHTTP1(true) }, "auto", "HTTP/1.1"},
		{"HTTP/1.1 by order", true, func(p *http.Protocols) { p.SetHTTP1(true); p.SetHTTP2(true) }, "http/1.1", "HTTP/1.1"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(proto)
			server.Config.Protocols = new(http.Protocols)
			tt.offers(server.Config.Protocols)
			server.EnableHTTP2 = server.Config.Protocols.HTTP2()
			cfg := upstream.Config{Protocol: tt.protocol}
			if tt.tls {
				server.StartTLS()
				ca := filepath.Join(t.TempDir(), "ca.pem")
				block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
				if err := os.WriteFile(ca, block, 0o600); err != nil {
					t.Fatal(err)
				}
				cfg.CAFile = ca
			} else {
				server.Start()
			}
			t.Cleanup(server.Close)
			cfg.URL = server.URL
			if _, got, err := ask(t, newPool(t, cfg), "GET"); err != nil || got != tt.want {
				t.Errorf("spoke %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestAnUntrustedCertificateIsRefused(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	if _, _, err := ask(t, newPool(t, upstream.Config{URL: server.URL}), "GET"); err == nil {
		t.Error("accepted")
	}
	if status, _, err := ask(t, newPool(t, upstream.Config{URL: server.URL, InsecureSkipVerify: true}), "GET"); err != nil || status != 404 {
		t.Errorf("with insecure_skip_verify: %d, %v", status, err)
	}
}

func TestConnectionsAreBoundedReusedAndCounted(t *testing.T) {
	t.Parallel()
	var now, peak atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
		}
		time.Sleep(time.Millisecond)
	}))
	t.Cleanup(server.Close)
	p := newPool(t, upstream.Config{URL: server.URL, MaxConnectionsPerHost: 3})
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if _, _, err := ask(t, p, "GET"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s := p.Stats()
	used := s.Protocol["http/1.1"]
	if peak.Load() > 3 || used.Active != 0 || used.Idle > 3 || used.Reused+used.Fresh != 30 || used.Reused < 20 || s.Waiting != 0 {
		t.Errorf("peak %d at the upstream, stats %+v", peak.Load(), s)
	}
}

// A keep-alive connection that the upstream closes just as it is used again must
// not become an error of an idempotent request.
func TestStaleReusedConnectionIsRetried(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for first := true; ; first = false {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4096)
			conn.Read(buf)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			if first {
				conn.Read(buf) // takes the second request and dies without an answer
			}
			conn.Close()
		}
	}()
	p := newPool(t, upstream.Config{URL: "http://" + ln.Addr().String()})
	for i := range 2 {
		if _, body, err := ask(t, p, "GET"); err != nil || body != "ok" {
			t.Fatalf("request %d: %q, %v", i, body, err)
		}
	}
}

func TestOpenBreakerSendsNothing(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	var seen atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		if broken.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	t.Cleanup(server.Close)
	p := newPool(t, upstream.Config{URL: server.URL, Breaker: upstream.Breaker{MinRequests: 4, ErrorShare: 0.5, Window: time.Hour, OpenFor: time.Hour}})
	ask(t, p, "GET")
	ask(t, p, "GET")
	broken.Store(true)
	ask(t, p, "GET")
	if s := p.Stats().State; s != upstream.Closed {
		t.Fatalf("%v after 1 failure in 3", s)
	}
	ask(t, p, "GET") // 2 of 4
	before := seen.Load()
	_, _, err := ask(t, p, "GET")
	var open *upstream.OpenError
	if !errors.As(err, &open) || open.RetryAfter < 50*time.Minute || seen.Load() != before || p.Stats().State != upstream.Open {
		t.Fatalf("breaker open: error %v, %d requests got through, state %v", err, seen.Load()-before, p.Stats().State)
	}
}

func TestCancelledRequestsAreNoFailures(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	p := newPool(t, upstream.Config{URL: server.URL, Breaker: upstream.Breaker{MinRequests: 1}})
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
		time.AfterFunc(time.Millisecond, cancel)
		if _, err := p.Do(req); err == nil {
			t.Fatal("no error")
		}
	}
	if s := p.Stats().State; s != upstream.Closed {
		t.Errorf("breaker %v after cancelled requests only", s)
	}
}
