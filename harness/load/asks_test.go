package load

import (
	"strings"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/timeline"

	"github.com/valyala/fasthttp"
)

// An answer that a request's own header asks for is expected, and nothing more
// than that: whatever can be checked of it is.
func TestJudgeWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	sent := time.Date(2026, 3, 9, 8, 0, 0, 0, time.UTC)
	whole := wire.Description{Key: "/a", Version: 1, Birth: sent.Add(-time.Second), Status: 200, Size: 10, Fresh: time.Hour}
	refused := wire.Description{Key: "/a", Version: 1, Birth: sent.Add(time.Millisecond), Status: 412}
	const body = "0123456789"
	fields := func(pairs ...string) (header [][2]string) {
		for i := 0; i < len(pairs); i += 2 {
			header = append(header, [2]string{pairs[i], pairs[i+1]})
		}
		return header
	}
	condition, ranged := fields("if-none-match", `"x"`), fields("Range", "bytes=0-3")
	for _, tt := range []struct {
		why     string
		asked   [][2]string
		d       wire.Description
		status  int
		body    string
		content string // Content-Range
		class   timeline.Class
		says    string
	}{
		{"not modified, as the condition has it", condition, whole, 304, "", "", timeline.OK, ""},
		{"by its date", fields("If-Modified-Since", "x"), whole, 304, "", "", timeline.OK, ""},
		{"nobody had a condition", fields("Accept", "*/*"), whole, 304, "", "", timeline.Wrong, "status 304"},
		{"a condition is no range", condition, whole, 206, "0123", "bytes 0-3/10", timeline.Wrong, "status 206"},
		{"modified: the whole", condition, whole, 200, body, "", timeline.OK, ""},
		{"another key isn't modified", condition, wire.Description{Key: "/b", Version: 1, Birth: sent, Status: 200, Fresh: time.Hour}, 304, "", "", timeline.Wrong, "/b"},
		{"a part", ranged, whole, 206, "0123", "bytes 0-3/10", timeline.OK, ""},
		{"of a size that isn't told", ranged, whole, 206, "0123", "bytes 0-3/*", timeline.OK, ""},
		{"fewer bytes than it says", ranged, whole, 206, "012", "bytes 0-3/10", timeline.Wrong, "3 bytes, and should be bytes 0 to 3"},
		{"of another size than the resource's", ranged, whole, 206, "0123", "bytes 0-3/11", timeline.Wrong, "11 bytes in all"},
		{"beyond its end", ranged, whole, 206, "0123", "bytes 8-11/*", timeline.Wrong, "bytes 8 to 11 of 10"},
		{"backwards", ranged, whole, 206, "", "bytes 3-2/10", timeline.Wrong, "bytes 3 to 2"},
		{"no place told", ranged, whole, 206, "0123", "", timeline.Wrong, "Content-Range"},
		{"a place that is none", ranged, whole, 206, "0123", "bytes 0-x/10", timeline.Wrong, "Content-Range"},
		{"all of it as a part: the sum counts", ranged, whole, 206, "0123456780", "bytes 0-9/10", timeline.Wrong, "checksum"},
		{"the whole in spite of the range", ranged, whole, 200, body, "", timeline.OK, ""},
		{"a damaged whole", ranged, whole, 200, "0123456780", "", timeline.Wrong, "checksum"},
		{"a range beyond the end", ranged, whole, 416, "", "bytes */10", timeline.OK, ""},
		{"of a resource that is longer", ranged, whole, 416, "", "bytes */2", timeline.Wrong, "2 bytes in all"},
		{"a precondition that failed", fields("If-Match", `"x"`), refused, 412, "", "", timeline.OK, ""},
		{"a precondition of nobody", nil, refused, 412, "", "", timeline.Status, "412"},
	} {
		a := described(tt.d, body[:tt.d.Size], func(h *fasthttp.ResponseHeader, b *string) {
			*b = tt.body
			h.SetStatusCode(tt.status)
			if tt.content != "" {
				h.Set("Content-Range", tt.content)
			}
		})
		h := &fasthttp.ResponseHeader{}
		h.SetStatusCode(tt.status)
		h.Set("Content-Range", tt.content)
		a.part = noted(h).part(h.StatusCode())
		x := newExtra(tt.asked, nil, nil)
		f := judge(expectation{method: "GET", target: []byte("/a"), sent: sent, verify: true, asks: request{extra: &x}.asked()}, a)
		if f.class != tt.class || tt.says != "" && !strings.Contains(f.why.Error(), tt.says) {
			t.Errorf("%s: class %s (%v), want %s with %q", tt.why, f.class, f.why, tt.class, tt.says)
		}
	}
}

func FuzzReadPart(f *testing.F) {
	f.Add(206, "bytes 0-3/10")
	f.Add(416, "bytes */10")
	f.Add(206, "bytes -1--2/-3")
	f.Fuzz(func(t *testing.T, status int, value string) {
		h := &fasthttp.ResponseHeader{}
		h.SetStatusCode(status)
		h.Set("Content-Range", value)
		p := noted(h).part(h.StatusCode())
		a := &answer{status: 206, part: p, length: 10}
		// Whatever it says, ten bytes are a part only where they fit.
		if status == 206 && p.compare(a, &wire.Description{Size: 20}) == nil && !p.several && (p.first < 0 || p.last != p.first+9 || p.last >= 20) {
			t.Errorf("%q makes ten bytes %d to %d of 20", value, p.first, p.last)
		}
	})
}

// A cache that answers one variant's request with another has mixed them up.
func TestJudgeVariants(t *testing.T) {
	t.Parallel()
	vary := []string{"Accept-Language", "User-Agent"}
	german := newExtra([][2]string{{"accept-language", "de"}}, nil, vary)
	g := &Generator{plain: variantOf(nil, vary)}
	for _, tt := range []struct {
		why     string
		r       request
		variant string
		size    int64
		class   timeline.Class
	}{
		{"its own", request{extra: &german}, "accept-language=de&user-agent=phasegate", 4, timeline.OK},
		{"another's", request{extra: &german}, "accept-language=en&user-agent=phasegate", 4, timeline.Wrong},
		{"nobody's", request{extra: &german}, "user-agent=phasegate", 4, timeline.Wrong},
		{"a request that selects by nothing but the generator's name", request{}, "user-agent=phasegate", 4, timeline.OK},
		{"and gets a variant", request{}, "accept-language=de&user-agent=phasegate", 4, timeline.Wrong},
		{"a coding that the proxy negotiates, and where it says that it is one", request{extra: &german}, "accept-encoding=gzip&accept-language=de&user-agent=phasegate&x-forwarded-proto=https", 4, timeline.OK},
		{"a receipt without a body is of no variant", request{extra: &german}, "", 0, timeline.OK},
	} {
		d := wire.Description{Key: "/a", Variant: tt.variant, Version: 1, Birth: time.Now(), Status: 200, Fresh: time.Hour, Size: tt.size}
		e := expectation{method: "GET", target: []byte("/a"), sent: time.Now(), verify: true, variant: g.variant(tt.r)}
		if f := judge(e, described(d, "body"[:tt.size], nil)); f.class != tt.class {
			t.Errorf("%s: class %s (%v), want %s", tt.why, f.class, f.why, tt.class)
		}
	}
}
