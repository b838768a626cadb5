package optimizer

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/valyala/fasthttp"

	"phasegate/optimizer/eventloop"
	"phasegate/optimizer/guard"
	"phasegate/optimizer/http2"
	"phasegate/optimizer/telemetry"
)

// HTTP2 sets what a client may do on one connection of HTTP/2. The size of a request's
// header fields is bounded by guard.max_header_size, as over HTTP/1.1.
type HTTP2 struct {
	MaxConcurrentStreams int `yaml:"max_concurrent_streams" help:"requests under way on one connection of HTTP/2; default 128"`
}

// newHTTP2 makes the engine for HTTP/2.
func (o *Optimizer) newHTTP2() *http2.Server {
	return http2.New(http2.Config{
		Replier: o.handler.newStreamPath, Serve: o.handler.serveStream,
		MaxUnsent:  int64(float64(o.cfg.Cache.MaxMemoryMB) * 1e6 * unsentShare),
		MaxKept:    int64(float64(o.cfg.Cache.MaxMemoryMB) * 1e6 * keptShare),
		MaxPending: int64(float64(o.cfg.CacheBytes()) * pendingShare),
		MaxStreams: o.cfg.HTTP2.MaxConcurrentStreams, MaxHeader: int(o.cfg.Guard.MaxHeaderSize),
		Idle: o.cfg.Guard.IdleTimeout, Read: o.cfg.Guard.ReadTimeout, Write: o.cfg.Guard.WriteTimeout,
	})
}

// beginsHTTP2 looks at a connection's first bytes for what a client begins with that
// knows that we speak HTTP/2 (RFC 9113 §3.4). Whatever else they are is for the other
// engine.
func (o *Optimizer) beginsHTTP2(conn *eventloop.Conn) bool {
	if !conn.First() {
		return false
	}
	_ = conn.SetReadDeadline(time.Now().Add(o.cfg.Guard.ReadTimeout))
	defer conn.SetReadDeadline(time.Time{})
	for n := 1; n <= len(http2.Preface); n++ {
		if begin, err := conn.Peek(n); err != nil || string(begin) != http2.Preface[:n] {
			return false
		}
	}
	return true
}

// newStreamPath is the fast path for one connection of HTTP/2: what fastPath is for a
// thread of the event loop, with the same rules.
func (h *handler) newStreamPath() http2.Reply {
	return (&fastPath{h: h, fields: make([]field, 0, 48)}).replyStream
}

// peer is a client of HTTP/2.
type peer struct{ net.Addr }

// Client is the client's address.
func (p peer) Client() netip.Addr {
	if addr, ok := p.Addr.(*net.TCPAddr); ok {
		return addr.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// replyStream is an http2.Reply.
func (p *fastPath) replyStream(out []byte, r *http2.Request, room int) (answer []byte, sent int, ok bool) {
	a := asked{isHead: r.Method == http.MethodHead, protocol: protocolHTTP2, now: time.Now()}
	if !a.isHead && r.Method != http.MethodGet || r.Length != 0 || p.h.leaving.Load() {
		return out, 0, false
	}
	p.fields = p.fields[:0]
	for i := range r.Fields {
		name, value := bytesOf(r.Fields[i].Name), bytesOf(r.Fields[i].Value)
		if string(name) == "host" {
			continue
		}
		if !harmless(name, value) || len(p.fields) == cap(p.fields) {
			return out, 0, false
		}
		p.fields = append(p.fields, field{name, value})
	}
	a.host, a.target, a.from = bytesOf(r.Authority), bytesOf(r.Path), peer{r.Client}
	var o object
	if !p.ready(&a, &o) {
		return out, 0, false
	}
	defer o.entry.Release()
	if answer, sent, ok = appendStreamHit(out, r, &o, a.isHead, room, a.now); !ok || !p.allowed(&a) {
		return out, 0, false
	}
	p.h.metrics.HTTP2.Inc()
	p.answered(&a, &o)
	return answer, sent, true
}

// bytesOf is a string's bytes, which mustn't be changed.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// appendStreamHit writes a response as frames; sent is how much of them is body. Those
// that fasthttp would change are left to the other path, as in appendHit.
func appendStreamHit(out []byte, r *http2.Request, o *object, isHead bool, room int, now time.Time) (answer []byte, sent int, ok bool) {
	body := o.body
	if !isHead {
		if sent = len(body); sent > room {
			return out, 0, false
		}
	}
	if o.status < 200 || !hasContent(int(o.status)) {
		return out, 0, false
	}
	at := len(out)
	answer = http2.AppendStatus(r.BeginHeaders(out), int(o.status))
	var number [20]byte
	answer = http2.AppendField(answer, fieldContentLength, strconv.AppendInt(number[:0], int64(len(body)), 10))
	var server, contentType, encoding bool
	for rest := o.head; len(rest) > 0; {
		var name, value []byte
		name, value, rest = next(rest)
		var special *bool
		switch string(name) {
		case "Server":
			special = &server
		case "Content-Type":
			special = &contentType
		case "Content-Encoding":
			special = &encoding
		case "Connection", "Trailer", "Transfer-Encoding":
			return out, 0, false
		}
		if special != nil {
			if *special || len(value) == 0 {
				return out, 0, false // repeated or empty
			}
			*special = true
		}
		answer = http2.AppendField(answer, name, value)
	}
	answer = http2.AppendField(answer, fieldAge, strconv.AppendInt(number[:0], int64(o.fresh.Age(now)/time.Second), 10))
	answer = http2.AppendField(answer, fieldCacheStatus, statusHit)
	if len(answer)-at > http2.MaxData {
		return out, 0, false
	}
	answer = http2.EndHeaders(answer, at, r.Stream, sent == 0)
	for left := body[:sent]; len(left) > 0; {
		part := left[:min(len(left), http2.MaxData)]
		left = left[len(part):]
		answer = http2.AppendData(answer, r.Stream, part, len(left) == 0)
	}
	return answer, sent, true
}

var (
	fieldContentLength = []byte("Content-Length")
	fieldAge           = []byte("Age")
	fieldCacheStatus   = []byte("Cache-Status")
	statusHit          = []byte("optimizer; hit")
)

const protocolHTTP2 = "HTTP/2.0"

// stream is one request of HTTP/2 on its way through the handler, which takes it for a
// connection; it is pooled. The handler works on fasthttp's request and response, so
// they are filled in, and the answer is taken out of them.
type stream struct {
	net.Conn // none: nothing but what is below is asked of it
	sending
	s      *http2.Stream
	header http.Header // the request's
	ctx    fasthttp.RequestCtx
	block  []byte
	values [][]byte // of lines
}

// RemoteAddr is the client's address.
func (s *stream) RemoteAddr() net.Addr { return s.s.Client }

// SetReadDeadline bounds the reading of the request's body.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.s.SetReadDeadline(t)
	return nil
}

var streams = sync.Pool{New: func() any { return new(stream) }}

// serveStream answers one request of HTTP/2.
func (h *handler) serveStream(to *http2.Stream) {
	h.metrics.HTTP2.Inc()
	s := streams.Get().(*stream)
	s.s = to
	s.ctx.Init2(s, nil, false)
	s.ctx.Response.Header.SetNoDefaultContentType(true)
	switch {
	case to.TooLong:
		x := exchange{ctx: &s.ctx, now: time.Now()}
		h.unread(&x, http.StatusRequestHeaderFieldsTooLarge, telemetry.Access{Method: to.Method, Host: to.Authority, Target: to.Path, Protocol: protocolHTTP2})
	default:
		s.fill(h)
		h.serve(&s.ctx)
	}
	s.answer()
	s.answered()
	s.ctx.Request.Reset()
	s.ctx.Response.Reset()
	s.s, s.header = nil, nil
	clear(s.values)
	streams.Put(s)
}

// fill makes fasthttp's request of the stream's.
func (s *stream) fill(h *handler) {
	s.header = make(http.Header, len(s.s.Fields))
	for _, f := range s.s.Fields {
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		if before := s.header[name]; name == "Cookie" && len(before) > 0 {
			before[0] += "; " + f.Value // what HTTP/2 lets a client split (RFC 9113 §8.2.3)
			continue
		}
		s.header[name] = append(s.header[name], f.Value)
	}
	delete(s.header, "Host")
	delete(s.header, "Content-Length")
	request := &s.ctx.Request.Header
	request.SetMethod(s.s.Method)
	request.SetProtocol(protocolHTTP2)
	request.SetHost(s.s.Authority)
	switch {
	case s.s.Method == http.MethodConnect:
		request.SetRequestURI(s.s.Authority)
	case guard.ValidToken(s.s.Method):
		request.SetRequestURI(s.s.Path)
	default:
		request.SetRequestURI(" ") // is refused
	}
	for name, lines := range s.header {
		if name == "Trailer" { // announces what nobody reads
			continue
		}
		for _, line := range lines {
			request.Add(name, line)
		}
	}
	if s.s.Length != 0 {
		s.ctx.Request.SetBodyStream(s.s, int(s.s.Length))
		s.s.SetReadDeadline(time.Now().Add(h.guard.ReadTimeout))
		if strings.EqualFold(s.header.Get("Expect"), "100-continue") {
			s.interim(http.StatusContinue, nil) // RFC 9110 §10.1.1
		}
	}
}

// fields are the request's, for the upstream, which may change them.
func (s *stream) fields() http.Header { return s.header.Clone() }

// lines are the request's lines of the field; valid until the next call.
func (s *stream) lines(name string) [][]byte {
	s.values = s.values[:0]
	for _, line := range s.header[name] {
		s.values = append(s.values, bytesOf(line))
	}
	return s.values
}

// interim sends an interim response.
func (s *stream) interim(status int, header http.Header) {
	block := http2.AppendStatus(nil, status)
	for name, lines := range header {
		for _, line := range lines {
			block = http2.AppendField(block, bytesOf(name), bytesOf(line))
		}
	}
	_ = s.s.Header(block, false) // who has gone gets no answer either
}

// answer sends the response that the handler has made. If the client doesn't get all of
// it, the engine resets the stream.
func (s *stream) answer() {
	resp := &s.ctx.Response
	defer resp.CloseBodyStream()
	status, body, from := resp.StatusCode(), []byte(nil), resp.BodyStream()
	length := resp.Header.ContentLength()
	none := s.s.Method == http.MethodHead || !hasContent(status)
	if from == nil {
		if body = resp.Body(); len(body) > 0 || !none {
			length = len(body)
		} else if length == 0 { // not said
			length = -1
		}
	}
	s.block = http2.AppendStatus(s.block[:0], status)
	if length >= 0 {
		var digits [20]byte
		s.block = http2.AppendField(s.block, fieldContentLength, strconv.AppendInt(digits[:0], int64(length), 10))
	}
	for name, value := range resp.Header.All() {
		switch string(name) {
		case "Connection", "Content-Length", "Trailer", "Transfer-Encoding":
		default:
			s.block = http2.AppendField(s.block, name, value)
		}
	}
	none = none || length == 0
	switch err := s.s.Header(s.block, none); {
	case err != nil || none:
	case from == nil:
		_ = s.s.Send(body, true)
	default:
		s.send(from, length)
	}
}

// hasContent reports whether a response with this status may have a body (RFC 9110 §6.4.1).
func hasContent(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// pieces are the buffers that answers pass through on their way from the upstream.
var pieces = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// send sends a body of so many bytes, -1: until its end, as it comes.
func (s *stream) send(from io.Reader, length int) {
	piece := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(piece)
	for {
		n, err := from.Read(piece[:])
		length -= max(0, min(n, length))
		if err != nil && (err != io.EOF || length > 0) {
			return // it isn't whole
		}
		if n == 0 && err == nil {
			continue
		}
		if s.s.Send(piece[:n], err == io.EOF) != nil || err == io.EOF {
			return
		}
	}
}

// gone is the context that ends with the client's interest, or nil where the engine
// can't tell.
func (x *exchange) gone() context.Context {
	if s, ok := x.ctx.Conn().(*stream); ok {
		return s.s.Context
	}
	return nil
}
