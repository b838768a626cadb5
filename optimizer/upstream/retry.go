package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/time/rate"
)

// Reasons of retries, as the metrics name them. The first three say that the upstream
// surely didn't process the request; with the others its method is idempotent. Of what a
// peer says, RFC 9113 §8.7 has only REFUSED_STREAM and a GOAWAY's last stream give that
// certainty: HTTP_1_1_REQUIRED (§7) doesn't tell what was done before the reset.
const (
	retryUnsent  = "unsent"            // nothing of it had been written when the connection ended
	retryRefused = "refused_stream"    // RFC 9113 §8.7
	retryGoAway  = "goaway"            // its stream is above the GOAWAY's last one (RFC 9113 §6.8)
	retryHTTP1   = "http_1_1_required" // it goes over HTTP/1.1 now, which can't say so again: without budget
	retryLost    = "lost"              // the connection or stream ended without an answer
)

var retryReasons = []string{retryUnsent, retryRefused, retryGoAway, retryHTTP1, retryLost}

// maxAttempts bounds how often one request is sent, and maxMoves how often if it only has
// to move to another connection, which several GOAWAYs in a row can make it do. From the
// second failure on 10 ms, 20 ms, 40 ms, and then 80 ms each pass in between: an upstream
// that refuses everything isn't flooded.
const (
	maxAttempts  = 6
	maxMoves     = 20
	firstPause   = 10 * time.Millisecond
	longestPause = 80 * time.Millisecond
)

// attempt is one sending of a request.
type attempt struct {
	pool   *Pool
	grant  grant
	conn   *http1Conn  // of HTTP/1.1; nil: there was none
	headed atomic.Bool // of HTTP/2: the header has left
}

// send sends the request until it is answered, or may not be sent again.
func (p *Pool) send(req *http.Request) (*http.Response, error) {
	p.budget.earn()
	req, giveUp := repeatable(req)
	fail := func(err error) (*http.Response, error) {
		giveUp()
		return nil, err
	}
	if err := wellFormed(req); err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return fail(err)
	}
	for attempts := 1; ; attempts++ {
		g, err := p.line.enter(req.Context(), attempts > 1)
		if err != nil {
			if req.Body != nil {
				req.Body.Close()
			}
			return fail(err)
		}
		a := &attempt{pool: p, grant: g}
		resp, err := a.send(req)
		if err == nil {
			return resp, nil
		}
		why := a.retryable(req, err)
		most := maxAttempts
		if why == retryGoAway || why == retryUnsent {
			most = maxMoves
		}
		if why == retryUnsent || why == retryRefused || why == retryGoAway {
			err = &unprocessedError{err}
		}
		if why == "" || attempts >= most {
			return fail(err)
		}
		if why == retryLost && !p.budget.spend() {
			p.retriesDenied.Add(1)
			return fail(err)
		}
		again, failed := repeat(req)
		if failed != nil {
			return fail(fmt.Errorf("%w; and its body can't be sent again: %w", err, failed))
		}
		req = again
		p.retries.add(why)
		if pause := pauseAfter(attempts); pause > 0 {
			select {
			case <-time.After(pause):
			case <-req.Context().Done():
				return fail(context.Cause(req.Context()))
			}
		}
	}
}

// pauseAfter is how long a request that failed so many times waits before it is sent again.
func pauseAfter(attempts int) time.Duration {
	if attempts < 2 {
		return 0
	}
	return min(firstPause<<(attempts-2), longestPause)
}

// ErrRequestHeaderTooLong says that a request isn't sent because the upstream takes no
// header as long: it announced so over HTTP/2, where each field counts 32 bytes besides
// its name and value, and each part of Cookie is one.
var ErrRequestHeaderTooLong = errors.New("the request's header is longer than the upstream allows")

// errMalformed marks a request that isn't sent: the upstream has no part in that.
var errMalformed = errors.New("not a request that can be sent")

// wellFormed is what net/http's Transport checks of a request, and its parts below don't:
// without it a value that has a line's end would make two requests of one.
func wellFormed(req *http.Request) error {
	if !httpguts.ValidHeaderFieldName(cmp.Or(req.Method, http.MethodGet)) { // both are tokens
		return fmt.Errorf("%w: method %q, must be a token (RFC 9110 §9.1)", errMalformed, req.Method)
	}
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("%w: header field name %q, must be a token (RFC 9110 §5.1)", errMalformed, name)
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return fmt.Errorf("%w: value of header field %s has characters that RFC 9110 §5.5 forbids", errMalformed, name)
			}
		}
	}
	return nil
}

// answerable reports whether an answer may come to a request of which sending failed: if
// the upstream has something of it, and took no more.
func (x *http1Exchange) answerable() bool { return x.conn.wrote.Load() && x.conn.broken.Load() }

// bound bounds reads in time. It undoes no interruption.
func (x *http1Exchange) bound(until time.Time) {
	_ = x.conn.SetReadDeadline(until)
	if x.ctx.Err() != nil {
		x.conn.interrupt()
	}
}

// send sends the request once, by the leave given.
func (a *attempt) send(req *http.Request) (resp *http.Response, err error) {
	c := a.grant.stream
	if c == nil {
		resp, err = a.sendHTTP1(req)
	} else {
		trace := &httptrace.ClientTrace{WroteHeaders: func() { a.headed.Store(true) }}
		a.pool.used(overHTTP2, c.used.Swap(true))
		resp, err = c.cc.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	}
	switch {
	case err != nil:
		switch {
		case c == nil:
		case unusable(err):
			c.lost.Store(true) // before others who wait are given it
		case tooLong(err):
			err = fmt.Errorf("%w: %w", ErrRequestHeaderTooLong, err)
		}
		a.pool.leave(a.grant)
		return nil, err
	case c == nil:
		if a.pool.onTrial.Load() && resp.StatusCode < 400 { // else it may say that it wants HTTP/2
			a.pool.proveHTTP1()
		}
	case resp.Body == http.NoBody:
		a.pool.leave(a.grant)
	default:
		resp.Body = &placedBody{ReadCloser: resp.Body, pool: a.pool, grant: a.grant}
	}
	return resp, nil
}

// fromPeer reports whether the upstream reset the stream. Else x/net did, for an answer
// that can't be taken, which would be the same another time; it has no name for either.
func fromPeer(e http2.StreamError) bool {
	return e.Cause != nil && e.Cause.Error() == "received from peer"
}

// retryable says why a request that failed may be sent again; "" if it may not be.
func (a *attempt) retryable(req *http.Request, err error) string {
	var stream http2.StreamError
	if req.Context().Err() != nil || outOfTime(err) {
		return ""
	}
	c := a.grant.stream
	switch {
	case c == nil && (a.conn == nil || !cutOff(err)): // without one, all addresses were tried
		return ""
	case c == nil && !a.conn.wrote.Load():
		return retryUnsent
	case c == nil && !idempotent(req):
		return ""
	case c == nil:
		return retryLost
	case errors.As(err, &stream) && stream.Code == http2.ErrCodeRefusedStream:
		return retryRefused
	case errors.As(err, &stream) && stream.Code == http2.ErrCodeHTTP11Required:
		a.pool.fallBack(wantsHTTP1, c.wire.born)
		if !idempotent(req) {
			return ""
		}
		return retryHTTP1
	case aboveLastStream(err):
		return retryGoAway
	case !a.headed.Load() && (c.cc.Err() != nil || c.wire.frames.leaving.Load() || c.lost.Load()):
		return retryUnsent
	case idempotent(req) && (c.cc.Err() != nil || errors.As(err, &stream) && fromPeer(stream)):
		return retryLost
	}
	return ""
}

// outOfTime reports whether the answer, or the connection, took longer than it may. That a
// connection took nothing for too long is no such thing: who waited there is free to go.
func outOfTime(err error) bool {
	var network interface{ Timeout() bool }
	var on *net.OpError
	return errors.As(err, &network) && network.Timeout() && !(errors.As(err, &on) && on.Op == "write")
}

// aboveLastStream reports whether the upstream's GOAWAY said that it didn't touch the
// request. x/net has two errors for that, and names neither of them.
func aboveLastStream(err error) bool {
	text := err.Error()
	return strings.HasPrefix(text, "http2: Transport received Server's graceful shutdown GOAWAY") || strings.HasPrefix(text, "http2: Transport received GOAWAY from server")
}

// unusable reports whether x/net sent nothing because it is done with the connection:
// after the peer reset another stream with PROTOCOL_ERROR, after it stood idle for too long
// by the wall clock, without stream numbers left. It has no name for that error either.
func unusable(err error) bool { return strings.Contains(err.Error(), "http2: client conn not usable") }

// tooLong reports whether x/net sent nothing because the upstream said that it takes no
// header as long (RFC 9113 §6.5.2). It has no name for that error either.
func tooLong(err error) bool {
	return strings.HasPrefix(err.Error(), "http2: request header list larger than peer's advertised limit")
}

// idempotent reports whether sending the request twice does no more than once. That is for
// the method to say (RFC 9110 §9.2.2): what an Idempotency-Key means to the upstream, if
// anything, isn't known here.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete, "":
		return true
	}
	return false
}

// budget bounds the retries of requests that the upstream may have processed, so that
// they can't multiply the load of an upstream that fails: a share of the requests, and
// ten per second besides, so that an upstream with few requests has some too.
type budget struct {
	share   int64        // of a retry, in thousandths, that each request earns
	saved   atomic.Int64 // thousandths
	minimum *rate.Limiter
}

const (
	retriesPerSecond = 10
	savedRetries     = 100_000 // thousandths: credit of good times, for a moment's trouble
)

func newBudget(share float64) *budget {
	b := &budget{share: int64(share * 1000)}
	if share > 0 {
		b.minimum = rate.NewLimiter(retriesPerSecond, retriesPerSecond)
	}
	return b
}

// earn books one request.
func (b *budget) earn() {
	if b.share > 0 && b.saved.Load() < savedRetries {
		b.saved.Add(b.share)
	}
}

// spend takes one retry, if there is one left.
func (b *budget) spend() bool {
	for saved := b.saved.Load(); saved >= 1000; saved = b.saved.Load() {
		if b.saved.CompareAndSwap(saved, saved-1000) {
			return true
		}
	}
	return b.minimum != nil && b.minimum.Allow()
}

// repeatable returns a request whose body, if it has one, can be had again: by GetBody, or
// as long as nothing of it was read (RFC 9113 §8.7). giveUp closes a body that isn't sent.
func repeatable(req *http.Request) (_ *http.Request, giveUp func()) {
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil {
		return req, func() {}
	}
	once := &onceBody{body: req.Body}
	req = req.WithContext(req.Context())
	req.GetBody = once.lend
	req.Body, _ = once.lend()
	return req, func() { once.body.Close() }
}

// repeat returns the request with its body as it was.
func repeat(req *http.Request) (*http.Request, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	req = req.WithContext(req.Context())
	req.Body = body
	return req, nil
}

// onceBody is a request body that can't be had again. It is lent to one attempt after the
// other, until one reads of it.
type onceBody struct {
	body   io.ReadCloser
	holder atomic.Int64 // number of the attempt that may read; negative if it did
	failed atomic.Pointer[error]
}

var errBodyRead = errors.New("some of it was read")

// lend takes the body from who has it, and lends it again.
func (b *onceBody) lend() (io.ReadCloser, error) {
	n := b.holder.Load()
	if n < 0 || !b.holder.CompareAndSwap(n, n+1) {
		return nil, errBodyRead
	}
	return &lentBody{of: b, number: n + 1}, nil
}

// lentBody is a body as one attempt has it.
type lentBody struct {
	of     *onceBody
	number int64
	denied atomic.Bool // a Read came after it was taken back
}

// Read reads from the client.
func (b *lentBody) Read(p []byte) (int, error) {
	if !b.of.holder.CompareAndSwap(b.number, -b.number) && b.of.holder.Load() != -b.number {
		b.denied.Store(true)
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.of.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.of.failed.Store(&err)
	}
	return n, err
}

// withdraw takes the body back unless some of it was read, so that nobody begins to wait for
// the client any more.
func (b *lentBody) withdraw() bool { return b.of.holder.CompareAndSwap(b.number, b.number+1) }

// Close closes the body unless it may still be needed.
func (b *lentBody) Close() error {
	if b.of.holder.Load() == -b.number {
		return b.of.body.Close()
	}
	return nil
}

// placedBody is the body of an answer over HTTP/2; its end gives the grant back.
type placedBody struct {
	io.ReadCloser
	pool  *Pool
	grant grant
	left  atomic.Bool
}

// Read reads from the upstream. At the end x/net has the stream as good as back: a
// request that comes too early waits within x/net.
func (b *placedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.leave()
	}
	return n, err
}

// Close closes the body.
func (b *placedBody) Close() error {
	err := b.ReadCloser.Close()
	b.leave()
	return err
}

func (b *placedBody) leave() {
	if !b.left.Swap(true) {
		b.pool.leave(b.grant)
	}
}
