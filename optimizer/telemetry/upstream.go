package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"phasegate/optimizer/upstream"
)

// upstreams collects the pools' own counters when they are scraped.
type upstreams func() []upstream.Stats

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("optimizer_"+name, help, append([]string{"upstream"}, labels...), nil)
}

var (
	connections   = describe("upstream_connections", "Connections open to the upstream.", "protocol", "state")
	uses          = describe("upstream_connection_uses_total", "Requests by the connection they got.", "protocol", "state")
	streams       = describe("upstream_streams", "Requests under way over HTTP/2.")
	dials         = describe("upstream_dials_total", "Connections opened to the upstream.")
	madeReady     = describe("upstream_handshakes_total", "Connections to the upstream made ready for requests, over HTTP/2 with SETTINGS exchanged, by kind of handshake.", "kind")
	failures      = describe("upstream_handshake_failures_total", "Tries to open a connection to the upstream that failed before it was ready, each address whose handshake fails by itself.", "reason")
	fallbacks     = describe("upstream_fallbacks_total", "Times that HTTP/1.1 took the place of HTTP/2 for a while, or kept it when HTTP/2 was tried again; requests that meet with the same at once count as one.", "reason")
	goAways       = describe("upstream_goaways_total", "HTTP/2 connections that the upstream gave notice on.")
	waiting       = describe("upstream_waiting_requests", "Requests that wait for a connection to the upstream, or a stream.")
	waits         = describe("upstream_wait_seconds", "How long requests waited for leave to use a connection to the upstream: over HTTP/2 for a stream, the time in which connections are opened for it included; over HTTP/1.1 for one of upstream.max_connections_per_host, opening it not included.")
	refused       = describe("upstream_refused_total", "Times that a request, a retry or a probe got no connection to the upstream, and no stream, because all were in use: full, upstream.max_waiting others waited; timeout, it waited for as long as it may. The request goes to another upstream, if there is one; else it is answered with 503, or what is stored, and so are those that wait for the same response.", "reason")
	retries       = describe("upstream_retries_total", "Requests sent to the upstream once more.", "reason")
	retriesDenied = describe("upstream_retries_denied_total", "Requests not sent once more for want of retry budget.")
	left          = describe("upstream_ejected", "1 while the upstream is left out, else 0.")
	ejections     = describe("upstream_ejections_total", "Times that the upstream was left out.", "reason")
	probes        = describe("upstream_probes_total", "Probes of the upstream's health, by outcome.", "outcome")
	breakerState  = describe("breaker_state", "0 closed, 1 half-open, 2 open.")
)

// Describe lists the metrics.
func (u upstreams) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(u, to) }

// Collect reads them.
func (u upstreams) Collect(to chan<- prometheus.Metric) {
	for _, s := range u() {
		collect(s, to)
	}
}

func collect(s upstream.Stats, to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, value, append([]string{s.Upstream}, labels...)...)
	}
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		send(d, prometheus.GaugeValue, float64(value), labels...)
	}
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(value), labels...)
	}
	each := func(d *prometheus.Desc, values map[string]uint64) {
		for name, n := range values {
			counter(d, n, name)
		}
	}
	for protocol, used := range s.Protocol {
		gauge(connections, used.Active, protocol, "active")
		gauge(connections, used.Idle, protocol, "idle")
		gauge(connections, used.Leaving, protocol, "leaving")
		counter(uses, used.Fresh, protocol, "new")
		counter(uses, used.Reused, protocol, "reused")
	}
	gauge(streams, s.Streams)
	counter(dials, s.Dials)
	each(madeReady, s.Handshakes)
	each(failures, s.Failures)
	each(fallbacks, s.Fallbacks)
	counter(goAways, s.GoAways)
	gauge(waiting, s.Waiting)
	buckets, count := map[float64]uint64{}, uint64(0)
	for i, bound := range upstream.WaitBounds {
		count += s.Waits.Counts[i]
		buckets[bound] = count
	}
	count += s.Waits.Counts[len(upstream.WaitBounds)]
	to <- prometheus.MustNewConstHistogram(waits, count, s.Waits.Sum.Seconds(), buckets, s.Upstream)
	each(refused, s.Refused)
	each(retries, s.Retries)
	counter(retriesDenied, s.RetriesDenied)
	out := 0
	if s.Out {
		out = 1
	}
	gauge(left, out)
	each(ejections, s.Ejections)
	each(probes, s.Probes)
	gauge(breakerState, int(s.State))
}
