package optimizer_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phasegate/optimizer"
	"phasegate/optimizer/upstream"
)

func TestAdmin(t *testing.T) {
	t.Parallel()
	p := start(t, counted("Cache-Control: max-age=60"))
	for target, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/version": optimizer.Version, "/metrics": "optimizer_cache_entries 0"} {
		resp, err := p.client.Get(p.admin + target)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d, no %q in it", target, resp.StatusCode, want)
		}
	}
	host := p.o.Addr().String()
	for _, query := range []string{"key=/x?y=1", "key=" + host + "/x?y=1", "key=http://" + host + "/x?y=1", "all"} {
		p.get("/x?y=1")
		if got := p.invalidate(query); got != "{\"removed\":1}\n" {
			t.Errorf("%s: %s", query, got)
		}
		if a := p.get("/x?y=1"); a.cache() == "optimizer; hit" {
			t.Errorf("%s: still there", query)
		}
	}
	if got := p.invalidate("key=nothing"); !strings.Contains(got, "key must be") {
		t.Errorf("a bad key: %q", got)
	}
}

func TestBadUpstreamBodiesAreNeverStoredNorServedAsWhole(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"Content-Length", "chunked"} {
		for _, size := range []int{1000, 200_000} {
			p := start(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=60")
				if how == "Content-Length" {
					w.Header().Set("Content-Length", fmt.Sprint(size+1))
				}
				w.Write(bytes.Repeat([]byte("x"), size))
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}, func(c *optimizer.Config) { c.Cache.MaxObjectShare = 0.001 })
			for range 2 {
				if a, err := p.try("GET", "/t", ""); err == nil && a.status == 200 {
					t.Errorf("%s of %d bytes: a truncated answer looks whole, %s", how, size, a.cache())
				}
			}
		}
	}
}

func TestLargeBodiesAreStreamedNotStored(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	for _, chunked := range []bool{false, true} {
		p := start(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			if !chunked {
				w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			}
			w.Write(body)
		}, func(c *optimizer.Config) { c.Cache.MaxObjectShare = 0.001 })
		for range 2 {
			if a := p.get("/l"); a.body != string(body) || strings.Contains(a.cache(), "stored") {
				t.Errorf("chunked %v: %d bytes, %s", chunked, len(a.body), a.cache())
			}
		}
		p.wantAsked(2, "two large bodies")
	}
}

// A body that comes drop by drop never stands still; it ends all the same.
func TestStreamedBodiesEnd(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && r.Context().Err() == nil; time.Sleep(5 * time.Millisecond) {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
		}
	}, func(c *optimizer.Config) { c.Upstream.LastByteTimeout = 300 * time.Millisecond })
	if a, err := p.try("GET", "/", ""); err == nil {
		t.Errorf("%d bytes, as if that were all", len(a.body))
	}
}

func TestRequestBodiesGoUpUnchanged(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d %v %s", r.Method, len(body), err, r.Header.Get("X-Forwarded-For"))
	}, func(c *optimizer.Config) { c.Guard.MaxRequestSize = 300_000 })
	for _, size := range []int{1, 5000, 100_000, 300_000} {
		if a := p.do("PUT", "/u", strings.Repeat("x", size), "X-Forwarded-For: 6.6.6.6"); a.body != fmt.Sprintf("PUT %d <nil> 127.0.0.1", size) {
			t.Errorf("%d bytes: %q", size, a.body)
		}
	}
	if a := p.do("PUT", "/u", strings.Repeat("x", 300_001)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d", a.status)
	}
	if a := p.get("/u"); !strings.HasPrefix(a.body, "GET 0") {
		t.Errorf("after that: %q", a.body)
	}
}

func TestAnswersBelongToTheirRequests(t *testing.T) {
	t.Parallel()
	body := func(path, variant string) string {
		return strings.Repeat(path+"|"+variant+"|", 1+len(path)*len(path)/4)
	}
	headers := []string{"max-age=60", "max-age=0", "private", "no-store", "max-age=1, stale-while-revalidate=60", "s-maxage=60"}
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		n := len(r.URL.Path)
		if r.Method == "POST" {
			return
		}
		w.Header().Set("Cache-Control", headers[n%len(headers)])
		w.Header().Set("ETag", `"`+r.URL.Path+r.Header.Get("X-Variant")+`"`)
		variant := ""
		if n%2 == 0 {
			w.Header().Set("Vary", "X-Variant")
			variant = r.Header.Get("X-Variant")
		}
		if r.Header.Get("If-None-Match") == w.Header().Get("ETag") {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if n%7 == 0 {
			w.(http.Flusher).Flush() // chunked
		}
		io.WriteString(w, body(r.URL.Path, variant))
	}, func(c *optimizer.Config) { c.Cache.Capacity = 30; c.Cache.MaxObjectShare = 0.0002 })
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 150 {
				path := "/" + strings.Repeat("k", (g*31+i*17)%40)
				variant := fmt.Sprint(i % 3)
				if i%29 == 0 {
					p.do("POST", path, "x")
					continue
				}
				a, err := p.try("GET", path, "", "X-Variant: "+variant)
				want := body(path, "")
				if len(path)%2 == 0 {
					want = body(path, variant)
				}
				if err != nil || a.status != 200 || a.body != want {
					t.Errorf("GET %s variant %s: %d, %v, %d bytes of %d, %s", path, variant, a.status, err, len(a.body), len(want), a.cache())
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	p := start(t, counted("Cache-Control: max-age=60"), func(c *optimizer.Config) {
		c.Guard.RateLimit.RequestsPerMinute, c.Guard.RateLimit.Burst = 1, 3
	})
	for range 3 {
		p.get("/x")
	}
	if a := p.get("/x"); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
		t.Errorf("fourth request: %d", a.status)
	}
	for range 10 { // the answer gets through although nobody reads the body
		if a := p.do("POST", "/x", strings.Repeat("x", 400_000)); a.status != http.StatusTooManyRequests {
			t.Errorf("with a body: %d", a.status)
		}
	}
}

// An upstream that hangs up on a kept connection, with the request just read.
func TestIdempotentRequestsOutliveADeadConnection(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(conn)
			for i := range 2 {
				if req, err := http.ReadRequest(r); err == nil && i == 0 {
					io.Copy(io.Discard, req.Body)
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nCache-Control: no-store\r\n\r\n")
				}
			}
			conn.Close()
		}
	}()
	p := start(t, nil, func(c *optimizer.Config) { c.Upstream.URL = "http://" + l.Addr().String() })
	for method, want := range map[string]int{"GET": 200, "PUT": 200, "DELETE": 200, "POST": 502} {
		p.get("/prime")
		body := "abc"
		if method == "GET" {
			body = ""
		}
		if a := p.do(method, "/x", body); a.status != want {
			t.Errorf("%s: %d, want %d", method, a.status, want)
		}
	}
}

func TestUpstreamThatIsNotThere(t *testing.T) {
	t.Parallel()
	p := start(t, counted(), func(c *optimizer.Config) { c.Upstream.URL = "http://127.0.0.1:1" })
	if a := p.get("/x"); a.status != http.StatusBadGateway {
		t.Errorf("status %d", a.status)
	}
	p = start(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(c *optimizer.Config) { c.Upstream.Timeout = 20 * time.Millisecond })
	if a := p.get("/x"); a.status != http.StatusGatewayTimeout {
		t.Errorf("slow upstream: status %d", a.status)
	}
}

// A client that stops in the middle of its body is told so in time, and doesn't make
// the upstream look broken.
func TestSlowUploadsAreTheClientsFault(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }, func(c *optimizer.Config) {
		c.Upstream.Timeout = 100 * time.Millisecond
		c.Breaker = upstream.Breaker{MinRequests: 3}
	})
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if status, closed := p.raw("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 50_000)); status != http.StatusRequestTimeout || !closed {
				t.Errorf("status %d, closed %v", status, closed)
			}
		})
	}
	wg.Wait()
	if a := p.get("/x"); a.status == http.StatusServiceUnavailable { // a starved upstream may take its 100 ms
		t.Errorf("then another client gets %d", a.status)
	}
}

// A connection that swallows everything, as when a firewall forgot it, is replaced.
func TestAVanishedUpstreamConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	api.Config.Protocols = new(http.Protocols)
	api.Config.Protocols.SetUnencryptedHTTP2(true)
	api.Start()
	defer api.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var vanished atomic.Bool
	go func() {
		for first := true; ; first = false {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", api.Listener.Addr().String())
			if err != nil {
				client.Close()
				return
			}
			pass := func(to, from net.Conn) {
				defer to.Close()
				for buf := make([]byte, 4096); ; {
					n, err := from.Read(buf)
					if err != nil {
						return
					}
					if !first || !vanished.Load() {
						to.Write(buf[:n])
					}
				}
			}
			go pass(server, client)
			go pass(client, server)
		}
	}()
	p := start(t, nil, func(c *optimizer.Config) {
		c.Upstream.URL, c.Upstream.Protocol, c.Upstream.Timeout = "http://"+l.Addr().String(), upstream.H2C, 400*time.Millisecond
		c.Breaker.Disabled = true
	})
	if a := p.get("/0"); a.body != "HTTP/2.0" {
		t.Fatalf("%d %q", a.status, a.body)
	}
	vanished.Store(true)
	var statuses []int
	for i := range 4 {
		a := p.get(fmt.Sprint("/", i+1))
		if statuses = append(statuses, a.status); a.status == 200 {
			return
		}
		if a.status != http.StatusGatewayTimeout && a.status != http.StatusBadGateway {
			break
		}
	}
	t.Errorf("never replaced: %v", statuses)
}

func TestStopFinishesWhatIsInFlight(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		io.WriteString(w, "done")
	})
	got := make(chan answer)
	go func() { got <- p.get("/d") }()
	<-arrived
	stopped := make(chan error)
	go func() { stopped <- p.o.Stop(context.Background()) }()
	eventually(t, "not ready", func() bool {
		resp, err := p.client.Get(p.admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	close(release)
	if a := <-got; a.body != "done" {
		t.Errorf("in flight: %+v", a)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := p.try("GET", "/d", ""); err == nil {
		t.Error("still accepting")
	}
}

// Someone who began a request and never ends it must not make every stop an unclean one.
func TestStopDoesNotWaitForHalfARequest(t *testing.T) {
	t.Parallel()
	p := start(t, counted())
	conn, err := net.Dial("tcp", p.o.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HT")
	p.get("/") // that half has certainly been read now
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if err := p.o.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.try("GET", "/d", "")
	}()
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.o.Stop(ctx); err == nil {
		t.Error("no error, although a request was cut off")
	}
	<-ended
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var out bytes.Buffer
	p := start(t, counted(), func(c *optimizer.Config) {
		c.Telemetry.AccessLog, c.AccessLog = "json", lockedWriter{&mu, &out}
		c.Guard.MaxHeaderSize, c.Guard.MaxURILength, c.Guard.ReadTimeout = 2048, 100, 300*time.Millisecond
	})
	p.get("/logged")
	p.raw("GET / HTTP/1.1\r\nHost : a\r\n\r\n")
	p.raw("GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 4000) + "\r\n\r\n")
	p.raw("GET / HT")
	for _, part := range []string{
		`"target":"/logged","protocol":"HTTP/1.1","status":200,"bytes":`,
		`"client":"127.0.0.1","method":"","host":"","target":"","protocol":"HTTP/1.1","status":400,"bytes":16,"cache":"refused"`,
		`"target":"","protocol":"HTTP/1.1","status":431,"bytes":`, `"target":"","protocol":"HTTP/1.1","status":408,"bytes":`,
	} {
		eventually(t, part, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return strings.Count(out.String(), part) == 1
		})
	}
}

// A connection on which nothing is asked has no line, and isn't counted.
func TestNoRequestIsNotLogged(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var out bytes.Buffer
	p := startAs(t, securedOld, counted(), func(c *optimizer.Config) {
		c.Telemetry.AccessLog, c.AccessLog = "json", lockedWriter{&mu, &out}
		c.Guard.ReadTimeout = time.Second // the handshake's bound too
	})
	conn, err := tls.Dial("tcp", p.o.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("%q, %v", answer, err)
	}
	p.get("/logged")
	eventually(t, "a line", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(out.String(), `"target":"/logged"`)
	})
	mu.Lock()
	defer mu.Unlock()
	if strings.Count(out.String(), "\n") != 1 || p.metric(`optimizer_requests_total{result="refused"}`) != 0 {
		t.Errorf("logged and counted: %s", out.String())
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (w lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

func (p *proxy) invalidate(query string) string {
	p.t.Helper()
	resp, err := p.client.Post(p.admin+"/invalidate?"+strings.ReplaceAll(query, "?", "%3F"), "", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}

// metric reads one sample from the admin listener.
func (p *proxy) metric(name string) (value float64) {
	p.t.Helper()
	resp, err := p.client.Get(p.admin + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	_, rest, ok := strings.Cut(string(body), "\n"+name+" ")
	if !ok {
		p.t.Fatalf("no metric %s", name)
	}
	fmt.Sscan(rest, &value)
	return value
}
