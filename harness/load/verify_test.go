package load

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/timeline"

	"github.com/valyala/fasthttp"
)

// described makes an answer as the mock upstream does, and lets edit spoil it.
func described(d wire.Description, body string, edit func(*fasthttp.ResponseHeader, *string)) *answer {
	value := d.Seal([]byte(body))
	h := &fasthttp.ResponseHeader{}
	h.SetStatusCode(d.Status)
	h.Set(wire.Header, value)
	if edit != nil {
		edit(h, &body)
	}
	a := &answer{status: h.StatusCode(), length: int64(len(body)), declared: -1, proof: noted(h).proof()}
	if a.proof.present && a.proof.fault == nil {
		_, _ = a.proof.digest.Write([]byte(body))
	}
	return a
}

func TestJudge(t *testing.T) {
	t.Parallel()
	sent := time.Date(2026, 3, 9, 8, 0, 0, 1_500, time.UTC) // 1.5 µs past
	ago := func(d time.Duration) time.Time { return sent.Truncate(time.Microsecond).Add(-d) }
	right := wire.Description{Key: "/items/k1", Version: 3, Birth: ago(time.Minute), Status: 200, Fresh: 10 * time.Minute, Grace: time.Minute}
	with := func(edit func(*wire.Description)) wire.Description {
		d := right
		edit(&d)
		return d
	}
	type spoil = func(h *fasthttp.ResponseHeader, body *string)
	bare := func(status int) spoil {
		return func(h *fasthttp.ResponseHeader, _ *string) { h.Del(wire.Header); h.SetStatusCode(status) }
	}
	const stale, blocking, proven, earlier = 1, 2, 4, 8
	for _, tt := range []struct {
		why   string
		d     wire.Description
		spoil spoil
		e     expectation
		class timeline.Class
		flags int
		says  string
	}{
		{"a hit", right, nil, expectation{}, timeline.OK, proven, ""},
		{"another key's answer", with(func(d *wire.Description) { d.Key = "/items/k2" }), nil, expectation{}, timeline.Wrong, proven, "/items/k2"},
		{"a damaged byte", right, func(_ *fasthttp.ResponseHeader, b *string) { *b = "Body" }, expectation{}, timeline.Wrong, proven, "checksum"},
		{"a body cut off and its length put right", right, func(_ *fasthttp.ResponseHeader, b *string) { *b = "bod" }, expectation{}, timeline.Wrong, proven, "3 bytes, but the upstream had made 4"},
		{"a body with something behind it", right, func(_ *fasthttp.ResponseHeader, b *string) { *b += "<!-- -->" }, expectation{}, timeline.Wrong, proven, "12 bytes"},
		{"another answer's body under this description", right, func(h *fasthttp.ResponseHeader, _ *string) {
			other := with(func(d *wire.Description) { d.Version = 4 })
			h.Set(wire.Header, other.Seal([]byte("ydob")))
		}, expectation{}, timeline.Wrong, proven, "checksum"},
		{"an error page made into a success", with(func(d *wire.Description) { d.Status = 404 }), func(h *fasthttp.ResponseHeader, _ *string) { h.SetStatusCode(200) }, expectation{}, timeline.Wrong, proven, "had answered 404"},
		{"a description that was tampered with", right, func(h *fasthttp.ResponseHeader, _ *string) { h.Set(wire.Header, "2 from= key=/items/k1") }, expectation{}, timeline.Wrong, 0, ""},
		{"two answers in one", right, func(h *fasthttp.ResponseHeader, _ *string) { h.Add(wire.Header, "2 from= key=x") }, expectation{}, timeline.Wrong, 0, "2 self-descriptions"},
		{"no description", right, bare(200), expectation{}, timeline.Unproven, 0, "no Phasegate-Upstream field"},
		{"another run's upstream", with(func(d *wire.Description) { d.From, d.Birth = "r2/new", ago(-time.Millisecond) }), nil, expectation{from: "r1/new"}, timeline.Unproven, 0, `made by "r2/new"; expected is "r1/new"`},
		{"the other arm's, whose requests this arm's ledger doesn't see", with(func(d *wire.Description) { d.From = "r1/old" }), nil, expectation{from: "r1/new"}, timeline.Unproven, 0, `"r1/old"`},
		{"a cache that an earlier run has warmed", with(func(d *wire.Description) { d.From = "r0/new" }), nil, expectation{from: "r1/new", since: ago(time.Second)}, timeline.OK, proven | earlier, ""},
		{"another variant", with(func(d *wire.Description) { d.Variant = "accept-language=de" }), nil, expectation{}, timeline.Wrong, proven, "accept-language=de"},
		{"the variant that was asked for", with(func(d *wire.Description) { d.Variant = "accept-language=de" }), nil, expectation{variant: "accept-language=de"}, timeline.OK, proven, ""},
		{"the system's own 429", right, bare(429), expectation{}, timeline.Status, 0, "status 429; expected is 2xx"},
		{"the system's own 404 for a path logged as 404 isn't the upstream's", right, bare(404), expectation{catalog: wire.Catalog{"/items/k1": {Status: 404}}}, timeline.Unproven, 0, ""},
		{"the upstream's", with(func(d *wire.Description) { d.Status = 404 }), nil, expectation{catalog: wire.Catalog{"/items/k1": {Status: 404}}}, timeline.OK, proven, ""},
		{"another status than the logged one", with(func(d *wire.Description) { d.Status = 410 }), nil, expectation{catalog: wire.Catalog{"/items/k1": {Status: 404}}}, timeline.Status, proven, "expected is 404"},
		{"a 304 that nobody had a condition for", right, bare(304), expectation{}, timeline.Status, 0, "304"},
		{"502 by the system", right, bare(502), expectation{}, timeline.ServerError, 0, "502"},
		{"503 by the upstream", with(func(d *wire.Description) { d.Status = 503 }), nil, expectation{}, timeline.ServerError, proven, "503"},
		{"HEAD has no body to check", right, func(_ *fasthttp.ResponseHeader, b *string) { *b = "" }, expectation{method: "HEAD"}, timeline.OK, proven, ""},

		{"as old as is allowed", with(func(d *wire.Description) { d.Birth = ago(11 * time.Minute) }), nil, expectation{}, timeline.OK, proven, ""},
		{"within the second to which HTTP tells ages", with(func(d *wire.Description) { d.Birth = ago(11*time.Minute + time.Second) }), nil, expectation{}, timeline.OK, proven, ""},
		{"older", with(func(d *wire.Description) { d.Birth = ago(11*time.Minute + time.Second + time.Microsecond) }), nil, expectation{}, timeline.OK, proven | stale, "allowed are 10m0s of freshness and 1m0s beyond"},
		{"what mustn't be stored is stale at any age", with(func(d *wire.Description) { d.Birth, d.Fresh, d.Grace = ago(time.Microsecond), 0, 0 }), nil, expectation{}, timeline.OK, proven | stale, "1µs old"},
		{"made for this request", with(func(d *wire.Description) { d.Birth, d.Fresh, d.Grace = ago(-time.Millisecond), 0, 0 }), nil, expectation{}, timeline.OK, proven | blocking, ""},
		{"made in the very microsecond of the send", with(func(d *wire.Description) { d.Birth, d.Fresh, d.Grace = ago(0), 0, 0 }), nil, expectation{}, timeline.OK, proven | blocking, ""},
		{"the version before a write of ours", right, nil, expectation{version: 4}, timeline.OK, proven | stale, "version 3, though a write"},
		{"the version of it", right, nil, expectation{version: 3}, timeline.OK, proven, ""},
		{"a receipt for a write", with(func(d *wire.Description) { d.Birth, d.Fresh, d.Grace = ago(-time.Millisecond), 0, 0 }), nil, expectation{method: "POST"}, timeline.OK, proven | blocking, ""},
		{"a receipt from before the write", with(func(d *wire.Description) { d.Birth, d.Fresh, d.Grace = ago(2*time.Second), 0, 0 }), nil, expectation{method: "POST"}, timeline.Wrong, proven, "another request's"},
	} {
		e := tt.e
		if e.method == "" {
			e.method = "GET"
		}
		e.verify, e.target, e.sent = true, []byte("/items/k1"), sent
		f := judge(e, described(tt.d, "body", tt.spoil))
		got := 0
		for bit, set := range map[int]bool{stale: f.stale, blocking: f.blocking, proven: f.proven, earlier: f.earlier} {
			if set {
				got |= bit
			}
		}
		if f.class != tt.class || got != tt.flags {
			t.Errorf("%s: class %s, stale %t, blocking %t, proven %t; want %s and flags %03b (%v)", tt.why, f.class, f.stale, f.blocking, f.proven, tt.class, tt.flags, f.why)
		}
		if bad := f.class != timeline.OK || f.stale; bad != (f.why != nil) || !strings.Contains(fmt.Sprint(f.why), tt.says) {
			t.Errorf("%s: the reason is %v, want one with %q", tt.why, f.why, tt.says)
		}
	}
}

// Without verification the status is all there is.
func TestJudgeUnverified(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]timeline.Class{
		200: timeline.OK, 204: timeline.OK, 301: timeline.Status, 404: timeline.Status, 410: timeline.OK, 500: timeline.ServerError,
	} {
		e := expectation{method: "GET", target: []byte("/a"), catalog: wire.Catalog{"/a": {Status: 410}}}
		if f := judge(e, &answer{status: status, length: 3}); f.class != want || f.proven || f.blocking || f.stale {
			t.Errorf("status %d: %+v, want class %s", status, f, want)
		}
	}
}

func TestJudgeHeadLength(t *testing.T) {
	t.Parallel()
	d := wire.Description{Key: "/a", Status: 200, Birth: time.Now()}
	a := described(d, "body", nil)
	a.declared = 9
	f := judge(expectation{method: "HEAD", target: []byte("/a"), verify: true}, a)
	if f.class != timeline.Wrong || !strings.Contains(f.why.Error(), "Content-Length 9") {
		t.Errorf("HEAD with a wrong Content-Length is %s: %v", f.class, f.why)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	const none, hit, miss = timeline.NoClaim, timeline.ClaimHit, timeline.ClaimMiss
	for _, tt := range []struct {
		why, name, value string
		want             timeline.Claim
	}{
		{"nothing said", "Server", "hit", none},
		{"RFC 9211: a hit", "Cache-Status", `ExampleCache; hit; ttl=376`, hit},
		{"in long form", "Cache-Status", `ExampleCache;hit=?1`, hit},
		{"a miss", "Cache-Status", `ExampleCache; fwd=uri-miss; stored`, miss},
		{"a boolean that is false", "Cache-Status", `ExampleCache; hit=?0`, miss},
		{"any cache on the way", "Cache-Status", `Origin; fwd=miss, "Edge; hit, too"; fwd=stale, CDN; hit`, hit},
		{"a detail that talks of hits", "Cache-Status", `A; fwd=miss; detail="no ; hit, sorry \"; hit"`, miss},
		{"a cache called hit", "Cache-Status", `hit; fwd=bypass`, miss},
		{"a name alone says nothing", "Cache-Status", `A`, none},
		{"Squid, Apache", "X-Cache", "HIT from proxy.example", hit},
		{"CloudFront", "X-Cache", "Miss from cloudfront", miss},
		{"Varnish, by common configuration", "X-Cache", "hit", hit},
		{"nginx, by common configuration", "X-Cache-Status", "EXPIRED", miss},
		{"which served what it had", "X-Cache-Status", "UPDATING", hit},
		{"an age", "Age", "12", hit},
		{"of a new answer", "Age", "0", none},
		{"of nonsense", "Age", "old", none},
	} {
		h := &fasthttp.ResponseHeader{}
		h.Set(tt.name, tt.value)
		if got := noted(h).claim(); got != tt.want {
			t.Errorf("%s: %s: %s claims %d, want %d", tt.why, tt.name, tt.value, got, tt.want)
		}
	}
}

func FuzzCacheStatus(f *testing.F) {
	f.Add(`A; hit, B; fwd=miss; detail="\"`)
	f.Add(`"\`)
	f.Add(`;;,,=`)
	f.Fuzz(func(t *testing.T, v string) {
		claim := cacheStatus([]byte(v))
		if claim == timeline.ClaimHit && !strings.Contains(v, "hit") {
			t.Errorf("%q claims a hit", v)
		}
		if claim == timeline.ClaimMiss && !strings.Contains(v, "hit") && !strings.Contains(v, "fwd") {
			t.Errorf("%q claims a miss", v)
		}
	})
}
