package load

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"phasegate/harness/scenario"
)

// loop is a run without a schedule: every client sends its next request when
// its last has ended, until the time is up. There are as many clients as an arm
// may have connections. Positions are taken in order by whoever is free, so
// that arms get their shares of the requests; of the protocols, each has its
// share of the clients.
type loop struct {
	*running
	ctx     context.Context
	sockets sockets
	next    atomic.Uint64
	mu      sync.Mutex // of what the dispatcher counts, in an open loop
}

func (l *loop) run() error {
	clients := l.g.arms[0].Connections
	for _, a := range l.g.arms {
		clients = min(clients, a.Connections)
	}
	stop := context.AfterFunc(l.ctx, l.sockets.cut)
	defer stop()
	// Each processor has an engine for its part of the HTTP/1.1 connections.
	engines := make([]engine, min(clients, runtime.GOMAXPROCS(0)))
	for n := range engines {
		engines[n] = l.g.newEngine()
	}
	var busy sync.WaitGroup
	leg := 0
	for k := range clients {
		for leg < len(l.g.protocols)-1 && float64(k) >= l.g.leg.upTo[leg]*float64(clients) {
			leg++
		}
		protocol, e := l.g.protocols[leg], engines[k%len(engines)]
		if protocol == scenario.HTTP1 {
			e.spawn(func() { l.client(protocol, e) })
		} else {
			busy.Go(func() { l.client(protocol, newGoroutines()) })
		}
	}
	faults := make([]error, len(engines))
	for n, e := range engines {
		busy.Go(func() {
			e.stop() // when all clients have ended
			if faults[n] = e.open(l.g.onlyHTTP1(), true); faults[n] == nil {
				e.serve()
				e.close()
			}
		})
	}
	busy.Wait()
	l.ended = l.ctx.Err() == nil
	return errors.Join(faults...)
}

// client is one of them, with a connection to each arm.
func (l *loop) client(protocol scenario.Protocol, e engine) {
	g := l.g
	connections := make([]performer, len(g.arms))
	for i, a := range g.arms {
		connections[i] = g.newPerformer(side{g: g, arm: a, engine: e, source: g.source, base: l.base, open: &l.sockets, sink: g.sink}, protocol)
		defer connections[i].hangUp()
	}
	var x exchange
	for l.ctx.Err() == nil {
		due := time.Since(l.base)
		if due >= g.length {
			return
		}
		i := l.next.Add(1) - 1
		j := job{request: g.source.at(i), due: due, seq: i}
		at := g.split.at(i)
		a := g.arms[at]
		g.sink.Offer(at, due)
		l.mu.Lock()
		a.offer(j.request, due >= g.warmup, true)
		l.mu.Unlock()
		l.pending.Add(1)
		x = connections[at].perform(l.ctx, j, false)
		if l.ctx.Err() != nil && !x.complete {
			l.lose(a, &x)
			return
		}
		l.record(a, j, &x)
		if !x.sent {
			e.await(l.pause)
		}
	}
}

// pause keeps a client from doing nothing but try to connect.
func (l *loop) pause() {
	select {
	case <-time.After(10 * time.Millisecond):
	case <-l.ctx.Done():
	}
}
