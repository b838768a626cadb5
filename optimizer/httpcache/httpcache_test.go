package httpcache_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"phasegate/optimizer/httpcache"
)

var (
	t0     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	policy = httpcache.Policy{DefaultTTL: 5 * time.Minute, NegativeTTL: 10 * time.Second}
)

// header reads "Name: value" lines, one field line each.
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

func get() httpcache.Request {
	return httpcache.Request{Method: "GET", Directives: httpcache.NoRequestDirectives}
}

func response(status int, lines ...string) httpcache.Response {
	return httpcache.Response{Status: status, Header: header(lines...), RequestTime: t0, ResponseTime: t0}
}

func Example() {
	resp := httpcache.Response{
		Status:      200,
		Header:      http.Header{"Cache-Control": {"max-age=60, stale-while-revalidate=30"}},
		RequestTime: t0, ResponseTime: t0,
	}
	f, _ := httpcache.Evaluate(get(), resp, httpcache.Policy{})
	for _, after := range []time.Duration{59, 60, 89, 90} {
		fmt.Println(f.Decide(&httpcache.NoRequestDirectives, t0.Add(after*time.Second)))
	}
	// Output:
	// fresh
	// stale-while-revalidate
	// stale-while-revalidate
	// validate
}

func TestRFC9111Section3StoringResponses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		req    httpcache.Request
		resp   httpcache.Response
		reason string
	}{
		{"explicit freshness", get(), response(200, "Cache-Control: max-age=5"), ""},
		{"explicit freshness makes any final status storable", get(), response(599, "Cache-Control: max-age=5"), ""},
		{"Expires counts as explicit", get(), response(302, "Expires: Sun, 01 Mar 2026 12:00:10 GMT"), ""},
		{"nothing said, status cacheable by default", get(), response(200), ""},
		{"nothing said, negative", get(), response(404), ""},
		{"nothing said, status not cacheable by default", get(), response(302), "no freshness information"},
		{"errors aren't kept unasked", get(), response(500), "no freshness information"},
		{"a method that isn't GET", httpcache.Request{Method: "POST", Directives: httpcache.NoRequestDirectives}, response(200, "Cache-Control: max-age=5"), "method"},
		{"partial content is never stored as whole", get(), response(206, "Cache-Control: max-age=5"), "status"},
		{"a 304 isn't a response to keep", get(), response(304, "Cache-Control: max-age=5"), "status"},
		{"no-store", get(), response(200, "Cache-Control: max-age=5, no-store"), "no-store"},
		{"no-store in odd case, second line", get(), response(200, "Cache-Control: max-age=5", "Cache-Control: No-STORE"), "no-store"},
		{"no-store behind an unclosed quote", get(), response(200, `Cache-Control: foo="bar, no-store`), "no-store"},
		{"no-store inside a quoted string is no directive", get(), response(200, `Cache-Control: foo="bar, no-store", max-age=5`), ""},
		{"no-store with a value it shouldn't have", get(), response(200, "Cache-Control: no-store=yes"), "no-store"},
		{"private", get(), response(200, "Cache-Control: private, max-age=5"), "private"},
		{"qualified private concerns its fields only", get(), response(200, `Cache-Control: private="x", max-age=5`), ""},
		{"qualified private that names nothing", get(), response(200, `Cache-Control: private=" ,", max-age=5`), "private"},
		{"a private cookie isn't in the way", get(), response(200, `Cache-Control: private="set-cookie", max-age=5`, "Set-Cookie: a=b"), ""},
		{"must-understand and understood: no-store yields", get(), response(200, "Cache-Control: no-store, must-understand, max-age=5"), ""},
		{"must-understand and not understood", get(), response(299, "Cache-Control: must-understand, max-age=5"), "must-understand"},
		{"request no-store", httpcache.Request{Method: "GET", Directives: httpcache.ParseRequest([]string{"no-store"}, nil)}, response(200, "Cache-Control: max-age=5"), "request no-store"},
		{"no-cache with a validator is storable", get(), response(200, "Cache-Control: no-cache", `ETag: "a"`), ""},
		{"no-cache alone doesn't make a 302 storable", get(), response(302, "Cache-Control: no-cache", `ETag: "a"`), "no freshness information"},
		{"no-cache without a validator has no use", get(), response(200, "Cache-Control: no-cache"), "stale on arrival"},
		{"max-age=0 without a validator has no use", get(), response(200, "Cache-Control: max-age=0"), "stale on arrival"},
		{"stale by its age: a client may accept that", get(), response(200, "Cache-Control: max-age=5", "Age: 9"), ""},
		{"stale by its age, and no client may accept that", get(), response(200, "Cache-Control: max-age=5, must-revalidate", "Age: 9"), "stale on arrival"},
		{"nor where s-maxage says so", get(), response(200, "Cache-Control: s-maxage=5", "Age: 9"), "stale on arrival"},
		{"invalid max-age isn't nothing said", get(), response(200, "Cache-Control: max-age=5x"), "stale on arrival"},
		{"Vary: *", get(), response(200, "Cache-Control: max-age=5", "Vary: *"), "vary"},
		{"Vary on a field that a proxy rewrites", get(), response(200, "Cache-Control: max-age=5", "Vary: X-Forwarded-For"), "vary"},
		{"Set-Cookie isn't shared", get(), response(200, "Cache-Control: max-age=5", "Set-Cookie: a=b"), "cookie"},
		{"Set-Cookie shared by order", get(), response(200, "Cache-Control: public, max-age=5", "Set-Cookie: a=b"), ""},
		{"request with Cookie isn't shared", httpcache.Request{Method: "GET", Cookie: true, Directives: httpcache.NoRequestDirectives}, response(200, "Cache-Control: max-age=5"), "cookie"},
		{"request with Cookie that selects the response", httpcache.Request{Method: "GET", Cookie: true, Directives: httpcache.NoRequestDirectives}, response(200, "Cache-Control: max-age=5", "Vary: A, cookie"), ""},
		{"that sets another", httpcache.Request{Method: "GET", Cookie: true, Directives: httpcache.NoRequestDirectives}, response(200, "Cache-Control: max-age=5", "Vary: Cookie", "Set-Cookie: a=b"), "cookie"},
		{"request with Cookie and Authorization", httpcache.Request{Method: "GET", Cookie: true, Authorization: true, Directives: httpcache.NoRequestDirectives}, response(200, "Cache-Control: max-age=5", "Vary: Cookie"), "authorization"},
		{"request with Cookie, s-maxage", httpcache.Request{Method: "GET", Cookie: true, Directives: httpcache.NoRequestDirectives}, response(200, "Cache-Control: s-maxage=5"), ""},
	} {
		if _, reason := httpcache.Evaluate(tt.req, tt.resp, policy); reason != tt.reason {
			t.Errorf("%s: reason %q, want %q", tt.why, reason, tt.reason)
		}
	}
}

func TestRFC9111Section3_5Authorization(t *testing.T) {
	t.Parallel()
	for cc, ok := range map[string]bool{
		"max-age=5": false, "max-age=5, public": true, "max-age=5, must-revalidate": true, "s-maxage=5": true, "max-age=5, proxy-revalidate": false,
	} {
		req := get()
		req.Authorization = true
		if _, reason := httpcache.Evaluate(req, response(200, "Cache-Control: "+cc), policy); (reason == "") != ok {
			t.Errorf("%s: reason %q, want storable %v", cc, reason, ok)
		}
	}
}

func TestRFC9111Section4_2_1Lifetime(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why   string
		want  time.Duration
		lines []string
	}{
		{"s-maxage wins over max-age", 7 * time.Second, []string{"Cache-Control: max-age=5, s-maxage=7"}},
		{"max-age wins over Expires", 5 * time.Second, []string{"Cache-Control: max-age=5", "Expires: Sun, 01 Mar 2026 13:00:00 GMT"}},
		{"Expires minus Date, not minus now", 30 * time.Second, []string{"Date: Sun, 01 Mar 2026 11:59:50 GMT", "Expires: Sun, 01 Mar 2026 12:00:20 GMT"}},
		{"Expires in RFC 850 form", 20 * time.Second, []string{"Expires: Sunday, 01-Mar-26 12:00:20 GMT"}},
		{"Expires: 0 is in the past", 0, []string{"Expires: 0", `ETag: "a"`}},
		{"two different Expires contradict each other", 0, []string{"Expires: Sun, 01 Mar 2026 12:00:20 GMT", "Expires: Sun, 01 Mar 2026 12:00:30 GMT", `ETag: "a"`}},
		{"quoted", 5 * time.Second, []string{`Cache-Control: max-age="5"`}},
		{"a name in upper case", 5 * time.Second, []string{"Cache-Control: MAX-AGE=5"}},
		{"repeated with one value", 5 * time.Second, []string{"Cache-Control: max-age=5, max-age=5"}},
		{"repeated with two values", 0, []string{"Cache-Control: max-age=5", "Cache-Control: max-age=50", `ETag: "a"`}},
		{"negative", 0, []string{"Cache-Control: max-age=-5", `ETag: "a"`}},
		{"fraction", 0, []string{"Cache-Control: max-age=5.5", `ETag: "a"`}},
		{"space before the equals sign", 0, []string{"Cache-Control: max-age =5", `ETag: "a"`}},
		{"single quotes", 0, []string{"Cache-Control: max-age='5'", `ETag: "a"`}},
		{"no value", 0, []string{"Cache-Control: max-age", `ETag: "a"`}},
		{"overlong is the longest, not an overflow", (1 << 31) * time.Second, []string{"Cache-Control: max-age=99999999999999999999999"}},
		{"an invalid s-maxage isn't replaced by a valid max-age", 0, []string{"Cache-Control: max-age=5, s-maxage=x", `ETag: "a"`}},
		{"nothing said: the default", 5 * time.Minute, nil},
		{"public says nothing on freshness", 5 * time.Minute, []string{"Cache-Control: public"}},
		{"an unknown directive says nothing", 5 * time.Minute, []string{"Cache-Control: max-age-foo=7"}},
	} {
		f, reason := httpcache.Evaluate(get(), response(200, tt.lines...), policy)
		if reason != "" || f.Lifetime != tt.want {
			t.Errorf("%s: lifetime %v, reason %q; want %v", tt.why, f.Lifetime, reason, tt.want)
		}
	}
}

func TestRFC9111Section4_2_3Age(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why   string
		delay time.Duration // between request and response
		want  time.Duration // age on arrival
		lines []string
	}{
		{"no Age, no delay", 0, 0, nil},
		{"the delay counts: the response may have been made at its beginning", 2 * time.Second, 2 * time.Second, nil},
		{"Age plus delay", 2 * time.Second, 12 * time.Second, []string{"Age: 10"}},
		{"Date in the past", 0, 20 * time.Second, []string{"Date: Sun, 01 Mar 2026 11:59:40 GMT"}},
		{"the larger of the two", 0, 30 * time.Second, []string{"Date: Sun, 01 Mar 2026 11:59:40 GMT", "Age: 30"}},
		{"Date in the future: a skewed clock, not a negative age", 0, 0, []string{"Date: Sun, 01 Mar 2026 12:30:00 GMT"}},
		{"of several Age members the first", 0, 10 * time.Second, []string{"Age: 10, 50"}},
		{"an invalid Age is ignored", 0, 0, []string{"Age: -10"}},
		{"an overlong Age is very old", 0, (1 << 31) * time.Second, []string{"Age: 99999999999999"}},
	} {
		resp := response(200, append(tt.lines, "Cache-Control: max-age=60", `ETag: "a"`)...)
		resp.RequestTime = t0.Add(-tt.delay)
		f, reason := httpcache.Evaluate(get(), resp, policy)
		if got := f.Age(t0); reason != "" || got != tt.want {
			t.Errorf("%s: age %v, reason %q; want %v", tt.why, got, reason, tt.want)
		}
		if got := f.Age(t0.Add(5 * time.Second)); got != tt.want+5*time.Second {
			t.Errorf("%s: 5 s later the age is %v", tt.why, got)
		}
	}
}

func TestRFC9111Section4_2_4And5_2Decisions(t *testing.T) {
	t.Parallel()
	const (
		validate = httpcache.Validate
		fresh    = httpcache.Fresh
		stale    = httpcache.Stale
		swr      = httpcache.StaleRevalidate
	)
	for _, tt := range []struct {
		why      string
		response string
		request  string
		age      time.Duration
		want     httpcache.Use
		onError  bool
	}{
		{"fresh until the lifetime, exclusive", "max-age=60", "", 59, fresh, true},
		{"stale from the lifetime on", "max-age=60", "", 60, validate, false},
		{"no-cache is never used unasked", "max-age=60, no-cache", "", 1, validate, false},
		{"client no-cache", "max-age=60", "no-cache", 1, validate, false},
		{"client no-store: asked, with what is stored for the case that it fails", "max-age=60", "no-store", 1, validate, true},
		{"client no-store and only-if-cached: nobody may be asked", "max-age=60", "no-store, only-if-cached", 1, fresh, true},
		{"client max-age=0", "max-age=60", "max-age=0", 1, validate, false},
		{"client max-age not reached", "max-age=60", "max-age=10", 10, fresh, true},
		{"client max-age invalid: validated, to be safe", "max-age=60", "max-age=x", 1, validate, false},
		{"min-fresh satisfied", "max-age=60", "min-fresh=10", 50, fresh, true},
		{"min-fresh not satisfied", "max-age=60", "min-fresh=11", 50, validate, true},
		{"max-stale without a value", "max-age=60", "max-stale", 9999, stale, false},
		{"max-stale within", "max-age=60", "max-stale=10", 70, stale, false},
		{"max-stale beyond", "max-age=60", "max-stale=10", 71, validate, false},
		{"max-stale against must-revalidate", "max-age=60, must-revalidate", "max-stale", 61, validate, false},
		{"max-stale against proxy-revalidate", "max-age=60, proxy-revalidate", "max-stale", 61, validate, false},
		{"max-stale against s-maxage", "s-maxage=60", "max-stale", 61, validate, false},
		{"RFC 5861 §3 within", "max-age=60, stale-while-revalidate=10", "", 69, swr, false},
		{"RFC 5861 §3 beyond", "max-age=60, stale-while-revalidate=10", "", 70, validate, false},
		{"must-revalidate beats stale-while-revalidate", "max-age=60, stale-while-revalidate=10, must-revalidate", "", 61, validate, false},
		{"proxy-revalidate beats stale-while-revalidate", "max-age=60, stale-while-revalidate=10, proxy-revalidate", "", 61, validate, false},
		{"proxy-revalidate beats stale-if-error", "max-age=60, stale-if-error=10, proxy-revalidate", "", 61, validate, false},
		{"the response may allow what s-maxage forbids", "s-maxage=60, stale-while-revalidate=10, stale-if-error=5", "", 61, swr, true},
		{"RFC 5861 §4 within", "max-age=60, stale-if-error=10", "", 69, validate, true},
		{"RFC 5861 §4 beyond", "max-age=60, stale-if-error=10", "", 70, validate, false},
		{"RFC 5861 §4 by the request", "max-age=60", "stale-if-error=10", 65, validate, true},
		{"must-revalidate beats stale-if-error", "max-age=60, stale-if-error=10, must-revalidate", "", 61, validate, false},
	} {
		f, reason := httpcache.Evaluate(get(), response(200, "Cache-Control: "+tt.response, `ETag: "a"`), policy)
		if reason != "" {
			t.Fatalf("%s: not storable: %s", tt.why, reason)
		}
		d := httpcache.NoRequestDirectives
		if tt.request != "" {
			d = httpcache.ParseRequest([]string{tt.request}, nil)
		}
		now := t0.Add(tt.age * time.Second)
		if got := f.Decide(&d, now); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.why, got, tt.want)
		}
		if got := f.StaleOnError(&d, now, 0); got != tt.onError {
			t.Errorf("%s: on error %v, want %v", tt.why, got, tt.onError)
		}
	}
}

func TestRFC9111Section5_4Pragma(t *testing.T) {
	t.Parallel()
	if d := httpcache.ParseRequest(nil, []string{"no-cache"}); !d.NoCache {
		t.Error("Pragma: no-cache alone is ignored")
	}
	if d := httpcache.ParseRequest([]string{"max-age=5"}, []string{"no-cache"}); d.NoCache {
		t.Error("Pragma counts although Cache-Control is there")
	}
}

func TestRFC9111Section4_1Vary(t *testing.T) {
	t.Parallel()
	fields, ok := httpcache.Vary(header("Vary: accept-encoding, X-B", "Vary: x-b"))
	if want := []string{"Accept-Encoding", "X-B"}; !ok || !slices.Equal(fields, want) {
		t.Errorf("fields %v, %v; want %v", fields, ok, want)
	}
	for _, bad := range []string{"*", "A, *", "a b", "x-forwarded-host", "Connection", "é"} {
		if _, ok := httpcache.Vary(header("Vary: " + bad)); ok {
			t.Errorf("Vary: %s is taken for storable", bad)
		}
	}
}

func TestRFC9111Section4_1SelectingFields(t *testing.T) {
	t.Parallel()
	key := func(field string, values ...string) string {
		return string(httpcache.AppendSelecting(nil, field, values))
	}
	for _, tt := range []struct {
		why   string
		a, b  string
		equal bool
	}{
		{"white space around commas", key("Accept-Language", "de , en"), key("Accept-Language", " de,en "), true},
		{"one line or two", key("X", "a", "b"), key("X", "a,b"), true},
		{"case, where the field ignores it", key("Accept-Encoding", "GZIP"), key("Accept-Encoding", "gzip"), true},
		{"case, where it may matter", key("X", "A"), key("X", "a"), false},
		{"absent isn't empty", key("X"), key("X", ""), false},
		{"inner white space separates words", key("X", "a b"), key("X", "ab"), false},
		{"order may matter", key("X", "a,b"), key("X", "b,a"), false},
		{"two fields can't run into each other", key("X", "a") + key("Y", "b"), key("X", "ab") + key("Y", ""), false},
	} {
		if (tt.a == tt.b) != tt.equal {
			t.Errorf("%s: %q and %q", tt.why, tt.a, tt.b)
		}
	}
	if got := string(httpcache.AppendSelecting(nil, "X", [][]byte{[]byte("a , b")})); got != key("X", "a,b") {
		t.Errorf("bytes and strings give different keys: %q", got)
	}
}

func TestRFC9111Section4_3_4Freshen(t *testing.T) {
	t.Parallel()
	stored := header(`ETag: "a"`, "Content-Type: text/plain", "Content-Length: 5", "X-Old: 1", "X-Two: 1", "X-Two: 2", "Warning: 110 - stale")
	merged, ok := httpcache.Freshen(stored, header(`ETag: "a"`, "Content-Length: 0", "Content-Type: text/html", "X-Two: 3", "X-New: 4", "Connection: X-Secret", "X-Secret: no"))
	if !ok {
		t.Fatal("a matching 304 is refused")
	}
	for name, want := range map[string][]string{
		"Content-Length": {"5"}, "Content-Type": {"text/html"}, "X-Old": {"1"}, "X-Two": {"3"}, "X-New": {"4"}, "X-Secret": nil, "Connection": nil, "Warning": nil,
	} {
		if got := merged[name]; !slices.Equal(got, want) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !slices.Equal(stored["X-Two"], []string{"1", "2"}) {
		t.Error("the stored header was changed in place")
	}
	if _, ok := httpcache.Freshen(stored, header(`ETag: "b"`)); ok {
		t.Error("a 304 for another strong validator is believed")
	}
}

func TestRFC9111Section4_3_1Conditions(t *testing.T) {
	t.Parallel()
	h := http.Header{}
	if httpcache.AddConditions(h, header("X: y")) || len(h) != 0 {
		t.Errorf("conditions without a validator: %v", h)
	}
	if !httpcache.AddConditions(h, header(`ETag: W/"a"`, "Last-Modified: x")) || h.Get("If-None-Match") != `W/"a"` || h.Get("If-Modified-Since") != "x" {
		t.Errorf("conditions %v", h)
	}
}

func TestRFC9110Section13Conditions(t *testing.T) {
	t.Parallel()
	const early, late = "Sun, 01 Mar 2026 11:00:00 GMT", "Sun, 01 Mar 2026 12:00:00 GMT"
	for _, tt := range []struct {
		why                       string
		match, since, tag, modifd string
		want                      bool
	}{
		{"same tag", `"a"`, "", `"a"`, "", true},
		{"weak comparison", `W/"a"`, "", `"a"`, "", true},
		{"in a list, with a comma inside a tag", `"x,y", "a"`, "", `"a"`, "", true},
		{"any", "*", "", "", "", true},
		{"another tag", `"b"`, "", `"a"`, "", false},
		{"an unquoted tag isn't one", "a", "", `"a"`, "", false},
		{"If-None-Match silences If-Modified-Since", `"b"`, late, `"a"`, early, false},
		{"not modified since", "", late, "", early, true},
		{"modified since", "", early, "", late, false},
		{"an invalid date is ignored", "", "yesterday", "", early, false},
		{"no condition", "", "", `"a"`, early, false},
	} {
		if got := (httpcache.Conditions{IfNoneMatch: tt.match, IfModifiedSince: tt.since, Etag: tt.tag, LastModified: tt.modifd}).NotModified(); got != tt.want {
			t.Errorf("%s: %v", tt.why, got)
		}
	}
}

func TestRFC9110Section14Ranges(t *testing.T) {
	t.Parallel()
	const lm = "Sun, 01 Mar 2026 11:00:00 GMT"
	for _, tt := range []struct {
		why         string
		field, ifR  string
		kind        httpcache.Range
		first, last int64
	}{
		{"first bytes", "bytes=0-3", "", httpcache.OneRange, 0, 3},
		{"open end", "bytes=4-", "", httpcache.OneRange, 4, 9},
		{"suffix", "bytes=-3", "", httpcache.OneRange, 7, 9},
		{"suffix longer than the body", "bytes=-30", "", httpcache.OneRange, 0, 9},
		{"end beyond the body", "bytes=5-99", "", httpcache.OneRange, 5, 9},
		{"begin beyond the body", "bytes=10-", "", httpcache.Unsatisfiable, 0, 0},
		{"an empty suffix", "bytes=-0", "", httpcache.Unsatisfiable, 0, 0},
		{"several are ignored", "bytes=0-1,3-4", "", httpcache.WholeBody, 0, 0},
		{"backwards is ignored", "bytes=3-1", "", httpcache.WholeBody, 0, 0},
		{"another unit is ignored", "lines=0-1", "", httpcache.WholeBody, 0, 0},
		{"not a number", "bytes=a-b", "", httpcache.WholeBody, 0, 0},
		{"If-Range matches strongly", "bytes=0-3", `"a"`, httpcache.OneRange, 0, 3},
		{"If-Range doesn't match", "bytes=0-3", `"b"`, httpcache.WholeBody, 0, 0},
		{"If-Range by date, exact", "bytes=0-3", lm, httpcache.OneRange, 0, 3},
	} {
		kind, first, last := httpcache.Conditions{IfRange: tt.ifR, Etag: `"a"`, LastModified: lm, Date: "Sun, 01 Mar 2026 12:00:00 GMT"}.Range(tt.field, 10)
		if kind != tt.kind || first != tt.first || last != tt.last {
			t.Errorf("%s: %v %d-%d", tt.why, kind, first, last)
		}
	}
}

func TestRFC9111Section4_4Invalidation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method string
		status int
		want   bool
	}{{"POST", 201, true}, {"PUT", 303, true}, {"DELETE", 404, false}, {"POST", 500, false}, {"GET", 200, false}, {"OPTIONS", 200, false}, {"BREW", 200, true}} {
		if got := httpcache.Invalidates(tt.method, tt.status); got != tt.want {
			t.Errorf("%s %d: %v", tt.method, tt.status, got)
		}
	}
	for _, tt := range []struct {
		why  string
		h    http.Header
		want []string
	}{
		{"relative", header("Location: ../b?x=1"), []string{"/b?x=1"}},
		{"absolute, same host in another case", header("Location: http://HOST.test/c"), []string{"/c"}},
		{"another host has no say", header("Location: http://evil.test/c"), nil},
		{"another scheme neither", header("Content-Location: https://host.test/c"), nil},
		{"both", header("Location: /x", "Content-Location: /y"), []string{"/x", "/y"}},
		{"malformed", header("Location: :%"), nil},
	} {
		if got := httpcache.InvalidatedTargets("http", "host.test", "/a/b", tt.h); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.why, got, tt.want)
		}
	}
}

func TestHopByHopFieldsAreStripped(t *testing.T) {
	t.Parallel()
	h := header("Connection: close, X-Mine", "X-Mine: 1", "Keep-Alive: 5", "Proxy-Authenticate: x", "Upgrade: y", "X-Yours: 2")
	httpcache.StripHopByHop(h)
	if len(h) != 1 || h.Get("X-Yours") != "2" {
		t.Errorf("left: %v", h)
	}
}
