package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// http2Conn is one HTTP/2 connection. What goes on within it is golang.org/x/net/http2's;
// how many there are, and which request goes over which, is ours.
//
// Streams are counted here, and not by http.ClientConn's reservations: its hook misses a
// stream that begins and ends while the hook runs.
type http2Conn struct {
	cc   *http.ClientConn
	wire *conn
	used atomic.Bool
	lost atomic.Bool // x/net takes no more requests for it, and says so only when asked to send one

	// The line's lock guards these.
	active  int  // streams
	retired bool // takes no more requests, and closes after the last one
}

// maxUnread bounds what of an answer's body may arrive before it is read: as much as over
// HTTP/1.1. Over a way of 80 ms it lets a stream have 3 MB/s.
const maxUnread = 256 << 10

// dialled is the key of the connection that net/http is to use, in the context that
// its dial function gets.
type dialled struct{}

// newHTTP2Transport makes what HTTP/2 connections are made with. TLS is none of its
// affairs: it gets what is within, so that the pool can watch the frames.
func newHTTP2Transport(cfg Config) (*http.Transport, error) {
	t := &http.Transport{
		Protocols:              new(http.Protocols),
		DisableCompression:     true,
		IdleConnTimeout:        cfg.IdleTimeout,
		ResponseHeaderTimeout:  cfg.FirstByteTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		HTTP2: &http.HTTP2Config{
			// Without pings a connection whose other end vanished would take every request
			// until TCP gives up, which is a quarter of an hour.
			SendPingTimeout: min(10*time.Second, cfg.Timeout/2), PingTimeout: min(5*time.Second, cfg.Timeout/2),
			// One that takes nothing while its own frames come is sent no pings.
			WriteByteTimeout: min(15*time.Second, cfg.Timeout),
			// What a client doesn't take waits here, beside every account. The connection's
			// window stays wider than all streams' together: if those that wait could use
			// it up, the others would wait for the slowest clients.
			MaxReceiveBufferPerStream: maxUnread,
		},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ctx.Value(dialled{}).(*conn), nil
		},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	//lint:ignore SA1019 Go 1.26's own copy of x/net locks up for ever when a stream's window overflows (RFC 9113 §6.9.1)
	if err := http2.ConfigureTransport(t); err != nil {
		return nil, fmt.Errorf("have x/net speak HTTP/2: %w", err)
	}
	return t, nil
}

// speaksHTTP2 reports whether the next request goes over HTTP/2. After a fallback it
// doesn't, until a connection opened meanwhile shows that it could.
func (p *Pool) speaksHTTP2() bool {
	if !p.wantsHTTP2 {
		return false
	}
	until := p.fallenUntil.Load()
	switch {
	case until == 0:
		return true
	case p.onTrial.Load() && time.Now().UnixNano() >= until:
		if len(p.conns) > 0 { // one was on its way before the trial
			p.tellHTTP2()
		}
		return p.fallenUntil.CompareAndSwap(until, 0)
	}
	if time.Now().UnixNano() >= until && p.fallenUntil.CompareAndSwap(until, time.Now().Add(p.cfg.FallbackFor).UnixNano()) {
		go p.openHTTP2(false)
	}
	return false
}

// Reasons of fallbacks, as the metrics name them.
const (
	withoutH2       = "alpn"              // the upstream chose HTTP/1.1, or has no ALPN
	nothingInCommon = "no_common_alpn"    // the upstream speaks none of what was offered; HTTP/1.1 goes without being offered
	notHTTP2        = "preface"           // what came was no HTTP/2
	saidNothing     = "silence"           // nothing came, so that HTTP/1.1 is on trial
	wantsHTTP1      = "http_1_1_required" // the upstream said so (RFC 9113 §7)
)

var fallbackReasons = []string{withoutH2, nothingInCommon, notHTTP2, saidNothing, wantsHTTP1}

// trialTime is how long HTTP/1.1 is spoken after HTTP/2 got no answer, unless one comes.
const trialTime = time.Second

// fallBack has requests go over HTTP/1.1 from now on, for upstream.fallback_for. Silence
// may be that of an upstream which is down, and speaks HTTP/2 when it is back. What a
// connection begun before the last fallback says to the same end is no further one.
//
// HTTP_1_1_REQUIRED moves all requests, though it may have come on the stream of one: RFC 9113
// §7 has it speak for the endpoint, and one that isn't idempotent can only be answered if the
// next like it goes over HTTP/1.1. Who provokes it costs the others HTTP/2, and no request.
func (p *Pool) fallBack(reason string, begun time.Time) {
	p.line.mu.Lock()
	defer p.line.mu.Unlock()
	p.fallBackLocked(reason, begun)
}

func (p *Pool) fallBackLocked(reason string, begun time.Time) {
	if p.fallenUntil.Load() == 0 || begun.After(p.fell) {
		p.fallbacks.add(reason)
		p.fell = time.Now()
	}
	p.bare.Store(reason == nothingInCommon)
	long, now := p.cfg.FallbackFor, fallenTo1
	if reason == saidNothing {
		long, now = min(long, trialTime), trialOf1
	}
	p.onTrial.Store(now == trialOf1)
	until := time.Now().Add(long)
	p.fallenUntil.Store(until.UnixNano())
	p.tellFallback(now, reason, inWords[reason], until)
	p.line.serveLocked()
}

// proveHTTP1 ends a trial: HTTP/1.1 was answered.
func (p *Pool) proveHTTP1() {
	p.line.mu.Lock()
	defer p.line.mu.Unlock()
	if p.fallenUntil.Load() == 0 || !p.onTrial.CompareAndSwap(true, false) {
		return
	}
	until := time.Now().Add(p.cfg.FallbackFor)
	p.fallenUntil.Store(until.UnixNano())
	p.tellFallback(fallenTo1, saidNothing, "it answered over HTTP/1.1, and not over HTTP/2", until)
}

// takeStream takes a stream on the first connection that has one, so that those
// beyond what is needed fall idle and close. The line's lock is held.
func (p *Pool) takeStream() (grant, bool) {
	p.sweep()
	for _, c := range p.conns {
		if c.active < int(c.wire.frames.streams.Load()) {
			c.active++
			return grant{stream: c}, true
		}
	}
	return grant{}, false
}

// sweep drops connections that have ended, and sets those apart that take no more
// requests. The line's lock is held.
func (p *Pool) sweep() {
	now := time.Now()
	kept := p.conns[:0]
	for _, c := range p.conns {
		switch {
		case c.cc.Err() != nil:
		case c.wire.frames.leaving.Load(), c.lost.Load(), c.wire.tooOld(now):
			c.retire()
			p.leaving = append(p.leaving, c)
		default:
			kept = append(kept, c)
		}
	}
	clear(p.conns[len(kept):])
	p.conns = kept
	if len(p.leaving) > 0 {
		p.leaving = slices.DeleteFunc(p.leaving, func(c *http2Conn) bool { return c.cc.Err() != nil })
	}
}

// dialPause is how long no further connection is opened beside those that there are,
// after that failed, or gave one without streams: the upstream may have a limit of its own.
const dialPause = 500 * time.Millisecond

// pauseDials begins such a pause. The line's lock is held.
func (p *Pool) pauseDials() {
	p.noDialUntil = time.Now().Add(dialPause)
	time.AfterFunc(dialPause, p.line.serve)
}

// dialMore opens as many connections as those who wait need, going by how many streams
// the upstream last allowed, within upstream.max_connections_per_host. The line's lock is held.
func (p *Pool) dialMore(waiting int) {
	each := int(p.streams)
	if each == 0 { // the one that said so may be the only one, or have gone since
		for _, c := range p.conns {
			each = max(each, int(c.wire.frames.streams.Load()))
		}
	}
	// An upstream that allows no streams on any for now allows none on further ones.
	if len(p.conns) > 0 && (time.Now().Before(p.noDialUntil) || each == 0) {
		return
	}
	// Who waits for the first one is told of a failure when all tries have failed. If another
	// one took the place of each that did, there would be no such moment, nor an end of tries.
	if len(p.conns) == 0 && p.dialing > 0 && p.failing {
		return
	}
	each = max(1, each)
	needed := (waiting + each - 1) / each
	// With those that are leaving they are twice as many at most: an upstream that gives notice
	// on one after the other, while its answers hang, doesn't get a socket for each.
	for most := p.cfg.MaxConnectionsPerHost; p.dialing < needed && len(p.conns)+p.dialing < most && len(p.conns)+p.dialing+len(p.leaving) < 2*most; {
		p.dialing++
		go p.openHTTP2(true)
	}
}

// openHTTP2 opens a connection and adds it to the pool, or falls back. Planned ones are
// counted in dialing; others are to find out whether the upstream speaks HTTP/2 by now.
func (p *Pool) openHTTP2(planned bool) {
	c, err := p.negotiate(p.ctx)
	p.line.mu.Lock()
	if planned {
		p.dialing--
		p.failing = err != nil && p.dialing > 0
	}
	switch {
	case c != nil && p.ctx.Err() != nil:
		c.retire()
	case c != nil:
		p.conns = append(p.conns, c)
		if p.streams = c.wire.frames.streams.Load(); p.streams == 0 && len(p.conns) > 1 {
			p.pauseDials() // it has enough of them
		}
		if c.wire.born.After(p.fell) { // else the upstream thought better of it since
			p.fallenUntil.Store(0)
			p.bare.Store(false)
			p.tellHTTP2()
		}
	case err != nil && planned:
		p.pauseDials()
		if p.sweep(); len(p.conns)+p.dialing == 0 && p.fallenUntil.Load() == 0 { // else who waits does so for HTTP/1.1
			p.line.fail(err)
		}
	}
	p.line.mu.Unlock()
	if c != nil {
		c.cc.SetStateHook(p.ended)
	}
	p.line.serve()
}

// negotiate opens a connection of HTTP/2 that is ready for requests. It returns none,
// and no error, if it fell back to HTTP/1.1.
func (p *Pool) negotiate(ctx context.Context) (*http2Conn, error) {
	for again := true; ; again = false {
		begun := time.Now()
		wire, chosen, err := p.connect(ctx, alpnHTTP2, alpnHTTP1)
		var reason string
		var instead *conn
		switch {
		case noCommonProtocol(err):
			reason = nothingInCommon
		case err != nil:
			return nil, err
		case p.tls != nil && chosen != alpnHTTP2:
			reason, instead = withoutH2, wire
			err = &unprocessedError{fmt.Errorf("begin HTTP/2 with %s: it chose HTTP/1.1, others of its connections HTTP/2", p.address)}
		default:
			var c *http2Conn
			if c, err = p.greet(ctx, wire); err == nil || ctx.Err() != nil {
				return c, err
			}
			// Anything but HTTP/2 is an answer. Silence may be the network's doing, once.
			silent := !wire.frames.any.Load()
			if silent && !errors.Is(err, context.DeadlineExceeded) && again {
				continue
			}
			if reason = notHTTP2; silent {
				reason = saidNothing
			}
			err = &unprocessedError{err}
		}
		if p.giveUpHTTP2(reason, begun, instead) {
			return nil, nil
		}
		if instead != nil {
			instead.Close()
			p.failures.add("alpn")
		}
		return nil, err
	}
}

// giveUpHTTP2 falls back, with the connection of HTTP/1.1 that was opened instead, if there
// is one; but not while others speak HTTP/2: the upstream has enough of connections then, or
// is several servers of which one doesn't, and not all that it serves is to go by that one.
func (p *Pool) giveUpHTTP2(reason string, begun time.Time, instead *conn) bool {
	p.line.mu.Lock()
	defer p.line.mu.Unlock()
	if p.sweep(); len(p.conns) > 0 {
		return false
	}
	if instead != nil {
		instead.ready()
		p.keep(&http1Conn{conn: instead})
	}
	p.fallBackLocked(reason, begun)
	return true
}

// greet exchanges SETTINGS, so that no request goes to a peer that doesn't speak HTTP/2,
// or beyond the streams that it allows.
func (p *Pool) greet(ctx context.Context, wire *conn) (*http2Conn, error) {
	wire.frames = newFrames(func() {
		go func() {
			p.line.mu.Lock()
			defer p.line.mu.Unlock()
			p.streams = wire.frames.streams.Load()
			p.line.serveLocked()
		}()
	}, func(code http2.ErrCode) {
		p.goAways.Add(1)
		if code == http2.ErrCodeHTTP11Required {
			p.fallBack(wantsHTTP1, wire.born)
		}
		go func() { // without work it closes at once, and who waits for its streams gets others
			p.line.mu.Lock()
			defer p.line.mu.Unlock()
			p.sweep()
			p.line.serveLocked()
		}()
	})
	wire.uncount()
	fault := func(err error) (*http2Conn, error) {
		wire.Close()
		if ctx.Err() == nil {
			p.failures.add("preface")
		}
		return nil, fmt.Errorf("begin HTTP/2 with %s: %w", p.address, err)
	}
	cc, err := p.http2.NewClientConn(context.WithValue(ctx, dialled{}, wire), "http", p.address)
	if err != nil {
		return fault(err)
	}
	ended := make(chan struct{}, 1)
	cc.SetStateHook(func(cc *http.ClientConn) {
		if cc.Err() != nil {
			select {
			case ended <- struct{}{}:
			default:
			}
		}
	})
	patience := time.NewTimer(p.cfg.TLSTimeout)
	defer patience.Stop()
	select {
	case <-wire.frames.settled:
		wire.ready()
		return &http2Conn{cc: cc, wire: wire}, nil
	case <-ended:
		err = cc.Err()
	case <-patience.C:
		err = context.DeadlineExceeded
	case <-ctx.Done():
		err = ctx.Err()
	}
	cc.Close()
	return fault(err)
}

// ended is called by net/http when a stream or the connection ends; the former is known.
// It is called with the line's lock held, too, which so isn't taken here.
func (p *Pool) ended(cc *http.ClientConn) {
	if cc.Err() != nil {
		go p.line.serve()
	}
}

// retire lets the connection close after its last request. The line's lock is held.
func (c *http2Conn) retire() {
	c.retired = true
	if c.active == 0 {
		go c.cc.Close() // over TLS it waits for a peer that takes nothing
	}
}

// closeHTTP2 lets the connections of HTTP/2 close after their last request.
func (p *Pool) closeHTTP2() {
	p.line.mu.Lock()
	defer p.line.mu.Unlock()
	for _, c := range p.conns {
		c.retire()
	}
	p.conns = nil
}
