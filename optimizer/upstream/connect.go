package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"

	"phasegate/optimizer/pemfile"
)

const (
	alpnHTTP2 = "h2"
	alpnHTTP1 = "http/1.1"
)

// tlsConfig is what all handshakes with the upstream have in common.
func (c Config) tlsConfig(host string) (*tls.Config, error) {
	t := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: c.InsecureSkipVerify,
		ClientSessionCache: tls.NewLRUClientSessionCache(0), // a second handshake takes no certificate and less time
	}
	if c.CAFile != "" {
		var err error
		if t.RootCAs, err = pemfile.Authorities("upstream.ca_file", c.CAFile); err != nil {
			return nil, err
		}
	}
	if c.CertFile != "" {
		pair, err := pemfile.Pair("upstream", c.CertFile, c.KeyFile)
		if err != nil {
			return nil, err
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// connect opens a connection, and secures it if the upstream is spoken to over TLS,
// offering the protocols. It says which of them was chosen; "" if none was. A name is
// resolved anew each time, and its addresses are tried in turn. A handshake that is cut
// off is begun once more: nothing was asked yet.
func (p *Pool) connect(ctx context.Context, offer ...string) (*conn, string, error) {
	end := time.Now().Add(p.cfg.DialTimeout + p.cfg.TLSTimeout) // of all that is tried
	c, chosen, err := p.connectAny(ctx, end, offer)
	if err != nil && cutOff(err) && ctx.Err() == nil {
		c, chosen, err = p.connectAny(ctx, end, offer)
	}
	if err != nil {
		err = &unprocessedError{err}
	}
	return c, chosen, err
}

// unprocessedError says that the upstream surely didn't process the request: there was no
// connection, or what it or the connection's end said of the request's stream leaves no doubt.
type unprocessedError struct{ error }

// Unwrap returns why.
func (e *unprocessedError) Unwrap() error { return e.error }

// connectAny tries the addresses in turn. Where one takes the connection and is silent in
// the handshake, which is the end for net/http and curl, the next one follows, as in
// browsers: it may be well. What one says, an alert or a certificate that isn't to be
// trusted, is the upstream's answer: to go on would hide what is misconfigured.
func (p *Pool) connectAny(ctx context.Context, end time.Time, offer []string) (*conn, string, error) {
	tried := addresses{}
	var fault error
	for n := 1; ; n++ {
		raw, err := p.dial(ctx, end, tried)
		switch {
		case err != nil && fault != nil: // no further one can be reached
			return nil, "", fault
		case err != nil:
			return nil, "", p.failedHandshake(ctx, "dial", err)
		}
		tried.add(raw.RemoteAddr())
		c, chosen, err := p.secure(ctx, raw, p.handshakeTime(end, tried), offer)
		var network net.Error
		silent := err != nil && (cutOff(err) || errors.As(err, &network) && network.Timeout())
		if !silent || ctx.Err() != nil || !tried.others() || n == mostAddresses {
			return c, chosen, err
		}
		fault = err
	}
}

// mostAddresses is how many are tried for one connection, so that a name which has a hundred
// of a front that is down doesn't cost as many handshakes each time.
const mostAddresses = 8

// addresses are those of the upstream's name, and whether each was tried.
type addresses map[string]bool

// add has an address passed over from now on.
func (a addresses) add(address net.Addr) {
	if tcp, ok := address.(*net.TCPAddr); ok {
		a[tcp.AddrPort().Addr().Unmap().String()] = true
	}
}

// others reports whether there are addresses that weren't tried.
func (a addresses) others() bool {
	for _, tried := range a {
		if !tried {
			return true
		}
	}
	return false
}

var errPassedOver = errors.New("the handshake failed there")

// dial opens a connection to one of the addresses that weren't tried, and makes known those
// that there are.
func (p *Pool) dial(ctx context.Context, end time.Time, known addresses) (net.Conn, error) {
	passedOver := maps.Clone(known) // the dialer may come back to it after it has returned
	dialer := *p.dialer
	dialer.Deadline = end
	dialer.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		if to, err := netip.ParseAddrPort(address); err == nil && passedOver[to.Addr().Unmap().String()] {
			return errPassedOver // and the dialer goes on with the next one
		}
		return nil
	}
	resolved := &httptrace.ClientTrace{DNSDone: func(found httptrace.DNSDoneInfo) {
		for _, one := range found.Addrs {
			if address := one.String(); !known[address] {
				known[address] = false
			}
		}
	}}
	return dialer.DialContext(httptrace.WithClientTrace(ctx, resolved), "tcp", p.address)
}

// handshakeTime is how long a handshake may take: so that the other addresses have their
// turn, half of what is left for them all.
func (p *Pool) handshakeTime(end time.Time, tried addresses) time.Duration {
	left := time.Until(end)
	if tried.others() {
		left /= 2
	}
	return min(left, p.cfg.TLSTimeout)
}

// secure makes what the pool uses of a new connection, within limit.
func (p *Pool) secure(ctx context.Context, raw net.Conn, limit time.Duration, offer []string) (_ *conn, chosen string, err error) {
	if tcp, ok := raw.(*net.TCPConn); ok && p.cfg.Adopt != nil {
		if raw, err = p.cfg.Adopt(tcp); err != nil {
			return nil, "", err
		}
	}
	p.dials.Add(1)
	c := &conn{Conn: raw, raw: raw, pool: p, born: time.Now(), handshake: "plain"}
	if p.tls == nil {
		p.open.Add(1)
		return c, "", nil
	}
	config := p.tls.Clone()
	config.NextProtos = offer
	secured := tls.Client(raw, config)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := secured.HandshakeContext(limited); err != nil {
		raw.Close()
		return nil, "", p.failedHandshake(ctx, "tls", err)
	}
	c.Conn, c.handshake = secured, "full"
	p.open.Add(1)
	state := secured.ConnectionState()
	if state.DidResume {
		c.handshake = "resumed"
	}
	return c, state.NegotiatedProtocol, nil
}

// Reasons of failed handshakes, as the metrics name them.
var handshakeReasons = []string{"dns", "dial", "dial_timeout", "tls", "tls_timeout", "certificate", "alpn", "preface"}

// failedHandshake counts a failure by its reason, unless ctx ended it, and names the step.
func (p *Pool) failedHandshake(ctx context.Context, step string, err error) error {
	if ctx.Err() != nil {
		return err
	}
	var network net.Error
	var name *net.DNSError
	var cert *tls.CertificateVerificationError
	reason := step
	switch {
	case errors.As(err, &name):
		reason = "dns"
	case errors.As(err, &cert):
		reason = "certificate"
	case noCommonProtocol(err):
		reason = "alpn"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		reason += "_timeout"
	}
	p.failures.add(reason)
	if step == "tls" {
		return fmt.Errorf("TLS handshake with %s: %w", p.address, err)
	}
	return err
}

// noCommonProtocol reports whether the upstream ended the handshake because it speaks
// none of the protocols offered (RFC 7301 §3.2). The alert's type is crypto/tls's own.
func noCommonProtocol(err error) bool {
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Op == "remote error" && strings.HasSuffix(remote.Err.Error(), "no application protocol")
}

// cutOff reports whether the other side, or the network, ended a connection without a word.
func cutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// conn is one connection to the upstream, as HTTP sees it: within TLS, if there is any.
type conn struct {
	net.Conn
	raw       net.Conn // below TLS
	pool      *Pool
	born      time.Time
	handshake string // its kind, as the metrics name it
	counted   sync.Once
	frames    *frames // what HTTP/2 says on it; nil for HTTP/1.1
}

// ready counts the handshake: requests may be sent.
func (c *conn) ready() { c.pool.handshakes.add(c.handshake) }

// Protocols, as indices.
const (
	overHTTP1 = iota
	overHTTP2
)

// Read reads from the upstream.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.frames != nil && n > 0 {
		c.frames.read(p[:n])
	}
	return n, err
}

// settingsAck is the frame that acknowledges the peer's SETTINGS (RFC 9113 §6.5).
var settingsAck = []byte{0, 0, 0, byte(http2.FrameSettings), byte(http2.FlagSettingsAck), 0, 0, 0, 0}

// Write writes to the upstream.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.frames != nil && err == nil && c.frames.told.Load() && bytes.Contains(p, settingsAck) {
		c.frames.acknowledged()
	}
	return n, err
}

// Close closes the connection.
func (c *conn) Close() error {
	c.uncount()
	return c.Conn.Close()
}

// uncount takes the connection off the count of HTTP/1.1's.
func (c *conn) uncount() { c.counted.Do(func() { c.pool.open.Add(-1) }) }

// tooOld reports whether the connection should serve no further request, so that the
// upstream's name is resolved anew.
func (c *conn) tooOld(now time.Time) bool { return now.Sub(c.born) >= c.pool.cfg.MaxConnectionAge }

// frames follows the frames that arrive on an HTTP/2 connection, as far as the pool
// decides by them: x/net keeps to itself whether there were SETTINGS, and whether
// and why there was a GOAWAY.
type frames struct {
	onSettings func() // the first ones aside
	onGoAway   func(code http2.ErrCode)
	settled    chan struct{} // closed when the first SETTINGS were read, applied and acknowledged
	once       sync.Once

	any     atomic.Bool   // something arrived
	told    atomic.Bool   // SETTINGS arrived that aren't acknowledged yet
	allowed atomic.Uint32 // streams, by the SETTINGS that arrived last
	streams atomic.Uint32 // the same, by what x/net has applied and acknowledged
	leaving atomic.Bool   // GOAWAY was seen

	header  [9]byte
	have    int // bytes of header
	payload int // bytes of payload still to come
	keep    [256]byte
	kept    int
}

func newFrames(onSettings func(), onGoAway func(code http2.ErrCode)) *frames {
	f := &frames{onSettings: onSettings, onGoAway: onGoAway, settled: make(chan struct{})}
	f.allowed.Store(assumedStreams)
	return f
}

// acknowledged puts the peer's SETTINGS in force: x/net keeps to them from now on.
func (f *frames) acknowledged() {
	f.told.Store(false)
	f.streams.Store(f.allowed.Load())
	further := true
	f.once.Do(func() { further = false; close(f.settled) })
	if further {
		f.onSettings()
	}
}

// assumedStreams are those of a connection whose SETTINGS name no limit, as RFC 9113 §6.5.2
// recommends at least.
const assumedStreams = 100

// read takes the next bytes that arrived.
func (f *frames) read(p []byte) {
	f.any.Store(true)
	for len(p) > 0 {
		if f.have < len(f.header) {
			n := copy(f.header[f.have:], p)
			f.have += n
			p = p[n:]
			if f.have < len(f.header) {
				return
			}
			f.payload = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
			f.kept = 0
		}
		n := min(f.payload, len(p))
		kind := http2.FrameType(f.header[3])
		if kind == http2.FrameSettings || kind == http2.FrameGoAway {
			f.kept += copy(f.keep[f.kept:], p[:n])
		}
		p = p[n:]
		if f.payload -= n; f.payload == 0 {
			f.have = 0
			f.frame(kind, f.keep[:f.kept])
		}
	}
}

// frame looks at a frame with the begin of its payload.
func (f *frames) frame(kind http2.FrameType, payload []byte) {
	switch {
	case kind == http2.FrameSettings:
		for ; len(payload) >= 6; payload = payload[6:] {
			if http2.SettingID(binary.BigEndian.Uint16(payload)) == http2.SettingMaxConcurrentStreams {
				f.allowed.Store(binary.BigEndian.Uint32(payload[2:]))
			}
		}
		f.told.Store(f.told.Load() || http2.Flags(f.header[4])&http2.FlagSettingsAck == 0) // unless it acknowledges ours
	case kind == http2.FrameGoAway && len(payload) >= 8:
		if !f.leaving.Swap(true) {
			f.onGoAway(http2.ErrCode(binary.BigEndian.Uint32(payload[4:])))
		}
	}
}
