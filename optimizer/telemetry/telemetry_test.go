package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"phasegate/optimizer/arena"
	"phasegate/optimizer/telemetry"
	"phasegate/optimizer/upstream"
)

func newMetrics() *telemetry.Metrics {
	return telemetry.New(
		func() arena.Stats { return arena.Stats{Bytes: 123, Entries: 4, Evictions: 5} },
		func() []upstream.Stats {
			return []upstream.Stats{{
				Upstream: "api:80", Protocol: map[string]upstream.Usage{"h2": {Active: 6, Reused: 7}}, Retries: map[string]uint64{"goaway": 8},
				Waits: upstream.Histogram{Counts: [len(upstream.WaitBounds) + 1]uint64{9, 1}, Sum: time.Millisecond}, State: upstream.Open,
			}}
		})
}

func TestMetricsAreServedUnderTheirDocumentedNames(t *testing.T) {
	t.Parallel()
	m := newMetrics()
	m.Answered(telemetry.Hit, 200, time.Millisecond)
	m.Answered(telemetry.Refused, 999, time.Millisecond)
	m.Refreshed(telemetry.Unchanged)
	m.UpstreamRequests.Inc()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()
	for _, line := range []string{
		`optimizer_requests_total{result="hit"} 1`, `optimizer_requests_total{result="miss"} 0`,
		`optimizer_responses_total{class="2xx"} 1`, `optimizer_responses_total{class="other"} 1`,
		`optimizer_request_duration_seconds_count{result="hit"} 1`, `optimizer_refreshes_total{outcome="unchanged"} 1`,
		`optimizer_cache_bytes 123`, `optimizer_cache_entries 4`, `optimizer_cache_evictions_total 5`,
		`optimizer_upstream_requests_total 1`, `optimizer_upstream_connections{protocol="h2",state="active",upstream="api:80"} 6`,
		`optimizer_upstream_connection_uses_total{protocol="h2",state="reused",upstream="api:80"} 7`, `optimizer_upstream_retries_total{reason="goaway",upstream="api:80"} 8`,
		`optimizer_upstream_wait_seconds_bucket{upstream="api:80",le="0"} 9`, `optimizer_upstream_wait_seconds_count{upstream="api:80"} 10`, `optimizer_breaker_state{upstream="api:80"} 2`,
		`go_goroutines `, `go_gc_heap_live_bytes `, `optimizer_in_flight_requests 0`,
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("no line %q", line)
		}
	}
}

func TestRecordingDoesNotAllocate(t *testing.T) {
	m := newMetrics()
	if n := testing.AllocsPerRun(100, func() { m.Answered(telemetry.Hit, 200, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	var none *telemetry.AccessLog
	none.Write(telemetry.Access{})
	if none.Enabled() {
		t.Error("no log, but enabled")
	}
	var out bytes.Buffer
	l := telemetry.NewAccessLog(telemetry.JSON, &out)
	l.Write(telemetry.Access{Method: "GET", Target: "/a\nb", Status: 200, Result: telemetry.Stale})
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"method":"GET"`, `"target":"/a\nb"`, `"status":200`, `"cache":"stale"`} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("%s isn't in %s", part, out.String())
		}
	}
	if strings.Count(out.String(), "\n") != 1 {
		t.Error("not one line")
	}
}

func TestCombinedLinesCannotBeForged(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := telemetry.NewAccessLog(telemetry.Combined, &out)
	l.Write(telemetry.Access{
		Begun: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Client: "10.0.0.1", Method: "GET", Target: "/a", Protocol: "HTTP/1.1",
		Status: 200, Size: 12, Agent: "x\" 200\n", Result: telemetry.Hit, Took: 1500 * time.Microsecond,
	})
	l.Write(telemetry.Access{Begun: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Client: "10.0.0.1", Protocol: "HTTP/1.1", Status: 400, Result: telemetry.Refused})
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := `10.0.0.1 - - [04/Mar/2026:05:06:07 +0000] "GET /a HTTP/1.1" 200 12 "-" "x\x22 200\x0a" hit 0.001500` + "\n" +
		`10.0.0.1 - - [04/Mar/2026:05:06:07 +0000] "- - HTTP/1.1" 400 0 "-" "-" refused 0.000000` + "\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", out.String(), want)
	}
}

func TestNoLineIsLost(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := telemetry.NewAccessLog(telemetry.JSON, &out)
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 5000 {
				l.Write(telemetry.Access{Method: "GET", Target: "/0123456789012345678901234567890123456789", Status: 200})
			}
		})
	}
	writers.Wait()
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(out.Bytes(), []byte("\n")); n != 40000 {
		t.Errorf("%d lines of 40000", n)
	}
}

// While a reader is slow, requests wait; when they are to wait no longer, and even when it
// is given up on, what it takes later is complete.
func TestALogThatNobodyReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		l := telemetry.NewAccessLog(telemetry.JSON, w)
		var written atomic.Int64
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				for range 500 {
					l.Write(telemetry.Access{Target: strings.Repeat("x", 1000)})
					written.Add(1)
				}
			})
		}
		synctest.Wait()
		if n := written.Load(); n < 800 || n > 2200 {
			t.Errorf("%d lines of 1 kB were taken, must be 1 or 2 MB", n)
		}
		l.Hurry()
		writers.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "4000 lines are left") {
			t.Errorf("given up on: %v", err)
		}
		l.Write(telemetry.Access{})
		var read bytes.Buffer
		go func() {
			l.Close(t.Context())
			w.Close()
		}()
		if _, err := io.Copy(&read, r); err != nil || bytes.Count(read.Bytes(), []byte("\n")) != 4001 {
			t.Errorf("%d lines of 4001, %v", bytes.Count(read.Bytes(), []byte("\n")), err)
		}
	})
}
