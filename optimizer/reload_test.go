package optimizer_test

import (
	"context"
	"errors"
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
)

// Reloads in a row under load: each of them is in force when it returns, and no
// request fails.
func TestReloadUnderLoadDropsNothing(t *testing.T) {
	t.Parallel()
	var next atomic.Pointer[optimizer.Config]
	p := start(t, counted(), func(c *optimizer.Config) {
		c.Source = func() (optimizer.Config, error) {
			if next.Load() == nil {
				return optimizer.Config{}, errors.New("o.yaml:3:1: nonsense")
			}
			return *next.Load(), nil
		}
		next.Store(new(*c))
	})
	var clients sync.WaitGroup
	var stop atomic.Bool
	for i := range 4 {
		clients.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if a, err := p.try("GET", fmt.Sprintf("/%d/%d", i, n%50), ""); err != nil || a.status != 200 {
					t.Errorf("status %d, %v", a.status, err)
					return
				}
			}
		})
	}
	for i := range 50 {
		c := *next.Load()
		c.Cache.DefaultTTL = new(time.Duration(i+1) * time.Minute)
		next.Store(&c)
		done, err := p.o.Reload()
		if err != nil || !slices.Equal(done.Changed, []string{"cache.default_ttl"}) || len(done.NeedsRestart) > 0 {
			t.Fatalf("reload %d: %+v, %v", i, done, err)
		}
	}
	stop.Store(true)
	clients.Wait()

	reload := func() (int, string) {
		resp, err := p.client.Post(p.admin+"/-/reload", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, strings.TrimSpace(string(body))
	}
	c := *next.Load()
	c.Cache.MaxMemoryMB, c.Guard.MaxURILength = 200, 64
	next.Store(&c)
	for _, want := range []string{
		`{"changed":["guard.max_uri_length"],"needs_restart":["cache.max_memory_mb"]}`,
		`{"changed":[],"needs_restart":["cache.max_memory_mb"]}`, // it isn't forgotten
	} {
		if status, body := reload(); status != 200 || body != want {
			t.Errorf("%d %s, want %s", status, body, want)
		}
	}
	long := "/" + strings.Repeat("x", 100)
	if a := p.do("GET", long, ""); a.status != http.StatusRequestURITooLong {
		t.Errorf("the new limit isn't in force: %d", a.status)
	}
	bad := c
	bad.Cache.Cookies, bad.Guard.MaxURILength = "all", 0
	next.Store(&bad)
	if status, body := reload(); status != 422 || !strings.Contains(body, "cache.cookies") {
		t.Errorf("an invalid configuration: %d %s", status, body)
	}
	next.Store(nil)
	if status, body := reload(); status != 422 || !strings.Contains(body, "o.yaml:3:1: nonsense") {
		t.Errorf("a file that can't be read: %d %s", status, body)
	}
	if a := p.do("GET", long, ""); a.status != http.StatusRequestURITooLong {
		t.Errorf("a bad configuration changed something: %d", a.status)
	}
}

// Whoever was to read the access log has stopped: requests wait for him, but neither a
// reload nor the end does for long.
func TestAnAccessLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	defer r.Close()
	var next optimizer.Config
	api := httptest.NewServer(counted("Cache-Control: max-age=600"))
	defer api.Close()
	cfg := optimizer.Config{Listen: "127.0.0.1:0", AccessLog: w, Source: func() (optimizer.Config, error) { return next, nil }}
	cfg.Upstream.URL, cfg.Telemetry.AccessLog = api.URL, "json"
	next = cfg
	next.Telemetry.AccessLog = "combined"
	o, err := optimizer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var answered atomic.Int64
	var clients sync.WaitGroup
	transport := &http.Transport{}
	for range 16 {
		clients.Go(func() {
			for {
				resp, err := (&http.Client{Transport: transport}).Get(o.URL() + "/?" + strings.Repeat("x", 2000))
				if err != nil {
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				answered.Add(1)
			}
		})
	}
	before := int64(-1)
	eventually(t, "no more answers", func() bool {
		time.Sleep(100 * time.Millisecond)
		n := answered.Load()
		defer func() { before = n }()
		return n == before && n > 400
	})
	ended := make(chan error, 1)
	go func() {
		_, err := o.Reload()
		if err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		ended <- o.Stop(ctx)
	}()
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "write the access log") {
			t.Errorf("stopped with %v, must tell of the lines that are left", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("neither reloaded nor stopped")
	}
	clients.Wait()
	transport.CloseIdleConnections()
}

func ExampleOptimizer_RoundTripper() {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, "hello from ", r.URL.Path)
	}))
	defer api.Close()
	cfg := optimizer.Config{}
	cfg.Upstream.URL = api.URL + "/v1"
	o, err := optimizer.New(cfg)
	if err != nil {
		panic(err)
	}
	client := &http.Client{Transport: o.RoundTripper()}
	for range 2 {
		resp, err := client.Get(api.URL + "/v1/greeting")
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Printf("%s, %s\n", body, resp.Header.Get("Cache-Status"))
	}
	_, err = client.Get("http://elsewhere.test/")
	fmt.Println(strings.Contains(err.Error(), "answers for "+api.URL+"/v1 only"))
	if err := o.Stop(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// hello from /v1/greeting, optimizer; fwd=miss; stored
	// hello from /v1/greeting, optimizer; hit
	// true
}

// Health checks begin without Start, and the upstream isn't told of a client from outside.
func TestRoundTripperDoesAllThatStartDoes(t *testing.T) {
	t.Parallel()
	seen, probed := make(chan *http.Request, 1), make(chan struct{}, 1)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			seen <- r
			return
		}
		select {
		case probed <- struct{}{}:
		default:
		}
	}))
	defer api.Close()
	cfg := optimizer.Config{}
	cfg.Upstream.URL, cfg.Upstream.Health.Path = api.URL, "/health"
	o, err := optimizer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: o.RoundTripper()}).Get(api.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if r := <-seen; r.Header["X-Forwarded-For"] != nil || r.Header.Get("X-Forwarded-Proto") != "http" || r.Header.Get("Via") != "1.1 optimizer" {
		t.Errorf("asked with %v", r.Header)
	}
	<-probed
	w := httptest.NewRecorder()
	if o.Admin().ServeHTTP(w, httptest.NewRequest("POST", "/invalidate?all", nil)); w.Code != 200 {
		t.Errorf("invalidate: %d %s", w.Code, w.Body)
	}
	if o.Addr() != nil || o.AdminAddr() != nil || o.URL() != "" {
		t.Errorf("before Start it listens on %v, %v, %q", o.Addr(), o.AdminAddr(), o.URL())
	}
	if err := o.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := o.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "make another one") {
		t.Errorf("start after stop: %v", err)
	}
}
