package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Policy is what the operator decides where a response says nothing.
type Policy struct {
	DefaultTTL           time.Duration // lifetime of a success or permanent redirect without any freshness information and Last-Modified; 0: not stored
	NegativeTTL          time.Duration // same for 404, 405, 410, 414 and 501, and for errors marked public, whatever Last-Modified says
	StaleWhileRevalidate time.Duration // allowance where the directive is absent
	StaleIfError         time.Duration // allowance where the directive is absent

	// ShareCookies lets explicit freshness, and not only public and s-maxage, make a
	// response with Set-Cookie, or to a request with Cookie, one for everybody: RFC 9111
	// §7.3 to the letter, for upstreams that know it.
	ShareCookies bool
}

// Request is what the rules need to know of a request.
type Request struct {
	Method        string
	Authorization bool // the request carried Authorization
	Cookie        bool // the request carried Cookie
	Directives    RequestDirectives
}

// Response is a response as it arrived, with the moments the request for it was
// sent and its header received.
type Response struct {
	Status                    int
	Header                    http.Header
	RequestTime, ResponseTime time.Time
}

// Freshness is all that later decisions need to know of a stored response.
type Freshness struct {
	Born                 int64         // Unix nanoseconds at which its age was 0
	Lifetime             time.Duration // age from which it is stale
	StaleWhileRevalidate time.Duration // how long after that it may be used while it is revalidated
	StaleIfError         time.Duration // how long after that it may be used when the upstream fails; Absent: neither response nor policy says
	Validate             bool          // no-cache: never used without validation
	Strict               bool          // must-revalidate, proxy-revalidate: never used stale
	NoMaxStale           bool          // s-maxage: a client's max-stale doesn't count
	Immutable            bool          // RFC 8246: not validated while it is fresh
}

// Evaluate decides by RFC 9111 §3 whether resp may be stored, and computes its
// freshness. The reason says which rule forbids it, in words; it is empty when
// ok. A response that could never be used from the cache, being stale at once,
// without a validator, and not for clients that accept staleness either, isn't worth
// storing.
func Evaluate(req Request, resp Response, p Policy) (f Freshness, reason string) {
	d, targeted := responseDirectives(resp.Header)
	lifetime, said := explicitLifetime(d, targeted, resp)
	fields, storable := Vary(resp.Header)
	cookie := req.Cookie && !slices.Contains(fields, "Cookie") // else it is in the key (§4.1)
	switch {
	case req.Method != http.MethodGet:
		return f, "method"
	case req.Directives.NoStore:
		return f, "request no-store"
	case resp.Status < 200 || resp.Status == http.StatusPartialContent || resp.Status == http.StatusNotModified:
		return f, "status"
	case d.MustUnderstand && !understood(resp.Status):
		return f, "must-understand"
	case d.NoStore && !d.MustUnderstand: // §5.2.2.3: who understands may ignore no-store
		return f, "no-store"
	case d.Private:
		return f, "private"
	case req.Authorization && !d.Public && !d.MustRevalidate && d.SMaxAge == Absent: // §3.5
		return f, "authorization"
	case (cookie || setsCookie(resp.Header, d)) && !d.Public && d.SMaxAge == Absent && !(p.ShareCookies && said):
		return f, "cookie"
	case !storable:
		return f, "vary"
	}
	if !said {
		lifetime = p.heuristicLifetime(d, resp)
	}
	f = Freshness{
		Born:                 resp.ResponseTime.Add(-initialAge(resp)).UnixNano(),
		Lifetime:             lifetime,
		StaleWhileRevalidate: p.StaleWhileRevalidate,
		StaleIfError:         p.StaleIfError,
		Validate:             d.NoCache,
		Strict:               d.MustRevalidate || d.ProxyRevalidate, // the same for a shared cache (§5.2.2.8)
		NoMaxStale:           d.SMaxAge != Absent,
		Immutable:            d.Immutable,
	}
	if f.StaleIfError == 0 {
		f.StaleIfError = Absent
	}
	if f.NoMaxStale { // §5.2.2.10: only the response itself may allow staleness
		f.StaleWhileRevalidate, f.StaleIfError = 0, 0
	}
	if d.StaleWhileRevalidate != Absent {
		f.StaleWhileRevalidate = d.StaleWhileRevalidate
	}
	if d.StaleIfError != Absent {
		f.StaleIfError = d.StaleIfError
	}
	// §3: something must allow storing: explicit freshness, public, or a status that
	// may be stored by default.
	if !said && !d.Public && !heuristicallyCacheable(resp.Status) {
		return f, "no freshness information"
	}
	useless := f.Validate || f.Age(resp.ResponseTime) >= f.Lifetime+max(f.StaleWhileRevalidate, f.StaleIfError)
	maxStale := f.Lifetime > 0 && !f.Validate && !f.Strict && !f.NoMaxStale // §5.2.1.2; who says max-age=0 wants no reuse
	if useless && !maxStale && !hasValidator(resp.Header) {
		return f, "stale on arrival"
	}
	return f, ""
}

// setsCookie reports whether a response, as it would be reused, sets a cookie.
func setsCookie(h http.Header, d ResponseDirectives) bool {
	return len(h["Set-Cookie"]) > 0 && !slices.Contains(d.Fields, "Set-Cookie")
}

// understood lists the statuses whose caching requirements this cache implements.
func understood(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// explicitLifetime is §4.2.1: s-maxage, max-age, Expires minus Date, the first
// one present. said is true when the response speaks of its freshness at all,
// even invalidly; then no default applies.
func explicitLifetime(d ResponseDirectives, targeted bool, resp Response) (lifetime time.Duration, said bool) {
	switch {
	case d.SMaxAge != Absent:
		return d.SMaxAge, true
	case d.MaxAge != Absent:
		return d.MaxAge, true
	}
	lines, present := resp.Header["Expires"]
	if !present || targeted {
		return 0, false
	}
	var expires time.Time
	for i, line := range lines {
		t, ok := parseDate(line, resp.ResponseTime)
		if !ok || i > 0 && !t.Equal(expires) {
			return 0, true // §5.3: an invalid date, like "0", is in the past
		}
		expires = t
	}
	return max(0, min(expires.Sub(date(resp)), maxDelta)), true
}

// A response that says nothing but when it was last modified is fresh for a tenth
// of the time since then, as §4.2.2 suggests, and for a day at most.
const (
	heuristicShare = 10
	heuristicMax   = 24 * time.Hour
)

// heuristicLifetime is §4.2.2. It applies only to statuses that are heuristically
// cacheable (RFC 9110 §15.1), and to others that are marked public.
func (p Policy) heuristicLifetime(d ResponseDirectives, resp Response) time.Duration {
	for _, line := range resp.Header["Pragma"] {
		if strings.Contains(strings.ToLower(line), "no-cache") {
			return 0 // obsolete, but its author plainly said something
		}
	}
	switch {
	case !heuristicallyCacheable(resp.Status) && !d.Public:
		return 0
	case resp.Status >= 400:
		return p.NegativeTTL
	}
	if line := resp.Header.Get("Last-Modified"); line != "" {
		modified, ok := parseDate(line, resp.ResponseTime)
		if !ok {
			return 0
		}
		return min(max(0, date(resp).Sub(modified)/heuristicShare), heuristicMax)
	}
	return p.DefaultTTL
}

// heuristicallyCacheable lists the statuses of RFC 9110 §15.1, without 206.
func heuristicallyCacheable(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// date is the Date of the response, or its arrival where that is missing or invalid.
func date(resp Response) time.Time {
	if t, ok := parseDate(resp.Header.Get("Date"), resp.ResponseTime); ok {
		return t
	}
	return resp.ResponseTime
}

// initialAge is corrected_initial_age of §4.2.3.
func initialAge(resp Response) time.Duration {
	apparent := max(0, resp.ResponseTime.Sub(date(resp)))
	delay := max(0, resp.ResponseTime.Sub(resp.RequestTime))
	return min(max(apparent, ageValue(resp.Header)+delay), maxDelta)
}

// ageValue reads Age (§5.1): the first member counts, an invalid one is ignored.
func ageValue(h http.Header) time.Duration {
	first, _, _ := strings.Cut(h.Get("Age"), ",")
	age, _ := parseSeconds(strings.Trim(first, " \t"))
	return age
}

func hasValidator(h http.Header) bool {
	return h.Get("Etag") != "" || h.Get("Last-Modified") != ""
}

// Use is what a stored response may be used for.
type Use int

const (
	Validate        Use = iota // only after the upstream confirms it
	Fresh                      // as it is
	Stale                      // as it is, because the client accepts staleness
	StaleRevalidate            // as it is, while it is revalidated (RFC 5861 §3)
)

// String names the use for logs and test failures.
func (u Use) String() string {
	return [...]string{"validate", "fresh", "stale", "stale-while-revalidate"}[u]
}

// Age is current_age of §4.2.3.
func (f *Freshness) Age(now time.Time) time.Duration {
	return max(0, time.Duration(now.UnixNano()-f.Born))
}

// Decide says what the stored response may be used for at now, for a request with
// directives d (§4, §4.2.4, §5.2.1).
func (f *Freshness) Decide(d *RequestDirectives, now time.Time) Use {
	age := f.Age(now)
	// §5.2.1.5 leaves open whether no-store may be answered from the store. Asking is what
	// a client that wants none of it can't object to, unless it forbids that as well.
	asks := d.NoCache || d.NoStore && !d.OnlyIfCached
	if f.Validate || asks || d.MaxAge != Absent && age > d.MaxAge {
		return Validate
	}
	left := f.Lifetime - age
	if left > 0 && (d.MinFresh == Absent || left >= d.MinFresh) {
		return Fresh
	}
	if left > 0 || f.Strict || d.MinFresh != Absent {
		return Validate
	}
	if !f.NoMaxStale && d.MaxStale != Absent && -left <= d.MaxStale {
		return Stale
	}
	// §5.2.1.1: who names a max-age wants nothing stale unless he says so.
	if d.MaxAge == Absent && -left < f.StaleWhileRevalidate {
		return StaleRevalidate
	}
	return Validate
}

// StaleOnError says whether the stored response may be used at now instead of an
// error of the upstream (RFC 5861 §4): by the response's allowance or, unless
// validation is mandatory, the request's.
//
// disconnected is what the operator allows where nobody names an allowance and the
// upstream gave no answer at all (§4.2.4); 0 where it did.
func (f *Freshness) StaleOnError(d *RequestDirectives, now time.Time, disconnected time.Duration) bool {
	if f.Validate || f.Strict || d.NoCache {
		return false
	}
	age := f.Age(now)
	if d.MaxAge != Absent && (age > d.MaxAge || d.MaxStale == Absent && age >= f.Lifetime) {
		return false
	}
	allowance := f.StaleIfError
	if allowance == Absent {
		allowance = disconnected
	}
	if !f.NoMaxStale {
		allowance = max(allowance, d.StaleIfError)
	}
	return age < f.Lifetime+max(0, allowance)
}
