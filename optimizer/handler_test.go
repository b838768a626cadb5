package optimizer_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phasegate/optimizer"
	"phasegate/optimizer/upstream"
)

func Example() {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "hello")
	}))
	defer api.Close()
	cfg := optimizer.Config{Listen: "127.0.0.1:0"}
	cfg.Upstream.URL = api.URL
	o, err := optimizer.New(cfg)
	if err != nil {
		panic(err)
	}
	if err := o.Start(context.Background()); err != nil {
		panic(err)
	}
	for range 2 {
		resp, err := http.Get("http://" + o.Addr().String() + "/greeting")
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(string(body), resp.Header.Get("Cache-Status"))
	}
	http.DefaultClient.CloseIdleConnections()
	if err := o.Stop(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// hello optimizer; fwd=miss; stored
	// hello optimizer; hit
}

// counted answers with a version that rises with every request.
func counted(header ...string) http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			w.Header().Add(name, value)
		}
		fmt.Fprintf(w, "%s %d", r.URL, n.Add(1))
	}
}

func TestHitReplaysTheWholeResponse(t *testing.T) {
	t.Parallel()
	const date = "Sun, 01 Mar 2026 12:00:00 GMT"
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "max-age=999999999")
		h.Set("Date", date)
		h.Set("Phasegate-Upstream", "key=a; v=1")
		h["X-Two"] = []string{"1", "2"}
		h.Set("Server", "api/1")
		h.Set("Connection", "X-Private")
		h.Set("X-Private", "hop")
		h.Set("Content-Type", "application/x-test")
		h.Set("Content-Encoding", "odd")
		w.WriteHeader(http.StatusNonAuthoritativeInfo)
		io.WriteString(w, "body")
	})
	miss, hit := p.get("/a?b=c"), p.get("/a?b=c")
	p.wantAsked(1, "second request")
	if miss.cache() != "optimizer; fwd=miss; stored" || hit.cache() != "optimizer; hit" || hit.header.Get("Age") == "" {
		t.Errorf("Cache-Status %q, then %q with Age %q", miss.cache(), hit.cache(), hit.header.Get("Age"))
	}
	for _, a := range []answer{miss, hit} {
		if a.status != 203 || a.body != "body" || a.header.Get("X-Private") != "" || len(a.header["X-Two"]) != 2 {
			t.Errorf("answer %+v", a)
		}
		for name, want := range map[string]string{
			"Date": date, "Phasegate-Upstream": "key=a; v=1", "Server": "api/1", "Content-Type": "application/x-test", "Content-Encoding": "odd", "Content-Length": "4",
		} {
			if got := a.header[name]; len(got) != 1 || got[0] != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	}
}

func TestKeysAreHostPathAndQuery(t *testing.T) {
	t.Parallel()
	p := start(t, counted("Cache-Control: max-age=60"))
	first := p.get("/a", "Host: one.test")
	if again := p.get("/a", "Host: ONE.test"); again.body != first.body {
		t.Error("the host's case matters")
	}
	for _, other := range []answer{p.get("/a", "Host: two.test"), p.get("/a?", "Host: one.test"), p.get("/A", "Host: one.test"), p.get("/%61", "Host: one.test")} {
		if other.body == first.body {
			t.Errorf("another resource got %q", other.body)
		}
	}
	p.wantAsked(5, "five resources")
}

func TestUncacheableAnswersAreNeverReused(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"Cache-Control: no-store", "Cache-Control: private, max-age=60", "Set-Cookie: a=b", "Vary: *"} {
		p := start(t, counted(header))
		if a, b := p.get("/x"), p.get("/x"); a.body == b.body {
			t.Errorf("%s: reused, %s", header, b.cache())
		}
	}
}

func TestPersonalRequestsDoNotFillTheCache(t *testing.T) {
	t.Parallel()
	for _, field := range []string{"Cookie: id=1", "Authorization: Basic eA=="} {
		p := start(t, counted("Cache-Control: max-age=60"))
		if a, b := p.get("/x", field), p.get("/x"); a.body == b.body {
			t.Errorf("%s: its answer went to somebody else", field)
		}
	}
}

// A 304 to such a request can't be kept for it, but what is stored for others stays.
func TestPersonalRequestsDoNotEmptyTheCache(t *testing.T) {
	t.Parallel()
	for _, field := range []string{"Cookie: id=1", "Authorization: Basic eA==", "Cache-Control: no-store"} {
		p := start(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.Header().Set("ETag", `"e"`)
			if r.Header.Get("If-None-Match") == `"e"` {
				w.WriteHeader(http.StatusNotModified)
			}
		})
		p.get("/x")
		if a := p.get("/x", field, "Cache-Control: no-cache"); !strings.Contains(a.cache(), "fwd-status=304") {
			t.Errorf("%s: not validated, %s", field, a.cache())
		}
		if a := p.get("/x"); a.cache() != "optimizer; hit" {
			t.Errorf("%s: the stored response is gone, %s", field, a.cache())
		}
	}
}

func TestVariantsAreKeptApart(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		w.Header().Set("Vary", "Accept-Language, User-Agent, Cookie")
		fmt.Fprint(w, r.Header["Accept-Language"], r.Header["User-Agent"], r.Header["Cookie"])
	})
	requests := [][]string{
		{"Accept-Language: de", "User-Agent: a"}, {"Accept-Language: en", "User-Agent: a"}, {"User-Agent: a"}, {"Accept-Language: de", "User-Agent: b"},
		{"User-Agent: a", "Cookie: x=1;y=2"}, {"User-Agent: a", "Cookie: x=1; y=2"},
	}
	var first []answer
	for _, fields := range requests {
		first = append(first, p.get("/v", fields...))
	}
	p.wantAsked(int64(len(requests)), "first round")
	for i, fields := range requests {
		a := p.get("/v", fields...)
		if a.body != first[i].body || a.cache() != "optimizer; hit" {
			t.Errorf("%v: got %q by %q, want %q", fields, a.body, a.cache(), first[i].body)
		}
	}
	p.do("POST", "/v", "x")
	if a := p.get("/v", requests[0]...); a.cache() == "optimizer; hit" {
		t.Error("a variant survived the invalidation of its resource")
	}
}

func TestConcurrentMissesAskOnce(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "one")
	})
	var wg sync.WaitGroup
	var collapsed atomic.Int64
	for range 20 {
		wg.Go(func() {
			a := p.get("/c")
			if a.body != "one" {
				t.Errorf("body %q", a.body)
			}
			if strings.Contains(a.cache(), "collapsed") {
				collapsed.Add(1)
			}
		})
	}
	eventually(t, "all 20 requests in flight", func() bool { return p.metric(`optimizer_in_flight_requests`) == 20 })
	close(release)
	wg.Wait()
	p.wantAsked(1, "20 requests at once")
	if collapsed.Load() != 19 {
		t.Errorf("%d of 20 say collapsed", collapsed.Load())
	}
}

// Followers of another variant must not get the leader's.
func TestCollapsedMissesRespectVary(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "X-Variant")
		io.WriteString(w, r.Header.Get("X-Variant"))
	})
	var wg sync.WaitGroup
	for i := range 12 {
		variant := fmt.Sprint("v", i%3)
		wg.Go(func() {
			if a := p.get("/c", "X-Variant: "+variant); a.body != variant {
				t.Errorf("asked for %s, got %q (%s)", variant, a.body, a.cache())
			}
		})
	}
	eventually(t, "all requests in flight", func() bool { return p.metric(`optimizer_in_flight_requests`) == 12 })
	close(release)
	wg.Wait()
}

func TestUnshareableAnswersDoNotQueue(t *testing.T) {
	t.Parallel()
	for _, lines := range [][]string{{"Cache-Control: private"}, {"Cache-Control: max-age=60", "Age: 90"}} {
		t.Run(lines[0], func(t *testing.T) {
			t.Parallel()
			var now, peak atomic.Int64
			all := make(chan struct{})
			p := start(t, func(w http.ResponseWriter, r *http.Request) {
				for _, line := range lines {
					name, value, _ := strings.Cut(line, ": ")
					w.Header().Set(name, value)
				}
				if r.URL.RawQuery != "" || now.Add(1) == 1 && peak.CompareAndSwap(0, 1) {
					return // the first one teaches the cache
				}
				if now.Load() == 5 {
					close(all)
				}
				<-all // only if the next four run side by side does any of them end
			})
			p.get("/p")
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() { p.get("/p") })
			}
			wg.Wait()
			p.wantAsked(5, "no answer for others")
		})
	}
}

// The same for those that are too large to be stored.
func TestLargeAnswersDoNotQueue(t *testing.T) {
	t.Parallel()
	for _, chunked := range []bool{false, true} {
		var n atomic.Int64
		all := make(chan struct{})
		p := start(t, func(w http.ResponseWriter, r *http.Request) {
			switch n.Add(1) {
			case 1: // teaches the cache
			case 5:
				close(all)
				fallthrough
			default:
				<-all
			}
			w.Header().Set("Cache-Control", "max-age=60")
			if !chunked {
				w.Header().Set("Content-Length", "200000")
			}
			w.Write(make([]byte, 200_000))
		}, func(c *optimizer.Config) { c.Cache.MaxObjectShare = 0.001 })
		p.get("/l")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { p.get("/l") })
		}
		wg.Wait()
	}
}

func TestFailedLeaderDoesNotFailItsFollowers(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var n atomic.Int64
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			<-release
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "fine")
	})
	var wg sync.WaitGroup
	var good, bad atomic.Int64
	for range 6 {
		wg.Go(func() {
			if a := p.do("GET", "/f", ""); a.status == 200 && a.body == "fine" {
				good.Add(1)
			} else if a.status == http.StatusBadGateway {
				bad.Add(1)
			}
		})
	}
	eventually(t, "all requests in flight", func() bool { return p.metric(`optimizer_in_flight_requests`) == 6 })
	close(release)
	wg.Wait()
	if bad.Load() > 1 || good.Load() < 5 {
		t.Errorf("%d good, %d bad answers", good.Load(), bad.Load())
	}
}

func TestLeaderGoingAwayDoesNotCancelTheFetch(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "kept")
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", p.url+"/l", nil)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if resp, err := p.client.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	<-arrived
	cancel()
	<-gone
	close(release)
	if a := p.get("/l"); a.body != "kept" {
		t.Errorf("got %q", a.body)
	}
	p.wantAsked(1, "leader gone")
}

func TestRevalidationReplacesFields(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		v := n.Add(1)
		w.Header().Set("Cache-Control", "max-age=0")
		w.Header().Set("ETag", `"e"`)
		w.Header().Set("Phasegate-Upstream", fmt.Sprint("birth=", v))
		if r.Header.Get("If-None-Match") == `"e"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("X-Kept", "yes")
		io.WriteString(w, "body")
	})
	p.get("/r")
	a := p.get("/r")
	if a.body != "body" || a.header.Get("Phasegate-Upstream") != "birth=2" || a.header.Get("X-Kept") != "yes" || !strings.Contains(a.cache(), "fwd-status=304") {
		t.Errorf("after a 304: %+v", a)
	}
	if a := p.get("/r", `If-None-Match: "e"`); a.status != http.StatusNotModified || a.body != "" {
		t.Errorf("client's own condition: %d %q", a.status, a.body)
	}
	p.wantAsked(3, "three requests")
}

// A 304 that is itself from a cache says how old its confirmation is.
func TestAgeOfA304IsPassedOn(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"e"`)
		if r.Header.Get("If-None-Match") != "" {
			w.Header().Set("Age", "50")
			w.WriteHeader(http.StatusNotModified)
		}
	})
	p.get("/a")
	if age := p.get("/a", "Cache-Control: no-cache").header.Get("Age"); age != "50" {
		t.Errorf("Age %q, want 50", age)
	}
}

func TestConditionsAndRangesAreAnsweredFromTheCache(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != "" {
			t.Error("a condition of the client's went up, where the whole is wanted")
		}
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("ETag", `"e"`)
		io.WriteString(w, "0123456789")
	})
	if a := p.get("/c", `If-None-Match: "e"`); a.status != http.StatusNotModified {
		t.Errorf("on a miss: %d", a.status)
	}
	for _, tt := range []struct {
		field  string
		status int
		body   string
	}{
		{`If-None-Match: W/"e"`, 304, ""}, {`If-None-Match: "f"`, 200, "0123456789"}, {"Range: bytes=2-4", 206, "234"}, {"Range: bytes=20-", 416, ""}, {"Range: bytes=-1", 206, "9"},
	} {
		if a := p.get("/c", tt.field); a.status != tt.status || a.body != tt.body {
			t.Errorf("%s: %d %q", tt.field, a.status, a.body)
		}
	}
	head := p.do("HEAD", "/c", "")
	if head.status != 200 || head.header.Get("Content-Length") != "10" || head.cache() != "optimizer; hit" {
		t.Errorf("HEAD: %+v", head)
	}
	p.wantAsked(1, "all from one response")
}

func TestHeadAndRangeMissesAreNotStored(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		http.ServeContent(w, r, "x.bin", time.Time{}, strings.NewReader("0123456789"))
	})
	if a := p.do("HEAD", "/m", ""); a.status != 200 || a.header.Get("Content-Length") != "10" {
		t.Errorf("HEAD: %+v", a)
	}
	if a := p.get("/m", "Range: bytes=0-1"); a.status != 206 || a.body != "01" {
		t.Errorf("Range: %+v", a)
	}
	if a := p.get("/m"); a.status != 200 || a.body != "0123456789" {
		t.Errorf("GET: %+v", a)
	}
	p.wantAsked(3, "three misses")
}

func TestStaleWhileRevalidate(t *testing.T) {
	t.Parallel()
	p := start(t, counted("Cache-Control: max-age=1, stale-while-revalidate=60", "Age: 1"))
	first := p.get("/s")
	if a := p.get("/s"); a.body != first.body || !strings.HasPrefix(a.cache(), "optimizer; hit; ttl=") {
		t.Errorf("stale: %q by %q", a.body, a.cache())
	}
	eventually(t, "the new response is served", func() bool { return p.get("/s").body != first.body })
}

// A HEAD may be what finds an answer stale; what is fetched then is the whole,
// by a GET that validates what is stored.
func TestHeadRefreshesByGet(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked []string
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.Method+" "+r.Header.Get("If-None-Match"))
		mu.Unlock()
		w.Header().Set("Cache-Control", "max-age=60, stale-while-revalidate=60")
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Age", "60")
		io.WriteString(w, "whole")
	})
	p.get("/s")
	p.do("HEAD", "/s", "")
	eventually(t, "the stored answer is fresh again", func() bool { return p.do("HEAD", "/s", "").cache() == "optimizer; hit" })
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"GET ", `GET "1"`}; !slices.Equal(asked, want) {
		t.Errorf("the upstream was asked %q, want %q", asked, want)
	}
}

func TestStaleIfErrorAndBreaker(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Cache-Control", "max-age=1, stale-if-error=600"+r.URL.RawQuery)
		w.Header().Set("Age", "1")
		io.WriteString(w, "good")
	}, func(c *optimizer.Config) {
		c.Breaker = upstream.Breaker{MinRequests: 5, OpenFor: time.Hour}
	})
	p.get("/s")
	p.get("/never?,must-revalidate")
	broken.Store(true)
	for range 10 {
		if a := p.get("/s"); a.status != 200 || a.body != "good" || a.cache() != "optimizer; fwd=stale" {
			t.Fatalf("stale-if-error: %d %q %s", a.status, a.body, a.cache())
		}
	}
	for _, target := range []string{"/other", "/never?,must-revalidate"} {
		if a := p.get(target); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") != "3600" || p.asked.Load() >= 12 {
			t.Errorf("breaker, %s: %d, Retry-After %q, upstream asked %d times", target, a.status, a.header.Get("Retry-After"), p.asked.Load())
		}
	}
	if sent := p.metric("optimizer_upstream_requests_total"); int64(sent) != p.asked.Load() {
		t.Errorf("%v requests counted, upstream asked %d times", sent, p.asked.Load())
	}
}

func TestRefreshAheadKeepsHotEntriesFresh(t *testing.T) {
	t.Parallel()
	p := start(t, counted("Cache-Control: max-age=100000", "Age: 95000"))
	p.get("/h") // miss
	p.get("/h") // makes it hot
	p.wantAsked(1, "not hot before")
	if a := p.get("/h"); a.cache() != "optimizer; hit" {
		t.Errorf("a hot entry near its end: %s", a.cache())
	}
	eventually(t, "refreshed", func() bool { return p.asked.Load() == 2 })
}

func TestUnsafeMethodsInvalidate(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Location", "/b")
			w.WriteHeader(len(body)) // the body says the status by its length
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
	})
	hit := func(target string) bool { return p.get(target).cache() == "optimizer; hit" }
	for _, target := range []string{"/a", "/b", "/c"} {
		hit(target)
	}
	p.do("POST", "/a", strings.Repeat("x", 404))
	if !hit("/a") {
		t.Error("a failed POST invalidates")
	}
	p.do("POST", "/a", strings.Repeat("x", 201))
	if hit("/a") || hit("/b") || !hit("/c") {
		t.Error("want /a and its Location /b invalidated, /c not")
	}
}

func TestAFetchFromBeforeAnInvalidationIsNotStored(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	var n atomic.Int64
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		v := n.Add(1)
		w.Header().Set("Cache-Control", "max-age=60")
		if v == 1 {
			close(arrived)
			<-release
		}
		fmt.Fprint(w, "v", v)
	})
	old := make(chan answer)
	go func() { old <- p.get("/i") }()
	<-arrived
	p.invalidate("key=/i")
	if a := p.get("/i"); a.body != "v2" {
		t.Errorf("a request after the invalidation got %q", a.body)
	}
	close(release)
	if a := <-old; a.body != "v1" {
		t.Errorf("the request from before got %q", a.body)
	}
	if a := p.get("/i"); a.body != "v2" || a.cache() != "optimizer; hit" {
		t.Errorf("the old response was stored: %q by %s", a.body, a.cache())
	}
}
