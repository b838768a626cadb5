package http2

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

var errCalm = errors.New("the client asks for nothing, very often")

// handle does what a frame asks for, and counts those that ask for nothing.
func (c *conn) handle(frame http2.Frame) error {
	if _, ok := frame.(*http2.SettingsFrame); !ok && !c.settled {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	var useful bool
	var err error
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		if useful, err = c.headers(f); err != nil {
			return err
		}
	case *http2.DataFrame:
		if useful, err = c.data(f); err != nil {
			return err
		}
	case *http2.WindowUpdateFrame:
		if useful, err = c.widen(f); err != nil {
			return err
		}
	case *http2.RSTStreamFrame:
		if err := c.reset(f.StreamID); err != nil {
			return err
		}
	case *http2.SettingsFrame:
		if err := c.settings(f); err != nil {
			return err
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			c.mu.Lock()
			c.out = append(appendFrame(c.out, 8, http2.FramePing, http2.FlagPingAck, 0), f.Data[:]...)
			c.mu.Unlock()
		}
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if c.useless++; useful {
		c.useless = 0
	}
	if c.useless > maxUseless {
		return errCalm
	}
	return nil
}

// settings takes the client's settings over (RFC 9113 §6.5.3).
func (c *conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	c.settled = true
	c.mu.Lock()
	defer c.mu.Unlock()
	initial := c.initial
	err := f.ForeachSetting(func(s http2.Setting) error {
		if s.ID == http2.SettingInitialWindowSize {
			initial = int(s.Val)
		}
		return s.Valid()
	})
	if err != nil {
		return err
	}
	// Once for all: a frame has room for 2,730 of them, and each concerns every stream.
	if more := initial - c.initial; more != 0 {
		if c.resized++; c.resized > maxResized {
			return errCalm
		}
		c.initial = initial
		for _, open := range c.streams {
			if open.window += more; open.window > math.MaxInt32 {
				return http2.ConnectionError(http2.ErrCodeFlowControl)
			}
			open.changed.Broadcast()
		}
	}
	c.out = appendFrame(c.out, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
	return nil
}

// widen lets more of a body be sent, and reports whether that was of use.
func (c *conn) widen(f *http2.WindowUpdateFrame) (useful bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	window := &c.window
	s := c.open(f.StreamID)
	if f.StreamID != 0 {
		if s == nil {
			return false, c.idle(f.StreamID)
		}
		window = &s.window
	}
	if *window += int(f.Increment); *window > math.MaxInt32 {
		if f.StreamID == 0 {
			return false, http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		return false, http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	if s == nil {
		c.next()
	} else if *window > 0 && *window <= int(f.Increment) { // he has waited for it
		s.changed.Broadcast()
	}
	useful, c.widened = c.sent > c.widened, c.sent
	return useful, nil
}

// open finds a stream, under the lock. One whose request and answer are complete is
// closed (§5.1), also while its goroutine has something left to do.
func (c *conn) open(id uint32) *Stream {
	if s := c.streams[id]; s != nil && !(s.sent && s.bodyEnded) {
		return s
	}
	return nil
}

// idle is what is wrong with a frame for a stream that was never opened (§5.1). Those
// that are opened after the last one aren't looked at.
func (c *conn) idle(id uint32) error {
	if id%2 == 0 || id > c.last && c.told != ending {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

// reset ends a stream that the client has no more interest in.
func (c *conn) reset(id uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.open(id)
	if s == nil {
		return c.idle(id)
	}
	s.abandon()
	c.forget(s)
	return c.count(1)
}

// count counts streams that were of no use, under the lock. Every answer makes up for one.
func (c *conn) count(n int) error {
	if c.resets = max(0, c.resets+n); c.resets > 2*c.server.cfg.MaxStreams+100 {
		return errCalm
	}
	return nil
}

// refuse resets a stream.
func (c *conn) refuse(id uint32, code http2.ErrCode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case id%2 == 0: // none of a client's (§5.1.1)
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case id > c.last && c.told == ending: // isn't looked at, and the last mustn't become another (§6.8)
		return c.count(1)
	}
	if s := c.streams[id]; s != nil {
		s.abandon()
		c.forget(s)
	}
	c.last = max(c.last, id)
	c.cutOff(id)
	c.out = appendReset(c.out, id, code)
	return c.count(1)
}

// cutOff notes that what still comes of a request isn't wanted, under the lock (§5.1).
func (c *conn) cutOff(id uint32) {
	if most := c.server.cfg.MaxStreams; len(c.cut) < most {
		c.cut = append(c.cut, id)
	} else {
		c.cut[c.cuts%most] = id
	}
	c.cuts++
}

// forget ends a stream's place in the connection, under the lock. What came of its body
// and wasn't read gives its room back.
func (c *conn) forget(s *Stream) {
	if c.streams[s.ID] == s {
		delete(c.streams, s.ID)
		c.owe(len(s.unread) - s.taken)
		s.hold(nil)
		s.taken = 0
	}
}

// owe gives room for bodies back to the client, under the lock; some at a time.
func (c *conn) owe(n int) {
	if c.owed += n; c.owed >= maxUnread/4 {
		c.out = appendWindowUpdate(c.out, 0, uint32(c.owed))
		c.room, c.owed = c.room+c.owed, 0
	}
}

// data takes a part of a request's body, and reports whether it was any.
func (c *conn) data(f *http2.DataFrame) (useful bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := int(f.Length) // padding counts (§6.9.1)
	if size > c.room {
		return false, http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	c.room -= size
	s := c.open(f.StreamID)
	if s == nil || s.bodyEnded {
		c.owe(size)
		if err := c.idle(f.StreamID); err != nil {
			return false, err
		}
		if f.StreamID > c.last || slices.Contains(c.cut, f.StreamID) {
			return false, nil // of a request that isn't looked at, or not any more
		}
		return false, http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	}
	if size > s.room {
		c.owe(size)
		return false, http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	s.room -= size
	padding := size - len(f.Data())
	c.owe(padding)
	s.owed += padding
	if s.taken >= initialWindow/2 {
		s.unread, s.taken = s.unread[:copy(s.unread, s.unread[s.taken:])], 0
	}
	s.hold(append(s.unread, f.Data()...))
	s.arrived += int64(len(f.Data()))
	if err := s.checkLength(f.StreamEnded()); err != nil {
		return false, err
	}
	s.changed.Broadcast()
	return len(f.Data()) > 0, nil
}

// headers begins a request, or ends one's body, and reports whether it did.
func (c *conn) headers(f *http2.MetaHeadersFrame) (useful bool, err error) {
	c.mu.Lock()
	if s := c.open(f.StreamID); s != nil {
		defer c.mu.Unlock()
		if s.bodyEnded {
			return false, http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
		}
		if !f.StreamEnded() || len(f.PseudoFields()) > 0 || slices.ContainsFunc(f.Fields, padded) { // trailers, which nobody looks at (§8.1)
			return false, http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
		s.changed.Broadcast()
		return true, s.checkLength(true)
	}
	switch {
	case f.StreamID%2 == 0:
		c.mu.Unlock()
		return false, http2.ConnectionError(http2.ErrCodeProtocol)
	case slices.Contains(c.cut, f.StreamID): // the end of what isn't wanted
		c.mu.Unlock()
		return false, nil
	case f.StreamID <= c.last:
		c.mu.Unlock()
		return false, http2.ConnectionError(http2.ErrCodeStreamClosed)
	case c.told == ending:
		c.mu.Unlock()
		return false, nil // the client knows that this one wasn't looked at
	}
	c.last = f.StreamID
	full := c.running >= c.server.cfg.MaxStreams
	c.mu.Unlock()
	if f.HasPriority() && f.Priority.StreamDep == f.StreamID {
		return false, http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	}
	if full {
		return false, http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeRefusedStream}
	}
	r := &c.request
	if err := c.read(r, f); err != nil {
		return false, err
	}
	if !f.Truncated && f.StreamEnded() {
		c.mu.Lock()
		c.buffer()
		r.first = !c.sized
		out, sent, ok := c.reply(c.out, r, max(0, min(c.window, c.initial, c.most())))
		if ok {
			c.out, c.sized = out, true
			c.window -= sent
			c.sent += int64(sent)
			_ = c.count(-1)
			c.mu.Unlock()
			return true, nil
		}
		if len(c.out) == 0 {
			recycle(c.out, c.box)
			c.out, c.box = nil, nil
		}
		c.mu.Unlock()
	}
	return true, c.start(r, f.Truncated, f.StreamEnded())
}

// read takes a request's parts out of a header block, and checks what the framer doesn't
// (RFC 9113 §8.2.1, §8.2.2, §8.3.1).
func (c *conn) read(r *Request, f *http2.MetaHeadersFrame) error {
	malformed := http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	*r = Request{
		Stream: f.StreamID, Client: c.client,
		Method: f.PseudoValue("method"), Path: f.PseudoValue("path"), Authority: f.PseudoValue("authority"),
	}
	if !f.StreamEnded() {
		r.Length = -1
	}
	if f.Truncated {
		return nil // not all of it is known
	}
	if slices.ContainsFunc(f.Fields, padded) {
		return malformed
	}
	connect := r.Method == "CONNECT"
	scheme := f.PseudoValue("scheme")
	if r.Method == "" || f.PseudoValue("protocol") != "" || connect != (r.Path == "") || connect != (scheme == "") || connect && r.Authority == "" {
		return malformed
	}
	if !connect && r.Path[0] != '/' && (r.Path != "*" || r.Method != "OPTIONS") {
		return malformed
	}
	host, length := r.Authority == "", ""
	r.Fields = f.RegularFields()
	for _, field := range r.Fields {
		switch field.Name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			return malformed
		case "te":
			if field.Value != "trailers" {
				return malformed
			}
		case "host":
			if host && r.Authority == "" {
				r.Authority = field.Value
			} else if !strings.EqualFold(field.Value, r.Authority) || host {
				return malformed
			}
		case "content-length":
			n, err := strconv.ParseUint(field.Value, 10, 63)
			if err != nil || f.StreamEnded() && n != 0 || length != "" && length != field.Value {
				return malformed
			}
			length, r.Length = field.Value, int64(n)
		}
	}
	return nil
}

// padded reports whether a field's value begins or ends with whitespace: who serves might
// trim it, and its upstream not (§8.2.1).
func padded(f hpack.HeaderField) bool {
	end := len(f.Value) - 1
	return end >= 0 && (f.Value[0] == ' ' || f.Value[0] == '\t' || f.Value[end] == ' ' || f.Value[end] == '\t')
}

// start has a goroutine answer a request, if there is room for what must be kept of it: a
// client may send one that is refused again (RFC 9113 §8.7).
func (c *conn) start(r *Request, truncated, ended bool) error {
	size := r.size()
	if size > c.server.cfg.MaxHeader { // the framer bounds fields Trailer, and all others
		truncated, r.Fields = true, nil
		size = r.size()
	}
	c.mu.Lock()
	c.keepHead(size)
	if c.tight(c.heads) { // whatever it has of bodies, which is read and gone before long
		c.keepHead(-size)
		c.mu.Unlock()
		return http2.StreamError{StreamID: r.Stream, Code: http2.ErrCodeRefusedStream}
	}
	c.mu.Unlock()
	s := &Stream{Request: *r, ID: r.Stream, conn: c, TooLong: truncated, size: size, room: initialWindow, bodyEnded: ended, expected: r.Length}
	s.Fields = append([]hpack.HeaderField(nil), r.Fields...)
	s.Context, s.cancel = context.WithCancel(context.Background())
	s.changed.L = &c.mu
	c.mu.Lock()
	s.window = c.initial
	c.streams[s.ID] = s
	c.running++
	c.expect()
	c.mu.Unlock()
	c.server.streams.Go(s.run)
	return nil
}
