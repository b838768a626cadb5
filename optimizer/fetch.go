package optimizer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
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
	hints    *hints                               // on their way to the client; nil: there can be none
	client   context.Context                      // ends when the client has left; nil: it isn't known
}

// outcome is what a fetch brought: a complete response in memory, or one to pass
// on while it arrives, or an error.
type outcome struct {
	object          *object // held; close ends that
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

var errClientLeft = fmt.Errorf("%w: it left", upstream.ErrRequestBody)

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
	if out.failed && !errors.Is(out.err, upstream.ErrRequestBody) && !errors.Is(out.err, upstream.ErrRequestHeaderTooLong) && !unsent(out.err) {
		h.metrics.UpstreamErrors.Inc()
	}
	if t.flight != nil {
		t.flight.failed, t.flight.silent = out.failed, out.status == 0
		if unsent(out.err) {
			t.flight.unsent = out.err
		}
		t.release()
	}
	f.hints.passed() // after those who wait for the fetch have been released
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
	stay := func() bool { return true }
	if f.client != nil && !f.store { // what may be stored is of use to others
		stay = context.AfterFunc(f.client, func() { cancel(errClientLeft) })
	}
	finish := func() {
		stay()
		deadline.Stop()
		cancel(nil)
	}
	sent := context.Context(ctx)
	if f.interim != nil {
		var done func()
		sent, done = f.passInterim(ctx)
		defer done()
	}
	header := f.header
	if conditional {
		header = header.Clone()
		conditional = httpcache.AddConditions(header, f.stale.header())
	}
	req := (&http.Request{
		Method: f.method, URL: f.url, Host: f.host, Header: header, Body: f.body, GetBody: f.again, ContentLength: f.bodySize,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(sent)
	asked := time.Now()
	resp, err := h.do(req)
	if !unsent(err) {
		h.metrics.UpstreamRequests.Inc()
	}
	if err != nil {
		// What the pool says of a deadline that passed before anything was sent says more.
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) && !unsent(err) {
			err = cause
		}
		finish()
		return outcome{err: err}
	}
	body := &streamedBody{ReadCloser: resp.Body, deadline: deadline, idle: h.timeout, end: asked.Add(h.lastByte), finish: finish}
	body.cut = func() {
		if cause := context.Cause(ctx); cause == nil || errors.Is(cause, errUpstreamTimeout) { // else it was the client, or we leave
			h.metrics.UpstreamErrors.Inc()
		}
	}
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
		answered.Status, answered.Header = int(f.stale.status), merged
		out.validated = true
		t.base = f.stale
		out.hangUp()
		out.update(h, f, t, answered)
		return out
	case upstream.Failed(resp.StatusCode) && f.stale != nil && f.stale.fresh.StaleOnError(&f.request.Directives, answered.ResponseTime, 0):
		return out // what is stored is better than this, and stays
	case f.bare && resp.StatusCode != int(f.stale.status):
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
	if resp.ContentLength > h.maxBody {
		tooLarge()
		t.release()
		return out
	}
	fields := fieldsOf(answered.Header)
	if resp.ContentLength >= 0 {
		room := room{used: &h.arriving, limit: h.maxArriving}
		defer room.free()
		var o *object
		if room.take(resp.ContentLength) {
			o = newObject(h.store.cache, f.keyCap(t, answered.Header), fields.size, int(resp.ContentLength))
		}
		if o == nil {
			t.release()
			return out
		}
		if _, err = io.ReadFull(resp.Body, o.body); err == nil {
			out.hangUp()
			fields.write(o.head, answered.Header)
			out.keep(h, f, t, answered, o)
			return out
		}
		o.release()
	} else {
		begin := &prefixed{ReadCloser: resp.Body, room: &room{used: &h.buffered, limit: h.maxBuffered}}
		alloc := func(n int) *object { return newObject(h.store.cache, f.keyCap(t, answered.Header), fields.size, n) }
		var end bool
		begin.pieces, end, err = collect(resp.Body, h.maxBody, begin.room)
		large := begin.room.taken > begin.room.limit/2 // so it isn't the others who leave it no room
		var o *object
		switch {
		case err != nil:
		case end:
			if o = alloc(size(begin.pieces)); o != nil {
				join(o.body, begin.pieces)
			}
		case large && int64(size(begin.pieces)) <= h.maxBody:
			o, err = h.moveOn(begin, alloc)
		}
		if err == nil && o == nil { // longer than we keep: hand on what we have, and the rest as it comes
			if large || int64(size(begin.pieces)) > h.maxBody {
				tooLarge()
			}
			t.release()
			resp.Body = begin
			return out
		}
		begin.room.free()
		if err == nil {
			out.hangUp()
			fields.write(o.head, answered.Header)
			out.keep(h, f, t, answered, o)
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

// keyCap is the length of the key under which an answer with the header is stored, if
// the resource varies by nothing but what the answer says.
func (f *fetch) keyCap(t *ticket, header http.Header) int {
	fields, _ := httpcache.Vary(header)
	if len(fields) == 0 {
		return len(t.key)
	}
	return len(variantKey([]byte(t.key), 0)) + len(f.selecting(nil, fields))
}

// room is a part of what all bodies that are arriving may take, of the arena or of the
// heap. Without room a response is passed on as it comes, and not stored, so that many
// large misses at once can neither break the memory bound nor empty the cache.
type room struct {
	used  *atomic.Int64
	limit int64
	taken int64
}

// take takes n bytes more, or none if there aren't as many.
func (r *room) take(n int64) bool {
	if r.used.Add(n) > r.limit {
		r.used.Add(-n)
		return false
	}
	r.taken += n
	return true
}

// give gives n bytes back, of those that are taken.
func (r *room) give(n int64) {
	n = min(n, r.taken)
	r.used.Add(-n)
	r.taken -= n
}

func (r *room) free() { r.give(r.taken) }

const longestPiece = 32 << 10

// spent are pieces of the longest size, to be used again. Made anew for every body they
// are garbage sooner than the collector frees it, and the heap outgrows its part.
var spent sync.Pool

func newPiece(n int) []byte {
	if n == longestPiece {
		if p, ok := spent.Get().(*[longestPiece]byte); ok {
			return p[:]
		}
	}
	return make([]byte, n)
}

// collect reads a body of unknown length, in pieces, until its end, or until it is
// longer than limit or than there is room for.
func collect(body io.Reader, limit int64, room *room) (pieces [][]byte, end bool, err error) {
	read := int64(0)
	for next := 2 << 10; read <= limit; next = min(2*next, longestPiece) {
		if !room.take(int64(next)) {
			return pieces, false, nil
		}
		piece := newPiece(next)
		var n int
		n, err = fill(body, piece)
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

// moveOn goes on reading a body that has outgrown its room on the heap where it will be
// stored, in memory for the longest of which the rest is given up at its end. It takes so
// much that only one at a time may, and some of what may arrive is left to the others.
// There is no object if that is taken, or the body is longer still.
func (h *handler) moveOn(begin *prefixed, alloc func(n int) *object) (*object, error) {
	longest := min(h.maxBody, h.maxArriving/2)
	arriving := &room{used: &h.arriving, limit: h.maxArriving / 4 * 3}
	if int64(size(begin.pieces)) > longest || !arriving.take(longest+1) {
		return nil, nil
	}
	o := alloc(int(longest + 1))
	if o == nil {
		arriving.free()
		return nil, nil
	}
	n := join(o.body, begin.pieces)
	begin.room.free()
	begin.pieces, begin.room, begin.object = [][]byte{o.body}, arriving, o
	m, err := fill(begin.ReadCloser, o.body[n:])
	switch n += m; {
	case err == nil, int64(n) > longest: // it lies there until it has left
		return nil, nil
	case !errors.Is(err, io.EOF):
		o.release()
		return nil, err
	}
	h.store.cache.Trim(o.entry, len(o.entry.Value())-len(o.body)+n)
	o.body = o.body[:n:n]
	return o, nil
}

// fill reads until p is full, or until an error, which is io.EOF only at the body's end.
func fill(body io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = body.Read(p[n:])
		n += m
	}
	return n, err
}

// join copies the pieces to where they stay. They must not be used any more.
func join(to []byte, pieces [][]byte) (n int) {
	for _, piece := range pieces {
		n += copy(to[n:], piece)
		reuse(piece)
	}
	return n
}

func reuse(piece []byte) {
	if cap(piece) == longestPiece {
		spent.Put((*[longestPiece]byte)(piece[:longestPiece]))
	}
}

func size(pieces [][]byte) (n int) {
	for _, piece := range pieces {
		n += len(piece)
	}
	return n
}

// update completes the object that a response without a body makes of the stale one: a
// new head, and the body that there is. Without room for another entry it is on the
// heap, but for the body, and isn't stored.
func (out *outcome) update(h *handler, f *fetch, t *ticket, r httpcache.Response) {
	fields := fieldsOf(r.Header)
	o := newObject(h.store.cache, f.keyCap(t, r.Header), fields.size, len(f.stale.body))
	if o != nil {
		copy(o.body, f.stale.body)
	} else {
		o = f.stale.hold()
		o.entryHead, o.head = new(entryHead), make([]byte, fields.size)
	}
	fields.write(o.head, r.Header)
	out.keep(h, f, t, r, o)
}

// keep completes the object of a complete response, which it takes over, and stores it
// if it may be.
func (out *outcome) keep(h *handler, f *fetch, t *ticket, r httpcache.Response, o *object) {
	fresh, reason := httpcache.Evaluate(f.request, r, h.rules.Load().policy)
	o.fresh, o.status, o.asked, o.aged = fresh, uint16(r.Status), r.RequestTime.UnixNano(), r.Header.Get("Age") != ""
	o.refreshAt.Store(h.refreshAt(fresh))
	if f.renewal {
		o.credit = f.stale.renewedFor()
	}
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
		if o = o.without(h.store.cache, f.keyCap(t, r.Header), unshared); o == nil {
			return
		}
		defer o.release()
	}
	if f.stale != nil && o.entry == f.stale.entry { // no room for another entry
		return
	}
	if t.flight != nil {
		t.flight.object = o.hold()
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

// close lets go of a response that isn't passed on, or of what was made of it.
func (out *outcome) close() {
	out.hangUp()
	out.object.release()
	out.object = nil
}

// hangUp lets go of a response whose body isn't needed any more.
func (out *outcome) hangUp() {
	if out.stream != nil {
		out.stream.Body.Close()
		out.stream = nil
	}
}

// streamedBody moves the deadline on with every read, so that a long body may take
// its time, up to the end, but may not stand still.
type streamedBody struct {
	io.ReadCloser
	deadline *time.Timer
	idle     time.Duration
	end      time.Time
	streamed bool
	cut      func() // once, if what is passed on ends before its end
	finish   func()
}

// Read reads from the upstream.
func (b *streamedBody) Read(p []byte) (int, error) {
	if b.streamed {
		b.deadline.Reset(min(b.idle, time.Until(b.end)))
	}
	n, err := b.ReadCloser.Read(p)
	if b.streamed && b.cut != nil && err != nil && err != io.EOF {
		b.cut()
		b.cut = nil
	}
	return n, err
}

// Close ends the exchange, whether the body was read or not.
func (b *streamedBody) Close() error {
	err := b.ReadCloser.Close()
	b.finish()
	return err
}

// prefixed is a body whose begin was read already. Each piece of that keeps its room
// until it has been read from here.
type prefixed struct {
	pieces [][]byte
	at     int // of the first piece: so much has been read
	io.ReadCloser
	room   *room
	object *object // whose body is the only piece; nil: they are on the heap
}

// Read reads what is left of the pieces, then from the upstream.
func (b *prefixed) Read(p []byte) (int, error) {
	for len(b.pieces) > 0 {
		if b.at < len(b.pieces[0]) {
			n := copy(p, b.pieces[0][b.at:])
			b.at += n
			return n, nil
		}
		b.leave()
	}
	return b.ReadCloser.Read(p)
}

// leave lets go of the first piece.
func (b *prefixed) leave() {
	b.room.give(int64(cap(b.pieces[0])))
	if b.object == nil {
		reuse(b.pieces[0])
	}
	b.object.release()
	b.object = nil
	b.pieces[0] = nil // the array that it is in stays
	b.pieces, b.at = b.pieces[1:], 0
}

// Close ends the exchange.
func (b *prefixed) Close() error {
	for len(b.pieces) > 0 {
		b.leave()
	}
	b.room.free()
	return b.ReadCloser.Close()
}
