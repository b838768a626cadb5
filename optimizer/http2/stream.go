package http2

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Stream is one request on its way. Its methods are for the goroutine that serves it,
// except where they say otherwise.
type Stream struct {
	Request
	ID      uint32
	TooLong bool            // the header list is beyond its bound: all that is to be done is to say so
	Context context.Context // ends when the client has lost interest, and with Serve

	conn   *conn
	cancel context.CancelFunc
	size   int  // of the request's header, kept until the goroutine ends
	sent   bool // the answer is complete

	// Under the connection's lock.
	changed   sync.Cond // any of these, and c.window
	window    int       // bytes of the answer that may be sent
	answered  int64     // those that were
	forIt     patience  // for window
	inLine    patience  // for c.window
	gone      bool      // the client has lost interest, or the connection has ended
	unread    []byte    // of the request's body; the first of it were taken
	taken     int
	room      int   // bytes of it that may come
	owed      int   // of those that were read, not yet given back
	arrived   int64 // bytes of it so far
	expected  int64 // -1: unknown
	bodyEnded bool
	readUntil time.Time
	timer     *time.Timer
}

// run is the goroutine.
func (s *Stream) run() {
	c := s.conn
	c.server.cfg.Serve(s)
	s.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	if !s.gone {
		switch {
		case !s.sent:
			c.out = appendReset(c.out, s.ID, http2.ErrCodeInternal)
		case !s.bodyEnded: // the rest of the request isn't wanted (RFC 9113 §8.1)
			c.out = appendReset(c.out, s.ID, http2.ErrCodeNo)
			c.cutOff(s.ID)
		}
		_ = c.count(-1)
	}
	c.forget(s)
	c.keepHead(-s.size)
	s.gone = true // for who still reads
	c.running--
	_ = c.flushLocked()
	c.expect()
	c.changed.Broadcast()
}

// abandon ends all waits of the stream, under the lock.
func (s *Stream) abandon() {
	s.gone = true
	s.cancel()
	s.changed.Broadcast()
}

// checkLength holds the body against what the header said of it, under the lock, and
// notes its end (§8.1.1).
func (s *Stream) checkLength(ended bool) error {
	if s.expected >= 0 && (s.arrived > s.expected || ended && s.arrived < s.expected) {
		return http2.StreamError{StreamID: s.ID, Code: http2.ErrCodeProtocol}
	}
	s.bodyEnded = s.bodyEnded || ended
	return nil
}

// hold makes b the buffer of what is unread, under the lock.
func (s *Stream) hold(b []byte) {
	s.conn.keep(cap(b) - cap(s.unread))
	s.unread = b
}

var errReset = errors.New("the client has reset the stream")

// Read reads the request's body. It returns os.ErrDeadlineExceeded beyond the bound of
// SetReadDeadline.
func (s *Stream) Read(p []byte) (int, error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case s.gone:
			return 0, errReset
		case s.taken < len(s.unread):
			n := copy(p, s.unread[s.taken:])
			s.taken += n
			if s.taken == len(s.unread) {
				s.unread, s.taken = s.unread[:0], 0
			}
			if c.tight(c.kept) && s.taken >= len(s.unread)/2 {
				s.hold(append([]byte(nil), s.unread[s.taken:]...))
				s.taken = 0
			}
			c.owe(n)
			c.changed.Broadcast()
			if s.owed += n; s.owed >= initialWindow/4 && !s.bodyEnded {
				c.out = appendWindowUpdate(c.out, s.ID, uint32(s.owed))
				s.room, s.owed = s.room+s.owed, 0
			}
			return n, c.flushLocked()
		case s.bodyEnded:
			return 0, io.EOF
		case !s.readUntil.IsZero() && !time.Now().Before(s.readUntil):
			return 0, os.ErrDeadlineExceeded
		}
		s.changed.Wait()
	}
}

// SetReadDeadline bounds Read, also one that waits already. Any goroutine may call it.
func (s *Stream) SetReadDeadline(t time.Time) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.readUntil = t
	if s.timer != nil {
		s.timer.Stop()
	}
	if !t.IsZero() {
		s.timer = time.AfterFunc(time.Until(t), s.wake)
	}
	s.changed.Broadcast()
}

// wake has those who wait for something of the stream look again.
func (s *Stream) wake() {
	s.conn.mu.Lock()
	s.changed.Broadcast()
	s.conn.mu.Unlock()
}

// Header sends a header block, made by AppendStatus and AppendField: the answer's, which
// is complete with it if end is set, or an interim response's. Any goroutine may call it
// for an interim response, before the answer.
func (s *Stream) Header(block []byte, end bool) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follow()
	if s.gone {
		return errReset
	}
	if !c.sized {
		block, c.sized = append([]byte{noTable}, block...), true
	}
	c.buffer()
	c.out = appendHeaders(c.out, s.ID, block, end)
	s.sent = s.sent || end
	return c.flushLocked()
}

// Send sends a part of the answer's body, the last one if end is set, and waits while the
// client has no room for it. It keeps nothing of part.
func (s *Stream) Send(part []byte, end bool) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pend(len(part))
	defer func() { c.pend(-len(part)) }()
	for {
		n := min(len(part), MaxData)
		if n > 0 {
			if err := s.await(); err != nil {
				return err
			}
			n = min(n, s.window, c.window, c.most())
		}
		if s.gone {
			return errReset
		}
		last := end && n == len(part)
		c.buffer()
		c.out = AppendData(c.out, s.ID, part[:n], last)
		s.window, c.window = s.window-n, c.window-n
		s.answered, c.sent = s.answered+int64(n), c.sent+int64(n)
		c.pend(-n)
		c.next()
		if part = part[n:]; len(part) == 0 {
			s.sent = s.sent || last
			return c.flushLocked()
		}
	}
}

// await waits until at least a byte may be sent, under the lock.
func (s *Stream) await() error {
	c := s.conn
	if s.window <= 0 || !c.takes() {
		if err := c.flushLocked(); err != nil { // he may wait for what is ready
			return err
		}
	}
	if s.window > 0 && c.takes() {
		return nil
	}
	err := s.queue()
	if i := slices.Index(c.line, s); i >= 0 {
		c.line = slices.Delete(c.line, i, i+1)
	}
	if err != nil {
		c.next()
	}
	return err
}

// queue is await's wait. Its patience is with the client: while that takes enough of other
// answers, who stands in line only waits for his turn; and what is being written is the
// net.Conn's business. Where too much waits neither is an excuse.
func (s *Stream) queue() error {
	c := s.conn
	timer := time.AfterFunc(c.server.cfg.Write, s.wake)
	defer timer.Stop()
	for {
		much := c.much()
		wait, sent := &s.forIt, s.answered
		if s.window > 0 && !much {
			wait, sent = &s.inLine, c.sent
		}
		left := wait.left(sent, c.server.cfg.Write)
		starved := much || s.window <= 0 || c.window <= 0
		switch {
		case s.gone:
			return errReset
		case c.err != nil:
			return c.err
		case s.window > 0 && c.takes():
			return nil
		case starved && left <= 0:
			return os.ErrDeadlineExceeded
		case !starved:
			left = c.server.cfg.Write
		}
		if s.window <= 0 {
			c.next() // it may have been his turn before the client took his window back
		} else if !slices.Contains(c.line, s) {
			c.line = append(c.line, s)
		}
		timer.Reset(left)
		begun := time.Now()
		s.changed.Wait()
		if starved {
			wait.waited += time.Since(begun)
		}
	}
}

// leastTaken is how much of an answer, or of all, a client has to take in each Config.Write
// that it keeps us waiting: else a byte now and then were enough to have a stored response
// held for as long as one likes.
const leastTaken = MaxData

// patience is what a stream has waited for the client since that took enough. Waits add up,
// so that none is begun anew by a byte.
type patience struct {
	waited time.Duration
	from   int64 // bytes that were sent until then
}

// left is how much longer to wait, of so long in all, where so much was sent by now.
func (p *patience) left(sent int64, most time.Duration) time.Duration {
	if sent-p.from >= leastTaken {
		*p = patience{from: sent}
	}
	return most - p.waited
}
