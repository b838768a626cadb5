package httpcache_test

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"phasegate/optimizer/httpcache"
)

// Whatever the upstream writes, a response is never fresh beyond the longest
// lifetime it can have named, and never negative in age.
func FuzzEvaluate(f *testing.F) {
	for _, seed := range []string{"max-age=5", `private="a, b", max-age="1"`, "max-age=-1,s-maxage=99999999999", `a="\`, ",,=,", `no-cache="x`} {
		f.Add(seed, "10", "Sun, 01 Mar 2026 12:00:20 GMT", "max-stale=5")
	}
	f.Fuzz(func(t *testing.T, cc, age, expires, request string) {
		resp := response(200)
		resp.Header["Cache-Control"] = []string{cc}
		resp.Header["Age"] = []string{age}
		resp.Header["Expires"] = []string{expires}
		fr, reason := httpcache.Evaluate(get(), resp, policy)
		if reason != "" {
			return
		}
		if fr.Lifetime < 0 || fr.StaleIfError < httpcache.Absent || fr.StaleWhileRevalidate < 0 || fr.Age(t0) < 0 {
			t.Fatalf("negative duration in %+v", fr)
		}
		if most, known := longestNamed(cc, expires); known && fr.Lifetime > most {
			t.Fatalf("lifetime %v of %q, Expires %q: more than %v, the longest that they name", fr.Lifetime, cc, expires, most)
		}
		d := httpcache.ParseRequest([]string{request}, nil)
		now := t0.Add(fr.Lifetime)
		if use := fr.Decide(&d, now); use == httpcache.Fresh {
			t.Fatalf("fresh at the end of its lifetime: %+v", fr)
		}
		lower := strings.ToLower(cc)
		if !strings.ContainsAny(lower, `"=`) && !strings.Contains(lower, "must-understand") && strings.Contains(","+strings.ReplaceAll(lower, " ", "")+",", ",no-store,") {
			t.Fatalf("stored against %q", cc)
		}
	})
}

// longestNamed is the largest number in a Cache-Control, in seconds, or what is left until
// Expires, or what there is without a word, whichever is longest; not known if Expires is
// a date that only httpcache reads.
func longestNamed(cc, expires string) (most time.Duration, known bool) {
	most = policy.DefaultTTL
	if at, err := http.ParseTime(expires); err == nil {
		most = max(most, at.Sub(t0))
	} else if httpcache.ValidDate(expires) { // in a form that net/http doesn't read; FuzzDates has it
		return 0, false
	}
	for _, digits := range strings.FieldsFunc(cc, func(r rune) bool { return r < '0' || r > '9' }) {
		n, err := strconv.ParseInt(digits, 10, 32)
		if err != nil { // an overlong one means the greatest (RFC 9111 §1.2.2)
			n = math.MaxInt32 + 1
		}
		most = max(most, time.Duration(n)*time.Second)
	}
	return most, true
}

func FuzzParsersDoNotPanic(f *testing.F) {
	f.Add(`W/"a", "b`, "bytes=1-", "a , ,b")
	f.Fuzz(func(t *testing.T, tags, rng, vary string) {
		c := httpcache.Conditions{IfNoneMatch: tags, IfModifiedSince: tags, Etag: `"b"`, LastModified: tags, Date: tags}
		c.NotModified()
		kind, first, last := c.Range(rng, 10)
		if kind == httpcache.OneRange && (first < 0 || last > 9 || first > last) {
			t.Fatalf("range %d-%d of 10 bytes", first, last)
		}
		httpcache.Vary(http.Header{"Vary": {vary}})
		once := httpcache.AppendSelecting(nil, "X", []string{vary})
		if strings.IndexByte(vary, 0) < 0 {
			if again := httpcache.AppendSelecting(nil, "X", []string{string(once[:len(once)-1])}); string(once) != string(again) {
				t.Fatalf("normalising %q isn't stable: %q, then %q", vary, once, again)
			}
		}
		httpcache.InvalidatedTargets("http", "h", "/a", http.Header{"Location": {vary}})
	})
}

func FuzzTargetedFieldsDoNotPanic(f *testing.F) {
	for _, seed := range []string{"max-age=5", "max-age=5, &&", `no-cache="a, b"`, "max-age=?1;a=b", "private=(a b)", "max-age=-999999999999999", "a=:aGVsbG8=:", "a=%0"} { // the last: a panic of httpsfv before 1.1.2
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		h := http.Header{"Cdn-Cache-Control": {first, second}, "Etag": {`"a"`}}
		fr, reason := httpcache.Evaluate(get(), httpcache.Response{Status: 200, Header: h, RequestTime: t0, ResponseTime: t0}, httpcache.Policy{})
		if reason != "" {
			return
		}
		d, ok := httpcache.ParseTargeted(h["Cdn-Cache-Control"])
		if !ok { // as if it weren't there
			d = httpcache.ResponseDirectives{MaxAge: httpcache.Absent, SMaxAge: httpcache.Absent}
		}
		if d.NoStore && !d.MustUnderstand || d.Private || fr.Lifetime > max(0, d.MaxAge, d.SMaxAge) {
			t.Fatalf("%+v of %q, %q", fr, first, second)
		}
		if fr.Decide(&httpcache.NoRequestDirectives, t0.Add(fr.Lifetime)) == httpcache.Fresh {
			t.Fatalf("fresh at the end of its lifetime: %+v", fr)
		}
	})
}

// What net/http takes for a date and what this package does differ only in what
// RFC 9111 §4.2 asks for.
func FuzzDates(f *testing.F) {
	for _, seed := range []string{"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "sun, 06 NOV 1994 08:49:37 gmt", "Sunday, 29-Feb-00 08:49:37 GMT", "0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !httpcache.ValidDate(s) {
			return
		}
		resp := response(200, "Cache-Control: public", `ETag: "a"`)
		resp.Header["Expires"] = []string{s}
		fr, reason := httpcache.Evaluate(get(), resp, httpcache.Policy{})
		if reason != "" || fr.Lifetime < 0 || fr.Lifetime > (1<<31)*time.Second {
			t.Fatalf("Expires %q: %+v, %q", s, fr, reason)
		}
		if want, err := http.ParseTime(s); err == nil && strings.Contains(s, ", ") && len(s) == 29 && fr.Lifetime > 0 && fr.Lifetime != min(want.Sub(t0), (1<<31)*time.Second) {
			t.Fatalf("Expires %q: lifetime %v", s, fr.Lifetime)
		}
	})
}

// A 304 or a HEAD never changes what the stored bytes are, and no field of one hop
// gets in.
func FuzzUpdatesKeepTheBody(f *testing.F) {
	f.Add(`"a"`, "Content-Length", "5", "Content-Encoding")
	f.Add(`W/"a"`, "X-A", "1", "x-a, keep-alive")
	f.Fuzz(func(t *testing.T, tag, name, value, connection string) {
		stored := header(`ETag: "a"`, "Content-Length: 5", "Content-Encoding: gzip", "X-A: 0")
		update := http.Header{"Etag": {tag}, "Connection": {connection}}
		update.Set(name, value)
		for _, merge := range []func() (http.Header, bool){
			func() (http.Header, bool) { return httpcache.Freshen(stored, update) },
			func() (http.Header, bool) { return httpcache.HeadFreshens(stored, update, 5) },
		} {
			merged, ok := merge()
			if !ok {
				continue
			}
			for _, kept := range []string{"Etag", "Content-Length", "Content-Encoding", "Content-Range", "Connection", "Transfer-Encoding"} {
				if merged.Get(kept) != stored.Get(kept) {
					t.Fatalf("%s became %q", kept, merged.Get(kept))
				}
			}
		}
	})
}

func FuzzLinksDoNotPanic(f *testing.F) {
	f.Add(`</a>; rel="x inv-by", <b>;rel=inv-by`, "/c/d?e")
	f.Fuzz(func(t *testing.T, link, target string) {
		for _, key := range httpcache.InvalidatedBy("http", "h", target, http.Header{"Link": {link}}) {
			if !strings.Contains(key, "/") && !strings.Contains(key, "*") {
				t.Fatalf("key %q of %q", key, link)
			}
		}
	})
}
