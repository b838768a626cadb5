package optimizer

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"

	"phasegate/optimizer/httpcache"
)

// maxHints is how many interim responses wait for a client that takes them slowly.
const maxHints = 8

// An upstream may send so many interim responses to one request, and so much of header
// fields in them, counted as RFC 9113 §6.5.2 does: net/http bounds neither where somebody
// is told of them. With more, the upstream's answer is a bad one, as it is for net/http,
// where nobody is, and for nginx. A 102 every few seconds may go on for many minutes.
const (
	maxInterim       = 256
	maxInterimFields = 64 << 10
)

var errInterim = fmt.Errorf("the upstream sent more than %d interim responses, or than %d bytes of header fields in them", maxInterim, maxInterimFields)

// hints are the interim responses on their way to a client. They have a goroutine of
// their own: over HTTP/2 they come where all answers of the upstream's connection are
// read, which mustn't wait for one client.
type hints struct {
	mu      sync.Mutex
	open    bool
	waiting []hint
	passing sync.WaitGroup // runs while some wait
	running bool
	number  int // of those that came
	fields  int // bytes in them
}

type hint struct {
	status int
	header http.Header
}

// passInterim makes a context whose request reports the upstream's interim responses, 102
// and 103 (RFC 8297) for instance, that come until done is called, to the client; see
// [hints.passed]. 100 isn't among them: it belongs to an Expect of one connection, and none is sent.
func (f *fetch) passInterim(ctx context.Context) (_ context.Context, done func()) {
	if f.hints == nil {
		f.hints = new(hints)
	}
	open := func(is bool) {
		f.hints.mu.Lock()
		f.hints.open = is
		f.hints.mu.Unlock()
	}
	open(true)
	trace := &httptrace.ClientTrace{Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
		if !f.hints.count(header) {
			return errInterim
		}
		if status != http.StatusContinue {
			h := http.Header(header).Clone()
			httpcache.StripHopByHop(h)
			f.hints.add(hint{status, h}, f.interim)
		}
		return nil
	}}
	return httptrace.WithClientTrace(ctx, trace), func() { open(false) }
}

// count reports whether one more may come.
func (q *hints) count(header textproto.MIMEHeader) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.number++
	for name, values := range header {
		for _, value := range values {
			q.fields += len(name) + len(value) + 32
		}
	}
	return q.number <= maxInterim && q.fields <= maxInterimFields
}

// add has one passed on after those that wait, unless too many do: a hint is only that.
func (q *hints) add(one hint, pass func(status int, header http.Header)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.open || len(q.waiting) >= maxHints {
		return
	}
	q.waiting = append(q.waiting, one)
	if q.running {
		return
	}
	q.running = true
	q.passing.Go(func() {
		for {
			q.mu.Lock()
			if len(q.waiting) == 0 {
				q.running = false
				q.mu.Unlock()
				return
			}
			next := q.waiting[0]
			q.waiting = q.waiting[1:]
			q.mu.Unlock()
			pass(next.status, next.header)
		}
	})
}

// passed waits until none is on its way: from then on the client's connection is for the
// answer.
func (q *hints) passed() {
	if q != nil {
		q.passing.Wait()
	}
}

// interim sends an interim response to the client, if his connection is at a point
// where it can't come before the end of an earlier answer. It is dropped otherwise: a
// hint is only that.
func (x *exchange) interim(status int, header http.Header) {
	if s, ok := x.ctx.Conn().(*stream); ok {
		s.interim(status, header)
		return
	}
	conn, ok := x.ctx.Conn().(*clientConn)
	if !ok || !x.ctx.Request.Header.IsHTTP11() || !conn.between() {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	header.Write(&b) // net/http has checked the lines
	b.WriteString("\r\n")
	conn.Conn.Write([]byte(b.String())) // who has gone gets no answer either
}

// turns tells whether earlier answers on a connection have left completely. The
// engine keeps an answer back while more of the client's bytes wait to be read.
type turns struct {
	begun   int  // requests begun since the last read
	written int  // bytes of the last write
	flushed bool // before the last read, a write left no rest behind
	earlier bool // there was a read before the last
	pieces  bool // an answer went out in chunks since the last read: the last one may be held back
}

// Read reads from the client.
func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.flushed = !c.pieces && (c.written > 0 && c.written < writeBufferSize || !c.earlier)
		c.begun, c.written, c.pieces, c.earlier = 0, 0, false, true
	}
	return n, err
}

// Write writes to the client.
func (c *clientConn) Write(p []byte) (int, error) {
	c.written = len(p)
	return c.Conn.Write(p)
}

// between reports whether the request being answered is the first one since the
// connection was last read, and nothing of an answer was held back then. An answer
// fills the engine's buffer before it leaves in parts, so the last write tells.
func (c *clientConn) between() bool { return c.begun == 1 && c.flushed }
