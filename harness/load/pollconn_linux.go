package load

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pollConn is a connection of a [poller]. Only Close may be called by others
// than its thread.
type pollConn struct {
	l             *poller
	fd            int
	local, remote net.Addr

	readable bool   // something may have come that wasn't read
	ended    bool   // the peer, or both, will send no more
	reader   *fiber // waits for either, or in line
	lined    bool   // in the engine's line: nothing need be told for it to go on
	deadline time.Time
	closed   atomic.Bool
	unsent   []byte    // what the kernel didn't take, or isn't given yet
	gathered bool      // it isn't given yet: the engine does it, when the rest has been read
	flushed  time.Time // when that left which was gathered last

	arrival time.Time // of what was read last
	message unix.Msghdr
	vector  unix.Iovec
	control [64]byte // holds a timestamp; aligned by what stands before it
}

// tell takes what epoll tells.
func (c *pollConn) tell(events uint32) {
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.ended = true
	}
	if events&unix.EPOLLOUT != 0 && len(c.unsent) > 0 && !c.gathered {
		n, err := c.push(c.unsent)
		if c.unsent = c.unsent[n:]; err != nil || len(c.unsent) == 0 {
			c.unsent = nil // of an error, the reader learns too
		}
	}
	if c.ended || events&unix.EPOLLIN != 0 {
		c.readable = true
		if !c.lined {
			c.wake()
		}
	}
}

// wake lets the reader look again.
func (c *pollConn) wake() {
	if b := c.reader; b != nil {
		c.reader = nil
		c.l.resume(b)
	}
}

// Read waits for bytes.
func (c *pollConn) Read(b []byte) (int, error) {
	for {
		if c.closed.Load() {
			return 0, net.ErrClosed
		}
		// What follows a byte that came too late is late too. What came in time is
		// read, whenever that is.
		if !c.deadline.IsZero() && c.arrival.After(c.deadline) {
			return 0, c.failure("read", os.ErrDeadlineExceeded)
		}
		if c.readable || c.ended {
			if c.l.left <= 0 {
				c.lined = true
				c.l.unread = append(c.l.unread, c)
				c.reader = c.l.current
				c.l.park()
				continue
			}
			n, errno := c.receive(b)
			switch {
			case errno == unix.EINTR:
				continue
			case errno == unix.EAGAIN:
				c.readable = false
				if c.ended { // said before all had come; what is missing is told
					c.ended = false
				}
			case errno != 0:
				return 0, c.failed("read", "recvmsg", errno)
			case n == 0 && len(b) > 0:
				return 0, io.EOF
			default:
				// What comes from now on is told anew.
				c.readable = n == len(b)
				c.l.left -= n
				return n, nil
			}
		}
		// Also if it was told before, and asks again: nobody wakes it for this one
		// a second time.
		if !c.deadline.IsZero() && !time.Now().Before(c.deadline) {
			return 0, c.failure("read", os.ErrDeadlineExceeded)
		}
		c.reader = c.l.current
		c.l.park()
	}
}

// receive reads what is there, and when the last of it came.
func (c *pollConn) receive(b []byte) (int, unix.Errno) {
	c.vector.Base = unsafe.SliceData(b)
	c.vector.SetLen(len(b))
	c.message.Iov, c.message.Control = &c.vector, &c.control[0]
	c.message.SetIovlen(1)
	c.message.SetControllen(len(c.control))
	n, _, errno := syscall.RawSyscall(unix.SYS_RECVMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&c.message)), unix.MSG_DONTWAIT)
	c.vector.Base = nil
	if errno != 0 {
		return 0, errno
	}
	now := time.Now()
	c.arrival = now
	acquired()
	if header := (*unix.Cmsghdr)(unsafe.Pointer(&c.control[0])); c.message.Controllen > 0 && header.Level == unix.SOL_SOCKET && header.Type == unix.SCM_TIMESTAMPNS {
		stamp := (*unix.Timespec)(unsafe.Pointer(&c.control[unix.CmsgLen(0)]))
		// The kernel's stamp is by the wall clock. It is taken as an age, so
		// that a clock that was set in the meantime touches this answer only.
		if age := now.UnixNano() - stamp.Nano(); age > 0 {
			c.arrival = now.Add(-time.Duration(age))
		}
	}
	return int(n), 0
}

// arrived is when the last byte that was read had come, by the kernel's clock:
// how late it was read is no matter of the peer's.
func (c *pollConn) arrived() time.Time { return c.arrival }

// Write doesn't wait: what the kernel doesn't take is sent when it does.
func (c *pollConn) Write(b []byte) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	c.l.wrote = true
	n := 0
	switch {
	case len(c.unsent) > 0:
	case c.l.gathers:
		c.gathered = true
		c.l.gathered = append(c.l.gathered, c)
	default:
		var err error
		if n, err = c.push(b); err != nil {
			return n, err
		}
	}
	c.unsent = append(c.unsent, b[n:]...)
	return len(b), nil
}

// flush sends what was gathered.
func (c *pollConn) flush() {
	if !c.gathered {
		return
	}
	c.gathered, c.flushed = false, time.Now()
	n, err := c.push(c.unsent)
	if c.unsent = c.unsent[:copy(c.unsent, c.unsent[n:])]; err != nil {
		c.unsent = nil // the reader learns of it too
	}
}

// left is when the last request left, if it was gathered.
func (c *pollConn) left() time.Time { return c.flushed }

// push writes what the kernel takes.
func (c *pollConn) push(b []byte) (sent int, _ error) {
	releasing()
	for sent < len(b) {
		n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(c.fd), uintptr(unsafe.Pointer(&b[sent])), uintptr(len(b)-sent))
		switch errno {
		case 0:
			sent += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return sent, nil
		default:
			return sent, c.failed("write", "write", errno)
		}
	}
	return sent, nil
}

// Close has the thread close the socket.
func (c *pollConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	c.l.post(func() { c.l.closing = append(c.l.closing, c) })
	return nil
}

// SetDeadline is for reading: to write takes no time.
func (c *pollConn) SetDeadline(t time.Time) error {
	if c.deadline = t; !t.IsZero() {
		c.l.remind(t)
	}
	return nil
}

func (c *pollConn) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }
func (c *pollConn) SetWriteDeadline(time.Time) error  { return nil }
func (c *pollConn) LocalAddr() net.Addr               { return c.local }
func (c *pollConn) RemoteAddr() net.Addr              { return c.remote }

func (c *pollConn) failed(what, call string, errno unix.Errno) error {
	return c.failure(what, os.NewSyscallError(call, errno))
}

func (c *pollConn) failure(what string, err error) error {
	return &net.OpError{Op: what, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}
