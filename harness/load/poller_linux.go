package load

import (
	"fmt"
	"iter"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is the engine of Linux: one thread keeps the time, writes the
// requests and reads the answers. What it spawns are coroutines, which it
// switches to when their connection has something for them, so that neither
// Go's poller nor its scheduler stands between an answer and its reader.
//
// Waking up is most of what a paced request costs. After it has sent something,
// the thread therefore sleeps for [patience], or until the next request is due,
// whatever arrives, and reads it afterwards: the kernel has noted when it came.
// It is woken by answers that take longer, or where somebody waits for one: see
// hurried.
//
// Where requests have no due time, those that follow from one look at the
// connections leave together: a server that is faster than we are at single
// requests would fall asleep between them, and every write would have to wake it.
//
// However much is sent to us, requests leave in time: after [turn] bytes the loop
// comes first again, and what is left of an answer waits in line. Otherwise a system
// could make the dispatcher late by answers without an end, and have what it
// fails at taken for the machine's doing.
type poller struct {
	epoll, event int // file descriptors; event is written to wake the thread
	conns        []*pollConn
	events       [128]unix.EpollEvent
	head, tail   int         // of those events that are still to be told
	looked       time.Time   // when idle last read
	turn, left   int         // bytes that are read before the loop comes first; what is left of them
	unread       []*pollConn // in line for their next turn, the first one first
	alarm        time.Time   // the first deadline, or earlier; zero for none
	wrote        bool        // since it last slept
	current      *fiber
	gathers      bool        // requests leave when all answers that came have been read
	gathered     []*pollConn // with such requests
	awaiting     int
	alone        bool // a processor may be kept while sleeping

	waiting atomic.Int64 // for hurry

	mu      sync.Mutex
	fresh   []func()
	ready   []*fiber
	closing []*pollConn
	alive   int // spawned and not ended
	asleep  bool
	stopped bool
}

// turn is how many bytes are read before the loop comes first again. They take a few
// tenths of a millisecond, less than [patience], also where the sender keeps the
// processors busy; to come back for more costs a few microseconds. Most answers are
// smaller, and are read at once.
const turn = 256 << 10

// fiber is a coroutine that is running or waits.
type fiber struct {
	next  func() (struct{}, bool)
	yield func(struct{}) bool
}

// newEngine makes the engine of this system.
func newEngine() engine { return &poller{turn: turn} }

// open binds the calling goroutine to its thread until close. Timers of the
// runtime wake it through its poller and scheduler, which was measured at p50
// 0.6 ms and p99 1.1 ms late; a thread of its own at p50 0.08 and p99 0.15 ms.
func (l *poller) open(alone, gather bool) error {
	l.gathers = gather
	l.alone = alone && runtime.GOMAXPROCS(0) > 1
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("wait for connections: %w", os.NewSyscallError("epoll_create1", err))
	}
	if l.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = l.watch(l.event, unix.EPOLLIN)
	}
	if err != nil {
		unix.Close(l.event) // -1 where there is none
		unix.Close(l.epoll)
		return fmt.Errorf("wait for connections: %w", os.NewSyscallError("eventfd", err))
	}
	runtime.LockOSThread()
	// By default the kernel may wake a thread up to 50 µs late, to save
	// power. 1 ns is the least it takes; a refusal leaves the default.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	return nil
}

func (l *poller) close() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // 0 is the thread's default
	runtime.UnlockOSThread()
	unix.Close(l.event)
	unix.Close(l.epoll)
}

// watch asks for the changes of a file descriptor, each once.
func (l *poller) watch(fd int, what uint32) error {
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: what | unix.EPOLLET, Fd: int32(fd)})
}

// post changes what others than the thread may change, and tells it.
func (l *poller) post(change func()) {
	l.mu.Lock()
	change()
	wake := l.asleep
	l.asleep = false
	l.mu.Unlock()
	if wake {
		one := [8]byte{1}
		_, _ = unix.Write(l.event, one[:]) // fails where it is awake already
	}
}

func (l *poller) spawn(f func()) {
	l.post(func() {
		l.alive++
		l.fresh = append(l.fresh, f)
	})
}

func (l *poller) stop() { l.post(func() { l.stopped = true }) }

func (l *poller) hurry(n int) { l.waiting.Add(int64(n)) }

func (l *poller) await(f func()) {
	b := l.current
	l.awaiting++
	go func() {
		f()
		l.post(func() { l.ready = append(l.ready, b) })
	}()
	l.park()
	l.awaiting--
}

// park leaves the running coroutine until it is resumed.
func (l *poller) park() { l.current.yield(struct{}{}) }

// resume lets a coroutine run until it waits or ends.
func (l *poller) resume(b *fiber) {
	l.current = b
	_, waits := b.next()
	l.current = nil
	if !waits {
		l.mu.Lock()
		l.alive--
		l.mu.Unlock()
	}
}

// hurried reports whether an answer must not lie unread: somebody needs its
// connection, or the connection being opened, or answers may be larger than
// what the kernel holds.
func (l *poller) hurried() bool { return l.awaiting > 0 || l.waiting.Load() > 0 }

// idle first reads what came, then sleeps.
func (l *poller) idle(until time.Time) {
	now := time.Now()
	if !now.Before(until) && now.Sub(l.looked) < patience {
		return
	}
	l.looked = now
	l.read(now, until)
	for len(l.unread) > 0 {
		// At least one turn, also when requests are due: else answers would lie
		// for as long as it is behind.
		l.proceed()
		if now = time.Now(); !now.Before(until) {
			return
		}
		l.read(now, until)
	}
	wait := time.Until(until)
	switch {
	case wait <= 0:
	case (wait <= patience || l.wrote) && !l.hurried():
		l.wrote = false
		l.sleep(min(wait, patience))
	default:
		l.block(wait)
	}
}

// serve reads until the end.
func (l *poller) serve() {
	for {
		l.look()
		l.proceed()
		l.mu.Lock()
		done := l.stopped && l.alive == 0 && len(l.closing) == 0
		l.mu.Unlock()
		if done {
			return
		}
		// Whoever is to answer may be waiting for this processor.
		_, _, _ = syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		l.look()
		l.block(time.Hour)
	}
}

func (l *poller) look() {
	now := time.Now()
	l.read(now, now)
}

// read tells of all that came. Where something is due later, it leaves off
// then, for a next time; else after so many events, if there are more. A turn is
// then one event's; else they share one.
func (l *poller) read(now, until time.Time) {
	l.left = l.turn
	bounded := now.Before(until)
	for more := true; more; {
		if l.head == l.tail {
			l.settle()
			n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), 0, 0, 0)
			if errno != 0 { // EINTR
				n = 0
			}
			l.head, l.tail = 0, int(n)
			more = bounded && l.tail == len(l.events)
		}
		for l.head < l.tail {
			e := &l.events[l.head]
			l.head++
			if c := l.at(int(e.Fd)); c != nil {
				c.tell(e.Events)
			}
			if bounded {
				if l.head < l.tail && !time.Now().Before(until) {
					return
				}
				l.left = l.turn
			}
		}
	}
	l.settle()
	l.expire(now)
	for _, c := range l.gathered {
		c.flush()
	}
	clear(l.gathered)
	l.gathered = l.gathered[:0]
}

// proceed has those in line go on, for one turn.
func (l *poller) proceed() {
	l.left = l.turn
	for l.left > 0 && len(l.unread) > 0 {
		c := l.unread[0]
		l.unread = slices.Delete(l.unread, 0, 1)
		c.lined = false
		c.wake()
	}
}

// at is the connection of a file descriptor; nil for none.
func (l *poller) at(fd int) *pollConn {
	if fd < len(l.conns) {
		return l.conns[fd]
	}
	return nil
}

// settle does what was posted. No event is left to be told then, so that the
// file descriptors of closed connections can be used anew.
func (l *poller) settle() {
	for {
		l.mu.Lock()
		fresh, ready, closing := l.fresh, l.ready, l.closing
		l.fresh, l.ready, l.closing = nil, nil, nil
		l.mu.Unlock()
		if len(fresh)+len(ready)+len(closing) == 0 {
			return
		}
		for _, f := range fresh {
			b := &fiber{}
			b.next, _ = iter.Pull(func(yield func(struct{}) bool) {
				b.yield = yield
				f()
			})
			l.resume(b)
		}
		for _, b := range ready {
			l.resume(b)
		}
		for _, c := range closing {
			c.flush() // the end of TLS, say
			l.conns[c.fd] = nil
			unix.Close(c.fd)
			c.wake()
		}
	}
}

// expire wakes whoever waits beyond a deadline. Those in line look at it in their
// turn: what lies there may have come in time.
func (l *poller) expire(now time.Time) {
	if l.alarm.IsZero() || now.Before(l.alarm) {
		return
	}
	l.alarm = time.Time{}
	for i := 0; i < len(l.conns); i++ { // adopt may add to them
		if c := l.conns[i]; c != nil && !c.deadline.IsZero() {
			switch {
			case now.Before(c.deadline):
				l.remind(c.deadline)
			case !c.lined:
				c.wake()
			}
		}
	}
	if soonest := now.Add(patience); !l.alarm.IsZero() && l.alarm.Before(soonest) {
		l.alarm = soonest // so that many deadlines are few looks at all connections
	}
}

// remind has the deadlines looked at not later than at a time.
func (l *poller) remind(at time.Time) {
	if l.alarm.IsZero() || at.Before(l.alarm) {
		l.alarm = at
	}
}

// sleep sleeps whatever comes. The processor is kept: for the scheduler to give
// it to others and get it back costs half as much again as the request, and its
// monitor, set off by that, wakes up 60 times more. There is another processor
// for the rest of the program. A signal, by which the runtime preempts, ends the
// sleep early.
func (l *poller) sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	if l.alone {
		_, _, _ = syscall.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		return
	}
	_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil)
}

// block sleeps until something comes. The time is ppoll's, since epoll_wait's is
// in whole milliseconds and epoll_pwait2 is of Linux 5.11.
func (l *poller) block(d time.Duration) {
	if !l.alarm.IsZero() {
		d = min(d, time.Until(l.alarm))
	}
	l.mu.Lock()
	if d <= 0 || len(l.unread) > 0 || len(l.fresh)+len(l.ready)+len(l.closing) > 0 || l.stopped && l.alive == 0 {
		l.mu.Unlock()
		return
	}
	l.asleep = true
	l.mu.Unlock()
	ts := unix.NsecToTimespec(int64(d))
	set := [1]unix.PollFd{{Fd: int32(l.epoll), Events: unix.POLLIN}}
	if l.alone {
		_, _, _ = syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&set)), 1, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	} else {
		_, _ = unix.Ppoll(set[:], &ts, nil)
	}
	l.mu.Lock()
	l.asleep = false
	l.mu.Unlock()
}

// adopt takes the socket away from Go's poller, which would be woken by it too.
func (l *poller) adopt(nc net.Conn) (net.Conn, error) {
	defer nc.Close()
	known, ok := nc.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("wait for a %T: it has no socket", nc)
	}
	raw, err := known.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &pollConn{l: l, local: nc.LocalAddr(), remote: nc.RemoteAddr()}
	if failed := raw.Control(func(fd uintptr) { c.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); failed != nil {
		return nil, failed
	}
	if err == nil {
		// Without times of arrival, those of reading have to do.
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		if err = l.watch(c.fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP); err != nil {
			unix.Close(c.fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("wait for a connection: %w", err)
	}
	for len(l.conns) <= c.fd {
		l.conns = append(l.conns, nil)
	}
	l.conns[c.fd] = c
	return c, nil
}
