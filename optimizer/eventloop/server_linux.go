package eventloop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Server owns a listening socket and the connections that came by it. It is made by
// New and ended by Close; Drain may come before that.
type Server struct {
	cfg      Config
	addr     net.Addr
	listener int // file descriptor
	loops    []*loop
	table    table
	open     atomic.Int64 // connections
	unsent   atomic.Int64 // bytes of answers that wait for their clients
	woken    atomic.Int64 // Unix nanoseconds of the last turn in which a goroutine was woken
	draining atomic.Bool
	grace    atomic.Int64   // Unix nanoseconds from which connections between requests are closed
	deaf     sync.WaitGroup // loops that still accept
	threads  sync.WaitGroup
	lent     sync.WaitGroup
	silence  sync.Once
	closing  sync.Once
}

// New takes the listening socket over from l, which is closed, and begins to serve.
func New(l *net.TCPListener, cfg Config) (*Server, error) {
	s := &Server{cfg: cfg.withDefaults(), addr: l.Addr(), listener: -1}
	raw, err := l.SyscallConn()
	if err == nil {
		// The listener itself would wake Go's poller too, for every new connection.
		if failed := raw.Control(func(fd uintptr) { s.listener, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); failed != nil {
			err = failed
		}
	}
	if err = errors.Join(err, l.Close()); err != nil {
		return nil, fmt.Errorf("take over the listening socket: %w", err)
	}
	// Connections inherit these.
	for _, o := range []struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
	} {
		if err := unix.SetsockoptInt(s.listener, o.level, o.name, o.value); err != nil {
			unix.Close(s.listener)
			return nil, fmt.Errorf("prepare the listening socket: %w", os.NewSyscallError("setsockopt", err))
		}
	}
	for range max(1, min(runtime.NumCPU(), runtime.GOMAXPROCS(0))) {
		loop, err := newLoop(s)
		if err != nil {
			for _, l := range s.loops {
				l.free()
			}
			unix.Close(s.listener)
			return nil, err
		}
		s.loops = append(s.loops, loop)
	}
	s.deaf.Add(len(s.loops))
	for _, l := range s.loops {
		s.threads.Go(l.run)
	}
	return s, nil
}

// Addr is the address that is listened on.
func (s *Server) Addr() net.Addr { return s.addr }

// File is the listening socket, for another process to go on with. The caller closes it.
// It must not be called during Drain or after.
func (s *Server) File() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(s.listener), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy the listening socket: %w", os.NewSyscallError("fcntl", err))
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}

// Adopt has the loops wait for a connection that was opened by this program, in place
// of Go's poller: a goroutine that reads from it is woken on the processor that the loop
// runs on. It takes conn over. It isn't waited for in Drain; Close cuts it off.
func (s *Server) Adopt(conn *net.TCPConn) (net.Conn, error) {
	defer conn.Close()
	remote, _ := conn.RemoteAddr().(*net.TCPAddr)
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("adopt a connection: %w", err)
	}
	c := &Conn{remote: remote.AddrPort(), adopted: true, reading: waiter{news: make(chan struct{}, 1)}, writing: waiter{news: make(chan struct{}, 1)}}
	c.state.Store(lentReadable)
	if failed := raw.Control(func(fd uintptr) { c.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); failed != nil {
		err = failed
	}
	if err != nil {
		return nil, fmt.Errorf("adopt a connection: %w", err)
	}
	if err := s.leastLoaded().take(c); err != nil {
		return nil, fmt.Errorf("adopt a connection: %w", err)
	}
	return c, nil
}

// leastLoaded is the loop with the fewest connections.
func (s *Server) leastLoaded() *loop {
	to := s.loops[0]
	for _, l := range s.loops[1:] {
		if l.count.Load() < to.count.Load() {
			to = l
		}
	}
	return to
}

// drainGrace is how long a client that is between two requests may take to send the
// next one, whose answer then tells it that the connection closes. To close at once
// would lose requests that are on their way.
const drainGrace = time.Second

// Grace is that time, of ctx's: a quarter at most.
func Grace(ctx context.Context) time.Duration {
	if end, bounded := ctx.Deadline(); bounded {
		return min(drainGrace, time.Until(end)/4)
	}
	return drainGrace
}

// Draining reports whether connections are to be closed after the present request.
func (s *Server) Draining() bool { return s.draining.Load() }

// Drain stops accepting, lets requests in flight finish, and returns when no
// connection is left. A request that hasn't arrived in half of ctx's time isn't waited
// for. When ctx ends first, its error is returned.
func (s *Server) Drain(ctx context.Context) error {
	now := time.Now()
	grace := Grace(ctx)
	if end, bounded := ctx.Deadline(); bounded {
		half := time.Until(end) / 2
		patience := time.AfterFunc(half, func() { s.table.each(func(c *Conn) { c.leave(true) }) })
		defer patience.Stop()
	}
	ended := time.AfterFunc(grace, func() { s.table.each(func(c *Conn) { c.leave(false) }) })
	defer ended.Stop()
	s.grace.Store(now.Add(grace).UnixNano())
	s.draining.Store(true)
	for _, l := range s.loops {
		l.post(nil)
	}
	s.deaf.Wait()
	s.silence.Do(func() { unix.Close(s.listener) })
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for s.open.Load() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}

// Close ends the loops, cuts off what connections are left, and waits for Serve to
// have returned for each of them.
func (s *Server) Close() {
	s.closing.Do(func() {
		s.draining.Store(true)
		for _, l := range s.loops {
			l.ended.Store(true)
			l.post(nil)
		}
		s.threads.Wait()
		s.table.each(func(c *Conn) { c.cutOff() })
		s.lent.Wait()
		s.table.each(func(c *Conn) { c.release() }) // given back to a loop that was gone
		for _, l := range s.loops {
			l.free()
		}
		s.silence.Do(func() { unix.Close(s.listener) })
	})
}

// table finds connections by their file descriptors.
type table struct {
	chunks [4096]atomic.Pointer[[512]atomic.Pointer[Conn]]
}

func (t *table) at(fd int) *Conn {
	if chunk := t.chunks[fd>>9&4095].Load(); chunk != nil {
		return chunk[fd&511].Load()
	}
	return nil
}

func (t *table) set(fd int, c *Conn) {
	place := &t.chunks[fd>>9&4095]
	if place.Load() == nil {
		place.CompareAndSwap(nil, new([512]atomic.Pointer[Conn]))
	}
	place.Load()[fd&511].Store(c)
}

func (t *table) each(visit func(*Conn)) {
	for i := range t.chunks {
		chunk := t.chunks[i].Load()
		if chunk == nil {
			continue
		}
		for j := range chunk {
			if c := chunk[j].Load(); c != nil {
				visit(c)
			}
		}
	}
}

var errTooManyDescriptors = fmt.Errorf("a descriptor beyond %d", 4096*512)

// errnoOf gives nil for 0.
func errnoOf(call string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return os.NewSyscallError(call, errno)
}
