package optimizer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"phasegate/optimizer/arena"
	"phasegate/optimizer/httpcache"
	"phasegate/optimizer/telemetry"
	"phasegate/optimizer/upstream"
)

// respond answers with a stored response: the whole of it, a part, or the news
// that the client's copy is still good. cacheStatus is the whole field (RFC 9211).
func (x *exchange) respond(o *object, cacheStatus string, age bool, result telemetry.Result) telemetry.Result {
	request, resp := &x.ctx.Request.Header, &x.ctx.Response
	status, body := int(o.status), o.body
	if status == http.StatusOK {
		if len(x.lines("If-None-Match"))+len(request.Peek("If-Modified-Since")) > 0 && x.conditions(o).NotModified() {
			status, body = http.StatusNotModified, nil
		} else if spec := request.Peek("Range"); len(spec) > 0 && !x.head {
			status, body = x.part(o, string(spec))
		}
	}
	resp.SetStatusCode(status)
	for rest := o.head; len(rest) > 0; {
		var name, value []byte
		name, value, rest = next(rest)
		switch {
		case string(name) == "Date":
			setDate(&resp.Header, value)
			continue
		case status == http.StatusNotModified && describesBody(name), status == http.StatusRequestedRangeNotSatisfiable && describesWhole(name):
			continue
		}
		resp.Header.AddBytesKV(name, value)
	}
	if age {
		x.scratch = strconv.AppendInt(x.scratch[:0], int64(o.fresh.Age(x.now)/time.Second), 10)
		resp.Header.SetBytesV("Age", x.scratch)
	}
	resp.Header.Add("Cache-Status", cacheStatus)
	x.deliver(o, body)
	return result
}

// deliver makes a part of the stored body the answer's. It is sent from where it lies,
// and held until the connection says that it was; where there is none that could say
// so, it is copied.
func (x *exchange) deliver(o *object, body []byte) {
	conn, ok := x.ctx.Conn().(interface{ hold(arena.Entry) })
	if !ok || len(body) == 0 {
		x.ctx.Response.SetBody(body)
		return
	}
	conn.hold(o.entry)
	x.ctx.Response.SetBodyRaw(body)
}

// conditions collects the validators of both sides.
func (x *exchange) conditions(o *object) httpcache.Conditions {
	request := &x.ctx.Request.Header
	c := httpcache.Conditions{
		IfNoneMatch: string(bytes.Join(x.lines("If-None-Match"), []byte(", "))), IfRange: string(request.Peek("If-Range")),
		Etag: string(o.field("Etag")), LastModified: string(o.field("Last-Modified")), Date: string(o.field("Date")),
	}
	if len(x.lines("If-None-Match")) == 0 {
		c.IfModifiedSince = string(request.Peek("If-Modified-Since"))
	}
	return c
}

// describesBody lists the fields that a 304 has no use for (RFC 9110 §15.4.5).
func describesBody(name []byte) bool {
	switch string(name) {
	case "Content-Type", "Content-Encoding", "Content-Language", "Content-Range", "Content-Md5":
		return true
	}
	return false
}

// describesWhole lists the fields of the stored response that a 416 for a part of it
// must not have: some cache might keep that for the whole.
func describesWhole(name []byte) bool {
	switch string(name) {
	case "Cache-Control", "Cdn-Cache-Control", "Expires", "Etag", "Last-Modified":
		return true
	}
	return describesBody(name)
}

// part selects what Range asks for of the stored body, and names it in the response.
func (x *exchange) part(o *object, spec string) (status int, body []byte) {
	body = o.body
	size := int64(len(body))
	kind, first, last := x.conditions(o).Range(spec, size)
	whole := "/" + strconv.FormatInt(size, 10)
	switch kind {
	case httpcache.OneRange:
		x.ctx.Response.Header.Set("Content-Range", "bytes "+strconv.FormatInt(first, 10)+"-"+strconv.FormatInt(last, 10)+whole)
		return http.StatusPartialContent, body[first : last+1]
	case httpcache.Unsatisfiable:
		x.ctx.Response.Header.Set("Content-Range", "bytes *"+whole)
		return http.StatusRequestedRangeNotSatisfiable, nil
	}
	return int(o.status), body
}

// respondStale answers with a response beyond its lifetime; how says whether the
// upstream was asked first. Without that it is a hit, and the negative ttl says how
// stale it is.
func (x *exchange) respondStale(o *object, how string) telemetry.Result {
	if how == "" {
		ttl := (o.fresh.Lifetime - o.fresh.Age(x.now)) / time.Second
		how = "; hit; ttl=" + strconv.FormatInt(int64(ttl), 10)
	}
	return x.respond(o, "optimizer"+how, true, telemetry.Stale)
}

// passOn answers with the upstream's response as it arrives, or says why there is none.
func (h *handler) passOn(x *exchange, out outcome, forward string, result telemetry.Result) telemetry.Result {
	if out.err != nil {
		status, retryAfter := gatewayStatus(out.err)
		if retryAfter > 0 {
			x.retryAfter(retryAfter)
		}
		if !errors.Is(out.err, upstream.ErrRequestBody) {
			h.complaints.Do(func() {
				h.logger.Warn("no answer from upstream; of more in the same second nothing is said", "target", string(x.target), "status", status, "error", out.err)
			})
		}
		return x.refused(status, forward)
	}
	resp, from := &x.ctx.Response, out.stream
	out.body.streamed = true
	empty := x.ctx.IsHead() || from.ContentLength == 0 || from.StatusCode == http.StatusNoContent || from.StatusCode == http.StatusNotModified
	var whole []byte
	if !empty && 0 < from.ContentLength && from.ContentLength <= smallAnswer {
		var err error
		if whole, err = h.readSmall(from); err != nil {
			out.close()
			return h.passOn(x, outcome{err: err}, forward, result)
		}
	}
	resp.SetStatusCode(from.StatusCode)
	setDate(&resp.Header, []byte(from.Header.Get("Date")))
	for name, lines := range from.Header {
		if name == "Date" || name == "Content-Length" {
			continue
		}
		for _, line := range lines {
			resp.Header.Add(name, line)
		}
	}
	cacheStatus := "optimizer" + forward
	if from.StatusCode != http.StatusOK {
		cacheStatus += "; fwd-status=" + strconv.Itoa(from.StatusCode)
	}
	resp.Header.Add("Cache-Status", cacheStatus)
	switch {
	case empty:
		if from.ContentLength >= 0 {
			resp.Header.SetContentLength(int(from.ContentLength))
		}
		out.close()
		return result
	case whole != nil:
		resp.SetBodyRaw(whole)
		out.close()
		return result
	}
	if conn, ok := x.ctx.Conn().(*clientConn); ok {
		conn.pieces = true
	}
	if from.ContentLength < 0 && string(x.ctx.Request.Header.Protocol()) == "HTTP/1.0" {
		x.streamToClose(from.Body)
		return result
	}
	resp.SetBodyStream(from.Body, int(from.ContentLength))
	return result
}

// streamToClose passes a body of unknown length on to a client of HTTP/1.0, which knows
// no chunks: it ends with the connection (RFC 9112 §6.1, §6.3).
func (x *exchange) streamToClose(body io.ReadCloser) {
	header := &x.ctx.Response.Header
	header.SetConnectionClose()
	head := bytes.Clone(header.Header())
	x.ctx.HijackSetNoResponse(true)
	x.ctx.Hijack(func(conn net.Conn) {
		defer body.Close()
		if _, err := conn.Write(head); err == nil {
			_, _ = io.Copy(conn, body) // cut off is cut off, here as there
		}
	})
}

// smallAnswer is the longest body whose begin fasthttp keeps back with the header. If the
// upstream stops in such a one, the client would see a connection that ends without a word.
const smallAnswer = 8 << 10

// readSmall reads the body of a short answer that isn't stored; nil if there is no room.
func (h *handler) readSmall(from *http.Response) ([]byte, error) {
	room := room{used: &h.buffered, limit: h.maxBuffered}
	defer room.free()
	if !room.take(from.ContentLength) {
		return nil, nil
	}
	whole := make([]byte, from.ContentLength)
	if _, err := io.ReadFull(from.Body, whole); err != nil {
		if !errors.Is(err, upstream.ErrRequestBody) {
			h.metrics.UpstreamErrors.Inc()
		}
		return nil, fmt.Errorf("read the upstream's answer: %w", err)
	}
	return whole, nil
}

// refused answers without cache or upstream.
func (x *exchange) refused(status int, forward string) telemetry.Result {
	header := &x.ctx.Response.Header
	x.ctx.Response.SetStatusCode(status)
	setDate(header, fasthttp.AppendHTTPDate(nil, x.now))
	header.SetContentType("text/plain; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Add("Cache-Status", "optimizer"+forward)
	if status == http.StatusMethodNotAllowed {
		header.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS") // RFC 9110 §15.5.6; those that go up
	}
	x.ctx.Response.SetBodyString(strconv.Itoa(status) + " " + http.StatusText(status) + "\n")
	return telemetry.Refused
}

// retryAfter names a wait in whole seconds, rounded up (RFC 9110 §10.2.3).
func (x *exchange) retryAfter(wait time.Duration) {
	seconds := (wait + time.Second - 1) / time.Second
	x.ctx.Response.Header.Set("Retry-After", strconv.FormatInt(int64(max(1, seconds)), 10))
}

// datePlaceholder is as long as "Date".
const datePlaceholder = "Pate"

// setDate sets Date. fasthttp ignores that field in every setter, because it would
// send its own; a cache has to pass on the origin's (RFC 9110 §6.6.1). So the field is
// added under another name, whose first letter is then corrected where it stands.
func setDate(h *fasthttp.ResponseHeader, date []byte) {
	h.SetBytesV(datePlaceholder, date)
	for name := range h.All() {
		if string(name) == datePlaceholder {
			name[0] = 'D'
			return
		}
	}
}

// unsent reports whether nothing went up at all: the breaker is open, or every
// connection in use.
func unsent(err error) bool {
	return errors.As(err, new(*upstream.OpenError)) || errors.As(err, new(*upstream.BusyError))
}

// gatewayStatus is the answer to a client when the upstream gave none.
func gatewayStatus(err error) (status int, retryAfter time.Duration) {
	var open *upstream.OpenError
	var busy *upstream.BusyError
	var network net.Error // net/http has timeouts of its own, which may be the first
	switch {
	case errors.As(err, &open):
		return http.StatusServiceUnavailable, open.RetryAfter
	case errors.As(err, &busy):
		return http.StatusServiceUnavailable, busy.RetryAfter
	case errors.Is(err, upstream.ErrRequestBody):
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return http.StatusRequestTimeout, 0
		}
		return http.StatusBadRequest, 0
	case errors.Is(err, upstream.ErrRequestHeaderTooLong):
		return http.StatusRequestHeaderFieldsTooLarge, 0
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return http.StatusGatewayTimeout, 0
	}
	return http.StatusBadGateway, 0
}
