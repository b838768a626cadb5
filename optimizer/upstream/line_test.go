package upstream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"phasegate/optimizer/upstream"
)

// The plan's risk "connection pool exhaustion": more requests at once than the pool
// carries. Those who wait are served in order of arrival; who finds the line full is told
// at once, who waits too long in time; nobody hangs, and nothing of it is the upstream's
// fault.
func TestExhaustedPool(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"http/1.1", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var order []string
			step := make(chan struct{})
			var url string
			if protocol == "h2c" {
				url = newPeer(t, func(c *peerConn, r peerRequest) {
					mu.Lock()
					order = append(order, r.path[1:])
					mu.Unlock()
					<-step
					c.answer(r.stream, "ok")
				}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1}).url()
			} else {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					order = append(order, r.URL.Path[1:])
					mu.Unlock()
					<-step
					io.WriteString(w, "ok")
				}))
				t.Cleanup(server.Close)
				url = server.URL
			}
			let := sync.OnceFunc(func() { close(step) })
			t.Cleanup(let)
			p := newPool(t, upstream.Config{
				URL: url, Protocol: protocol, MaxConnectionsPerHost: 1, MaxWaiting: 3, WaitTimeout: time.Minute, Timeout: 2 * time.Minute,
				Breaker: upstream.Breaker{MinRequests: 1},
			})
			get := func(ctx context.Context, name string) error {
				req, _ := http.NewRequestWithContext(ctx, "GET", url+"/"+name, nil)
				resp, err := p.Do(req)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				return err
			}
			var wg sync.WaitGroup
			start := func(name string, waiting int) {
				wg.Go(func() {
					if err := get(t.Context(), name); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				})
				until(t, name+" in line", func() bool {
					mu.Lock()
					defer mu.Unlock()
					return len(order) == 1 && p.Stats().Waiting == waiting
				})
			}
			start("a", 0)
			start("b", 1)
			gone, cancel := context.WithCancel(t.Context())
			left := make(chan error)
			go func() { left <- get(gone, "left") }()
			until(t, "another one in line", func() bool { return p.Stats().Waiting == 2 })
			start("c", 3)

			var busy *upstream.BusyError
			begun := time.Now()
			for range 50 {
				if err := get(t.Context(), "beyond"); !errors.As(err, &busy) || busy.RetryAfter < time.Second || busy.Waited != 0 {
					t.Fatalf("beyond the bound: %v", err)
				}
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("50 refusals took %v", took)
			}
			cancel()
			if err := <-left; !errors.Is(err, context.Canceled) {
				t.Errorf("who left: %v", err)
			}
			start("d", 3)
			let()
			wg.Wait()
			if !slices.Equal(order, []string{"a", "b", "c", "d"}) {
				t.Errorf("served in the order %v", order)
			}
			s := p.Stats()
			if s.Refused["full"] != 50 || s.Refused["timeout"] != 0 || s.Waiting != 0 || s.Dials != 1 || s.State != upstream.Closed || s.Waits.Sum == 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// Patience ends.
func TestWaitingIsBoundedInTime(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"http/1.1", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			url := both(t).URL
			if protocol == "h2c" {
				url = newPeer(t, func(*peerConn, peerRequest) {}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1}).url()
			}
			p := newPool(t, upstream.Config{URL: url + "/hang", Protocol: protocol, MaxConnectionsPerHost: 1, WaitTimeout: 50 * time.Millisecond, Breaker: upstream.Breaker{MinRequests: 1}})
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				req, _ := http.NewRequestWithContext(ctx, "GET", p.URL().String(), nil)
				if _, err := p.Do(req); err == nil {
					t.Error("answered")
				}
			})
			until(t, "a request under way", func() bool { u := p.Stats().Protocol; return u["h2"].Active+u["http/1.1"].Active == 1 })
			var busy *upstream.BusyError
			begun := time.Now()
			if _, _, err := ask(t, p, "GET"); !errors.As(err, &busy) || busy.Waited < 50*time.Millisecond || time.Since(begun) > 5*time.Second {
				t.Errorf("%v after %v", err, time.Since(begun))
			}
			cancel()
			wg.Wait()
			if s := p.Stats(); s.Refused["timeout"] != 1 || s.State != upstream.Closed {
				t.Errorf("%+v", s)
			}
		})
	}
}

// An answer that is left unread, or read halfway, gives its place back all the same.
func TestPlacesComeBack(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cut" {
			w.Header().Set("Content-Length", "100000")
		}
		w.Write(make([]byte, 50_000))
	}))
	t.Cleanup(server.Close)
	p := newPool(t, upstream.Config{URL: server.URL, MaxConnectionsPerHost: 1, WaitTimeout: 5 * time.Second})
	for i := range 30 {
		req, _ := http.NewRequestWithContext(t.Context(), []string{"GET", "HEAD"}[i%2], server.URL+[]string{"/", "/cut"}[i/2%2], nil)
		resp, err := p.Do(req)
		if err != nil {
			t.Fatalf("request %d: %v", i+1, err)
		}
		switch i % 3 {
		case 0:
			io.ReadAll(resp.Body)
		case 1:
			resp.Body.Read(make([]byte, 10))
		}
		resp.Body.Close()
		resp.Body.Close()
	}
}

// The histogram of waits has over HTTP/2 the time in which the first connection is opened,
// and over HTTP/1.1, where a request that has its place opens it, it hasn't.
func TestOpeningIsAWaitOverHTTP2Only(t *testing.T) {
	t.Parallel()
	for protocol, atOnce := range map[string]uint64{"http/1.1": 1, "h2c": 0} {
		p := newPool(t, upstream.Config{URL: both(t).URL, Protocol: protocol})
		if _, _, err := ask(t, p, "GET"); err != nil {
			t.Error(err)
		}
		if w := p.Stats().Waits; w.Counts[0] != atOnce || (w.Sum == 0) != (atOnce == 1) {
			t.Errorf("%s: %+v", protocol, w)
		}
	}
}
