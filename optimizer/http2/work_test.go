//go:build unix

package http2

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// script is a client that has all it says ready, and takes everything. Each Read gives it
// one piece, so that it is known what was read when the server has had enough.
type script struct {
	pieces func(n int) []byte // nil: that is all
	rest   []byte
	given  int
	bytes  int
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		if s.rest = s.pieces(s.given); s.rest == nil {
			return 0, io.EOF
		}
		s.given++
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	s.bytes += n
	return n, nil
}

func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) Close() error                     { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (s *script) LocalAddr() net.Addr              { return s.RemoteAddr() }

// attack is what a client says after its preface; the numbers are bounds.
type attack struct {
	what    string
	open    int                         // requests under way before it begins
	send    bool                        // they wait for a window, not for their client's end
	say     func(c *client, stream int) // again and again; stream is a new one's
	once    func(c *client)             // before that
	most    int                         // pieces that are read of it
	streams int                         // goroutines that are started
	cfg     func(*Config)
}

var attacks = []attack{
	{what: "rapid reset", most: 2*20 + 100 + 1, streams: 20 + 2*20 + 100, say: func(c *client, stream int) {
		c.ask(uint32(stream), "/slow", true)
		c.WriteRSTStream(uint32(stream), http2.ErrCodeCancel)
	}},
	{what: "requests beyond the limit", open: 20, most: 2*20 + 100 + 1, streams: 20, say: func(c *client, stream int) { c.ask(uint32(stream), "/slow", true) }},
	{what: "malformed requests", most: 2*20 + 100 + 1, say: func(c *client, stream int) { c.ask(uint32(stream), "/slow", true, "upgrade", "x") }},
	{what: "CONTINUATION", most: 10, once: func(c *client) {
		c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode("/slow"), EndStream: true})
	}, say: func(c *client, _ int) {
		c.block.Reset()
		for range 10 { // nothing of it is in the table
			c.enc.WriteField(hpack.HeaderField{Name: "x-pad", Value: strings.Repeat("y", 1000), Sensitive: true})
		}
		c.WriteContinuation(1, false, c.block.Bytes())
	}},
	{what: "empty CONTINUATION", most: (2*16<<10 + 2*maxFrame) / frameHeader, once: func(c *client) {
		c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode("/slow"), EndStream: true})
	}, say: func(c *client, _ int) { c.WriteContinuation(1, false, nil) }},
	{what: "SETTINGS", open: 1, most: maxUseless + 1, streams: 1, say: func(c *client, _ int) { c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}) }},
	{what: "SETTINGS that differ", open: 1, most: maxResized + 1, streams: 1, say: func(c *client, stream int) {
		c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(stream)})
	}},
	{what: "PING", open: 1, most: maxUseless + 1, streams: 1, say: func(c *client, _ int) { c.WritePing(false, [8]byte{}) }},
	{what: "PRIORITY", open: 1, most: maxUseless + 1, streams: 1, say: func(c *client, _ int) { c.WritePriority(3, http2.PriorityParam{}) }},
	{what: "empty DATA", open: 1, most: maxUseless + 1, streams: 1, say: func(c *client, _ int) { c.WriteData(1, false, nil) }},
	{what: "WINDOW_UPDATE", open: 1, most: maxUseless + 1, streams: 1, say: func(c *client, _ int) { c.WriteWindowUpdate(1, 1) }},
	{what: "RST_STREAM", open: 1, most: maxUseless + 1, streams: 1, say: func(c *client, _ int) { c.WriteRSTStream(1, http2.ErrCodeCancel) }},
	{what: "unknown", open: 1, most: maxUseless + 1, streams: 1, say: func(c *client, _ int) { c.WriteRawFrame(0xbe, 0, 0, []byte("x")) }},
}

// run has a server read an attack from scratch, until it has enough, or bytes were read.
func (a *attack) run(serve func(*Stream), bytesMost int) (read *script) {
	cfg := Config{
		Replier: func() Reply { return small }, Serve: serve,
		MaxUnsent: 1 << 20, MaxStreams: 20, MaxHeader: 16 << 10, Idle: 20 * time.Second, Read: 20 * time.Second, Write: 20 * time.Second,
	}
	if a.cfg != nil {
		a.cfg(&cfg)
	}
	var out bytes.Buffer
	c := &client{Framer: http2.NewFramer(&out, nil)}
	c.AllowIllegalWrites = true
	c.enc = hpack.NewEncoder(&c.block)
	out.WriteString(Preface)
	c.WriteSettings()
	for n := range a.open {
		c.ask(uint32(2*n+1), "/slow", false)
	}
	if a.once != nil {
		a.once(c)
	}
	server := New(cfg)
	read = &script{}
	read.pieces = func(n int) []byte {
		for n == 1 && a.send && !server.all(func(c *conn) bool { return len(c.line) >= a.open-1 }) {
			time.Sleep(time.Millisecond)
		}
		if n > 0 {
			if read.bytes >= bytesMost {
				return nil
			}
			out.Reset()
			a.say(c, 2*(a.open+n)-1)
		}
		return out.Bytes()
	}
	server.Serve(read)
	server.Wait()
	return read
}

// What is read of a client that attacks, and started for it, until it has had its end.
func TestAttacksEndEarly(t *testing.T) {
	t.Parallel()
	for _, a := range attacks {
		t.Run(a.what, func(t *testing.T) {
			t.Parallel()
			var begun atomic.Int64
			read := a.run(func(s *Stream) {
				begun.Add(1)
				<-s.Context.Done()
			}, 100<<20)
			if got := read.given - 1; got > a.most || int(begun.Load()) > a.streams {
				t.Errorf("it went on for %d pieces, and began %d streams; want at most %d and %d", got, begun.Load(), a.most, a.streams)
			} else {
				t.Logf("ended after %d pieces and %d bytes, %d streams", got, read.bytes, begun.Load())
			}
		})
	}
}

// cpu is what the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A byte of an attack costs little more than one of honest requests does: nothing that a
// client sends makes work that grows faster than what it sends. Beside nothing else.
func TestTheWorkOfAttacks(t *testing.T) {
	const most, size = 5, 256 << 10
	body := make([]byte, 1<<20)
	cost := func(a attack) float64 {
		read := 0
		begun := cpu()
		for read < size {
			read += a.run(func(s *Stream) {
				if s.TooLong {
					s.Header(AppendStatus(nil, 431), true)
					return
				}
				if a.send {
					s.Send(body, true)
				}
				<-s.Context.Done()
			}, size).bytes
		}
		return float64(cpu()-begun) / float64(read)
	}
	honest := cost(attack{say: func(c *client, stream int) { c.ask(uint32(stream), "/fast", true) }})
	repeat := func(size int) func(c *client, stream int) {
		return func(c *client, stream int) {
			block := append([]byte(nil), c.encode("/fast")...)
			for len(block) < size {
				block = append(block, 0x80|62) // the table's latest
			}
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(stream + 2), BlockFragment: block, EndStream: true, EndHeaders: true})
		}
	}
	many := make([]http2.Setting, maxFrame/6)
	for i := range many {
		many[i] = http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)}
	}
	for _, a := range append(attacks,
		attack{what: "HPACK bomb", once: func(c *client) { c.ask(1, "/fast", true, "x-bomb", strings.Repeat("x", 3900)) }, say: repeat(maxFrame)},
		attack{what: "many lengths", once: func(c *client) { c.ask(1, "/fast", true, "content-length", "0") }, say: repeat(1300), cfg: func(c *Config) { c.MaxHeader = 64 << 10 }},
		attack{what: "many SETTINGS in a frame, many streams", open: 1000, cfg: func(c *Config) { c.MaxStreams = 1000 }, say: func(c *client, _ int) { c.WriteSettings(many...) }},
		attack{what: "a WINDOW_UPDATE, many streams", open: 128, send: true, cfg: func(c *Config) { c.MaxStreams = 128 }, say: func(c *client, _ int) { c.WriteWindowUpdate(0, 1) }},
	) {
		if got := cost(a) / honest; got > most {
			t.Errorf("%s: a byte costs %.1f times one of honest requests, want at most %d", a.what, got, most)
		} else {
			t.Logf("%s: %.2f", a.what, got)
		}
	}
	t.Logf("a byte of honest requests costs %.0f ns", honest)
}
