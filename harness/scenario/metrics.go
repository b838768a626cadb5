package scenario

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// Why this version can't measure some of the plan's metrics.
const (
	whyDashboards = "this version has no dashboards to probe"
	whyAlerts     = "this version raises no alerts"
	whyTraces     = "this version collects no traces"
	whyLogs       = "this version collects no logs"
	whySecurity   = "this version runs no security checks"
	whyRollback   = "this version evaluates triggers and doesn't act on them"
	whyFaults     = "this version doesn't time how faults are detected"
	whyBusiness   = "this version has no model of costs and users"
	whyDeployment = "this version deploys nothing"
)

// catalogue lists every metric under its name, in the order of the reference.
// Quantiles of latency are here by their usual names; [Lookup] knows the rest.
var catalogue = []Metric{
	quantileMetric("p50_latency", 0.50),
	quantileMetric("p90_latency", 0.90),
	quantileMetric("p95_latency", 0.95),
	quantileMetric("p99_latency", 0.99),
	quantileMetric("p999_latency", 0.999),
	{Name: "mean_latency", Unit: Seconds, Estimator: ByMean, Source: FromGenerator,
		Help: "mean time from the due time to the last body byte, one without an answer counted with at least the timeout"},
	{Name: "max_latency", Unit: Seconds, Estimator: ByPeak, Source: FromGenerator,
		Help: "longest time from the due time to the last body byte, one without an answer counted with at least the timeout"},
	{Name: "error_rate", Unit: Share, Estimator: ByShare, Source: FromGenerator,
		Help: "share of requests with a transport error, a timeout, a 5xx, an unexpected status or a wrong response"},
	{Name: "availability", Unit: Share, Estimator: ByShare, Source: FromGenerator,
		Help: "share of requests that got a usable answer: no transport error, timeout or 5xx"},
	{Name: "timeout_rate", Unit: Share, Estimator: ByShare, Source: FromGenerator,
		Help: "share of requests that got no answer at all within load.timeout, so neither a result nor an error: a hang"},
	{Name: "throughput", Unit: PerSecond, Estimator: ByMean, Source: FromGenerator,
		Help: "good responses per second"},
	{Name: "cache_hit_ratio", Unit: Share, Estimator: ByShare, Source: FromLedger,
		Help: "1 − upstream requests ÷ cacheable requests sent to the system"},
	{Name: "revalidation_ratio", Unit: Share, Estimator: ByShare, Source: FromLedger,
		Help: "share of cacheable requests sent to the system that made it ask the upstream whether a stored response still holds"},
	{Name: "blocking_ratio", Unit: Share, Estimator: ByShare, Source: FromGenerator,
		Help: "share of GET and HEAD answers born after they were asked for, so that the client waited for the upstream; needs verification"},
	{Name: "claimed_hit_ratio", Unit: Share, Estimator: ByShare, Source: FromHeaders,
		Help: "hit ratio by the system's own Cache-Status, X-Cache or Age fields"},
	{Name: "claimed_open_breakers", Unit: Count, Estimator: ByPeak, Source: FromHeaders,
		Help: "circuit breakers that were open at once, at the most, by the system's own metrics"},
	{Name: "wrong_responses", Unit: Count, Estimator: ByCount, Source: FromGenerator,
		Help: "responses of another key or variant, cut short or with a wrong checksum; needs verification"},
	{Name: "stale_responses", Unit: Count, Estimator: ByCount, Source: FromGenerator,
		Help: "responses older than their lifetime plus any stale-while-revalidate or stale-if-error; needs verification"},
	{Name: "wrong_age", Unit: Count, Estimator: ByCount, Source: FromGenerator,
		Help: "responses from a store without an Age field, or with one that is off by more than 2 s (RFC 9111, section 4); needs verification"},
	{Name: "false_hit_ratio", Unit: Share, Estimator: ByShare, Source: FromLedger,
		Help: "share of answers that claim to be a hit and were fetched: upstream reads, revalidations aside, that no answer claims as a miss"},
	{Name: "duplicate_fetches", Unit: Share, Estimator: ByShare, Source: FromLedger,
		Help: "share of upstream reads that asked for what was being fetched already and may be shared: what collapsing requests saves"},
	{Name: "upstream_amplification", Unit: Ratio, Estimator: ByPeak, Source: FromLedger,
		Help: "upstream requests ÷ requests due to the system, in the second with the most; above 1 it asks more than it is asked"},
	{Name: "http2_adoption", Unit: Share, Estimator: ByShare, Source: FromLedger,
		Help: "share of upstream requests over HTTP/2"},
	{Name: "connection_reuse", Unit: Share, Estimator: ByShare, Source: FromLedger,
		Help: "share of upstream requests on a connection that was used before"},
	{Name: "negotiation_success", Unit: Share, Estimator: ByShare, Source: FromLedger,
		Help: "share of TLS handshakes with the upstream that ended in a protocol both sides offer; no handshakes are no sample"},
	{Name: "memory", Unit: Bytes, Estimator: ByPeak, Source: FromResources,
		Help: "peak resident memory of the system's process tree"},
	{Name: "cpu", Unit: Share, Estimator: ByMean, Source: FromResources,
		Help: "mean CPU time of the system's process tree ÷ CPUs available"},
	{Name: "memory_growth_rate", Unit: BytesPerHour, Estimator: BySlope, Source: FromResources,
		Help: "slope of the troughs of resident memory over the steady state"},
	{Name: "latency_improvement", Unit: Ratio, Estimator: ByMean, Source: FromGenerator,
		Help: "mean latency of the old system ÷ that of the new, in the steady state"},
	{Name: "hit_latency_improvement", Unit: Ratio, Estimator: ByMean, Source: FromSequential,
		Help: "one sequential client: mean service time straight from the upstream ÷ that of hits"},
	{Name: "throughput_improvement", Unit: Ratio, Estimator: ByMean, Source: FromSequential,
		Help: "one sequential client: requests per second of hits ÷ straight from the upstream"},

	nowhere("rollback_time", Seconds, ByTime, whyRollback, "trigger firing to the last response from the new system after the switch"),
	nowhere("detection_time", Seconds, ByTime, whyFaults, "fault start to trigger firing"),
	{Name: "client_http2_adoption", Unit: Share, Estimator: ByShare, Source: FromGenerator,
		Help: "share of requests to the system that were answered over HTTP/2"},
	{Name: "client_connection_reuse", Unit: Share, Estimator: ByShare, Source: FromGenerator,
		Help: "share of requests to the system that were answered on a connection which had brought an answer before"},
	{Name: "client_negotiation_success", Unit: Share, Estimator: ByShare, Source: FromGenerator,
		Help: "share of TLS handshakes with the system that ended in a protocol both sides offer; no handshakes are no sample"},
	nowhere("dashboard_uptime", Share, ByShare, whyDashboards, "share of probes that found every dashboard answering"),
	nowhere("alert_response", Seconds, ByTime, whyAlerts, "alert condition met to notice received"),
	nowhere("trace_completeness", Share, ByShare, whyTraces, "share of requests with a complete trace"),
	nowhere("log_completeness", Share, ByShare, whyLogs, "share of requests with an access log entry"),
	nowhere("security_score", Share, ByShare, whySecurity, "share of security checks passed"),
	nowhere("cost_per_request", Dollars, ByMean, whyBusiness, "cost of one request"),
	nowhere("user_experience_score", Points, ByMean, whyBusiness, "ten times Apdex"),
	nowhere("response_quality", Share, ByShare, whyBusiness, "share of verified-correct responses within the latency target"),
	nowhere("system_efficiency", Share, ByShare, whyBusiness, "share of requests served without upstream work"),
	nowhere("deployment_success", Share, ByShare, whyDeployment, "share of deployments that succeeded"),
	nowhere("time_to_recovery", Seconds, ByTime, whyDeployment, "mean time from failure to recovery"),
	nowhere("change_failure_rate", Share, ByShare, whyDeployment, "share of changes that had to be rolled back"),
}

func quantileMetric(name string, q float64) Metric {
	percent := strconv.FormatFloat(math.Round(q*1e7)/1e5, 'f', -1, 64)
	return Metric{Name: name, Unit: Seconds, Estimator: ByQuantile, Quantile: q, Source: FromGenerator,
		Help: "time from the due time to the last body byte that " + percent + " % of requests stay within, one without an answer counted with at least the timeout"}
}

func nowhere(name string, unit Unit, by Estimator, why, help string) Metric {
	return Metric{Name: name, Unit: unit, Estimator: by, Source: FromNowhere, Help: help, Why: why}
}

// All returns every metric of the catalogue in reference order: those of the
// latency quantiles that have a usual name, and all others.
func All() []Metric { return slices.Clone(catalogue) }

// Lookup finds a metric by name. Besides the catalogue it knows every latency
// quantile: p and two digits are per cent, further digits its decimals, so
// p75_latency is the 75th percentile and p9999_latency the 99.99th.
func Lookup(name string) (Metric, bool) {
	if i := slices.IndexFunc(catalogue, func(m Metric) bool { return m.Name == name }); i >= 0 {
		return catalogue[i], true
	}
	digits, isLatency := strings.CutSuffix(name, "_latency")
	digits, isQuantile := strings.CutPrefix(digits, "p")
	if !isLatency || !isQuantile {
		return Metric{}, false
	}
	// One name per quantile: no leading zero, no decimals that end in zero.
	// So p100 is no name either; the maximum is max_latency.
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || len(digits) > 6 || digits[0] == '0' || len(digits) > 2 && n%10 == 0 {
		return Metric{}, false
	}
	q := float64(n) / math.Pow10(max(2, len(digits)))
	return quantileMetric(name, q), true
}

// names returns the names of all metrics in the catalogue.
func names() []string {
	out := make([]string, len(catalogue))
	for i, m := range catalogue {
		out[i] = m.Name
	}
	return out
}

// Nearest returns up to three of the names among those given that word was
// most likely meant to be, the likeliest first: few letters apart, the same
// parts in another order, or one inside the other. It returns nil if nothing
// is near.
func Nearest(word string, among []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	if len(word) > 64 { // no name is that long
		return nil
	}
	var near []candidate
	limit := max(2, len(word)/3)
	for _, name := range among {
		d := editDistance(word, name)
		switch {
		case sameParts(word, name):
			d = min(d, 1)
		case len(word) >= 3 && len(name) >= 3 && (strings.Contains(name, word) || strings.Contains(word, name)):
			d = min(d, 2)
		}
		if d <= limit && d < max(len(word), len(name)) {
			near = append(near, candidate{name, d})
		}
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return a.distance - b.distance })
	var out []string
	for _, c := range near[:min(3, len(near))] {
		out = append(out, c.name)
	}
	return out
}

// sameParts reports whether two names have the same parts between their
// underscores, in any order: latency_p95 and p95_latency.
func sameParts(a, b string) bool {
	as, bs := strings.Split(a, "_"), strings.Split(b, "_")
	slices.Sort(as)
	slices.Sort(bs)
	return slices.Equal(as, bs)
}

// editDistance is the number of letters to insert, delete, replace or swap
// with their neighbour to make b of a (optimal string alignment).
func editDistance(a, b string) int {
	before := make([]int, len(b)+1)
	last := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			replace := 1
			if a[i] == b[j] {
				replace = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+replace)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
