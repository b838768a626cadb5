package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"phasegate/fixtures/upstream/wire"
)

// asks is what a request's own header lets an answer be besides the whole
// representation (RFC 9110, sections 13 and 14).
type asks struct {
	condition    bool // If-None-Match, If-Modified-Since: 304
	precondition bool // If-Match, If-Unmodified-Since: 412
	part         bool // Range: 206, 416
}

// newExtra prepares what a recorded request brings, for an upstream whose
// answers vary by these fields.
func newExtra(header [][2]string, body []byte, vary []string) extra {
	x := extra{header: header, body: body, variant: variantOf(header, vary)}
	for _, f := range header {
		switch strings.ToLower(f[0]) {
		case "if-none-match", "if-modified-since":
			x.asks.condition = true
		case "if-match", "if-unmodified-since":
			x.asks.precondition = true
		case "range":
			x.asks.part = true
		}
	}
	return x
}

// variantOf names the representation that a request selects by its header and
// by the generator's own User-Agent, as the mock upstream does.
func variantOf(header [][2]string, vary []string) string {
	return selected(wire.Variant(vary, func(name string) string {
		var values []string
		for _, f := range header {
			if strings.EqualFold(f[0], name) {
				values = append(values, f[1])
			}
		}
		if strings.EqualFold(name, "User-Agent") {
			values = append(values, userAgent)
		}
		return strings.Join(values, ", ")
	}))
}

// selected cuts off a variant what a system between may choose itself: the
// content coding, and the fields by which intermediaries tell of themselves.
func selected(variant string) string {
	if variant == "" {
		return ""
	}
	parts := strings.Split(variant, "&")
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool {
		name, _, _ := strings.Cut(part, "=")
		return name == "accept-encoding" || name == "via" || strings.HasPrefix(name, "forwarded") || strings.HasPrefix(name, "x-forwarded-")
	}), "&")
}

// variant names the representation that a request selects.
func (g *Generator) variant(r request) string {
	if r.extra == nil {
		return g.plain
	}
	return r.extra.variant
}

// asked returns what r's own header asks for.
func (r request) asked() asks {
	if r.extra == nil {
		return asks{}
	}
	return r.extra.asks
}

// allow reports whether an answer may have a status because it was asked for.
func (a asks) allow(status int) bool {
	switch status {
	case http.StatusNotModified:
		return a.condition
	case http.StatusPreconditionFailed:
		return a.precondition
	case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		return a.part
	}
	return false
}

// part is what a 206 or 416 says of the whole.
type part struct {
	several     bool // in multipart/byteranges: each part has a Content-Range of its own
	fault       error
	first, last int64 // bytes of the whole; of a 416 −1
	size        int64 // of the whole; −1 where it isn't told
}

// part reads the Content-Range (RFC 9110, section 14.4) of an answer that
// should have one, by its status.
func (f *fields) part(s int) part {
	if s != http.StatusPartialContent && s != http.StatusRequestedRangeNotSatisfiable {
		return part{}
	}
	if s == http.StatusPartialContent && bytes.HasPrefix(f.contentType, []byte("multipart/byteranges")) {
		return part{several: true}
	}
	p := part{first: -1, last: -1, size: -1}
	value := string(f.contentRange)
	spec, ok := strings.CutPrefix(value, "bytes ")
	at, size, ok2 := strings.Cut(spec, "/")
	var err error
	if ok2 && size != "*" {
		p.size, err = strconv.ParseInt(size, 10, 64)
	}
	if ok2 && at != "*" && err == nil {
		first, last, _ := strings.Cut(at, "-")
		if p.first, err = strconv.ParseInt(first, 10, 64); err == nil {
			p.last, err = strconv.ParseInt(last, 10, 64)
		}
	}
	if !ok || !ok2 || err != nil || (at == "*") != (s == http.StatusRequestedRangeNotSatisfiable) {
		p.fault = fmt.Errorf("status %d with the Content-Range %.60q", s, value)
	}
	return p
}

// compare holds an answer that isn't the whole representation, as it was asked
// for, against the description of the whole. The bytes of a part can't be
// summed up without the others; their number and place can be checked.
func (p part) compare(a *answer, d *wire.Description) error {
	switch {
	case a.status != http.StatusPartialContent && a.status != http.StatusRequestedRangeNotSatisfiable, p.several:
		return nil // no bytes of it, or none that can be told from what lies between
	case p.fault != nil:
		return p.fault
	case p.size >= 0 && p.size != d.Size:
		return fmt.Errorf("a part of %d bytes in all, but the resource has %d", p.size, d.Size)
	case a.status == http.StatusRequestedRangeNotSatisfiable:
		return nil
	case p.first < 0 || p.last < p.first || p.last >= d.Size:
		return fmt.Errorf("bytes %d to %d of %d", p.first, p.last, d.Size)
	case a.length != p.last-p.first+1:
		return fmt.Errorf("the body has %d bytes, and should be bytes %d to %d", a.length, p.first, p.last)
	case a.length == d.Size && !a.proof.digest.Matches():
		return errors.New("the body isn't the one the upstream had made: the checksum differs")
	}
	return nil
}
