package http2

import (
	"bufio"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	maxUnsent  = 64 << 10  // bytes of answers that wait for the client; then nothing is read
	fewUnsent  = 4 << 10   // the same where many clients don't take theirs
	maxUnread  = 128 << 10 // bytes of all bodies that wait for their readers
	fewKept    = 4 << 10   // bytes of requests under way that every connection may keep
	maxUseless = 10_000    // frames in a row that ask for nothing
	maxResized = 100       // changes of new streams' window, each of which all open ones are woken for
	lingerTime = 500 * time.Millisecond
	maxLinger  = 1 << 20 // bytes that are read after the end, for nothing
)

// conn is one client's connection. A goroutine reads it; all others only write.
type conn struct {
	server *Server
	net    net.Conn
	client net.Addr
	in     *bufio.Reader
	frame  allowance // of in, for the next frame
	framer *http2.Framer
	reply  Reply

	// Of the reading goroutine.
	request Request
	useless int  // frames that asked for nothing, since one that did
	settled bool // the client's first SETTINGS have come

	mu      sync.Mutex
	changed sync.Cond // out, running
	out     []byte    // frames to be written
	box     *[]byte   // where out is from, if it is one of buffers
	counted int       // what server.unsent has of out
	writing bool      // somebody writes, and will write what is in out
	err     error     // of the connection; nothing is written any more
	window  int       // bytes of bodies that may be sent
	line    []*Stream // those that wait for window, or for room in out; the first is next
	initial int       // the same of a new stream
	room    int       // bytes of bodies that may come
	owed    int       // of those that were read, not yet given back
	streams map[uint32]*Stream
	running int      // streams whose goroutine hasn't ended
	last    uint32   // greatest stream of the client's
	sized   bool     // a header block was sent
	cut     []uint32 // the last streams that we ended before their requests had
	cuts    int
	sent    int64     // bytes of bodies
	widened int64     // what sent was when the client has last widened a window
	resized int       // how often he has changed initial
	resets  int       // streams that the client reset unanswered, or that were refused, beyond those answered
	kept    int       // what server.kept has of this connection
	heads   int       // of that, header lists
	pending int       // what server.pending has of this connection
	due     time.Time // for the rest of a frame, or of the begin, that has begun to come
	leaving stage
	told    stage
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		server: s, net: nc, client: nc.RemoteAddr(), in: bufio.NewReaderSize(nc, 4<<10), reply: s.cfg.Replier(),
		window: initialWindow, initial: initialWindow, room: maxUnread, streams: map[uint32]*Stream{},
	}
	c.changed.L = &c.mu
	c.frame.Reader = c.in
	c.framer = http2.NewFramer(nil, &c.frame)
	c.framer.SetReuseFrames()
	c.framer.SetMaxReadFrameSize(maxFrame)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	c.framer.MaxHeaderListSize = uint32(s.cfg.MaxHeader)
	return c
}

// serve reads frames until the connection's end.
func (c *conn) serve() {
	err := c.begin()
	for err == nil {
		if err = c.wait(); err != nil {
			break
		}
		var frame http2.Frame
		c.frame.left = 2*c.server.cfg.MaxHeader + 2*maxFrame
		if frame, err = c.framer.ReadFrame(); err == nil {
			err = c.handle(frame)
		}
		var wrong http2.StreamError
		if errors.As(err, &wrong) {
			err = c.refuse(wrong.StreamID, wrong.Code)
		}
	}
	c.finish(err)
}

// allowance bounds what one frame takes, or a header block with all its CONTINUATIONs: the
// framer bounds what they say, but reads on for as long as they say nothing.
type allowance struct {
	io.Reader
	left int
}

// Read reads from the client.
func (a *allowance) Read(p []byte) (int, error) {
	if a.left <= 0 {
		return 0, errCalm
	}
	n, err := a.Reader.Read(p)
	a.left -= n
	return n, err
}

// begin exchanges prefaces (RFC 9113 §3.4).
func (c *conn) begin() error {
	c.mu.Lock()
	c.due = time.Now().Add(c.server.cfg.Read) // also for the client's first SETTINGS
	c.expect()
	c.out = appendSettings(c.out,
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(c.server.cfg.MaxStreams)},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(c.server.cfg.MaxHeader)})
	c.out = appendWindowUpdate(c.out, 0, maxUnread-initialWindow)
	c.tell()
	c.mu.Unlock()
	if err := c.flush(); err != nil {
		return err
	}
	var got [len(http2.ClientPreface)]byte
	if _, err := io.ReadFull(c.in, got[:]); err != nil {
		return err
	}
	if string(got[:]) != http2.ClientPreface {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

// wait has what was made of earlier frames leave before it waits for another.
func (c *conn) wait() error {
	c.mu.Lock()
	if c.settled {
		c.due = time.Time{}
	}
	c.follow()
	much := len(c.out) > c.most() || c.full()
	c.mu.Unlock()
	if !much && c.whole() {
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.await(); err != nil || c.whole() {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled {
		c.due = time.Now().Add(c.server.cfg.Read)
	}
	c.expect()
	return c.err
}

// whole reports whether the next frame is here, with all that belongs to it.
func (c *conn) whole() bool {
	head, _ := c.in.Peek(min(frameHeader, c.in.Buffered()))
	if len(head) < frameHeader || c.in.Buffered() < frameHeader+(int(head[0])<<16|int(head[1])<<8|int(head[2])) {
		return false
	}
	return http2.FrameType(head[3]) != http2.FrameHeaders || http2.Flags(head[4]).Has(http2.FlagHeadersEndHeaders)
}

// await waits for the first byte of a frame, when there is room for what it may bring. A
// silent client's last request isn't kept.
func (c *conn) await() error {
	c.mu.Lock()
	c.request = Request{}
	for c.full() && c.err == nil {
		c.changed.Wait()
	}
	if c.told == ending && c.running == 0 {
		c.mu.Unlock()
		return errLeft
	}
	if c.in.Buffered() == 0 {
		c.expect()
	}
	err := c.err
	c.mu.Unlock()
	if err == nil {
		_, err = c.in.Peek(1)
	}
	return err
}

// most is how many bytes of answers may wait for the client.
func (c *conn) most() int {
	if c.server.unsent.Load() > c.server.cfg.MaxUnsent {
		return fewUnsent
	}
	return maxUnsent
}

// follow waits while more is to follow what is being written than may, under the lock.
func (c *conn) follow() {
	for len(c.out) > c.most() && c.writing && c.err == nil {
		c.weigh()
		c.changed.Wait()
	}
}

// keep has server.kept count so many bytes more, under the lock.
func (c *conn) keep(n int) {
	c.kept += n
	c.server.kept.Add(int64(n))
}

// keepHead is keep for a header list.
func (c *conn) keepHead(n int) {
	c.heads += n
	c.keep(n)
}

// tight reports whether so many bytes are more than a connection may keep of requests: as much
// as is left to all others, and a few in any case. So one that keeps little is served, also
// while many others take what they can get.
func (c *conn) tight(own int) bool {
	return own > fewKept && int64(own) > c.server.cfg.MaxKept-c.server.kept.Load()
}

// pend has server.pending count so many bytes more, under the lock.
func (c *conn) pend(n int) {
	c.pending += n
	c.server.pending.Add(int64(n))
}

// much reports whether more of this connection's answers is to be sent than it leaves to all
// others, under the lock.
func (c *conn) much() bool {
	return int64(c.pending) > c.server.cfg.MaxPending-c.server.pending.Load()
}

// full reports whether no more of bodies may come until some was read, under the lock.
func (c *conn) full() bool { return maxUnread-c.room-c.owed > fewKept && c.tight(c.kept) }

// takes reports whether more of a body may be sent, as far as its stream allows, under the lock.
func (c *conn) takes() bool { return c.window > 0 && len(c.out) <= c.most() }

// next has the first in line go on, under the lock, if there is room for him. He calls it
// again when he has sent a frame, or if he sends none: were all woken at once, a client could
// have them all run for a window of one byte.
func (c *conn) next() {
	if len(c.line) > 0 && c.takes() {
		c.line[0].changed.Broadcast()
		c.line = slices.Delete(c.line, 0, 1)
	}
}

// buffers are for answers. A connection has one only while it makes answers, and one while
// they are written: most connections are idle.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 0, fewUnsent)
	return &b
}}

// buffer makes out ready for answers, under the lock. Where many clients don't take theirs it
// takes none of buffers: they have grown with answers that were larger.
func (c *conn) buffer() {
	if c.out == nil && c.most() == maxUnsent {
		c.box = buffers.Get().(*[]byte)
		c.out = *c.box
	}
}

// recycle is the end of a buffer's use.
func recycle(b []byte, box *[]byte) {
	if box != nil && cap(b) <= 2*maxUnsent {
		*box = b[:0]
		buffers.Put(box)
	}
}

// weigh has server.unsent count what out occupies, under the lock.
func (c *conn) weigh() {
	c.server.unsent.Add(int64(cap(c.out) - c.counted))
	c.counted = cap(c.out)
}

var errLeft = errors.New("this server leaves")

// expect bounds the time until the next frame has come, under the lock.
func (c *conn) expect() {
	until := time.Time{} // each stream has a bound of its own
	switch {
	case c.err != nil || c.told == ending && c.running == 0:
		until = time.Unix(1, 0) // nothing
	case !c.due.IsZero():
		until = c.due
	case c.running == 0:
		until = time.Now().Add(c.server.cfg.Idle)
	}
	_ = c.net.SetReadDeadline(until)
}

// flush writes what is to be written, unless somebody does it.
func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushLocked()
}

func (c *conn) flushLocked() error {
	if c.writing && c.err == nil {
		c.weigh()
	}
	for len(c.out) > 0 && !c.writing && c.err == nil {
		c.weigh()
		full, box, counted := c.out, c.box, c.counted
		c.out, c.box, c.counted, c.writing = nil, nil, 0, true
		c.next()
		c.mu.Unlock()
		_, err := c.net.Write(full)
		c.server.unsent.Add(int64(-counted))
		recycle(full, box)
		c.mu.Lock()
		c.writing = false
		if err != nil {
			c.fail(err)
			c.expect()
		}
		c.changed.Broadcast()
	}
	return c.err
}

// fail ends all that is under way, under the lock.
func (c *conn) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	for _, s := range c.streams {
		s.abandon()
	}
	c.changed.Broadcast()
}

// finish says why, if it is the client's fault, and closes the connection.
func (c *conn) finish(err error) {
	c.mu.Lock()
	var wrong http2.ConnectionError
	var ended bool
	switch {
	case errors.As(err, &wrong):
		c.out = appendGoAway(c.out, c.last, http2.ErrCode(wrong), "")
		ended = true
	case errors.Is(err, errCalm):
		c.out = appendGoAway(c.out, c.last, http2.ErrCodeEnhanceYourCalm, "")
		ended = true
	case errors.Is(err, http2.ErrFrameTooLarge), errors.Is(err, io.ErrUnexpectedEOF): // or too short for what it must say (§4.2)
		c.out = appendGoAway(c.out, c.last, http2.ErrCodeFrameSize, "")
		ended = true
	case errors.Is(err, os.ErrDeadlineExceeded):
		if c.told != ending {
			c.out = appendGoAway(c.out, c.last, http2.ErrCodeNo, "")
		}
		ended = true
	case errors.Is(err, errLeft):
		ended = true
	}
	for c.writing && c.err == nil {
		c.changed.Wait()
	}
	_ = c.flushLocked()
	c.fail(net.ErrClosed)
	c.out = nil
	c.weigh()
	c.mu.Unlock()
	if half, ok := c.net.(interface{ CloseWrite() error }); ok && ended && half.CloseWrite() == nil {
		// Closing at once, with something unread, would make the client's kernel drop
		// what it hasn't read of ours.
		_ = c.net.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, c.net, maxLinger)
	}
	c.net.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.running > 0 {
		c.changed.Wait()
	}
}

// leave is Server.Leave's part.
func (c *conn) leave(to stage) {
	c.mu.Lock()
	c.leaving = max(c.leaving, to)
	c.tell()
	_ = c.flushLocked()
	c.expect()
	c.mu.Unlock()
}

// tell tells the client how far the end has come, under the lock.
func (c *conn) tell() {
	for c.told < c.leaving {
		last := uint32(math.MaxInt32)
		if c.told++; c.told == ending {
			last = c.last
		}
		c.out = appendGoAway(c.out, last, http2.ErrCodeNo, "")
	}
}
