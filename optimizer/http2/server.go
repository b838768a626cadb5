package http2

import (
	"cmp"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Config says what is done with requests, and how much of them. All but MaxKept is required.
type Config struct {
	// Replier makes the function that a connection's requests are answered with at once.
	Replier func() Reply

	// Serve answers a request that Reply didn't, on a goroutine of its own.
	Serve func(*Stream)

	// MaxUnsent bounds the buffers of answers that are being written to clients who may not
	// take them, or wait for that: beyond it a connection has 4 KiB of them instead of 64.
	MaxUnsent int64

	// MaxKept bounds the header lists of requests under way, and what of their bodies waits
	// to be read: a connection keeps no more than it leaves to all others, or 4 KiB. Default
	// 1 MiB, and at least twice MaxHeader, so that one request alone is served.
	MaxKept int64

	// MaxPending is how much of what Send got may wait until clients have taken something else,
	// in bytes: where a connection has more of that than it leaves to all others, they have to
	// take 16 KiB of each of its answers in each Write.
	MaxPending int64

	MaxStreams int           // requests under way on one connection
	MaxHeader  int           // bytes of a request's header list (RFC 9113 §6.5.2)
	Idle       time.Duration // how long a client may be silent without a request under way
	Read       time.Duration // how long he may take for the begin of a connection, and for a frame or header block that has begun
	Write      time.Duration // how long he may take for 16 KiB of an answer, or of all, if its window, or theirs, keeps it waiting
}

// Reply answers a request at once: it appends the frames of the whole answer to out, with
// at most room bytes of body, and returns how many those were. If it can't, it reports
// that, and the request is for Serve. It must not wait.
type Reply func(out []byte, r *Request, room int) (answer []byte, sent int, ok bool)

// Request is a request's header. Method, Path and Authority are as they came, checked for
// presence only; Authority may come from a field Host. With CONNECT there is no Path.
type Request struct {
	Stream                  uint32
	Client                  net.Addr
	Method, Path, Authority string
	Fields                  []hpack.HeaderField // without pseudo-header fields; names in lower case
	Length                  int64               // of the body, 0: none, -1: unknown

	first bool // no header block was sent on this connection yet
}

// size is what keeping the request costs, in the measure of Config.MaxHeader.
func (r *Request) size() int {
	n := len(r.Method) + len(r.Path) + len(r.Authority)
	for _, f := range r.Fields {
		n += int(f.Size())
	}
	return n
}

// Server serves connections. It is made by New.
type Server struct {
	cfg Config

	mu      sync.Mutex
	conns   map[*conn]bool
	leaving stage
	streams sync.WaitGroup
	unsent  atomic.Int64 // bytes of what is being written, and of what waits for that
	kept    atomic.Int64 // bytes of requests under way: header lists, and buffers of bodies
	pending atomic.Int64 // bytes that Send got, and hasn't written or copied
}

// stage is how far a server, or a connection, has come with its end (RFC 9113 §6.8).
type stage int

const (
	staying stage = iota
	warned        // clients were told to come again on other connections; what they send is answered
	ending        // they were told which requests are the last
)

// New makes a server.
func New(cfg Config) *Server {
	cfg.MaxKept = max(cmp.Or(cfg.MaxKept, 1<<20), 2*int64(cfg.MaxHeader))
	return &Server{cfg: cfg, conns: map[*conn]bool{}}
}

// Serve serves one connection, from the client's preface on, and closes it.
func (s *Server) Serve(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	s.conns[c] = true
	c.leaving = s.leaving
	s.mu.Unlock()
	c.serve()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// Leave tells clients to come again on other connections: those they have are closed
// when what was sent on them is answered. Requests that arrive within the grace are
// answered as well; then each client is told which was the last.
func (s *Server) Leave(grace time.Duration) (stop func()) {
	s.leave(warned)
	timer := time.AfterFunc(grace, func() { s.leave(ending) })
	return func() { timer.Stop() }
}

func (s *Server) leave(to stage) {
	s.mu.Lock()
	s.leaving = to
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		go c.leave(to) // a client that doesn't read keeps nobody else waiting
	}
}

// Wait waits for the goroutines of requests, when all connections are closed.
func (s *Server) Wait() { s.streams.Wait() }
