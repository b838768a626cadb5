package optimizer

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"phasegate/optimizer/arena"
	"phasegate/optimizer/eventloop"
	"phasegate/optimizer/telemetry"
)

// newServer makes the engine for HTTP/1.1: for all that the fast path leaves.
func (o *Optimizer) newServer() *fasthttp.Server {
	return &fasthttp.Server{
		Handler:      o.handler.serve,
		ErrorHandler: o.handler.malformed,
		Logger:       quietLogger{o.cfg.Logger},
		ConnState:    await,

		// Header fields are the origin's and ours; the engine adds none.
		NoDefaultServerHeader: true,
		NoDefaultDate:         true,
		NoDefaultContentType:  true,

		// A request body goes up as it comes; only its beginning is read ahead.
		StreamRequestBody:            true,
		MaxRequestBodySize:           int(o.cfg.Guard.MaxRequestSize),
		DisablePreParseMultipartForm: true,

		ReadBufferSize:  int(o.cfg.Guard.MaxHeaderSize), // a longer header is refused with 431
		WriteBufferSize: writeBufferSize,                // header and body of larger answers leave by one writev
		ReadTimeout:     o.cfg.Guard.ReadTimeout,
		IdleTimeout:     o.cfg.Guard.IdleTimeout,
	}
}

// unreadable is an eventloop.Reply for connections that are encrypted.
func unreadable() eventloop.Reply {
	return func(out, _ []byte, _ *eventloop.Conn) ([]byte, bool) { return out, false }
}

// malformed answers what fasthttp couldn't read as a request; it then closes the
// connection.
func (h *handler) malformed(ctx *fasthttp.RequestCtx, err error) {
	status := http.StatusBadRequest
	var tooLong *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.As(err, &tooLong):
		status = http.StatusRequestHeaderFieldsTooLarge
	case errors.As(err, &network) && network.Timeout():
		status = http.StatusRequestTimeout
	}
	x := exchange{ctx: ctx, now: time.Now()}
	x.hangUp()
	if conn, ok := ctx.Conn().(*clientConn); ok && !conn.asked {
		x.refused(status, "") // nothing has come: there is no request to count
		return
	}
	h.unread(&x, status, telemetry.Access{Protocol: "HTTP/1.1"})
}

// unread refuses a request that couldn't be read; seen is what is known of it.
func (h *handler) unread(x *exchange, status int, seen telemetry.Access) {
	seen.Result, seen.Status = x.refused(status, ""), status
	h.metrics.Answered(seen.Result, status, 0)
	log := h.rules.Load().access
	if !log.Enabled() {
		return
	}
	if seen.Method != http.MethodHead {
		seen.Size = int64(len(x.ctx.Response.Body()))
	}
	seen.Begun, seen.Client = x.now, x.ctx.RemoteIP().String()
	log.Write(seen)
}

// lend serves a connection that the event loop lends. Its first bytes, or ALPN, choose
// the engine.
func (o *Optimizer) lend(conn *eventloop.Conn) {
	if config := o.handler.rules.Load().tls; config != nil {
		o.lendSecure(conn, config)
		return
	}
	if o.beginsHTTP2(conn) {
		conn.Keep(true)
		o.http2.Serve(conn)
		return
	}
	o.serveHTTP1(&clientConn{Conn: conn, loop: conn})
}

// serveHTTP1 has fasthttp answer what is there; the loop then has the connection back
// for the next request, if it can tell where that begins.
func (o *Optimizer) serveHTTP1(conn *clientConn) {
	defer conn.answered()
	if err := o.server.ServeConn(conn); err != nil {
		o.cfg.Logger.Debug("connection", "client", conn.loop.Client(), "error", err)
	}
}

// await tells the loop's connection where a request may begin. After StateClosed the
// connection may be someone else's.
func await(conn net.Conn, state fasthttp.ConnState) {
	c, ok := conn.(*clientConn)
	if !ok {
		return // of this program's RoundTripper
	}
	switch state {
	case fasthttp.StateActive:
		c.asked = true
		c.loop.SetIdle(false)
	case fasthttp.StateIdle:
		c.asked = false
		c.answered()
		c.loop.SetIdle(true)
	}
}

// clientConn is a client's connection, which may close slowly.
type clientConn struct {
	net.Conn // what is read and written: loop, or TLS over it
	loop     *eventloop.Conn
	turns
	sending
	asked  bool // the first byte of a request has come that isn't answered
	linger atomic.Bool
}

// sending is what the answer under way is sent from.
type sending struct{ entry arena.Entry }

// hold keeps an entry for the answer, until answered.
func (s *sending) hold(e arena.Entry) { s.entry = e.Hold() }

// answered ends the hold on what the last answer was sent from, which by now has left
// or is in the engine's buffer.
func (s *sending) answered() {
	s.entry.Release()
	s.entry = arena.Entry{}
}

const writeBufferSize = 4 << 10

// lingerTime is how long a client that is still sending may take to read our answer.
const lingerTime = 500 * time.Millisecond

// Close closes the connection. If the client is still sending, closing at once would
// make its kernel drop the answer that it hasn't read yet (RFC 9112 §9.6).
func (c *clientConn) Close() error {
	if c.linger.Swap(false) {
		if secured, ok := c.Conn.(*tls.Conn); ok {
			_ = secured.CloseWrite() // tells that this end is meant (RFC 8446 §6.1)
		}
		if c.loop.CloseWrite() == nil {
			c.loop.SetReadDeadline(time.Now().Add(lingerTime))
			io.Copy(io.Discard, c.loop) // ends with the client's close or the deadline
		}
	}
	return c.Conn.Close()
}

// hangUp closes the connection after the answer, because not all of the request was read.
func (x *exchange) hangUp() {
	x.ctx.SetConnectionClose()
	if conn, ok := x.ctx.Conn().(*clientConn); ok {
		conn.linger.Store(true)
	}
}

// quietLogger takes what fasthttp prints of single connections: news for someone who
// debugs, not for an operator.
type quietLogger struct{ *slog.Logger }

// Printf logs at level debug.
func (l quietLogger) Printf(format string, args ...any) {
	l.Debug("connection", "format", format, "args", args)
}
