package probe

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestParseClaims(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, text string
		want      Claims
	}{
		{"nothing said", "", Claims{}},
		{"a program that isn't of Go", "# TYPE nginx_connections gauge\nnginx_connections 7\n", Claims{}},
		{"allocated, where nothing better is exported", "# TYPE go_memstats_heap_alloc_bytes gauge\ngo_memstats_heap_alloc_bytes 1.5e+07\n", Claims{LiveHeap: 15e6}},
		{"live is better than allocated", "# TYPE go_gc_heap_live_bytes gauge\ngo_gc_heap_live_bytes 9e+06\n# TYPE go_memstats_heap_alloc_bytes gauge\ngo_memstats_heap_alloc_bytes 1.5e+07\n", Claims{LiveHeap: 9e6}},
		{"before the first collection nothing is live", "# TYPE go_gc_heap_live_bytes gauge\ngo_gc_heap_live_bytes 0\ngo_memstats_heap_alloc_bytes 2e6\n", Claims{LiveHeap: 2e6}},
		{"a cache, in shards", "# TYPE optimizer_cache_bytes gauge\noptimizer_cache_bytes{shard=\"0\"} 10\noptimizer_cache_bytes{shard=\"1\"} 32\n", Claims{CachePayload: 42}},
		{"no type given", "optimizer_cache_bytes 42\n", Claims{CachePayload: 42}},
		{"breakers of three upstreams, of which one is open", "# TYPE optimizer_breaker_state gauge\noptimizer_breaker_state{upstream=\"a\"} 0\noptimizer_breaker_state{upstream=\"b\"} 2\noptimizer_breaker_state{upstream=\"c\"} 1\n", Claims{Breakers: 3, OpenBreakers: 1}},
		{"no size", "optimizer_cache_bytes NaN\ngo_gc_heap_live_bytes -3\n", Claims{}},
		{"no size either", "optimizer_cache_bytes +Inf\n", Claims{}},
	} {
		got, err := parseClaims(strings.NewReader(tt.text))
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v, want %+v", tt.why, got, err, tt.want)
		}
	}
	if _, err := parseClaims(strings.NewReader("<html>")); err == nil {
		t.Error("a page was read as metrics")
	}
}

func FuzzParseClaims(f *testing.F) {
	f.Add([]byte("# TYPE optimizer_cache_bytes gauge\noptimizer_cache_bytes{a=\"b\"} 10\n"))
	f.Add([]byte("go_gc_heap_live_bytes 9.3e+18\noptimizer_cache_bytes -0\n"))
	f.Add([]byte("# TYPE go_gc_heap_live_bytes summary\ngo_gc_heap_live_bytes{quantile=\"0.5\"} 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := parseClaims(bytes.NewReader(text)); c.LiveHeap < 0 || c.CachePayload < 0 || err != nil && c != (Claims{}) {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

func TestMetricsRead(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/metrics":
			io.WriteString(w, "go_gc_heap_live_bytes 5\n")
		case "/moved":
			http.Redirect(w, r, "/metrics", http.StatusFound)
		case "/endless":
			for line := []byte(strings.Repeat("# nothing\n", 1000)); r.Context().Err() == nil; {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		case "/stuck":
			<-release
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	defer close(release)
	for _, tt := range []struct {
		path, fault string
		want        Claims
	}{
		{"/metrics", "", Claims{LiveHeap: 5}},
		{"/endless", "read metrics at " + server.URL + "/endless", Claims{}}, // cut off by its size or by time
		{"/none", "answered 404 Not Found, want 200", Claims{}},
		{"/moved", "answered 302 Found, want 200", Claims{}}, // nobody else's metrics
		{"/stuck", "read metrics at " + server.URL + "/stuck", Claims{}},
	} {
		address, err := url.Parse(server.URL + tt.path)
		if err != nil {
			t.Fatal(err)
		}
		m := NewMetrics(address)
		got, err := m.Read(context.Background())
		m.Close()
		if got != tt.want || (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%s: %+v, %v, want %+v, %q", tt.path, got, err, tt.want, tt.fault)
		}
	}
}
