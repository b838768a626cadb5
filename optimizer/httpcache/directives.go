package httpcache

import (
	"math"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// Absent marks a directive that carries a duration and wasn't there.
const Absent time.Duration = -1

// maxDelta is the value of a delta-seconds that is too large to represent
// (RFC 9111 §1.2.2 suggests 2^31 seconds).
const maxDelta = (1 << 31) * time.Second

// RequestDirectives is the Cache-Control of a request (RFC 9111 §5.2.1).
// Durations are Absent where the directive is missing.
type RequestDirectives struct {
	NoCache, NoStore, OnlyIfCached           bool
	MaxAge, MinFresh, MaxStale, StaleIfError time.Duration // MaxStale without a value: the longest duration
}

// NoRequestDirectives is what a request without Cache-Control asks for.
var NoRequestDirectives = RequestDirectives{MaxAge: Absent, MinFresh: Absent, MaxStale: Absent, StaleIfError: Absent}

// ResponseDirectives is the Cache-Control of a response (RFC 9111 §5.2.2,
// RFC 5861). Durations are Absent where the directive is missing, and 0 where
// its value is invalid or contradicts itself.
type ResponseDirectives struct {
	NoCache, NoStore, Private, Public, MustRevalidate, ProxyRevalidate, MustUnderstand, Immutable bool

	MaxAge, SMaxAge, StaleWhileRevalidate, StaleIfError time.Duration

	// Fields are those that a qualified no-cache or private names, canonical: the
	// response may be reused, but not they (§5.2.2.4, §5.2.2.7).
	Fields []string
}

// ParseRequest reads the Cache-Control lines of a request. Without any of them,
// Pragma: no-cache counts as no-cache (§5.4).
//
// An invalid max-age counts as 0 and an invalid min-fresh as longest, so that the
// client gets a validated answer; an invalid max-stale or stale-if-error is ignored.
func ParseRequest(cacheControl, pragma []string) RequestDirectives {
	d := NoRequestDirectives
	if len(cacheControl) == 0 {
		for _, line := range pragma {
			for name := range directives(line) {
				d.NoCache = d.NoCache || strings.EqualFold(name, "no-cache")
			}
		}
		return d
	}
	for _, line := range cacheControl {
		for name, value := range directives(line) {
			switch strings.ToLower(name) {
			case "no-cache":
				d.NoCache = true
			case "no-store":
				d.NoStore = true
			case "only-if-cached":
				d.OnlyIfCached = true
			case "max-age":
				d.MaxAge = shorter(d.MaxAge, deltaOr(value, 0))
			case "min-fresh":
				d.MinFresh = max(d.MinFresh, deltaOr(value, math.MaxInt64))
			case "max-stale":
				if !value.present {
					d.MaxStale = max(d.MaxStale, math.MaxInt64)
				} else if v, ok := delta(value); ok {
					d.MaxStale = shorter(d.MaxStale, v)
				}
			case "stale-if-error":
				if v, ok := delta(value); ok {
					d.StaleIfError = shorter(d.StaleIfError, v)
				}
			}
		}
	}
	return d
}

// noResponseDirectives is what a response without Cache-Control says.
var noResponseDirectives = ResponseDirectives{MaxAge: Absent, SMaxAge: Absent, StaleWhileRevalidate: Absent, StaleIfError: Absent}

// ParseResponse reads the Cache-Control lines of a response. A directive that
// appears twice with different values counts as 0: §4.2.1 lets a cache take the
// first or treat the response as stale, and the second can't be wrong.
func ParseResponse(cacheControl []string) ResponseDirectives {
	d := noResponseDirectives
	for _, line := range cacheControl {
		for name, value := range directives(line) {
			d.add(strings.ToLower(name), value)
		}
	}
	return d
}

// ParseTargeted reads the lines of a targeted field, like CDN-Cache-Control: a
// structured dictionary (RFC 9213 §2.1). ok is false for one that is empty or not
// well-formed; it is then as if the field weren't there. A directive with a value
// of a type that isn't its own is read as ParseResponse reads an invalid value.
func ParseTargeted(lines []string) (d ResponseDirectives, ok bool) {
	d = noResponseDirectives
	dictionary, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil || len(dictionary.Names()) == 0 {
		return d, false
	}
	for _, name := range dictionary.Names() {
		member, _ := dictionary.Get(name)
		value := argument{present: true}
		if item, isItem := member.(httpsfv.Item); isItem {
			names := name == "no-cache" || name == "private"
			switch v := item.Value.(type) {
			case bool:
				value.present = !v
			case int64:
				value.text, value.valid = strconv.FormatInt(v, 10), true
			case string:
				value.text, value.valid = v, names
			case httpsfv.Token:
				value.text, value.valid = string(v), names
			}
		}
		d.add(name, value)
	}
	return d, true
}

// responseDirectives returns the directives that govern a response, and whether
// they come from a targeted field: then Expires has no say either (RFC 9213 §2.2).
func responseDirectives(h http.Header) (d ResponseDirectives, targeted bool) {
	if lines, present := h["Cdn-Cache-Control"]; present {
		if d, ok := ParseTargeted(lines); ok {
			return d, true
		}
	}
	return ParseResponse(h["Cache-Control"]), false
}

// Unshared lists the fields of a response that its directives keep from being
// reused with the rest of it, canonical.
func Unshared(h http.Header) []string {
	d, _ := responseDirectives(h)
	return d.Fields
}

// add takes one more directive into account; name is in lower case.
func (d *ResponseDirectives) add(name string, value argument) {
	switch name {
	case "no-cache":
		d.NoCache = d.qualified(value) || d.NoCache
	case "no-store":
		d.NoStore = true
	case "private":
		d.Private = d.qualified(value) || d.Private
	case "public":
		d.Public = true
	case "must-revalidate":
		d.MustRevalidate = true
	case "proxy-revalidate":
		d.ProxyRevalidate = true
	case "must-understand":
		d.MustUnderstand = true
	case "immutable":
		d.Immutable = true
	case "max-age":
		d.MaxAge = once(d.MaxAge, deltaOr(value, 0))
	case "s-maxage":
		d.SMaxAge = once(d.SMaxAge, deltaOr(value, 0))
	case "stale-while-revalidate":
		d.StaleWhileRevalidate = once(d.StaleWhileRevalidate, deltaOr(value, 0))
	case "stale-if-error":
		d.StaleIfError = once(d.StaleIfError, deltaOr(value, 0))
	}
}

// qualified takes the field names of a no-cache or private, and reports whether
// there are none that make sense, so that it concerns the whole response.
func (d *ResponseDirectives) qualified(value argument) (whole bool) {
	if !value.valid {
		return true
	}
	var fields []string
	for member := range strings.SplitSeq(value.text, ",") {
		name := strings.Trim(member, " \t")
		if name == "" {
			continue
		}
		// A response without Date isn't one; and what is no token names nothing.
		if strings.IndexFunc(name, func(r rune) bool { return r > 0x7e || !isTokenByte(byte(r)) }) >= 0 || strings.EqualFold(name, "Date") {
			return true
		}
		fields = append(fields, textproto.CanonicalMIMEHeaderKey(name))
	}
	d.Fields = append(d.Fields, fields...)
	return len(fields) == 0
}

// argument is what follows a directive's name.
type argument struct {
	text    string
	present bool // there was an "="
	valid   bool // a token or a well-formed quoted string
}

// directives yields name and argument of each member of one field line:
// 1#( token [ "=" ( token / quoted-string ) ] ). Text that isn't of this form
// loses its value but keeps its name, so a mangled no-store still counts.
func directives(line string) func(yield func(string, argument) bool) {
	return func(yield func(string, argument) bool) {
		for rest := line; rest != ""; {
			rest = strings.TrimLeft(rest, " \t,")
			end := 0
			for end < len(rest) && isTokenByte(rest[end]) {
				end++
			}
			name := rest[:end]
			rest = rest[end:]
			var value argument
			if strings.HasPrefix(rest, "=") {
				value, rest = parseArgument(rest[1:])
			}
			// Whatever stands before the next comma doesn't belong here.
			junk, after := untilComma(rest)
			if strings.Trim(junk, " \t") != "" {
				value.present, value.valid = true, false
			}
			rest = after
			if name != "" && !yield(name, value) {
				return
			}
		}
	}
}

func parseArgument(s string) (argument, string) {
	if !strings.HasPrefix(s, `"`) {
		end := 0
		for end < len(s) && isTokenByte(s[end]) {
			end++
		}
		return argument{text: s[:end], present: true, valid: end > 0}, s[end:]
	}
	var text strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return argument{text: text.String(), present: true, valid: true}, s[i+1:]
		case '\\':
			if i++; i == len(s) {
				return argument{present: true}, ""
			}
			text.WriteByte(s[i])
		default:
			text.WriteByte(s[i])
		}
	}
	// The quote is never closed: what it would swallow may hold a no-store, so
	// the rest is read as further directives.
	return argument{present: true}, s[1:]
}

// untilComma splits s at the first comma outside a quoted string.
func untilComma(s string) (before, after string) {
	if i := strings.IndexByte(s, ','); i >= 0 {
		return s[:i], s[i+1:]
	}
	return s, ""
}

func isTokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// delta reads delta-seconds (§1.2.2): digits only, capped at 2^31 seconds.
func delta(a argument) (time.Duration, bool) {
	if !a.valid {
		return 0, false
	}
	return parseSeconds(a.text)
}

func parseSeconds(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	var seconds time.Duration
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		seconds = min(seconds*10+time.Duration(s[i]-'0'), maxDelta/time.Second)
	}
	return seconds * time.Second, true
}

func deltaOr(a argument, fallback time.Duration) time.Duration {
	if v, ok := delta(a); ok {
		return v
	}
	return fallback
}

// once merges a repeated directive: equal values stand, others contradict.
func once(before, now time.Duration) time.Duration {
	if before == Absent || before == now {
		return now
	}
	return 0
}

func shorter(before, now time.Duration) time.Duration {
	if before == Absent {
		return now
	}
	return min(before, now)
}

// hopByHop are the fields that concern one connection only (RFC 9110 §7.6.1),
// and the proxy fields that a cache must not keep (RFC 9111 §3.1).
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization",
}

// endToEnd lists fields that Connection can't make a connection's own: they are for every
// recipient (RFC 9110 §7.6.1), and what decides about storing isn't lost by a mistake.
func endToEnd(name string) bool {
	switch name {
	case "Age", "Authorization", "Cache-Control", "Cdn-Cache-Control", "Cookie", "Date", "Expires", "Set-Cookie", "Vary":
		return true
	}
	return false
}

// StripHopByHop removes the connection's own fields from h, those that
// Connection names among them, and Warning, which RFC 9111 §5.5 retired.
func StripHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.CanonicalMIMEHeaderKey(strings.Trim(name, " \t")); !endToEnd(name) {
				delete(h, name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
	delete(h, "Warning")
}
