package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	framing "golang.org/x/net/http2"
)

// Where each try to open the first connection fails, those who wait are told when all that had
// begun have: one that fails isn't followed by another one beside the rest, without an end.
func TestTriesOfTheFirstConnectionEnd(t *testing.T) {
	t.Parallel()
	p, begun, end := opening(t, Config{WaitTimeout: time.Hour, Timeout: 2 * time.Hour})
	const requests = assumedStreams + 1
	told := make(chan error, requests)
	for range requests {
		go func() {
			_, err := p.line.enter(t.Context(), false)
			told <- err
		}()
	}
	eventually(t, p, "two are being opened", func() bool { return begun.Load() == 2 && p.line.queue.Len() == requests })
	end <- errRefused
	eventually(t, p, "one of them has failed", func() bool { return p.dialing == 1 || begun.Load() > 2 })
	end <- errRefused
	eventually(t, p, "all are told", func() bool { return p.line.queue.Len() == 0 })
	for range requests {
		if err := <-told; !errors.Is(err, errRefused) {
			t.Fatal(err)
		}
	}
	if n := begun.Load(); n != 2 {
		t.Errorf("%d were begun", n)
	}
}

// Who waits for HTTP/1.1 since a fallback isn't told of HTTP/2 that still failed.
func TestAFailureOfHTTP2AfterAFallback(t *testing.T) {
	t.Parallel()
	p, begun, end := opening(t, Config{MaxConnectionsPerHost: 1, WaitTimeout: time.Hour, Timeout: 2 * time.Hour})
	type told struct {
		g   grant
		err error
	}
	enter := func() <-chan told {
		is := make(chan told, 1)
		go func() {
			g, err := p.line.enter(t.Context(), false)
			is <- told{g, err}
		}()
		return is
	}
	first := enter()
	eventually(t, p, "HTTP/2 is begun", func() bool { return begun.Load() == 1 && p.line.queue.Len() == 1 && p.dialsFirst() })
	p.fallBack(wantsHTTP1, time.Now())
	one := <-first
	second := enter()
	eventually(t, p, "another one waits", func() bool { return p.line.queue.Len() == 1 && !p.dialsFirst() })
	end <- errRefused
	eventually(t, p, "HTTP/2 has failed", func() bool { return p.dialing == 0 })
	p.leave(one.g)
	if two := <-second; one.err != nil || two.err != nil {
		t.Errorf("%v, %v", one.err, two.err)
	}
}

var errRefused = errors.New("refused")

// opening is a pool of which each try to open a connection ends when the test sends its error.
func opening(t *testing.T, cfg Config) (p *Pool, begun *atomic.Int64, end chan<- error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	begun = new(atomic.Int64)
	ends := make(chan error)
	cfg.URL, cfg.Protocol = "http://"+ln.Addr().String(), H2C
	cfg.Adopt = func(c *net.TCPConn) (net.Conn, error) {
		begun.Add(1)
		defer c.Close()
		select {
		case err := <-ends:
			return c, err
		case <-t.Context().Done():
			return c, errRefused
		}
	}
	if p, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, begun, ends
}

// eventually waits until the condition is met, with the line's lock held.
func eventually(t *testing.T, p *Pool, what string, condition func() bool) {
	t.Helper()
	for range 2000 {
		p.line.mu.Lock()
		done := condition()
		p.line.mu.Unlock()
		if done {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

// An upstream whose further connections allow no streams has enough of them: they are tried
// for one at a time, with a pause.
func TestFurtherConnectionsWithoutStreams(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	var begun atomic.Int64
	p, err := New(Config{
		URL: "http://" + ln.Addr().String(), Protocol: H2C, WaitTimeout: time.Hour, Timeout: 2 * time.Hour,
		Adopt: func(c *net.TCPConn) (net.Conn, error) {
			c.Close()
			allowed := uint32(0)
			if begun.Add(1) == 1 {
				allowed = 10
			}
			ours, theirs := net.Pipe()
			context.AfterFunc(t.Context(), func() { theirs.Close() })
			go io.Copy(io.Discard, theirs)
			go framing.NewFramer(theirs, nil).WriteSettings(framing.Setting{ID: framing.SettingMaxConcurrentStreams, Val: allowed})
			return ours, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	for range 12 {
		go p.line.enter(t.Context(), false)
	}
	eventually(t, p, "ten have a stream, two wait beside a second connection", func() bool {
		return len(p.conns) >= 2 && p.conns[0].active == 10 && p.line.queue.Len() == 2
	})
	// As time passes, not as connections come.
	for since := time.Now(); time.Since(since) < dialPause/2; time.Sleep(10 * time.Millisecond) {
		if n, most := begun.Load(), 4+int64(time.Since(since)/dialPause); n > most {
			t.Fatalf("%d were begun in %v", n, time.Since(since))
		}
	}
}
