package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"

	"phasegate/harness/scenario"

	"github.com/valyala/fasthttp"
)

const (
	largeBody   = 32 << 10 // bytes from which a body may be more than the kernel holds
	readBuffer  = 4 << 10  // of every connection; grows for a longer header …
	maxHeader   = 64 << 10 // … up to this
	bodyPiece   = 32 << 10 // bodies are read, summed up and dropped in pieces of this
	maxBody     = 8 << 30  // bytes of one body
	maxInterims = 100      // 1xx answers before the final one
)

// pieces are the buffers for bodies: as many as bodies are being read, however
// many connections there are.
var pieces = sync.Pool{New: func() any { return new([bodyPiece]byte) }}

// conn is one client connection and its reader, which an [engine] runs. A
// request is written either by the reader or, on an idle connection, by the
// dispatcher itself while the reader waits for the first byte of the answer:
// nobody has to wake up between the due time and the send.
type conn struct {
	side

	nc       net.Conn
	socket   *socket // below nc
	br       *bufio.Reader
	header   fasthttp.ResponseHeader
	answer   answer
	answered int  // answers read from nc
	large    bool // one of them was: the engine is told to hurry

	mu     sync.Mutex // held while handing a job over, until it is written
	busy   bool       // job, sent and out are of a request under way
	job    job
	sent   time.Time
	known  uint64 // version of the target that we had written before the send
	out    []byte // the request
	target [2]int // where the target stands in out
	broken error  // of writing it
}

// send writes a request. The caller holds mu.
func (c *conn) send(j job, now time.Time) {
	c.busy, c.job, c.broken = true, j, nil
	b := append(c.out[:0], j.method...)
	b = append(b, ' ')
	c.target[0] = len(b)
	b = c.appendTarget(b, j.target)
	c.target[1] = len(b)
	b = append(b, c.arm.head...)
	if j.extra != nil {
		for _, f := range j.extra.header {
			b = append(append(append(append(b, f[0]...), ": "...), f[1]...), "\r\n"...)
		}
	}
	body := j.content()
	if len(body) > 0 || j.method == http.MethodPost || j.method == http.MethodPut || j.method == http.MethodPatch {
		// RFC 9110, section 8.6: also where it is 0.
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(body)), 10), "\r\n"...)
	}
	c.out = append(append(b, "\r\n"...), body...)
	c.known = c.arm.written.version(c.out[c.target[0]:c.target[1]])
	c.sent = now
	err := c.socket.expect(c.deadline(j), c.sent)
	if err == nil {
		_, err = c.nc.Write(c.out)
	}
	if err != nil {
		// The reader learns of it by the close.
		c.broken = err
		c.nc.Close()
	}
}

// perform sees a request through to its outcome; sent says that it is written
// already. It dials where there is no connection. A request that may be
// repeated (RFC 9110, section 9.2.2) is sent once more, on a fresh connection,
// if a connection that had served others before was closed without a byte of
// an answer: the server had given up an idle connection at the same moment
// (RFC 9112, section 9.3.1). Whoever fails twice, or at first sight, has
// failed.
func (c *conn) perform(ctx context.Context, j job, sent bool) exchange {
	x := j.exchange()
	x.sent = sent
	if !sent {
		if err := c.begin(ctx, j); err != nil {
			c.fail(&x, j, err)
			return x
		}
		x.sent = true
	}
	a, err := c.receive(j.method)
	if err != nil && c.answered > 0 && idempotent(j.method) && isSilent(err) && !isTimeout(err) {
		c.hangUp()
		if again := c.begin(ctx, j); again == nil {
			x.retried = true
			a, err = c.receive(j.method)
		} else {
			err = fmt.Errorf("%w; again: %w", err, again)
		}
	}
	if err != nil {
		c.fail(&x, j, err)
		return x
	}
	c.finish(&x, j, a)
	return x
}

// begin dials if need be and writes the request.
func (c *conn) begin(ctx context.Context, j job) error {
	now := time.Now()
	if c.expired(j, now) {
		return errExpired
	}
	if c.nc == nil {
		if err := c.connect(ctx, c.deadline(j)); err != nil {
			return err
		}
		now = time.Now()
	}
	c.mu.Lock()
	c.send(j, now)
	c.mu.Unlock()
	return nil
}

func (c *conn) connect(ctx context.Context, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	var nc net.Conn
	var socket *socket
	var err error
	c.engine.await(func() { nc, socket, err = c.dialTo(ctx, scenario.HTTP1) })
	if err == nil {
		err = socket.adopt(c.engine)
	}
	if err != nil {
		return err
	}
	c.connected(wireHTTP11)
	c.nc, c.socket, c.answered = nc, socket, 0
	if c.br == nil {
		c.br = bufio.NewReaderSize(nc, readBuffer)
	} else {
		c.br.Reset(nc)
	}
	return nil
}

// hangUp closes the connection; the next request dials.
func (c *conn) hangUp() {
	if c.nc != nil {
		c.nc.Close()
		c.nc = nil
	}
}

// leave ends the connection for good.
func (c *conn) leave() {
	c.hangUp()
	if c.large {
		c.engine.hurry(-1)
	}
}

// fail makes the outcome of a request without a complete answer.
func (c *conn) fail(x *exchange, j job, err error) {
	if c.broken != nil && x.sent {
		err = fmt.Errorf("write the request: %w", c.broken)
	}
	c.unanswered(x, j, err, c.sent)
	c.hangUp()
	c.idle()
}

// finish judges a complete answer.
func (c *conn) finish(x *exchange, j job, a *answer) {
	c.answerTo(x, j, a, c.out[c.target[0]:c.target[1]], c.sent, c.known)
	// Bytes beyond the answer are of no request.
	if c.header.ConnectionClose() || a.status == http.StatusSwitchingProtocols || c.br.Buffered() > 0 {
		c.hangUp()
	} else {
		c.answered++
	}
	c.idle()
}

// idle marks the connection as one without a request.
func (c *conn) idle() {
	c.mu.Lock()
	c.busy = false
	c.mu.Unlock()
}

// silentError is the end of a connection before the first byte of an answer.
type silentError struct{ err error }

func (e *silentError) Error() string {
	return "the connection ended before any byte of an answer: " + e.err.Error()
}
func (e *silentError) Unwrap() error { return e.err }

func isSilent(err error) bool {
	var silent *silentError
	return errors.As(err, &silent)
}

// receive reads one complete response, valid until the next one. The body is summed up while it arrives
// and not kept.
func (c *conn) receive(method string) (*answer, error) {
	if _, err := c.br.Peek(1); err != nil {
		return nil, &silentError{err}
	}
	if err := c.readHeader(); err != nil {
		return nil, fmt.Errorf("read the answer's header: %w", err)
	}
	h := &c.header
	a := &c.answer
	a.fields.reset()
	*a = answer{fields: a.fields, status: h.StatusCode(), declared: -1, protocol: wireHTTP11, reused: c.answered > 0}
	for name, value := range h.All() {
		a.fields.note(string(name), value)
	}
	if string(h.Protocol()) == "HTTP/1.0" {
		a.protocol = wireHTTP10
	}
	if c.arm.verify {
		a.proof = a.fields.proof()
		a.part = a.fields.part(a.status)
	}
	if err := c.readBody(method, a); err != nil {
		return nil, err
	}
	if left := c.socket.left(); left.After(c.sent) {
		c.sent = left
	}
	a.end = c.socket.arrived()
	if a.end.Before(c.sent) {
		a.end = c.sent // spoken unasked, or the clock was set
	}
	if a.length > largeBody && !c.large {
		c.large = true
		c.engine.hurry(1)
	}
	return a, nil
}

// readHeader reads the final response's header; interim ones are passed over.
func (c *conn) readHeader() error {
	for range maxInterims {
		err := c.header.Read(c.br)
		if err != nil && c.br.Size() < maxHeader && isSmall(err) {
			// Nothing is lost: what was read so far is still in the smaller
			// buffer, which the larger one now reads from.
			c.br = bufio.NewReaderSize(c.br, maxHeader)
			err = c.header.Read(c.br)
		}
		if err != nil {
			return err
		}
		if s := c.header.StatusCode(); s >= 200 || s == http.StatusSwitchingProtocols {
			return nil
		}
	}
	return fmt.Errorf("more than %d interim answers", maxInterims)
}

func isSmall(err error) bool {
	var small *fasthttp.ErrSmallBuffer
	return errors.As(err, &small)
}

// readBody reads the body by its framing (RFC 9112, section 6.3).
func (c *conn) readBody(method string, a *answer) error {
	h := &c.header
	length := int64(h.ContentLength())
	switch {
	case method == http.MethodHead:
		a.declared = max(length, -1)
		return nil
	case a.status == http.StatusNoContent, a.status == http.StatusNotModified, a.status == http.StatusSwitchingProtocols:
		return nil
	case length == 0:
		return nil
	case length > maxBody:
		return fmt.Errorf("a body of %d bytes; allowed are %d", length, int64(maxBody))
	}
	if length > 0 {
		// What has come with the header needn't be copied.
		begin, _ := c.br.Peek(int(min(length, int64(c.br.Buffered()))))
		a.add(begin)
		_, _ = c.br.Discard(len(begin))
		if a.length == length {
			return nil
		}
	}
	piece := pieces.Get().(*[bodyPiece]byte)
	defer pieces.Put(piece)
	var from io.Reader = c.br
	if length == -1 {
		from = httputil.NewChunkedReader(c.br)
	}
	for length < 0 || a.length < length {
		b := piece[:]
		if length > 0 {
			b = b[:min(bodyPiece, length-a.length)]
		}
		n, err := from.Read(b)
		a.add(b[:n])
		switch {
		case err == io.EOF && length < 0:
			if length == -1 {
				if err := h.ReadTrailer(c.br); err != nil {
					return &truncatedError{fmt.Errorf("the answer was cut off after %d bytes of its body: %w", a.length, noEOF(err))}
				}
			}
			return nil
		case err != nil && length > 0:
			return &truncatedError{fmt.Errorf("the answer was cut off after %d of %d bytes of its body: %w", a.length, length, noEOF(err))}
		case err != nil:
			return &truncatedError{fmt.Errorf("the answer was cut off after %d bytes of its body: %w", a.length, noEOF(err))}
		case a.length > maxBody:
			return fmt.Errorf("a body of more than %d bytes", int64(maxBody))
		}
	}
	return nil
}
