package http2

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// heap is what is live after a collection. What measures it runs beside nothing else.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// mostGrowth bounds what a connection under attack may hold: its windows for bodies, what
// waits to be written, a header list, and a goroutine for each of 20 streams.
const mostGrowth = 1 << 20

// drain reads what a server sends, so that it isn't held by that.
func (c *client) drain() (ended chan http2.ErrCode) {
	ended = make(chan http2.ErrCode, 1)
	go func() {
		code := http2.ErrCode(0xffff)
		c.until(func(f http2.Frame) bool {
			if g, ok := f.(*http2.GoAwayFrame); ok {
				code = g.ErrCode
			}
			return false
		})
		ended <- code
	}()
	return ended
}

// Requests that are reset as soon as they are sent (CVE-2023-44487), also where who
// serves them doesn't care.
func TestRapidReset(t *testing.T) {
	for _, cares := range []bool{true, false} {
		var running, most, begun atomic.Int64
		release := make(chan bool)
		r := newRig(t, func(s *Stream) {
			begun.Add(1)
			n := running.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			if cares {
				<-s.Context.Done()
			} else {
				<-release
			}
			running.Add(-1)
		})
		before := heap()
		c := r.dial()
		ended := c.drain()
		sent := 0
		for ; sent < 100_000; sent++ {
			if c.ask(uint32(2*sent+1), "/slow", true) != nil || c.WriteRSTStream(uint32(2*sent+1), http2.ErrCodeCancel) != nil {
				break
			}
		}
		grown := heap() - before
		close(release)
		if code := <-ended; code != http2.ErrCodeEnhanceYourCalm && sent == 100_000 {
			t.Errorf("cares %v: ended with %v after %d requests", cares, code, sent)
		}
		if most.Load() > 20 || begun.Load() > 2*20+100+2 {
			t.Errorf("cares %v: %d were begun, %d at once", cares, begun.Load(), most.Load())
		}
		if grown > mostGrowth {
			t.Errorf("cares %v: the heap has grown by %d bytes", cares, grown)
		}
	}
}

// Those who cancel some of what they ask for are no attackers.
func TestSomeResetsAreFine(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *Stream) { <-s.Context.Done() })
	c := r.dial()
	for i := range 2000 {
		c.ask(uint32(4*i+1), "/slow", true)
		c.WriteRSTStream(uint32(4*i+1), http2.ErrCodeCancel)
		c.ask(uint32(4*i+3), "/fast", true)
		if _, body, err := c.answer(uint32(4*i + 3)); body != "at once" || err != nil {
			t.Fatalf("request %d: %q, %v", i, body, err)
		}
	}
}

// More streams than there may be are refused, and the others served.
func TestStreamsBeyondTheLimitAreRefused(t *testing.T) {
	t.Parallel()
	release := make(chan bool)
	c := newRig(t, func(s *Stream) { <-release; respond(s) }).dial()
	for i := range 21 {
		c.ask(uint32(2*i+1), "/slow", true)
	}
	var reset http2.StreamError
	if _, _, err := c.answer(41); !errors.As(err, &reset) || reset.Code != http2.ErrCodeRefusedStream {
		t.Errorf("%v, must be refused", err)
	}
	close(release)
	if _, body, err := c.answer(1); body != "/slow" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}

// A header block that never ends.
func TestContinuationFlood(t *testing.T) {
	r := newRig(t, respond)
	before, peak := heap(), int64(0)
	c := r.dial()
	ended := c.drain()
	block := c.encode("/slow", "x-pad", strings.Repeat("x", 1000))
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true})
	c.enc = hpack.NewEncoder(&c.block)
	c.block.Reset()
	for i := range 10 { // nothing of it is in the table
		c.enc.WriteField(hpack.HeaderField{Name: fmt.Sprint("x-", i), Value: strings.Repeat("y", 1000), Sensitive: true})
	}
	sent := 0
	for ; sent < 100_000 && c.WriteContinuation(1, false, c.block.Bytes()) == nil; sent++ {
		if sent == 50 {
			peak = heap() - before
		}
	}
	if code := <-ended; sent > 3000 { // what both kernels and the end's patience take
		t.Errorf("ended with %v after %d frames of 10 kB", code, sent)
	}
	if peak > mostGrowth || heap()-before > mostGrowth {
		t.Errorf("the heap has grown by %d bytes, then %d", peak, heap()-before)
	}
	t.Logf("ended after %d frames of 10 kB", sent)
}

// A few bytes that say a lot: 4 kB in the table, and as many references to it as a frame
// has bytes. 16,000 of them would be 64 MB.
func TestHPACKBomb(t *testing.T) {
	var tooLong atomic.Bool
	r := newRig(t, func(s *Stream) {
		tooLong.Store(s.TooLong)
		s.Header(AppendStatus(nil, 431), true)
	})
	c := r.dial()
	c.ask(1, "/fast", true, "x-bomb", strings.Repeat("x", 3900))
	c.answer(1)
	before := heap()
	var allocated runtime.MemStats
	runtime.ReadMemStats(&allocated)
	total := allocated.TotalAlloc
	for id := uint32(3); id < 43; id += 2 {
		block := append([]byte(nil), c.encode("/fast")...)
		for len(block) < maxFrame {
			block = append(block, 0x80|62) // the table's latest
		}
		c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true})
		if status, _, err := c.answer(id); status != "431" || err != nil || !tooLong.Load() {
			t.Fatalf("status %q, %v, must be 431", status, err)
		}
	}
	c.ask(43, "/slow", true, "trailer", strings.Repeat("0", 12<<10), "x-pad", strings.Repeat("0", 12<<10))
	if status, _, err := c.answer(43); status != "431" || err != nil || !tooLong.Load() {
		t.Errorf("twice the bound, half of it in a field Trailer: status %q, %v, must be 431", status, err)
	}
	runtime.ReadMemStats(&allocated)
	if grown, work := heap()-before, allocated.TotalAlloc-total; grown > mostGrowth || work > 20*(1<<20) {
		t.Errorf("the heap has grown by %d bytes; %d were allocated for 20 requests", grown, work)
	}
}

// Frames that ask for nothing, from a client that reads the answers and from one that
// doesn't: the first hears that it is enough, of the second nothing more is read.
func TestFloodsOfFrames(t *testing.T) {
	r := newRig(t, respond)
	for _, tt := range []struct {
		what string
		send func(*client) error
	}{
		{"SETTINGS", func(c *client) error {
			return c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
		}},
		{"PING", func(c *client) error { return c.WritePing(false, [8]byte{}) }},
		{"PRIORITY", func(c *client) error { return c.WritePriority(3, http2.PriorityParam{}) }},
		{"empty DATA", func(c *client) error { return c.WriteData(1, false, nil) }},
		{"WINDOW_UPDATE", func(c *client) error { return c.WriteWindowUpdate(1, 1) }},
		{"RST_STREAM", func(c *client) error { return c.WriteRSTStream(1, http2.ErrCodeCancel) }},
		{"unknown", func(c *client) error { return c.WriteRawFrame(0xbe, 0, 0, []byte("x")) }},
	} {
		before := heap()
		c := r.dial()
		c.ask(1, "/slow", tt.what == "RST_STREAM")
		ended := c.drain()
		sent := 0
		for ; sent < 1_000_000 && tt.send(c) == nil; sent++ {
		}
		if code := <-ended; sent == 1_000_000 || code != http2.ErrCodeEnhanceYourCalm && code != 0xffff {
			t.Errorf("%s: ended with %v after %d", tt.what, code, sent)
		}
		if grown := heap() - before; grown > mostGrowth {
			t.Errorf("%s: the heap has grown by %d bytes", tt.what, grown)
		}
		t.Logf("%s: %d frames were taken by both kernels and the server", tt.what, sent)
	}
	for _, what := range []string{"SETTINGS", "PING"} {
		before := heap()
		c := r.dial()
		c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond)) // it is stuck by then, or fast enough for what follows
		sent := 0
		for err := error(nil); err == nil && sent < 10_000_000; sent++ {
			if what == "PING" {
				err = c.WritePing(false, [8]byte{})
			} else {
				err = c.WriteSettings()
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
		}
		if grown := heap() - before; grown > mostGrowth {
			t.Errorf("%s, and nothing is read: the heap has grown by %d bytes after %d frames", what, grown, sent)
		}
		c.Conn.Close()
	}
}

// A long download with small windows is no flood.
func TestManyWindowUpdatesAreFine(t *testing.T) {
	t.Parallel()
	const size = 3 * maxUseless
	c := newRig(t, func(s *Stream) {
		s.Header(AppendStatus(nil, 200), false)
		s.Send(make([]byte, size), true)
	}).dial(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	c.ask(1, "/", true)
	for got := 0; got < size; {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
		if d, ok := f.(*http2.DataFrame); ok && len(d.Data()) > 0 {
			got += len(d.Data())
			c.WriteWindowUpdate(1, 1)
		}
	}
}

// Bodies that nobody reads wait in their windows, and no further.
func TestBodiesBeyondTheirWindowsAreRefused(t *testing.T) {
	release := make(chan bool)
	r := newRig(t, func(*Stream) { <-release })
	defer close(release)
	before := heap()
	c := r.dial()
	for id := uint32(1); id < 40; id += 2 {
		c.ask(id, "/", false)
		for range 3 {
			c.WriteData(id, false, make([]byte, maxFrame))
		}
	}
	c.wantGoAway("960 kB of bodies", http2.ErrCodeFlowControl)
	if grown := heap() - before; grown > mostGrowth {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	c = r.dial()
	c.ask(1, "/", false)
	for range 5 {
		c.WriteData(1, false, make([]byte, maxFrame))
	}
	var reset http2.StreamError
	if _, _, err := c.answer(1); !errors.As(err, &reset) || reset.Code != http2.ErrCodeFlowControl {
		t.Errorf("80 kB of one body: %v", err)
	}
}

// Many clients who ask for much, and take nothing of it: what is answered at once, and what
// comes through streams, each of which would have a frame ready.
func TestClientsThatTakeNothing(t *testing.T) {
	const clients, streams = 50, 20
	body := make([]byte, 30<<10)
	stuck := make(chan bool)
	r := newRig(t, func(s *Stream) {
		s.Header(AppendStatus(nil, 200), s.Path == "/fast")
		if s.Path == "/slow" && s.ID < 2*(streams-2) { // all but the last two
			<-stuck
		}
		for s.Path == "/slow" && s.Send(body, false) == nil {
		}
	}, func(c *Config) {
		c.MaxUnsent = 100 << 10
		c.Replier = func() Reply {
			return func(out []byte, r *Request, room int) ([]byte, int, bool) {
				if r.Path != "/fast" || len(body) > room {
					return out, 0, false
				}
				at := len(out)
				out = EndHeaders(AppendStatus(r.BeginHeaders(out), 200), at, r.Stream, false)
				return AppendData(AppendData(out, r.Stream, body[:MaxData], false), r.Stream, body[MaxData:], true), len(body), true
			}
		}
	})
	held := func() int64 { // the stacks of those that wait are no answers
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for _, path := range []string{"/fast", "/slow"} {
		most := int64(clients*(24<<10) + mostGrowth)
		if path == "/slow" {
			most += clients * streams * (3 << 10) // what else a stream has
		}
		before := held()
		var all []*client
		for range clients {
			c := r.dial(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
			c.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			c.WriteWindowUpdate(0, 1<<30)
			all = append(all, c)
			if path == "/fast" {
				c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // it is stuck by then
				for id := uint32(1); id < 1_000_000 && c.ask(id, path, true) == nil; id += 2 {
				}
				continue
			}
			for n := range uint32(streams) {
				c.ask(2*n+1, path, true)
			}
		}
		if path == "/slow" {
			r.await("all have begun, and two have filled what takes an answer", func(c *conn) bool {
				return c.running == streams && c.writing && len(c.out) > c.most()
			})
			close(stuck)
			time.Sleep(50 * time.Millisecond) // for what they might do wrong
		}
		grown := held() - before
		for begun := time.Now(); grown > most && time.Since(begun) < 5*time.Second; grown = held() - before {
			time.Sleep(50 * time.Millisecond) // the kernels may still take some, which leaves garbage
		}
		if grown > most {
			t.Errorf("%s: %d clients hold %d bytes, want at most %d", path, clients, grown, most)
		} else {
			t.Logf("%s: %d clients hold %d bytes", path, clients, grown)
		}
		for _, c := range all {
			c.Conn.Close()
		}
		r.await("all have left", func(*conn) bool { return false })
		if left := r.server.unsent.Load(); left != 0 {
			t.Errorf("%s: %d bytes count as unsent when all have left", path, left)
		}
	}
}

// Many clients, each with requests under way that take much to keep. There is a bound on what
// all have, and who asks for little is served all the same.
func TestManyClientsWithLargeRequests(t *testing.T) {
	const clients, size, most = 30, 12 << 10, 256 << 10
	for _, tt := range []struct {
		what, path string
		streams    int
		pad        int    // bytes of each header
		frames     int    // of each body, size bytes each
		over       int64  // what each client may keep beyond the bound
		want       string // the answer on the last stream; none: it is refused
	}{
		{what: "header lists", path: "/slow", streams: 20, pad: size},
		{what: "bodies", path: "/slow", streams: 2, frames: 5, over: fewKept + 2*maxFrame, want: strconv.Itoa(5 * size)},
		{what: "bodies that were read", path: "/read", streams: 10, frames: 1, over: fewKept + 2*maxFrame, want: strconv.Itoa(size)},
	} {
		release := make(chan bool)
		r := newRig(t, func(s *Stream) {
			n := 0
			if s.Path == "/read" {
				n, _ = io.ReadFull(s, make([]byte, size))
			}
			if s.Path != "/" {
				<-release
			}
			rest, _ := io.ReadAll(s)
			s.Header(AppendStatus(nil, 200), false)
			s.Send(strconv.AppendInt(nil, int64(n+len(rest)), 10), true)
		}, func(c *Config) { c.MaxKept = most })
		last := uint32(2*tt.streams - 1)
		before := heap()
		var all []*client
		for range clients {
			c := r.dial()
			for id := uint32(1); id <= last; id += 2 {
				c.ask(id, tt.path, tt.frames == 0, "x-pad", strings.Repeat("x", tt.pad))
			}
			for id := uint32(1); id <= last; id += 2 {
				for n := range tt.frames {
					c.WriteData(id, n == tt.frames-1, make([]byte, size))
				}
			}
			all = append(all, c)
		}
		r.await("all has come that will", func(c *conn) bool {
			arrived := 0
			for _, s := range c.streams {
				arrived += int(s.arrived)
			}
			came := c.last == last && arrived == tt.streams*tt.frames*size
			if tt.path == "/read" {
				return came && c.room+c.owed == maxUnread
			}
			return came || c.full()
		})
		var sum int64
		r.server.all(func(c *conn) bool { sum += int64(c.kept); return true })
		if kept := r.server.kept.Load(); kept != sum || kept < most/2 || kept > most+clients*tt.over {
			t.Errorf("%s: %d bytes are kept, %d on all connections, want at most %d", tt.what, kept, sum, most+clients*tt.over)
		}
		if grown := heap() - before; grown > most+clients*(tt.over+96<<10)+mostGrowth { // the clients and their streams are in it
			t.Errorf("%s: the heap has grown by %d bytes", tt.what, grown)
		} else {
			t.Logf("%s: %d bytes are kept, the heap has grown by %d", tt.what, sum, grown)
		}
		honest := r.dial()
		for i, frames := range [][]int{{12}, {12}, {12}, {size, size, size, size, size}} { // the last is read as it comes
			id, sent := uint32(2*i+1), 0
			honest.ask(id, "/", false)
			for n, bytes := range frames {
				sent += bytes
				honest.WriteData(id, n == len(frames)-1, make([]byte, bytes))
			}
			if _, body, err := honest.answer(id); body != strconv.Itoa(sent) || err != nil {
				t.Errorf("%s: a small request with %d bytes beside them: %q, %v", tt.what, sent, body, err)
			}
		}
		honest.ask(9, "/fast", true, "x-pad", strings.Repeat("x", size))
		if _, body, err := honest.answer(9); body != "at once" || err != nil {
			t.Errorf("%s: a hit beside them: %q, %v", tt.what, body, err)
		}
		if tt.path == "/read" {
			all[0].ask(last+2, "/", true)
			if _, body, err := all[0].answer(last + 2); body != "0" || err != nil {
				t.Errorf("%s: a small request of one that has buffers for bodies: %q, %v", tt.what, body, err)
			}
		}
		close(release)
		for _, c := range all {
			_, body, err := c.answer(last)
			var reset http2.StreamError
			if errors.As(err, &reset); body != tt.want || tt.want == "" && reset.Code != http2.ErrCodeRefusedStream || tt.want != "" && err != nil {
				t.Errorf("%s: the answer on the last stream is %q, %v, want %q", tt.what, body, err, tt.want)
			}
			c.Conn.Close()
		}
		r.await("nothing is kept", func(*conn) bool { return r.server.kept.Load() == 0 })
	}
}

// What a connection has asked for, and was answered with, is no part of what it costs while
// it is idle.
func TestIdleConnectionsHoldNoAnswers(t *testing.T) {
	const clients, streams = 50, 4
	body := make([]byte, 60<<10)
	r := newRig(t, func(s *Stream) {
		s.Header(AppendStatus(nil, 200), false)
		s.Send(body, true)
	})
	before := heap()
	for range clients {
		c := r.dial(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		c.SetReuseFrames()
		c.WriteWindowUpdate(0, 1<<20)
		for id := uint32(1); id < 2*streams; id += 2 {
			c.ask(id, "/", true)
		}
		for ended := 0; ended < streams; {
			f, err := c.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
				ended++
			}
		}
	}
	r.await("nobody's last request is kept", func(c *conn) bool { return c.request.Path == "" })
	if grown := heap() - before; grown > clients*(48<<10)+mostGrowth { // the clients' own frames are in it
		t.Errorf("%d idle clients hold %d bytes", clients, grown)
	} else {
		t.Logf("%d idle clients hold %d bytes", clients, grown)
	}
}
