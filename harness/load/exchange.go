package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"phasegate/harness/timeline"

	"github.com/valyala/fasthttp"
)

// job is one request on its way.
type job struct {
	request
	due time.Duration // after the connection's base
	seq uint64        // position in the schedule
	lag time.Duration // how much later the dispatcher got to it

	prompt bool // the pool had room for it when it was due
	again  bool // a first attempt failed, and it is on its second …
	resent bool // … after having been written to a connection
}

// exchange begins the record of what becomes of j.
func (j job) exchange() exchange {
	x := exchange{}
	x.Due, x.Lag, x.Cacheable = j.due, j.lag, j.cacheable()
	return x
}

// exchange is a request's outcome and what is behind it.
type exchange struct {
	timeline.Outcome
	why      error // for every class but OK, and for stale
	sent     bool
	complete bool // a whole response was read
	retried  bool
	status   int          // 0 without a whole response
	received int64        // bytes of its body
	protocol wireProtocol // that the complete response came by
	earlier  bool         // the answer was made before the run began
	version  uint64       // as the answer describes itself; 0 where it doesn't
}

// side is the client's side of an arm's connections, whatever protocol they
// speak.
type side struct {
	g      *Generator
	arm    *arm
	engine engine    // of HTTP/1.1
	base   time.Time // due times count from here
	open   *sockets
	sink   Sink // told of connections and handshakes
	source
}

func (s *side) deadline(j job) time.Time { return s.base.Add(j.due + s.g.timeout) }

// errExpired is why a request was never sent.
var errExpired = fmt.Errorf("every connection was busy: %w", os.ErrDeadlineExceeded)

// truncatedError is the end of an answer within its body.
type truncatedError struct{ err error }

func (e *truncatedError) Error() string { return e.err.Error() }
func (e *truncatedError) Unwrap() error { return e.err }

func (s *side) expired(j job, now time.Time) bool { return now.Sub(s.base) >= j.due+s.g.timeout }

// unanswered makes the outcome of a request without a complete answer. Where it
// wasn't sent, when doesn't matter.
func (s *side) unanswered(x *exchange, j job, err error, when time.Time) {
	now := time.Since(s.base)
	x.Class, x.why = timeline.Transport, err
	if isTimeout(err) || now >= j.due+s.g.timeout {
		x.Class = timeline.Timeout
		x.why = fmt.Errorf("no complete answer within %s of the due time: %w", s.g.timeout, err)
		if !x.sent {
			// It was known at the timeout; that somebody looked later adds nothing.
			now = min(now, j.due+s.g.timeout)
		}
	}
	var cut *truncatedError
	x.Truncated = x.Class == timeline.Transport && errors.As(err, &cut)
	x.Latency = now - j.due
	if x.sent {
		sent := when.Sub(s.base)
		x.Wait, x.Service = sent-j.due, now-sent
	}
}

// answerTo judges a complete answer to a request for target that was sent at
// when; known is the version that a write of ours had made until then.
func (s *side) answerTo(x *exchange, j job, a *answer, target []byte, when time.Time, known uint64) {
	end, sent := a.end.Sub(s.base), when.Sub(s.base)
	x.complete, x.status, x.received, x.protocol = true, a.status, a.length, a.protocol
	x.Latency, x.Wait, x.Service = end-j.due, sent-j.due, end-sent
	f := judge(expectation{
		method: j.method, target: target, variant: s.g.variant(j.request), asks: j.asked(), sent: when,
		from: s.arm.from, since: s.g.since, version: known, verify: s.arm.verify, catalog: s.g.catalog,
	}, a)
	x.Class, x.why, x.version, x.earlier = f.class, f.why, f.version, f.earlier
	x.Stale, x.Blocking, x.Proven = f.stale, f.blocking, f.proven
	x.HTTP2, x.Reused = a.protocol == wireH2 || a.protocol == wireH2C, a.reused
	x.HTTP1 = !x.HTTP2
	if x.Cacheable {
		x.Claim = a.fields.claim()
		if f.proven && !f.blocking && f.class == timeline.OK {
			x.WrongAge = wrongAge(a.fields.age, when.Sub(a.proof.d.Birth), a.end.Sub(a.proof.d.Birth))
		}
	}
	if end > j.due+s.g.timeout { // the deadline's timer was late
		x.Class, x.why = timeline.Timeout, fmt.Errorf("the answer ended %s after the due time", x.Latency)
	}
}

// noEOF turns the end of a connection where there should be more into an
// error that says so.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, fasthttp.ErrTimeout) || errors.As(err, &t) && t.Timeout()
}

// idempotent reports whether a method may be sent again (RFC 9110, section
// 9.2.2).
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
