//go:build !linux

package eventloop

import (
	"context"
	"errors"
	"io"

	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Server owns a listening socket and the connections that came by it. It is made by
// New and ended by Close; Drain may come before that.
type Server struct {
	cfg      Config
	listener *net.TCPListener
	mu       sync.Mutex
	draining bool
	open     map[*Conn]bool // whether a request is under way
	serving  sync.WaitGroup
}

// Conn is a client's connection.
type Conn struct {
	*net.TCPConn
	server *Server
	peeked []byte      // was read, and comes first
	taken  bool        // something was read
	minded atomic.Bool // its borrower drains it himself

	// Of who writes, since the client last took leastTaken.
	written int
	waited  time.Duration
}

// New takes the listening socket over from l and begins to serve.
func New(l *net.TCPListener, cfg Config) (*Server, error) {
	s := &Server{cfg: cfg.withDefaults(), listener: l, open: map[*Conn]bool{}}
	s.serving.Go(s.accept)
	return s, nil
}

// accept goes on after an error: want of descriptors, the usual one, passes as soon as
// some clients leave.
func (s *Server) accept() {
	for pause := 5 * time.Millisecond; ; {
		for s.full() {
			time.Sleep(100 * time.Millisecond)
		}
		tcp, err := s.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.cfg.Logger.Warn("no new clients for a moment", "error", err, "next_try_in", pause)
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = 5 * time.Millisecond
		c := &Conn{TCPConn: tcp, server: s}
		s.mu.Lock()
		s.open[c] = true
		s.mu.Unlock()
		s.serving.Go(func() { s.cfg.Serve(c) })
	}
}

// full reports whether there are as many connections as are allowed.
func (s *Server) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.MaxConnections > 0 && len(s.open) >= s.cfg.MaxConnections && !s.draining
}

// Addr is the address that is listened on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// File is the listening socket, for another process to go on with. The caller closes it.
func (s *Server) File() (*os.File, error) { return s.listener.File() }

// Adopt leaves the connection to Go's poller.
func (s *Server) Adopt(conn *net.TCPConn) (net.Conn, error) { return conn, nil }

// Grace is how long a client of another engine gets before he is told to leave.
func Grace(context.Context) time.Duration { return 0 }

// Draining reports whether connections are to be closed after the present request.
func (s *Server) Draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// Drain stops accepting, lets requests in flight finish, and returns when no
// connection is left. A request that hasn't arrived in half of ctx's time isn't waited
// for. When ctx ends first, its error is returned.
func (s *Server) Drain(ctx context.Context) error {
	err := s.listener.Close()
	if end, bounded := ctx.Deadline(); bounded {
		patience := time.AfterFunc(time.Until(end)/2, func() {
			s.each(func(c *Conn, _ bool) {
				if !c.minded.Load() {
					c.SetReadDeadline(time.Unix(1, 0))
				}
			})
		})
		defer patience.Stop()
	}
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.each(func(c *Conn, busy bool) {
		if !busy && !c.minded.Load() {
			c.SetReadDeadline(time.Unix(1, 0))
		}
	})
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		s.mu.Lock()
		n := len(s.open)
		s.mu.Unlock()
		if n == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Close cuts off what connections are left, and waits for Serve to have returned for
// each of them.
func (s *Server) Close() {
	s.listener.Close()
	s.each(func(c *Conn, _ bool) { c.TCPConn.Close() })
	s.serving.Wait()
}

func (s *Server) each(visit func(c *Conn, busy bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, busy := range s.open {
		visit(c, busy)
	}
}

// SetIdle says whether the next byte to read is a request's first.
func (c *Conn) SetIdle(idle bool) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.server.open[c] = !idle
}

// First reports whether nothing was read of this connection before.
func (c *Conn) First() bool { return !c.taken }

// Keep says that Drain leaves the connection to its borrower, if he minds it himself.
// It is kept in any case.
func (c *Conn) Keep(minds bool) { c.minded.Store(minds) }

// Peek waits for n bytes, and gives them without taking them; fewer with the error that
// came before.
func (c *Conn) Peek(n int) ([]byte, error) {
	for len(c.peeked) < n {
		more := make([]byte, n-len(c.peeked))
		read, err := c.TCPConn.Read(more)
		c.peeked = append(c.peeked, more[:read]...)
		if err != nil {
			return c.peeked, err
		}
	}
	return c.peeked[:n], nil
}

// Read waits for bytes; it reports the end where the next request would begin when the
// server is draining.
func (c *Conn) Read(b []byte) (int, error) {
	c.server.mu.Lock()
	leave := c.server.draining && !c.server.open[c]
	c.server.mu.Unlock()
	if leave {
		return 0, io.EOF
	}
	c.taken = true
	if len(c.peeked) > 0 {
		n := copy(b, c.peeked)
		c.peeked = c.peeked[n:]
		return n, nil
	}
	return c.TCPConn.Read(b)
}

// Write waits until the kernel has taken all. If a client takes less than leastTaken while
// Write has waited for Config.Stuck, in this call or in several, it fails as if a deadline
// had passed.
func (c *Conn) Write(b []byte) (sent int, err error) {
	for {
		begun := time.Now()
		if err := c.TCPConn.SetWriteDeadline(begun.Add(c.server.cfg.Stuck - c.waited)); err != nil {
			return sent, err
		}
		n, err := c.TCPConn.Write(b[sent:min(len(b), sent+leastTaken)]) // one that is on its way counts as nothing
		c.waited += time.Since(begun)
		if c.written += n; c.written >= leastTaken {
			c.written, c.waited = 0, 0
		}
		if sent += n; err != nil || sent == len(b) {
			return sent, err
		}
	}
}

// Close closes the connection.
func (c *Conn) Close() error {
	c.server.mu.Lock()
	delete(c.server.open, c)
	c.server.mu.Unlock()
	return c.TCPConn.Close()
}

// Client is the client's address.
func (c *Conn) Client() netip.Addr {
	return c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}
