package eventloop

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	readSize    = 32 << 10               // bytes of one read, so the longest head that is answered in place
	writeSize   = 256 << 10              // bytes of answers from which the rest of a read is lent
	flushSize   = 64 << 10               // bytes of answers from which they leave before the turn's end
	acceptBatch = 16                     // connections accepted in a row
	sweepEvery  = 250 * time.Millisecond // how often timeouts are looked at; the cost: some ns for each connection
	acceptPause = 100 * time.Millisecond // after want of descriptors
	quiet       = 10 * time.Millisecond  // since a goroutine was woken, until processors are kept while waiting
)

// loop is one thread with its connections. All but the marked fields belong to it.
type loop struct {
	server       *Server
	epoll, event int // file descriptors; event is written to wake the thread
	reply        Reply
	in, out      []byte
	answers      []answered // of this turn, in out
	events       [256]unix.EpollEvent
	again        []*Conn // perhaps more to read
	due          []*Conn // the same, of the last turn
	now          time.Time
	swept        time.Time
	listening    bool
	busy         bool // the last wait had events
	woke         bool // goroutines have something to do since the last turn
	left         bool // doesn't accept any more
	rests        uint // in a row
	pausedUntil  time.Time

	ended atomic.Bool  // set by others
	count atomic.Int64 // connections; others give it more

	mu    sync.Mutex
	inbox []*Conn // given back with something to read; by others
	freed bool    // the descriptors are closed
}

func newLoop(s *Server) (*loop, error) {
	l := &loop{server: s, reply: s.cfg.Replier(), in: make([]byte, readSize), out: make([]byte, 0, 16<<10), event: -1}
	var err error
	call := "epoll_create1"
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		call = "eventfd"
		if l.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
			call = "epoll_ctl"
			err = l.watch(l.event, unix.EPOLLIN|unix.EPOLLET)
		}
	}
	if err == nil {
		err = l.listen()
	}
	if err != nil {
		l.free()
		return nil, fmt.Errorf("wait for connections: %w", os.NewSyscallError(call, err))
	}
	return l, nil
}

func (l *loop) free() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.freed {
		return
	}
	l.freed = true
	unix.Close(l.event) // -1 where there is none
	unix.Close(l.epoll)
}

func (l *loop) watch(fd int, what uint32) error {
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: what, Fd: int32(fd)})
}

// listen has new connections told to one of the loops, whichever is free.
func (l *loop) listen() error {
	err := l.watch(l.server.listener, unix.EPOLLIN|unix.EPOLLEXCLUSIVE)
	l.listening = err == nil
	return err
}

func (l *loop) pause() {
	if l.listening {
		l.listening = false
		_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, l.server.listener, nil)
	}
}

// leave takes the connections that wait to be accepted, and then no more.
func (l *loop) leave() {
	if !l.left {
		for range 1024 / acceptBatch {
			l.accept()
		}
		l.pause()
		l.left = true
		l.server.deaf.Done()
	}
}

// post wakes the thread, for c if it isn't nil.
func (l *loop) post(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.freed {
		return // the descriptor may be another's by now
	}
	if c != nil {
		l.inbox = append(l.inbox, c)
	}
	one := [8]byte{1}
	_, _ = unix.Write(l.event, one[:]) // fails where it is awake already
}

// run is the thread.
func (l *loop) run() {
	for !l.ended.Load() {
		n := l.wait()
		l.now = time.Now()
		for i := range n {
			l.tell(&l.events[i])
		}
		l.flush()
		// What was read from once and may have more comes after the others.
		l.again, l.due = l.due[:0], l.again
		for _, c := range l.due {
			l.tellConn(c, unix.EPOLLIN)
		}
		l.flush()
		if l.now.Sub(l.swept) >= sweepEvery {
			l.sweep()
			l.flush()
		}
		if l.woke {
			l.woke = false
			l.server.woken.Store(l.now.UnixNano())
			runtime.Gosched()
		}
	}
	l.server.table.each(func(c *Conn) {
		if c.loop == l && c.state.Load() == owned {
			c.release()
		}
	})
}

// wait returns how many events there are. Under load the call returns without the
// scheduler having been told: what it does for a thread that waits in the kernel costs
// more than a short wait. Nobody misses the processor that is kept so, as no goroutine was
// woken for a while; where the runtime wants it (for another goroutine after 10 ms, for the
// collector at once), its signal ends the call.
func (l *loop) wait() int {
	var patience uintptr // ms
	if len(l.again) == 0 && l.busy && l.now.UnixNano()-l.server.woken.Load() > int64(quiet) {
		patience = 1
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), patience, 0, 0)
	if l.busy = errno == 0 && n > 0; l.busy {
		return int(n)
	}
	if len(l.again) > 0 || errno == unix.EINTR {
		return 0
	}
	n, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), uintptr(sweepEvery/time.Millisecond), 0, 0)
	if errno != 0 { // EINTR
		return 0
	}
	l.busy = n > 0
	return int(n)
}

func (l *loop) tell(e *unix.EpollEvent) {
	switch fd := int(e.Fd); {
	case fd == l.server.listener && !l.left: // then the number may be a connection's
		l.accept()
	case fd == l.event:
		var count [8]byte
		_, _ = unix.Read(l.event, count[:])
		acquired()
		if l.server.Draining() {
			l.leave()
		}
		l.mu.Lock()
		given := l.inbox
		l.inbox = nil
		l.mu.Unlock()
		for _, c := range given {
			l.tellConn(c, unix.EPOLLIN)
		}
	default:
		if c := l.server.table.at(fd); c != nil && c.loop == l {
			l.tellConn(c, e.Events)
		}
	}
}

const readEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR

// tellConn takes the news to whoever has the connection.
func (l *loop) tellConn(c *Conn, events uint32) {
	if events&(readEvents&^unix.EPOLLIN) != 0 {
		c.ended.Store(true)
	}
	for {
		state := c.state.Load()
		switch {
		case state == owned:
			l.turn(c, events)
			return
		case events&readEvents == 0 || c.state.CompareAndSwap(state, lentReadable):
			if events&readEvents != 0 {
				poke(c.reading.news)
			}
			if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
				poke(c.writing.news)
			}
			l.woke = true
			return
		}
	}
}

// turn does for a connection what there is to do: one read at most, so that nobody
// with much to say keeps the others waiting.
func (l *loop) turn(c *Conn, events uint32) {
	if c.queued { // it was given back, and there was news of it too
		l.flush()
	}
	if c.closed { // since it was noted
		return
	}
	c.readable = c.readable || events&readEvents != 0
	if len(c.unsent) > 0 {
		n, errno := c.write(c.unsent)
		if errno != 0 && errno != unix.EAGAIN {
			c.release()
			return
		}
		if c.unsent = c.unsent[n:]; len(c.unsent) > 0 {
			return // until there is room; that he says something is no sign that he reads
		}
		c.keep(nil)
	}
	c.active = l.now.UnixNano()
	if !c.readable {
		return
	}
	n, errno := c.read(l.in)
	switch {
	case errno == unix.EAGAIN:
		c.readable = false
	case errno != 0 || n == 0:
		c.release()
	default:
		// What comes after a read that wasn't full is told anew.
		c.readable = n == len(l.in) || c.ended.Load()
		l.answer(c, l.in[:n])
	}
}

// answer answers what was read of a connection, or lends it. The answers leave by flush.
func (l *loop) answer(c *Conn, in []byte) {
	begin := len(l.out)
	out := l.out
	ok := !l.server.Draining() && l.server.unsent.Load() < l.server.cfg.MaxUnsent
	for len(in) > 0 && ok {
		end := bytes.Index(in, []byte("\r\n\r\n")) + 4
		if ok = end >= 4 && len(out)-begin < writeSize; ok {
			if out, ok = l.reply(out, in[:end], c); ok {
				in = in[end:]
			}
		}
	}
	l.out = out
	if len(out) > begin {
		c.used, c.queued = true, true
		l.answers = append(l.answers, answered{c, len(out)})
	}
	if len(out) >= flushSize || len(in) > 0 {
		l.flush()
	}
	switch {
	case c.closed:
	case len(in) > 0:
		l.lend(c, in)
	case c.readable && len(c.unsent) == 0:
		l.again = append(l.again, c)
	}
}

// answered is what a loop's out has for a connection, up to end. The connection has no further
// turn before that has been sent, in which it could end, or an answer could overtake this one.
type answered struct {
	c   *Conn
	end int
}

// flush sends the answers of a turn, one after the other: a client that runs on the same
// processors is woken when the loop has little left to do, and not by the first of them, to
// take the processor away from the rest.
func (l *loop) flush() {
	begin := 0
	for _, a := range l.answers {
		out := l.out[begin:a.end]
		begin = a.end
		a.c.queued = false
		n, errno := a.c.write(out)
		switch {
		case errno != 0 && errno != unix.EAGAIN:
			a.c.release()
		case n < len(out):
			a.c.keep(bytes.Clone(out[n:]))
		}
	}
	clear(l.answers)
	l.answers = l.answers[:0]
	if cap(l.out) > 2*writeSize {
		l.out = nil
	}
	l.out = l.out[:0]
}

// lend gives the connection to a goroutine, with what was read and not answered.
func (l *loop) lend(c *Conn, unread []byte) {
	c.unread = append(c.unread[:0], unread...)
	c.first, c.used, c.back = !c.used, true, false
	c.between.Store(false)
	c.reading.until.Store(0)
	c.writing.until.Store(0)
	if c.reading.news == nil {
		c.reading.news, c.writing.news = make(chan struct{}, 1), make(chan struct{}, 1)
	}
	if c.readable {
		c.state.Store(lentReadable)
	} else {
		c.state.Store(lent)
	}
	l.server.lent.Go(c.serve)
	l.woke = true
}

// accept takes new connections.
func (l *loop) accept() {
	for range acceptBatch {
		if most := l.server.cfg.MaxConnections; most > 0 && l.server.open.Load() >= int64(most) {
			l.rest("as many clients as are allowed")
			return
		}
		var from unix.RawSockaddrAny
		size := uint32(unix.SizeofSockaddrAny)
		r, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(l.server.listener), uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
		case unix.EAGAIN:
			return
		case unix.ECONNABORTED, unix.EINTR:
			continue
		default:
			// Want of descriptors, the usual one, passes as soon as some clients leave.
			l.rest(os.NewSyscallError("accept4", errno).Error())
			return
		}
		l.rests = 0
		l.welcome(int(r), &from)
	}
}

// rest takes no new connections for a moment, which is told less and less often.
func (l *loop) rest(why string) {
	l.pause()
	l.pausedUntil = l.now.Add(acceptPause)
	if l.rests++; l.rests&(l.rests-1) == 0 { // the 1st time, the 2nd, the 4th
		l.server.cfg.Logger.Warn("no new clients for a moment", "error", why, "next_try_in", acceptPause)
	}
}

// welcome gives a new client to the loop that has the fewest.
func (l *loop) welcome(fd int, from *unix.RawSockaddrAny) {
	c := &Conn{fd: fd, remote: address(from), active: l.now.UnixNano()}
	l.server.open.Add(1)
	if err := l.server.leastLoaded().take(c); err != nil {
		l.server.cfg.Logger.Warn("a client is left", "error", err)
	}
}

// take makes a connection one of the loop's, or closes it. Any thread may call it.
func (l *loop) take(c *Conn) (err error) {
	c.loop = l
	l.count.Add(1)
	if c.fd >= 4096*512 {
		err = errTooManyDescriptors
	} else {
		l.server.table.set(c.fd, c)
		l.mu.Lock()
		if err = net.ErrClosed; !l.freed { // as in post
			err = os.NewSyscallError("epoll_ctl", l.watch(c.fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET))
		}
		l.mu.Unlock()
	}
	if err != nil {
		c.release()
	}
	return err
}

// sweep closes what was silent, or took too little, for too long. It looks once more
// whether there is a request, which this thread hasn't been told of yet: to close then
// would lose it.
func (l *loop) sweep() {
	l.swept = l.now
	if !l.listening && !l.left && !l.now.Before(l.pausedUntil) {
		if err := l.listen(); err != nil {
			l.server.cfg.Logger.Warn("no new clients for a moment", "error", os.NewSyscallError("epoll_ctl", err))
		}
	}
	silent, stuck := l.now.Add(-l.server.cfg.Idle).UnixNano(), l.now.Add(-l.server.cfg.Stuck).UnixNano()
	leaving := l.server.Draining() && l.now.UnixNano() >= l.server.grace.Load()
	l.server.table.each(func(c *Conn) {
		if c.loop != l || c.state.Load() != owned {
			return
		}
		switch {
		case len(c.unsent) > 0 && c.active >= max(silent, stuck):
		case len(c.unsent) > 0 && c.takesEnough():
			c.active = l.now.UnixNano()
		case len(c.unsent) > 0: // the client doesn't read
			c.release()
		case c.active < silent || leaving:
			if c.hasNews() {
				l.turn(c, unix.EPOLLIN)
			} else {
				c.release()
			}
		}
	})
}

func address(from *unix.RawSockaddrAny) netip.AddrPort {
	port := func(p *uint16) uint16 { b := (*[2]byte)(unsafe.Pointer(p)); return uint16(b[0])<<8 | uint16(b[1]) }
	switch from.Addr.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(from))
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), port(&a.Port))
	case unix.AF_INET6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(from))
		addr := netip.AddrFrom16(a.Addr).Unmap()
		if a.Scope_id != 0 {
			if i, err := net.InterfaceByIndex(int(a.Scope_id)); err == nil {
				addr = addr.WithZone(i.Name)
			}
		}
		return netip.AddrPortFrom(addr, port(&a.Port))
	}
	return netip.AddrPort{}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
