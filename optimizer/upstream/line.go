package upstream

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// BusyError says that a request wasn't sent because every connection, or stream, that
// the upstream may have is in use: either too many others wait already, or none became
// free in time.
type BusyError struct {
	Waited     time.Duration // 0: it didn't wait at all
	RetryAfter time.Duration
}

// Error says so in words.
func (e *BusyError) Error() string {
	if e.Waited == 0 {
		return "every connection is in use, and as many requests wait for one as upstream.max_waiting allows"
	}
	return fmt.Sprintf("no connection became free in %v, and upstream.wait_timeout, or the request's own deadline, allows no more", e.Waited.Round(time.Millisecond))
}

// busyRetryAfter is what clients are told. How long the line will be then is unknown;
// a second lets several hundred requests through.
const busyRetryAfter = time.Second

// grant is leave to send one request: a stream of an HTTP/2 connection, or,
// without one, a place among the connections of HTTP/1.1.
type grant struct {
	stream *http2Conn
	kept   *http1Conn // that is there for it; nil: one is to be opened
	err    error      // no leave
}

// line hands out what is scarce, first come, first served. Those who wait are bounded
// in number and time.
type line struct {
	take     func() (grant, bool) // takes one, if there is one; called with mu held
	more     func(waiting int)    // may have more made; called with mu held
	first    func() bool          // the first is just being made: patience isn't for that; called with mu held
	giveBack func(grant)          // undoes a take; called without mu
	room     int                  // for those who wait
	patience time.Duration

	mu    sync.Mutex
	queue list.List // of *waiter

	waits  histogram
	full   atomic.Uint64 // refused at once
	gaveUp atomic.Uint64 // refused after their patience
}

type waiter struct{ got chan grant }

// enter waits for a grant; who was granted one before, and has to try again, waits before
// the others. The error is ctx's, a *BusyError, or why there can't be any. A deadline that
// passes in line makes a *BusyError: the line used the time up, not the upstream. While the
// first connection is being opened it is the upstream that does.
func (l *line) enter(ctx context.Context, again bool) (grant, error) {
	l.mu.Lock()
	if l.queue.Len() == 0 {
		if g, ok := l.take(); ok {
			l.mu.Unlock()
			l.waits.observe(0)
			return g, nil
		}
	}
	if l.queue.Len() >= l.room && !again {
		l.mu.Unlock()
		l.full.Add(1)
		return grant{}, &BusyError{RetryAfter: busyRetryAfter}
	}
	w := &waiter{got: make(chan grant, 1)}
	var place *list.Element
	if again {
		place = l.queue.PushFront(w)
	} else {
		place = l.queue.PushBack(w)
	}
	l.more(l.queue.Len())
	l.mu.Unlock()

	begun := time.Now()
	patience := time.NewTimer(l.patience)
	defer patience.Stop()
	var err error
	for err == nil {
		select {
		case g := <-w.got:
			l.waits.observe(time.Since(begun))
			return g, g.err
		case <-ctx.Done():
			if err = context.Cause(ctx); !errors.Is(err, context.DeadlineExceeded) {
				break
			}
			l.mu.Lock()
			if waited := time.Since(begun); l.first() {
				err = fmt.Errorf("the first connection of HTTP/2 wasn't ready in %v; upstream.dial_timeout and upstream.tls_timeout allow more, the request's own deadline doesn't: %w", waited.Round(time.Millisecond), err)
			} else {
				err = &BusyError{Waited: waited, RetryAfter: busyRetryAfter}
			}
			l.mu.Unlock()
		case <-patience.C:
			l.mu.Lock()
			if l.first() {
				patience.Reset(l.patience) // the deadlines of dial and handshake see to it
			} else {
				err = &BusyError{Waited: time.Since(begun), RetryAfter: busyRetryAfter}
			}
			l.mu.Unlock()
		}
	}
	l.waits.observe(time.Since(begun))
	l.mu.Lock()
	l.queue.Remove(place)
	l.mu.Unlock()
	select {
	case g := <-w.got: // in the same moment
		if g.err == nil {
			l.giveBack(g)
		}
	default:
	}
	if errors.As(err, new(*BusyError)) {
		l.gaveUp.Add(1)
	}
	return grant{}, err
}

// serve hands out what there is to those who wait.
func (l *line) serve() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serveLocked()
}

func (l *line) serveLocked() {
	for first := l.queue.Front(); first != nil; first = l.queue.Front() {
		g, ok := l.take()
		if !ok {
			l.more(l.queue.Len())
			return
		}
		l.queue.Remove(first)
		first.Value.(*waiter).got <- g
	}
}

// fail sends all who wait away; mu is held.
func (l *line) fail(err error) {
	for first := l.queue.Front(); first != nil; first = l.queue.Front() {
		l.queue.Remove(first)
		first.Value.(*waiter).got <- grant{err: err}
	}
}

// WaitBounds are the upper bounds, in seconds, of Stats.Waits.
var WaitBounds = [...]float64{0, 1e-3, 5e-3, 25e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

// Histogram is a snapshot of durations, counted by WaitBounds; the last count is of
// those beyond.
type Histogram struct {
	Counts [len(WaitBounds) + 1]uint64
	Sum    time.Duration
}

type histogram struct {
	counts [len(WaitBounds) + 1]atomic.Uint64
	sum    atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for seconds := d.Seconds(); i < len(WaitBounds) && seconds > WaitBounds[i]; {
		i++
	}
	h.counts[i].Add(1)
	if d > 0 {
		h.sum.Add(int64(d))
	}
}

func (h *histogram) snapshot() (s Histogram) {
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
	}
	s.Sum = time.Duration(h.sum.Load())
	return s
}
