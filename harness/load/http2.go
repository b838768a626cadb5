package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"phasegate/harness/scenario"

	"golang.org/x/net/http2"
)

// http2Dialer opens HTTP/2 connections to one arm. What a connection does is
// golang.org/x/net/http2's (flow control, SETTINGS, GOAWAY, resets), by way of
// net/http; how many there are, what goes over which, and when it is given up, is
// ours.
type http2Dialer struct {
	side
	transport *http.Transport
	protocol  wireProtocol
	late      func(due, sent time.Duration) // told of the send of every prompt request; nil where none is
}

func newHTTP2Dialer(s side) *http2Dialer {
	d := &http2Dialer{side: s, protocol: wireH2C}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	if s.arm.tls != nil {
		d.protocol = wireH2
		protocols = new(http.Protocols)
		protocols.SetHTTP2(true)
	}
	d.transport = &http.Transport{
		Protocols:              protocols,
		DisableCompression:     true, // nothing is asked for that the scenario doesn't
		MaxResponseHeaderBytes: maxHeader,
		// A peer that vanished without a word is given up after two timeouts.
		HTTP2: &http.HTTP2Config{SendPingTimeout: s.g.timeout, PingTimeout: s.g.timeout},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			nc, _, err := s.dialTo(ctx, scenario.H2C)
			return nc, err
		},
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			nc, _, err := s.dialTo(ctx, scenario.H2)
			return nc, err
		},
	}
	//lint:ignore SA1019 Go 1.26's own copy of x/net locks up for ever when a stream's window overflows (RFC 9113 §6.9.1)
	if err := http2.ConfigureTransport(d.transport); err != nil {
		panic(err) // there is no other HTTP/2 in it
	}
	return d
}

// dial opens a connection.
func (d *http2Dialer) dial(ctx context.Context, deadline time.Time) (*http2Conn, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	cc, err := d.transport.NewClientConn(ctx, d.arm.URL.Scheme, d.arm.address)
	if err != nil {
		return nil, err
	}
	d.connected(d.protocol)
	return &http2Conn{http2Dialer: d, cc: cc}, nil
}

// http2Conn is one HTTP/2 connection. Requests may be performed at once.
type http2Conn struct {
	*http2Dialer
	cc     *http.ClientConn
	served atomic.Bool // it brought an answer

	active int  // streams handed out
	full   bool // the peer allows no more for now
}

// usable reports whether the connection takes requests, now or when those under
// way have ended.
func (c *http2Conn) usable() bool {
	return c.cc.Err() == nil && (c.cc.Available() > 0 || c.cc.InFlight() > 0)
}

// perform sees a request through to its outcome. again says that it may be sent
// once more, on another connection: nothing of it was sent, or the server says
// that it didn't touch it (RFC 9113, section 8.7). That a connection which is
// given up ends without a word excuses it over HTTP/1.1, which has none; here it
// has cut off what was under way.
func (c *http2Conn) perform(ctx context.Context, j job) (x exchange, again bool) {
	x = j.exchange()
	x.retried = j.resent
	if c.expired(j, time.Now()) {
		c.cc.Release()
		c.unanswered(&x, j, errExpired, time.Time{})
		return x, false
	}
	target := c.appendTarget(nil, j.target)
	known := c.arm.written.version(target)
	var wrote atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { wrote.Store(true) }})
	ctx, cancel := context.WithDeadline(ctx, c.deadline(j))
	defer cancel()
	request := c.request(j, target).WithContext(ctx)
	sent := time.Now()
	if j.prompt {
		c.late(j.due, sent.Sub(c.base))
	}
	response, err := c.cc.RoundTrip(request)
	if err != nil {
		x.sent = wrote.Load()
		c.unanswered(&x, j, err, sent)
		return x, !isTimeout(err) && ctx.Err() == nil && untouched(x.sent, err)
	}
	x.sent = true
	a := &answer{status: response.StatusCode, declared: -1, protocol: c.protocol, reused: c.served.Swap(true)}
	for name, values := range response.Header {
		for _, v := range values {
			a.fields.note(name, []byte(v))
		}
	}
	if c.arm.verify {
		a.proof = a.fields.proof()
		a.part = a.fields.part(a.status)
	}
	if err := readStream(response, j.method, a); err != nil {
		c.unanswered(&x, j, err, sent)
		return x, false
	}
	a.end = time.Now()
	c.answerTo(&x, j, a, target, sent, known)
	return x, false
}

// untouched reports whether a failed request has surely not been looked at by
// the server.
func untouched(sent bool, err error) bool {
	var reset http2.StreamError
	if errors.As(err, &reset) {
		return reset.Code == http2.ErrCodeRefusedStream
	}
	return !sent || aboveLastStream(err)
}

// aboveLastStream reports whether the server's GOAWAY left the request out (RFC 9113,
// section 6.8). x/net has two errors for that, and exports neither.
func aboveLastStream(err error) bool {
	text := err.Error()
	return strings.Contains(text, "Transport received Server's graceful shutdown GOAWAY") || strings.Contains(text, "Transport received GOAWAY from server")
}

// request renders a request. The target goes out as it is.
func (c *http2Conn) request(j job, target []byte) *http.Request {
	host := c.arm.URL.Host
	r := &http.Request{
		Method: j.method,
		URL:    &url.URL{Scheme: c.arm.URL.Scheme, Host: host, Opaque: "//" + host + string(target)},
		Host:   host,
		Header: http.Header{},
	}
	if j.extra != nil {
		for _, f := range j.extra.header {
			r.Header.Add(f[0], f[1])
		}
	}
	r.Header.Set("User-Agent", userAgent)
	if body := j.content(); len(body) > 0 {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	return r
}

// readStream reads, sums up and drops the body of an answer.
func readStream(response *http.Response, method string, a *answer) error {
	defer response.Body.Close()
	if method == http.MethodHead {
		a.declared = response.ContentLength
		return nil
	}
	piece := pieces.Get().(*[bodyPiece]byte)
	defer pieces.Put(piece)
	for {
		n, err := response.Body.Read(piece[:])
		a.add(piece[:n])
		switch {
		case err == io.EOF:
			return nil
		case err != nil && response.ContentLength > 0:
			return &truncatedError{fmt.Errorf("the answer was cut off after %d of %d bytes of its body: %w", a.length, response.ContentLength, err)}
		case err != nil:
			return &truncatedError{fmt.Errorf("the answer was cut off after %d bytes of its body: %w", a.length, err)}
		case a.length > maxBody:
			return fmt.Errorf("a body of more than %d bytes", int64(maxBody))
		}
	}
}

// http2Client is one client in a closed loop, on an HTTP/2 connection of its
// own.
type http2Client struct {
	*http2Dialer
	conn *http2Conn
}

// perform is that of [conn].
func (c *http2Client) perform(ctx context.Context, j job, _ bool) exchange {
	for {
		if c.conn != nil && c.conn.cc.Reserve() != nil {
			c.hangUp()
		}
		if c.conn == nil {
			conn, err := c.dial(ctx, c.deadline(j))
			if err != nil {
				x := j.exchange()
				c.unanswered(&x, j, err, time.Time{})
				return x
			}
			c.conn = conn
			_ = conn.cc.Reserve() // one that fails here fails the request
		}
		x, again := c.conn.perform(ctx, j)
		if !again || j.again {
			return x
		}
		j.again, j.resent = true, x.sent
		c.hangUp()
	}
}

func (c *http2Client) hangUp() {
	if c.conn != nil {
		c.conn.cc.Close()
		c.conn = nil
	}
}
