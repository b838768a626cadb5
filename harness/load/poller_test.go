//go:build linux

package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/recording"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"

	"golang.org/x/sys/unix"
)

// answers serves the connections of a listener by hand: serve gets each
// connection and its number, from 0.
func answers(t *testing.T, serve func(n int, c net.Conn, requests *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(n, c, bufio.NewReader(c))
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// item is an answer that describes itself, ready to be cut in pieces.
func item(target string, size int, chunked bool) []byte {
	body := bytes.Repeat([]byte("x"), size)
	d := wire.Description{Key: target, Version: 1, Birth: time.Now(), Status: 200, Fresh: time.Hour}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n%s: %s\r\n", wire.Header, d.Seal(body))
	if !chunked {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", size, body)
		return b.Bytes()
	}
	fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n")
	for piece := range slices.Chunk(body, 1000) {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(piece), piece)
	}
	fmt.Fprintf(&b, "0\r\n\r\n")
	return b.Bytes()
}

// Whatever the pieces in which an answer comes, it is read, verified, and timed by
// its last byte.
func TestAnswersInPieces(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		size    int
		chunked bool
		piece   int // bytes written at once
	}{
		{"at once", 1000, false, 1 << 20},
		{"byte by byte", 50, false, 1},
		{"chunks, cut anywhere", 5000, true, 333},
		{"more than the kernel holds", 8 << 20, false, 1 << 20},
		{"and chunked", 512 << 10, true, 1 << 20},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			url := answers(t, func(_ int, c net.Conn, requests *bufio.Reader) {
				for {
					r, err := http.ReadRequest(requests)
					if err != nil {
						return
					}
					for left := item(r.RequestURI, tt.size, tt.chunked); len(left) > 0; {
						n, err := c.Write(left[:min(tt.piece, len(left))])
						if left = left[n:]; err != nil {
							return
						}
						if tt.piece < 1000 {
							time.Sleep(20 * time.Microsecond)
						}
					}
				}
			})
			sink := &memory{}
			load := smallLoad()
			load.Rate = flat(100)
			load.Timeout = time.Minute // the race detector takes its time over 80 MB
			g := generator(t, Config{Arms: []Arm{oneArm(t, url)}, Load: load, Length: 100 * ms, Sink: sink})
			report, err := g.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if a := report.Arms[0]; a.Proven != 10 || sink.classes() != [timeline.Classes]int{timeline.OK: 10} {
				t.Errorf("%+v", a)
			}
		})
	}
}

// An answer that lies unread while the dispatcher has other things to do, or
// nothing until the next due time, isn't later for that: its time is the kernel's.
func TestArrivalIsTheKernels(t *testing.T) {
	t.Parallel()
	url := answers(t, func(_ int, c net.Conn, _ *bufio.Reader) { _, _ = io.Copy(c, c) })
	nc, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	l := newEngine()
	const unread = 200 * ms
	var late time.Duration
	l.spawn(func() {
		c, err := l.adopt(nc)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		// The kernel begins to note times soon after it was first asked to, so the
		// second answer is looked at.
		for range 2 {
			_, _ = c.Write([]byte("hello"))
			l.await(func() { time.Sleep(unread) })
			if n, err := c.Read(make([]byte, 10)); n != 5 || err != nil {
				t.Errorf("read %d bytes, %v", n, err)
			}
			late = time.Since(c.(*pollConn).arrived())
		}
	})
	l.stop()
	if err := l.open(true, false); err != nil {
		t.Fatal(err)
	}
	l.serve()
	l.close()
	if late < unread/2 {
		t.Errorf("read %s after it came, though it lay for %s", late, unread)
	}
}

// Requests that are gathered leave when the code of every connection has run, and
// are known to have left then.
func TestGatheredRequestsLeaveTogether(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	came := map[string]time.Time{} // by the client's address
	url := answers(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := r.Peek(1); err == nil {
			mu.Lock()
			came[c.RemoteAddr().String()] = time.Now()
			mu.Unlock()
		}
		_, _ = io.Copy(c, r)
	})
	l := newEngine()
	var written []time.Time
	left := map[string]time.Time{}
	for range 3 {
		nc, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		l.spawn(func() {
			c, err := l.adopt(nc)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = c.Write([]byte("hel"))
			_, _ = c.Write([]byte("lo"))
			written = append(written, time.Now())
			got := make([]byte, 5)
			if _, err := io.ReadFull(c, got); string(got) != "hello" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
			left[c.LocalAddr().String()] = c.(*pollConn).left()
		})
	}
	l.stop()
	if err := l.open(true, true); err != nil {
		t.Fatal(err)
	}
	l.serve()
	l.close()
	last := slices.MaxFunc(written, time.Time.Compare)
	if len(left) != 3 {
		t.Errorf("%d of 3 were answered", len(left))
	}
	for from, at := range left {
		if at.Before(last) || at.After(came[from]) {
			t.Errorf("left at %v; the last was written at %v, and it came at %v", at, last, came[from])
		}
	}
}

// A request that the server doesn't read holds up nobody: the dispatcher goes on,
// and the answer comes when the server has read.
func TestLargeRequestsDontBlock(t *testing.T) {
	t.Parallel()
	const size = 6 << 20 // more than the kernel takes at once
	var got atomic.Int64
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * ms)
		n, _ := io.Copy(io.Discard, r.Body)
		got.Add(n)
		fmt.Fprint(w, "thanks")
	}))
	l := recorded(t, recording.ReadTargets, fmt.Sprintf(`{"method":"POST","url":"%s/upload","body":"%s"}`, url, strings.Repeat("AAAA", size/3)))
	load := scenario.Load{Rate: flat(100), Timeout: 5 * time.Second}
	g := generator(t, Config{Arms: []Arm{oneArm(t, url)}, Load: load, Recording: l, Length: Length(l, load, 0), Sink: &memory{}})
	report, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a := report.Arms[0]; a.Completed != a.Offered || a.Offered == 0 || got.Load() != int64(a.Offered)*(size/3*3) || len(a.Failures) > 0 {
		t.Errorf("%d bytes arrived, %+v", got.Load(), a)
	}
}

// Deadlines and closed connections, of many at once.
func TestPollerDeadlines(t *testing.T) {
	t.Parallel()
	url := answers(t, func(n int, c net.Conn, requests *bufio.Reader) {
		for served := 0; ; served++ {
			r, err := http.ReadRequest(requests)
			if err != nil {
				return
			}
			if n%2 == 1 { // never answers
				continue
			}
			if _, err := c.Write(item(r.RequestURI, 100, false)); err != nil || served == 5 {
				return // an idle connection is closed now and then
			}
		}
	})
	sink := &memory{}
	load := smallLoad()
	load.Timeout = 60 * ms
	g := generator(t, Config{Arms: []Arm{oneArm(t, url)}, Load: load, Length: 500 * ms, Sink: sink})
	report, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	classes := sink.classes()
	if classes[timeline.OK] == 0 || classes[timeline.Timeout] == 0 || classes[timeline.OK]+classes[timeline.Timeout] != 100 {
		t.Errorf("classes %v, %+v", classes, report.Arms)
	}
	for _, o := range sink.byDue() {
		if o.Class == timeline.Timeout && (o.Latency < 60*ms || o.Latency > 300*ms) {
			t.Errorf("a timeout of 60 ms was noticed after %s", o.Latency)
		}
	}
}

// The last request of all ends by its timeout too, on a connection that was idle,
// where nothing later reminds of it.
func TestTheLastTimeoutOfAnIdleConnection(t *testing.T) {
	t.Parallel()
	url := answers(t, func(_ int, c net.Conn, requests *bufio.Reader) {
		for served := 0; ; served++ {
			r, err := http.ReadRequest(requests)
			if err != nil {
				return
			}
			if served == 0 {
				_, _ = c.Write(item(r.RequestURI, 100, false))
			}
		}
	})
	sink := &memory{}
	load := smallLoad()
	load.Rate, load.Timeout = flat(20), time.Second
	arm := oneArm(t, url)
	arm.Connections = 1
	g := generator(t, Config{Arms: []Arm{arm}, Load: load, Length: 100 * ms, Sink: sink})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := g.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if classes := sink.classes(); classes[timeline.OK] != 1 || classes[timeline.Timeout] != 1 {
		t.Errorf("classes %v, want one answer and one timeout", classes)
	}
}

// lies waits until the kernel holds so many bytes of a connection.
func lies(t *testing.T, c *pollConn, n int) {
	for {
		switch held, err := unix.IoctlGetInt(c.fd, unix.SIOCINQ); {
		case err != nil:
			t.Error(err)
			return
		case held >= n:
			return
		}
		time.Sleep(ms)
	}
}

// Of what lies there, a turn is read before the loop comes first again. The rest
// is in line, behind others, and is read without being told of again.
func TestTurns(t *testing.T) {
	t.Parallel()
	const (
		size, small = 10_000, 5
		piece       = 100
		turn        = 10 * piece
		most        = turn + piece - 1 // a turn ends with a read
	)
	begin, more := make(chan struct{}), make(chan struct{})
	url := answers(t, func(n int, c net.Conn, requests *bufio.Reader) {
		<-begin
		if n == 1 {
			_, _ = c.Write(make([]byte, small))
		} else {
			_, _ = c.Write(make([]byte, size))
			<-more
			_, _ = c.Write(make([]byte, size))
		}
		_, _ = io.Copy(io.Discard, requests)
	})
	l := &poller{turn: turn}
	want := [2]int{2 * size, small}
	var got [2]int
	var conns [2]*pollConn
	for i := range want {
		nc, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		l.spawn(func() {
			c, err := l.adopt(nc)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			conns[i] = c.(*pollConn)
			for got[i] < want[i] {
				n, err := c.Read(make([]byte, piece))
				if err != nil {
					t.Error(err)
					return
				}
				got[i] += n
			}
		})
	}
	if err := l.open(false, false); err != nil {
		t.Fatal(err)
	}
	l.look() // nothing came yet
	close(begin)
	lies(t, conns[0], size)
	lies(t, conns[1], small)
	l.look()
	if sum := got[0] + got[1]; sum < turn || sum > most {
		t.Errorf("%d bytes were read at one look, want a turn of %d", sum, turn)
	}
	l.proceed()
	l.proceed()
	if got[1] != small || got[0] > 3*most {
		t.Errorf("after two more turns %v bytes were read; the second connection's %d were in line", got, small)
	}
	close(more)
	lies(t, conns[0], 2*size-got[0])
	before := got[0]
	if l.look(); got[0] != before {
		t.Errorf("%d bytes were read of a connection that is in line", got[0]-before)
	}
	l.idle(time.Now())
	if read := got[0] - before; read < turn || read > most {
		t.Errorf("%d bytes were read while something is due, want a turn of %d", read, turn)
	}
	l.block(time.Hour) // not while somebody is in line
	l.stop()
	l.serve()
	l.close()
	if got != want {
		t.Errorf("%v bytes were read in the end, want %v", got, want)
	}
}

// A deadline ends reading also while bytes are there. Those that came in time are
// read, however late that is.
func TestDeadlineWhileBytesCome(t *testing.T) {
	t.Parallel()
	const size, piece = 10_000, 100
	url := answers(t, func(_ int, c net.Conn, requests *bufio.Reader) {
		for {
			if b, err := requests.ReadByte(); err != nil {
				return
			} else if b == '!' {
				_, _ = c.Write(make([]byte, size))
			} else {
				_, _ = c.Write([]byte{b})
			}
		}
	})
	for _, tt := range []struct {
		why  string
		late bool
		want int
	}{
		{"in time", false, size},
		{"late", true, piece},
	} {
		nc, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		l := newEngine()
		got := 0
		l.spawn(func() {
			adopted, err := l.adopt(nc)
			if err != nil {
				t.Error(err)
				return
			}
			c := adopted.(*pollConn)
			defer c.Close()
			// The kernel begins to note times soon after it was first asked to.
			const unread = 20 * ms
			for noted := false; !noted; noted = time.Since(c.arrived()) > unread/2 {
				_, _ = c.Write([]byte("?"))
				l.await(func() {
					lies(t, c, 1)
					time.Sleep(unread)
				})
				if _, err := c.Read(make([]byte, piece)); err != nil {
					t.Error(err)
					return
				}
			}
			asked := time.Now()
			_, _ = c.Write([]byte("!"))
			l.await(func() { lies(t, c, size) })
			deadline := time.Now()
			if tt.late {
				deadline = asked
			}
			_ = c.SetDeadline(deadline)
			l.await(func() { time.Sleep(ms) })
			for err == nil {
				var n int
				n, err = c.Read(make([]byte, piece))
				got += n
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v, want a deadline exceeded", tt.why, err)
			}
		})
		l.stop()
		if err := l.open(true, false); err != nil {
			t.Fatal(err)
		}
		l.serve()
		l.close()
		if got != tt.want {
			t.Errorf("%s: %d bytes were read, want %d", tt.why, got, tt.want)
		}
	}
}
