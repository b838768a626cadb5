package optimizer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"phasegate/optimizer/guard"
	"phasegate/optimizer/httpcache"
	"phasegate/optimizer/telemetry"
	"phasegate/optimizer/upstream"
)

// handler takes a request on its way: guard, cache, breaker and upstream, store,
// answer. It works on fasthttp's request and response; an engine for another protocol
// fills those in and takes the answer out.
type handler struct {
	ctx          context.Context // ends when fetches must stop
	logger       *slog.Logger
	store        *store
	pool         *upstream.Pool
	limiter      *guard.Limiter
	metrics      *telemetry.Metrics
	access       *telemetry.AccessLog
	policy       httpcache.Policy
	guard        guard.Config
	timeout      time.Duration
	preserveHost bool
	refreshAhead float64 // share of the lifetime; 0 or less: never
	maxBody      int64   // bytes of the largest body that is stored
	maxBuffered  int64   // bytes of all bodies that are held until they have arrived

	buffered   atomic.Int64
	background chan struct{} // bounds the revalidations in the background
	workers    sync.WaitGroup
	exchanges  sync.Pool
}

// maxBackground bounds the revalidations under way in the background.
const maxBackground = 64

// exchange is one request's working memory; it is pooled, so that a hit allocates
// nothing.
type exchange struct {
	ctx        *fasthttp.RequestCtx
	now        time.Time // of the decision: the request's arrival, or later the upstream's answer
	key        []byte    // primary cache key: host, path and query
	host       []byte    // in key
	target     []byte    // in key
	variant    []byte    // variant key, empty if the resource isn't known to vary
	directives httpcache.RequestDirectives
	head       bool
	passing    bool // the last response couldn't be shared
	scratch    []byte
}

// serve answers one request.
func (h *handler) serve(ctx *fasthttp.RequestCtx) {
	h.metrics.InFlight.Inc()
	x, _ := h.exchanges.Get().(*exchange)
	if x == nil {
		x = new(exchange)
	}
	begun := time.Now()
	x.ctx, x.now, x.head, x.passing = ctx, begun, false, false
	x.key, x.variant, x.directives = x.key[:0], x.variant[:0], httpcache.NoRequestDirectives
	result := h.answer(x)
	took := time.Since(begun)
	h.metrics.Answered(result, ctx.Response.StatusCode(), took)
	h.metrics.InFlight.Dec()
	if h.access.Enabled() {
		h.access.Write(telemetry.Access{
			Client: ctx.RemoteIP().String(), Method: string(ctx.Method()), Host: string(ctx.Host()), Target: string(ctx.RequestURI()),
			Status: ctx.Response.StatusCode(), Result: result, Took: took,
		})
	}
	x.ctx = nil
	h.exchanges.Put(x)
}

// answer decides who answers: the guard, the cache or the upstream.
func (h *handler) answer(x *exchange) telemetry.Result {
	if status := h.refuse(x); status != 0 {
		if hasBody(&x.ctx.Request.Header) {
			x.hangUp()
		}
		return x.refused(status, "")
	}
	request := &x.ctx.Request.Header
	x.head = request.IsHead()
	if !x.head && !request.IsGet() || hasBody(request) {
		return h.pass(x, "; fwd=method")
	}
	if len(request.Peek("If-Match")) > 0 || len(request.Peek("If-Unmodified-Since")) > 0 {
		return h.pass(x, "; fwd=bypass")
	}
	x.readDirectives()
	o := h.lookup(x)
	if o == nil {
		return h.miss(x, nil)
	}
	use := o.fresh.Decide(&x.directives, x.now)
	switch use {
	case httpcache.Fresh:
		// Load before Store: a cache line that is only read stays with every core.
		if h.refreshAhead > 0 && x.now.UnixNano() >= o.refreshAt.Load() && o.hot.Load() {
			h.refresh(x, o)
		}
		if !o.hot.Load() {
			o.hot.Store(true)
		}
		return x.respond(o, "optimizer; hit", true, telemetry.Hit)
	case httpcache.StaleRevalidate:
		h.refresh(x, o)
		return x.respondStale(o, "")
	case httpcache.Stale:
		return x.respondStale(o, "")
	}
	return h.miss(x, o)
}

// refuse applies the guard and builds the cache key; it returns a status, or 0 for
// a request that is let through.
func (h *handler) refuse(x *exchange) int {
	request := &x.ctx.Request.Header
	// fasthttp unfolds lines. A request with both Content-Length and Transfer-Encoding
	// it marks by closing the connection; only then is a second look worth its time.
	raw := request.RawHeaders()
	if guard.Folded(raw) || request.ConnectionClose() && guard.AmbiguousFraming(raw) {
		x.hangUp()
		return http.StatusBadRequest
	}
	if ok, wait := h.limiter.Allow(x.address(), x.now); !ok {
		x.retryAfter(wait)
		return http.StatusTooManyRequests
	}
	host, target := request.Host(), request.RequestURI()
	if len(target) > 0 && target[0] != '/' {
		if request.IsConnect() || bytes.Equal(target, []byte("*")) {
			return http.StatusMethodNotAllowed
		}
		// Absolute form: its authority counts, not Host (RFC 9112 §3.2.2).
		u, err := url.ParseRequestURI(string(target))
		if err != nil || u.Scheme != "http" && u.Scheme != "https" {
			return http.StatusBadRequest
		}
		host, target = []byte(u.Host), []byte(u.RequestURI())
	}
	switch {
	case !guard.ValidHost(host) || !guard.ValidTarget(target):
		return http.StatusBadRequest
	case int64(len(target)) > int64(h.guard.MaxURILength):
		return http.StatusRequestURITooLong
	case request.IsTrace():
		return http.StatusMethodNotAllowed
	case int64(request.ContentLength()) > int64(h.guard.MaxRequestSize):
		return http.StatusRequestEntityTooLarge
	}
	x.key = appendLower(x.key, host)
	x.key = append(x.key, target...)
	x.host, x.target = x.key[:len(host)], x.key[len(host):]
	return 0
}

// lookup finds the stored response for the request, fresh or not.
func (h *handler) lookup(x *exchange) *object {
	o, ok := h.store.cache.Get(x.key)
	if ok && o.kind == varying {
		x.variant = x.selecting(appendVariant(append(x.variant[:0], x.key...), o.id), o.fields)
		o, ok = h.store.cache.Get(x.variant)
	}
	if !ok {
		return nil
	}
	if o.kind == passing {
		x.passing = x.now.UnixNano() < o.asked
		return nil
	}
	return o
}

// miss answers from the upstream, with what is stored, if anything, to validate
// and to fall back on.
func (h *handler) miss(x *exchange, stale *object) telemetry.Result {
	if x.directives.OnlyIfCached {
		return x.refused(http.StatusGatewayTimeout, "")
	}
	f := h.newFetch(x, string(x.ctx.Method()), stale)
	if !f.store {
		return h.forward(x, f, "; fwd=miss", telemetry.Miss)
	}
	// Nobody waits for an answer that he may not get: one that is personal, that the
	// client wants for itself, or that couldn't be shared the last time.
	shared := !x.passing && !f.personal() && !x.directives.NoCache && (stale == nil || !stale.fresh.Validate)
	t, flight, leader := h.store.begin(x.key, x.variant, shared)
	if !leader {
		if result, ok := h.follow(x, flight, stale); ok {
			return result
		}
		// A leader without luck doesn't take its followers down: each tries for itself, once.
		t, _, _ = h.store.begin(x.key, x.variant, false)
	}
	defer t.end()
	return h.conclude(x, f, h.fetch(f, &t))
}

// follow waits for another request's fetch and answers with what it brought, if
// this request may have that.
func (h *handler) follow(x *exchange, flight *flight, stale *object) (telemetry.Result, bool) {
	patience := time.NewTimer(h.timeout)
	defer patience.Stop()
	select {
	case <-flight.done:
	case <-patience.C:
		return 0, false
	}
	x.now = time.Now()
	if flight.failed && stale != nil && stale.fresh.StaleOnError(&x.directives, x.now) {
		return x.respondStale(stale, "; fwd=stale; collapsed"), true
	}
	o := flight.object
	if o == nil || !flight.matches(x.selecting) || o.fresh.Decide(&x.directives, x.now) == httpcache.Validate {
		return 0, false
	}
	return x.respond(o, "optimizer; fwd=miss; collapsed", o.aged, telemetry.Collapsed), true
}

// conclude answers the request whose fetch it was.
func (h *handler) conclude(x *exchange, f *fetch, out outcome) telemetry.Result {
	forward := "; fwd=miss"
	switch {
	case f.stale != nil && f.stale.fresh.Lifetime > f.stale.fresh.Age(x.now):
		forward = "; fwd=request"
	case f.stale != nil:
		forward = "; fwd=stale"
	}
	x.now = time.Now()
	if out.failed && f.stale != nil && f.stale.fresh.StaleOnError(&x.directives, x.now) {
		out.close()
		return x.respondStale(f.stale, "; fwd=stale")
	}
	if out.object == nil {
		return h.passOn(x, out, forward, telemetry.Miss)
	}
	status, result := "optimizer"+forward, telemetry.Miss
	if out.validated {
		status += "; fwd-status=304"
		result = telemetry.Revalidated
	}
	if out.stored {
		status += "; stored"
	}
	return x.respond(out.object, status, out.object.aged, result)
}

// pass sends a request up whose answer the cache has no part in, and invalidates
// what its success makes obsolete.
func (h *handler) pass(x *exchange, why string) telemetry.Result {
	return h.forward(x, h.newFetch(x, string(x.ctx.Method()), nil).unstored(), why, telemetry.Bypass)
}

// forward sends the request up and passes the answer on as it comes.
func (h *handler) forward(x *exchange, f *fetch, why string, result telemetry.Result) telemetry.Result {
	room := &room{h: h}
	defer room.free()
	if err := h.attachBody(x, f, room); err != nil {
		x.hangUp()
		status, _ := gatewayStatus(err)
		return x.refused(status, why)
	}
	t, _, _ := h.store.begin(x.key, nil, false)
	defer t.end()
	out := h.fetch(f, &t)
	if body, ok := f.body.(*clientBody); ok {
		if !body.detach() {
			x.hangUp()
		}
		if body.tooLarge.Load() {
			out.close()
			x.hangUp()
			return x.refused(http.StatusRequestEntityTooLarge, why)
		}
	}
	if httpcache.Invalidates(f.method, out.status) {
		h.store.invalidate(x.key)
		if out.stream != nil {
			for _, target := range httpcache.InvalidatedTargets("http", string(x.host), string(x.target), out.stream.Header) {
				h.store.invalidate(append(bytes.Clone(x.host), target...))
			}
		}
	}
	return h.passOn(x, out, why, result)
}

// newFetch copies what the upstream is to see of the request.
func (h *handler) newFetch(x *exchange, method string, stale *object) *fetch {
	request := &x.ctx.Request.Header
	header := make(http.Header, 16)
	for key, value := range request.AllInOrder() {
		name := textproto.CanonicalMIMEHeaderKey(string(key))
		header[name] = append(header[name], string(value))
	}
	httpcache.StripHopByHop(header)
	f := &fetch{method: method, header: header, stale: stale}
	f.request = httpcache.Request{
		Method: f.method, Authorization: len(header["Authorization"]) > 0, Cookie: len(header["Cookie"]) > 0, Directives: x.directives,
	}
	f.store = f.method == http.MethodGet && (stale != nil || len(header["Range"]) == 0)
	for name := range header {
		// Conditions and ranges are the cache's own affair where it keeps the answer:
		// it asks for the whole and evaluates them itself.
		if httpcache.Rewritten(name) && !(!f.store && conditional(name)) {
			delete(header, name)
		}
	}
	base := h.pool.URL()
	f.host = base.Host
	if h.preserveHost {
		f.host = string(x.host)
	}
	target, _ := url.ParseRequestURI(strings.TrimSuffix(base.EscapedPath(), "/") + string(x.target)) // guard.ValidTarget let it through, so it parses
	target.Scheme, target.Host = base.Scheme, base.Host
	f.url = target
	header["X-Forwarded-For"] = []string{x.ctx.RemoteIP().String()}
	header["X-Forwarded-Host"] = []string{string(x.host)}
	header["X-Forwarded-Proto"] = []string{"http"}
	header["Via"] = []string{"1.1 optimizer"}
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = nil // keeps net/http from adding its own
	}
	return f
}

func (f *fetch) unstored() *fetch {
	f.store = false
	return f
}

func conditional(name string) bool {
	return name == "Range" || strings.HasPrefix(name, "If-")
}

// smallBody is the size up to which a request body is read before it goes up; it
// can then be sent again if the connection turns out to be dead: by an idempotent
// method always, by another one if nothing had gone up yet.
const smallBody = 64 << 10

// attachBody gives the fetch the request's body, read already if it is small and
// there is room for it.
func (h *handler) attachBody(x *exchange, f *fetch, room *room) error {
	size := x.ctx.Request.Header.ContentLength()
	stream := x.ctx.RequestBodyStream()
	switch {
	case stream == nil || size == 0 || size == -2:
		return nil
	case size > 0 && size <= smallBody && room.take(int64(size)):
		body := make([]byte, size)
		if _, err := io.ReadFull(stream, body); err != nil {
			return fmt.Errorf("%w: %w", upstream.ErrRequestBody, err)
		}
		f.again = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		f.body, _ = f.again()
		f.bodySize = int64(size)
		return nil
	}
	f.body = &clientBody{stream: stream, conn: x.ctx.Conn(), left: int64(h.guard.MaxRequestSize)}
	f.bodySize = int64(size) // -1: chunked
	return nil
}

// clientBody lends a request's body to net/http, which may go on reading after it
// has returned a response; detach takes it back, because the connection then belongs
// to the next request.
type clientBody struct {
	mu       sync.Mutex
	stream   io.Reader
	conn     net.Conn
	left     int64
	done     bool // the end was seen
	reading  atomic.Bool
	tooLarge atomic.Bool
}

// Read reads from the client.
func (b *clientBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stream == nil {
		return 0, io.ErrClosedPipe
	}
	b.reading.Store(true)
	n, err := b.stream.Read(p)
	b.reading.Store(false)
	if b.left -= int64(n); b.left < 0 {
		b.tooLarge.Store(true)
		return 0, fmt.Errorf("%w: beyond guard.max_request_size", upstream.ErrRequestBody)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", upstream.ErrRequestBody, err)
	}
	b.done = b.done || errors.Is(err, io.EOF)
	return n, err
}

// Close does nothing: the connection outlives the body.
func (b *clientBody) Close() error { return nil }

// wake ends a read that waits for the client.
func (b *clientBody) wake() { b.conn.SetReadDeadline(time.Unix(1, 0)) }

// detach ends all reading and reports whether the body was read to its end.
func (b *clientBody) detach() bool {
	if !b.mu.TryLock() {
		// A read waits for the client, whose answer is already here: wake it.
		b.wake()
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	b.stream = nil
	return b.done
}

// readDirectives reads the request's Cache-Control, where there is one.
func (x *exchange) readDirectives() {
	request := &x.ctx.Request.Header
	if len(request.Peek("Cache-Control")) == 0 && len(request.Peek("Pragma")) == 0 {
		return
	}
	lines := func(name string) (all []string) {
		for _, value := range request.PeekAll(name) {
			all = append(all, string(value))
		}
		return all
	}
	x.directives = httpcache.ParseRequest(lines("Cache-Control"), lines("Pragma"))
}

// selecting appends the request's values of the fields.
func (x *exchange) selecting(dst []byte, fields []string) []byte {
	for _, name := range fields {
		dst = httpcache.AppendSelecting(dst, name, x.ctx.Request.Header.PeekAll(name))
	}
	return dst
}

// address is the client's, as bytes for the limiter's table.
func (x *exchange) address() []byte {
	if addr, ok := x.ctx.RemoteAddr().(*net.TCPAddr); ok {
		return addr.IP
	}
	return nil
}

func hasBody(request *fasthttp.RequestHeader) bool {
	n := request.ContentLength()
	return n > 0 || n == -1
}

func appendLower(dst, src []byte) []byte {
	dst = slices.Grow(dst, len(src))
	for _, c := range src {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}
