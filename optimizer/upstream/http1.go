package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// http1Conn is one connection of HTTP/1.1. One request at a time has it, and the
// goroutine that wants the answer reads it itself: net/http's pool has two goroutines for
// each connection, and handing a request to one and the answer back from the other cost a
// third of what a miss takes. The messages' form is net/http's.
type http1Conn struct {
	*conn
	used          bool
	idle          time.Time // since when
	left          int64     // bytes of a header that may still come; math.MaxInt64: a body comes
	in            *bufio.Reader
	wrote, broken atomic.Bool // something of the present request left; not all could
}

// maxAnswerHeader bounds an answer's header, its interim responses included.
const maxAnswerHeader = 256 << 10

// ErrHeaderTooLong says that the upstream sends more of a header than is read of one.
var ErrHeaderTooLong = fmt.Errorf("the answer's header is longer than %d bytes", maxAnswerHeader)

var errSpeaksHTTP2 = errors.New("the upstream answers a request of HTTP/1.1 in HTTP/2, and so speaks that in clear text by prior knowledge: set upstream.protocol: h2c")

var errSwitched = errors.New("the upstream switched protocols (101) without being asked")

var (
	readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriter(nil) }}
)

// Read reads from the upstream, no more than a header may be long.
func (c *http1Conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, ErrHeaderTooLong
	}
	n, err := c.conn.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// peek waits for the answer's begin. It fails if that is SETTINGS, with which HTTP/2 begins
// (RFC 9113 §3.4), of fewer than 256 bytes, without flags, on stream 0: who read a line of it
// would wait for long, or take its end for a lost answer. No answer of HTTP/1.1 is as short.
func (x *http1Exchange) peek() error {
	if x.pool.tls != nil || x.pool.cfg.Protocol == H2C {
		return nil
	}
	begin, err := x.conn.in.Peek(9)
	if errors.Is(err, io.EOF) {
		return nil // it stays, and what came before may say more
	}
	if err != nil {
		return err
	}
	header := [9]byte(begin)
	header[2] = 0 // the length
	if header == [9]byte{3: byte(http2.FrameSettings)} {
		return errSpeaksHTTP2
	}
	return nil
}

// Write writes to the upstream.
func (c *http1Conn) Write(p []byte) (int, error) {
	n, err := c.conn.Write(p)
	if n > 0 {
		c.wrote.Store(true)
	}
	if err != nil {
		c.broken.Store(true)
	}
	return n, err
}

// ReadFrom has a body of known length go up as the client sends it.
func (c *http1Conn) ReadFrom(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{c}, r, make([]byte, 8<<10))
}

// interrupt ends what waits for the upstream.
func (c *http1Conn) interrupt() { _ = c.SetDeadline(time.Unix(1, 0)) }

// keep keeps a connection for the next request, or closes it. One that was to be of HTTP/2
// may be one too many beside requests that are under way since the last fallback. The line's
// lock is held.
func (p *Pool) keep(c *http1Conn) {
	now := time.Now()
	full := len(p.kept) >= p.cfg.ConnectionPoolSize || p.placed+len(p.kept) >= p.cfg.MaxConnectionsPerHost
	if full || p.ctx.Err() != nil || c.tooOld(now) {
		go c.Close() // over TLS it waits for a peer that takes nothing
		return
	}
	c.idle = now
	p.kept = append(p.kept, c)
	if p.tidying == nil {
		p.tidying = time.AfterFunc(tidyEach, p.tidy)
	} else if !p.tidies {
		p.tidying.Reset(tidyEach)
	}
	p.tidies = true
}

// takeKept takes the connection that was used last, so that those beyond what is needed
// fall idle and close; nil if there is none. The line's lock is held.
func (p *Pool) takeKept() *http1Conn {
	for now := time.Now(); len(p.kept) > 0; {
		last := len(p.kept) - 1
		c := p.kept[last]
		p.kept[last], p.kept = nil, p.kept[:last]
		if p.usable(c, now) {
			return c
		}
		go c.Close()
	}
	return nil
}

// usable reports whether a kept connection may carry a request. What an upstream says
// unasked, its end above all, ends it. Before the first request session tickets may lie
// there (RFC 8446 §4.6.1), so that nothing can be told of such a one; it isn't kept for long.
func (p *Pool) usable(c *http1Conn, now time.Time) bool {
	switch age := now.Sub(c.idle); {
	case c.tooOld(now) || age >= p.cfg.IdleTimeout:
		return false
	case !c.used && p.tls != nil:
		return age < unusedFor
	}
	return quiet(c.raw) && c.nothingAhead()
}

const unusedFor = time.Second

// nothingAhead reports whether TLS has given out all that it has read.
func (c *http1Conn) nothingAhead() bool {
	secured, ok := c.Conn.(*tls.Conn)
	if !ok {
		return true
	}
	_ = secured.SetReadDeadline(time.Unix(1, 0)) // no more is read
	n, err := secured.Read(make([]byte, 1))
	_ = secured.SetReadDeadline(time.Time{})
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

const tidyEach = time.Second

// tidy closes the kept connections that will carry no request, and comes again while
// there are any.
func (p *Pool) tidy() {
	p.line.mu.Lock()
	defer p.line.mu.Unlock()
	now := time.Now()
	good := p.kept[:0]
	for _, c := range p.kept {
		if p.usable(c, now) {
			good = append(good, c)
		} else {
			go c.Close()
		}
	}
	clear(p.kept[len(good):])
	p.kept = good
	if p.tidies = len(good) > 0; p.tidies {
		p.tidying.Reset(tidyEach)
	}
}

// closeHTTP1 closes the kept connections.
func (p *Pool) closeHTTP1() {
	p.line.mu.Lock()
	defer p.line.mu.Unlock()
	for _, c := range p.kept {
		go c.Close()
	}
	p.kept = nil
	if p.tidying != nil {
		p.tidying.Stop()
	}
}

// dialHTTP1 opens a connection.
func (p *Pool) dialHTTP1(ctx context.Context) (*http1Conn, error) {
	offer := []string{alpnHTTP1}
	if p.bare.Load() {
		offer = nil
	}
	c, _, err := p.connect(ctx, offer...)
	if err != nil {
		return nil, err
	}
	c.ready()
	return &http1Conn{conn: c}, nil
}

// sendHTTP1 sends the request once over HTTP/1.1. The answer's body gives the grant back.
func (a *attempt) sendHTTP1(req *http.Request) (*http.Response, error) {
	p, ctx := a.pool, req.Context()
	c := a.grant.kept
	a.grant.kept = nil
	if c == nil {
		var err error
		if c, err = p.dialHTTP1(ctx); err != nil {
			if req.Body != nil {
				req.Body.Close()
			}
			return nil, err
		}
	}
	a.conn = c
	p.used(overHTTP1, c.used)
	c.used, c.left = true, maxAnswerHeader
	c.wrote.Store(false)
	c.in = readers.Get().(*bufio.Reader)
	c.in.Reset(c)
	x := &http1Exchange{attempt: a, ctx: ctx, stop: context.AfterFunc(ctx, c.interrupt)}
	if req.Body != nil && req.Body != http.NoBody {
		written := make(chan error, 1)
		x.written = written
		go func() { written <- x.write(req) }()
	} else {
		x.failed = x.write(req)
	}
	resp, err := x.read(req)
	if err != nil {
		x.stop()
		c.Close()
		lent, once := req.Body.(*lentBody)
		if once && !lent.withdraw() {
			x.await(time.After(restTime)) // the client may be slow, and no other attempt gets the body
		} else {
			x.await(nil)
		}
		switch {
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		case x.failed == nil || x.failed == errUnsentRest || once && lent.denied.Load() || x.answerable():
		case once && lent.of.failed.Load() != nil:
			err = *lent.of.failed.Load() // net/http wraps it in a type that hides it
		default:
			err = x.failed
		}
		return nil, err
	}
	if x.last = resp.Close || req.Close; resp.Body == http.NoBody {
		x.finish(true)
		return resp, nil
	}
	x.ReadCloser, resp.Body = resp.Body, x
	return resp, nil
}

// http1Exchange is one request on a connection, and its answer's body.
type http1Exchange struct {
	io.ReadCloser
	*attempt
	ctx     context.Context
	stop    func() bool
	written <-chan error // tells once how sending the request ended, if that goes on beside
	failed  error        // how it did, if it is known
	headed  atomic.Bool
	last    bool // nothing follows on the connection
	ended   atomic.Bool
}

// write sends the request, and begins to wait for the answer's header.
func (x *http1Exchange) write(req *http.Request) error {
	out := writers.Get().(*bufio.Writer)
	out.Reset(x.conn)
	err := req.Write(out)
	if err == nil {
		err = out.Flush()
	}
	out.Reset(nil)
	writers.Put(out)
	if x.headed.Load() { // already: the client needn't send the rest
		return err
	}
	if err == nil || x.answerable() {
		x.bound(time.Now().Add(x.pool.cfg.FirstByteTimeout))
	} else {
		x.conn.interrupt()
	}
	if x.headed.Load() { // meanwhile
		x.bound(time.Time{})
	}
	return err
}

// read reads the answer's header. An upstream may answer before it has read the whole
// request, so that an error of sending it isn't all there is to know.
func (x *http1Exchange) read(req *http.Request) (*http.Response, error) {
	err := x.peek()
	for {
		var resp *http.Response
		if err == nil {
			resp, err = http.ReadResponse(x.conn.in, req)
		}
		if x.conn.left <= 0 {
			err = ErrHeaderTooLong
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("no header of an answer in upstream.first_byte_timeout, %v: %w", x.pool.cfg.FirstByteTimeout, err)
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errSwitched
		case resp.StatusCode >= 200:
			x.conn.left = math.MaxInt64
			x.headed.Store(true)
			x.bound(time.Time{})
			return resp, nil
		}
		if trace := httptrace.ContextClientTrace(x.ctx); trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
				return nil, err
			}
		}
	}
}

// await waits until the request has left, or failed to; or for patience, if there is any.
func (x *http1Exchange) await(patience <-chan time.Time) {
	if x.written == nil {
		return
	}
	select {
	case x.failed = <-x.written:
	case <-patience:
		x.failed = errUnsentRest
	}
	x.written = nil
}

var errUnsentRest = errors.New("the answer came before the request's end")

// restTime is how long a request's end may come after its answer's.
const restTime = 50 * time.Millisecond

// finish ends the exchange. The connection is kept if both messages were complete.
func (x *http1Exchange) finish(complete bool) {
	if x.ended.Swap(true) {
		return
	}
	c := x.conn
	undisturbed := x.stop() && x.ctx.Err() == nil // which comes before interrupt is called
	if complete && x.written != nil {
		x.await(time.After(restTime))
	}
	if complete && undisturbed && !x.last && x.failed == nil && c.in.Buffered() == 0 {
		c.in.Reset(nil)
		readers.Put(c.in)
		c.in, x.grant.kept = nil, c
	} else {
		c.Close()
	}
	x.pool.leave(x.grant)
}

// Read reads from the upstream.
func (x *http1Exchange) Read(p []byte) (int, error) {
	n, err := x.ReadCloser.Read(p)
	if err == nil {
		return n, nil
	}
	x.finish(errors.Is(err, io.EOF))
	if !errors.Is(err, io.EOF) && x.ctx.Err() != nil {
		err = context.Cause(x.ctx)
	}
	return n, err
}

// Close ends the exchange; the rest of the answer isn't worth waiting for.
func (x *http1Exchange) Close() error {
	x.finish(false)
	return nil
}
