package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// The whole way over real sockets: two arms, reads and writes, all verified,
// and a report that agrees with what the sink saw.
func TestRun(t *testing.T) {
	t.Parallel()
	old, fresh := oneArm(t, serve(t, &origin{})), oneArm(t, serve(t, &origin{}))
	old.Name, old.Share, fresh.Share = "old", 0.75, 0.25
	load := smallLoad()
	load.Rate = flat(1000)
	load.Writes = scenario.Writes{Share: 0.1, Method: "POST", Path: "/orders"}
	sink := &memory{}
	var begun time.Time
	g := generator(t, Config{
		Arms: []Arm{old, fresh}, Load: load, Length: 300 * ms, Warmup: 100 * ms, Seed: 4, Sink: sink,
		Begin: func(now time.Time) { begun = now },
	})
	report, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if report.Offered != 300 || report.Sent != 300 || report.Completed != 300 || report.Unfinished != 0 || report.Interrupted {
		t.Errorf("%+v", report)
	}
	if !begun.Equal(report.Started) {
		t.Errorf("begun at %v, started at %v", begun, report.Started)
	}
	if got := sink.classes(); got != [timeline.Classes]int{timeline.OK: 300} {
		t.Errorf("classes %v: %v", got, report.Arms)
	}
	var want [2]ArmReport
	for i := range uint64(300) {
		r, _ := g.At(i)
		a := &want[r.Arm]
		a.Offered++
		if a.Methods == nil {
			a.Methods = map[string]uint64{}
		}
		a.Methods[r.Method]++
		if r.Method == "GET" {
			a.All.Cacheable++
			if r.Due >= 100*ms {
				a.Steady.Cacheable++
			}
		}
	}
	for i, a := range report.Arms {
		w := want[i]
		if a.Offered != w.Offered || a.Sent != w.Offered || a.Proven != w.Offered || a.Unproven != 0 || len(a.Failures) > 0 {
			t.Errorf("arm %s: %+v", a.Name, a)
		}
		if a.Methods["GET"] != w.Methods["GET"] || a.Methods["POST"] != w.Methods["POST"] || a.Methods["POST"] == 0 {
			t.Errorf("arm %s: methods %v, want %v", a.Name, a.Methods, w.Methods)
		}
		if a.All.Cacheable != w.All.Cacheable || a.Steady.Cacheable != w.Steady.Cacheable || a.All.First > 50 || a.All.First <= a.Steady.First {
			t.Errorf("arm %s: repetition %+v and %+v", a.Name, a.All, a.Steady)
		}
		if a.Connections == 0 || a.Connections > 16 {
			t.Errorf("arm %s: %d connections", a.Name, a.Connections)
		}
	}
	for i, o := range sink.byDue() {
		if o.Latency < o.Service || o.Service <= 0 || !o.Proven || !o.Blocking {
			t.Fatalf("outcome %d is %+v", i, o)
		}
	}
	if report.Lag.Requests == 0 || report.SteadyLag.Requests >= report.Lag.Requests || report.Lag.Max < report.Lag.P50 {
		t.Errorf("lag %+v, steady %+v", report.Lag, report.SteadyLag)
	}
	if soFar := g.SteadyLag(); soFar != report.SteadyLag {
		t.Errorf("lag so far %+v, at the end %+v", soFar, report.SteadyLag)
	}
	if _, err := g.Run(t.Context()); !errors.Is(err, errRan) {
		t.Errorf("a second run: %v", err)
	}
}

// A replayed log arrives as it was logged, whatever the number of connections.
func TestRunReplaysTheLog(t *testing.T) {
	t.Parallel()
	l := logOf(t, "05 GET /a?b=%20c 200 1", "05 HEAD /a 200 0", "05 POST /form 200 1", "06 DELETE /a 200 1", "06 OPTIONS /a 200 0", `06 GET /a\"b 404 1`)
	var mu sync.Mutex
	var got []string
	o := &origin{}
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		got = append(got, fmt.Sprintf("%s %s %d %v", r.Method, r.RequestURI, len(body), r.Header["Content-Length"]))
		mu.Unlock()
		o.ServeHTTP(w, r)
	}))
	arm := oneArm(t, url)
	arm.Connections = 1
	load := scenario.Load{Rate: flat(1000), Verify: true}
	g := generator(t, Config{Arms: []Arm{arm}, Load: load, Recording: l, Catalog: l.Catalog(), Length: Length(l, load, 0), Sink: &memory{}})
	report, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"GET /a?b=%20c 0 []", "HEAD /a 0 []", "POST /form 0 [0]", "DELETE /a 0 []", "OPTIONS /a 0 []", `GET /a"b 0 []`}
	if !slices.Equal(got, want) {
		t.Errorf("the server saw %q, want %q", got, want)
	}
	if a := report.Arms[0]; len(a.Failures) > 0 || a.All != (Repetition{Cacheable: 3, First: 3}) {
		t.Errorf("%+v", a)
	}
}

// Systems with a defect each, and what the report says of it.
func TestRunFindsDefects(t *testing.T) {
	t.Parallel()
	// cache answers every target's first answer for ever, and passes writes on.
	cache := func(o http.Handler) http.Handler {
		var mu sync.Mutex
		held := map[string]*httptest.ResponseRecorder{}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != "GET" {
				o.ServeHTTP(w, r)
				return
			}
			mu.Lock()
			answer := held[r.RequestURI]
			if answer == nil {
				answer = httptest.NewRecorder()
				o.ServeHTTP(answer, r)
				held[r.RequestURI] = answer
			}
			mu.Unlock()
			for name, values := range answer.Header() {
				w.Header()[name] = values
			}
			w.Header().Set("Cache-Status", "defect; hit")
			_, _ = w.Write(answer.Body.Bytes())
		})
	}
	expired := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := []byte("x")
		d := wire.Description{Key: r.RequestURI, Birth: time.Now().Add(-time.Hour), Status: 200, Fresh: time.Minute}
		w.Header().Set(wire.Header, d.Seal(body))
		_, _ = w.Write(body)
	})
	for _, tt := range []struct {
		why    string
		system http.Handler
		writes scenario.Writes
		kind   string // "" for none
		says   string
	}{
		{"none", &origin{}, scenario.Writes{}, "", ""},
		{"an honest cache", cache(&origin{}), scenario.Writes{}, "", ""},
		{"a write doesn't invalidate", cache(&origin{}), scenario.Writes{Share: 0.3, Method: "PUT", Path: "/items/{key}"}, "stale", "though a write that had ended"},
		{"an expired answer", expired, scenario.Writes{}, "stale", "1m0s of freshness"},
		{"always the same answer", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.RequestURI = "/items/k1"
			(&origin{}).ServeHTTP(w, r)
		}), scenario.Writes{}, "wrong", `the answer is for "/items/k1"`},
		{"the description is stripped", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }), scenario.Writes{}, "unproven", "didn't come from the mock upstream"},
		{"not found", http.NotFoundHandler(), scenario.Writes{}, "status", "status 404"},
		{"overload", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }), scenario.Writes{}, "5xx", "status 503"},
		{"crashes", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), scenario.Writes{}, "transport", "before any byte"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			load := smallLoad()
			load.Rate, load.Keys.Count, load.Writes = flat(1000), 3, tt.writes
			sink := &memory{}
			g := generator(t, Config{Arms: []Arm{oneArm(t, serve(t, tt.system))}, Load: load, Length: 200 * ms, Sink: sink})
			report, err := g.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			failures := report.Arms[0].Failures
			if tt.kind == "" {
				if len(failures) > 0 {
					t.Errorf("failures: %v", failures)
				}
				return
			}
			if len(failures) != 1 || failures[0].Kind != tt.kind || len(failures[0].Examples) != keepExamples || !strings.Contains(failures[0].Examples[0], tt.says) {
				t.Errorf("failures %v, want %s with %q", failures, tt.kind, tt.says)
			}
			bad := 0
			for _, o := range sink.byDue() {
				if o.Class != timeline.OK || o.Stale {
					bad++
				}
			}
			if uint64(bad) != failures[0].Count {
				t.Errorf("the sink saw %d, the report %d", bad, failures[0].Count)
			}
		})
	}
}

func TestRunWithoutServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // the port is free now, and refuses
	sink := &memory{}
	g := generator(t, Config{Arms: []Arm{oneArm(t, "http://"+l.Addr().String())}, Load: smallLoad(), Length: 50 * ms, Sink: sink})
	report, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := sink.classes(); got != [timeline.Classes]int{timeline.Transport: 10} || report.Sent != 0 {
		t.Errorf("classes %v, %d sent", got, report.Sent)
	}
	for _, o := range sink.byDue() {
		if o.Latency < 5*time.Second { // the load's timeout
			t.Errorf("refused after %s, and taken for fast", o.Latency)
		}
	}
	if said := fmt.Sprint(report.Arms[0].Failures); !strings.Contains(said, "connection refused") {
		t.Errorf("the report says %s", said)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(&origin{})
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it has its say about refused handshakes
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	for _, tt := range []struct {
		why  string
		tls  *tls.Config
		want timeline.Class
	}{
		{"a certificate that is trusted", &tls.Config{RootCAs: roots}, timeline.OK},
		{"one that isn't", nil, timeline.Transport},
	} {
		sink := &memory{}
		g := generator(t, Config{Arms: []Arm{oneArm(t, s.URL)}, Load: smallLoad(), Length: 50 * ms, Sink: sink, TLS: tt.tls})
		if _, err := g.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := sink.classes()[tt.want]; got != 10 {
			t.Errorf("%s: %v", tt.why, sink.classes())
		}
	}
}

func TestPrewarm(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := map[string]int{}
	var order []string
	o := &origin{}
	fail := 0 // of every key above
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.RequestURI]++
		order = append(order, r.RequestURI)
		mu.Unlock()
		var k int
		_, _ = fmt.Sscanf(r.RequestURI, "/items/k%d", &k)
		if fail > 0 && k > fail {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		o.ServeHTTP(w, r)
	}))
	config := Config{Arms: []Arm{oneArm(t, url)}, Load: smallLoad(), Length: 100 * ms}
	var steps []int
	g := generator(t, config)
	err := g.Prewarm(t.Context(), 0, scenario.Prewarm{Top: 40, Concurrency: 4}, func(done, total int) {
		if total != 40 {
			t.Errorf("total %d", total)
		}
		steps = append(steps, done)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(asked) != 40 || len(order) != 40 || len(steps) != 40 || !slices.IsSorted(steps) {
		t.Errorf("%d targets in %d requests, progress %v", len(asked), len(order), steps)
	}
	report, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// What was prewarmed is known: only the ten others can be first.
	if a := report.Arms[0]; a.All.First > 10 || a.Prewarmed != 40 || a.PrewarmFailed != 0 {
		t.Errorf("%+v", a)
	}

	order = nil // which several clients keep only as far as they overtake each other
	g = generator(t, config)
	if err := g.Prewarm(t.Context(), 0, scenario.Prewarm{Top: 40, Concurrency: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(order, g.Popular(40)) {
		t.Errorf("asked for %v", order)
	}

	fail = 38 // two of forty: tolerated, counted
	g = generator(t, config)
	if err := g.Prewarm(t.Context(), 0, scenario.Prewarm{Top: 40, Concurrency: 4}, nil); err != nil {
		t.Errorf("2 of 40 failed: %v", err)
	}
	if got := g.arms[0].report(); got.PrewarmFailed != 2 || !slices.Equal(got.PrewarmFailures, []PrewarmFailure{{Kind: "5xx", Status: 503, Count: 2}}) {
		t.Errorf("%+v", got)
	}
	fail = 1
	err = g.Prewarm(t.Context(), 0, scenario.Prewarm{Top: 40}, nil)
	if err == nil || !strings.Contains(err.Error(), "5 of the first 6 answers failed, of 40 targets") || !strings.Contains(err.Error(), "status 503") {
		t.Errorf("nearly all failed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Prewarm(ctx, 0, scenario.Prewarm{Top: 40}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Why targets weren't warm is counted by how requests fail, and by status.
func TestPrewarmSaysWhy(t *testing.T) {
	t.Parallel()
	o := &origin{}
	var mu sync.Mutex
	asked := 0
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n := asked
		asked++
		mu.Unlock()
		switch {
		case n < 1:
			http.Error(w, "gone", http.StatusNotFound)
		case n < 3:
			http.Error(w, "no", http.StatusServiceUnavailable)
		case n < 4:
			http.Error(w, "no", http.StatusBadGateway)
		case n < 5:
			hijacked, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			fmt.Fprint(hijacked, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
			hijacked.Close()
		default:
			o.ServeHTTP(w, r)
		}
	}))
	g := generator(t, Config{Arms: []Arm{oneArm(t, url)}, Load: smallLoad(), Length: 100 * ms})
	if err := g.Prewarm(t.Context(), 0, scenario.Prewarm{Top: 50, Concurrency: 1}, nil); err != nil {
		t.Fatal(err)
	}
	want := []PrewarmFailure{{"5xx", 503, 2}, {"5xx", 502, 1}, {"status", 404, 1}, {"transport", 0, 1}}
	if got := g.arms[0].report(); got.PrewarmFailed != 5 || !slices.Equal(got.PrewarmFailures, want) {
		t.Errorf("%d, %+v; want %+v", got.PrewarmFailed, got.PrewarmFailures, want)
	}
}

func TestSequential(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var order []string
	var conns atomic.Int32
	o := &origin{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		order = append(order, r.RequestURI)
		n := len(order)
		mu.Unlock()
		if n == 20 {
			w.WriteHeader(500)
			return
		}
		o.ServeHTTP(w, r)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	load := smallLoad()
	load.Writes = scenario.Writes{Share: 0.5, Method: "POST", Path: "/orders"}
	g := generator(t, Config{Arms: []Arm{oneArm(t, s.URL)}, Load: load, Length: time.Second})

	turns, err := g.Sequential(t.Context(), 0, 5, g.Popular(1)...)
	if err != nil || len(turns) != 5 || slices.ContainsFunc(turns, func(t Turn) bool { return t.Service <= 0 || t.Whole < t.Service }) {
		t.Errorf("hits: %v, %v", turns, err)
	}
	if want := slices.Repeat([]string{"/items/k1"}, 6); !slices.Equal(order, want) || conns.Load() != 1 {
		t.Errorf("asked for %v on %d connections, want %v on 1", order, conns.Load(), want)
	}

	order = nil
	if turns, err = g.Sequential(t.Context(), 0, 10); err != nil || len(turns) != 10 {
		t.Errorf("direct: %v, %v", turns, err)
	}
	var want []string
	for i := uint64(0); len(want) < 10; i++ {
		if r, _ := g.At(i); r.Method == "GET" {
			want = append(want, r.Target)
		}
	}
	if !slices.Equal(order, want) {
		t.Errorf("asked for %v, the schedule's reads are %v", order, want)
	}

	turns, err = g.Sequential(t.Context(), 0, 50)
	if err == nil || !strings.Contains(err.Error(), "request 10 of 50") || !strings.Contains(err.Error(), "status 500") || len(turns) != 9 {
		t.Errorf("after a failure: %d turns, %v", len(turns), err)
	}
	if _, err := g.Sequential(t.Context(), 0, 1, "no path"); err == nil {
		t.Error("a target without a slash is accepted")
	}
	l := logOf(t, "00 POST /a 200 1")
	g = generator(t, Config{Arms: []Arm{oneArm(t, s.URL)}, Load: scenario.Load{Rate: flat(1)}, Recording: l, Length: time.Second})
	if _, err := g.Sequential(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), "no read among") {
		t.Errorf("a log without reads: %v", err)
	}
}

// Close ends whatever runs, and nothing starts after it.
// A server that isn't before our upstream owes no proof; one that is does, in
// every answer.
func TestRecognize(t *testing.T) {
	t.Parallel()
	foreign := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	stripping := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == wire.ProbePath {
			(&origin{}).ServeHTTP(w, r)
			return
		}
		foreign(w, r)
	})
	for _, tt := range []struct {
		why     string
		handler http.Handler
		proven  bool
		class   timeline.Class
	}{
		{"our upstream", &origin{}, true, timeline.OK},
		{"somebody else's server", foreign, false, timeline.OK},
		{"our upstream behind something that drops the proof", stripping, true, timeline.Unproven},
	} {
		sink := &memory{}
		g := generator(t, Config{Arms: []Arm{oneArm(t, serve(t, tt.handler))}, Load: smallLoad(), Length: 100 * time.Millisecond, Sink: sink})
		proven, err := g.Recognize(t.Context(), 0)
		if err != nil || proven != tt.proven {
			t.Errorf("%s: proven %t, %v", tt.why, proven, err)
		}
		if _, err := g.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if counts := sink.classes(); counts[tt.class] == 0 || counts[tt.class] != len(sink.byDue()) {
			t.Errorf("%s: classes %v, want all %v", tt.why, counts, tt.class)
		}
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	defer close(hang)
	url := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	load := smallLoad()
	load.Timeout = time.Hour
	g := generator(t, Config{Arms: []Arm{oneArm(t, url)}, Load: load, Length: time.Hour})
	began := make(chan struct{})
	g.begin = func(time.Time) { close(began) }
	ended := make(chan error)
	go func() {
		_, err := g.Run(t.Context())
		ended <- err
	}()
	<-began
	if err := g.Prewarm(t.Context(), 0, scenario.Prewarm{Top: 1}, nil); !errors.Is(err, errBusy) {
		t.Errorf("two stages at once: %v", err)
	}
	go g.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
	g.Close()
	if _, err := g.Sequential(t.Context(), 0, 1); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why  string
		edit func(*Config)
		want string
	}{
		{"no arms", func(c *Config) { c.Arms = nil }, "no arm"},
		{"shares that don't add up", func(c *Config) { c.Arms[0].Share = 0.4 }, "add up to 0.4"},
		{"no connections", func(c *Config) { c.Arms[0].Connections = 0 }, "arm new: 0 connections"},
		{"no URL", func(c *Config) { c.Arms[0].URL = nil }, "no URL"},
		{"a URL of another scheme", func(c *Config) { c.Arms[0] = oneArm(t, "ftp://h") }, "allowed is http://HOST"},
		{"a URL with a path: whose would the target be?", func(c *Config) { c.Arms[0] = oneArm(t, "http://h/base") }, "without path"},
		{"no length", func(c *Config) { c.Length = 0 }, "a schedule of 0s"},
		{"a protocol that nobody speaks", func(c *Config) { c.Load.Protocols = []scenario.ProtocolShare{{Protocol: "h3", Share: 1}} }, "allowed are http/1.1, h2 and h2c"},
		{"h2 without TLS", func(c *Config) { c.Load.Protocols = []scenario.ProtocolShare{{Protocol: scenario.H2, Share: 1}} }, "allowed is https://HOST[:PORT]"},
		{"h2c over TLS", func(c *Config) {
			c.Load.Protocols = []scenario.ProtocolShare{{Protocol: scenario.H2C, Share: 1}}
			c.Arms[0].URL = &url.URL{Scheme: "https", Host: "h.example"}
		}, "allowed is http://HOST[:PORT]"},
		{"protocols that don't make a whole", func(c *Config) { c.Load.Protocols = []scenario.ProtocolShare{{Protocol: scenario.H2C, Share: .5}} }, "the shares add up to 0.5"},
		{"fewer connections than protocols", func(c *Config) {
			c.Load.Protocols = []scenario.ProtocolShare{{Protocol: scenario.HTTP1, Share: .5}, {Protocol: scenario.H2C, Share: .5}}
			c.Arms[0].Connections = 1
		}, "one for every protocol"},
		{"a negative timeout", func(c *Config) { c.Load.Timeout = -1 }, "timeout"},
		{"no rate", func(c *Config) { c.Load.Rate = nil }, "rate: none is given"},
		{"a log that wasn't read", func(c *Config) { c.Load.Keys.AccessLog = "x.log" }, "x.log isn't loaded"},
		{"the pace of no log", func(c *Config) { c.Load.Keys.PaceLog = true }, "the pace of a recording"},
		{"a speed that isn't one", func(c *Config) {
			c.Recording, c.Load.Keys = logOf(t, "00 GET /a 200 1"), scenario.Keys{PaceLog: true, Speed: math.NaN()}
		}, "a speed of NaN"},
		{"all faults are told at once", func(c *Config) { c.Length, c.Arms[0].Connections = 0, 0 }, "a schedule of 0s; allowed is more than 0\narm new: 0 connections"},
	} {
		config := Config{Arms: []Arm{oneArm(t, "http://h.example")}, Load: smallLoad(), Length: time.Second}
		tt.edit(&config)
		if _, err := New(config); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.why, err, tt.want)
		}
	}
}
