// Package resulttest makes results for tests of what shows them: runs as the
// first phase gives them, drawn from a fixed seed, in the variants that a report
// has to cope with.
package resulttest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"phasegate/reports/result"
)

// Variants are the names that [New] knows.
var Variants = []string{
	"pass", "fail", "inconclusive", "error", "incomplete", "no-ledger", "notices", "died", "long", "http2", "empty", "hostile",
}

// P returns a pointer to v.
func P(v float64) *float64 { return &v }

// New returns the variant of that name; each call a new one, equal to the last.
func New(variant string) *result.Result {
	r := base()
	switch variant {
	case "pass":
		run(r, 5, 65, 1, model{miss: 0.025})
		judge(r)
	case "fail":
		run(r, 5, 65, 1, model{miss: 0.16, errors: 0.004, outage: true})
		judge(r)
		r.Verdict = result.Fail
		fail(r)
	case "inconclusive":
		run(r, 2, 12, 1, model{miss: 0.025})
		judge(r)
		r.Verdict = result.Inconclusive
		inconclusive(r)
	case "error":
		environmentError(r)
	case "incomplete":
		run(r, 5, 20, 1, model{miss: 0.025})
		judge(r)
		r.Complete, r.Verdict, r.Incomplete = false, result.Inconclusive, "interrupted (SIGINT) after 25 s of 70 s"
		inconclusive(r)
	case "no-ledger":
		run(r, 5, 65, 1, model{miss: 0.025, noLedger: true})
		judge(r)
		noLedger(r)
	case "notices":
		run(r, 5, 65, 1, model{miss: 0.025})
		judge(r)
		for i := range 14 {
			r.Notices = append(r.Notices, fmt.Sprintf("cache.setting_%d is not applied: nginx has no such thing <b>%d</b>", i, i))
		}
	case "died":
		run(r, 5, 65, 1, model{miss: 0.025, dies: 31})
		judge(r)
		died(r)
	case "long":
		// Four hours of one-second intervals.
		run(r, 600, 4*3600-600, 1, model{miss: 0.025})
		r.Notices, r.Profile, r.TimeScale, r.Duration = nil, "full", 1, 4*3600+20
		judge(r)
		grow(r)
	case "http2":
		run(r, 5, 65, 1, model{miss: 0.025})
		judge(r)
		http2(r)
	case "empty":
		*r = result.Result{Schema: result.Schema, Scenario: "phase1", Verdict: result.Inconclusive}
	case "hostile":
		run(r, 5, 65, 1, model{miss: 0.025})
		judge(r)
		hostile(r)
	default:
		panic("resulttest: unknown variant " + variant)
	}
	return r
}

func base() *result.Result {
	return &result.Result{
		Schema: result.Schema, Scenario: "phase1", Title: "Basic cache", Profile: "quick", Seed: 1, TimeScale: 60,
		Started: time.Date(2025, 3, 14, 9, 26, 53, 0, time.UTC), Duration: 83.4, Complete: true, Verdict: result.Pass,
		Environment: result.Environment{
			Go: "go1.26", CPUs: 2, CPUModel: "Example CPU @ 2.5 GHz", Memory: 8 << 30, Kernel: "6.1.0", OS: "Debian GNU/Linux 12",
			Upstream: "process", Commit: "0123abcd", Source: "embedded",
			Command: []string{"phasegate", "run", "phase1", "--profile", "quick", "--seed", "1", "--set", "systems.new={kind: optimizer, config: {cache: {max_memory_mb: 100}}}"},
		},
		Notices: []string{"time scale 60: a trigger's 5 m are 5 s here"},
		Load: &result.Load{
			Source: "zipf(1.1) over 5,000 keys", OfferedRate: 2400, SentRate: 2400, Completed: 2399.1,
			LagP50: P(80e-6), LagP99: P(210e-6), LagMax: P(1.9e-3), Connections: map[string]int{"old": 1587, "new": 12}, CPU: 61.2, Prewarmed: 4000,
			Spoken: []result.Spoken{{System: "old", Protocol: "http/1.1", Requests: 148200, Connections: 1587}, {System: "new", Protocol: "h2c", Requests: 7800, Connections: 12}},
		},
		Systems: map[string]result.System{},
	}
}

type model struct {
	miss     float64 // share of requests of the new system that wait for the upstream
	errors   float64
	outage   bool
	noLedger bool
	dies     float64
}

// run draws a timeline of intervals of step seconds, and the histograms.
func run(r *result.Result, warmup, steady, step float64, m model) {
	rng := rand.New(rand.NewPCG(r.Seed, 7))
	r.Marks = []result.Mark{{Name: "warmup", From: 0, To: warmup}, {Name: "steady", From: warmup, To: warmup + steady}}
	all := map[string]*hdrhistogram.Histogram{}
	memory := map[string]float64{"new": 38e6}
	long := steady > 1000
	for _, arm := range []string{"old", "new"} {
		all[arm] = hdrhistogram.New(1, 60_000_000, 3)
	}
	for t := step; t <= warmup+steady+1e-9; t += step {
		for _, arm := range []string{"old", "new"} {
			rate, miss, split := 2280.0, 1.0, 0.95
			if arm == "new" {
				rate, miss, split = 120, m.miss, 0.05
				if t <= warmup {
					miss = min(1, 4*m.miss)
				}
			}
			in := result.Interval{T: t, System: arm, Stage: "steady", Split: split, Offered: int64(rate * step), Requests: int64(rate * step)}
			if t <= warmup {
				in.Stage = "warmup"
			}
			in.Cacheable = int64(float64(in.Requests) * 0.99)
			samples := 100
			if long {
				samples = 12
			}
			misses := int64(0)
			one := make([]float64, samples)
			for i := range one {
				v := 0.00025 + 0.0002*rng.ExpFloat64()
				if rng.Float64() < miss {
					misses++
					v = 0.464 * math.Exp(0.07*rng.NormFloat64())
				}
				if m.outage && t > 40 && t < 47 && arm == "new" {
					v += 0.8
				}
				one[i] = v
			}
			slices.Sort(one)
			if m.outage && t > 40 && t < 47 && arm == "new" {
				in.Errors = 9
			}
			if arm == "new" && m.dies > 0 && t > m.dies {
				in.Errors, in.Requests = in.Requests, 0
				r.Timeline = append(r.Timeline, in)
				continue
			}
			q := func(p float64) *float64 { return P(one[int(p*float64(samples-1))]) }
			in.P50, in.P95, in.P99 = q(0.5), q(0.95), q(0.99)
			if in.Stage == "steady" {
				for _, v := range one {
					_ = all[arm].RecordValue(int64(v * 1e6)) // within the histogram's range
				}
			}
			if arm == "new" {
				if !m.noLedger {
					upstream := int64(float64(in.Cacheable) * float64(misses) / float64(samples))
					in.UpstreamRequests = &upstream
					in.HitRatio = P(1 - float64(upstream)/float64(in.Cacheable))
				}
				memory[arm] += (61e6 - memory[arm]) * 0.05 * rng.Float64()
				in.Memory, in.CPU = P(math.Round(memory[arm])), P(0.06+0.02*rng.Float64())
			}
			r.Timeline = append(r.Timeline, in)
		}
	}
	for _, arm := range []string{"old", "new"} {
		encoded, err := result.EncodeHistogram(all[arm])
		if err != nil {
			panic(err)
		}
		h := all[arm]
		q := func(p float64) *float64 { return P(float64(h.ValueAtQuantile(p)) / 1e6) }
		s := result.System{
			Kind: "direct", URL: "http://127.0.0.1:9000", Requests: int64(2280 * steady), Histogram: encoded, ServiceHistogram: encoded,
			Metrics: map[string]*float64{
				"p50_latency": q(50), "p95_latency": q(95), "p99_latency": q(99), "p999_latency": q(99.9), "mean_latency": P(h.Mean() / 1e6), "max_latency": P(float64(h.Max()) / 1e6),
				"throughput": P(2280), "error_rate": P(0), "availability": P(1), "wrong_responses": P(0),
			},
			Missing: map[string]string{"cache_hit_ratio": "no system stands before the upstream", "memory": "no process of ours", "cpu": "no process of ours"},
		}
		if arm == "new" {
			s.Kind, s.URL, s.Version, s.Requests = "optimizer", "http://127.0.0.1:9001", "0.1.0", int64(120*steady)
			s.Command = []string{"optimizer", "--upstream", "http://127.0.0.1:9000", "--listen", "127.0.0.1:9001"}
			s.MemoryLimit, s.LogFile = P(100e6), "logs/new.log"
			s.Metrics["throughput"], s.Metrics["memory"], s.Metrics["cpu"] = P(120), P(61e6), P(0.071)
			s.Metrics["cache_hit_ratio"], s.Metrics["memory_growth_rate"] = P(1-m.miss), nil
			s.Missing = map[string]string{"http2_adoption": "the upstream leg was not asked for HTTP/2"}
		}
		r.Systems[arm] = s
	}
}

// judge adds the gates and triggers of phase 1 as a good run passes them.
func judge(r *result.Result) {
	gate := func(text, metric, op string, threshold float64, u string, value, low, high float64) {
		r.Gates = append(r.Gates, result.Gate{
			Gate: text, Metric: metric, System: "new", Op: op, Threshold: threshold, Unit: u,
			Value: P(value), Low: P(low), High: P(high), Confidence: 0.95, Samples: 7800, Verdict: result.Pass, Looks: 1,
		})
	}
	gate("p95_latency < 10ms", "p95_latency", "<", 0.010, "s", 0.0031, 0.0029, 0.0034)
	gate("cache_hit_ratio > 70%", "cache_hit_ratio", ">", 0.7, "share", 0.972, 0.968, 0.976)
	gate("error_rate < 0.5%", "error_rate", "<", 0.005, "share", 0, 0, 0.00038)
	gate("availability > 99.95%", "availability", ">", 0.9995, "share", 1, 0.99962, 1)
	gate("memory <= 100MB", "memory", "<=", 100e6, "B", 61e6, 61e6, 61e6)
	gate("cpu < 20%", "cpu", "<", 0.2, "share", 0.071, 0.068, 0.075)
	gate("throughput > 15/s", "throughput", ">", 15, "1/s", 120, 119.2, 120.8)
	gate("wrong_responses <= 0", "wrong_responses", "<=", 0, "count", 0, 0, 0.00038)
	r.Gates[len(r.Gates)-1].Implied = true
	r.Gates[4].Samples = 65
	r.Triggers = []result.Trigger{
		{Condition: "p95_latency > 50ms", System: "new", For: 5, Action: "immediate", State: "inactive", Threshold: 0.05, Unit: "s", Worst: P(0.0042)},
		{Condition: "error_rate > 2%", System: "new", For: 3, Action: "immediate", State: "inactive", Threshold: 0.02, Unit: "share", Worst: P(0)},
		{Condition: "cache_hit_ratio < 50%", System: "new", For: 10, Action: "gradual", State: "inactive", Threshold: 0.5, Unit: "share", Worst: P(0.941)},
		{Condition: "memory > 150MB", System: "new", Action: "immediate", State: "inactive", Threshold: 150e6, Unit: "B", Worst: P(61e6)},
	}
	for i := range r.Triggers {
		r.Triggers[i].Evaluations, r.Triggers[i].WithData = 65, 65
	}
}

// grow says that the new system's memory grew, as one that leaks with its
// requests and serves its own metrics.
func grow(r *result.Result) {
	part := func(end, slope float64) *result.GrowthPart {
		return &result.GrowthPart{Bytes: end, Slope: result.Slope{Value: P(slope), Low: P(slope - 0.3e6), High: P(slope + 0.3e6)}}
	}
	s := r.Systems["new"]
	s.Metrics["memory_growth_rate"] = P(4.1e6)
	s.Growth = &result.Growth{
		Slope: P(4.1e6), Low: P(3.1e6), High: P(5.1e6), Confidence: 0.95, Detectable: P(1.6e6), Troughs: 200, Duration: 13_800,
		PerMillion: &result.Slope{Value: P(9.5e6), Low: P(7.1e6), High: P(11.9e6)}, Rate: 120,
		Extrapolated: &result.Slope{Value: P(4.104e6), Low: P(3.07e6), High: P(5.14e6)},
		Line:         []result.GrowthPoint{{T: 601, Bytes: 45.2e6}, {T: 14_400, Bytes: 60.9e6}},
		Parts:        &result.GrowthParts{LiveHeap: part(38e6, 3.9e6), CachePayload: part(31e6, 0), Rest: part(22.9e6, 0.2e6)},
	}
	r.Systems["new"] = s
	for i := range r.Timeline {
		if in := &r.Timeline[i]; in.System == "new" && in.T > 600 {
			in.Memory = P(math.Round(45.2e6 + 4.1e6*(in.T-601)/3600 + 14e6*math.Mod(in.T, 70)/70))
		}
	}
}

// http2 says that the new system was spoken to in HTTP/1.1 and HTTP/2 over TLS,
// and spoke HTTP/2 with an upstream that recycles its connections. The old one
// knows HTTP/1.1 alone.
func http2(r *result.Result) {
	goAways := int64(65)
	s := r.Systems["new"]
	s.ClientLeg = &result.Leg{Requests: 7800, HTTP1: 1950, H2: 5848, Reused: 7786, Connections: 12, FullHandshakes: 12}
	s.UpstreamLeg = &result.Leg{Requests: 460, H2: 460, Reused: 374, Connections: 86, FullHandshakes: 22, ResumedHandshakes: 64, FailedHandshakes: 1, GoAways: &goAways}
	s.Metrics["http2_adoption"], s.Missing = P(1), nil
	s.Counts = map[string]result.Count{"http2_adoption": {Part: 460, All: 460, Of: "upstream requests"}}
	r.Systems["new"] = s
	s = r.Systems["old"]
	s.ClientLeg = &result.Leg{Requests: 148_200, HTTP1: 148_200, Reused: 146_613, Connections: 1587}
	r.Systems["old"] = s
}

func set(g *result.Gate, v result.Verdict, value, low, high *float64, why string) {
	g.Verdict, g.Value, g.Low, g.High, g.Reason = v, value, low, high, why
}

func fail(r *result.Result) {
	set(&r.Gates[0], result.Fail, P(0.4981), P(0.4903), P(0.5062), "16.0 % of 7,800 requests took 10 ms or longer, of which 5 % are allowed: p95 is a miss and waits for the upstream")
	set(&r.Gates[1], result.Pass, P(0.84), P(0.832), P(0.848), "")
	set(&r.Gates[2], result.Fail, P(0.0069), P(0.0052), P(0.0090), "54 of 7,800 requests failed")
	set(&r.Gates[3], result.Inconclusive, P(0.9996), P(0.9988), P(0.9999), "3 of 7,800 requests failed: 12,400 more requests without a failure would decide it")
	r.Triggers[0].State, r.Triggers[0].PendingAt, r.Triggers[0].FiredAt, r.Triggers[0].Worst = "firing", P(41.0), P(46.0), P(1.31)
	r.Triggers[1].State, r.Triggers[1].Reason, r.Triggers[1].WithData = "unknown", "fewer than 50 requests in every window", 0
	s := r.Systems["new"]
	s.Errors = map[string]int64{"5xx": 51, "timeout": 3}
	s.Examples = []string{
		"GET /items/4711 at 41.3 s: status 503, expected 200",
		"GET /items/12 at 41.9 s: body of key 13 instead of 12, checksum fits: the answers were mixed up",
	}
	s.Metrics["error_rate"], s.Metrics["p95_latency"] = P(0.0069), P(0.4981)
	r.Systems["new"] = s
}

func inconclusive(r *result.Result) {
	set(&r.Gates[3], result.Inconclusive, P(1), P(0.9979), P(1), "no failure in 1,440 requests; 4,550 more without one would decide it")
	set(&r.Gates[5], result.Inconclusive, nil, nil, nil, "cpu was not sampled")
	r.Gates[5].Samples = 0
	r.Triggers[1].WithData, r.Triggers[1].Reason = 26, "38 requests in its window of 5s are fewer than 50"
	r.Triggers[2].State, r.Triggers[2].PendingAt = "pending", P(9)
}

func environmentError(r *result.Result) {
	r.Verdict, r.Complete, r.Duration = result.EnvError, false, 10.2
	r.Error = "system new did not become healthy within 10 s: GET http://127.0.0.1:9001/healthz: connection refused"
	r.Systems["new"] = result.System{
		Kind: "command", Command: []string{"./my-proxy", "--listen", "127.0.0.1:9001"}, Exit: "exit status 2 at 0.1 s",
		LogTail: []string{"my-proxy 1.2.3", "fatal: listen tcp 127.0.0.1:9001: bind: address already in use"}, LogFile: "logs/new.log",
	}
	r.Load = nil
}

func noLedger(r *result.Result) {
	const why = "the answers of http://127.0.0.1:8080 don't carry our upstream's self-description"
	s := r.Systems["new"]
	s.Kind, s.URL, s.Command, s.MemoryLimit = "url", "http://127.0.0.1:8080", nil, nil
	s.Metrics["cache_hit_ratio"], s.Metrics["memory"], s.Metrics["cpu"] = nil, nil, nil
	s.Missing = map[string]string{"cache_hit_ratio": why, "memory": "nothing was started: a URL's process can't be sampled", "cpu": "nothing was started: a URL's process can't be sampled"}
	r.Systems["new"] = s
	for i := range r.Timeline {
		r.Timeline[i].Memory, r.Timeline[i].CPU = nil, nil
	}
	for _, i := range []int{1, 4, 5} {
		set(&r.Gates[i], result.Inconclusive, nil, nil, nil, "not offered: "+s.Missing[r.Gates[i].Metric])
		r.Gates[i].Samples = 0
	}
	r.Triggers[2].State, r.Triggers[2].Reason, r.Triggers[2].Worst, r.Triggers[2].WithData = "unknown", why, nil, 0
	r.Notices = append(r.Notices, why+": hit ratio and all that needs the upstream's ledger is not offered")
	r.Verdict = result.Inconclusive
}

func died(r *result.Result) {
	s := r.Systems["new"]
	s.Exit = "signal: killed at 31.0 s"
	s.LogTail = []string{"level=INFO msg=listening addr=127.0.0.1:9001", "level=WARN msg=\"memory 103.1 MB of 100 MB\"", "fatal error: out of memory"}
	s.Errors = map[string]int64{"transport": 4680}
	s.Examples = []string{"GET /items/1 at 31.0 s: connection reset by peer", "GET /items/1 at 31.1 s: connection refused"}
	s.Metrics["availability"] = P(0.4)
	r.Systems["new"] = s
	set(&r.Gates[3], result.Fail, P(0.4), P(0.389), P(0.411), "4,680 of 7,800 requests failed: the system ended by itself (signal: killed at 31.0 s)")
	r.Verdict = result.Fail
}

// hostile puts markup, control characters and table separators wherever text
// comes from a file, a log or another program.
func hostile(r *result.Result) {
	const evil = "</title><script>alert(1)</script> | `x` *y* \x1b[31mred\x00 \"q\" & http://example.com/\nsecond line"
	r.Title, r.Profile, r.Incomplete, r.Error = evil, evil, evil, evil
	r.Notices = append(r.Notices, evil)
	r.Gates[0].Gate, r.Gates[0].Reason, r.Gates[0].Verdict = evil, evil, result.Fail
	r.Triggers[0].Condition, r.Triggers[0].Reason, r.Triggers[0].FiredAt = evil, evil, P(20)
	s := r.Systems["new"]
	s.Kind, s.Version, s.Exit, s.LogTail, s.Examples = evil, evil, evil, []string{evil}, []string{evil}
	s.Command, s.Missing = []string{evil}, map[string]string{evil: evil}
	r.Systems["new"] = s
	r.Marks = append(r.Marks, result.Mark{Name: evil, From: 50, To: 60})
	r.Environment.Command = []string{"phasegate", "run", evil}
	r.Verdict = result.Fail
}
