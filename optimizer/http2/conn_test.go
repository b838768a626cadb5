package http2

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestAnswersOfBothKinds(t *testing.T) {
	t.Parallel()
	c := newRig(t, respond).dial()
	for i, tt := range []struct{ path, body, want string }{
		{"/fast", "", "at once"}, {"/slow", "", "/slow"}, {"/slow", "with a body", "/slowwith a body"}, {"/fast", "", "at once"},
		{"/fast", "x", "/fastx"}, // a body is no matter of Reply
	} {
		id := uint32(2*i + 1)
		c.ask(id, tt.path, tt.body == "")
		if tt.body != "" {
			c.WriteData(id, true, []byte(tt.body))
		}
		if status, body, err := c.answer(id); status != "200" || body != tt.want || err != nil {
			t.Errorf("%s %q: %s %q, %v", tt.path, tt.body, status, body, err)
		}
	}
}

// An answer's end closes its stream for the client, whatever is still done about it here:
// another HEADERS on it ends the connection (RFC 9113 §5.1).
func TestAnAnswersEndClosesItsStream(t *testing.T) {
	t.Parallel()
	release := make(chan bool)
	c := newRig(t, func(s *Stream) {
		respond(s)
		<-release
	}).dial()
	c.ask(1, "/slow", true)
	if _, body, err := c.answer(1); body != "/slow" || err != nil {
		t.Fatalf("%q, %v", body, err)
	}
	c.ask(1, "/slow", true)
	time.AfterFunc(100*time.Millisecond, func() { close(release) }) // the goroutine outlives the frame
	c.wantGoAway("HEADERS on a stream whose answer is complete", http2.ErrCodeStreamClosed)
}

// Windows bound what is sent, of a stream and of all; settings change those that are open.
func TestWindowsAreKept(t *testing.T) {
	t.Parallel()
	want := strings.Repeat("0123456789", 20_000)
	r := newRig(t, func(s *Stream) {
		s.Header(AppendStatus(nil, 200), false)
		s.Send([]byte(want), true)
	})
	c := r.dial(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	c.ask(1, "/fast", true) // 7 bytes have room
	if _, body, err := c.answer(1); body != "at once" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	c.ask(3, "/large", true)
	got := ""
	read := func(n int) {
		t.Helper()
		for len(got) < n {
			f, err := c.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if d, ok := f.(*http2.DataFrame); ok {
				got += string(d.Data())
			}
		}
		c.WritePing(false, [8]byte{byte(n)}) // nothing else comes before its answer
		for {
			f, err := c.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := f.(*http2.PingFrame); ok {
				break
			}
			if d, ok := f.(*http2.DataFrame); ok {
				got += string(d.Data())
			}
		}
		if len(got) != n {
			t.Fatalf("%d bytes came, must be %d", len(got), n)
		}
	}
	read(10)
	c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
	read(1000)
	c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}) // the window is below 0 now
	c.WriteWindowUpdate(3, 1500)
	read(1500)
	c.WriteWindowUpdate(3, 1<<20)
	read(initialWindow - 7) // the connection's
	c.WriteWindowUpdate(0, 1<<20)
	read(len(want))
	if got != want {
		t.Error("not what was sent")
	}
}

// waking counts how often those who wait are woken.
type waking struct {
	sync.Locker
	n atomic.Int64
}

func (w *waking) Lock() {
	w.n.Add(1)
	w.Locker.Lock()
}

// Room on the connection is for those who have waited for it longest, one at a time: a byte
// of it wakes one of many, and if he has gone, the next.
func TestTheConnectionsWindowWakesOne(t *testing.T) {
	t.Parallel()
	const streams, bytes = 20, 100
	var woken waking
	r := newRig(t, func(s *Stream) {
		s.conn.mu.Lock()
		if woken.Locker == nil {
			woken.Locker = &s.conn.mu
		}
		s.changed.L = &woken
		s.conn.mu.Unlock()
		s.Header(AppendStatus(nil, 200), false)
		s.Send(make([]byte, 1<<20), true)
	})
	c := r.dial(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	data := func() (stream uint32, size int) {
		f, err := c.until(func(f http2.Frame) bool { _, ok := f.(*http2.DataFrame); return ok })
		if err != nil {
			t.Fatal(err)
		}
		return f.Header().StreamID, len(f.(*http2.DataFrame).Data())
	}
	for n := range uint32(streams) {
		c.ask(2*n+1, "/", true)
	}
	for got := 0; got < initialWindow; {
		_, n := data()
		got += n
	}
	var line []uint32
	wait := func(n int) {
		r.await("all wait", func(c *conn) bool {
			line = line[:0]
			for _, s := range c.line {
				line = append(line, s.ID)
			}
			return len(line) == n
		})
	}
	wait(streams)
	before := woken.n.Load()
	for range bytes {
		next := line[0]
		c.WriteWindowUpdate(0, 1)
		if stream, n := data(); stream != next || n != 1 {
			t.Fatalf("%d bytes on stream %d, want one on %d", n, stream, next)
		}
		wait(streams)
	}
	if n := woken.n.Load() - before; n != bytes {
		t.Errorf("%d bytes have woken %d streams", bytes, n)
	}
	for left := streams - 1; left > 0; left-- {
		next := line[0]
		c.WriteWindowUpdate(0, 1)
		c.WriteRSTStream(next, http2.ErrCodeCancel)
		if stream, _ := data(); stream == next { // he was faster
			c.WriteWindowUpdate(0, 1)
			data()
		}
		wait(left)
	}
}

// A body goes through, however long, and no more of it waits than its window.
func TestBodiesAreReadAsTheyCome(t *testing.T) {
	t.Parallel()
	go1, waiting := make(chan bool), make(chan int, 1)
	r := newRig(t, func(s *Stream) {
		<-go1
		s.conn.mu.Lock()
		waiting <- len(s.unread)
		s.conn.mu.Unlock()
		respond(s)
	})
	c := r.dial()
	c.ask(1, "/", false, "content-length", "1000000")
	body, room, all := bytes.Repeat([]byte("x"), 1_000_000), initialWindow, initialWindow
	released := false
	for sent := 0; sent < len(body); {
		if n := min(room, all, maxFrame, len(body)-sent); n > 0 {
			c.WriteData(1, sent+n == len(body), body[sent:sent+n])
			sent, room, all = sent+n, room-n, all-n
			continue
		}
		if !released {
			c.WritePing(false, [8]byte{}) // when it is answered, all was read
			c.until(func(f http2.Frame) bool {
				if w, ok := f.(*http2.WindowUpdateFrame); ok && w.StreamID == 0 {
					all += int(w.Increment)
				}
				_, ok := f.(*http2.PingFrame)
				return ok
			})
			close(go1)
			if n := <-waiting; n != initialWindow {
				t.Errorf("%d bytes wait, must be a window", n)
			}
			released = true
		}
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if w, ok := f.(*http2.WindowUpdateFrame); ok {
			if w.StreamID == 0 {
				all += int(w.Increment)
			} else {
				room += int(w.Increment)
			}
		}
	}
	c.WriteWindowUpdate(0, 2<<20)
	c.WriteWindowUpdate(1, 2<<20)
	if _, got, err := c.answer(1); len(got) != len(body)+1 || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// What a client must hear of what it does wrong. h2spec has the rest.
func TestWrongRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, respond)
	for _, tt := range []struct {
		why  string
		more []string
		want http2.ErrCode
	}{
		{"a connection's own field", []string{"connection", "close"}, http2.ErrCodeProtocol},
		{"TE that isn't trailers", []string{"te", "gzip"}, http2.ErrCodeProtocol},
		{"a host that isn't :authority", []string{"host", "b"}, http2.ErrCodeProtocol},
		{"two lengths", []string{"content-length", "3", "content-length", "4"}, http2.ErrCodeProtocol},
		{"a length with a sign", []string{"content-length", "+3"}, http2.ErrCodeProtocol},
		{"a length without a body", []string{"content-length", "3"}, http2.ErrCodeProtocol},
		{"a status", []string{":status", "200"}, http2.ErrCodeProtocol},
		{"a protocol", []string{":protocol", "websocket"}, http2.ErrCodeProtocol}, // of RFC 8441, which isn't offered
		{"an upper-case name", []string{"X-A", "b"}, http2.ErrCodeProtocol},
		{"a line break", []string{"x-a", "b\r\nc: d"}, http2.ErrCodeProtocol},
		{"a value that begins with a space", []string{"x-a", " b"}, http2.ErrCodeProtocol},
		{"a value that ends with a space", []string{"x-a", "b "}, http2.ErrCodeProtocol},
		{"a value that begins with a tab", []string{"x-a", "\tb"}, http2.ErrCodeProtocol},
		{"a value that ends with a tab", []string{"x-a", "b\t"}, http2.ErrCodeProtocol},
		// Whitespace within one is a value's own, and an empty value has none.
		{"a space within", []string{"x-a", "b c", "x-b", ""}, http2.ErrCodeNo},
	} {
		c := r.dial()
		c.AllowIllegalWrites = true
		c.ask(1, "/fast", true, tt.more...)
		_, _, err := c.answer(1)
		var reset http2.StreamError
		if errors.As(err, &reset); reset.Code != tt.want || tt.want == http2.ErrCodeNo && err != nil {
			t.Errorf("%s: %v, must be %v", tt.why, err, tt.want)
		}
	}
	c := r.dial()
	c.ask(1, "/slow", false)
	c.block.Reset()
	c.enc.WriteField(hpack.HeaderField{Name: "x-a", Value: "b "})
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block.Bytes(), EndStream: true, EndHeaders: true})
	var reset http2.StreamError
	if _, _, err := c.answer(1); !errors.As(err, &reset) || reset.Code != http2.ErrCodeProtocol {
		t.Errorf("a trailer that ends with a space: %v, must be %v", err, http2.ErrCodeProtocol)
	}
}

// What isn't a stream's fault alone ends the connection, with a word on why.
func TestWrongFrames(t *testing.T) {
	t.Parallel()
	r := newRig(t, respond)
	for _, tt := range []struct {
		why  string
		say  func(*client)
		want http2.ErrCode
	}{
		{"a request on a stream that isn't the client's", func(c *client) { c.ask(2, "/fast", true) }, http2.ErrCodeProtocol},
		{"a malformed one there", func(c *client) { c.ask(2, "/fast", true, "X-A", "b") }, http2.ErrCodeProtocol},
		{"a frame without the length of its padding", func(c *client) {
			c.ask(1, "/slow", false)
			c.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, nil)
		}, http2.ErrCodeFrameSize},
	} {
		c := r.dial()
		tt.say(c)
		c.wantGoAway(tt.why, tt.want)
	}
}

// A body that isn't wanted any more is no reason to end the connection, trailers neither.
func TestTheRestOfAnUnwantedRequestIsIgnored(t *testing.T) {
	t.Parallel()
	c := newRig(t, func(s *Stream) { s.Header(AppendStatus(nil, 413), true) }).dial()
	c.ask(1, "/", false)
	if status, _, err := c.answer(1); status != "413" || err != nil {
		t.Fatal(status, err)
	}
	for range 1000 { // more than would count as an attack
		c.WriteData(1, false, []byte("more"))
	}
	c.block.Reset()
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{}, EndStream: true, EndHeaders: true})
	c.ask(3, "/fast", true)
	if _, body, err := c.answer(3); body != "at once" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}

// A stream whose Serve doesn't answer, or not whole, is reset.
func TestAnAnswerThatIsNotWholeIsReset(t *testing.T) {
	t.Parallel()
	c := newRig(t, func(s *Stream) {
		if s.Path == "/half" {
			s.Header(AppendStatus(nil, 200), false)
			s.Send([]byte("half"), false)
		}
	}).dial()
	for i, path := range []string{"/none", "/half"} {
		c.ask(uint32(2*i+1), path, true)
		var reset http2.StreamError
		if _, _, err := c.answer(uint32(2*i + 1)); !errors.As(err, &reset) || reset.Code != http2.ErrCodeInternal {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// RST_STREAM and the connection's end reach the one who serves, wherever he waits.
func TestWhoHasGoneIsNotServed(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"resets", "closes"} {
		for _, where := range []string{"/context", "/read", "/send"} {
			ended, begun := make(chan error, 1), make(chan bool)
			r := newRig(t, func(s *Stream) {
				close(begun)
				var err error
				switch where {
				case "/context":
					<-s.Context.Done()
				case "/read":
					_, err = io.ReadAll(s)
				case "/send":
					s.Header(AppendStatus(nil, 200), false)
					err = s.Send(make([]byte, 1<<20), true)
				}
				ended <- err
			})
			c := r.dial()
			c.ask(1, where, false)
			<-begun
			if how == "resets" {
				c.WriteRSTStream(1, http2.ErrCodeCancel)
			} else {
				c.Conn.Close()
			}
			select {
			case err := <-ended:
				if (where == "/context") != (err == nil) {
					t.Errorf("%s in %s: %v", how, where, err)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s in %s: still served", how, where)
			}
		}
	}
}

// deafened is a client's connection that isn't read for a while.
type deafened struct {
	net.Conn
	deaf atomic.Bool
}

func (d *deafened) Read(b []byte) (int, error) {
	for d.deaf.Load() {
		time.Sleep(time.Second)
	}
	return d.Conn.Read(b)
}

// Leave: what was sent before the client could know is answered, what is under way is
// finished, and what comes later is nobody's.
func TestLeave(t *testing.T) {
	t.Parallel()
	finish, begun := make(chan bool), make(chan bool, 1)
	r := newRig(t, func(s *Stream) {
		begun <- true
		<-finish
		respond(s)
	})
	c, silent := r.dial(), r.dial()
	goAway := func(c *client, last uint32) {
		t.Helper()
		f, err := c.until(func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok })
		if err != nil || f.(*http2.GoAwayFrame).LastStreamID != last || f.(*http2.GoAwayFrame).ErrCode != http2.ErrCodeNo {
			t.Fatalf("%v, %v, must be GOAWAY with %d", f, err, last)
		}
	}
	c.ask(1, "/slow", true)
	<-begun
	silent.ask(1, "/fast", true)
	silent.answer(1)
	r.server.leave(warned)
	goAway(c, math.MaxInt32)
	goAway(silent, math.MaxInt32)
	c.ask(3, "/fast", true)
	if _, body, err := c.answer(3); body != "at once" || err != nil {
		t.Errorf("a request within the grace: %q, %v", body, err)
	}
	r.server.leave(ending)
	goAway(c, 3)
	goAway(silent, 1)
	if _, err := silent.until(func(http2.Frame) bool { return true }); !errors.Is(err, io.EOF) {
		t.Errorf("silent: %v, must be closed", err)
	}
	c.ask(5, "/fast", false)
	c.WriteData(5, false, []byte("x"))
	c.WriteWindowUpdate(5, 1)
	c.WriteRSTStream(5, http2.ErrCodeCancel)
	c.ask(7, "/fast", true, "X-A", "malformed")
	c.WritePing(false, [8]byte{})
	if f, err := c.until(func(http2.Frame) bool { return true }); err != nil || f.Header().Type != http2.FramePing {
		t.Errorf("after requests that aren't looked at: %v, %v, must be the answer to PING", f, err)
	}
	close(finish)
	if _, body, err := c.answer(1); body != "/slow" || err != nil {
		t.Errorf("under way: %q, %v", body, err)
	}
	if f, err := c.until(func(http2.Frame) bool { return true }); !errors.Is(err, io.EOF) {
		t.Errorf("then: %v, %v, must be closed without a word on the last request", f, err)
	}
	late := r.dial()
	goAway(late, math.MaxInt32)
	goAway(late, 0)
}
