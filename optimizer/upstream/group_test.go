package upstream_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"phasegate/optimizer/upstream"
)

// several are upstreams that say their number, unless they are down.
type several struct {
	servers []*httptest.Server
	down    []atomic.Bool
	asked   []atomic.Int64
	hold    chan struct{} // what requests for /hold wait for
}

func newSeveral(t *testing.T, n int) *several {
	t.Helper()
	s := &several{down: make([]atomic.Bool, n), asked: make([]atomic.Int64, n), hold: make(chan struct{})}
	for i := range n {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host != strings.TrimPrefix(s.servers[i].URL, "http://") {
				t.Errorf("Host is %s at %s", r.Host, s.servers[i].URL)
			}
			if r.URL.Path != "/health" {
				s.asked[i].Add(1)
			}
			if r.URL.Path == "/hold" {
				<-s.hold
			}
			if s.down[i].Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			io.WriteString(w, string(rune('0'+i)))
		}))
		t.Cleanup(server.Close)
		s.servers = append(s.servers, server)
	}
	return s
}

func (s *several) group(t *testing.T, cfg upstream.Config) *upstream.Group {
	t.Helper()
	cfg.URL = s.servers[0].URL
	for _, server := range s.servers[1:] {
		cfg.URLs = append(cfg.URLs, server.URL)
	}
	g, err := upstream.NewGroup(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

func askGroup(t *testing.T, g *upstream.Group, method, path, body string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, g.URL().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// The share of one that is left out is spread too, and isn't all its neighbour's.
func TestRequestsAreSpread(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 3)
	g := s.group(t, upstream.Config{EjectAfter: 1, EjectFor: time.Hour})
	spread := func(want ...int64) {
		t.Helper()
		for i := range s.asked {
			s.asked[i].Store(0)
		}
		for range 30 {
			if status, _, err := askGroup(t, g, "GET", "/", ""); err != nil || status != 200 {
				t.Fatalf("%d, %v", status, err)
			}
		}
		for i := range s.asked {
			if n := s.asked[i].Load(); n != want[i] {
				t.Errorf("upstream %d was asked %d times, want %d", i, n, want[i])
			}
		}
	}
	spread(10, 10, 10)
	s.down[1].Store(true)
	for range 3 {
		askGroup(t, g, "GET", "/", "")
	}
	spread(15, 0, 15)
}

func TestTheLeastPendingIsAsked(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 2)
	g := s.group(t, upstream.Config{Balance: upstream.LeastPending})
	var wg sync.WaitGroup
	wg.Go(func() { askGroup(t, g, "GET", "/hold", "") })
	until(t, "one is busy", func() bool { return s.asked[0].Load()+s.asked[1].Load() == 1 })
	busy := 0
	if s.asked[1].Load() == 1 {
		busy = 1
	}
	for range 10 {
		askGroup(t, g, "GET", "/", "")
	}
	close(s.hold)
	wg.Wait()
	if n := s.asked[busy].Load(); n != 1 {
		t.Errorf("the busy one was asked %d times", n)
	}
}

// One that can't be reached costs no request, not even a POST; after some failures it isn't
// tried any more, for longer each time, and it comes back. The other's breaker doesn't care.
func TestTheUnreachableIsPassedOverAndLeftOut(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 2)
	address := s.servers[1].Listener.Addr().String()
	s.servers[1].Close()
	g := s.group(t, upstream.Config{EjectAfter: 3, EjectFor: 200 * time.Millisecond, Breaker: upstream.Breaker{MinRequests: 2, OpenFor: 50 * time.Millisecond}})
	begun := time.Now()
	for time.Since(begun) < time.Second {
		if status, body, err := askGroup(t, g, "POST", "/", "body"); err != nil || status != 200 || body != "0" {
			t.Fatalf("%d %q, %v", status, body, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	stats := g.Stats()
	// 200 ms and 400 ms, and between them until three requests have failed, some of which the
	// breaker is a further 50 ms before.
	if n := stats[1].Ejections["requests"]; n < 2 || n > 3 {
		t.Errorf("left out %d times in 1 s, want 2 or 3", n)
	}
	if stats[0].State != upstream.Closed || stats[0].Out || stats[0].Ejections["requests"] > 0 || stats[0].Upstream == stats[1].Upstream {
		t.Errorf("the good one: %+v", stats[0])
	}
	back := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "back") }))
	back.Listener.Close()
	listener, err := listenAt(address)
	if err != nil {
		t.Skipf("the port is taken by now: %v", err)
	}
	back.Listener = listener
	back.Start()
	t.Cleanup(back.Close)
	until(t, "it is asked again", func() bool {
		_, body, err := askGroup(t, g, "GET", "/", "")
		return err == nil && body == "back"
	})
}

// What one has no room for doesn't go to one that is left out, which would take its time to
// fail; nor does another one's failure hide that there may be room in a moment.
func TestBusyLeadsToNoneThatIsOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		servers int
		urls    []string // beside them
		after   int
		out     bool
	}{
		{"the other one is left out", 2, nil, 1, true},
		{"the other one can't be reached", 1, []string{"http://127.0.0.1:1"}, 1000, false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			s := newSeveral(t, tt.servers)
			g := s.group(t, upstream.Config{
				URLs: tt.urls, MaxConnectionsPerHost: 1, MaxWaiting: 1, WaitTimeout: time.Minute, Timeout: 2 * time.Minute,
				EjectAfter: tt.after, EjectFor: time.Hour, Breaker: upstream.Breaker{Disabled: true},
			})
			for i := 1; i < tt.servers; i++ {
				s.down[i].Store(true)
			}
			askGroup(t, g, "GET", "/", "")
			askGroup(t, g, "GET", "/", "")
			if out := g.Stats()[1].Out; out != tt.out {
				t.Fatalf("out: %v", out)
			}
			var held sync.WaitGroup
			defer held.Wait()
			defer close(s.hold)
			for range 2 {
				held.Go(func() {
					if status, body, err := askGroup(t, g, "GET", "/hold", ""); err != nil || status != 200 || body != "0" {
						t.Errorf("%d %q, %v", status, body, err)
					}
				})
			}
			until(t, "the line is full", func() bool { one := g.Stats()[0]; return one.Waiting == 1 && one.Protocol["http/1.1"].Active == 1 })
			for range 4 { // whoever's turn it is
				_, _, err := askGroup(t, g, "GET", "/", "")
				if busy := (*upstream.BusyError)(nil); !errors.As(err, &busy) || busy.Waited != 0 {
					t.Errorf("%v, want that every connection is in use", err)
				}
			}
		})
	}
}

// The last one stays in, whatever it answers.
func TestTheLastOneStaysIn(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 3)
	for i := range s.down {
		s.down[i].Store(true)
	}
	g := s.group(t, upstream.Config{EjectAfter: 2, EjectFor: time.Hour, Breaker: upstream.Breaker{Disabled: true}})
	for range 30 {
		if status, _, err := askGroup(t, g, "GET", "/", ""); err != nil || status != 503 {
			t.Fatalf("%d, %v: want the upstream's 503", status, err)
		}
	}
	in := 0
	for _, one := range g.Stats() {
		if !one.Out {
			in++
		}
	}
	if in != 1 {
		t.Errorf("%d of 3 are in, want 1", in)
	}
}

// Probes leave one out before a request has failed, and bring it back; the last one stays.
func TestProbes(t *testing.T) {
	t.Parallel()
	s := newSeveral(t, 2)
	g := s.group(t, upstream.Config{Health: upstream.Health{Path: "/health", Interval: 10 * time.Millisecond}, EjectAfter: 1000})
	ctx := t.Context()
	watched := make(chan struct{})
	go func() { g.Watch(ctx); close(watched) }()
	t.Cleanup(func() { <-watched })
	until(t, "good probes", func() bool { return g.Stats()[0].Probes["good"] > 2 && g.Stats()[1].Probes["good"] > 2 })
	s.down[1].Store(true)
	until(t, "the sick one is out", func() bool { return g.Stats()[1].Out })
	before := s.asked[1].Load()
	for range 10 {
		if status, body, err := askGroup(t, g, "GET", "/", ""); err != nil || status != 200 || body != "0" {
			t.Fatalf("%d %q, %v", status, body, err)
		}
	}
	s.down[0].Store(true)
	until(t, "bad probes of the other", func() bool { return g.Stats()[0].Probes["bad"] > 5 })
	if stats := g.Stats(); stats[0].Out || stats[1].Probes["bad"] < 3 || stats[1].Ejections["probes"] != 1 || s.asked[1].Load() != before {
		t.Errorf("the last one is out, or the sick one was asked: %+v", stats)
	}
	s.down[1].Store(false)
	until(t, "it is back", func() bool { return !g.Stats()[1].Out })
	until(t, "the other one is out in its turn", func() bool { return g.Stats()[0].Out })
}

func TestFaultsOfSeveralUpstreams(t *testing.T) {
	t.Parallel()
	err := upstream.Config{
		URL: "http://a:1/api", URLs: []string{"http://b:1", "https://c:1/api", "d"}, Balance: "fair", Health: upstream.Health{Path: "x", Healthy: -1}, EjectAfter: -1,
		RetryBudget: new(2.0), CertFile: "cert.pem",
	}.Validate()
	for _, want := range []string{
		`upstream.urls: "http://b:1" must have`, `upstream.urls: "https://c:1/api" must have`, `upstream.urls: "d" is not`, "upstream.balance: ", "upstream.health.path: ",
		"upstream.health.healthy: ", "upstream.eject_after: ", "upstream.retry_budget: ", "upstream.cert_file: ",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q isn't in %v", want, err)
		}
	}
}

// onlyOnce is a body without GetBody; it says whether it was closed.
type onlyOnce struct {
	io.Reader
	closed atomic.Bool
}

func (b *onlyOnce) Close() error {
	b.closed.Store(true)
	return nil
}

// What an upstream surely didn't process goes to another one, whatever the method; a body
// that can't be had again goes along as long as nothing of it was read (RFC 9113 §8.7).
func TestTheUnprocessedGoesToAnother(t *testing.T) {
	t.Parallel()
	refuse := func(c *peerConn, r peerRequest) { c.reset(r.stream, http2.ErrCodeRefusedStream) }
	for _, tt := range []struct {
		why     string
		refuse  func(*peerConn, peerRequest) // nil: it can't be reached
		once    bool
		answers bool
	}{
		{"not reached", nil, true, true},
		{"not reached, and the body can be had again", nil, false, true},
		{"refused", refuse, false, true},
		{"refused when some of the body was read", refuse, true, false},
		{"above the last stream", func(c *peerConn, r peerRequest) { c.goAway(0, http2.ErrCodeNo) }, false, true},
		{"lost", func(c *peerConn, r peerRequest) { c.Close() }, false, false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			other := newPeer(t, func(c *peerConn, r peerRequest) { c.answer(r.stream, r.body) })
			var one string
			if tt.refuse != nil {
				one = newPeer(t, tt.refuse).address
			} else {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				one = ln.Addr().String()
				ln.Close()
			}
			g, err := upstream.NewGroup(upstream.Config{URL: "http://" + other.address, URLs: []string{"http://" + one}, Protocol: upstream.H2C, EjectAfter: 100, Breaker: upstream.Breaker{Disabled: true}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(g.Close)
			// The turn of urls is the first.
			body := &onlyOnce{Reader: strings.NewReader("whole")}
			req, err := http.NewRequestWithContext(t.Context(), "POST", g.URL().String(), body)
			if err != nil {
				t.Fatal(err)
			}
			if !tt.once {
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("whole")), nil }
				req.Body, _ = req.GetBody()
			}
			resp, err := g.Do(req)
			if err == nil {
				text, _ := io.ReadAll(resp.Body)
				if resp.Body.Close(); string(text) != "whole" {
					t.Errorf("%q came", text)
				}
			}
			if (err == nil) != tt.answers {
				t.Errorf("error %v, want an answer: %v", err, tt.answers)
			}
			if s := g.Stats(); (s[0].Protocol["h2"].Fresh > 0) != tt.answers || tt.refuse != nil && s[1].Protocol["h2"].Fresh == 0 {
				t.Errorf("the one was asked over %+v, the other over %+v", s[1].Protocol, s[0].Protocol)
			}
			if tt.once && !body.closed.Load() {
				t.Error("the body isn't closed")
			}
		})
	}
}

// Probes that find every connection in use say nothing of the upstream; one that waits for
// an upstream which doesn't begin to speak does.
func TestBusyIsNotSick(t *testing.T) {
	t.Parallel()
	probes := upstream.Health{Path: "/health", Interval: 5 * time.Millisecond, Timeout: 20 * time.Millisecond}
	watch := func(g *upstream.Group) {
		watched := make(chan struct{})
		go func() { g.Watch(t.Context()); close(watched) }()
		t.Cleanup(func() { <-watched })
	}
	s := newSeveral(t, 2)
	g := s.group(t, upstream.Config{Health: probes, MaxConnectionsPerHost: 1, WaitTimeout: time.Minute, Timeout: 2 * time.Minute})
	let := sync.OnceFunc(func() { close(s.hold) })
	t.Cleanup(let)
	var held sync.WaitGroup
	held.Go(func() { askGroup(t, g, "GET", "/hold", "") })
	until(t, "one is busy", func() bool { return s.asked[0].Load()+s.asked[1].Load() == 1 })
	busy := int(s.asked[1].Load())
	watch(g)
	until(t, "three probes", func() bool { one := g.Stats()[busy]; return one.Refused["timeout"]+one.Probes["bad"] >= 3 })
	if one := g.Stats()[busy]; one.Out || one.Probes["bad"] > 0 {
		t.Errorf("%+v", one)
	}
	let()
	held.Wait()

	silent := listen(t, nil, func(conn net.Conn) { io.Copy(io.Discard, conn) })
	mute, err := upstream.NewGroup(upstream.Config{URL: "http://" + silent, Protocol: upstream.H2C, Health: probes, TLSTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mute.Close)
	watch(mute)
	until(t, "bad probes", func() bool { return mute.Stats()[0].Probes["bad"] >= 3 })
}
