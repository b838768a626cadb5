package load

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// multiplex holds the HTTP/2 connections of one arm, at most limit, with at
// most so many streams on each as the peer allows and the scenario says. The
// oldest connection that has a stream free is used first, so that no more are
// opened than the load needs; a request that finds no stream free, and no
// connection left to open, waits in line, first come, first served.
type multiplex struct {
	*http2Dialer
	ctx     context.Context // of the run; what fails after its end was cut off
	limit   int
	streams int // per connection
	record  func(*arm, job, *exchange)
	lost    func(*arm, *exchange) // told of every request that was cut off; nil for one that wasn't sent

	sockets sockets
	workers sync.WaitGroup
	wake    chan struct{} // a stream or a connection became free, or a connection useless
	done    chan struct{} // closed by close
	lined   atomic.Bool   // somebody is in line

	mu      sync.Mutex
	conns   []*http2Conn // open ones, oldest first
	open    int          // open or being opened
	opening int
	line    queue
	closed  bool
}

func newMultiplex(g *Generator, a *arm, base time.Time) *multiplex {
	p := &multiplex{wake: make(chan struct{}, 1), done: make(chan struct{})}
	p.http2Dialer = newHTTP2Dialer(side{g: g, arm: a, source: g.source, base: base, open: &p.sockets, sink: g.sink})
	p.workers.Go(p.keep)
	return p
}

// keep settles whenever a connection's state changes by itself, until close.
func (p *multiplex) keep() {
	for {
		select {
		case <-p.wake:
		case <-p.done:
			return
		}
		p.mu.Lock()
		for _, c := range slices.Clone(p.conns) {
			c.full = false
			p.prune(c)
		}
		p.settle(false)
		p.mu.Unlock()
	}
}

// changed is told by a connection that its state changed. It may run anywhere
// within the connection's methods, also while mu is held.
func (p *multiplex) changed(cc *http.ClientConn) {
	if p.lined.Load() || cc.Err() != nil {
		select {
		case p.wake <- struct{}{}:
		default: // it wakes up already
		}
	}
}

// dispatch sends a request that is due. It never waits. free is false if no
// stream was: the request stands in line then. at is when it began to wait for
// a connection that is being opened; zero where its sender tells the lag.
func (p *multiplex) dispatch(j job) (at time.Time, free bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.lost(p.arm, nil)
		return time.Time{}, false
	}
	p.line.push(j)
	p.lined.Store(true) // before a stream is asked for: who frees one from now on tells
	p.settle(true)
	switch {
	case p.line.len() == 0:
		return time.Time{}, true
	case p.opening > 0:
		return time.Now(), true
	}
	return time.Time{}, false
}

// settle gives streams to those in line, and opens connections for those that
// find none. The last in line has just been due if arriving. The caller holds
// mu.
func (p *multiplex) settle(arriving bool) {
	if p.closed {
		return
	}
	for p.line.len() > 0 {
		prompt := arriving && p.line.len() == 1
		if c := p.reserve(); c != nil {
			j, _ := p.line.pop()
			j.prompt = prompt
			p.workers.Go(func() { p.serve(c, j) })
			continue
		}
		// Each connection being opened will bring room for others than the
		// request that it is opened for.
		if p.open == p.limit || p.line.len() <= p.opening*(p.streams-1) {
			return
		}
		j, _ := p.line.pop()
		j.prompt = prompt
		p.open++
		p.opening++
		p.workers.Go(func() { p.connect(j) })
	}
	p.lined.Store(false)
}

// reserve finds a stream; nil if none is free. The caller holds mu.
func (p *multiplex) reserve() *http2Conn {
	for i := 0; i < len(p.conns); {
		c := p.conns[i]
		switch {
		case c.active == p.streams || c.full:
		case c.cc.Reserve() == nil:
			c.active++
			return c
		case p.prune(c):
			continue // the next one took its place
		default:
			c.full = true
		}
		i++
	}
	return nil
}

// prune closes a connection that takes no requests any more and has none. The
// caller holds mu.
func (p *multiplex) prune(c *http2Conn) bool {
	i := slices.Index(p.conns, c)
	if i < 0 || c.active > 0 || c.usable() {
		return false
	}
	p.conns = slices.Delete(p.conns, i, i+1)
	p.open--
	c.cc.Close()
	return true
}

// connect opens a connection for a request.
func (p *multiplex) connect(j job) {
	if j.prompt {
		p.late(j.due, time.Since(p.base))
		j.prompt = false
	}
	var c *http2Conn
	err := errExpired
	if !p.expired(j, time.Now()) {
		c, err = p.dial(p.ctx, p.deadline(j))
	}
	p.mu.Lock()
	p.opening--
	if err != nil {
		p.open--
		p.settle(false)
		p.mu.Unlock()
		x := j.exchange()
		x.retried = j.resent
		p.unanswered(&x, j, err, time.Time{})
		p.finish(j, &x)
		return
	}
	_ = c.cc.Reserve() // of one that closed already, the request fails
	c.active++
	p.conns = append(p.conns, c)
	c.cc.SetStateHook(p.changed)
	p.settle(false)
	p.mu.Unlock()
	p.serve(c, j)
}

// serve performs a request on a stream that was handed out for it.
func (p *multiplex) serve(c *http2Conn, j job) {
	x, again := c.perform(p.ctx, j)
	again = again && !j.again
	p.mu.Lock()
	c.active--
	c.full = false
	p.prune(c)
	if again = again && !p.closed; again {
		j.again, j.resent, j.prompt = true, x.sent, false
		p.line.push(j)
		p.lined.Store(true)
	}
	p.settle(false)
	p.mu.Unlock()
	if !again {
		p.finish(j, &x)
	}
}

func (p *multiplex) finish(j job, x *exchange) {
	if p.ctx.Err() != nil && !x.complete {
		p.lost(p.arm, x)
		return
	}
	p.record(p.arm, j, x)
}

// close cuts off whatever is under way and waits for it to end.
func (p *multiplex) close() {
	p.mu.Lock()
	p.closed = true
	close(p.done)
	var dropped int
	for {
		if _, ok := p.line.pop(); !ok {
			break
		}
		dropped++
	}
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for range dropped {
		p.lost(p.arm, nil)
	}
	p.sockets.cut()
	p.workers.Wait()
	for _, c := range conns {
		c.cc.SetStateHook(nil)
		c.cc.Close()
	}
}
