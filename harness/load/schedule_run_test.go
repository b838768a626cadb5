package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// script is a server in a synctest bubble: a function of the connection's
// number, the request's number on it (both from 0) and the request, that
// returns what to write; hangUp closes the connection after it.
type script func(conn, n int, r *http.Request) (raw string, hangUp bool)

// inBubble makes g dial s over in-memory pipes and sleep by the bubble's clock.
func inBubble(g *Generator, s script) {
	var mu sync.Mutex
	conns := 0
	g.newEngine = newGoroutines
	g.dial = func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		mu.Lock()
		id := conns
		conns++
		mu.Unlock()
		go func() {
			defer server.Close()
			br := bufio.NewReader(server)
			for n := 0; ; n++ {
				r, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				raw, hangUp := s(id, n, r)
				if _, err := io.WriteString(server, raw); err != nil || hangUp {
					return
				}
			}
		}()
		return client, nil
	}
}

// raw renders a described 200 answer for a request.
func raw(r *http.Request) string {
	body := "the body of " + r.RequestURI
	d := wire.Description{Key: r.RequestURI, Version: 1, Birth: time.Now(), Status: 200, Fresh: time.Hour}
	value := d.Seal([]byte(body))
	if r.Method == http.MethodHead {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\n%s: %s\r\nContent-Length: %d\r\n\r\n", wire.Header, value, len(body))
	}
	return fmt.Sprintf("HTTP/1.1 200 OK\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s", wire.Header, value, len(body), body)
}

// slow answers after a latency.
func slow(latency time.Duration) script {
	return func(_, _ int, r *http.Request) (string, bool) {
		time.Sleep(latency)
		return raw(r), false
	}
}

const ms = time.Millisecond

// Latency runs from the due time, so it holds the wait for a connection;
// service time doesn't. The timeout counts from the due time too. With a clock
// that only moves when everyone waits, the figures are exact.
func TestLatencyIsMeasuredFromTheSchedule(t *testing.T) {
	t.Parallel()
	type figures struct {
		latency, service time.Duration
		class            timeline.Class
	}
	ok := func(latency, service time.Duration) figures { return figures{latency, service, timeline.OK} }
	late := func(latency, service time.Duration) figures { return figures{latency, service, timeline.Timeout} }
	for _, tt := range []struct {
		why              string
		rate             float64
		connections      int
		latency, timeout time.Duration
		want             []figures
		opened, queued   int
	}{
		{why: "enough connections: nobody waits, and three do at 20/s × 100 ms, since an answer frees one as the next is due",
			rate: 20, connections: 16, latency: 101 * ms, timeout: time.Second,
			want: []figures{ok(101*ms, 101*ms), ok(101*ms, 101*ms), ok(101*ms, 101*ms), ok(101*ms, 101*ms)}, opened: 3},
		{why: "one connection is used again rather than opening another",
			rate: 10, connections: 16, latency: 20 * ms, timeout: time.Second,
			want: []figures{ok(20*ms, 20*ms), ok(20*ms, 20*ms), ok(20*ms, 20*ms), ok(20*ms, 20*ms)}, opened: 1},
		{why: "one connection and twice the load it can carry: the line grows by 50 ms with every request",
			rate: 20, connections: 1, latency: 100 * ms, timeout: time.Second,
			want: []figures{ok(100*ms, 100*ms), ok(150*ms, 100*ms), ok(200*ms, 100*ms), ok(250*ms, 100*ms)}, opened: 1, queued: 3},
		{why: "the timeout counts from the due time, not from the send",
			rate: 20, connections: 1, latency: 100 * ms, timeout: 120 * ms,
			want: []figures{ok(100*ms, 100*ms), late(120*ms, 70*ms), late(120*ms, 50*ms), late(120*ms, 50*ms)}, opened: 3, queued: 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			sink := &memory{}
			load := smallLoad()
			load.Rate, load.Timeout = flat(tt.rate), tt.timeout
			arm := oneArm(t, "http://h.example")
			arm.Connections = tt.connections
			g := generator(t, Config{Arms: []Arm{arm}, Load: load, Length: time.Duration(4 / tt.rate * 1e9), Sink: sink})
			inBubble(g, slow(tt.latency))
			report, err := g.Run(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", tt.why, err)
			}
			outcomes := sink.byDue()
			if len(outcomes) != len(tt.want) {
				t.Fatalf("%s: %d outcomes: %+v", tt.why, len(outcomes), outcomes)
			}
			for i, o := range outcomes {
				if got := (figures{o.Latency, o.Service, o.Class}); got != tt.want[i] || o.Due != time.Duration(i)*time.Duration(1e9/tt.rate) {
					t.Errorf("%s: request %d, due at %v: %v, want %v", tt.why, i, o.Due, got, tt.want[i])
				}
			}
			if a := report.Arms[0]; a.Connections != uint64(tt.opened) || a.Queued != uint64(tt.queued) {
				t.Errorf("%s: %d connections opened, %d requests queued; want %d and %d", tt.why, a.Connections, a.Queued, tt.opened, tt.queued)
			}
			if report.Lag.Max != 0 || report.Lag.Requests != uint64(4-tt.queued) {
				t.Errorf("%s: lag %+v: who stands in line isn't late by our fault", tt.why, report.Lag)
			}
			g.Close()
			time.Sleep(time.Hour) // lets the slowest server end
			synctest.Wait()
		})
	}
}

// A connection that couldn't be opened is told from one that came too late.
func TestUnopened(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why      string
		dial     func(ctx context.Context) error
		unopened uint64
	}{
		{"nobody listens", func(context.Context) error { return errors.New("connection refused") }, 10},
		{"it is not answered in time", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			load := smallLoad()
			load.Rate, load.Timeout = flat(100), 50*ms
			g := generator(t, Config{Arms: []Arm{oneArm(t, "http://h.example")}, Load: load, Length: 100 * ms, Sink: &memory{}})
			g.newEngine = newGoroutines
			g.dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return nil, tt.dial(ctx) }
			report, err := g.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if a := report.Arms[0]; a.Offered != 10 || a.Sent != 0 || a.Unopened != tt.unopened || a.Expired != 0 {
				t.Errorf("%s: %+v", tt.why, a)
			}
			g.Close()
		})
	}
}

// What the wire can do to an answer, and what becomes of it.
func TestAnswersOnTheWire(t *testing.T) {
	t.Parallel()
	cut := func(n int) script { // the answer without its last n bytes
		return func(_, _ int, r *http.Request) (string, bool) { s := raw(r); return s[:len(s)-n], true }
	}
	chunked := func(r *http.Request, end string) string {
		head, body, _ := strings.Cut(raw(r), "\r\n\r\n")
		lines := strings.Split(head, "\r\n")
		return strings.Join(lines[:len(lines)-1], "\r\n") + fmt.Sprintf("\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n%s", 4, body[:4], len(body)-4, body[4:], end)
	}
	for _, tt := range []struct {
		why     string
		method  string // POST for a write; GET otherwise
		s       script
		want    [timeline.Classes]int // of 3 requests
		opened  uint64
		retried uint64
		says    string
	}{
		{why: "an idle connection that the server closed is not used again, and that is no error",
			s:    func(_, _ int, r *http.Request) (string, bool) { return raw(r), true },
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 3},
		{why: "Connection: close",
			s: func(_, _ int, r *http.Request) (string, bool) {
				return strings.Replace(raw(r), "\r\n", "\r\nConnection: close\r\n", 1), false
			},
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 3},
		{why: "a reused connection that ends as the request arrives: once more",
			s: func(conn, n int, r *http.Request) (string, bool) {
				if conn == 0 && n == 1 {
					return "", true
				}
				return raw(r), false
			},
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 2, retried: 1},
		{why: "a write isn't repeated: it may have been done", method: "POST",
			s: func(conn, n int, r *http.Request) (string, bool) {
				if conn == 0 && n == 1 {
					return "", true
				}
				return raw(r), false
			},
			want: [timeline.Classes]int{timeline.OK: 2, timeline.Transport: 1}, opened: 2, says: "before any byte of an answer"},
		{why: "a fresh connection that ends is a failure",
			s:    func(int, int, *http.Request) (string, bool) { return "", true },
			want: [timeline.Classes]int{timeline.Transport: 3}, opened: 3, says: "before any byte of an answer"},
		{why: "cut off in the body", s: cut(3),
			want: [timeline.Classes]int{timeline.Transport: 3}, opened: 3, says: "cut off after 17 of 20 bytes"},
		{why: "cut off in the header",
			s:    func(_, _ int, r *http.Request) (string, bool) { return raw(r)[:30], true },
			want: [timeline.Classes]int{timeline.Transport: 3}, opened: 3, says: "read the answer's header"},
		{why: "no HTTP at all",
			s:    func(int, int, *http.Request) (string, bool) { return "SSH-2.0-x\r\n\r\n", true },
			want: [timeline.Classes]int{timeline.Transport: 3}, opened: 3, says: "read the answer's header"},
		{why: "chunked, with a trailer",
			s:    func(_, _ int, r *http.Request) (string, bool) { return chunked(r, "0\r\nX-After: 1\r\n\r\n"), false },
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 1},
		{why: "chunked, the last chunk missing",
			s:    func(_, _ int, r *http.Request) (string, bool) { return chunked(r, ""), true },
			want: [timeline.Classes]int{timeline.Transport: 3}, opened: 3, says: "cut off after 20 bytes"},
		{why: "chunked, the end of the trailer missing",
			s:    func(_, _ int, r *http.Request) (string, bool) { return chunked(r, "0\r\n"), true },
			want: [timeline.Classes]int{timeline.Transport: 3}, opened: 3, says: "cut off after 20 bytes"},
		{why: "a body that ends with the connection",
			s: func(_, _ int, r *http.Request) (string, bool) {
				return strings.Replace(raw(r), "Content-Length: 20\r\n", "", 1), true
			},
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 3},
		{why: "such a body cut off: HTTP can't tell, its description can",
			s: func(_, _ int, r *http.Request) (string, bool) {
				s := strings.Replace(raw(r), "Content-Length: 20\r\n", "", 1)
				return s[:len(s)-1], true
			},
			want: [timeline.Classes]int{timeline.Wrong: 3}, opened: 3, says: "19 bytes, but the upstream had made 20"},
		{why: "interim answers are passed over",
			s: func(_, _ int, r *http.Request) (string, bool) {
				return "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + raw(r), false
			},
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 1},
		{why: "but not for ever",
			s: func(int, int, *http.Request) (string, bool) {
				return strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 101), true
			},
			want: [timeline.Classes]int{timeline.Transport: 3}, opened: 3, says: "more than 100 interim answers"},
		{why: "a header that is larger than the buffer",
			s: func(_, _ int, r *http.Request) (string, bool) {
				return strings.Replace(raw(r), "\r\n", "\r\nX-Large: "+strings.Repeat("x", 20<<10)+"\r\n", 1), false
			},
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 1},
		{why: "one that is larger than any sensible one",
			s: func(_, _ int, r *http.Request) (string, bool) {
				return strings.Replace(raw(r), "\r\n", "\r\nX-Large: "+strings.Repeat("x", 100<<10)+"\r\n", 1), false
			},
			want: [timeline.Classes]int{timeline.Transport: 3}, opened: 3, says: "read the answer's header"},
		{why: "a second answer that nobody asked for isn't taken for the next one's",
			s:    func(_, _ int, r *http.Request) (string, bool) { return raw(r) + raw(r), false },
			want: [timeline.Classes]int{timeline.OK: 3}, opened: 3},
		{why: "another key's answer",
			s:    func(_, _ int, r *http.Request) (string, bool) { r.RequestURI = "/other"; return raw(r), false },
			want: [timeline.Classes]int{timeline.Wrong: 3}, opened: 1, says: `the answer is for "/other"`},
		{why: "silence",
			s:    func(int, int, *http.Request) (string, bool) { time.Sleep(time.Hour); return "", true },
			want: [timeline.Classes]int{timeline.Timeout: 3}, opened: 3, says: "no complete answer within 400ms of the due time"},
		{why: "a body that stops in the middle",
			s: func(_, _ int, r *http.Request) (string, bool) {
				s := raw(r)
				return s[:len(s)-5] + "", false
			},
			want: [timeline.Classes]int{timeline.Timeout: 3}, opened: 3, says: "cut off after 15 of 20 bytes"},
	} {
		synctest.Test(t, func(t *testing.T) {
			sink := &memory{}
			load := smallLoad()
			load.Rate, load.Timeout, load.Path = flat(2), 400*ms, "/items/a"
			if tt.method == "POST" {
				load.Writes = scenario.Writes{Share: 1, Method: "POST", Path: "/items/a"}
			}
			g := generator(t, Config{Arms: []Arm{oneArm(t, "http://h.example")}, Load: load, Length: 1500 * ms, Sink: sink})
			inBubble(g, tt.s)
			report, err := g.Run(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", tt.why, err)
			}
			for _, o := range sink.byDue() {
				if within := o.Class == timeline.Transport && strings.Contains(tt.says, "cut off"); o.Truncated != within {
					t.Errorf("%s: truncated %t", tt.why, o.Truncated)
				}
			}
			if got := sink.classes(); got != tt.want {
				t.Errorf("%s: classes %v, want %v: %+v", tt.why, got, tt.want, report.Arms[0].Failures)
			}
			a := report.Arms[0]
			if a.Connections != tt.opened || a.Retried != tt.retried {
				t.Errorf("%s: %d connections, %d retries; want %d and %d", tt.why, a.Connections, a.Retried, tt.opened, tt.retried)
			}
			if told := fmt.Sprint(a.Failures); !strings.Contains(told, tt.says) {
				t.Errorf("%s: the report says %s, want %q", tt.why, told, tt.says)
			}
			g.Close()
			time.Sleep(2 * time.Hour) // lets the slowest server end
			synctest.Wait()
		})
	}
}

// A cancelled run stops at once, and what it cut off is no outcome.
func TestCancelStopsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := &memory{}
		arm := oneArm(t, "http://h.example")
		arm.Connections = 2
		load := smallLoad()
		load.Rate, load.Timeout = flat(10), time.Hour
		g := generator(t, Config{Arms: []Arm{arm}, Load: load, Length: time.Hour, Sink: sink})
		inBubble(g, func(_, n int, r *http.Request) (string, bool) {
			if n > 0 {
				time.Sleep(10 * time.Minute)
			}
			return raw(r), false
		})
		ctx, cancel := context.WithTimeout(t.Context(), 550*ms)
		defer cancel()
		start := time.Now()
		report, err := g.Run(ctx)
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 550*ms+nap {
			t.Errorf("Run returned after %v with %v", took, err)
		}
		// Due: 0 and five more until 500 ms. The first is answered, the next
		// two hang on a connection each (the second on the first's), three wait.
		if !report.Interrupted || report.Offered != 6 || report.Completed != 2 || report.Unfinished != 4 {
			t.Errorf("the report is %+v", report)
		}
		if got := sink.classes(); got != [timeline.Classes]int{timeline.OK: 2} {
			t.Errorf("outcomes %v", got)
		}
		if n := len(sink.cut); n != 2 {
			t.Errorf("%d had been sent when they were cut off (%v), want 2", n, sink.cut)
		}
		g.Close()
		time.Sleep(time.Hour)
		synctest.Wait()
	})
}

// A dial that hangs ends with the timeout, and was never a send.
func TestHangingDial(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := &memory{}
		load := smallLoad()
		load.Rate, load.Timeout = flat(1), 300*ms
		g := generator(t, Config{Arms: []Arm{oneArm(t, "http://h.example")}, Load: load, Length: time.Second, Sink: sink})
		g.newEngine = newGoroutines
		g.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		report, err := g.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		o := sink.byDue()[0]
		if o.Class != timeline.Timeout || o.Latency != 300*ms || o.Service != 0 || report.Sent != 0 {
			t.Errorf("outcome %+v, %d sent", o, report.Sent)
		}
	})
}

// A request whose timeout passes in line is told apart from one that was sent.
func TestExpiredInLine(t *testing.T) {
	t.Parallel()
	g := generator(t, Config{Arms: []Arm{oneArm(t, "http://h.example")}, Load: smallLoad(), Length: time.Second})
	c := &conn{side: side{g: g, arm: g.arms[0], source: g.source, base: time.Now().Add(-time.Minute), open: &sockets{}}}
	x := c.perform(t.Context(), job{request: g.source.at(0), due: 0}, false)
	if x.Class != timeline.Timeout || x.sent || x.Latency != 5*time.Second || x.Service != 0 {
		t.Errorf("%+v", x)
	}
	if !strings.Contains(x.why.Error(), "every connection was busy") {
		t.Errorf("the reason is %v", x.why)
	}
}

// After a burst the load falls back to the connection that was idle last, and
// the others are left alone for the server to close.
func TestIdleConnectionsAreUsedLastInFirstOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var conns []int
		load := smallLoad()
		load.Rate = []scenario.Segment{{From: 1000, To: 1000, For: 4 * ms}, {For: 100 * ms}, {From: 10, To: 10}}
		g := generator(t, Config{Arms: []Arm{oneArm(t, "http://h.example")}, Load: load, Length: 500 * ms})
		inBubble(g, func(conn, _ int, r *http.Request) (string, bool) {
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			time.Sleep(10 * ms)
			return raw(r), false
		})
		if _, err := g.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := []int{0, 1, 2, 3, 3, 3, 3, 3}; !slices.Equal(conns, want) {
			t.Errorf("requests went over connections %v, want %v", conns, want)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
	})
}

// An answer too many must not be taken for that of the request next in line.
func TestSurplusAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := &memory{}
		arm := oneArm(t, "http://h.example")
		arm.Connections = 1
		load := smallLoad()
		load.Rate = flat(1000)
		g := generator(t, Config{Arms: []Arm{arm}, Load: load, Length: 5 * ms, Sink: sink})
		inBubble(g, func(_, _ int, r *http.Request) (string, bool) {
			time.Sleep(10 * ms)
			return raw(r) + raw(r), false
		})
		if _, err := g.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := sink.classes(); got != [timeline.Classes]int{timeline.OK: 5} {
			t.Errorf("classes %v", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
	})
}

// The deadline's timer may be late; the answer it let through is too.
func TestAnswerAfterTheTimeout(t *testing.T) {
	t.Parallel()
	g := generator(t, Config{Arms: []Arm{oneArm(t, "http://h.example")}, Load: smallLoad(), Length: time.Second})
	base := time.Now()
	for end, want := range map[time.Duration]timeline.Class{6 * time.Second: timeline.Unproven, 6*time.Second + 1: timeline.Timeout} {
		c := &conn{side: side{g: g, arm: g.arms[0], source: g.source, base: base}, sent: base, br: bufio.NewReader(strings.NewReader(""))}
		var x exchange
		c.finish(&x, job{request: g.source.at(0), due: time.Second}, &answer{status: 200, end: base.Add(end)})
		if x.Class != want || x.Latency != end-time.Second || x.Service != end {
			t.Errorf("an answer %v after a due time of 1s with a timeout of 5s: %+v", end, x)
		}
	}
}
