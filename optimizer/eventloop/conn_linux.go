package eventloop

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Who has a connection. The loop lends it, the borrower gives it back; while it is
// lent the loop only notes that there is something to read.
const (
	owned        = iota // by its loop
	lent                // to a goroutine, which has seen that nothing is there to read
	lentReadable        // to a goroutine; something may be there to read
)

// Conn is a client's connection, for whoever it is lent to.
type Conn struct {
	loop    *loop
	fd      int
	remote  netip.AddrPort
	adopted bool // no client's
	state   atomic.Int32
	ended   atomic.Bool // the end, or an error, comes after what is there to read, and isn't told again

	// Of whoever has it.
	readable bool   // the loop's: something may have come that wasn't read
	active   int64  // Unix nanoseconds of the last turn
	unread   []byte // was read, and comes first
	unsent   []byte // the kernel didn't take it
	waiting  int64  // bytes that unsent keeps in memory
	between  bool   // the next request would begin here
	back     bool   // Close gives it back
	addr     *net.TCPAddr

	io                    sync.RWMutex // held for reading around each use of fd by a borrower
	closed                bool
	readUntil, writeUntil atomic.Int64 // Unix nanoseconds; 0: no bound
	readWake, writeWake   chan struct{}
}

// read and write don't wait.
func (c *Conn) read(b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		acquired()
		return int(n), 0
	}
}

func (c *Conn) write(b []byte) (sent int, _ syscall.Errno) {
	releasing()
	for sent < len(b) {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&b[sent])), uintptr(len(b)-sent), unix.MSG_NOSIGNAL, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return sent, errno
		}
		sent += int(n)
	}
	return sent, 0
}

// keep notes what of an answer the kernel didn't take; nil ends that.
func (c *Conn) keep(unsent []byte) {
	c.unsent = unsent
	if now := int64(len(unsent)); now != c.waiting {
		c.loop.server.unsent.Add(now - c.waiting)
		c.waiting = now
	}
}

// hasNews reports whether there is something to read, be it the end.
func (c *Conn) hasNews() bool {
	var b [1]byte
	_, _, err := unix.Recvfrom(c.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err != unix.EAGAIN
}

// release closes the socket.
func (c *Conn) release() {
	c.io.Lock()
	defer c.io.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	c.keep(nil)
	if c.loop.server.table.at(c.fd) == c {
		c.loop.server.table.set(c.fd, nil) // before the descriptor can be another's
	}
	unix.Close(c.fd)
	poke(c.readWake) // who waits learns of it
	poke(c.writeWake)
	c.loop.count.Add(-1)
	if !c.adopted {
		c.loop.server.open.Add(-1)
	}
}

// cutOff ends the connection under whoever has it.
func (c *Conn) cutOff() {
	c.io.RLock()
	if !c.closed {
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
	}
	c.io.RUnlock()
	c.SetDeadline(time.Unix(1, 0))
}

// serve is the borrower's goroutine.
func (c *Conn) serve() {
	c.between, c.back = false, false
	c.readUntil.Store(0)
	c.writeUntil.Store(0)
	if len(c.unsent) > 0 {
		if _, err := c.Write(c.unsent); err != nil {
			c.release()
			return
		}
		c.keep(nil)
	}
	c.loop.server.cfg.Serve(c)
}

// SetIdle says whether the next byte to read is a request's first.
func (c *Conn) SetIdle(idle bool) { c.between = idle }

// Read waits for bytes. Between two requests it doesn't: it returns ErrBack.
func (c *Conn) Read(b []byte) (int, error) {
	if len(c.unread) > 0 {
		n := copy(b, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	if c.between {
		c.back = true
		return 0, ErrBack
	}
	for {
		if past(&c.readUntil) {
			return 0, c.failure("read", os.ErrDeadlineExceeded)
		}
		c.io.RLock()
		if c.closed {
			c.io.RUnlock()
			return 0, c.failure("read", net.ErrClosed)
		}
		var n int
		errno := unix.EAGAIN
		if c.state.CompareAndSwap(lentReadable, lent) {
			n, errno = c.read(b)
			if errno == 0 && (n == len(b) || c.ended.Load()) {
				c.state.Store(lentReadable)
			}
		}
		c.io.RUnlock()
		switch {
		case errno == unix.EAGAIN:
			sleep(c.readWake, c.readUntil.Load())
		case errno != 0:
			return 0, c.failure("read", errnoOf("recvfrom", errno))
		case n == 0 && len(b) > 0:
			c.state.Store(lentReadable) // the end stays
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write waits until the kernel has taken all. If a client takes nothing for
// Config.Stuck, it fails as if a deadline had passed. The kernel tells that there is
// room when a third of its buffer is free, so someone who reads a byte now and then
// takes nothing.
func (c *Conn) Write(b []byte) (sent int, err error) {
	patience := int64(0) // Unix nanoseconds
	for {
		if past(&c.writeUntil) {
			return sent, c.failure("write", os.ErrDeadlineExceeded)
		}
		c.io.RLock()
		if c.closed {
			c.io.RUnlock()
			return sent, c.failure("write", net.ErrClosed)
		}
		n, errno := c.write(b[sent:])
		c.io.RUnlock()
		if sent += n; errno == 0 {
			return sent, nil
		}
		if errno != unix.EAGAIN {
			return sent, c.failure("write", errnoOf("sendto", errno))
		}
		until := c.writeUntil.Load()
		if !c.adopted {
			now := time.Now()
			if n > 0 || patience == 0 {
				patience = now.Add(c.loop.server.cfg.Stuck).UnixNano()
			} else if now.UnixNano() >= patience {
				return sent, c.failure("write", os.ErrDeadlineExceeded)
			}
			if until == 0 || patience < until {
				until = patience
			}
		}
		sleep(c.writeWake, until)
	}
}

// sleep waits for news, of the loop or of an earlier deadline, or until a moment in
// Unix nanoseconds, if that isn't 0.
func sleep(news chan struct{}, until int64) {
	if until == 0 {
		<-news
		return
	}
	timer := time.NewTimer(time.Until(time.Unix(0, until)))
	defer timer.Stop()
	select {
	case <-news:
	case <-timer.C:
	}
}

func past(until *atomic.Int64) bool {
	at := until.Load()
	return at != 0 && time.Now().UnixNano() >= at
}

// Close closes the connection, or gives it back to the loop after ErrBack.
func (c *Conn) Close() error {
	if !c.back {
		c.release()
		return nil
	}
	c.back = false
	if cap(c.unread) > 4<<10 {
		c.unread = nil
	}
	c.readable = false
	c.active = time.Now().UnixNano()
	if c.loop.ended.Load() {
		c.release()
		return nil
	}
	if !c.state.CompareAndSwap(lent, owned) {
		c.readable = true
		c.state.Store(owned)
		c.loop.post(c)
	}
	return nil
}

// CloseWrite tells the client that nothing follows.
func (c *Conn) CloseWrite() error {
	c.io.RLock()
	defer c.io.RUnlock()
	if c.closed {
		return c.failure("close", net.ErrClosed)
	}
	return os.NewSyscallError("shutdown", unix.Shutdown(c.fd, unix.SHUT_WR))
}

// SetDeadline bounds reads and writes, also those that wait already.
func (c *Conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds reads.
func (c *Conn) SetReadDeadline(t time.Time) error {
	set(&c.readUntil, t, c.readWake)
	return nil
}

// SetWriteDeadline bounds writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	set(&c.writeUntil, t, c.writeWake)
	return nil
}

func set(until *atomic.Int64, t time.Time, wake chan struct{}) {
	at := int64(0)
	if !t.IsZero() {
		at = max(1, t.UnixNano())
	}
	before := until.Swap(at)
	if at != 0 && (before == 0 || at < before) {
		poke(wake)
	}
}

// RemoteAddr is the client's address, a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr {
	if c.addr == nil {
		c.addr = net.TCPAddrFromAddrPort(c.remote)
	}
	return c.addr
}

// Client is the client's address.
func (c *Conn) Client() netip.Addr { return c.remote.Addr() }

// LocalAddr is the address that the client came to.
func (c *Conn) LocalAddr() net.Addr {
	c.io.RLock()
	defer c.io.RUnlock()
	if !c.closed {
		switch a, _ := unix.Getsockname(c.fd); a := a.(type) {
		case *unix.SockaddrInet4:
			return &net.TCPAddr{IP: a.Addr[:], Port: a.Port}
		case *unix.SockaddrInet6:
			return &net.TCPAddr{IP: a.Addr[:], Port: a.Port}
		}
	}
	return &net.TCPAddr{}
}

func (c *Conn) failure(what string, err error) error {
	return &net.OpError{Op: what, Net: "tcp", Addr: net.TCPAddrFromAddrPort(c.remote), Err: err}
}
