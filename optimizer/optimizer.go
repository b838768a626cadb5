// Package optimizer is a shared caching reverse proxy: New, Start, Addr, Stop.
//
// A request goes from the listener through the guard to the cache, and from there,
// if it must, through the breaker to the upstream; what comes back is stored if it
// may be, and answered. The rooms along that way are packages of their own: guard,
// arena (storage), httpcache (the rules of RFC 9111), upstream, telemetry.
//
// Clients speak HTTP/1.1 or HTTP/2 on one port, plain or TLS: a connection's first
// bytes, or ALPN, choose the engine, and one handler serves both. On Linux connections
// belong to an event loop, which answers plain hits of HTTP/1.1 in place (fast.go) and
// lends the others to fasthttp; what it can't read requests of, TLS and HTTP/2, is lent
// for good. HTTP/2 is package http2's, which answers plain hits where it reads them.
//
// Concurrent misses for one key become one request to the upstream; a response that couldn't be shared makes later requests for its key
// independent of one another for ten seconds. Stale responses are used where
// RFC 5861 allows it, and those in use are renewed before they expire. What an
// unsafe request, PURGE or the admin listener invalidates, by key, path, tag,
// dependency or version, isn't stored again by a fetch that began before.
//
// An optimizer that starts with the same Config.Handover as a running one goes on with
// its listening sockets, and ends it without losing a request (handover_linux.go).
//
// # Memory
//
// cache.max_memory_mb bounds the resident memory of the process, if LimitProcessMemory
// was called. 14.6 MB of it are for the pages of the program itself and what the runtime
// needs; 9 MB and 2 % for the heap with its garbage, and the stacks; all else is package
// arena's: entries with their keys, headers and index, outside the heap, where no
// garbage is. A body of known length arrives where it will stay, and an answer is sent
// from where its entry lies, which is held until it has left; so neither is there twice.
// A body of unknown length arrives on the heap, where all of them have 2 % of the whole;
// one that outgrows that goes on in the arena. A quarter of the arena may be arriving at
// once, and one entry may take an eighth of it; what is beyond that is streamed. Header
// lists and bodies of requests of HTTP/2 under way have 1 %.
//
// No account holds what clients' connections cost on the heap, only guard.max_connections
// their number: 0.35 kB each while they are idle (measured with 10,000); a goroutine and
// its buffers while a request is lent, 15 kB if only its begin has come (measured with 900). One of
// HTTP/2 with TLS costs 28 kB while it is idle, 8.5 of them a stack, one of HTTP/1.1 with
// TLS 39 kB (resident, measured with 2,000), because they are lent for good. Nor does one
// hold what has come over HTTP/2 of an answer that is passed on, and its client doesn't
// take yet: 256 KiB at most (package upstream).
//
// Measured at 100 MB by make bench-memory, 64 connections, peak resident set in 10^6
// bytes: 99.1 after 400,000 distinct responses of 1 KiB, of which 59,640 were at rest, 61.1
// in bodies; 98.0 after 4,000 of 100 B to 5 MB, with 70.7 in bodies; 97.8 in a zipf load
// with churn, at a hit ratio of 0.795. Package arena says where the rest goes.
//
// # Not there yet
//
// JWT, trailers, a breaker that opens on slow calls, and one that guards the cache itself.
package optimizer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"
	"golang.org/x/time/rate"

	"phasegate/optimizer/arena"
	"phasegate/optimizer/eventloop"
	"phasegate/optimizer/http2"
	"phasegate/optimizer/telemetry"
	"phasegate/optimizer/upstream"
)

// Version is what /version answers.
const Version = "0.1.0"

// Optimizer is one proxy. It is made by New, and used once: Start, then Stop.
type Optimizer struct {
	cfg     Config
	handler *handler
	pool    *upstream.Group
	cancel  context.CancelFunc

	clients       *eventloop.Server
	server        *fasthttp.Server
	http2         *http2.Server
	adminListener net.Listener
	admin         *http.Server
	serving       sync.WaitGroup
	ready         atomic.Bool
	started       atomic.Bool // or stopped

	heirs      *bequest // nil without Config.Handover
	handedOver chan struct{}

	memory    *fasthttputil.InmemoryListener // for RoundTripper; nil until it is asked for
	transport *http.Transport                // its other end
	embed     sync.Once
	working   sync.Once

	reloading sync.Mutex
	inForce   Config // cfg as reloads have changed it
	stopped   bool

	lines   context.Context // ends when lines of the access log aren't waited for any more
	noLines context.CancelFunc
	retired sync.WaitGroup // access logs that aren't in force any more and not all written
}

// New makes an optimizer, or reports every fault of the configuration, joined. It
// opens no connection and starts nothing.
func New(cfg Config) (*Optimizer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.WithDefaults()
	o := &Optimizer{cfg: cfg, inForce: cfg, handedOver: make(chan struct{})}
	cfg.Upstream.Adopt = func(conn *net.TCPConn) (net.Conn, error) {
		if !o.ready.Load() { // without clients from outside there is no loop
			return conn, nil
		}
		return o.clients.Adopt(conn)
	}
	cfg.Upstream.Logger = cfg.Logger
	pool, err := upstream.NewGroup(cfg.Upstream)
	if err != nil {
		return nil, err
	}
	store, err := newStore(arena.Config{MaxBytes: cfg.CacheBytes(), MaxEntries: cfg.Cache.Capacity, MaxShare: cfg.Cache.MaxObjectShare, Policy: policies[cfg.Cache.Policy]})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &handler{
		ctx: ctx, logger: cfg.Logger, store: store, upstream: pool.URL(), do: pool.Do,
		metrics: telemetry.New(store.cache.Stats, pool.Stats),
		scheme:  "http", port: ":80",
		guard: cfg.Guard, timeout: cfg.Upstream.Timeout, lastByte: cfg.Upstream.LastByteTimeout, preserveHost: cfg.Upstream.PreserveHost,
		maxBuffered: int64(float64(cfg.Cache.MaxMemoryMB) * 1e6 * bufferShare),
		maxArriving: int64(float64(cfg.CacheBytes()) * arrivingShare),
		background:  make(chan struct{}, maxBackground),
		complaints:  rate.Sometimes{Interval: time.Second},
	}
	if cfg.TLS.on() {
		h.scheme, h.port = "https", ":443"
	}
	h.maxBody = min(store.cache.MaxEntrySize(), h.maxArriving) * 9 / 10 // what an entry costs beside its body is within the rest
	first, err := newRules(cfg, cfg, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	h.rules.Store(first)
	o.handler, o.pool, o.cancel = h, pool, cancel
	o.lines, o.noLines = context.WithCancel(context.Background())
	o.server = o.newServer()
	o.http2 = o.newHTTP2()
	o.admin = o.newAdmin()
	if cfg.Upstream.InsecureSkipVerify {
		cfg.Logger.Warn("the upstream's certificate isn't verified: upstream.insecure_skip_verify is set")
	}
	if cfg.Upstream.EnablePush {
		cfg.Logger.Info("upstream.enable_push has no effect: clients have removed HTTP/2 server push, and RFC 9113 discourages it")
	}
	return o, nil
}

// Start listens on both addresses and serves until Stop. If an optimizer runs that has
// the same Config.Handover, its listening sockets are taken over, and it is told to
// drain once this one serves. If Start fails, nothing is left open, and that one goes
// on, and this one can't be started again. ctx bounds the start only.
func (o *Optimizer) Start(ctx context.Context) error {
	if o.started.Swap(true) {
		return errors.New("start the optimizer: it was started before; make another one with New")
	}
	before, refused, err := askElder(ctx, o.cfg.Handover)
	if err != nil {
		return err
	}
	defer before.close()
	if refused != nil {
		o.cfg.Logger.Warn("nothing was handed over; trying to listen anew", "error", refused)
	}
	listener, err := before.listen(ctx, 0, o.cfg.Listen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for clients: %w", err), refused)
	}
	if o.adminListener, err = before.listen(ctx, 1, o.cfg.Admin.Listen); err != nil {
		return errors.Join(fmt.Errorf("listen for operators: %w", err), refused, listener.Close())
	}
	var heirs *bequest
	if o.cfg.Handover != "" {
		if heirs, err = listenForHeir(o.cfg.Handover); err != nil {
			return errors.Join(err, listener.Close(), o.adminListener.Close())
		}
	}
	replier := o.handler.newFastPath
	if o.cfg.TLS.on() {
		replier = unreadable
	}
	if o.clients, err = eventloop.New(listener.(*net.TCPListener), eventloop.Config{
		Replier: replier, Serve: o.lend, Logger: o.cfg.Logger,
		Idle: o.cfg.Guard.IdleTimeout, Stuck: o.cfg.Guard.WriteTimeout, MaxConnections: o.cfg.Guard.MaxConnections, MaxUnsent: int64(float64(o.cfg.Cache.MaxMemoryMB) * 1e6 * unsentShare),
	}); err != nil {
		if heirs != nil {
			heirs.close()
		}
		return errors.Join(fmt.Errorf("serve clients: %w", err), o.adminListener.Close())
	}
	if heirs != nil {
		if err := heirs.publish(); err != nil {
			heirs.close()
			o.clients.Close()
			return errors.Join(err, o.adminListener.Close())
		}
		o.heirs = heirs
		o.serving.Go(func() { o.waitForHeir(heirs) })
	}
	o.serving.Go(func() {
		if err := o.admin.Serve(o.adminListener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			o.cfg.Logger.Error("serving operators ended", "error", err)
		}
	})
	o.work()
	o.ready.Store(true)
	if err := before.serving(); err != nil {
		o.cfg.Logger.Warn("the optimizer before this one wasn't told to end", "error", err)
	}
	return nil
}

// work begins what is done beside requests, once.
func (o *Optimizer) work() {
	o.working.Do(func() {
		o.handler.workers.Go(o.handler.keepFresh)
		o.handler.workers.Go(func() { o.pool.Watch(o.handler.ctx) })
	})
}

// HandedOver is closed when another process has taken the listening sockets over and
// serves, see Config.Handover. What is left to do is Stop.
func (o *Optimizer) HandedOver() <-chan struct{} { return o.handedOver }

// Addr is the address for clients; nil before Start.
func (o *Optimizer) Addr() net.Addr {
	if o.clients == nil {
		return nil
	}
	return o.clients.Addr()
}

// URL is where clients find it: http://HOST:PORT, or https://HOST:PORT; empty before Start.
func (o *Optimizer) URL() string {
	if o.clients == nil {
		return ""
	}
	return o.handler.scheme + "://" + o.Addr().String()
}

// AdminAddr is the address for operators; nil before Start.
func (o *Optimizer) AdminAddr() net.Addr {
	if o.adminListener == nil {
		return nil
	}
	return o.adminListener.Addr()
}

// Admin is what operators are served with, for a program that has a server of its own for
// them, or invalidates by calling it; see newAdmin for the paths.
func (o *Optimizer) Admin() http.Handler { return o.admin.Handler }

// Stop stops accepting, lets requests in flight finish, and closes everything. A
// request that hasn't arrived in half of ctx's time isn't waited for. When ctx ends
// first, what is still open is cut off, and ctx's error returned; lines of the access log
// that nobody takes are given up a second later. It must not be called before Start has
// returned.
func (o *Optimizer) Stop(ctx context.Context) error {
	o.ready.Store(false)
	o.started.Store(true)
	o.reloading.Lock()
	o.stopped = true
	o.reloading.Unlock()
	access := o.handler.rules.Load().access
	defer context.AfterFunc(ctx, func() {
		access.Hurry() // who waits for the log's reader can't be cut off
		time.AfterFunc(lastLines, o.noLines)
	})()
	defer o.noLines()
	var faults []error
	if o.heirs != nil {
		o.heirs.close()
	}
	select {
	case <-o.handedOver:
		// Operators are to find the heir: no new connections from here on. Those that
		// ask something now are waited for at the end, like the others.
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_ = o.admin.Shutdown(ended)
	default:
	}
	o.handler.leaving.Store(true)
	if o.transport != nil {
		o.transport.CloseIdleConnections()
	}
	drain := func(err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("drain requests in flight: %w", err))
		}
	}
	if o.clients != nil {
		stop := o.http2.Leave(eventloop.Grace(ctx))
		drain(o.clients.Drain(ctx))
		stop()
	}
	if o.memory != nil {
		drain(o.server.ShutdownWithContext(ctx))
	}
	o.cancel() // whoever still waits for the upstream has had his time
	if o.clients != nil {
		o.clients.Close()
	}
	o.http2.Wait()
	o.handler.workers.Wait()
	if o.adminListener != nil {
		faults = append(faults, o.admin.Close())
	}
	o.serving.Wait()
	o.pool.Close()
	faults = append(faults, access.Close(o.lines))
	o.retired.Wait()
	return errors.Join(faults...)
}
