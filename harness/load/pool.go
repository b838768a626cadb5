package load

import (
	"context"
	"slices"
	"sync"
	"time"
)

// pool holds the connections of one arm, at most limit. The connection that
// became idle last is used first, so that no more are opened than the load
// needs; a request that finds all of them busy waits in line, first come,
// first served.
type pool struct {
	g      *Generator
	arm    *arm
	ctx    context.Context // of the run; what fails after its end was cut off
	base   time.Time
	engine engine
	limit  int
	record func(*arm, job, *exchange)
	lost   func(*arm, *exchange) // told of every request that was cut off; nil for one that wasn't sent

	sockets sockets

	mu      sync.Mutex
	idle    []*conn
	open    int // with a reader, idle or not
	waiting queue
	closed  bool
}

// dispatch sends a request that is due. It never waits. free is false if no
// connection was: the request stands in line then. at is when it was sent, or
// handed to a connection that is still to be opened.
func (p *pool) dispatch(j job) (at time.Time, free bool) {
	p.mu.Lock()
	if len(p.idle) == 0 && p.open > 0 {
		p.mu.Unlock()
		p.engine.look() // an answer may have come, and its connection be free
		p.mu.Lock()
	}
	switch n := len(p.idle); {
	case p.closed:
		p.mu.Unlock()
		p.lost(p.arm, nil)
		return time.Time{}, false
	case n > 0:
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		// Before the pool's lock is given up, so that the reader can't find
		// its connection neither idle nor busy.
		c.mu.Lock()
		p.mu.Unlock()
		c.send(j, time.Now())
		at = c.sent
		c.mu.Unlock()
		return at, true
	case p.open < p.limit:
		p.open++
		p.engine.spawn(func() { p.read(p.newConn(), j) })
		p.mu.Unlock()
		return time.Now(), true
	default:
		p.waiting.push(j)
		p.engine.hurry(1)
		p.mu.Unlock()
		return time.Time{}, false
	}
}

func (p *pool) side() side {
	return side{g: p.g, arm: p.arm, engine: p.engine, source: p.g.source, base: p.base, open: &p.sockets, sink: p.g.sink}
}

func (p *pool) newConn() *conn {
	return &conn{side: p.side()}
}

// read is the life of a connection's reader: from its first request on.
func (p *pool) read(c *conn, j job) {
	defer c.leave()
	sent := false
	var x exchange
	for {
		x = c.perform(p.ctx, j, sent)
		if p.ctx.Err() != nil && !x.complete {
			p.lost(p.arm, &x)
		} else {
			p.record(p.arm, j, &x)
		}
		next, then := p.next(c)
		switch then {
		case stepServe:
			j, sent = next, false
		case stepRest:
			if j, sent = p.await(c); !sent {
				return
			}
		case stepLeave:
			return
		}
	}
}

// step is what a connection does after a request.
type step uint8

const (
	stepLeave step = iota
	stepRest
	stepServe // whoever waits
)

// next decides what a connection does after a request.
func (p *pool) next(c *conn) (job, step) {
	if c.nc != nil {
		c.socket.rest()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		if j, ok := p.waiting.pop(); ok {
			p.engine.hurry(-1)
			return j, stepServe
		}
		if c.nc != nil {
			p.idle = append(p.idle, c)
			return job{}, stepRest
		}
	}
	p.open--
	return job{}, stepLeave
}

// await rests until the dispatcher has sent a request on c, and its answer
// begins; false if the server closed the idle connection, or spoke without
// having been asked.
func (p *pool) await(c *conn) (job, bool) {
	_, _ = c.br.Peek(1) // whatever it is, receive will see it again
	for {
		c.mu.Lock()
		busy, j := c.busy, c.job
		c.mu.Unlock()
		if busy {
			return j, true
		}
		if p.leave(c) {
			return job{}, false
		}
	}
}

// leave takes an idle connection out of the pool; false if the dispatcher was
// faster.
func (p *pool) leave(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.idle, c)
	if i < 0 && !p.closed {
		return false
	}
	if i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
	p.open--
	return true
}

// close cuts off whatever is under way.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.idle = nil
	var dropped int
	for {
		if _, ok := p.waiting.pop(); !ok {
			break
		}
		dropped++
	}
	p.engine.hurry(-dropped)
	p.mu.Unlock()
	for range dropped {
		p.lost(p.arm, nil)
	}
	p.sockets.cut()
}

// lane carries one arm's requests over one protocol.
type lane interface {
	// dispatch sends a request that is due, or puts it in line; it never waits.
	// free is false if every connection was busy. at is when it was sent, or
	// when it began to wait for a connection being opened; it is zero where
	// whoever sends it tells.
	dispatch(j job) (at time.Time, free bool)
	close()
}

// queue is a first-in-first-out list in one slice, which it reuses.
type queue struct {
	jobs []job
	head int
}

func (q *queue) len() int { return len(q.jobs) - q.head }

func (q *queue) push(j job) {
	if q.head > 64 && q.head*2 > len(q.jobs) {
		n := copy(q.jobs, q.jobs[q.head:])
		clear(q.jobs[n:])
		q.jobs, q.head = q.jobs[:n], 0
	}
	q.jobs = append(q.jobs, j)
}

func (q *queue) pop() (job, bool) {
	if q.head == len(q.jobs) {
		return job{}, false
	}
	j := q.jobs[q.head]
	q.jobs[q.head] = job{}
	q.head++
	if q.head == len(q.jobs) {
		q.jobs, q.head = q.jobs[:0], 0
	}
	return j, true
}
