package upstream_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"phasegate/optimizer/upstream"
)

// A peer that widens a window beyond what there may be (RFC 9113 §6.9.1) fails the request that it
// does it to, or those on the connection, and nothing else.
func TestWindowsThatOverflow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		window string
		opened int64 // connections, in the end
	}{
		{"a stream's", 1},
		{"a connection's", 2},
	} {
		t.Run(tt.window, func(t *testing.T) {
			t.Parallel()
			peer := newPeer(t, func(c *peerConn, r peerRequest) { c.answer(r.stream, "ok") })
			peer.headed = func(c *peerConn, r peerRequest) {
				if r.path == "/widen" {
					stream := r.stream
					if tt.opened > 1 {
						stream = 0
					}
					for range 2 { // what was sent of the body makes room for one
						c.write(func(f *http2.Framer) { f.WriteWindowUpdate(stream, 1<<31-1) })
					}
				}
			}
			p, err := upstream.New(upstream.Config{URL: peer.url(), Protocol: upstream.H2C})
			if err != nil {
				t.Fatal(err)
			}
			// What hangs does so for ever, deadline or not, and is left behind.
			ends := func(what string, do func() error) error {
				t.Helper()
				result := make(chan error, 1)
				go func() { result <- do() }()
				select {
				case err := <-result:
					return err
				case <-time.After(30 * time.Second):
					t.Fatalf("%s hangs", what)
					return nil
				}
			}
			if err := ends("the request", func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				req, err := http.NewRequestWithContext(ctx, "POST", peer.url()+"/widen", strings.NewReader(strings.Repeat("x", 1<<20)))
				if err == nil {
					_, err = p.Do(req)
				}
				return err
			}); err == nil || !strings.Contains(err.Error(), "FLOW_CONTROL_ERROR") {
				t.Errorf("the request: %v", err)
			}
			ends("Stats", func() error { p.Stats(); return nil })
			if err := ends("the next request", func() error { _, _, err := ask(t, p, "GET"); return err }); err != nil {
				t.Errorf("the next request: %v", err)
			}
			if n := peer.opened.Load(); n != tt.opened {
				t.Errorf("%d connections, want %d", n, tt.opened)
			}
			ends("Close", func() error { p.Close(); return nil })
		})
	}
}
