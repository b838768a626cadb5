package optimizer

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"phasegate/optimizer/arena"
)

// newServer makes the engine for HTTP/1.1. A listener that chooses another engine,
// by the first bytes of a connection or by ALPN, stands between o.listener and here.
func (o *Optimizer) newServer() *fasthttp.Server {
	return &fasthttp.Server{
		Handler:      o.handler.serve,
		ErrorHandler: o.handler.malformed,
		Logger:       quietLogger{o.cfg.Logger},
		ConnState:    o.conns.note,

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
		ReadTimeout:     clientReadTimeout,
		IdleTimeout:     clientIdleTimeout,
		TCPKeepalive:    true,
		CloseOnShutdown: true,
	}
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
	h.metrics.Answered(x.refused(status, ""), status, 0)
}

// patientListener goes on accepting after an error. For fasthttp every error is the
// end; want of descriptors, the usual one, passes as soon as some clients leave.
type patientListener struct {
	net.Listener
	logger *slog.Logger
}

// Accept waits for a connection, or for the listener to be closed.
func (l patientListener) Accept() (net.Conn, error) {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		conn, err := l.Listener.Accept()
		if tcp, ok := conn.(*net.TCPConn); ok {
			return &clientConn{TCPConn: tcp}, nil
		}
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		l.logger.Warn("no new clients for a moment", "error", err, "next_try_in", pause)
		time.Sleep(pause)
	}
}

// clientConn is a client's connection, which may close slowly.
type clientConn struct {
	*net.TCPConn
	turns
	linger  atomic.Bool
	sending arena.Entry // what the answer under way is sent from
}

// answered ends the hold on what the last answer was sent from, which by now has left
// or is in the engine's buffer.
func (c *clientConn) answered() {
	c.sending.Release()
	c.sending = arena.Entry{}
}

const writeBufferSize = 4 << 10

// lingerTime is how long a client that is still sending may take to read our answer.
const lingerTime = 500 * time.Millisecond

// Close closes the connection. If the client is still sending, closing at once would
// make its kernel drop the answer that it hasn't read yet (RFC 9112 §9.6).
func (c *clientConn) Close() error {
	if c.linger.Swap(false) && c.CloseWrite() == nil {
		c.SetReadDeadline(time.Now().Add(lingerTime))
		io.Copy(io.Discard, c.TCPConn) // ends with the client's close or the deadline
	}
	return c.TCPConn.Close()
}

// hangUp closes the connection after the answer, because not all of the request was read.
func (x *exchange) hangUp() {
	x.ctx.SetConnectionClose()
	if conn, ok := x.ctx.Conn().(*clientConn); ok {
		conn.linger.Store(true)
	}
}

// connections knows the open connections of clients, so that Stop can cut off what
// doesn't drain in time.
type connections struct {
	mu   sync.Mutex
	open map[net.Conn]struct{}
}

func (c *connections) note(conn net.Conn, state fasthttp.ConnState) {
	switch state {
	case fasthttp.StateNew:
		c.mu.Lock()
		if c.open == nil {
			c.open = make(map[net.Conn]struct{})
		}
		c.open[conn] = struct{}{}
		c.mu.Unlock()
	case fasthttp.StateIdle:
		if c, ok := conn.(*clientConn); ok {
			c.answered()
		}
	case fasthttp.StateClosed, fasthttp.StateHijacked:
		if c, ok := conn.(*clientConn); ok {
			c.answered()
		}
		c.mu.Lock()
		delete(c.open, conn)
		c.mu.Unlock()
	}
}

// readUntil bounds the time in which clients may send the rest of their requests.
func (c *connections) readUntil(end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.SetReadDeadline(end)
	}
}

func (c *connections) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.Close()
	}
}

// quietLogger takes what fasthttp prints of single connections: news for someone who
// debugs, not for an operator.
type quietLogger struct{ *slog.Logger }

// Printf logs at level debug.
func (l quietLogger) Printf(format string, args ...any) {
	l.Debug("connection", "format", format, "args", args)
}
