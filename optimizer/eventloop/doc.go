// Package eventloop accepts the connections of clients and answers there, between
// one read and one write, the requests that need no waiting. Every other request is
// lent with its connection to a goroutine, which may wait; the connection comes back
// for the next request.
//
// On Linux a few threads do this, each with an epoll instance of its own and its share
// of the connections. A request that is answered in place costs a read, a write and a
// part of an epoll_wait: neither Go's poller nor its scheduler stands between, no
// goroutine is woken, and nothing is allocated. A connection without a request costs
// its entry in a table, no goroutine and no buffer. On other systems every connection
// is lent for its whole life; on Linux one is whose borrower keeps it, because the loop
// can't tell where its requests begin: TLS, HTTP/2.
//
// The package knows where the head of a request ends, and nothing else of HTTP.
package eventloop

import (
	"errors"
	"log/slog"
	"time"
)

// Config says what is done with requests. Replier and Serve are required.
type Config struct {
	// Replier makes the function that a thread answers requests with. It gets the head
	// of one request, up to and including its empty line, appends the whole answer to
	// out, and reports whether it did: if not, the request is for Serve. It must not
	// wait, nor keep head.
	Replier func() Reply

	// Serve serves a lent connection: it reads from it as if nothing had been read of
	// the request that the loop couldn't answer. It ends by closing the connection;
	// where a Read failed with ErrBack, that gives it back to the loop.
	Serve func(*Conn)

	Idle  time.Duration // a client that is silent for so long between requests is left; default 2 minutes
	Stuck time.Duration // so is one that takes less than 16 KiB of its answers, or of what is left, in so long; default 30 s

	// MaxConnections bounds those of clients, with one more for each loop: further ones wait
	// in the kernel's queue until others have left. Default: no bound.
	MaxConnections int

	// MaxUnsent bounds the bytes of answers given in place that wait in memory for
	// clients to take them: beyond it every request is for Serve, which can wait without
	// a copy. Each loop may be beyond it by one turn's answers. Default 1 MiB.
	MaxUnsent int64

	Logger *slog.Logger // default: none
}

// leastTaken is how many bytes a client has to take in each Config.Stuck that it keeps us
// waiting: else a byte now and then were enough to have an answer held for as long as one
// likes. The slowest of networks are faster, also where a browser has six connections.
const leastTaken = 16 << 10

// Reply answers a request in place, or reports that it didn't.
type Reply func(out, head []byte, from *Conn) (answer []byte, ok bool)

// ErrBack is what Read returns where the next request would begin, after SetIdle: the
// loop waits for that. Whoever gets it closes the connection, which is then open still.
var ErrBack = errors.New("the connection goes back to the event loop")

func (c Config) withDefaults() Config {
	if c.Idle == 0 {
		c.Idle = 2 * time.Minute
	}
	if c.Stuck == 0 {
		c.Stuck = 30 * time.Second
	}
	if c.MaxUnsent == 0 {
		c.MaxUnsent = 1 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
