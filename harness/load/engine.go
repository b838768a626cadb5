package load

import (
	"net"
	"sync"
	"time"
)

// engine runs the code of HTTP/1.1's connections, which is written as if each
// could wait for its own, and keeps the time for whoever dispatches. What it
// spawns ends by itself. But for spawn, hurry and stop, its methods are called
// by one goroutine, from open to close, and by what it runs for it.
type engine interface {
	// open begins. alone says that the rest of the program has no part in sending
	// and reading; gather, that requests may leave together, when all answers that
	// came have been read.
	open(alone, gather bool) error
	close()

	// spawn has f run beside everything else. f may wait by await, and for
	// connections that were adopted.
	spawn(f func())
	// await calls f, which may wait for anything, for a function that was spawned.
	await(f func())
	// adopt makes a new connection one that spawned functions can wait for.
	adopt(nc net.Conn) (net.Conn, error)

	// idle reads answers and waits until a time, or returns earlier.
	idle(until time.Time)
	// look has those go on whose connections have something for them.
	look()
	// hurry changes by n how many wait for an answer to be read: until it is 0
	// again, answers are read as soon as they come.
	hurry(n int)

	// serve returns when stop was called and all that was spawned has ended.
	serve()
	stop()
}

// patience is how long an answer may lie unread while requests are due.
const patience = time.Millisecond

// goroutines is the engine that works everywhere: a goroutine for each
// connection. Its timers are Go's, which are about 1 ms late; the lag in the
// report shows it.
type goroutines struct {
	spawned sync.WaitGroup
	stopped chan struct{}
}

func newGoroutines() engine { return &goroutines{stopped: make(chan struct{})} }

func (e *goroutines) open(bool, bool) error               { return nil }
func (e *goroutines) close()                              {}
func (e *goroutines) spawn(f func())                      { e.spawned.Go(f) }
func (e *goroutines) await(f func())                      { f() }
func (e *goroutines) adopt(nc net.Conn) (net.Conn, error) { return nc, nil }
func (e *goroutines) idle(until time.Time)                { time.Sleep(time.Until(until)) }
func (e *goroutines) look()                               {}
func (e *goroutines) hurry(int)                           {}
func (e *goroutines) stop()                               { close(e.stopped) }

func (e *goroutines) serve() {
	<-e.stopped
	e.spawned.Wait()
}
