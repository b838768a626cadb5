package probe

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Bounds of one reading of a system's metrics.
const (
	metricsTime = time.Second
	metricsSize = 1 << 20 // bytes; what is longer isn't read
)

// Claims are what a system says of itself; 0 where it says nothing. They explain
// what is seen from outside, and prove nothing.
type Claims struct {
	LiveHeap     int64 // bytes reachable at the last garbage collection of a Go program
	CachePayload int64 // bytes held by its cache, keys and bookkeeping included
	Breakers     int64 // circuit breakers that it tells of
	OpenBreakers int64 // of them, those that let no request pass
}

// The metrics that are looked for, the better one first. What is allocated on a
// Go heap (go_memstats) has garbage in it; what is live has not, but is exported
// only where a program asks for it.
var (
	liveHeap     = []string{"go_gc_heap_live_bytes", "go_memstats_heap_alloc_bytes"}
	cachePayload = []string{"optimizer_cache_bytes"}
)

// breakerState is the metric of each circuit breaker, which has this value while
// it is open.
const (
	breakerState = "optimizer_breaker_state"
	breakerOpen  = 2
)

// Metrics reads a system's metrics in the Prometheus text format.
type Metrics struct {
	url    string
	client *http.Client
}

// NewMetrics returns a reader of the metrics at an address such as
// http://127.0.0.1:9100/metrics. It goes there directly, whatever proxy the
// environment names, and keeps its one connection open. Close it.
func NewMetrics(address *url.URL) *Metrics {
	return &Metrics{address.String(), &http.Client{
		Transport:     &http.Transport{MaxConnsPerHost: 1, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       metricsTime,
	}}
}

// Read asks once, for one second and 1 MiB at most. The error says what was
// asked and what came instead.
func (m *Metrics) Read(ctx context.Context) (Claims, error) {
	c, err := m.read(ctx)
	if err != nil {
		return Claims{}, fmt.Errorf("read metrics at %s: %w", m.url, err)
	}
	return c, nil
}

func (m *Metrics) read(ctx context.Context) (Claims, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url, nil)
	if err != nil {
		return Claims{}, err
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	resp, err := m.client.Do(req)
	if err != nil {
		return Claims{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Claims{}, fmt.Errorf("answered %s, want 200", resp.Status)
	}
	return parseClaims(io.LimitReader(resp.Body, metricsSize))
}

// Close gives up the connection.
func (m *Metrics) Close() { m.client.CloseIdleConnections() }

// parseClaims picks the claims from Prometheus text.
func parseClaims(r io.Reader) (Claims, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return Claims{}, err
	}
	c := Claims{LiveHeap: size(families, liveHeap), CachePayload: size(families, cachePayload)}
	for _, m := range families[breakerState].GetMetric() {
		c.Breakers++
		if m.GetGauge().GetValue()+m.GetUntyped().GetValue() == breakerOpen {
			c.OpenBreakers++
		}
	}
	return c, nil
}

// size is the value of the first of the names that is there, summed over its
// labels; 0 where none is a size.
func size(families map[string]*dto.MetricFamily, names []string) int64 {
	for _, name := range names {
		var sum float64
		for _, m := range families[name].GetMetric() {
			sum += m.GetGauge().GetValue() + m.GetUntyped().GetValue()
		}
		if sum > 0 && sum < math.MaxInt64 {
			return int64(sum)
		}
	}
	return 0
}
