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

// How a borrower has a connection.
const (
	notKept = iota // it goes back at the next request
	kept           // for good
	minded         // for good, and drains it himself
)

// Conn is a client's connection, for whoever it is lent to.
type Conn struct {
	loop    *loop
	fd      int
	remote  netip.AddrPort
	adopted bool // no client's
	state   atomic.Int32
	ended   atomic.Bool  // the end, or an error, comes after what is there to read, and isn't told again
	between atomic.Bool  // the next request would begin here
	keeping atomic.Int32 // notKept, kept or minded

	// Of whoever has it.
	used     bool          // there was a request before
	first    bool          // what is lent is the beginning
	readable bool          // the loop's: something may have come that wasn't read
	queued   bool          // the loop's: an answer is in its answers
	active   int64         // Unix nanoseconds of the last turn
	unread   []byte        // was read, and comes first
	unsent   []byte        // the kernel didn't take it
	waiting  int64         // bytes that unsent keeps in memory
	written  int64         // bytes that the kernel took
	taken    int64         // of those, what the client had taken when it last took enough
	waited   time.Duration // in Write, since then
	back     bool          // Close gives it back
	addr     *net.TCPAddr

	io               sync.RWMutex // held for reading around each use of fd by a borrower
	closed           bool
	reading, writing waiter
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
		c.written += int64(n)
	}
	return sent, 0
}

// takesEnough reports whether the client has taken leastTaken since that was last so. What
// its kernel has counts, and not what ours has found room for: that is none for long, and then
// much at once.
func (c *Conn) takesEnough() bool {
	queued, _ := unix.IoctlGetInt(c.fd, unix.SIOCOUTQ) // 0 where it fails
	taken := c.written - int64(queued)
	if taken-c.taken < leastTaken {
		return false
	}
	c.taken = taken
	return true
}

// keep notes what of an answer the kernel didn't take; nil ends that.
func (c *Conn) keep(unsent []byte) {
	c.unsent = unsent
	if now := int64(len(unsent)); now != c.waiting {
		c.loop.server.unsent.Add(now - c.waiting)
		c.waiting = now
	}
}

// HasNews reports whether there is something to read on a connection that is lent, be it
// the end. It asks the kernel: a loop that is busy hasn't told yet what has come.
func (c *Conn) HasNews() bool {
	c.io.RLock()
	defer c.io.RUnlock()
	return c.closed || c.hasNews()
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
	poke(c.reading.news) // who waits learns of it
	poke(c.writing.news)
	c.loop.count.Add(-1)
	if !c.adopted {
		c.loop.server.open.Add(-1)
	}
}

// cutOff ends the connection under whoever has it. That the end is there to read has to be
// told here, as the loops are gone by now, and a deadline may be overwritten by who has it.
func (c *Conn) cutOff() {
	c.io.RLock()
	if !c.closed {
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR)
	}
	c.io.RUnlock()
	c.ended.Store(true)
	c.state.CompareAndSwap(lent, lentReadable)
	c.SetDeadline(time.Unix(1, 0))
}

// serve is the borrower's goroutine.
func (c *Conn) serve() {
	if len(c.unsent) > 0 {
		if _, err := c.Write(c.unsent); err != nil {
			c.release()
			return
		}
		c.keep(nil)
	}
	c.loop.server.cfg.Serve(c)
}

// First reports whether nothing was read of this connection before it was lent.
func (c *Conn) First() bool { return c.first }

// SetIdle says whether the next byte to read is a request's first.
func (c *Conn) SetIdle(idle bool) { c.between.Store(idle) }

// Keep has the borrower keep the connection until he closes it: the loop can't tell
// where a request begins. Drain ends it between two requests; if he minds that himself,
// not even there.
func (c *Conn) Keep(minds bool) {
	state := int32(kept)
	if minds {
		state = minded
	}
	c.keeping.Store(state)
}

// leave wakes the borrower if he waits for a request that he shouldn't wait for: for
// the next one of a kept connection, or, if patience has ended, for one that has begun.
func (c *Conn) leave(impatient bool) {
	if c.adopted || c.state.Load() == owned || c.keeping.Load() == minded {
		return
	}
	if !impatient {
		c.io.RLock()
		wanted := c.keeping.Load() == kept && c.between.Load() && !c.closed && !c.hasNews()
		c.io.RUnlock()
		if !wanted {
			return
		}
	}
	c.SetReadDeadline(time.Unix(1, 0))
}

// Peek waits for n bytes, and gives them without taking them; fewer with the error that
// came before.
func (c *Conn) Peek(n int) ([]byte, error) {
	for len(c.unread) < n {
		more := make([]byte, n-len(c.unread))
		read, err := c.await(more)
		c.unread = append(c.unread, more[:read]...)
		if err != nil {
			return c.unread, err
		}
	}
	return c.unread[:n], nil
}

// Read waits for bytes. Between two requests it doesn't, if the connection isn't kept:
// it returns ErrBack.
func (c *Conn) Read(b []byte) (int, error) {
	if len(c.unread) > 0 {
		n := copy(b, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	if c.keeping.Load() == notKept && c.between.Load() {
		c.back = true
		return 0, ErrBack
	}
	return c.await(b)
}

// await waits for bytes that weren't read before.
func (c *Conn) await(b []byte) (int, error) {
	for {
		if c.reading.past() {
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
			c.reading.sleep(c.reading.until.Load())
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

// Write waits until the kernel has taken all. If a client takes less than leastTaken while
// Write has waited for Config.Stuck, in this call or in several, it fails as if a deadline
// had passed.
func (c *Conn) Write(b []byte) (sent int, err error) {
	for {
		if c.writing.past() {
			return sent, c.failure("write", os.ErrDeadlineExceeded)
		}
		c.io.RLock()
		if c.closed {
			c.io.RUnlock()
			return sent, c.failure("write", net.ErrClosed)
		}
		n, errno := c.write(b[sent:])
		enough := errno == unix.EAGAIN && c.takesEnough()
		c.io.RUnlock()
		if sent += n; errno == 0 {
			return sent, nil
		}
		if errno != unix.EAGAIN {
			return sent, c.failure("write", errnoOf("sendto", errno))
		}
		if enough {
			c.waited = 0
		}
		until := c.writing.until.Load()
		if !c.adopted {
			left := c.loop.server.cfg.Stuck - c.waited
			if left <= 0 {
				return sent, c.failure("write", os.ErrDeadlineExceeded)
			}
			if patience := time.Now().Add(left).UnixNano(); until == 0 || patience < until {
				until = patience
			}
		}
		begun := time.Now()
		c.writing.sleep(until)
		c.waited += time.Since(begun)
	}
}

// waiter is where a borrower waits for one direction.
type waiter struct {
	until atomic.Int64  // Unix nanoseconds; 0: no bound
	news  chan struct{} // of the loop, or of an earlier bound
	timer *time.Timer   // made when there first is a bound
}

// sleep waits for news, or until a moment in Unix nanoseconds, if that isn't 0.
func (w *waiter) sleep(until int64) {
	if until == 0 {
		<-w.news
		return
	}
	if w.timer == nil {
		w.timer = time.NewTimer(time.Until(time.Unix(0, until)))
	} else {
		w.timer.Reset(time.Until(time.Unix(0, until)))
	}
	select {
	case <-w.news:
		w.timer.Stop()
	case <-w.timer.C:
	}
}

func (w *waiter) past() bool {
	at := w.until.Load()
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
	c.reading.bound(t)
	return nil
}

// SetWriteDeadline bounds writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writing.bound(t)
	return nil
}

func (w *waiter) bound(t time.Time) {
	at := int64(0)
	if !t.IsZero() {
		at = max(1, t.UnixNano())
	}
	before := w.until.Swap(at)
	if at != 0 && (before == 0 || at < before) {
		poke(w.news)
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
