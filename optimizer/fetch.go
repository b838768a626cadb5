package optimizer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"phasegate/optimizer/httpcache"
	"phasegate/optimizer/upstream"
)

// fetch is one request to the upstream. It holds nothing of the client's
// connection but body, so that it may outlive the request that began it.
type fetch struct {
	method   string
	url      *url.URL
	host     string
	header   http.Header // the client's end-to-end fields, with ours
	body     io.ReadCloser
	bodySize int64                         // -1: unknown
	again    func() (io.ReadCloser, error) // the body from its begin, if that is possible
	request  httpcache.Request
	store    bool                                 // the answer may be kept
	stale    *object                              // what is stored: to validate, and to fall back on
	renewal  bool                                 // nobody waits for the answer
	bare     bool                                 // made without a client: an answer of another status is no news of the resource
	interim  func(status int, header http.Header) // passes an interim response on; nil: nobody wants it
}

// outcome is what a fetch brought: a complete response in memory, or one to pass
// on while it arrives, or an error.
type outcome struct {
	object          *object
	stored          bool
	validated       bool // the upstream confirmed the stale object
	status          int  // what the upstream answered; 0: nothing
	failed          bool // no answer, or one that says that the upstream isn't well
	stream          *http.Response
	asked, answered time.Time     // of stream
	body            *streamedBody // below stream.Body
	err             error
}

var errUnaskedNotModified = errors.New("the upstream answered 304 to a request without conditions")

var errClientTimeout = fmt.Errorf("%w in time: %w", upstream.ErrRequestBody, os.ErrDeadlineExceeded)

var errUpstreamTimeout = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)

// passFor is how long a response that couldn't be shared keeps later requests from
// waiting for one another.
const passFor = 10 * time.Second

// fetch asks the upstream and stores the answer if it may. It releases those who
// wait for the ticket's flight as soon as their fate is known.
func (h *handler) fetch(f *fetch, t *ticket) (out outcome) {
	out = h.exchange(f, t, f.stale != nil && f.store)
	if out.err == nil && out.status == http.StatusNotModified && out.stream != nil && f.store && f.stale != nil {
		// The upstream confirms something else than we hold (another validator):
		// ask again for the whole.
		out.close()
		out = h.exchange(f, t, false)
	}
	if out.err == nil && out.status == http.StatusNotModified && out.stream != nil && f.store {
		out.close()
		out = outcome{status: out.status, err: errUnaskedNotModified}
	}
	out.failed = out.err != nil || upstream.Failed(out.status)
	if out.failed && !errors.Is(out.err, upstream.ErrRequestBody) && !refusedByBreaker(out.err) {
		h.metrics.UpstreamErrors.Inc()
	}
	if t.flight != nil {
		t.flight.failed, t.flight.silent = out.failed, out.status == 0
		t.release()
	}
	return out
}

// exchange is one round of fetch, with conditions or without.
func (h *handler) exchange(f *fetch, t *ticket, conditional bool) outcome {
	ctx, cancel := context.WithCancelCause(h.ctx)
	deadline := time.AfterFunc(h.timeout, func() {
		// net/http waits for a read of the body that has begun; and whoever is slow
		// here, it isn't the upstream.
		if body, ok := f.body.(*clientBody); ok && body.reading.Load() {
			cancel(errClientTimeout)
			body.wake()
			return
		}
		cancel(errUpstreamTimeout)
	})
	finish := func() {
		deadline.Stop()
		cancel(nil)
	}
	req := (&http.Request{
		Method: f.method, URL: f.url, Host: f.host, Header: f.header.Clone(), Body: f.body, GetBody: f.again, ContentLength: f.bodySize,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if conditional {
		conditional = httpcache.AddConditions(req.Header, f.stale.header())
	}
	if _, given := req.Header["Idempotency-Key"]; !given && (f.method == http.MethodPut || f.method == http.MethodDelete) {
		req.Header["Idempotency-Key"] = nil // sends nothing, but tells net/http what it doesn't know of these methods
	}
	if f.interim != nil {
		var done func()
		req, done = f.passInterim(req)
		defer done()
	}
	asked := time.Now()
	resp, err := h.do(req)
	if !refusedByBreaker(err) {
		h.metrics.UpstreamRequests.Inc()
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		finish()
		return outcome{err: err}
	}
	body := &streamedBody{ReadCloser: resp.Body, deadline: deadline, idle: h.timeout, finish: finish}
	resp.Body = body
	answered := httpcache.Response{Status: resp.StatusCode, Header: resp.Header, RequestTime: asked, ResponseTime: time.Now()}
	httpcache.StripHopByHop(resp.Header)
	if !httpcache.ValidDate(resp.Header.Get("Date")) {
		resp.Header.Set("Date", answered.ResponseTime.UTC().Format(http.TimeFormat)) // RFC 9110 §6.6.1
	}
	out := outcome{status: resp.StatusCode, stream: resp, body: body, asked: asked, answered: answered.ResponseTime}
	switch {
	case !f.store:
		return out
	case conditional && resp.StatusCode == http.StatusNotModified:
		merged, ok := httpcache.Freshen(f.stale.header(), resp.Header)
		if !ok {
			return out
		}
		answered.Status, answered.Header = f.stale.status, merged
		out.validated = true
		t.base = f.stale
		out.close()
		head, _ := encode(merged, 0)
		out.keep(h, f, t, answered, &object{head: head, body: f.stale.body, block: f.stale.block, newer: true})
		return out
	case upstream.Failed(resp.StatusCode) && f.stale != nil && f.stale.fresh.StaleOnError(&f.request.Directives, answered.ResponseTime, 0):
		return out // what is stored is better than this, and stays
	case f.bare && resp.StatusCode != f.stale.status:
		return out
	}
	if _, reason := httpcache.Evaluate(f.request, answered, h.rules.Load().policy); reason != "" {
		if !f.personal() && !f.bare && !upstream.Failed(resp.StatusCode) {
			h.store.pass(t, answered.ResponseTime.Add(passFor))
		}
		t.release()
		return out
	}
	tooLarge := func() {
		if !f.personal() {
			h.store.pass(t, answered.ResponseTime.Add(passFor))
		}
	}
	room := &room{h: h}
	if resp.ContentLength > h.maxBody {
		tooLarge()
		t.release()
		return out
	}
	if !room.take(max(resp.ContentLength, minBuffer)) {
		t.release()
		return out
	}
	if resp.ContentLength >= 0 {
		defer room.free()
		head, body := encode(answered.Header, int(resp.ContentLength))
		if _, err = io.ReadFull(resp.Body, body); err == nil {
			out.close()
			out.keep(h, f, t, answered, whole(head, body))
			return out
		}
	} else {
		var pieces [][]byte
		var end bool
		pieces, end, err = collect(resp.Body, h.maxBody, room)
		if err == nil && !end { // longer than we keep: hand on what we have, and the rest as it comes
			if int64(size(pieces)) > h.maxBody {
				tooLarge()
			}
			t.release()
			resp.Body = &prefixed{pieces: pieces, ReadCloser: resp.Body, room: room}
			return out
		}
		defer room.free()
		if err == nil {
			out.close()
			head, body := encode(answered.Header, size(pieces))
			at := 0
			for _, piece := range pieces {
				at += copy(body[at:], piece)
			}
			out.keep(h, f, t, answered, whole(head, body))
			return out
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	out.close()
	return outcome{status: resp.StatusCode, err: fmt.Errorf("read the upstream's answer: %w", err)}
}

// personal reports whether the request may be why its answer can't be shared: then
// that says nothing about the answers to others, and what is stored for them stays.
func (f *fetch) personal() bool {
	return f.request.Cookie || f.request.Authorization || f.request.Directives.NoStore
}

// minBuffer is what a body counts for at least while it arrives.
const minBuffer = 64 << 10

// room is a part of what all bodies that are arriving may take. Without room a
// response is passed on as it comes, and not stored, so that many large misses at
// once can't break the memory bound.
type room struct {
	h     *handler
	taken int64
}

// take takes n bytes more, or none if there aren't as many.
func (r *room) take(n int64) bool {
	if r.h.buffered.Add(n) > r.h.maxBuffered {
		r.h.buffered.Add(-n)
		return false
	}
	r.taken += n
	return true
}

func (r *room) free() {
	r.h.buffered.Add(-r.taken)
	r.taken = 0
}

// collect reads a body of unknown length, in pieces, until its end, or until it is
// longer than limit or than there is room for. Every byte counts twice, because the
// pieces are copied together at the end; the first minBuffer bytes are taken already.
func collect(body io.Reader, limit int64, room *room) (pieces [][]byte, end bool, err error) {
	const longest = minBuffer / 2
	read, paid := int64(0), int64(longest)
	for next := 2 << 10; read <= limit; next = min(2*next, longest) {
		if more := read + int64(next) - paid; more > 0 {
			if !room.take(2 * more) {
				return pieces, false, nil
			}
			paid += more
		}
		piece, n := make([]byte, next), 0
		for n < next && err == nil {
			var m int
			m, err = body.Read(piece[n:])
			n += m
		}
		read += int64(n)
		pieces = append(pieces, piece[:n])
		if err != nil {
			break
		}
	}
	if errors.Is(err, io.EOF) {
		return pieces, read <= limit, nil
	}
	return pieces, false, err
}

func size(pieces [][]byte) (n int) {
	for _, piece := range pieces {
		n += len(piece)
	}
	return n
}

// whole makes an object of head and body as encode gave them.
func whole(head, body []byte) *object {
	return &object{head: head, body: body, block: cap(head)}
}

// without is the object without the named fields.
func (o *object) without(names []string) *object {
	head := make([]byte, 0, len(o.head))
	for rest := o.head; len(rest) > 0; {
		name, _, after := next(rest)
		if !slices.Contains(names, string(name)) {
			head = append(head, rest[:len(rest)-len(after)]...)
		}
		rest = after
	}
	shared := &object{head: head, body: o.body, block: o.block, newer: true, fresh: o.fresh, status: o.status, asked: o.asked, aged: o.aged}
	shared.refreshAt.Store(o.refreshAt.Load())
	return shared
}

// keep completes the object of a complete response, and stores it if it may be.
func (out *outcome) keep(h *handler, f *fetch, t *ticket, r httpcache.Response, o *object) {
	fresh, reason := httpcache.Evaluate(f.request, r, h.rules.Load().policy)
	o.fresh, o.status, o.asked, o.aged = fresh, r.Status, r.RequestTime.UnixNano(), r.Header.Get("Age") != ""
	o.refreshAt.Store(h.refreshAt(fresh))
	out.object = o
	if reason != "" { // a 304 may forbid what was allowed before
		if !f.personal() && !f.bare {
			h.store.pass(t, r.ResponseTime.Add(passFor))
		}
		t.release()
		return
	}
	fields, _ := httpcache.Vary(r.Header)
	if t.flight != nil && len(fields) > 0 {
		t.flight.fields, t.flight.values = fields, f.selecting(nil, fields)
	}
	if unshared := httpcache.Unshared(r.Header); len(unshared) > 0 {
		// The client whose request it was gets the whole; the others don't.
		o = o.without(unshared)
	}
	if f.renewal {
		o.credit = f.stale.renewedFor()
	}
	if t.flight != nil {
		t.flight.object = o
	}
	out.stored = h.store.put(t, o, fields, f.selecting)
}

// selecting appends the values of the fields in the request that goes up, which
// are the client's: fields that a proxy rewrites are never varied on.
func (f *fetch) selecting(dst []byte, fields []string) []byte {
	for _, name := range fields {
		dst = httpcache.AppendSelecting(dst, name, f.header[name])
	}
	return dst
}

// close lets go of a response that isn't passed on.
func (out *outcome) close() {
	if out.stream != nil {
		out.stream.Body.Close()
		out.stream = nil
	}
}

// streamedBody moves the deadline on with every read, so that a long body may take
// its time but may not stand still.
type streamedBody struct {
	io.ReadCloser
	deadline *time.Timer
	idle     time.Duration
	streamed bool
	finish   func()
}

// Read reads from the upstream.
func (b *streamedBody) Read(p []byte) (int, error) {
	if b.streamed {
		b.deadline.Reset(b.idle)
	}
	return b.ReadCloser.Read(p)
}

// Close ends the exchange, whether the body was read or not.
func (b *streamedBody) Close() error {
	err := b.ReadCloser.Close()
	b.finish()
	return err
}

// prefixed is a body whose begin was read already; that keeps its room until it is closed.
type prefixed struct {
	pieces [][]byte
	io.ReadCloser
	room *room
}

// Read reads what is left of the pieces, then from the upstream.
func (b *prefixed) Read(p []byte) (int, error) {
	for len(b.pieces) > 0 {
		if n := copy(p, b.pieces[0]); n > 0 {
			b.pieces[0] = b.pieces[0][n:]
			return n, nil
		}
		b.pieces = b.pieces[1:]
	}
	return b.ReadCloser.Read(p)
}

// Close ends the exchange.
func (b *prefixed) Close() error {
	b.pieces = nil
	b.room.free()
	return b.ReadCloser.Close()
}
