package upstream_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"phasegate/optimizer/upstream"
)

// What isn't read of an answer waits at the upstream, but for 256 KiB, and keeps none of the
// others waiting.
func TestUnreadAnswersAreBounded(t *testing.T) {
	t.Parallel()
	const window = 256 << 10
	left := make(chan bool, 1)
	peer := newPeer(t, func(c *peerConn, r peerRequest) {
		if r.path == "/" {
			c.answer(r.stream, "ok")
			return
		}
		c.begin(r.stream)
		data := window
		if r.path == "/beyond" {
			data = 16 * window
		}
		for ; data > 0; data -= 16 << 10 {
			c.write(func(f *http2.Framer) { f.WriteData(r.stream, false, make([]byte, 16<<10)) })
		}
		if r.path == "/beyond" {
			c.write(func(f *http2.Framer) { f.WriteData(r.stream, true, nil) })
			<-c.ended // until then what is read makes room
			left <- true
		}
	})
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: upstream.H2C})
	get := func(path string) *http.Response {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", peer.url()+path, nil)
		resp, err := p.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for range 99 {
		defer get("/full").Body.Close()
	}
	if _, body, err := ask(t, p, "GET"); err != nil || body != "ok" || peer.opened.Load() != 1 {
		t.Errorf("beside 99 that wait: %q, %v, on %d connections", body, err, peer.opened.Load())
	}
	resp := get("/beyond")
	defer resp.Body.Close()
	<-left
	if n, err := io.Copy(io.Discard, resp.Body); err == nil || n > window {
		t.Errorf("%d bytes came of one that isn't read, %v", n, err)
	}
}

// A connection without work is closed, and a new one opened for who comes later.
func TestIdleTimeOverHTTP2(t *testing.T) {
	t.Parallel()
	peer := newPeer(t, func(c *peerConn, r peerRequest) { c.answer(r.stream, "ok") })
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: upstream.H2C, IdleTimeout: 100 * time.Millisecond})
	for range 2 {
		before := peer.opened.Load()
		if _, body, err := ask(t, p, "GET"); err != nil || body != "ok" || peer.opened.Load() == before {
			t.Errorf("%q, %v, on %d connections after %d", body, err, peer.opened.Load(), before)
		}
		until(t, "it is closed", func() bool { return p.Stats().Protocol["h2"].Idle == 0 })
	}
}

// An answer's header is as long at most as over HTTP/1.1.
func TestLongHeadersOverHTTP2(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Long", strings.Repeat("x", 300<<10))
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	if _, _, err := ask(t, newPool(t, upstream.Config{URL: server.URL, Protocol: upstream.H2C}), "GET"); err == nil {
		t.Error("accepted")
	}
}

// A request whose header is longer than the upstream announced that it takes isn't sent, and
// says nothing of the upstream, which goes on getting the others.
func TestLongRequestHeadersAreNoFailures(t *testing.T) {
	t.Parallel()
	peer := newPeer(t, func(c *peerConn, r peerRequest) { c.answer(r.stream, "ok") }, http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 4000})
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: upstream.H2C, Breaker: upstream.Breaker{MinRequests: 1}})
	for _, method := range []string{"GET", "POST"} {
		req, _ := http.NewRequestWithContext(t.Context(), method, peer.url(), nil)
		req.Header.Set("Cookie", strings.Repeat("a;", 1000)) // a field for each
		if _, err := p.Do(req); !errors.Is(err, upstream.ErrRequestHeaderTooLong) {
			t.Errorf("%s: %v", method, err)
		}
	}
	if _, body, err := ask(t, p, "GET"); err != nil || body != "ok" {
		t.Errorf("a short one: %q, %v", body, err)
	}
	if s := p.Stats(); s.State != upstream.Closed || s.Dials != 1 || sum(s.Retries) > 0 || s.Streams > 0 {
		t.Errorf("%+v", s)
	}
}
