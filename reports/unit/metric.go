package unit

import "strings"

// Metric says how a metric of result.System is shown.
type Metric struct {
	Name  string // as in gates: "p95_latency"
	Label string // for people: "95th percentile latency"
	Unit  string // "" where it isn't known
}

// known lists the metrics in the order in which reports show them.
var known = []Metric{
	{"p50_latency", "50th percentile latency", "s"},
	{"p90_latency", "90th percentile latency", "s"},
	{"p95_latency", "95th percentile latency", "s"},
	{"p99_latency", "99th percentile latency", "s"},
	{"p999_latency", "99.9th percentile latency", "s"},
	{"mean_latency", "Mean latency", "s"},
	{"max_latency", "Longest latency", "s"},
	{"throughput", "Good responses", "1/s"},
	{"error_rate", "Error rate", "share"},
	{"availability", "Availability", "share"},
	{"timeout_rate", "Requests without an answer", "share"},
	{"cache_hit_ratio", "Cache hit ratio, by the upstream's ledger", "share"},
	{"claimed_hit_ratio", "Hit ratio that the system claims", "share"},
	{"claimed_open_breakers", "Circuit breakers open, by the system's own metrics", "count"},
	{"revalidation_ratio", "Revalidations", "share"},
	{"wrong_responses", "Wrong responses", "count"},
	{"stale_responses", "Stale responses", "count"},
	{"wrong_age", "Responses with a wrong Age or none", "count"},
	{"false_hit_ratio", "Hits claimed that were fetched", "share"},
	{"duplicate_fetches", "Fetches of what was being fetched", "share"},
	{"upstream_amplification", "Upstream requests per request", "ratio"},
	{"http2_adoption", "Upstream requests over HTTP/2", "share"},
	{"connection_reuse", "Upstream connection reuse", "share"},
	{"negotiation_success", "Upstream handshakes agreed", "share"},
	{"client_http2_adoption", "Client requests over HTTP/2", "share"},
	{"client_connection_reuse", "Client connection reuse", "share"},
	{"client_negotiation_success", "Client handshakes agreed", "share"},
	{"memory", "Peak memory", "B"},
	{"memory_growth_rate", "Memory growth", "B/h"},
	{"cpu", "Mean CPU", "share"},
	{"cpu_per_request", "CPU time per request", "s"},
	{"latency_improvement", "Latency, old over new", "ratio"},
	{"hit_latency_improvement", "Latency of a hit, direct over hit", "ratio"},
	{"throughput_improvement", "Sequential throughput, hits over direct", "ratio"},
	{"rollback_time", "Rollback time", "s"},
	{"detection_time", "Detection time", "s"},
}

// endings give the unit of metrics that a later harness may add.
var endings = []struct{ suffix, unit string }{
	{"_latency", "s"}, {"_time", "s"}, {"_lag", "s"},
	{"_ratio", "share"}, {"_rate", "share"}, {"_reuse", "share"}, {"_adoption", "share"}, {"_success", "share"},
	{"_share", "share"}, {"_completeness", "share"}, {"_uptime", "share"}, {"_score", "share"},
	{"_responses", "count"}, {"_requests", "count"}, {"_improvement", "ratio"}, {"_memory", "B"}, {"_bytes", "B"},
}

// Of describes the metric of that name, known or not, and gives its rank among
// the known ones; unknown ones rank behind all of them.
func Of(name string) (m Metric, rank int) {
	for i, k := range known {
		if k.Name == name {
			return k, i
		}
	}
	m = Metric{Name: name, Label: strings.ReplaceAll(name, "_", " ")}
	for _, e := range endings {
		if strings.HasSuffix(name, e.suffix) {
			m.Unit = e.unit
			break
		}
	}
	return m, len(known)
}
