// Package telemetry holds what the optimizer says about itself: Prometheus
// metrics, on a registry of its own, and an access log. Traces are not there yet.
//
// The metrics' names are a contract with dashboards and alert rules:
//
//	optimizer_requests_total{result}           answered requests, by where the answer came from
//	optimizer_responses_total{class}           the same, by class of status: 2xx, 3xx, 4xx, 5xx
//	optimizer_request_duration_seconds{result} from the parsed request to the prepared answer
//	optimizer_in_flight_requests               requests being answered
//	optimizer_cache_bytes, _cache_entries, _cache_evictions_total
//	optimizer_refreshes_total{outcome}         background revalidations: stored, unchanged, failed
//	optimizer_upstream_requests_total, _upstream_errors_total
//	optimizer_upstream_connections, _upstream_dials_total, _upstream_waiting_requests
//	optimizer_upstream_connection_uses_total{state}   requests on a new or a reused connection
//	optimizer_breaker_state                    0 closed, 1 half-open, 2 open
//	go_*, process_*                            the Go runtime and the process
package telemetry
