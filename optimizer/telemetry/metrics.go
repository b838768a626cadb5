package telemetry

import (
	"net/http"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"phasegate/optimizer/arena"
	"phasegate/optimizer/upstream"
)

// Result says where an answer came from.
type Result int

const (
	Hit         Result = iota // fresh, from the cache
	Stale                     // stale, from the cache, where that is allowed
	Miss                      // from the upstream
	Collapsed                 // from the upstream, fetched for another request
	Revalidated               // from the cache, confirmed by the upstream
	Bypass                    // from the upstream, not a matter for the cache
	Refused                   // made here: a limit, an error, an open breaker
	Purged                    // made here: what the request named was invalidated
	results
)

// String is the label's value.
func (r Result) String() string {
	return [...]string{"hit", "stale", "miss", "collapsed", "revalidated", "bypass", "refused", "purge"}[r]
}

// Refresh says how a background revalidation ended.
type Refresh int

const (
	Stored    Refresh = iota // a new response was stored
	Unchanged                // the upstream confirmed the old one
	Failed                   // neither
	refreshes
)

// Handshake says how a client's TLS handshake ended.
type Handshake int

const (
	Full    Handshake = iota
	Resumed           // of an earlier session
	Broken            // no connection came of it
	handshakes
)

// Metrics counts. Recording doesn't allocate and takes no lock.
type Metrics struct {
	registry *prometheus.Registry
	requests [results]prometheus.Counter
	latency  [results]prometheus.Observer
	classes  [6]prometheus.Counter
	refresh  [refreshes]prometheus.Counter

	InFlight         prometheus.Gauge
	UpstreamRequests prometheus.Counter
	UpstreamErrors   prometheus.Counter
	HTTP2            prometheus.Counter // requests of clients that came over HTTP/2
	Handshakes       [handshakes]prometheus.Counter
}

// New returns metrics that read the cache's and the pools' own counters when they
// are scraped.
func New(cache func() arena.Stats, pools func() []upstream.Stats) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	// What is live after a collection, garbage excluded: go_gc_heap_live_bytes.
	live := collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: regexp.MustCompile(`^/gc/heap/live:bytes$`)})
	m.registry.MustRegister(collectors.NewGoCollector(live), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "optimizer_requests_total", Help: "Requests answered, by where the answer came from."}, []string{"result"})
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "optimizer_request_duration_seconds",
		Help:    "Time from the parsed request to the prepared answer, writing it excluded.",
		Buckets: []float64{25e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
	}, []string{"result"})
	for r := range results {
		m.requests[r] = requests.WithLabelValues(r.String())
		m.latency[r] = latency.WithLabelValues(r.String())
	}
	classes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "optimizer_responses_total", Help: "Requests answered, by class of status."}, []string{"class"})
	for i, class := range []string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		m.classes[i] = classes.WithLabelValues(class)
	}
	refresh := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "optimizer_refreshes_total", Help: "Background revalidations, by outcome."}, []string{"outcome"})
	for i, outcome := range []string{"stored", "unchanged", "failed"} {
		m.refresh[i] = refresh.WithLabelValues(outcome)
	}
	m.InFlight = prometheus.NewGauge(prometheus.GaugeOpts{Name: "optimizer_in_flight_requests", Help: "Requests being answered."})
	m.UpstreamRequests = prometheus.NewCounter(prometheus.CounterOpts{Name: "optimizer_upstream_requests_total", Help: "Requests for the upstream, without retries: those that no connection could be opened for too, but not those that the breaker or upstream.max_waiting and upstream.wait_timeout kept back."})
	m.UpstreamErrors = prometheus.NewCounter(prometheus.CounterOpts{Name: "optimizer_upstream_errors_total", Help: "Requests to the upstream without a whole answer, or with status 500, 502, 503 or 504."})
	m.HTTP2 = prometheus.NewCounter(prometheus.CounterOpts{Name: "optimizer_http2_requests_total", Help: "Those of the requests that came over HTTP/2."})
	outcomes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "optimizer_client_handshakes_total", Help: "TLS handshakes with clients, by outcome."}, []string{"outcome"})
	for i, outcome := range []string{"full", "resumed", "failed"} {
		m.Handshakes[i] = outcomes.WithLabelValues(outcome)
	}
	m.registry.MustRegister(m.HTTP2, outcomes, requests, latency, classes, refresh, m.InFlight, m.UpstreamRequests, m.UpstreamErrors)

	gauge := func(name, help string, read func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
	gauge("optimizer_cache_bytes", "Bytes accounted to the cache: keys, headers, bodies, bookkeeping.", func() float64 { return float64(cache().Bytes) })
	gauge("optimizer_cache_entries", "Entries in the cache.", func() float64 { return float64(cache().Entries) })
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "optimizer_cache_evictions_total", Help: "Entries dropped for room."}, func() float64 { return float64(cache().Evictions) }))
	m.registry.MustRegister(upstreams(pools))
	return m
}

// Answered records one answered request.
func (m *Metrics) Answered(r Result, status int, took time.Duration) {
	m.requests[r].Inc()
	m.latency[r].Observe(took.Seconds())
	class := status / 100
	if class < 0 || class > 5 {
		class = 0
	}
	m.classes[class].Inc()
}

// Refreshed records one background revalidation.
func (m *Metrics) Refreshed(outcome Refresh) { m.refresh[outcome].Inc() }

// Handler serves the metrics in the Prometheus text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
