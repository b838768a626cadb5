package optimizer

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"phasegate/optimizer/arena"
	"phasegate/optimizer/httpcache"
)

// primed returns a handler with one stored response, and a request that hits it.
func primed(t testing.TB, vary ...string) (*handler, *fasthttp.RequestCtx) {
	t.Helper()
	cfg := Config{}
	cfg.Upstream.URL = "http://127.0.0.1:1"
	o, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.cancel)
	ctx := new(fasthttp.RequestCtx)
	ctx.Init(new(fasthttp.Request), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, nil)
	ctx.Request.SetRequestURI("/items/17?page=2")
	ctx.Request.Header.SetHost("api.test")
	ctx.Request.Header.Set("Accept-Encoding", "gzip, br")
	ctx.Request.Header.Set("Accept-Language", "de, en")

	tk, _, _ := o.handler.store.begin([]byte("api.test/items/17?page=2"), nil, false)
	defer tk.end()
	header := http.Header{
		"Date": {"Sun, 01 Mar 2026 12:00:00 GMT"}, "Content-Type": {"application/json"}, "Cache-Control": {"public, max-age=600"},
		"Etag": {`"v1"`}, "Last-Modified": {"Sun, 01 Mar 2026 11:00:00 GMT"}, "Phasegate-Upstream": {"key=items/17; version=1; birth=1772366400000000000"},
	}
	body := bytes.Repeat([]byte("x"), 1024)
	fields := fieldsOf(header)
	object := newObject(o.handler.store.cache, 100, fields.size, len(body))
	defer object.release()
	fields.write(object.head, header)
	copy(object.body, body)
	object.status, object.fresh = 200, httpcache.Freshness{Born: time.Now().UnixNano(), Lifetime: time.Hour}
	object.refreshAt.Store(time.Now().Add(time.Hour).UnixNano())
	x := exchange{ctx: ctx, rules: o.handler.rules.Load()}
	if !o.handler.store.put(&tk, object, vary, x.selecting) {
		t.Fatal("not stored")
	}
	return o.handler, ctx
}

func TestHitDoesNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("sync.Pool drops items at random under the race detector")
	}
	for _, vary := range [][]string{nil, {"Accept-Encoding", "Accept-Language"}} {
		h, ctx := primed(t, vary...)
		n := testing.AllocsPerRun(200, func() {
			ctx.Response.Reset()
			h.serve(ctx)
		})
		if n != 0 || string(ctx.Response.Header.Peek("Cache-Status")) != "optimizer; hit" || len(ctx.Response.Body()) != 1024 {
			t.Errorf("vary %v: %v allocations, answer %s", vary, n, ctx.Response.Header.String())
		}
	}
}

func BenchmarkHit(b *testing.B) {
	for name, vary := range map[string][]string{"plain": nil, "vary": {"Accept-Encoding", "Accept-Language"}} {
		b.Run(name, func(b *testing.B) {
			h, ctx := primed(b, vary...)
			b.ReportAllocs()
			for b.Loop() {
				ctx.Response.Reset()
				h.serve(ctx)
			}
		})
	}
}

func TestEncodedHeaderReadsBack(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("l", 20_000) // lengths of one, two and three bytes
	h := http.Header{"Zz": {""}, "Aa": {"1", "2", long}, "Date": {"d"}, "Age": {"5"}, "Content-Length": {"9"}, long[:200]: {"v"}, long: {long[:127], long[:128]}, "Etag": {long[:16_384]}, "Via": {""}}
	want := maps.Clone(h)
	delete(want, "Age")
	delete(want, "Content-Length")
	s, err := newStore(arena.Config{MaxBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	fields := fieldsOf(h)
	o := newObject(s.cache, 0, fields.size, 3)
	defer o.release()
	fields.write(o.head, h)
	if name, value, _ := next(o.head); string(name) != "Date" || string(value) != "d" {
		t.Errorf("first field is %s", name)
	}
	if len(o.body) != 3 {
		t.Errorf("a body of %d bytes, want 3", len(o.body))
	}
	copy(o.body, "abc")
	got := o.header()
	if !reflect.DeepEqual(got, want) || o.field("Aa") == nil || o.field("Age") != nil {
		t.Errorf("read back: %v", got)
	}
	for i, name := range commonNames {
		if http.CanonicalHeaderKey(name) != name || commonCodes[name] != byte(i+1) {
			t.Errorf("%s can't come up, or twice", name)
		}
	}
}

// object makes one that says this of itself.
func (s *store) object(t testing.TB, status uint16, asked int64) *object {
	o := newObject(s.cache, 0, 0, 0)
	if o == nil {
		t.Error("no room")
		return nil
	}
	o.status, o.asked = status, asked
	return o
}

// Whatever the interleaving, what is stored after an invalidation returned was
// fetched after it began.
func TestInvalidationAndStoringHaveAnOrder(t *testing.T) {
	t.Parallel()
	s, err := newStore(arena.Config{MaxBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	key := []byte("h/a")
	var mu sync.Mutex
	version := uint16(0) // what the upstream would answer
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				tk, _, _ := s.begin(key, nil, false)
				mu.Lock()
				v := version
				mu.Unlock()
				o := s.object(t, v, time.Now().UnixNano())
				s.put(&tk, o, nil, nil)
				o.release()
				tk.end()
			}
		})
	}
	for range 500 {
		mu.Lock()
		version++
		v := version
		mu.Unlock()
		s.invalidate(key)
		o := s.peek(key)
		if o != nil && o.status < v {
			t.Fatalf("version %d is served after version %d was announced and the key invalidated", o.status, v)
		}
		o.release()
	}
	wg.Wait()
	for i := range s.stripes {
		if n := len(s.stripes[i].groups); n != 0 {
			t.Errorf("%d groups left behind", n)
		}
	}
}

func TestALaterAnswerIsNotReplacedByAnEarlierOne(t *testing.T) {
	t.Parallel()
	s, err := newStore(arena.Config{MaxBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	tk, _, _ := s.begin([]byte("h/a"), nil, false)
	defer tk.end()
	put := func(asked int64) bool {
		o := s.object(t, 200, asked)
		defer o.release()
		return s.put(&tk, o, nil, nil)
	}
	if !put(20) || put(10) || !put(30) {
		t.Error("want 20 stored, 10 refused, 30 stored")
	}
}

// Responses of one resource that vary by different fields: the key takes the union.
func TestVaryingByDifferentFields(t *testing.T) {
	t.Parallel()
	s, err := newStore(arena.Config{MaxBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	tk, _, _ := s.begin([]byte("h/a"), nil, false)
	defer tk.end()
	values := func(v string) func([]byte, []string) []byte {
		return func(dst []byte, fields []string) []byte { return append(dst, v+strings.Join(fields, ",")...) }
	}
	for i, field := range []string{"A", "B"} {
		o := s.object(t, uint16(i), 0)
		defer o.release()
		if !s.put(&tk, o, []string{field}, values(string(rune('x'+i)))) {
			t.Error("not stored")
		}
	}
	marker := s.peek([]byte("h/a"))
	defer marker.release()
	if marker.kind != varying || fmt.Sprint(marker.selectingFields(nil)) != "[A B]" {
		t.Errorf("marker %+v", marker)
	}
}
