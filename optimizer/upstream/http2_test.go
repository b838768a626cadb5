package upstream_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"phasegate/optimizer/upstream"
)

// send is ask with a body, which can't be had again if once is set.
func send(t *testing.T, p *upstream.Pool, method, body string, once bool) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.URL().String(), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if once {
		req.GetBody = nil
	}
	resp, err := p.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// Every connection is given notice on with its tenth request: that one and those before
// it are answered, those behind it never are, and none of either kind fails.
func TestGoAwayFailsNoRequest(t *testing.T) {
	t.Parallel()
	peer := newPeer(t, func(c *peerConn, r peerRequest) {
		tenth := uint32(2*10 - 1)
		if r.stream > tenth {
			return
		}
		if r.stream == tenth {
			c.goAway(tenth, http2.ErrCodeNo)
		}
		c.answer(r.stream, r.body)
	})
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: "h2c", Timeout: 5 * time.Second})
	var wg sync.WaitGroup
	for worker := range 20 {
		wg.Go(func() {
			for i := range 20 {
				body := fmt.Sprint(worker, i)
				if got, err := send(t, p, "POST", body, false); err != nil || got != body {
					t.Errorf("%q came back as %q, %v", body, got, err)
				}
			}
		})
	}
	wg.Wait()
	s := p.Stats()
	if s.GoAways < 39 || s.Retries["goaway"]+s.Retries["unsent"] == 0 || s.Retries["lost"] > 0 || s.Protocol["h2"].Active > 0 || s.Streams > 0 {
		t.Errorf("after 400 requests: %+v", s)
	}
}

// What the upstream surely didn't process is sent again, whatever the method; but never
// with a body that was read from.
func TestRefusedStreamsAreSentAgain(t *testing.T) {
	t.Parallel()
	var refused atomic.Int64
	peer := newPeer(t, func(c *peerConn, r peerRequest) {
		if r.number%2 == 1 {
			refused.Add(1)
			c.reset(r.stream, http2.ErrCodeRefusedStream)
			return
		}
		c.answer(r.stream, r.body)
	})
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: "h2c", RetryBudget: new(0.0)})
	if got, err := send(t, p, "POST", "whole", false); err != nil || got != "whole" {
		t.Errorf("a body that can be had again: %q, %v", got, err)
	}
	if got, err := send(t, p, "POST", "part", true); err == nil {
		t.Errorf("a body that can't: answered with %q", got)
	}
	if n := refused.Load(); n != 2 || p.Stats().Retries["refused_stream"] != 1 {
		t.Errorf("%d refused, %v retries", n, p.Stats().Retries)
	}
}

// A peer that refuses everything ends a request after six attempts, at growing distances.
func TestRetriesEnd(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	peer := newPeer(t, func(c *peerConn, r peerRequest) {
		asked.Add(1)
		c.reset(r.stream, http2.ErrCodeRefusedStream)
	})
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: "h2c"})
	begun := time.Now()
	if _, _, err := ask(t, p, "GET"); err == nil || asked.Load() != 6 {
		t.Errorf("%d attempts, %v", asked.Load(), err)
	}
	if took := time.Since(begun); took < 150*time.Millisecond || took > 3*time.Second {
		t.Errorf("it took %v, want 10+20+40+80 ms", took)
	}
}

// A connection that ends without an answer: idempotent requests are sent again, within the
// budget; others aren't.
func TestLostRequestsAreSentAgainWithinTheBudget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		method  string
		budget  float64
		lose    int64 // connections that end at their first request
		reset   bool  // only the first request of all is lost, not its connection
		answers bool
	}{
		{"idempotent", "GET", 0.2, 1, false, true},
		{"idempotent, lost again and again", "GET", 0.2, 100, false, false},
		{"idempotent, reset", "GET", 0.2, 0, true, true},
		{"not idempotent", "POST", 0.2, 1, false, false},
		{"not idempotent, reset", "POST", 0.2, 0, true, false},
		{"without a budget", "GET", 0, 1, false, false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			peer := newPeer(t, func(c *peerConn, r peerRequest) {
				if c.number <= tt.lose {
					c.Close()
					return
				}
				if tt.reset && c.number == 1 && r.number == 1 {
					c.reset(r.stream, http2.ErrCodeInternal)
					return
				}
				c.answer(r.stream, "ok")
			})
			p := newPool(t, upstream.Config{URL: peer.url(), Protocol: "h2c", RetryBudget: &tt.budget, Breaker: upstream.Breaker{Disabled: true}})
			begun := time.Now()
			if _, err := send(t, p, tt.method, "", false); (err == nil) != tt.answers {
				t.Errorf("error %v", err)
			}
			if tt.lose < 100 {
				return
			}
			for range 20 {
				ask(t, p, tt.method)
			}
			s := p.Stats()
			most := 10 + 21*tt.budget + 10*time.Since(begun).Seconds() // ten at once, a fifth of the requests, ten per second
			denied := s.RetriesDenied > 0 || most > 50                 // on a slow machine there is more than they want
			if got := s.Retries["lost"]; got < 10 || float64(got) > most || !denied {
				t.Errorf("%d retries for 21 requests, want at most %.1f; %d denied", got, most, s.RetriesDenied)
			}
		})
	}
}

// The peer's limit on streams is kept from the first request on; beyond it connections
// open, up to the bound; then requests wait, in order.
func TestStreamsAreLimitedByThePeer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var mu sync.Mutex
	var now, peak [3]int
	peer := newPeer(t, func(c *peerConn, r peerRequest) {
		i := c.number
		if i > 2 {
			t.Errorf("connection %d", i)
			i = 0
		}
		mu.Lock()
		now[i]++
		peak[i] = max(peak[i], now[i])
		mu.Unlock()
		<-release
		mu.Lock()
		now[i]--
		mu.Unlock()
		c.answer(r.stream, "ok")
	}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 3})
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: "h2c", MaxConnectionsPerHost: 2})
	let := sync.OnceFunc(func() { close(release) })
	t.Cleanup(let)
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if _, body, err := ask(t, p, "GET"); err != nil || body != "ok" {
				t.Errorf("%q, %v", body, err)
			}
		})
	}
	until(t, "two full connections, six who wait", func() bool {
		mu.Lock()
		defer mu.Unlock()
		s := p.Stats()
		return s.Streams == 6 && s.Waiting == 6 && now[1]+now[2] == 6
	})
	if s := p.Stats(); s.Protocol["h2"].Active != 2 {
		t.Errorf("%+v", s)
	}
	let()
	wg.Wait()
	if peak[1] != 3 || peak[2] != 3 {
		t.Errorf("%d and %d streams at once, want 3 and 3", peak[1], peak[2])
	}
	if s := p.Stats(); s.Waiting != 0 || s.Retries["refused_stream"] > 0 || s.Protocol["h2"].Fresh != 2 || s.Protocol["h2"].Reused != 10 {
		t.Errorf("%+v", s)
	}
}

// An upstream that takes no further connection isn't stormed for one, and isn't thought to
// have unlearned HTTP/2: requests wait for the streams that there are.
func TestConnectionsThatAreRefused(t *testing.T) {
	t.Parallel()
	peer := newPeer(t, func(c *peerConn, r peerRequest) {
		time.Sleep(20 * time.Millisecond)
		c.answer(r.stream, "ok")
	}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	peer.most.Store(1)
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: "h2c"})
	if _, _, err := ask(t, p, "GET"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, body, err := ask(t, p, "GET"); err != nil || body != "ok" {
				t.Errorf("%q, %v", body, err)
			}
		})
	}
	begun := time.Now()
	wg.Wait()
	// Each of the nineteen may be dialled for at first, twice; then come pauses.
	if n, most := peer.opened.Load(), 40*(2+int64(time.Since(begun)/(500*time.Millisecond))); n < 2 || n > most {
		t.Errorf("%d connections in %v, want at most %d", n, time.Since(begun), most)
	}
	if s := p.Stats(); s.Fallbacks["preface"] > 0 || s.Failures["preface"] == 0 {
		t.Errorf("%+v", s)
	}
}

// A connection whose other end vanished is found out by pings, and its requests go elsewhere.
func TestPingsFindADeadConnection(t *testing.T) {
	t.Parallel()
	dead := make(chan struct{})
	var kill sync.Once
	peer := newPeer(t, func(c *peerConn, r peerRequest) {
		if c.number == 1 {
			c.mu.Lock() // takes everything, and says nothing any more
			kill.Do(func() { close(dead) })
			<-t.Context().Done()
			c.mu.Unlock()
			return
		}
		c.answer(r.stream, "ok")
	})
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: "h2c", Timeout: 400 * time.Millisecond, FirstByteTimeout: 5 * time.Second})
	begun := time.Now()
	if _, body, err := ask(t, p, "GET"); err != nil || body != "ok" || peer.opened.Load() != 2 {
		t.Errorf("%q, %v, over %d connections", body, err, peer.opened.Load())
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("took %v, want 400 ms or so", took)
	}
	<-dead
}

// Old connections get no new requests.
func TestConnectionsAreReplacedByAge(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"h2c", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			server := both(t)
			p := newPool(t, upstream.Config{URL: server.URL, Protocol: protocol, MaxConnectionAge: 100 * time.Millisecond})
			begun := time.Now()
			for range 10 {
				if _, _, err := ask(t, p, "GET"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(40 * time.Millisecond)
			}
			if s, most := p.Stats(), 2+time.Since(begun)/(100*time.Millisecond); s.Dials < 2 || s.Dials > uint64(most) {
				t.Errorf("%d connections in %v: %+v", s.Dials, time.Since(begun), s)
			}
		})
	}
}

// First byte and whole: the deadline for the header is its own.
func TestFirstByteTimeout(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"h2c", "http/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			server := both(t)
			p := newPool(t, upstream.Config{URL: server.URL + "/hang", Protocol: protocol, FirstByteTimeout: 50 * time.Millisecond})
			begun := time.Now()
			_, _, err := ask(t, p, "GET")
			var timeout interface{ Timeout() bool }
			if !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(begun) > 5*time.Second {
				t.Errorf("%v after %v", err, time.Since(begun))
			}
		})
	}
}

// until waits for a condition, ten seconds at most.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for range 2000 {
		if condition() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

// An upstream that allows no streams for now isn't asked for more connections, and who
// waits is told in time.
func TestNoStreamsAllowed(t *testing.T) {
	t.Parallel()
	peer := newPeer(t, func(c *peerConn, r peerRequest) { c.answer(r.stream, "ok") }, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: upstream.H2C, WaitTimeout: 300 * time.Millisecond})
	if _, _, err := ask(t, p, "GET"); err == nil {
		t.Error("it was answered")
	}
	if n := peer.opened.Load(); n > 2 {
		t.Errorf("%d connections were opened", n)
	}
}

// One more connection that comes to nothing, or only to HTTP/1.1, says nothing of the
// protocol, which others speak: the pool doesn't fall back, and goes on with what it has.
func TestOneMoreConnectionComesToNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		alpn   string // of the further one; "": clear text
		reason string
	}{
		{"it is given notice on", "", "preface"},
		{"it is HTTP/1.1", "http/1.1", "alpn"},
		{"it has nothing in common", "spdy/3", "alpn"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			release := make(chan bool)
			one := newPeer(t, func(c *peerConn, r peerRequest) { <-release; c.answer(r.stream, "ok") }, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
			let := sync.OnceFunc(func() { close(release) })
			t.Cleanup(let)
			cfg := upstream.Config{URL: "http://", Protocol: upstream.H2C}
			secure := func(conn net.Conn, _ string) net.Conn { return conn }
			if tt.alpn != "" {
				cfg = upstream.Config{URL: "https://", InsecureSkipVerify: true}
				config := certificate(t)
				secure = func(conn net.Conn, alpn string) net.Conn { return tls.Server(conn, certificateOf(config, alpn)) }
			}
			var opened atomic.Int64
			cfg.URL += listen(t, nil, func(conn net.Conn) {
				if opened.Add(1) > 1 {
					if conn = secure(conn, tt.alpn); tt.alpn == "" {
						framer := http2.NewFramer(conn, conn)
						framer.WriteSettings()
						framer.WriteGoAway(0, http2.ErrCodeNo, nil)
						return
					}
					oneOne(conn, bufio.NewReader(conn))
					return
				}
				conn = secure(conn, "h2")
				to, err := net.Dial("tcp", one.address)
				if err != nil {
					t.Error(err)
					return
				}
				go func() {
					io.Copy(to, conn)
					to.Close()
				}()
				io.Copy(conn, to)
			})
			p := newPool(t, cfg)
			var asking sync.WaitGroup
			for range 2 {
				asking.Go(func() {
					if _, body, err := ask(t, p, "GET"); err != nil || body != "ok" {
						t.Errorf("%q, %v", body, err)
					}
				})
			}
			until(t, "it has come to nothing", func() bool { s := p.Stats(); return sum(s.Failures)+sum(s.Fallbacks) > 0 })
			let()
			asking.Wait()
			if s := p.Stats(); sum(s.Fallbacks) > 0 || s.Failures[tt.reason] == 0 || s.Protocol["http/1.1"] != (upstream.Usage{}) {
				t.Errorf("fallbacks %v, failures %v, %+v", s.Fallbacks, s.Failures, s.Protocol)
			}
		})
	}
}

// A connection on which a stream was reset with PROTOCOL_ERROR takes no more requests,
// which x/net says only to who sends one: while an answer still comes on it, the others
// go over another one, those that may not be repeated too.
func TestAConnectionThatIsNoLongerUsable(t *testing.T) {
	t.Parallel()
	var bad atomic.Bool
	peer := newPeer(t, func(c *peerConn, r peerRequest) {
		switch {
		case r.path == "/hang":
			<-t.Context().Done()
		case !bad.Swap(true):
			c.reset(r.stream, http2.ErrCodeProtocol)
		default:
			c.answer(r.stream, r.body)
		}
	})
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: upstream.H2C, RetryBudget: new(0.0), Breaker: upstream.Breaker{MinRequests: 3}})
	ctx, cancel := context.WithCancel(t.Context())
	var hanging sync.WaitGroup
	hanging.Go(func() {
		req, _ := http.NewRequestWithContext(ctx, "GET", peer.url()+"/hang", nil)
		if _, err := p.Do(req); err == nil {
			t.Error("answered")
		}
	})
	until(t, "one hangs", func() bool { return p.Stats().Streams == 1 })
	if _, err := send(t, p, "POST", "first", false); err == nil {
		t.Error("the reset one was answered")
	}
	for range 10 {
		if got, err := send(t, p, "POST", "next", true); err != nil || got != "next" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if s := p.Stats(); s.Dials != 2 || s.Retries["unsent"] != 1 || s.Protocol["h2"].Leaving != 1 || s.State != upstream.Closed {
		t.Errorf("%+v", s)
	}
	cancel()
	hanging.Wait()
	until(t, "it is closed after its last answer", func() bool { return p.Stats().Protocol["h2"].Leaving == 0 })
}

// An upstream that gives notice on each connection while its answers hang gets as many
// again as are allowed, and no more.
func TestLeavingConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	peer := newPeer(t, func(c *peerConn, r peerRequest) {
		c.goAway(r.stream, http2.ErrCodeNo)
		<-release
		c.answer(r.stream, "ok")
	}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: upstream.H2C, MaxConnectionsPerHost: 2, WaitTimeout: time.Second})
	results := make(chan error)
	for range 10 {
		go func() {
			_, _, err := ask(t, p, "GET")
			results <- err
		}()
	}
	for range 6 {
		if err := <-results; !errors.As(err, new(*upstream.BusyError)) {
			t.Errorf("beyond the bound: %v", err)
		}
	}
	if n := peer.opened.Load(); n != 4 {
		t.Errorf("%d connections, want 4", n)
	}
	close(release)
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if _, _, err := ask(t, p, "GET"); err != nil {
		t.Errorf("after they have ended: %v", err)
	}
}

// A connection without work that the upstream gives notice on is closed, and not only
// after upstream.idle_timeout or with the next request.
func TestIdleConnectionsLeaveAtOnce(t *testing.T) {
	t.Parallel()
	answered, closed := make(chan struct{}), make(chan struct{})
	peer := newPeer(t, func(c *peerConn, r peerRequest) {
		c.answer(r.stream, "ok")
		<-answered
		c.goAway(r.stream, http2.ErrCodeNo)
		for err := error(nil); err == nil; time.Sleep(5 * time.Millisecond) {
			c.write(func(f *http2.Framer) { err = f.WritePing(false, [8]byte{}) })
		}
		close(closed)
	})
	p := newPool(t, upstream.Config{URL: peer.url(), Protocol: upstream.H2C})
	if _, _, err := ask(t, p, "GET"); err != nil {
		t.Fatal(err)
	}
	close(answered)
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("it is still open")
	}
}

// An upstream that takes nothing more on a connection, while its own frames come, answers no
// ping because none is sent. Requests don't wait there until theirs has run out.
func TestAConnectionThatTakesNothingIsLeft(t *testing.T) {
	t.Parallel()
	var opened atomic.Int64
	stuck, over := make(chan struct{}), make(chan struct{})
	var ending sync.Once
	end := func() { ending.Do(func() { close(over) }) }
	t.Cleanup(end)
	well := &peer{serve: func(c *peerConn, r peerRequest) { c.answer(r.stream, "ok") }}
	address := listen(t, nil, func(conn net.Conn) {
		if opened.Add(1) > 1 {
			var running sync.WaitGroup
			well.talk(&peerConn{Conn: conn, framer: http2.NewFramer(conn, conn)}, &running)
			running.Wait()
			return
		}
		f := http2.NewFramer(conn, conn)
		io.ReadFull(conn, make([]byte, len(http2.ClientPreface)))
		f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		f.WriteSettingsAck()
		f.WriteWindowUpdate(0, 1<<31-1-65535)
		for data := false; !data; {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			data = frame.Header().Type == http2.FrameData
		}
		close(stuck)
		for err := error(nil); err == nil; time.Sleep(5 * time.Millisecond) {
			select {
			case <-over:
				return
			default:
				err = f.WriteWindowUpdate(0, 1) // there is room for it since data came
			}
		}
	})
	p := newPool(t, upstream.Config{URL: "http://" + address, Protocol: upstream.H2C, Timeout: time.Second, FirstByteTimeout: time.Hour})
	var uploading sync.WaitGroup
	uploading.Go(func() {
		req, _ := http.NewRequestWithContext(t.Context(), "PUT", p.URL().String(), endless{over})
		if _, err := p.Do(req); err == nil {
			t.Error("what wasn't taken was answered")
		}
	})
	<-stuck
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", p.URL().String(), nil)
	resp, err := p.Do(req)
	if err != nil {
		t.Error(err)
	} else {
		resp.Body.Close()
	}
	end()
	uploading.Wait()
}

// endless is a body that ends when the test does.
type endless struct{ over <-chan struct{} }

// Read fills p.
func (e endless) Read(p []byte) (int, error) {
	select {
	case <-e.over:
		return 0, io.ErrUnexpectedEOF
	default:
		return len(p), nil
	}
}
