package optimizer

import (
	"bytes"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"phasegate/optimizer/arena"
	"phasegate/optimizer/eventloop"
	"phasegate/optimizer/guard"
	"phasegate/optimizer/httpcache"
	"phasegate/optimizer/telemetry"
)

// fastPath answers plain hits where they are read, in the event loop. It is the one
// shortcut there is: a GET or HEAD of HTTP/1.1 without a body, conditions, ranges or
// wishes, whose answer is stored, fresh, not due for renewal, and small. All that a
// hit has to do then is to find the fields of the request, find the response, compute
// its age and write it down; three quarters of the rest of its cost is in the kernel.
//
// Whatever isn't so plain it leaves to handler.serve, before anything was changed or
// counted. What it does answer is byte for byte what handler.serve would have answered,
// the order of the fields included; a test holds the two against each other. So this
// file adds no rule of its own, and a rule that is added to handler.go's way to a hit
// is either repeated here or makes the request one that is left.
//
// A fastPath belongs to one thread.
type fastPath struct {
	h      *handler
	key    []byte
	fields []field  // of the request, without Host
	names  []string // that the response varies by; valid while it is held
	values [][]byte
	client [16]byte
}

func (h *handler) newFastPath() eventloop.Reply {
	return (&fastPath{h: h, fields: make([]field, 0, 48)}).reply
}

type field struct{ name, value []byte }

// maxFast is the largest body that is answered here: it is copied, and what a slow
// client doesn't take stays in memory without counting as the cache's.
const maxFast = 64 << 10

// reply is an eventloop.Reply.
func (p *fastPath) reply(out, head []byte, from *eventloop.Conn) ([]byte, bool) {
	host, target, isHead, ok := p.read(head)
	if !ok || len(head) > int(p.h.guard.MaxHeaderSize) {
		return out, false
	}
	a := asked{host: host, target: target, isHead: isHead, from: from, protocol: "HTTP/1.1", now: time.Now()}
	var o object
	if !p.ready(&a, &o) {
		return out, false
	}
	defer o.entry.Release()
	answer, ok := appendHit(out, &o, isHead, a.now)
	if !ok || !p.allowed(&a) {
		return out, false
	}
	p.answered(&a, &o)
	return answer, true
}

// asked is a plain request; its fields are in the path.
type asked struct {
	host, target []byte
	isHead       bool
	from         interface{ Client() netip.Addr }
	protocol     string
	now          time.Time
	rules        *rules // those in force
}

// ready holds the response that answers the request at once, and makes o its view.
func (p *fastPath) ready(a *asked, o *object) bool {
	rules := p.h.rules.Load()
	a.rules = rules
	if bytes.HasSuffix(a.host, []byte(p.h.port)) || rules.query.on() && bytes.IndexByte(a.target, '?') >= 0 {
		return false
	}
	if !guard.ValidHost(a.host) || !guard.ValidTarget(a.target) || len(a.target) > int(rules.maxURILength) {
		return false
	}
	p.key = append(appendLower(p.key[:0], a.host), a.target...)
	e, ok := p.find(rules)
	if !ok {
		return false
	}
	*o = view(e)
	if o.kind != stored || len(o.body) > maxFast || a.isHead && len(o.body) == 0 || o.fresh.Decide(&noDirectives, a.now) != httpcache.Fresh ||
		rules.refreshAhead > 0 && a.now.UnixNano() >= o.refreshAt.Load() && o.hot.Load() { // due for renewal, which needs the whole request
		e.Release()
		return false
	}
	return true
}

// allowed asks the limiter, if there is one. That is the last thing: what isn't answered
// here is asked again on its way.
func (p *fastPath) allowed(a *asked) bool {
	if a.rules.limiter == nil {
		return true
	}
	allowed, _ := a.rules.limiter.Allow(p.address(a.from.Client()), a.now)
	return allowed
}

// answered counts and logs the answer. It isn't counted among the requests in flight: it
// never is while somebody looks.
func (p *fastPath) answered(a *asked, o *object) {
	if !o.hot.Load() {
		o.hot.Store(true)
	}
	took, status := time.Since(a.now), int(o.status)
	p.h.metrics.Answered(telemetry.Hit, status, took)
	if access := a.rules.access; access.Enabled() {
		line := telemetry.Access{
			Begun: a.now, Client: a.from.Client().String(), Method: http.MethodGet, Host: string(a.host), Target: string(a.target),
			Protocol: a.protocol, Referer: p.field("referer"), Agent: p.field("user-agent"),
			Status: status, Size: int64(len(o.body)), Result: telemetry.Hit, Took: took,
		}
		if a.isHead {
			line.Method, line.Size = http.MethodHead, 0
		}
		access.Write(line)
	}
}

// field is the value of the request's field with this lower-case name, for the access
// log. If it is repeated, fasthttp has the first one, but the last User-Agent.
func (p *fastPath) field(name string) (value string) {
	for _, f := range p.fields {
		if equalFold(f.name, name) {
			if value = string(f.value); name != "user-agent" {
				break
			}
		}
	}
	return value
}

// address is the client's as exchange.address has it.
func (p *fastPath) address(client netip.Addr) []byte {
	if client.Is4() {
		four := client.As4()
		return p.client[:copy(p.client[:], four[:])]
	}
	p.client = client.As16()
	return p.client[:]
}

var noDirectives = httpcache.NoRequestDirectives

// find holds what is stored for the request.
func (p *fastPath) find(rules *rules) (arena.Entry, bool) {
	e, ok := p.h.store.cache.Get(p.key)
	if !ok {
		return e, false
	}
	o := view(e)
	if o.kind != varying {
		return e, true
	}
	defer e.Release()
	p.key = appendVariant(p.key, o.id)
	p.names = o.selectingFields(p.names[:0])
	for _, name := range p.names {
		switch name {
		case "User-Agent", "Content-Type", "Cookie", "Trailer": // the other path keeps these in a way of its own
			return arena.Entry{}, false
		}
		p.values = p.values[:0]
		for _, f := range p.fields {
			if rules.forwards(name) && len(f.name) == len(name) && bytes.EqualFold(f.name, []byte(name)) {
				p.values = append(p.values, f.value)
			}
		}
		p.key = httpcache.AppendSelecting(p.key, name, p.values)
	}
	return p.h.store.cache.Get(p.key)
}

// read splits a plain request into its parts. It accepts fewer requests than are valid,
// and none that isn't: names of token characters, no white space before a colon, no
// folded line, no control character, one Host, CRLF only.
func (p *fastPath) read(head []byte) (host, target []byte, isHead, ok bool) {
	switch {
	case bytes.HasPrefix(head, []byte("GET ")):
		target = head[4:]
	case bytes.HasPrefix(head, []byte("HEAD ")):
		target, isHead = head[5:], true
	default:
		return nil, nil, false, false
	}
	const version = " HTTP/1.1\r\n"
	end := bytes.IndexByte(target, ' ')
	if end < 0 || !bytes.HasPrefix(target[end:], []byte(version)) {
		return nil, nil, false, false
	}
	rest := target[end+len(version):]
	target = target[:end]
	p.fields = p.fields[:0]
	for len(rest) > 2 { // the empty line
		colon := 0
		for colon < len(rest) && guard.IsToken(rest[colon]) {
			colon++
		}
		if colon == 0 || colon == len(rest) || rest[colon] != ':' {
			return nil, nil, false, false
		}
		name, value := rest[:colon], rest[colon+1:]
		end := 0
		for end < len(value) && (value[end] >= ' ' && value[end] != 0x7f || value[end] == '\t') {
			end++
		}
		if end+1 >= len(value) || value[end] != '\r' || value[end+1] != '\n' {
			return nil, nil, false, false
		}
		rest = value[end+2:]
		value = bytes.Trim(value[:end], " \t")
		if len(name) == len("Host") && equalFold(name, "host") {
			if host != nil {
				return nil, nil, false, false
			}
			host = value
			continue
		}
		if !harmless(name, value) || len(p.fields) == cap(p.fields) {
			return nil, nil, false, false
		}
		p.fields = append(p.fields, field{name, value})
	}
	return host, target, isHead, len(host) > 0
}

// harmless reports whether a field has no say in how a hit is answered, apart from
// selecting a variant.
func harmless(name, value []byte) bool {
	switch name[0] | 0x20 {
	case 'c':
		switch {
		case equalFold(name, "connection"):
			return equalFold(value, "keep-alive")
		case equalFold(name, "cache-control"), equalFold(name, "content-length"):
			return false
		}
	case 'e':
		return !equalFold(name, "expect")
	case 'h':
		return !equalFold(name, "http2-settings")
	case 'i':
		return len(name) < 3 || !equalFold(name[:3], "if-")
	case 'p':
		return !equalFold(name, "pragma")
	case 'r':
		return !equalFold(name, "range")
	case 't':
		return !equalFold(name, "transfer-encoding") && !equalFold(name, "trailer")
	case 'u':
		return !equalFold(name, "upgrade")
	}
	return true
}

// equalFold compares with a lower-case ASCII string.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// appendHit writes a response as fasthttp would have written what exchange.respond
// makes of it: Server, Content-Type, Content-Encoding and Content-Length stand first,
// cookies last.
func appendHit(out []byte, o *object, isHead bool, now time.Time) ([]byte, bool) {
	if o.status == http.StatusOK {
		out = append(out, "HTTP/1.1 200 OK\r\n"...)
	} else {
		if o.status < 200 || o.status == http.StatusNoContent {
			return out, false
		}
		out = append(strconv.AppendInt(append(out, "HTTP/1.1 "...), int64(o.status), 10), ' ')
		out = append(append(out, fasthttp.StatusMessage(int(o.status))...), "\r\n"...)
	}
	var server, contentType, encoding field
	cookies := false
	for rest := o.head; len(rest) > 0; {
		var name, value []byte
		name, value, rest = next(rest)
		var special *field
		switch string(name) {
		case "Server":
			special = &server
		case "Content-Type":
			special = &contentType
		case "Content-Encoding":
			special = &encoding
		case "Set-Cookie":
			cookies = true
			continue
		case "Connection", "Trailer", "Transfer-Encoding":
			return out, false
		default:
			continue
		}
		if special.name != nil || len(value) == 0 {
			return out, false // repeated or empty
		}
		*special = field{name, value}
	}
	for _, f := range [...]*field{&server, &contentType, &encoding} {
		if f.name != nil {
			out = appendField(out, f.name, f.value)
		}
	}
	out = append(out, "Content-Length: "...)
	out = append(strconv.AppendInt(out, int64(len(o.body)), 10), "\r\n"...)
	for rest := o.head; len(rest) > 0; {
		var name, value []byte
		name, value, rest = next(rest)
		switch string(name) {
		case "Server", "Content-Type", "Content-Encoding", "Set-Cookie":
		default:
			out = appendField(out, name, value)
		}
	}
	out = append(out, "Age: "...)
	out = strconv.AppendInt(out, int64(o.fresh.Age(now)/time.Second), 10)
	out = append(out, "\r\nCache-Status: optimizer; hit\r\n"...)
	for rest := o.head; cookies && len(rest) > 0; {
		var name, value []byte
		name, value, rest = next(rest)
		if string(name) == "Set-Cookie" {
			out = appendField(out, name, value)
		}
	}
	out = append(out, "\r\n"...)
	if !isHead {
		out = append(out, o.body...)
	}
	return out, true
}

func appendField(out, name, value []byte) []byte {
	out = append(append(out, name...), ": "...)
	return append(append(out, value...), "\r\n"...)
}
