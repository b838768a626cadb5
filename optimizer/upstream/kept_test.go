package upstream_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"phasegate/optimizer/eventloop"
	"phasegate/optimizer/upstream"
)

// Connections without work are bounded in number and time.
func TestKeptConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	var arrived atomic.Int64
	address := listen(t, nil, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			for arrived.Add(1); arrived.Load() < 5; time.Sleep(time.Millisecond) { // all five at once
			}
			io.WriteString(conn, good)
		}
	})
	p := newPool(t, upstream.Config{URL: "http://" + address, ConnectionPoolSize: 2, IdleTimeout: 300 * time.Millisecond})
	done := make(chan error)
	for range 5 {
		go func() {
			_, _, err := ask(t, p, "GET")
			done <- err
		}()
	}
	for range 5 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	until(t, "two kept", func() bool { return p.Stats().Protocol["http/1.1"].Idle == 2 })
	until(t, "none kept", func() bool { return p.Stats().Protocol["http/1.1"].Idle == 0 })
}

// A kept connection of HTTP/1.1 that ends without an answer: who was sent on it is sent
// again by the rules for all others, and never behind the budget's back.
func TestKeptConnectionsThatEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		method  string
		keyed   bool // has an Idempotency-Key, which changes nothing
		budget  float64
		answers bool
	}{
		{"idempotent", "GET", false, 0.2, true},
		{"idempotent, with a body", "PUT", false, 0.2, true},
		{"not idempotent", "POST", false, 0.2, false},
		{"not idempotent, with a key", "POST", true, 0.2, false},
		{"without a budget", "GET", false, 0, false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			var asked, opened atomic.Int64
			address := listen(t, nil, func(conn net.Conn) {
				one := opened.Add(1) == 1
				r := bufio.NewReader(conn)
				for n := 1; ; n++ {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					body, _ := io.ReadAll(req.Body)
					if asked.Add(1); one && n == 2 {
						return
					}
					(&http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(string(body)))}).Write(conn)
				}
			})
			p := newPool(t, upstream.Config{URL: "http://" + address, RetryBudget: &tt.budget})
			do := func() (string, error) {
				req, err := http.NewRequestWithContext(t.Context(), tt.method, p.URL().String(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if tt.method != "GET" {
					req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("whole")), nil }
					req.Body, _ = req.GetBody()
					req.ContentLength = 5
				}
				if tt.keyed {
					req.Header.Set("Idempotency-Key", "1")
				}
				resp, err := p.Do(req)
				if err != nil {
					return "", err
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				return string(text), err
			}
			first, err := do()
			if err != nil {
				t.Fatal(err)
			}
			second, err := do()
			if (err == nil) != tt.answers || tt.answers && second != first {
				t.Errorf("%q, %v; want an answer: %v", second, err, tt.answers)
			}
			want := map[bool]uint64{true: 1}[tt.answers]
			s := p.Stats()
			if s.Retries["lost"] != want || s.Retries["unsent"] != 0 || asked.Load() != 2+int64(want) || (s.RetriesDenied == 1) != (tt.budget == 0) {
				t.Errorf("%d were sent, retries %v, %d denied", asked.Load(), s.Retries, s.RetriesDenied)
			}
		})
	}
}

// brokenPipe takes nothing any more once something has come.
type brokenPipe struct {
	net.Conn
	broken atomic.Bool
}

func (b *brokenPipe) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	b.broken.Store(true)
	return n, err
}

func (b *brokenPipe) Write(p []byte) (int, error) {
	if b.broken.Load() {
		return 0, &net.OpError{Op: "write", Err: syscall.EPIPE}
	}
	return b.Conn.Write(p)
}

// A kept connection that takes nothing any more: nothing was sent, so that even what isn't
// idempotent, and can't be had again, is sent on another one, without a budget.
func TestKeptConnectionsThatTakeNothing(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			address := listen(t, nil, func(conn net.Conn) { oneOne(conn, bufio.NewReader(conn)) })
			p := newPool(t, upstream.Config{URL: "http://" + address, RetryBudget: new(0.0), Adopt: func(c *net.TCPConn) (net.Conn, error) { return &brokenPipe{Conn: c}, nil }})
			for range 2 {
				var body io.Reader
				if method == "POST" {
					body = &onlyOnce{Reader: strings.NewReader("whole")}
				}
				req, err := http.NewRequestWithContext(t.Context(), method, p.URL().String(), body)
				if err != nil {
					t.Fatal(err)
				}
				req.ContentLength = map[string]int64{"POST": 5}[method]
				resp, err := p.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if s := p.Stats(); s.Retries["unsent"] != 1 || s.Retries["lost"] != 0 || s.Dials != 2 {
				t.Errorf("retries %v over %d connections", s.Retries, s.Dials)
			}
		})
	}
}

const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

// adopter gives connections to an event loop, whose other connections take it this long.
func adopter(t *testing.T, turn time.Duration) (*eventloop.Server, func(*net.TCPConn) (net.Conn, error)) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := eventloop.New(l, eventloop.Config{
		Replier: func() eventloop.Reply {
			return func(out, _ []byte, _ *eventloop.Conn) ([]byte, bool) { time.Sleep(turn); return append(out, 'x'), true }
		},
		Serve: func(c *eventloop.Conn) { c.Close() },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, s.Adopt
}

// overTLS is an upstream whose first connection does as told, and the pool before it. What
// the server writes until it reads again comes at once.
func overTLS(t *testing.T, config *tls.Config, adopt bool, first func(conn net.Conn, r *bufio.Reader)) *upstream.Pool {
	t.Helper()
	var opened atomic.Int64
	address := listen(t, nil, func(raw net.Conn) {
		conn := tls.Server(&corked{Conn: raw}, config)
		r := bufio.NewReader(conn)
		if opened.Add(1) == 1 && first != nil {
			first(conn, r)
		}
		well(conn, r)
	})
	cfg := upstream.Config{URL: "https://" + address, Protocol: upstream.HTTP1, InsecureSkipVerify: true}
	if adopt {
		_, cfg.Adopt = adopter(t, 0)
	}
	return newPool(t, cfg)
}

type corked struct {
	net.Conn
	unsent []byte
}

func (c *corked) Write(p []byte) (int, error) {
	c.unsent = append(c.unsent, p...)
	return len(p), nil
}

func (c *corked) Read(p []byte) (int, error) {
	c.Conn.Write(c.unsent)
	c.unsent = nil
	return c.Conn.Read(p)
}

// TLS may have read further than the answer's end. That is no answer to the next request.
func TestNothingIsLeftWithinTLS(t *testing.T) {
	t.Parallel()
	config := certificate(t, "http/1.1")
	config.DynamicRecordSizingDisabled = true // one record for all of the answer
	long := strings.Repeat("x", 10_000)
	for _, tt := range []struct {
		why, method string
		answers     []string // in a record each
		read        int
	}{
		{"HEAD, answered with a body", "HEAD", []string{"HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n", evil}, 0},
		{"longer than it says", "GET", []string{"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + long + evil}, len(long)},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			p := overTLS(t, config, false, func(conn net.Conn, r *bufio.Reader) {
				http.ReadRequest(r)
				for _, answer := range tt.answers {
					io.WriteString(conn, answer)
				}
			})
			req, _ := http.NewRequestWithContext(t.Context(), tt.method, p.URL().String(), nil)
			resp, err := p.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.ReadFull(resp.Body, make([]byte, tt.read))
			resp.Body.Close()
			if _, body, err := ask(t, p, "POST"); body != "good" || err != nil || p.Stats().Dials != 2 {
				t.Errorf("the next one: %q, %v; %+v", body, err, p.Stats())
			}
		})
	}
}

// What belongs to TLS, such as session tickets, costs no connection.
func TestConnectionsWithinTLSAreKept(t *testing.T) {
	t.Parallel()
	for _, adopt := range []bool{false, true} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := certificate(t, "http/1.1")
			config.MaxVersion = version
			config.ClientAuth = tls.RequestClientCert // the tickets come after the client's last message then, as OpenSSL's do
			p := overTLS(t, config, adopt, nil)
			for range 20 {
				if _, body, err := ask(t, p, "POST"); body != "good" || err != nil {
					t.Error(body, err)
				}
			}
			if s := p.Stats(); s.Dials != 1 {
				t.Errorf("adopted %v, TLS %x: %d connections", adopt, version, s.Dials)
			}
		}
	}
	config := certificate(t, "http/1.1")
	config.ClientAuth = tls.RequestClientCert
	p := newPool(t, upstream.Config{InsecureSkipVerify: true, URL: "https://" + listen(t, config, func(conn net.Conn) { well(conn, bufio.NewReader(conn)) })})
	if _, _, err := ask(t, p, "POST"); err != nil || p.Stats().Dials != 1 {
		t.Errorf("the one on which HTTP/1.1 was chosen: %v, %+v", err, p.Stats())
	}
}

// An event loop that is busy hasn't told yet of what came.
func TestNewsThatTheLoopHasntTold(t *testing.T) {
	t.Parallel()
	loop, adopt := adopter(t, 300*time.Millisecond)
	speak, spoken := make(chan bool), make(chan bool)
	var opened atomic.Int64
	address := listen(t, nil, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		if opened.Add(1) > 1 {
			well(conn, r)
			return
		}
		next(conn, r, good)
		<-speak
		io.WriteString(conn, evil)
		close(spoken)
		io.Copy(io.Discard, conn)
	})
	p := newPool(t, upstream.Config{URL: "http://" + address, Adopt: adopt})
	if _, _, err := ask(t, p, "GET"); err != nil {
		t.Fatal(err)
	}
	for range 8 { // on all loops
		conn, err := net.Dial("tcp", loop.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "x\r\n\r\n")
	}
	time.Sleep(50 * time.Millisecond) // they are at it
	close(speak)
	<-spoken
	if _, body, err := ask(t, p, "POST"); body != "good" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}

// A connection that ends just before the request's body is read for it is the end of that
// attempt: the body isn't waited for, however slow the client is.
func TestABodyThatNobodyHasBegunToReadIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	address := listen(t, nil, func(conn net.Conn) { http.ReadRequest(bufio.NewReader(conn)) })
	p := newPool(t, upstream.Config{URL: "http://" + address, Adopt: func(c *net.TCPConn) (net.Conn, error) {
		return &lateWriter{Conn: c, closed: make(chan struct{})}, nil
	}})
	body, client := io.Pipe()
	t.Cleanup(func() { client.Close() })
	req, err := http.NewRequestWithContext(t.Context(), "POST", p.URL().String(), body)
	if err != nil {
		t.Fatal(err)
	}
	if err := soon(t, p, req); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("error %v", err)
	}
}

// soon sends the request, and returns what that fails with, which must be long before any deadline.
func soon(t *testing.T, p *upstream.Pool, req *http.Request) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		_, err := p.Do(req)
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("it waits")
		return nil
	}
}

// lateWriter has the writer go on when the connection has been closed, and a while later.
type lateWriter struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

// Write writes, and returns late.
func (c *lateWriter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	<-c.closed
	time.Sleep(50 * time.Millisecond)
	return n, err
}

// Close closes the connection.
func (c *lateWriter) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// What a read fails with before the answer's begin is told once: none follows it, which would
// wait for the deadline.
func TestAResetIsToldOnce(t *testing.T) {
	t.Parallel()
	address := listen(t, nil, func(conn net.Conn) { io.Copy(io.Discard, conn) })
	p := newPool(t, upstream.Config{URL: "http://" + address, Adopt: func(c *net.TCPConn) (net.Conn, error) {
		return &resetOnce{Conn: c}, nil
	}})
	req, err := http.NewRequestWithContext(t.Context(), "POST", p.URL().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := soon(t, p, req); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("error %v", err)
	}
}

// resetOnce is a connection of which the first read fails.
type resetOnce struct {
	net.Conn
	told atomic.Bool
}

// Read fails, and waits from then on.
func (c *resetOnce) Read(p []byte) (int, error) {
	if !c.told.Swap(true) {
		return 0, syscall.ECONNRESET
	}
	return c.Conn.Read(p)
}
