package httpcache

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// AddConditions turns dst, the header of a request, into a validation of stored
// (§4.3.1), and reports whether there was a validator to do it with.
func AddConditions(dst, stored http.Header) bool {
	tag, modified := stored.Get("Etag"), stored.Get("Last-Modified")
	if tag != "" {
		dst["If-None-Match"] = []string{tag}
	}
	if modified != "" {
		dst["If-Modified-Since"] = []string{modified}
	}
	return tag != "" || modified != ""
}

// Freshen returns the header of a stored response updated by a 304 (§3.2,
// §4.3.4). Every field of the 304 replaces the stored lines of that name, except
// those that say how the stored bytes are to be read: were they changed, the body
// would be another one. ok is false when the 304 names other validators than the
// stored response has: then it doesn't speak of it.
func Freshen(stored, update http.Header) (merged http.Header, ok bool) {
	tag, old := update.Get("Etag"), stored.Get("Etag")
	switch modified := update.Get("Last-Modified"); {
	case strings.HasPrefix(tag, `"`): // a strong validator is one that is equal
		ok = tag == old
	case tag != "":
		ok = weakMatch(tag, old)
	default: // without any, it answers the one response that was asked about
		ok = modified == "" || stored.Get("Last-Modified") == "" || modified == stored.Get("Last-Modified")
	}
	if !ok {
		return nil, false
	}
	return merge(stored, update), true
}

// HeadFreshens reports whether a response to HEAD speaks of the stored response to
// GET (§4.3.5), whose body has the given length; if so merged is the stored header,
// updated. If not, the stored response isn't what a GET would bring any more.
func HeadFreshens(stored, update http.Header, length int64) (merged http.Header, ok bool) {
	for _, name := range []string{"Etag", "Last-Modified"} {
		if received := update.Get(name); received != "" && received != stored.Get(name) {
			return nil, false
		}
	}
	if n := update.Get("Content-Length"); n != "" && n != strconv.FormatInt(length, 10) {
		return nil, false
	}
	return merge(stored, update), true
}

// merge is §3.2.
func merge(stored, update http.Header) http.Header {
	merged := stored.Clone()
	delete(merged, "Age") // is of the old exchange; the new one brings its own
	update = update.Clone()
	StripHopByHop(update)
	for name, lines := range update {
		switch name {
		case "Content-Encoding", "Content-Length", "Content-Range":
			continue
		case "Etag": // a weak one that matches says less than what is stored
			if stored.Get("Etag") != "" {
				continue
			}
		}
		merged[name] = lines
	}
	delete(merged, "Warning")
	return merged
}

// Conditions are the validators of a client and of the stored response; empty
// strings stand for absent fields.
type Conditions struct {
	IfNoneMatch, IfModifiedSince, IfRange string // of the request
	Etag, LastModified, Date              string // of the stored response
}

// NotModified evaluates If-None-Match and, only in its absence, If-Modified-Since
// against a stored response (RFC 9110 §13.1.2, §13.1.3, RFC 9111 §4.3.2). Without
// Last-Modified it is Date that counts.
func (c Conditions) NotModified() bool {
	if c.IfNoneMatch != "" {
		return tagListMatches(c.IfNoneMatch, c.Etag)
	}
	date, _ := parseDate(c.Date, time.Time{})
	since, ok := parseDate(c.IfModifiedSince, date)
	if !ok {
		return false
	}
	modified, ok := parseDate(c.LastModified, date)
	if c.LastModified == "" {
		modified, ok = parseDate(c.Date, date)
	}
	return ok && !modified.After(since)
}

// tagListMatches compares weakly (RFC 9110 §8.8.3.2). Anything that isn't an
// entity tag ends the list, so a mangled list matches less, never more.
func tagListMatches(list, tag string) bool {
	list = strings.Trim(list, " \t")
	if list == "*" {
		return true
	}
	for list != "" {
		list = strings.TrimLeft(list, " \t,")
		member := strings.TrimPrefix(list, "W/")
		if !strings.HasPrefix(member, `"`) {
			return false
		}
		end := strings.IndexByte(member[1:], '"')
		if end < 0 {
			return false
		}
		if weakMatch(member[:end+2], tag) {
			return true
		}
		list = member[end+2:]
	}
	return false
}

func weakMatch(a, b string) bool {
	a, b = strings.TrimPrefix(a, "W/"), strings.TrimPrefix(b, "W/")
	return a == b && a != ""
}

// Range is what a Range field asks of a complete stored response.
type Range int

const (
	WholeBody     Range = iota // no range, or one that is ignored: send everything
	OneRange                   // first to last, inclusive
	Unsatisfiable              // nothing of the body: 416
)

// Range evaluates a Range field, and If-Range, against a stored body of size bytes
// (RFC 9110 §13.1.5, §14.2). Only a single range of bytes is served; several, other
// units and malformed values are ignored, which the RFC allows.
func (c Conditions) Range(field string, size int64) (kind Range, first, last int64) {
	unit, spec, ok := strings.Cut(field, "=")
	if !ok || !strings.EqualFold(unit, "bytes") || strings.Contains(spec, ",") || c.IfRange != "" && !c.ifRange() {
		return WholeBody, 0, 0
	}
	from, to, ok := strings.Cut(strings.Trim(spec, " \t"), "-")
	if !ok {
		return WholeBody, 0, 0
	}
	first, firstOK := parseOffset(from)
	last, lastOK := parseOffset(to)
	switch {
	case from == "" && lastOK: // the last n bytes
		if last == 0 || size == 0 {
			return Unsatisfiable, 0, 0
		}
		return OneRange, max(0, size-last), size - 1
	case !firstOK || to != "" && !lastOK || lastOK && last < first:
		return WholeBody, 0, 0
	case first >= size:
		return Unsatisfiable, 0, 0
	case to == "":
		return OneRange, first, size - 1
	}
	return OneRange, first, min(last, size-1)
}

// ifRange compares strongly: a tag that isn't weak, or a date that is exactly the
// stored one and a second older than the response (RFC 9110 §8.8.2.2).
func (c Conditions) ifRange() bool {
	if strings.Contains(c.IfRange, `"`) {
		return strings.HasPrefix(c.IfRange, `"`) && c.IfRange == c.Etag
	}
	date, ok := parseDate(c.Date, time.Time{})
	modified, known := parseDate(c.LastModified, date)
	return ok && known && c.IfRange == c.LastModified && !modified.After(date.Add(-time.Second))
}

func parseOffset(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = min(n*10+int64(s[i]-'0'), 1<<50)
	}
	return n, true
}
