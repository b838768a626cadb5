// Package telemetry holds what the optimizer says about itself: Prometheus
// metrics, on a registry of its own, and an access log. Traces are not there yet.
//
// The metrics' names are a contract with dashboards and alert rules. Those of the
// connections and the breaker have the upstream's host and port as a label, upstream:
//
//	optimizer_requests_total{result}           answered requests, by where the answer came from: hit, stale, miss, collapsed,
//	                                           revalidated, bypass, refused, purge
//	optimizer_responses_total{class}           the same, by class of status: 2xx, 3xx, 4xx, 5xx
//	optimizer_request_duration_seconds{result} from the parsed request to the prepared answer
//	optimizer_in_flight_requests               requests being answered
//	optimizer_cache_bytes, _cache_entries, _cache_evictions_total
//	optimizer_refreshes_total{outcome}         background revalidations: stored, unchanged, failed
//	optimizer_upstream_requests_total, _upstream_errors_total
//	optimizer_upstream_connections{protocol,state}        h2 and http/1.1; active, idle, or leaving after a GOAWAY or by age
//	optimizer_upstream_connection_uses_total{protocol,state}  requests on a new or a reused connection
//	optimizer_upstream_streams                 requests under way over HTTP/2
//	optimizer_upstream_dials_total             connections opened
//	optimizer_upstream_handshakes_total{kind}  connections made ready for requests: plain, full, or resumed (TLS)
//	optimizer_upstream_handshake_failures_total{reason}   dns, dial, dial_timeout, tls, tls_timeout, certificate, alpn, preface
//	optimizer_upstream_fallbacks_total{reason} decisions for HTTP/1.1 in place of HTTP/2: alpn, no_common_alpn, preface, silence, http_1_1_required
//	optimizer_upstream_goaways_total           HTTP/2 connections that the upstream gave notice on
//	optimizer_upstream_waiting_requests, _upstream_wait_seconds   for a connection or a stream; over HTTP/2 while connections are opened, too
//	optimizer_upstream_refused_total{reason}   times that a request or a probe got none: full (too many wait), timeout (it waited too long)
//	optimizer_upstream_retries_total{reason}   unsent, refused_stream, goaway: surely unprocessed; http_1_1_required, lost: idempotent
//	optimizer_upstream_retries_denied_total    for want of upstream.retry_budget
//	optimizer_upstream_ejected, _upstream_ejections_total{reason}   left out of several upstreams, for failed requests or probes
//	optimizer_upstream_probes_total{outcome}   good, bad
//	optimizer_breaker_state                    0 closed, 1 half-open, 2 open
//	go_*, process_*                            the Go runtime and the process
package telemetry
