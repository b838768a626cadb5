package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"phasegate/harness/recording"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// pipes is a listener whose connections are in memory, for a server and the
// generator in one synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serveInBubble makes g dial a server in the bubble that speaks HTTP/1.1 and
// HTTP/2 in clear text, with so many streams per connection.
func serveInBubble(t testing.TB, g *Generator, streams int, h http.Handler) *http.Server {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: h, Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams}}
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	go func() { _ = s.Serve(p) }()
	g.newEngine = newGoroutines
	g.dial = p.dial
	return s
}

func over(p scenario.Protocol) []scenario.ProtocolShare {
	return []scenario.ProtocolShare{{Protocol: p, Share: 1}}
}

// stall is a server that takes a fixed time for a request, and answers nothing
// at all from one moment to another.
type stall struct {
	service, from, to time.Duration
}

// end is when an answer ends whose request is begun at a time.
func (s stall) end(begun time.Duration) time.Duration {
	if end := begun + s.service; end < s.from || end >= s.to {
		return end
	}
	return s.to
}

// truth are the latencies of requests due at regular times to so many places
// of service, first come, first served: from the schedule and the stall alone.
func (s stall) truth(n int, every time.Duration, places int) []time.Duration {
	free := make([]time.Duration, places)
	var latencies []time.Duration
	for i := range n {
		due := time.Duration(i) * every
		// All take equally long, so the place that was taken first is free first.
		place := &free[i%places]
		*place = s.end(max(due, *place))
		latencies = append(latencies, *place-due)
	}
	return latencies
}

// A server that stalls for 2 of 8 seconds, at 500/s: the quantiles that are
// reported are those of the schedule, with few connections and with many, over
// either protocol. A generator that counts from the send reports a p99 of a few
// milliseconds for the rows with 10 connections.
func TestStall(t *testing.T) {
	t.Parallel()
	const length = 8 * time.Second
	server := stall{service: 2 * ms, from: 3 * time.Second, to: 5 * time.Second}
	for _, tt := range []struct {
		why                  string
		rate                 int
		protocol             scenario.Protocol
		connections, streams int
	}{
		{"few connections: those that wait in line while ten are stalled count from their due time, and while the line is worked off", 500, scenario.HTTP1, 10, 0},
		{"a connection for every request that the stall holds", 500, scenario.HTTP1, 1000, 0},
		{"ten connections with a hundred streams each hold them all", 500, scenario.H2C, 10, 100},
		{"a thousand connections, of which a few are opened", 500, scenario.H2C, 1000, 100},
		{"ten streams in all: a line as with ten connections", 100, scenario.H2C, 1, 10},
		{"the peer allows fewer streams than the scenario", 100, scenario.H2C, 10, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			recorder, err := timeline.New(timeline.Config{Systems: []string{"new"}})
			if err != nil {
				t.Fatal(err)
			}
			load := smallLoad()
			load.Rate, load.Protocols = flat(float64(tt.rate)), over(tt.protocol)
			arm := oneArm(t, "http://h.example")
			arm.Connections = tt.connections
			g := generator(t, Config{Arms: []Arm{arm}, Load: load, Length: length, Sink: recorder})
			var base time.Time
			g.begin = func(now time.Time) { base = now }
			origin := &origin{}
			s := serveInBubble(t, g, max(tt.streams, 1), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				now := time.Since(base)
				time.Sleep(server.end(now) - now)
				origin.ServeHTTP(w, r)
			}))
			report, err := g.Run(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", tt.why, err)
			}
			w := recorder.Window(0, 0, length)
			want := server.truth(tt.rate*int(length/time.Second), time.Second/time.Duration(tt.rate), tt.connections*max(tt.streams, 1))
			slices.Sort(want)
			for _, q := range []float64{0.5, 0.9, 0.99, 1} {
				got, ok := timeline.Quantile(w.Latency, q)
				truth := want[int(math.Ceil(q*float64(len(want))))-1]
				if off := math.Abs(float64(got-truth)) / float64(truth); !ok || off > 0.002 {
					t.Errorf("%s: p%v is %v, in truth %v (%.2f %% off)", tt.why, 100*q, got, truth, 100*off)
				}
			}
			if p99 := want[len(want)*99/100-1]; p99 < 1900*ms {
				t.Errorf("%s: the truth itself, %v, knows no stall", tt.why, p99)
			}
			a := report.Arms[0]
			if a.Completed != uint64(len(want)) || a.Proven != a.Completed || len(a.Failures) > 0 {
				t.Errorf("%s: %+v", tt.why, a)
			}
			if a.Connections > uint64(tt.connections) {
				t.Errorf("%s: %d connections", tt.why, a.Connections)
			}
			if spoken := fmt.Sprintf("[{%s %d %d}]", tt.protocol, len(want), a.Connections); fmt.Sprint(a.Protocols) != spoken {
				t.Errorf("%s: spoken was %v, want %s", tt.why, a.Protocols, spoken)
			}
			service, _ := timeline.Quantile(w.Service, 0.99)
			t.Logf("%s: p99 %v, of service time %v, %d connections", tt.why, want[len(want)*99/100-1], service, a.Connections)
			s.Close()
			g.Close()
			synctest.Wait()
		})
	}
}

// The same over sockets, by the engine that users have: on Linux the poller, where
// HTTP/1.1 is all that is spoken. The server tells each request by its target, and
// notes when it began to answer: a slow machine moves the truth, too. HTTP/2 is
// read by Go's scheduler, which takes its time where a thousand answers come at once
// and processors are few: its exact figures are those of [TestStall].
func TestStallOverSockets(t *testing.T) {
	t.Parallel()
	const length = 8 * time.Second
	if engine := fmt.Sprintf("%T", newEngine()); runtime.GOOS == "linux" && engine != "*load.poller" {
		t.Errorf("the engine is %s", engine)
	}
	server := stall{service: 2 * ms, from: 3 * time.Second, to: 5 * time.Second}
	for _, tt := range []struct {
		why               string
		protocol          scenario.Protocol
		rate, connections int
	}{
		{"few connections", scenario.HTTP1, 100, 10},
		{"many connections", scenario.HTTP1, 100, 1000},
		{"HTTP/2 over TLS", scenario.H2, 50, 10},
		{"HTTP/2 in clear text", scenario.H2C, 50, 10},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			n := tt.rate * int(length/time.Second)
			due := func(i int) time.Duration { return time.Duration(i) * time.Second / time.Duration(tt.rate) }
			var base atomic.Pointer[time.Time]
			truth := make([]time.Duration, n) // latencies, as the server sees them before it answers
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				begun := time.Since(*base.Load())
				i, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
				if err != nil || i >= n {
					t.Errorf("asked for %s", r.URL)
					return
				}
				time.Sleep(server.end(begun) - begun)
				truth[i] = time.Since(*base.Load()) - due(i)
				w.Header().Set("Content-Length", "2")
				fmt.Fprint(w, "ok")
			})
			recorder, err := timeline.New(timeline.Config{Systems: []string{"new"}})
			if err != nil {
				t.Fatal(err)
			}
			config := Config{Sink: recorder}
			var raw string
			if tt.protocol == scenario.H2 {
				raw, config.TLS = secure(t, handler, "h2")
			} else {
				raw = serveBoth(t, handler)
			}
			var targets strings.Builder
			for i := range n {
				fmt.Fprintf(&targets, "GET %s/%d\n", raw, i)
			}
			config.Recording = recorded(t, recording.ReadTargets, targets.String())
			config.Load = scenario.Load{Rate: flat(float64(tt.rate)), Timeout: 20 * time.Second, Protocols: over(tt.protocol)}
			config.Length = length
			arm := oneArm(t, raw)
			arm.Connections = tt.connections
			config.Arms = []Arm{arm}
			g := generator(t, config)
			g.begin = func(now time.Time) { base.Store(&now) }
			report, err := g.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if a := report.Arms[0]; a.Completed != uint64(n) || len(a.Failures) > 0 || a.Connections > uint64(tt.connections) {
				t.Fatalf("%+v", a)
			}
			slices.Sort(truth)
			p99 := n*99/100 - 1
			w := recorder.Window(0, 0, length)
			got, _ := timeline.Quantile(w.Latency, 0.99)
			service, _ := timeline.Quantile(w.Service, 0.99)
			t.Logf("p99 %v, in truth %v; of service time %v, %d connections", got, truth[p99], service, report.Arms[0].Connections)
			// A busy machine may be late to read an answer, and to have been early is the
			// lie in question: TestStall holds the other side to 2 % as well, where time is simulated.
			if float64(got) < 0.98*float64(truth[p99]) || float64(got) > 1.25*float64(truth[p99]) || truth[p99] < 1900*ms {
				t.Errorf("p99 is %v, in truth %v", got, truth[p99])
			}
		})
	}
}

// An answer without an end is a timeout while bytes keep coming, and keeps no other
// request from being answered. The protocols wait for the timeout together.
func TestAnswerWithoutEnd(t *testing.T) {
	t.Parallel()
	const others = 10
	var runs sync.WaitGroup
	defer runs.Wait()
	for _, tt := range []struct {
		why      string
		engine   func() engine
		protocol scenario.Protocol
	}{
		{"HTTP/1.1", newEngine, scenario.HTTP1},
		{"HTTP/1.1 where there is no poller", newGoroutines, scenario.HTTP1},
		{"HTTP/2", newEngine, scenario.H2C},
	} {
		var answered atomic.Int64
		raw := serveBoth(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/endless" {
				fmt.Fprint(w, "ok")
				answered.Add(1)
				return
			}
			piece := make([]byte, 32<<10)
			for {
				if _, err := w.Write(piece); err != nil {
					return
				}
				if answered.Load() == others {
					time.Sleep(ms) // it only has to go on until the timeout now
				}
			}
		}))
		targets := "GET " + raw + "/endless\n" + strings.Repeat("GET "+raw+"/other\n", others)
		sink := &memory{}
		g := generator(t, Config{
			Arms: []Arm{oneArm(t, raw)}, Recording: recorded(t, recording.ReadTargets, targets), Sink: sink,
			Load:   scenario.Load{Rate: flat(100), Timeout: 3 * time.Second, Protocols: over(tt.protocol)},
			Length: (others + 1) * 10 * ms,
		})
		g.newEngine = tt.engine
		runs.Go(func() {
			report, err := g.Run(t.Context())
			if err != nil || report.Completed != others {
				t.Errorf("%s: %d requests were completed, want %d: %v, %+v", tt.why, report.Completed, others, err, report.Arms)
			}
			for i, o := range sink.byDue() {
				if (o.Class == timeline.Timeout) != (i == 0) {
					t.Errorf("%s: request %d ended as %v", tt.why, i, o.Class)
				}
			}
		})
	}
}

// serveBoth serves HTTP/1.1 and HTTP/2 in clear text.
func serveBoth(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}
