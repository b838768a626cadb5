package httpcache

import (
	"net/http"
	"strings"
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
// those that describe the stored body. ok is false when the 304 names another
// strong validator than the stored response has: then it doesn't speak of it.
func Freshen(stored, update http.Header) (merged http.Header, ok bool) {
	if tag := update.Get("Etag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		if old := stored.Get("Etag"); !weakMatch(old, tag) {
			return nil, false
		}
	}
	merged = stored.Clone()
	// Warning and Age are of the old exchange; the new one brings its own.
	delete(merged, "Age")
	for name, lines := range update {
		switch name {
		case "Content-Encoding", "Content-Length", "Content-Md5", "Content-Range", "Content-Type", "Etag":
			if name == "Etag" && stored.Get("Etag") == "" {
				merged[name] = lines
			}
			continue
		}
		merged[name] = lines
	}
	StripHopByHop(merged)
	return merged, true
}

// NotModified evaluates a client's If-None-Match and, only in its absence,
// If-Modified-Since against a stored response (RFC 9110 §13.1.2, §13.1.3,
// §13.2.2). Empty strings stand for absent fields.
func NotModified(ifNoneMatch, ifModifiedSince, tag, lastModified string) bool {
	if ifNoneMatch != "" {
		return tagListMatches(ifNoneMatch, tag)
	}
	if ifModifiedSince == "" || lastModified == "" {
		return false
	}
	since, err := http.ParseTime(ifModifiedSince)
	if err != nil {
		return false
	}
	modified, err := http.ParseTime(lastModified)
	return err == nil && !modified.After(since)
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

// ParseRange evaluates Range and If-Range against a stored body of size bytes
// (RFC 9110 §13.1.5, §14.2). Only a single range of bytes is served; several, other
// units and malformed values are ignored, which the RFC allows.
func ParseRange(rangeField, ifRange, tag, lastModified string, size int64) (kind Range, first, last int64) {
	spec, ok := strings.CutPrefix(rangeField, "bytes=")
	if !ok || strings.Contains(spec, ",") {
		return WholeBody, 0, 0
	}
	if ifRange != "" {
		strong := strings.HasPrefix(ifRange, `"`) && ifRange == tag
		if !strong && (strings.Contains(ifRange, `"`) || lastModified == "" || ifRange != lastModified) {
			return WholeBody, 0, 0
		}
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
