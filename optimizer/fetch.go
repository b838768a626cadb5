package optimizer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"phasegate/optimizer/httpcache"
	"phasegate/optimizer/telemetry"
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
	bodySize int64 // -1: unknown
	request  httpcache.Request
	store    bool    // the answer may be kept
	stale    *object // what is stored: to validate, and to fall back on
}

// outcome is what a fetch brought: a complete response in memory, or one to pass
// on while it arrives, or an error.
type outcome struct {
	object    *object
	stored    bool
	validated bool // the upstream confirmed the stale object
	status    int  // what the upstream answered; 0: nothing
	failed    bool // no answer, or one that says that the upstream isn't well
	stream    *http.Response
	body      *streamedBody // below stream.Body
	err       error
}

var errUnaskedNotModified = errors.New("the upstream answered 304 to a request without conditions")

var errUpstreamTimeout = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)

// passFor is how long a response that couldn't be shared keeps later requests from
// waiting for one another.
const passFor = 10 * time.Second

// fetch asks the upstream and stores the answer if it may. It releases those who
// wait for the ticket's flight as soon as their fate is known.
func (h *handler) fetch(f *fetch, t *ticket) (out outcome) {
	out = h.exchange(f, t, f.stale != nil && f.store)
	if out.err == nil && out.status == http.StatusNotModified && out.stream != nil && f.stale != nil && f.store {
		// The upstream confirms something else than we hold (another validator):
		// ask again for the whole.
		out.close()
		if out = h.exchange(f, t, false); out.status == http.StatusNotModified {
			out.close()
			out = outcome{status: out.status, err: errUnaskedNotModified}
		}
	}
	out.failed = out.err != nil || upstream.Failed(out.status)
	if out.failed && !errors.Is(out.err, upstream.ErrRequestBody) {
		h.metrics.UpstreamErrors.Inc()
	}
	if t.flight != nil {
		t.flight.failed = out.failed
		if out.object != nil {
			t.flight.object = out.object
		}
		t.release()
	}
	return out
}

// exchange is one round of fetch, with conditions or without.
func (h *handler) exchange(f *fetch, t *ticket, conditional bool) outcome {
	ctx, cancel := context.WithCancelCause(h.ctx)
	deadline := time.AfterFunc(h.timeout, func() { cancel(errUpstreamTimeout) })
	finish := func() {
		deadline.Stop()
		cancel(nil)
	}
	req := (&http.Request{
		Method: f.method, URL: f.url, Host: f.host, Header: f.header.Clone(), Body: f.body, ContentLength: f.bodySize,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if conditional {
		conditional = httpcache.AddConditions(req.Header, f.stale.header())
	}
	asked := time.Now()
	h.metrics.UpstreamRequests.Inc()
	resp, err := h.pool.Do(req)
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
	if resp.Header.Get("Date") == "" {
		resp.Header.Set("Date", answered.ResponseTime.UTC().Format(http.TimeFormat)) // RFC 9110 §6.6.1
	}
	out := outcome{status: resp.StatusCode, stream: resp, body: body}
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
		out.close()
		body := f.stale.block[f.stale.body:]
		head := encode(merged, len(body))
		out.keep(h, f, t, answered, append(head, body...), len(head))
		return out
	case upstream.Failed(resp.StatusCode) && f.stale != nil && f.stale.fresh.StaleOnError(&f.request.Directives, answered.ResponseTime):
		return out // what is stored is better than this, and stays
	}
	if _, reason := httpcache.Evaluate(f.request, answered, h.policy); reason != "" {
		if !f.personal() && !upstream.Failed(resp.StatusCode) {
			h.store.pass(t, answered.ResponseTime.Add(passFor))
		}
		t.release()
		return out
	}
	if resp.ContentLength > h.maxBody || !h.reserve(max(resp.ContentLength, minBuffer)) {
		t.release()
		return out
	}
	reserved := max(resp.ContentLength, minBuffer)
	defer func() { h.buffered.Add(-reserved) }()
	if resp.ContentLength >= 0 {
		block := encode(answered.Header, int(resp.ContentLength))
		head := len(block)
		block = block[:head+int(resp.ContentLength)]
		if _, err = io.ReadFull(resp.Body, block[head:]); err == nil {
			out.close()
			out.keep(h, f, t, answered, block, head)
			return out
		}
	} else {
		var body []byte
		body, err = io.ReadAll(io.LimitReader(resp.Body, h.maxBody+1))
		if err == nil && int64(len(body)) <= h.maxBody {
			out.close()
			head := encode(answered.Header, len(body))
			out.keep(h, f, t, answered, append(head, body...), len(head))
			return out
		}
		if err == nil { // longer than we keep: hand on what we have, and the rest as it comes
			t.release()
			resp.Body = &prefixed{Reader: io.MultiReader(bytes.NewReader(body), resp.Body), Closer: resp.Body}
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

// minBuffer is what a body of unknown length counts for while it arrives.
const minBuffer = 64 << 10

// reserve takes n bytes of the room for bodies that are arriving. Without room a
// response is passed on as it comes, and not stored, so that many large misses at
// once can't break the memory bound.
func (h *handler) reserve(n int64) bool {
	if h.buffered.Add(n) > h.maxBuffered {
		h.buffered.Add(-n)
		return false
	}
	return true
}

// keep makes the object of a complete response, whose block has the body from head
// on, and stores it if it may be.
func (out *outcome) keep(h *handler, f *fetch, t *ticket, r httpcache.Response, block []byte, head int) {
	fresh, reason := httpcache.Evaluate(f.request, r, h.policy)
	o := &object{fresh: fresh, block: block, body: head, status: r.Status, asked: r.RequestTime.UnixNano(), aged: r.Header.Get("Age") != ""}
	o.refreshAt.Store(h.refreshAt(fresh))
	out.object = o
	if reason != "" { // a 304 may forbid what was allowed before
		if !f.personal() {
			h.store.pass(t, r.ResponseTime.Add(passFor))
		}
		t.release()
		return
	}
	fields, _ := httpcache.Vary(r.Header)
	if t.flight != nil && len(fields) > 0 {
		t.flight.fields, t.flight.values = fields, f.selecting(nil, fields)
	}
	out.stored = h.store.put(t, o, fields, f.selecting)
}

// refreshAt is when a hit on a hot object begins to fetch its successor.
func (h *handler) refreshAt(f httpcache.Freshness) int64 {
	if h.refreshAhead <= 0 || f.Validate {
		return f.Born + int64(f.Lifetime)
	}
	return f.Born + int64(float64(f.Lifetime)*h.refreshAhead)
}

// selecting appends the values of the fields in the request that goes up, which
// are the client's: fields that a proxy rewrites are never varied on.
func (f *fetch) selecting(dst []byte, fields []string) []byte {
	for _, name := range fields {
		dst = httpcache.AppendSelecting(dst, name, f.header[name])
	}
	return dst
}

// refresh revalidates in the background what a client has just been served, at
// most once at a time for an object.
func (h *handler) refresh(x *exchange, o *object) {
	due := o.refreshAt.Load()
	now := x.now.UnixNano()
	if now < due || !o.refreshAt.CompareAndSwap(due, now+int64(h.timeout)) {
		return
	}
	select {
	case h.background <- struct{}{}:
	default: // too many at once; a later hit tries again
		o.refreshAt.Store(now + int64(refreshRetry))
		return
	}
	f := h.newFetch(x, o)
	f.request.Directives = httpcache.NoRequestDirectives // the client's wishes were met; this is the cache's own
	t, _, leader := h.store.begin(x.key, x.variant, true)
	if !leader {
		<-h.background
		return
	}
	h.workers.Go(func() {
		defer func() { <-h.background }()
		defer t.end()
		out := h.fetch(f, &t)
		out.close()
		switch {
		case out.validated:
			h.metrics.Refreshed(telemetry.Unchanged)
		case !out.failed:
			h.metrics.Refreshed(telemetry.Stored)
		default:
			h.metrics.Refreshed(telemetry.Failed)
		}
		if !out.stored {
			o.refreshAt.Store(time.Now().Add(refreshRetry).UnixNano())
		}
	})
}

// refreshRetry is the pause after a background revalidation that brought nothing.
const refreshRetry = time.Second

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

type prefixed struct {
	io.Reader
	io.Closer
}

// gatewayStatus is the answer to a client when the upstream gave none.
func gatewayStatus(err error) (status int, retryAfter time.Duration) {
	var open *upstream.OpenError
	switch {
	case errors.As(err, &open):
		return http.StatusServiceUnavailable, open.RetryAfter
	case errors.Is(err, upstream.ErrRequestBody):
		return http.StatusBadRequest, 0
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout, 0
	}
	return http.StatusBadGateway, 0
}
