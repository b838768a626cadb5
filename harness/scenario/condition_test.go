package scenario_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"phasegate/harness/scenario"
)

func TestParseCondition(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, text, want string
		threshold       float64
	}{
		{"as a plan has it", "p95_latency < 10ms", "p95_latency < 10ms", 0.010},
		{"without white space", "p95_latency<10ms", "p95_latency < 10ms", 0.010},
		{"with too much", "  p95_latency \t <=  10 ms ", "p95_latency <= 10ms", 0.010},
		{"a sum of units", "alert_response < 1m30s", "alert_response < 1m30s", 90},
		{"microseconds", "mean_latency < 250us", "mean_latency < 250us", 0.000250},
		{"sizes by ten", "memory <= 100MB", "memory <= 100MB", 100e6},
		{"sizes by two", "memory <= 100 MiB", "memory <= 100MiB", 100 << 20},
		{"growth per hour", "memory_growth_rate < 10MB/hour", "memory_growth_rate < 10MB/hour", 10e6},
		{"growth per day", "memory_growth_rate < 24MB / d", "memory_growth_rate < 24MB/d", 1e6},
		{"per cent", "cache_hit_ratio > 70%", "cache_hit_ratio > 70%", 0.70},
		{"a decimal share", "cache_hit_ratio > .7", "cache_hit_ratio > .7", 0.70},
		{"decimals of a per cent", "availability > 99.95%", "availability > 99.95%", 0.9995},
		{"everything can be asked for", "log_completeness >= 100%", "log_completeness >= 100%", 1},
		{"a rate", "throughput > 15/s", "throughput > 15/s", 15},
		{"a factor", "hit_latency_improvement > 2164", "hit_latency_improvement > 2164", 2164},
		{"a factor with its sign", "hit_latency_improvement > 2164x", "hit_latency_improvement > 2164x", 2164},
		{"a count", "wrong_responses <= 0", "wrong_responses <= 0", 0},
		{"money", "cost_per_request <= $0.03", "cost_per_request <= $0.03", 0.03},
		{"points", "user_experience_score >= 9", "user_experience_score >= 9", 9},
		{"a quantile that has no usual name", "p9995_latency < 1s", "p9995_latency < 1s", 1},
	} {
		c, err := scenario.ParseCondition(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		if c.Text != tt.want || math.Abs(c.Threshold-tt.threshold) > 1e-12*tt.threshold {
			t.Errorf("%s: %q %v, want %q %v", tt.why, c.Text, c.Threshold, tt.want, tt.threshold)
		}
	}
}

// What the table of faulty scenarios doesn't show: the value of each unit.
func TestParseConditionRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ why, text, want string }{
		{"nothing", "", `"" doesn't begin with a metric; allowed: ` + conditions},
		{"a quantile with a point", "p99.9_latency < 1s", "unknown metric p99.9_latency; allowed: p999_latency, since quantiles are written without a point"},
		{"other signs in a name", "cache-hit-ratio > 70%", "unknown metric cache-hit-ratio; nearest: cache_hit_ratio, false_hit_ratio"},
		{"a name near to none", "xyzzy < 1", "unknown metric xyzzy; allowed: p50_latency, "},
		{"a time without unit in a sum", "p95_latency < 1h30", "p95_latency: 1h30: 30 has no unit; allowed: " + durations},
		{"a duration beyond counting", "p95_latency < 999999999d", "p95_latency: 999999999d is too long; allowed: " + durations},
		{"a size beyond counting", "memory < 99999999TB", "memory: 99999999TB is too large; allowed: " + sizes},
		{"bits", "memory < 100Mb", "memory: 100Mb has the unknown unit Mb; allowed: " + sizes},
		{"growth without time", "memory_growth_rate < 10MB", "memory_growth_rate: 10MB is not per unit of time; allowed: a growth such as 10MB/hour (a size per s, m, h or d)"},
		{"growth per nothing", "memory_growth_rate < 10MB/", `memory_growth_rate: 10MB/ has the unknown unit of time ""; allowed: a growth such as 10MB/hour (a size per s, m, h or d)`},
		{"per mille", "error_rate < 5‰", "error_rate: 5‰ has the unknown unit ‰; allowed: " + shares},
		{"no number", "error_rate < few", "error_rate: few is not a number; allowed: " + shares},
		{"two points", "error_rate < 0.5.1", "error_rate: 0.5.1 has the unknown unit .1; allowed: " + shares},
		{"an exponent", "error_rate < 1e-3", "error_rate: 1e-3 has the unknown unit e-3; allowed: " + shares},
		{"half a response", "wrong_responses <= 0.5", "wrong_responses: 0.5 is not a whole number; allowed: a whole number from 0"},
		{"a share of responses", "wrong_responses <= 1%", "wrong_responses: 1% has the unknown unit %; allowed: a whole number from 0"},
		{"a factor in per cent", "latency_improvement > 99%", "latency_improvement: 99% has the unknown unit %; allowed: a factor such as 42 or 42x"},
		{"money without currency", "cost_per_request < 0.03", "cost_per_request: 0.03 does not begin with $; allowed: an amount such as $0.03"},
		{"eleven of ten points", "user_experience_score > 11", "user_experience_score: 11 is more than 10; allowed: a number from 0 to 10"},
		{"two operators", "p95_latency < < 10ms", `p95_latency: "< 10ms" is not a number; allowed: ` + durations},
		{"an operator of one's own", "p95_latency ≤ 10ms", "unknown operator ≤; allowed: <, <=, >, >="},
		{"always true", "wrong_responses >= 0", `"wrong_responses >= 0" holds for every possible value, so it decides nothing; allowed: a threshold that some values meet and others don't`},
		{"never true", "p95_latency < 0s", `"p95_latency < 0s" holds for no possible value; allowed: a threshold that some values meet and others don't`},
	} {
		c, err := scenario.ParseCondition(tt.text)
		switch {
		case err == nil:
			t.Errorf("%s: accepted as %+v", tt.why, c)
		case err.Error() != tt.want && !(strings.HasSuffix(tt.want, ", ") && strings.HasPrefix(err.Error(), tt.want)):
			t.Errorf("%s:\n got %s\nwant %s", tt.why, err, tt.want)
		}
	}
}

func TestHolds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		op                  scenario.Op
		below, equal, above bool
	}{
		{scenario.Less, true, false, false},
		{scenario.LessEqual, true, true, false},
		{scenario.Greater, false, false, true},
		{scenario.GreaterEqual, false, true, true},
	} {
		c := mustParse(t, fmt.Sprintf("throughput %s 10/s", tt.op))
		if c.Holds(9) != tt.below || c.Holds(10) != tt.equal || c.Holds(11) != tt.above {
			t.Errorf("%s: %v %v %v", tt.op, c.Holds(9), c.Holds(10), c.Holds(11))
		}
	}
}

// Whoever adds a metric fills in all of it.
func TestCatalogueIsComplete(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, m := range scenario.All() {
		if seen[m.Name] {
			t.Errorf("%s twice", m.Name)
		}
		seen[m.Name] = true
		if m.Unit == "" || m.Help == "" {
			t.Errorf("%s: no unit or help", m.Name)
		}
		if (m.Source == scenario.FromNowhere) != (m.Why != "") {
			t.Errorf("%s: a reason belongs to what can't be measured: %q", m.Name, m.Why)
		}
		if (m.Estimator == scenario.ByQuantile) != (m.Quantile > 0) {
			t.Errorf("%s: quantile %v", m.Name, m.Quantile)
		}
		if got, ok := scenario.Lookup(m.Name); !ok || got != m {
			t.Errorf("%s: looked up %+v", m.Name, got)
		}
	}
	// The names of the reference; result files and scenarios rely on them.
	for _, name := range strings.Fields(`p50_latency p90_latency p95_latency p99_latency p999_latency mean_latency
		max_latency error_rate availability timeout_rate throughput cache_hit_ratio revalidation_ratio blocking_ratio
		claimed_hit_ratio claimed_open_breakers wrong_responses stale_responses wrong_age false_hit_ratio duplicate_fetches upstream_amplification http2_adoption connection_reuse negotiation_success
		client_http2_adoption client_connection_reuse client_negotiation_success memory cpu memory_growth_rate
		latency_improvement hit_latency_improvement throughput_improvement rollback_time detection_time
		dashboard_uptime alert_response trace_completeness log_completeness security_score`) {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestLookupQuantiles(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]float64{
		"p5_latency": 0.05, "p50_latency": 0.50, "p75_latency": 0.75, "p95_latency": 0.95, "p125_latency": 0.125,
		"p995_latency": 0.995, "p999_latency": 0.999, "p9999_latency": 0.9999, "p999999_latency": 0.999999,
	} {
		m, ok := scenario.Lookup(name)
		if !ok || math.Abs(m.Quantile-want) > 1e-12 || m.Estimator != scenario.ByQuantile || m.Name != name {
			t.Errorf("%s: %+v, want %v", name, m, want)
		}
	}
	// One name per quantile, and none for the maximum.
	for _, name := range []string{"p_latency", "p0_latency", "p00_latency", "p05_latency", "p100_latency", "p950_latency", "p9999999_latency", "p-5_latency", "p9.5_latency", "p95", "95_latency"} {
		if m, ok := scenario.Lookup(name); ok {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if m, _ := scenario.Lookup("p999_latency"); !strings.Contains(m.Help, " 99.9 %") {
		t.Errorf("help: %s", m.Help)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	words := []string{"latency", "rate", "throughput", "cache_hit_ratio", "p95_latency", "p99_latency", "memory"}
	for _, tt := range []struct {
		why, word string
		want      []string
	}{
		{"a letter too many", "latencyy", []string{"latency"}},
		{"two letters swapped", "mmeory", []string{"memory"}},
		{"parts in another order", "latency_p95", []string{"p95_latency", "latency"}},
		{"a part of it", "hit_ratio", []string{"cache_hit_ratio"}},
		{"nothing near", "xyzzy", nil},
		{"nothing at all", "", nil},
		{"a novel", strings.Repeat("latency", 1000), nil},
	} {
		if got := scenario.Nearest(tt.word, words); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.why, got, tt.want)
		}
	}
}

func ExampleParseCondition() {
	c, err := scenario.ParseCondition("memory <= 100MB")
	fmt.Println(c.Metric.Name, c.Op, c.Threshold, c.Metric.Unit, err)
	_, err = scenario.ParseCondition("memory <= 100ms")
	fmt.Println(err)
	// Output:
	// memory <= 1e+08 B <nil>
	// memory: 100ms has the unknown unit ms; allowed: a size such as 512B, 8KiB (2^10) or 100MB (10^6) (units B, kB, MB, GB, KiB, MiB, GiB)
}

func FuzzParseCondition(f *testing.F) {
	for _, text := range []string{
		"p95_latency < 10ms", "memory<=100MB", "memory_growth_rate < 10MB/hour", "cache_hit_ratio > 70%", "throughput > 15/s",
		"latency_improvement > 2164x", "wrong_responses <= 0", "cost_per_request < $0.03", "p9999_latency >= 1h30m", "≤ <", "cpu < 1e9%",
		"p95_latency < 9999999999999999999999999h", "cpu < " + strings.Repeat("9", 400),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := scenario.ParseCondition(text)
		if err != nil {
			if err.Error() == "" {
				t.Errorf("%q: an error that says nothing", text)
			}
			return
		}
		if math.IsNaN(c.Threshold) || math.IsInf(c.Threshold, 0) || c.Threshold < 0 {
			t.Errorf("%q: threshold %v", text, c.Threshold)
		}
		if c.Metric.Unit == scenario.Share && c.Threshold > 1 {
			t.Errorf("%q: share %v", text, c.Threshold)
		}
		// What is written into reports means the same when read back.
		again, err := scenario.ParseCondition(c.Text)
		if err != nil || again != c {
			t.Errorf("%q: %+v, read back %+v, %v", text, c, again, err)
		}
	})
}
