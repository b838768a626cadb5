package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"phasegate/harness/scenario"
)

// dialTo opens a connection to the arm's server, known to open until it is
// closed. Over TLS the connection is a *tls.Conn around the socket, with
// protocol negotiated by ALPN (RFC 7301).
func (s *side) dialTo(ctx context.Context, protocol scenario.Protocol) (net.Conn, *socket, error) {
	raw, err := s.g.dial(ctx, "tcp", s.arm.address)
	if err != nil {
		return nil, nil, err
	}
	socket := &socket{Conn: raw, open: s.open}
	if !s.open.add(raw) {
		raw.Close()
		return nil, nil, net.ErrClosed
	}
	if s.arm.tls == nil {
		return socket, socket, nil
	}
	began := time.Since(s.base)
	secured, err := s.handshake(ctx, socket, protocol)
	if !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) { // by ourselves, at the end
		s.sink.Handshake(s.arm.index, began, err == nil)
	}
	if err != nil {
		socket.Close()
		return nil, nil, err
	}
	return secured, socket, nil
}

// handshake succeeds if it ends in the protocol. A server without ALPN speaks
// HTTP/1.1.
func (s *side) handshake(ctx context.Context, over net.Conn, protocol scenario.Protocol) (*tls.Conn, error) {
	config := s.arm.tls.Clone()
	config.NextProtos = []string{string(protocol)}
	secured := tls.Client(over, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake with %s: %w", s.arm.address, err)
	}
	agreed := scenario.Protocol(secured.ConnectionState().NegotiatedProtocol)
	if agreed != protocol && !(agreed == "" && protocol == scenario.HTTP1) {
		return nil, fmt.Errorf("%s doesn't offer %s by ALPN", s.arm.address, protocol)
	}
	return secured, nil
}

// socket is one open connection. Its deadline moves with every request, but
// the connection's own timers are set about once in a timeout: they are set to
// the deadline when they would fire in less than half the time left, and a
// timer that fires before the deadline, which has moved on, is set anew. Set for
// every request and taken away after it, they were four changes of timers, and
// where the new one was the first of all, a call to wake the thread that waits
// for it.
type socket struct {
	net.Conn
	open *sockets

	mu    sync.Mutex
	until time.Time // deadline of the request under way; zero at rest
	set   time.Time // what the connection was told; zero for none
}

// adopt makes it one that the code which an engine runs can wait for.
func (s *socket) adopt(e engine) error {
	was := s.Conn
	nc, err := e.adopt(was)
	if nc == was && err == nil {
		return nil
	}
	s.open.forget(was)
	if err != nil {
		return err
	}
	s.Conn = nc
	if !s.open.add(nc) {
		nc.Close()
		return net.ErrClosed
	}
	return nil
}

// arrived is when the last byte that was read had come, where that is known
// better than by the clock at the end of reading.
func (s *socket) arrived() time.Time {
	if c, ok := s.Conn.(interface{ arrived() time.Time }); ok {
		return c.arrived()
	}
	return time.Now()
}

// left is when the last request left, where that was after it was written; else zero.
func (s *socket) left() time.Time {
	if c, ok := s.Conn.(interface{ left() time.Time }); ok {
		return c.left()
	}
	return time.Time{}
}

// expect sets the deadline of a request.
func (s *socket) expect(until, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = until
	if !s.set.IsZero() && !s.set.After(until) && s.set.Sub(now) > until.Sub(now)/2 {
		return nil
	}
	s.set = until
	return s.Conn.SetDeadline(until)
}

// rest takes the deadline away.
func (s *socket) rest() {
	s.mu.Lock()
	s.until = time.Time{}
	s.mu.Unlock()
}

// early reports whether a timer fired for a deadline that has moved on, and
// sets it to where that is now.
func (s *socket) early(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set.IsZero() || !s.until.IsZero() && !time.Now().Before(s.until) {
		return false // not set by us, or not early
	}
	s.set = s.until
	return s.Conn.SetDeadline(s.until) == nil
}

func (s *socket) Read(b []byte) (int, error) {
	for {
		n, err := s.Conn.Read(b)
		if n > 0 || err == nil || !s.early(err) {
			return n, err
		}
	}
}

func (s *socket) Write(b []byte) (int, error) {
	for sent := 0; ; {
		n, err := s.Conn.Write(b[sent:])
		if sent += n; err == nil || !s.early(err) {
			return sent, err
		}
	}
}

// Close closes the connection, which is then no longer known.
func (s *socket) Close() error {
	s.open.forget(s.Conn)
	return s.Conn.Close()
}

// sockets is the set of open connections, so that all can be cut off at once.
type sockets struct {
	mu     sync.Mutex
	closed bool
	all    map[net.Conn]struct{}
}

// add reports false, and doesn't take nc, once everything is cut off.
func (s *sockets) add(nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.all == nil {
		s.all = map[net.Conn]struct{}{}
	}
	s.all[nc] = struct{}{}
	return true
}

func (s *sockets) forget(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, nc)
}

// cut closes all, and everything that would be added from now on.
func (s *sockets) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for nc := range s.all {
		nc.Close()
	}
}
