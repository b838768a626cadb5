package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// secure is a server with TLS that offers these protocols by ALPN.
func secure(t testing.TB, h http.Handler, protocols ...string) (raw string, trust *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{NextProtos: protocols}
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.URL, &tls.Config{RootCAs: roots}
}

// One arm, two protocols: who goes over which is drawn by position, and what
// the report says is what the server saw.
func TestProtocolMixOverTLS(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen := map[string]int{}
	o := &origin{}
	raw, trust := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Proto]++
		mu.Unlock()
		o.ServeHTTP(w, r)
	}), "h2", "http/1.1")
	load := smallLoad()
	load.Writes = scenario.Writes{Share: 0.2, Method: "PUT", Path: "/items/{key}"}
	load.Protocols = []scenario.ProtocolShare{{Protocol: scenario.HTTP1, Share: 0.25}, {Protocol: scenario.H2, Share: 0.75}}
	sink := &memory{}
	g := generator(t, Config{Arms: []Arm{oneArm(t, raw)}, Load: load, Length: time.Second, TLS: trust, Seed: 7, Sink: sink})
	if err := g.Prewarm(t.Context(), 0, scenario.Prewarm{Top: 10, Concurrency: 2}, nil); err != nil {
		t.Fatal(err)
	}
	if turns, err := g.Sequential(t.Context(), 0, 5, "/items/a"); err != nil || len(turns) != 5 {
		t.Fatalf("%d turns, %v", len(turns), err)
	}
	clear(seen)
	report, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[scenario.Protocol]int{}
	for i := uint64(0); ; i++ {
		r, ok := g.At(i)
		if !ok {
			break
		}
		want[r.Protocol]++
	}
	if n := want[scenario.HTTP1]; n < 30 || n > 70 {
		t.Errorf("%d of 200 positions are of http/1.1, which has a share of 25 %%", n)
	}
	if seen["HTTP/1.1"] != want[scenario.HTTP1] || seen["HTTP/2.0"] != want[scenario.H2] {
		t.Errorf("the server saw %v, due were %v", seen, want)
	}
	a := report.Arms[0]
	if a.Completed != 200 || a.Proven != 200 || len(a.Failures) > 0 || a.Retried > 0 {
		t.Errorf("%+v", a)
	}
	if len(a.Protocols) != 2 || a.Protocols[0].Requests != uint64(want[scenario.HTTP1]) || a.Protocols[1].Protocol != "h2" ||
		a.Protocols[1].Requests != uint64(want[scenario.H2]) || a.Protocols[1].Connections == 0 {
		t.Errorf("spoken was %+v, due were %v", a.Protocols, want)
	}
	// Each outcome says it too: all but the first answer of a connection reuse it.
	var http1, http2, reused int
	for _, o := range sink.outcomes {
		if o.HTTP1 {
			http1++
		}
		if o.HTTP2 {
			http2++
		}
		if o.Reused {
			reused++
		}
	}
	if http1 != want[scenario.HTTP1] || http2 != want[scenario.H2] || reused != 200-int(a.Connections) {
		t.Errorf("%d answers over HTTP/1.1, %d over HTTP/2 and %d on a connection that was used before; %d were due over HTTP/2, on %d connections", http1, http2, reused, want[scenario.H2], a.Connections)
	}
	// Those of prewarming and of the sequence are no part of the schedule.
	if sink.shook != [2]int{0, int(a.Connections)} || sink.opened != int(a.Connections) {
		t.Errorf("handshakes failed and not: %d; %d connections were told of, and there were %d", sink.shook, sink.opened, a.Connections)
	}
}

// A server that doesn't offer h2 gets none, and isn't spoken to in something
// else instead.
func TestNoH2ByALPN(t *testing.T) {
	t.Parallel()
	raw, trust := secure(t, &origin{}, "http/1.1")
	load := smallLoad()
	load.Protocols = over(scenario.H2)
	sink := &memory{}
	g := generator(t, Config{Arms: []Arm{oneArm(t, raw)}, Load: load, Length: 20 * ms, TLS: trust, Sink: sink})
	report, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a := report.Arms[0]
	if a.Completed != 0 || a.Sent != 0 || a.Connections != 0 || len(a.Failures) != 1 || a.Failures[0].Kind != "transport" {
		t.Errorf("%+v", a)
	}
	if sink.shook[0] == 0 || sink.shook[1] > 0 {
		t.Errorf("handshakes failed and not: %d", sink.shook)
	}
	if told := fmt.Sprint(a.Failures); !strings.Contains(told, "no application protocol") && !strings.Contains(told, "doesn't offer h2") {
		t.Errorf("the report says %s", told)
	}
}

// What a recorded request brings goes out over HTTP/2 too, and a target as it is.
func TestHTTP2Request(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		load := smallLoad()
		load.Protocols = over(scenario.H2C)
		g := generator(t, Config{Arms: []Arm{oneArm(t, "http://h.example:81")}, Load: load, Length: time.Second})
		var got string
		s := serveInBubble(t, g, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got = fmt.Sprint(r.Method, r.RequestURI, r.Host, r.Header["X-Twice"], r.UserAgent(), r.ContentLength, string(body), r.Header["Accept-Encoding"])
		}))
		for _, tt := range []struct {
			why     string
			request request
			want    string
		}{
			{"nothing but what the scenario asks for", request{method: "GET"}, "GET//a%2Fb/../c?x=1&y=%zzh.example:81[]phasegate0[]"},
			{"header fields, each of them, and a body", request{method: "POST", extra: &extra{header: [][2]string{{"x-twice", "1"}, {"X-Twice", "2"}, {"X-Other", "x"}}, body: []byte("abc")}},
				"POST//a%2Fb/../c?x=1&y=%zzh.example:81[1 2]phasegate3abc[]"},
			{"a write without a body says so", request{method: "PUT"}, "PUT//a%2Fb/../c?x=1&y=%zzh.example:81[]phasegate0[]"},
		} {
			c := g.newClient(t.Context(), g.arms[0], literal{"//a%2Fb/../c?x=1&y=%zz"})
			if x := c.ask(t.Context(), tt.request); !x.complete {
				t.Errorf("%s: %v", tt.why, x.why)
			}
			c.close()
			if got != tt.want {
				t.Errorf("%s: the server got\n%s, want\n%s", tt.why, got, tt.want)
			}
		}
		s.Close()
		g.Close()
		synctest.Wait()
	})
}

// frames is a server in a bubble that is told for every request, by its number
// on the connection and the connection's, what to write.
type frames func(conn, n int, f *http2.Framer, id uint32) (hangUp bool)

func (s frames) serve(conn int, nc net.Conn) {
	defer nc.Close()
	if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	// Pipes don't buffer, so whoever writes must not be who reads.
	out := make(chan func(f *http2.Framer) bool, 100)
	go func() {
		f := http2.NewFramer(nc, nil)
		for write := range out {
			if write(f) {
				nc.Close()
			}
		}
	}()
	defer close(out)
	out <- func(f *http2.Framer) bool { return f.WriteSettings() != nil }
	in := http2.NewFramer(nil, nc)
	for n := 0; ; {
		frame, err := in.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				out <- func(f *http2.Framer) bool { return f.WriteSettingsAck() != nil }
			}
		case *http2.PingFrame:
			data := frame.Data
			out <- func(f *http2.Framer) bool { return f.WritePing(true, data) != nil }
		case *http2.HeadersFrame:
			number, id := n, frame.StreamID
			n++
			out <- func(f *http2.Framer) bool { return s(conn, number, f, id) }
		}
	}
}

// answerFrames writes a described answer for /items/a, cut off by so many bytes.
func answerFrames(f *http2.Framer, id uint32, cut int) {
	body := []byte("the body of /items/a")
	d := wire.Description{Key: "/items/a", Version: 1, Birth: time.Now(), Status: 200, Fresh: time.Hour}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":status", "200"}, {strings.ToLower(wire.Header), d.Seal(body)}} {
		_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = f.WriteData(id, cut == 0, body[:len(body)-cut])
}

// What HTTP/2 can do to a request, and what becomes of it.
func TestHTTP2OnTheWire(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		method  string
		s       frames
		want    [timeline.Classes]int // of 3 requests
		opened  uint64                // 0 for any number
		retried uint64
		says    string
	}{
		{why: "one connection serves all",
			s:    func(_, _ int, f *http2.Framer, id uint32) bool { answerFrames(f, id, 0); return false },
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 1},
		{why: "an idle connection that the server closed is not used again, and that is no error",
			s:    func(_, _ int, f *http2.Framer, id uint32) bool { answerFrames(f, id, 0); return true },
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 3},
		{why: "an idle connection that is being given up (GOAWAY) is left, and that is no error",
			s: func(_, _ int, f *http2.Framer, id uint32) bool {
				answerFrames(f, id, 0)
				_ = f.WriteGoAway(id, http2.ErrCodeNo, nil)
				return false
			},
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 3},
		{why: "a reused connection that ends as the request arrives, and no GOAWAY: a failure",
			s: func(conn, n int, f *http2.Framer, id uint32) bool {
				if conn == 0 && n == 1 {
					return true
				}
				answerFrames(f, id, 0)
				return false
			},
			want: [timeline.Classes]int{timeline.OK: 2, timeline.Transport: 1}, opened: 2},
		{why: "nor does a GOAWAY excuse the end of what it says is being done",
			s: func(conn, n int, f *http2.Framer, id uint32) bool {
				if conn == 0 && n == 1 {
					_ = f.WriteGoAway(id, http2.ErrCodeNo, nil)
					return true
				}
				answerFrames(f, id, 0)
				return false
			},
			want: [timeline.Classes]int{timeline.OK: 2, timeline.Transport: 1}, opened: 2, says: "GOAWAY"},
		{why: "a write is repeated where the server says that it wasn't done", method: "POST",
			s: func(conn, n int, f *http2.Framer, id uint32) bool {
				if n == 1 {
					_ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				} else {
					answerFrames(f, id, 0)
				}
				return false
			},
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 1, retried: 1},
		{why: "a write above the last stream of a GOAWAY wasn't done either", method: "POST",
			s: func(conn, n int, f *http2.Framer, id uint32) bool {
				if conn == 0 && n == 1 {
					_ = f.WriteGoAway(id-2, http2.ErrCodeNo, nil)
				} else {
					answerFrames(f, id, 0)
				}
				return false
			},
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 2, retried: 1},
		{why: "nor was the first one of a connection that ends for cause", method: "POST",
			s: func(conn, _ int, f *http2.Framer, id uint32) bool {
				if conn == 0 {
					_ = f.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil)
				} else {
					answerFrames(f, id, 0)
				}
				return false
			},
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 2, retried: 1},
		{why: "who is refused twice has failed",
			s: func(_, _ int, f *http2.Framer, id uint32) bool {
				_ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				return false
			},
			want: [timeline.Classes]int{timeline.Transport: 3}, opened: 1, retried: 3, says: "REFUSED_STREAM"},
		{why: "a fresh connection that ends is a failure",
			s:    func(int, int, *http2.Framer, uint32) bool { return true },
			want: [timeline.Classes]int{timeline.Transport: 3}, opened: 3},
		{why: "a stream that is reset is a failure, and the connection goes on",
			s: func(_, n int, f *http2.Framer, id uint32) bool {
				if n == 1 {
					_ = f.WriteRSTStream(id, http2.ErrCodeInternal)
				} else {
					answerFrames(f, id, 0)
				}
				return false
			},
			want: [timeline.Classes]int{timeline.OK: 2, timeline.Transport: 1}, opened: 1, says: "INTERNAL_ERROR"},
		{why: "cut off in the body",
			s: func(_, _ int, f *http2.Framer, id uint32) bool {
				answerFrames(f, id, 3)
				_ = f.WriteRSTStream(id, http2.ErrCodeInternal)
				return false
			},
			want: [timeline.Classes]int{timeline.Transport: 3}, opened: 1, says: "cut off after 17 bytes"},
		{why: "a body that ends early: HTTP can't tell, its description can",
			s: func(_, _ int, f *http2.Framer, id uint32) bool {
				answerFrames(f, id, 3)
				_ = f.WriteData(id, true, nil)
				return false
			},
			want: [timeline.Classes]int{timeline.Wrong: 3}, opened: 1, says: "17 bytes, but the upstream had made 20"},
		{why: "silence: the streams end, the connection is kept",
			s:    func(int, int, *http2.Framer, uint32) bool { return false },
			want: [timeline.Classes]int{timeline.Timeout: 3}, opened: 1, says: "no complete answer within 400ms of the due time"},
		{why: "a body that stops in the middle",
			s:    func(_, _ int, f *http2.Framer, id uint32) bool { answerFrames(f, id, 5); return false },
			want: [timeline.Classes]int{timeline.Timeout: 3}, opened: 1, says: "cut off after 15 bytes"},
		{why: "no HTTP/2 at all",
			s:    func(int, int, *http2.Framer, uint32) bool { panic("nobody asks who isn't understood") },
			want: [timeline.Classes]int{timeline.Transport: 3}},
	} {
		synctest.Test(t, func(t *testing.T) {
			sink := &memory{}
			load := smallLoad()
			load.Rate, load.Timeout, load.Path, load.Protocols = flat(2), 400*ms, "/items/a", over(scenario.H2C)
			if tt.method == "POST" {
				load.Writes = scenario.Writes{Share: 1, Method: "POST", Path: "/items/a"}
			}
			g := generator(t, Config{Arms: []Arm{oneArm(t, "http://h.example")}, Load: load, Length: 1500 * ms, Sink: sink})
			g.newEngine = newGoroutines
			conns := 0
			g.dial = func(context.Context, string, string) (net.Conn, error) {
				client, server := net.Pipe()
				if strings.HasPrefix(tt.why, "no HTTP/2") {
					go func() {
						_, _ = server.Read(make([]byte, 1000))
						_, _ = io.WriteString(server, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
						server.Close()
					}()
				} else {
					go tt.s.serve(conns, server)
				}
				conns++
				return client, nil
			}
			report, err := g.Run(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", tt.why, err)
			}
			a := report.Arms[0]
			for _, o := range sink.byDue() {
				if within := o.Class == timeline.Transport && strings.Contains(tt.says, "cut off"); o.Truncated != within {
					t.Errorf("%s: truncated %t", tt.why, o.Truncated)
				}
			}
			if got := sink.classes(); got != tt.want {
				t.Errorf("%s: classes %v, want %v: %+v", tt.why, got, tt.want, a.Failures)
			}
			if tt.opened > 0 && a.Connections != tt.opened || a.Retried != tt.retried {
				t.Errorf("%s: %d connections, %d retries; want %d and %d: %v", tt.why, a.Connections, a.Retried, tt.opened, tt.retried, a.Failures)
			}
			if told := fmt.Sprint(a.Failures); !strings.Contains(told, tt.says) {
				t.Errorf("%s: the report says %s, want %q", tt.why, told, tt.says)
			}
			g.Close()
			synctest.Wait()
		})
	}
}

// A server that widens a stream's window beyond what there may be (RFC 9113 §6.9.1)
// fails that stream's request, and holds up neither the others nor the run's end.
func TestHTTP2WindowThatOverflows(t *testing.T) {
	t.Parallel()
	sink := &memory{}
	load := smallLoad()
	load.Rate, load.Timeout, load.Path, load.Protocols = flat(10), 10*time.Second, "/items/a", over(scenario.H2C)
	g, err := New(Config{Arms: []Arm{oneArm(t, "http://h.example")}, Load: load, Length: 300 * ms, Sink: sink})
	if err != nil {
		t.Fatal(err)
	}
	s := frames(func(_, n int, f *http2.Framer, id uint32) bool {
		if n == 1 {
			_ = f.WriteWindowUpdate(id, 1<<31-1)
		} else {
			answerFrames(f, id, 0)
		}
		return false
	})
	g.dial = func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go s.serve(0, server)
		return client, nil
	}
	ended := make(chan Report, 1)
	go func() { // not in a bubble, which would wait for a lock for ever
		report, err := g.Run(t.Context())
		if err != nil {
			t.Error(err)
		}
		g.Close()
		ended <- report
	}()
	select {
	case report := <-ended:
		if got := sink.classes(); got != [timeline.Classes]int{timeline.OK: 2, timeline.Transport: 1} {
			t.Errorf("classes %v, want one of transport, the others good: %+v", got, report.Arms[0].Failures)
		}
	case <-time.After(time.Minute):
		t.Fatal("the run doesn't end")
	}
}

// Of what is under way when a connection ends, only what the server has said it
// didn't touch is sent again: one that cuts it off has failed its clients.
func TestHTTP2ConnectionEndsUnderLoad(t *testing.T) {
	t.Parallel()
	const held = 30 // behind an answer, when it ends
	for _, tt := range []struct {
		why     string
		goAway  bool
		want    [timeline.Classes]int
		retried uint64
	}{
		{"without a word", false, [timeline.Classes]int{timeline.OK: 50 - held, timeline.Transport: held}, 0},
		{"after a GOAWAY, and answers to all up to its last stream", true, [timeline.Classes]int{timeline.OK: 50}, held / 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			sink := &memory{}
			load := smallLoad()
			load.Rate, load.Path, load.Protocols, load.Streams = flat(100), "/items/a", over(scenario.H2C), 100
			g := generator(t, Config{Arms: []Arm{oneArm(t, "http://h.example")}, Load: load, Length: 500 * ms, Sink: sink})
			g.newEngine = newGoroutines
			var waiting []uint32
			s := frames(func(conn, n int, f *http2.Framer, id uint32) bool {
				if conn > 0 || n == 0 {
					answerFrames(f, id, 0)
					return false
				}
				if waiting = append(waiting, id); n < held {
					return false
				}
				if tt.goAway {
					taken := waiting[:held-held/3]
					_ = f.WriteGoAway(taken[len(taken)-1], http2.ErrCodeNo, nil)
					for _, id := range taken {
						answerFrames(f, id, 0)
					}
				}
				return true
			})
			conns := 0
			g.dial = func(context.Context, string, string) (net.Conn, error) {
				client, server := net.Pipe()
				go s.serve(conns, server)
				conns++
				return client, nil
			}
			report, err := g.Run(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", tt.why, err)
			}
			a := report.Arms[0]
			if got := sink.classes(); got != tt.want || a.Retried != tt.retried || a.Connections != 2 {
				t.Errorf("%s: classes %v, %d retries, %d connections; want %v, %d and 2: %v", tt.why, got, a.Retried, a.Connections, tt.want, tt.retried, a.Failures)
			}
			g.Close()
			synctest.Wait()
		})
	}
}

// Nobody has more streams or connections than are allowed, the timeout counts
// from the due time in line too, and a cancelled run leaves nothing behind.
func TestHTTP2Bounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := &memory{}
		load := smallLoad()
		load.Rate, load.Timeout, load.Protocols, load.Streams = flat(100), 300*ms, over(scenario.H2C), 3
		arm := oneArm(t, "http://h.example")
		arm.Connections = 2
		g := generator(t, Config{Arms: []Arm{arm}, Load: load, Length: time.Hour, Sink: sink})
		var mu sync.Mutex
		now, most := 0, 0
		o := &origin{}
		s := serveInBubble(t, g, 100, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			select { // six places serve 24/s of 100/s
			case <-time.After(250 * ms):
				o.ServeHTTP(w, r)
			case <-r.Context().Done():
			}
			mu.Lock()
			now--
			mu.Unlock()
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		report, err := g.Run(ctx)
		if err == nil || !report.Interrupted {
			t.Errorf("the run ended with %v", err)
		}
		a := report.Arms[0]
		// The stream of a request that timed out is used again before its
		// handler has noticed.
		mu.Lock()
		defer mu.Unlock()
		if a.Connections != 2 || most < 6 || most > 12 {
			t.Errorf("%d connections, at most %d requests at a time; want 2 and 6", a.Connections, most)
		}
		classes := sink.classes()
		if classes[timeline.OK] == 0 || classes[timeline.Timeout] == 0 || classes[timeline.Transport] > 0 {
			t.Errorf("classes %v: %+v", classes, a.Failures)
		}
		for _, o := range sink.byDue() {
			if o.Class == timeline.Timeout && o.Latency < 300*ms || o.Latency > 301*ms {
				t.Errorf("an outcome after %v: %+v", o.Latency, o)
			}
		}
		if uint64(len(sink.outcomes))+report.Unfinished != report.Offered {
			t.Errorf("%d outcomes and %d unfinished of %d offered", len(sink.outcomes), report.Unfinished, report.Offered)
		}
		s.Close()
		g.Close()
		time.Sleep(time.Second)
		synctest.Wait()
	})
}
