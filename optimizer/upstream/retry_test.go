package upstream

import (
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// However often a request fails, the pauses that are to spare the upstream keep the client
// no longer than this.
func TestPausesBetweenAttempts(t *testing.T) {
	t.Parallel()
	for attempts, want := range map[int]time.Duration{1: 0, maxAttempts: 150 * time.Millisecond, maxMoves: 1270 * time.Millisecond} {
		var all time.Duration
		for failed := 1; failed < attempts; failed++ {
			all += pauseAfter(failed)
		}
		if all != want {
			t.Errorf("%v between %d attempts, want %v", all, attempts, want)
		}
	}
}

// A connection that took nothing for too long is lost to its requests, like one that ended.
// An answer that takes too long isn't waited for again.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	p, err := New(Config{URL: "http://127.0.0.1:1", Protocol: H2C})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	raw, peer := net.Pipe()
	go io.Copy(io.Discard, peer)
	go http2.NewFramer(peer, nil).WriteSettings()
	c, err := p.greet(t.Context(), &conn{Conn: raw, raw: raw, pool: p, born: time.Now(), handshake: "plain"})
	if err != nil {
		t.Fatal(err)
	}
	c.cc.Close()
	for _, tt := range []struct {
		method string
		err    error
		want   string
	}{
		{"GET", &net.OpError{Op: "write", Err: os.ErrDeadlineExceeded}, retryLost},
		{"POST", &net.OpError{Op: "write", Err: os.ErrDeadlineExceeded}, ""},
		{"GET", &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, ""},
		{"GET", os.ErrDeadlineExceeded, ""},
	} {
		a := &attempt{pool: p, grant: grant{stream: c}}
		a.headed.Store(true)
		req, _ := http.NewRequestWithContext(t.Context(), tt.method, "http://127.0.0.1:1", nil)
		if why := a.retryable(req, tt.err); why != tt.want {
			t.Errorf("%s after %v: %q, want %q", tt.method, tt.err, why, tt.want)
		}
	}
}
