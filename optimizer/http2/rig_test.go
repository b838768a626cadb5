package http2

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a server at an address of its own.
type rig struct {
	t      *testing.T
	server *Server
	addr   string
}

func newRig(t *testing.T, serve func(*Stream), change ...func(*Config)) *rig {
	t.Helper()
	cfg := Config{
		Replier: func() Reply { return small }, Serve: serve,
		MaxUnsent: 1 << 20, MaxKept: 1 << 20, MaxPending: 64 << 20, MaxStreams: 20, MaxHeader: 16 << 10, Idle: 20 * time.Second, Read: 20 * time.Second, Write: 20 * time.Second,
	}
	for _, c := range change {
		c(&cfg)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, server: New(cfg), addr: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { r.server.Serve(nc) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.server.Leave(0)
		all.Wait()
		r.server.Wait()
	})
	return r
}

// await waits until so it is with each connection.
func (r *rig) await(what string, so func(*conn) bool) {
	r.t.Helper()
	for begun := time.Now(); !r.server.all(so); time.Sleep(time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			r.t.Fatalf("in vain: %s", what)
		}
	}
}

// all reports whether so it is with each connection.
func (s *Server) all(so func(*conn) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.mu.Lock()
		ok := so(c)
		c.mu.Unlock()
		if !ok {
			return false
		}
	}
	return true
}

// small answers /fast at once.
func small(out []byte, r *Request, room int) ([]byte, int, bool) {
	body := []byte("at once")
	if r.Path != "/fast" || room < len(body) {
		return out, 0, false
	}
	at := len(out)
	out = EndHeaders(AppendField(AppendStatus(r.BeginHeaders(out), 200), []byte("Server"), []byte("rig")), at, r.Stream, false)
	return AppendData(out, r.Stream, body, true), len(body), true
}

// client speaks frames.
type client struct {
	t *testing.T
	net.Conn
	*http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
}

// dial connects and exchanges prefaces; the client's first settings are given.
func (r *rig) dial(settings ...http2.Setting) *client {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	c := &client{t: r.t, Conn: nc, Framer: http2.NewFramer(nc, nc)}
	c.enc = hpack.NewEncoder(&c.block)
	c.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	io.WriteString(nc, Preface)
	c.WriteSettings(settings...)
	return c
}

// encode makes a header block; more are names and values.
func (c *client) encode(path string, more ...string) []byte {
	c.block.Reset()
	for i, all := 0, append([]string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", path}, more...); i < len(all); i += 2 {
		c.enc.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]})
	}
	return c.block.Bytes()
}

// ask sends a request's header.
func (c *client) ask(stream uint32, path string, end bool, more ...string) error {
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.encode(path, more...), EndStream: end, EndHeaders: true})
}

// until reads frames until one is wanted, or the connection ends. It returns the last
// frame it read, and why there is no other.
func (c *client) until(wanted func(http2.Frame) bool) (http2.Frame, error) {
	var last http2.Frame
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return last, err
		}
		if last = f; wanted(f) {
			return f, nil
		}
	}
}

// answer reads one stream's answer: status and body.
func (c *client) answer(stream uint32) (status, body string, err error) {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return status, body, err
		}
		if f.Header().StreamID != stream {
			continue
		}
		ended := false
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			status, ended = f.PseudoValue("status"), f.StreamEnded()
		case *http2.DataFrame:
			body, ended = body+string(f.Data()), f.StreamEnded()
		case *http2.RSTStreamFrame:
			return status, body, http2.StreamError{StreamID: stream, Code: f.ErrCode}
		}
		if ended {
			return status, body, nil
		}
	}
}

// wantGoAway reads to the connection's end, which must come with this code.
func (c *client) wantGoAway(what string, code http2.ErrCode) {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var got *http2.GoAwayFrame
	_, err := c.until(func(f http2.Frame) bool {
		if g, ok := f.(*http2.GoAwayFrame); ok {
			got = &http2.GoAwayFrame{LastStreamID: g.LastStreamID, ErrCode: g.ErrCode}
		}
		return false
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.t.Errorf("%s: the connection stays open", what)
	case got == nil || got.ErrCode != code:
		c.t.Errorf("%s: ended by %+v, %v, must be GOAWAY with %v", what, got, err, code)
	}
}

// respond is a Serve that answers with the request's body after its path.
func respond(s *Stream) {
	body, err := io.ReadAll(s)
	if err != nil {
		return
	}
	if s.Header(AppendStatus(nil, 200), false) == nil {
		s.Send(append([]byte(s.Path), body...), true)
	}
}
