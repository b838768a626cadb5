package eventloop_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"phasegate/optimizer/eventloop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers "fast N" in place with N bytes, and lends all else.
type echo struct {
	*eventloop.Server
	lent atomic.Int64 // how often a connection was lent
}

func listen(t testing.TB) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l.(*net.TCPListener)
}

func start(t testing.TB, change ...func(*eventloop.Config)) *echo {
	t.Helper()
	e := &echo{}
	cfg := eventloop.Config{
		Replier: func() eventloop.Reply {
			return func(out, head []byte, _ *eventloop.Conn) ([]byte, bool) {
				var n int
				if _, err := fmt.Sscanf(string(head), "fast %d\r\n\r\n", &n); err != nil {
					return out, false
				}
				return append(out, reply(n)...), true
			}
		},
		Serve: e.serve,
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if e.Server, err = eventloop.New(listen(t), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// reply is the answer to both kinds of requests.
func reply(n int) []byte {
	return append(bytes.Repeat([]byte{byte('a' + n%26)}, n), '\n')
}

// serve answers "slow N" until the connection goes back.
func (e *echo) serve(c *eventloop.Conn) {
	defer c.Close()
	e.lent.Add(1)
	r := bufio.NewReader(c)
	for {
		var n int
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := fmt.Sscanf(line, "slow %d", &n); err != nil {
			if _, err := fmt.Sscanf(line, "fast %d", &n); err != nil { // behind a slow one in the same read
				return
			}
		}
		if _, err := io.ReadFull(r, make([]byte, 2)); err != nil {
			return
		}
		if _, err := c.Write(reply(n)); err != nil {
			return
		}
		if e.Draining() {
			return
		}
		c.SetIdle(true)
		_, err = r.Peek(1)
		c.SetIdle(false)
		if err != nil {
			if errors.Is(err, eventloop.ErrBack) {
				c.SetIdle(true)
			}
			return
		}
	}
}

func (e *echo) dial(t testing.TB) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReaderSize(c, 64<<10)
}

// expect reads one answer of n bytes.
func expect(r *bufio.Reader, n int) error {
	got, err := r.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read an answer of %d bytes: %w", n, err)
	}
	if !bytes.Equal(got, reply(n)) {
		return fmt.Errorf("got %d bytes of %q, want %d of %q", len(got), got[0], n+1, reply(n)[0])
	}
	return nil
}

// A connection that mixes requests of both kinds gets all answers, in order; what is
// answered in place isn't lent.
func TestBothKindsOnOneConnection(t *testing.T) {
	t.Parallel()
	e := start(t)
	c, r := e.dial(t)
	for i := range 200 {
		kind := "fast"
		if i%4 == 3 {
			kind = "slow"
		}
		fmt.Fprintf(c, "%s %d\r\n\r\n", kind, i)
		if err := expect(r, i); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.lent.Load(); n != 50 {
		t.Errorf("lent %d times, want 50", n)
	}
}

// However requests are cut into pieces and run together.
func TestRequestsInPiecesAndAhead(t *testing.T) {
	t.Parallel()
	e := start(t)
	for piece := 1; piece < 40; piece += 3 {
		c, r := e.dial(t)
		var all strings.Builder
		const n = 60
		for i := range n {
			fmt.Fprintf(&all, "%s %d\r\n\r\n", []string{"fast", "slow", "fast"}[i*i%3], i)
		}
		go func() {
			for rest := all.String(); rest != ""; {
				k := min(piece, len(rest))
				io.WriteString(c, rest[:k])
				rest = rest[k:]
				if piece%2 == 0 {
					time.Sleep(50 * time.Microsecond)
				}
			}
		}()
		for i := range n {
			if err := expect(r, i); err != nil {
				t.Fatalf("pieces of %d, answer %d: %v", piece, i, err)
			}
		}
	}
}

// A client that reads late holds up nobody, and gets all it asked for.
func TestASlowReaderGetsAllAndHoldsUpNobody(t *testing.T) {
	t.Parallel()
	e := start(t)
	slow, r := e.dial(t)
	const n, size = 40, 1_000_000
	go func() {
		for range n {
			fmt.Fprintf(slow, "fast %d\r\n\r\n", size)
		}
	}()
	time.Sleep(50 * time.Millisecond)
	other, or := e.dial(t)
	for range 10 {
		fmt.Fprint(other, "fast 1\r\n\r\n")
		if err := expect(or, 1); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		if err := expect(r, size); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
	fmt.Fprint(slow, "fast 2\r\n\r\nslow 3\r\n\r\n")
	if err := errors.Join(expect(r, 2), expect(r, 3)); err != nil {
		t.Error(err)
	}
}

// The end of what a client sends is seen although it came together with a request.
func TestTheEndIsSeenBehindARequest(t *testing.T) {
	t.Parallel()
	e := start(t)
	for i := range 20 {
		c, r := e.dial(t)
		fmt.Fprintf(c, "%s 5\r\n\r\n", []string{"fast", "slow"}[i%2])
		c.(*net.TCPConn).CloseWrite()
		if err := expect(r, 5); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
			t.Fatalf("then %v, want the end", err)
		}
	}
}

func TestManyConnectionsAtOnce(t *testing.T) {
	t.Parallel()
	e := start(t)
	var wg sync.WaitGroup
	for g := range 50 {
		c, r := e.dial(t)
		wg.Go(func() {
			for i := range 100 {
				kind := "fast"
				if (i+g)%7 == 0 {
					kind = "slow"
				}
				fmt.Fprintf(c, "%s %d\r\n\r\n", kind, i*g)
				if err := expect(r, i*g); err != nil {
					t.Errorf("connection %d, request %d: %v", g, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestASilentClientIsLeft(t *testing.T) {
	t.Parallel()
	e := start(t, func(c *eventloop.Config) { c.Idle = 300 * time.Millisecond })
	c, r := e.dial(t)
	fmt.Fprint(c, "fast 5\r\n\r\n")
	if err := expect(r, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after silence: %v, want the end", err)
	}
}

// A borrower that waits for the client learns of deadlines, set before or meanwhile, and
// of the connection's end.
func TestABorrowersReadEnds(t *testing.T) {
	t.Parallel()
	type result struct {
		err  error
		took time.Duration
	}
	results := make(chan result, 1)
	serve := func(prepare func(*eventloop.Conn)) func(*eventloop.Config) {
		return func(cfg *eventloop.Config) {
			cfg.Serve = func(c *eventloop.Conn) {
				defer c.Close()
				io.ReadFull(c, make([]byte, 1))
				prepare(c)
				begun := time.Now()
				_, err := c.Read(make([]byte, 1))
				results <- result{err, time.Since(begun)}
			}
		}
	}
	for _, tt := range []struct {
		why     string
		prepare func(*eventloop.Conn)
		client  func(net.Conn)
		timeout bool
	}{
		{"a deadline that was set before", func(c *eventloop.Conn) { c.SetReadDeadline(time.Now().Add(30 * time.Millisecond)) }, nil, true},
		{"a deadline that is past", func(c *eventloop.Conn) { c.SetReadDeadline(time.Unix(1, 0)) }, nil, true},
		{"a deadline set while it waits", func(c *eventloop.Conn) {
			time.AfterFunc(30*time.Millisecond, func() { c.SetReadDeadline(time.Unix(1, 0)) })
		}, nil, true},
		{"a deadline moved forward while it waits", func(c *eventloop.Conn) {
			c.SetReadDeadline(time.Now().Add(time.Hour))
			time.AfterFunc(30*time.Millisecond, func() { c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) })
		}, nil, true},
		{"the connection is closed here", func(c *eventloop.Conn) { time.AfterFunc(30*time.Millisecond, func() { c.Close() }) }, nil, false},
		{"the client hangs up", func(*eventloop.Conn) {}, func(c net.Conn) { c.Close() }, false},
	} {
		e := start(t, serve(tt.prepare))
		c, _ := e.dial(t)
		io.WriteString(c, "x")
		if tt.client != nil {
			time.Sleep(20 * time.Millisecond)
			tt.client(c)
		}
		got := <-results
		var network net.Error
		if timeout := errors.As(got.err, &network) && network.Timeout(); got.err == nil || timeout != tt.timeout || got.took > 5*time.Second {
			t.Errorf("%s: %v after %v", tt.why, got.err, got.took)
		}
	}
}

// Drain closes what is between requests only after a while, so that a request that is
// on its way is answered, and waits for what is in flight.
func TestDrainLosesNoRequest(t *testing.T) {
	t.Parallel()
	e := start(t)
	const clients = 20
	var answered, asked atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		c, r := e.dial(t)
		wg.Go(func() {
			for i := 0; ; i++ {
				asked.Add(1)
				fmt.Fprintf(c, "%s 10\r\n\r\n", []string{"fast", "slow"}[i%2])
				if err := expect(r, 10); err != nil {
					t.Errorf("a request is lost: %v", err)
					return
				}
				answered.Add(1)
				if e.Draining() { // a protocol would have said so in the answer
					if _, err := r.Peek(1); err != nil {
						return
					}
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	if err := e.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if asked.Load() != answered.Load() || answered.Load() < clients {
		t.Errorf("%d of %d requests answered", answered.Load(), asked.Load())
	}
	if c, err := net.Dial("tcp", e.Addr().String()); err == nil {
		c.Close()
		t.Error("still accepting")
	}
}

func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	e := start(t, func(cfg *eventloop.Config) {
		cfg.Serve = func(c *eventloop.Conn) {
			defer c.Close()
			<-release
		}
	})
	c, _ := e.dial(t)
	io.WriteString(c, "x")
	time.Sleep(20 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain: %v", err)
	}
	close(release)
	e.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

// A client that takes nothing of its answer is left, however it is answered and
// whatever it goes on to send; one that takes some now and then isn't.
func TestAClientThatDoesNotReadIsLeft(t *testing.T) {
	t.Parallel()
	e := start(t, func(c *eventloop.Config) { c.Stuck = 300 * time.Millisecond })
	for _, kind := range []string{"fast", "slow"} {
		c, _ := e.dial(t)
		begun := time.Now()
		fmt.Fprintf(c, "%s %d\r\n\r\n", kind, 20_000_000)
		for { // until nobody is there to take it
			if _, err := io.WriteString(c, "x"); err != nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if took := time.Since(begun); took < 300*time.Millisecond || took > 5*time.Second {
			t.Errorf("%s: left after %v", kind, took)
		}
		reader, r := e.dial(t)
		reader.(*net.TCPConn).SetReadBuffer(64 << 10)
		const size = 12_000_000
		fmt.Fprintf(reader, "%s %d\r\n\r\n", kind, size)
		begun = time.Now()
		for taken := 0; taken < size-1_000_000; {
			n, err := io.CopyN(io.Discard, r, 500_000)
			if taken += int(n); err != nil {
				t.Fatalf("%s: a slow reader is left after %d bytes, %v: %v", kind, taken, time.Since(begun), err)
			}
			time.Sleep(30 * time.Millisecond)
		}
		if took := time.Since(begun); took < 600*time.Millisecond {
			t.Errorf("%s: the slow reader took only %v", kind, took)
		}
	}
}

func TestBeyondTheBoundNewClientsWait(t *testing.T) {
	t.Parallel()
	const bound, clients = 4, 40
	e := start(t, func(c *eventloop.Config) { c.MaxConnections = bound })
	answered := make(chan net.Conn, clients)
	for range clients {
		c, err := net.Dial("tcp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			fmt.Fprint(c, "fast 1\r\n\r\n")
			if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
				t.Error(err)
			}
			answered <- c
		}()
	}
	first := <-answered
	time.Sleep(100 * time.Millisecond) // for those that shouldn't be
	if n := 1 + len(answered); n > bound+runtime.NumCPU() {
		t.Errorf("%d clients at once, of %d", n, bound)
	}
	first.Close()
	for range clients - 1 {
		(<-answered).Close() // so that the next one can come
	}
}
