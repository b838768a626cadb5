package httpcache

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// Vary lists the request fields that select the response, canonical, sorted and
// each once. storable is false when no later request could be known to match:
// "*" or a malformed member (§4.1), or a field that a proxy rewrites, so that
// what the upstream saw isn't what clients send.
func Vary(h http.Header) (fields []string, storable bool) {
	for _, line := range h["Vary"] {
		for member := range strings.SplitSeq(line, ",") {
			name := strings.Trim(member, " \t")
			if name == "" {
				continue
			}
			for i := range len(name) {
				if !isTokenByte(name[i]) {
					return nil, false
				}
			}
			name = textproto.CanonicalMIMEHeaderKey(name)
			if name == "*" || Rewritten(name) || slices.Contains(hopByHop, name) {
				return nil, false
			}
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields), true
}

// Rewritten reports whether a proxy sets or removes the request field, in
// canonical form, on the way to the upstream: it can't be varied on.
func Rewritten(name string) bool {
	switch name {
	case "Content-Length", "Expect", "Forwarded", "Host", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range",
		"If-Unmodified-Since", "Range", "Via", "X-Real-Ip",
		// Fields that frameworks let override the request line: never wanted from a client.
		"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-")
}

// AppendSelecting appends one selecting field of a request to a variant key.
// Values that differ only in white space around the commas of a list, or in case where
// the field's own definition ignores it, give the same bytes (§4.1), but not where that
// space may be a part of the value: in quotes, or in a cookie. An absent field gives other
// bytes than an empty one. Field values hold no NUL or SOH, so that keys of different
// requests can't collide.
func AppendSelecting[T ~string | ~[]byte](dst []byte, field string, values []T) []byte {
	const end, absent = 0x00, 0x01
	if len(values) == 0 {
		return append(dst, absent, end)
	}
	fold := field == "Accept" || field == "Accept-Encoding" || field == "Accept-Language"
	isSpace := func(c byte) bool { return c == ' ' || c == '\t' }
	for i, value := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		exact := field == "Cookie"
		for j := range len(value) {
			exact = exact || value[j] == '"'
		}
		if exact {
			dst = append(dst, value...)
			continue
		}
		begin := len(dst)
		trim := func() {
			for len(dst) > begin && isSpace(dst[len(dst)-1]) {
				dst = dst[:len(dst)-1]
			}
		}
		for j := range len(value) {
			c := value[j]
			switch {
			case isSpace(c) && (len(dst) == begin || dst[len(dst)-1] == ','):
				continue
			case c == ',':
				trim()
			case fold && 'A' <= c && c <= 'Z':
				c += 'a' - 'A'
			}
			dst = append(dst, c)
		}
		trim()
	}
	return append(dst, end)
}
