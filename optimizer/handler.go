package optimizer

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/time/rate"

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
	upstream     *url.URL                                    // where requests go
	do           func(*http.Request) (*http.Response, error) // sends one there
	metrics      *telemetry.Metrics
	rules        atomic.Pointer[rules] // replaced as a whole by a reload
	guard        guard.Config
	timeout      time.Duration
	lastByte     time.Duration
	preserveHost bool
	scheme       string // of the clients' requests
	port         string // that goes without saying: ":80" or ":443"
	maxBody      int64  // bytes of the largest body that is stored
	maxArriving  int64  // bytes of all bodies that are arriving where they will be stored
	maxBuffered  int64  // bytes of all bodies that are held on the heap until they have arrived

	complaints rate.Sometimes // of the upstream, in the log
	arriving   atomic.Int64
	leaving    atomic.Bool // connections close after the present request
	buffered   atomic.Int64
	background chan struct{} // bounds the revalidations in the background
	workers    sync.WaitGroup
	exchanges  sync.Pool
}

// exchange is one request's working memory; it is pooled, so that a hit allocates
// nothing.
type exchange struct {
	ctx        *fasthttp.RequestCtx
	rules      *rules    // in force when it arrived
	now        time.Time // of the decision: the request's arrival, or later the upstream's answer
	key        []byte    // primary cache key: host, path and query
	host       []byte    // in key
	target     []byte    // in key
	variant    []byte    // variant key, empty if the resource isn't known to vary
	directives httpcache.RequestDirectives
	head       bool
	passing    bool // the last response couldn't be shared
	scratch    []byte

	held  []*object // what is looked at for this request; released when the answer is made
	first object    // of held: the usual one, which so needs no allocation
	names []string  // what that varies by
}

// serve answers one request.
func (h *handler) serve(ctx *fasthttp.RequestCtx) {
	h.metrics.InFlight.Inc()
	x, _ := h.exchanges.Get().(*exchange)
	if x == nil {
		x = new(exchange)
	}
	if conn, ok := ctx.Conn().(*clientConn); ok {
		conn.begun++
		conn.answered()
	}
	begun := time.Now()
	x.ctx, x.rules, x.now, x.head, x.passing = ctx, h.rules.Load(), begun, false, false
	x.key, x.variant, x.directives = x.key[:0], x.variant[:0], httpcache.NoRequestDirectives
	result := h.answer(x)
	if h.leaving.Load() {
		ctx.SetConnectionClose()
	}
	took := time.Since(begun)
	h.metrics.Answered(result, ctx.Response.StatusCode(), took)
	h.metrics.InFlight.Dec()
	h.logAccess(ctx, begun, took, result)
	x.ctx, x.rules = nil, nil
	x.release()
	h.exchanges.Put(x)
}

// keep releases the object when the answer is made, and returns it.
func (x *exchange) keep(o *object) *object {
	if o != nil {
		x.held = append(x.held, o)
	}
	return o
}

// release ends the views of this request.
func (x *exchange) release() {
	for _, o := range x.held {
		o.release()
	}
	clear(x.held)
	x.held, x.first = x.held[:0], object{}
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
	if len(x.rules.purgeFrom) > 0 && string(request.Method()) == "PURGE" {
		return h.purge(x)
	}
	if request.IsOptions() && string(request.Peek("Max-Forwards")) == "0" { // RFC 9110 §7.6.2
		return x.refused(http.StatusOK, "")
	}
	if !x.head && !request.IsGet() || hasBody(request) {
		return h.pass(x, "; fwd=method")
	}
	x.readDirectives()
	if x.says("If-Match") || x.says("If-Unmodified-Since") {
		if x.directives.OnlyIfCached { // nothing that is stored is known to meet such a condition
			return x.refused(http.StatusGatewayTimeout, "")
		}
		return h.pass(x, "; fwd=bypass")
	}
	o := h.lookup(x)
	if o == nil {
		return h.miss(x, nil)
	}
	use := o.fresh.Decide(&x.directives, x.now)
	switch use {
	case httpcache.Fresh:
		// Load before Store: a cache line that is only read stays with every core.
		if x.rules.refreshAhead > 0 && x.now.UnixNano() >= o.refreshAt.Load() && o.hot.Load() {
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
	for name, value := range request.AllInOrder() {
		if !guard.ValidField(name, value) { // fasthttp has spaces in names
			x.hangUp()
			return http.StatusBadRequest
		}
	}
	if ok, wait := x.rules.limiter.Allow(x.address(), x.now); !ok {
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
		_, rest, _ := bytes.Cut(target, []byte("://"))
		host, target = []byte(u.Host), []byte("/")
		if path := bytes.IndexAny(rest, "/?"); path >= 0 {
			target = append(target, bytes.TrimPrefix(rest[path:], []byte("/"))...)
		}
	}
	if len(host) == 0 && string(request.Protocol()) == "HTTP/1.0" { // may do without (RFC 9112 §3.2)
		host = []byte(h.upstream.Host)
	}
	host = h.withoutPort(host)
	switch {
	case request.IsConnect():
		return http.StatusMethodNotAllowed
	case !guard.ValidHost(host) || !guard.ValidTarget(target):
		return http.StatusBadRequest
	case int64(len(target)) > x.rules.maxURILength:
		return http.StatusRequestURITooLong
	case request.IsTrace():
		return http.StatusMethodNotAllowed
	case int64(request.ContentLength()) > int64(h.guard.MaxRequestSize):
		return http.StatusRequestEntityTooLarge
	}
	normal := x.rules.query.normal(target)
	x.key = appendLower(x.key, host)
	x.key = append(x.key, normal...)
	x.host, x.target = x.key[:len(host)], x.key[len(host):]
	if !request.IsGet() && !request.IsHead() { // what is to be done there is nobody's to change
		x.target = bytes.Clone(target)
	}
	return 0
}

// withoutPort is the host without the scheme's own port, which makes no other resource (RFC
// 9110 §4.2.3).
func (h *handler) withoutPort(host []byte) []byte { return bytes.TrimSuffix(host, []byte(h.port)) }

// lookup finds the stored response for the request, fresh or not; it is held as long
// as the exchange lasts.
func (h *handler) lookup(x *exchange) *object {
	e, ok := h.store.cache.Get(x.key)
	if !ok {
		return nil
	}
	o := view(e)
	if o.kind == varying {
		x.names = o.selectingFields(x.names[:0])
		x.variant = x.selecting(appendVariant(append(x.variant[:0], x.key...), o.id), x.names)
		clear(x.names) // they end with the hold
		e.Release()
		if e, ok = h.store.cache.Get(x.variant); !ok {
			return nil
		}
		o = view(e)
	}
	if o.kind == passing {
		x.passing = x.now.UnixNano() < o.asked
		e.Release()
		return nil
	}
	if len(x.held) == 0 {
		x.first = o
		return x.keep(&x.first)
	}
	another := o
	return x.keep(&another)
}

// pass sends a request up whose answer the cache has no part in, and invalidates
// what its success makes obsolete.
func (h *handler) pass(x *exchange, why string) telemetry.Result {
	return h.forward(x, h.newFetch(x, string(x.ctx.Method()), nil, false), why, telemetry.Bypass)
}

// forward sends the request up and passes the answer on as it comes.
func (h *handler) forward(x *exchange, f *fetch, why string, result telemetry.Result) telemetry.Result {
	room := &room{used: &h.buffered, limit: h.maxBuffered}
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
		// A stream of HTTP/2 is no other request's: there the body goes on going up.
		if _, own := x.ctx.Conn().(*stream); !own && !body.detach() {
			x.hangUp()
		}
		if body.tooLarge.Load() {
			out.close()
			x.hangUp()
			return x.refused(http.StatusRequestEntityTooLarge, why)
		}
	}
	if x.head && f.stale != nil {
		if out.stream != nil {
			h.head(x, f, &t, out)
		}
		return h.conclude(x, f, out)
	}
	if httpcache.Invalidates(f.method, out.status) {
		h.store.invalidate(x.key)
		if out.stream != nil {
			h.invalidateNamed(x, f, out.stream.Header)
		}
	}
	return h.passOn(x, out, why, result)
}

// invalidateNamed drops what a response to an unsafe method names beside its target (RFC
// 9111 §4.4), be it as clients call it or, below the upstream's URL, as the upstream was asked.
func (h *handler) invalidateNamed(x *exchange, f *fetch, header http.Header) {
	query := &x.rules.query
	for _, target := range httpcache.InvalidatedTargets(h.scheme, string(x.host), string(x.target), header) {
		h.store.invalidate(query.normal(append(bytes.Clone(x.host), target...)))
	}
	base := strings.TrimSuffix(h.upstream.EscapedPath(), "/")
	for _, target := range httpcache.InvalidatedTargets(f.url.Scheme, f.host, f.url.RequestURI(), header) {
		if below, ok := strings.CutPrefix(target, base); ok && strings.HasPrefix(below, "/") {
			h.store.invalidate(query.normal(append(bytes.Clone(x.host), below...)))
		}
	}
}

// head takes from a response to HEAD what it says of the stored response to GET: an
// update, or that it isn't current any more (RFC 9111 §4.3.5).
func (h *handler) head(x *exchange, f *fetch, t *ticket, out outcome) {
	if upstream.Failed(out.status) || out.status == http.StatusNotModified || f.personal() {
		return
	}
	merged, ok := httpcache.HeadFreshens(f.stale.header(), out.stream.Header, int64(len(f.stale.body)))
	if out.status != int(f.stale.status) {
		switch out.status {
		case http.StatusOK, http.StatusNotFound, http.StatusGone:
			ok = false
		default: // 401, 403 and 429, say, are about this client or moment, not the resource
			return
		}
	}
	if !ok {
		h.store.invalidate(x.key)
		return
	}
	t.base = f.stale
	request := f.request
	request.Method = http.MethodGet
	asked := *f
	asked.request = request
	var unused outcome
	unused.update(h, &asked, t, httpcache.Response{Status: out.status, Header: merged, RequestTime: out.asked, ResponseTime: out.answered})
	unused.close()
}

// newFetch copies what the upstream is to see of the request; keep says whether the
// cache may have a part in the answer.
func (h *handler) newFetch(x *exchange, method string, stale *object, keep bool) *fetch {
	request := &x.ctx.Request.Header
	var header http.Header
	if s, ok := x.ctx.Conn().(*stream); ok {
		header = s.fields()
	} else {
		header = make(http.Header, bytes.Count(request.RawHeaders(), []byte("\n"))+5) // ours among them
		for key, value := range request.AllInOrder() {
			name := textproto.CanonicalMIMEHeaderKey(string(key))
			header[name] = append(header[name], string(value))
		}
	}
	f := h.compose(method, header, string(x.host), string(x.target), stale, keep, x.directives)
	if _, ok := x.ctx.RemoteAddr().(*net.TCPAddr); ok {
		header["X-Forwarded-For"] = []string{x.ctx.RemoteIP().String()}
	} else { // of this program's RoundTripper
		header["X-Forwarded-Proto"] = []string{h.upstream.Scheme}
	}
	if !request.IsHTTP11() {
		_, version, _ := strings.Cut(string(request.Protocol()), "/")
		via := header["Via"]
		via[len(via)-1] = version + " optimizer"
	}
	if left, err := strconv.ParseUint(header.Get("Max-Forwards"), 10, 32); err == nil && left > 0 && request.IsOptions() {
		header["Max-Forwards"] = []string{strconv.FormatUint(left-1, 10)}
	}
	f.interim, f.client = x.interim, x.gone()
	return f
}

// compose makes a fetch of a request's header fields, which it takes over.
func (h *handler) compose(method string, header http.Header, host, target string, stale *object, keep bool, d httpcache.RequestDirectives) *fetch {
	httpcache.StripHopByHop(header)
	via := header["Via"]
	f := &fetch{method: method, header: header, stale: stale}
	f.request = httpcache.Request{
		Method: f.method, Authorization: len(header["Authorization"]) > 0, Cookie: len(header["Cookie"]) > 0, Directives: d,
	}
	f.store = keep && f.method == http.MethodGet && (stale != nil || len(header["Range"]) == 0)
	for name := range header {
		// Conditions and ranges are the cache's own affair where it keeps the answer:
		// it asks for the whole and evaluates them itself.
		if httpcache.Rewritten(name) && !(!f.store && conditional(name)) || keep && !h.rules.Load().forwards(name) {
			delete(header, name)
		}
	}
	f.host = h.upstream.Host
	if h.preserveHost {
		f.host = host
	}
	f.url, _ = url.ParseRequestURI(strings.TrimSuffix(h.upstream.EscapedPath(), "/") + escaped(target)) // guard.ValidTarget let it through, so it parses
	f.url.Scheme, f.url.Host = h.upstream.Scheme, h.upstream.Host
	header["X-Forwarded-Host"] = []string{host}
	header["X-Forwarded-Proto"] = []string{h.scheme}
	header["Via"] = append(via, "1.1 optimizer") // RFC 9110 §7.6.3
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = nil // keeps net/http from adding its own
	}
	return f
}

// escaped is the target with those bytes of its path escaped that net/url would escape:
// once it has to, it does so from the unescaped path, and %2F would have become a slash.
func escaped(target string) string {
	path, query, asks := strings.Cut(target, "?")
	odd := func(r rune) bool { return r >= 0x80 || strings.ContainsRune("\"<>\\^`{|}", r) }
	if !strings.ContainsFunc(path, odd) {
		return target
	}
	var b strings.Builder
	for _, c := range []byte(path) {
		if odd(rune(c)) {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	if asks {
		b.WriteString("?" + query)
	}
	return b.String()
}

func conditional(name string) bool {
	return name == "Range" || strings.HasPrefix(name, "If-")
}

// says reports whether a line of the request's field isn't empty (RFC 9110 §5.6.1.2).
func (x *exchange) says(name string) bool {
	for _, line := range x.ctx.Request.Header.PeekAll(name) {
		if len(line) > 0 {
			return true
		}
	}
	return false
}

// readDirectives reads the request's Cache-Control, where there is one.
func (x *exchange) readDirectives() {
	if !x.says("Cache-Control") && !x.says("Pragma") {
		return
	}
	request := &x.ctx.Request.Header
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
		var lines [][]byte
		if x.rules.forwards(name) {
			lines = x.lines(name)
		}
		dst = httpcache.AppendSelecting(dst, name, lines)
	}
	return dst
}

// lines are the request's lines of the field, as they go up.
func (x *exchange) lines(name string) [][]byte {
	if s, ok := x.ctx.Conn().(*stream); ok {
		return s.lines(name)
	}
	return x.ctx.Request.Header.PeekAll(name)
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
