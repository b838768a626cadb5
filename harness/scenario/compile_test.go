package scenario_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/scenario"
	"phasegate/scenarios"
)

// valid is a scenario with one line of most things.
const valid = `name: t
upstream:
  latency: 20ms
systems:
  new: {kind: optimizer, config: {cache: {max_memory_mb: 100, default_ttl: 5m}}}
traffic: {new: 5%, old: 95%}
load:
  rate: 100/s
  keys: {distribution: zipf, count: 500}
  writes: {share: 1%}
prewarm: {top: 400}
profiles:
  quick: {warmup: 1s, steady: 10s, time_scale: 60}
  full: {steady: 24h}
gates:
  - p95_latency < 10ms
triggers:
  - {when: error_rate > 2%, for: 3m}
`

// withAll replaces several things, each by the one after it.
func withAll(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(valid) }

// accepted are variants of valid that must compile.
var accepted = []struct {
	why, src string
	check    func(*scenario.Plan) any
	want     any
}{
	{"a fixed latency as one value", valid,
		func(p *scenario.Plan) any { return p.Upstream.Latency }, scenario.Latency{Fixed: 20 * time.Millisecond}},
	{"a distribution of latency", with("latency: 20ms", "latency: {mean: 464ms, p95: 520ms}"),
		func(p *scenario.Plan) any { return p.Upstream.Latency }, scenario.Latency{Mean: 464 * time.Millisecond, P95: 520 * time.Millisecond}},
	{"p95 at the mean is a fixed latency in other words", with("latency: 20ms", "latency: {mean: 464ms, p95: 464ms}"),
		func(p *scenario.Plan) any { return p.Upstream.Latency.P95 }, 464 * time.Millisecond},
	{"no latency at all", with("  latency: 20ms", "  body: 4KiB"),
		func(p *scenario.Plan) any {
			return []any{p.Upstream.Latency, p.Upstream.BodyMin, p.Upstream.BodyMax}
		},
		[]any{scenario.Latency{}, int64(4096), int64(4096)}},
	{"powers of ten and of two", with("latency: 20ms", "body: {min: 1kB, max: 1KiB}"),
		func(p *scenario.Plan) any { return []int64{p.Upstream.BodyMin, p.Upstream.BodyMax} }, []int64{1000, 1024}},
	{"HTTP/2 in clear text straight to the upstream", withAll("kind: optimizer, config: {cache: {max_memory_mb: 100, default_ttl: 5m}}", "kind: direct", "rate: 100/s", "rate: 100/s\n  protocol: h2c\n  streams: 8"),
		func(p *scenario.Plan) any { return []any{p.Load.Protocols, p.Load.Streams} },
		[]any{[]scenario.ProtocolShare{{Protocol: scenario.H2C, Share: 1}}, 8}},
	{"a mix of protocols, in the order of their names", with("rate: 100/s", "rate: 100/s\n  protocol: {h2: 60%, http/1.1: 40%}"),
		func(p *scenario.Plan) any { return p.Load.Protocols },
		[]scenario.ProtocolShare{{Protocol: scenario.HTTP1, Share: 0.4}, {Protocol: scenario.H2, Share: 0.6}}},
	{"the highest rate of so many clients", with("rate: 100/s", "rate: max\n  connections: 64"),
		func(p *scenario.Plan) any { return []any{p.Load.Max, p.Load.Rate, p.Load.Connections} }, []any{true, []scenario.Segment(nil), 64}},
	{"a fixed port", with("latency: 20ms", "listen: 127.0.0.1:9000"),
		func(p *scenario.Plan) any { return p.Upstream.Listen }, "127.0.0.1:9000"},
	{"an empty Cache-Control sends none", with("latency: 20ms", `cache_control: ""`),
		func(p *scenario.Plan) any { return p.Upstream.CacheControl }, ""},
	{"variants", with("latency: 20ms", "vary: [Accept-Language]"),
		func(p *scenario.Plan) any { return p.Upstream.Vary }, []string{"Accept-Language"}},
	{"shares as decimals", with("{new: 5%, old: 95%}", "{new: 0.3, old: 0.7}"),
		func(p *scenario.Plan) any { return []float64{p.System("new").Share, p.System("old").Share} }, []float64{0.3, 0.7}},
	{"what new leaves goes to old, which is direct", with("{new: 5%, old: 95%}", "{new: 25%}"),
		func(p *scenario.Plan) any { return p.Systems[0] }, scenario.System{Name: "old", Kind: scenario.KindDirect, Share: 0.75}},
	{"no split", with("traffic: {new: 5%, old: 95%}\n", ""),
		func(p *scenario.Plan) any { return []any{len(p.Systems), p.Systems[0].Name, p.Systems[0].Share} }, []any{1, "new", 1.0}},
	{"old stands by", with("systems:\n", "systems:\n  old: {kind: direct}\n", "{new: 5%, old: 95%}", "{new: 100%}"),
		func(p *scenario.Plan) any { return p.System("old").Share }, 0.0},
	{"a configuration is passed on with its types", valid,
		func(p *scenario.Plan) any { return p.System("new").Config },
		map[string]any{"cache": map[string]any{"max_memory_mb": uint64(100), "default_ttl": "5m"}}},
	{"TLS to the upstream", with("kind: optimizer,", "kind: optimizer, upstream_tls: true,"),
		func(p *scenario.Plan) any { return p.System("new").UpstreamTLS }, true},
	{"a command with metrics", with("kind: optimizer, config: {cache: {max_memory_mb: 100, default_ttl: 5m}}", `kind: command, command: [proxy, "{listen}", "{upstream}", "--admin={admin}"], metrics: "http://{admin}/metrics"`),
		func(p *scenario.Plan) any { return p.System("new").Metrics }, "http://{admin}/metrics"},
	{"a command", with("kind: optimizer, config: {cache: {max_memory_mb: 100, default_ttl: 5m}}", `kind: command, command: [proxy, "--listen={listen}", "{upstream}", "${HOME}/x{ca}", ""]`, "${HOME}", ""),
		func(p *scenario.Plan) any { return p.System("new").Command }, []string{"proxy", "--listen={listen}", "{upstream}", "/x{ca}", ""}},
	{"a command that knows the upstream's fixed port", with("kind: optimizer, config: {cache: {max_memory_mb: 100, default_ttl: 5m}}", `kind: command, command: [proxy, "{listen}"]`, "latency: 20ms", "listen: localhost:9000"),
		func(p *scenario.Plan) any { return p.System("new").Kind }, scenario.KindCommand},
	{"a server that is running", with("kind: optimizer, config: {cache: {max_memory_mb: 100, default_ttl: 5m}}", `kind: url, url: "http://127.0.0.1:8080/"`),
		func(p *scenario.Plan) any { return []any{p.System("new").URL.String(), p.Load.Verify} }, []any{"http://127.0.0.1:8080", true}},
	{"only a URL, and no upstream of ours", foreign,
		func(p *scenario.Plan) any {
			return []any{p.Upstream == nil, len(p.Systems), p.Systems[0].Share, p.Load.Verify, p.Sequential, len(p.Gates)}
		},
		[]any{true, 1, 1.0, false, scenario.Sequential{}, 1}},
	{"a constant rate per minute", with("100/s", "90/m"),
		func(p *scenario.Plan) any { return p.Load.Rate }, []scenario.Segment{{From: 1.5, To: 1.5}}},
	{"a ramp, then constant", with("100/s", "{ramp: {from: 10/s, to: 200/s, over: 30s}}"),
		func(p *scenario.Plan) any { return p.Load.Rate }, []scenario.Segment{{From: 10, To: 200, For: 30 * time.Second}, {From: 200, To: 200}}},
	{"steps, the last one open", with("100/s", "{steps: [{rate: 10/s, for: 10s}, {rate: 0/s, for: 1s}, {rate: 20/s, for: 5s}]}"),
		func(p *scenario.Plan) any { return p.Load.Rate },
		[]scenario.Segment{{From: 10, To: 10, For: 10 * time.Second}, {For: time.Second}, {From: 20, To: 20}}},
	{"zipf by default has exponent 1.1", valid,
		func(p *scenario.Plan) any { return p.Load.Keys },
		scenario.Keys{Distribution: scenario.Zipf, Count: 500, Exponent: 1.1, Speed: 1}},
	{"uniform keys", with("zipf", "uniform"),
		func(p *scenario.Plan) any { return p.Load.Keys }, scenario.Keys{Distribution: scenario.Uniform, Count: 500, Speed: 1}},
	{"a hot set", with("zipf", "hot", "count: 500", "count: 500, hot_keys: 20%, hot_traffic: 80%"),
		func(p *scenario.Plan) any { return p.Load.Keys },
		scenario.Keys{Distribution: scenario.HotSet, Count: 500, HotKeys: 0.2, HotTraffic: 0.8, Speed: 1}},
	{"a log at its own pace needs no rate", with("  rate: 100/s\n", "", "{distribution: zipf, count: 500}", "{access_log: a.log, pace: log, speed: 10, repeat: true}"),
		func(p *scenario.Plan) any { return []any{p.Load.Keys, p.Load.Rate == nil} },
		[]any{scenario.Keys{AccessLog: "a.log", FileAt: "t.yaml:8:22", PaceLog: true, Speed: 10, Repeat: true}, true}},
	{"a wave, from its mean upwards unless told otherwise", with("100/s", "{sine: {mean: 200/s, amplitude: 100/s, period: 10m}}"),
		func(p *scenario.Plan) any { return []any{*p.Load.Sine, p.Load.Rate == nil, p.Load.Peak()} },
		[]any{scenario.Sine{Mean: 200, Amplitude: 100, Period: 10 * time.Minute}, true, 300.0}},
	{"a wave from its trough, where nothing is sent", with("100/s", "{sine: {mean: 200/s, amplitude: 200/s, period: 10m, start: trough}}"),
		func(p *scenario.Plan) any { return p.Load.Sine.Start }, 3 * math.Pi / 2},
	{"random arrivals", with("rate: 100/s", "rate: 100/s\n  arrivals: poisson"),
		func(p *scenario.Plan) any { return p.Load.Poisson }, true},
	{"a HAR file at its own pace: arrivals aren't drawn", with("rate: 100/s", "arrivals: poisson", "{distribution: zipf, count: 500}", "{har: a.har, pace: log}"),
		func(p *scenario.Plan) any { return []any{p.Load.Keys, p.Load.Poisson, p.Notices[1]} },
		[]any{scenario.Keys{HAR: "a.har", FileAt: "t.yaml:9:15", PaceLog: true, Speed: 1}, false, "load.arrivals is not used: requests fall due by recorded times, or by none"}},
	{"targets go round, as in vegeta", with("{distribution: zipf, count: 500}", "{targets: a.txt}"),
		func(p *scenario.Plan) any { return []any{p.Load.Keys, p.Load.Keys.File()} },
		[]any{scenario.Keys{Targets: "a.txt", FileAt: "t.yaml:9:19", Speed: 1, Repeat: true}, "a.txt"}},
	{"unless told not to", with("{distribution: zipf, count: 500}", "{targets: a.txt, repeat: false}"),
		func(p *scenario.Plan) any { return p.Load.Keys.Repeat }, false},
	{"connections by arithmetic, and limited", with("rate: 100/s", "rate: 100/s\n  connections: 20"),
		func(p *scenario.Plan) any { return p.Load.Connections }, 20},
	{"verification switched off takes the implied gate with it", with("rate: 100/s", "rate: 100/s\n  verify: off"),
		func(p *scenario.Plan) any { return []any{p.Load.Verify, len(p.Gates)} }, []any{false, 1}},
	{"the sequential stage by default", valid,
		func(p *scenario.Plan) any { return p.Sequential }, scenario.Sequential{Direct: 12, Hits: 200}},
	{"the sequential stage switched off", with("prewarm: {top: 400}", "sequential: {direct: 0, hits: 0}"),
		func(p *scenario.Plan) any { return p.Sequential }, scenario.Sequential{}},
	{"a trigger without a time fires at once, and immediately", with("{when: error_rate > 2%, for: 3m}", "{when: memory > 150MB}"),
		func(p *scenario.Plan) any {
			return []any{p.Triggers[0].Text, p.Triggers[0].Threshold, p.Triggers[0].For, p.Triggers[0].Action, p.Triggers[0].System}
		},
		[]any{"memory > 150MB", 150e6, time.Duration(0), "immediate", "new"}},
	{"a gate on the other arm", with("- p95_latency < 10ms", "- {gate: error_rate < 1%, system: old}"),
		func(p *scenario.Plan) any { return p.Gates[0].System }, "old"},
	{"a gate of another profile", with("- p95_latency < 10ms", "- p95_latency < 10ms\n  - {gate: memory_growth_rate < 10MB/hour, profiles: [full]}"),
		func(p *scenario.Plan) any {
			return []any{len(p.Gates), p.Notices[len(p.Notices)-1]}
		},
		[]any{2, "gate memory_growth_rate < 10MB/hour is not judged in profile quick, only in full"}},
	{"drills of a fault that can be injected", valid + "drills:\n  - {fault: {kind: pause, for: 30s, target: new}, expect: [\"error_rate<1%\", no trigger]}\n",
		func(p *scenario.Plan) any {
			d := p.Drills[0]
			return []any{d.Text, d.Fault, d.Fault.String(), d.Expect[0].Text, d.Expect[0].Condition.Threshold, d.Expect[1], len(p.Notices)}
		},
		[]any{"pause for 30s; expect error_rate < 1%, no trigger", scenario.Fault{Kind: scenario.Pause, Target: scenario.New, For: 30 * time.Second},
			"pause of the new system for 30s", "error_rate < 1%", 0.01, scenario.Expectation{Text: scenario.NoTrigger}, 1}},
	{"a fault breaks the upstream unless told otherwise", valid + "drills:\n  - {fault: {kind: partition, for: 1m}, expect: [no trigger]}\n",
		func(p *scenario.Plan) any { return p.Drills[0].Fault },
		scenario.Fault{Kind: scenario.Partition, Target: scenario.TargetUpstream, For: time.Minute}},
	{"a container's limits, and what it is given", with("kind: optimizer", `kind: container, image: "proxy:1", command: [--to, "{upstream}"], env: {AT: "{listen}"}, port: 80, limits: {memory: 64MiB, cpus: 0.5}`),
		func(p *scenario.Plan) any {
			s := p.System("new")
			return []any{s.Image, s.Command, s.Env, s.Port, p.Limits("new"), p.Contained()}
		},
		[]any{"proxy:1", []string{"--to", "{upstream}"}, map[string]string{"AT": "{listen}"}, 80, scenario.Limits{Memory: 64 << 20, CPUs: 0.5}, true}},
	{"without a limit of its own it gets what the laxest trigger on memory allows", with("{when: error_rate > 2%, for: 3m}", "{when: memory > 150MB}\n  - {when: memory > 120MB, for: 1m}"),
		func(p *scenario.Plan) any { return []any{p.Limits("new"), p.Contained()} },
		[]any{scenario.Limits{Memory: 150e6}, false}},
	{"what the upstream breaks by itself", valid + "drills:\n  - {fault: {kind: errors, share: 20%, status: 502, for: 30s}, expect: [no trigger]}\n  - {fault: {kind: slow_body, delay: 2s, for: 1m}, expect: [no trigger]}\n  - {fault: {kind: upstream_outage, for: 30s}, expect: [no trigger]}\n",
		func(p *scenario.Plan) any {
			d := p.Drills
			return []any{d[0].Fault.Wire, d[0].Fault.String(), d[1].Fault.Wire, d[1].Fault.String(), d[2].Fault, d[2].Text, len(p.Notices)}
		},
		[]any{wire.Fault{Kind: wire.Errors, Share: 0.2, Status: 502}, "errors (status 502, 20 %) of the upstream for 30s",
			wire.Fault{Kind: wire.SlowBody, Delay: 2 * time.Second}, "slow_body (2s) of the upstream for 1m",
			scenario.Fault{Kind: "upstream_outage", Target: scenario.TargetUpstream, For: 30 * time.Second, Wire: wire.Fault{Kind: wire.UpstreamOutage}},
			"upstream_outage for 30s; expect no trigger", 1}},
	{"the protocols of the upstream", with("latency: 20ms", "tls: {alpn: [http/1.1], min_version: 1.3, full_handshakes: 50%}\n  max_streams: 8\n  goaway: {every: 1s, requests: 100}"),
		func(p *scenario.Plan) any { return []any{p.Upstream.TLS, p.Upstream.MaxStreams, p.Upstream.GoAway} },
		[]any{wire.TLS{ALPN: []string{"http/1.1"}, Min: "1.3", FullHandshakes: 0.5}, 8, wire.GoAway{Every: time.Second, Requests: 100}}},
	{"an alert", with("for: 3m}", "for: 3m, action: alert}"),
		func(p *scenario.Plan) any { return p.Triggers[0].Action }, scenario.Alert},
}

// foreign judges a server with an upstream of its own.
const foreign = `name: foreign
systems:
  new: {kind: url, url: "https://api.example.com"}
load:
  rate: 10/s
  keys: {access_log: access.log.gz}
profiles:
  quick: {steady: 10s}
gates:
  - error_rate < 1%
`

// with replaces parts of valid; pairs of old and new text.
func with(pairs ...string) string {
	src := valid
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(src, pairs[i]) {
			panic("not in the document: " + pairs[i])
		}
		src = strings.Replace(src, pairs[i], pairs[i+1], 1)
	}
	return src
}

func TestCompileAccepts(t *testing.T) {
	t.Parallel()
	for _, tt := range accepted {
		plan, err := scenario.Compile([]byte(tt.src), "t.yaml", scenario.Options{})
		if err != nil {
			t.Errorf("%s: %v\n%s", tt.why, err, tt.src)
			continue
		}
		if diff := cmp.Diff(tt.want, tt.check(plan)); diff != "" {
			t.Errorf("%s (-want +got):\n%s\n%s", tt.why, diff, tt.src)
		}
	}
}

// A key without a value is an absent key. The schema for editors is stricter.
func TestCompileTakesNullForAbsent(t *testing.T) {
	t.Parallel()
	plan, err := scenario.Compile([]byte(with("prewarm: {top: 400}", "prewarm:", "traffic: {new: 5%, old: 95%}", "traffic: ~")), "t.yaml", scenario.Options{})
	if err != nil || plan.Prewarm.Top != 0 || len(plan.Systems) != 1 {
		t.Errorf("%+v, %v", plan, err)
	}
}

// Every default, filled in: what a reader of a plan may rely on.
func TestCompileFillsInDefaults(t *testing.T) {
	t.Parallel()
	plan, err := scenario.Compile([]byte(valid), "t.yaml", scenario.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p95 := mustParse(t, "p95_latency < 10ms")
	want := &scenario.Plan{
		Name: "t", Title: "t", Source: "t.yaml", Profile: "quick", Seed: 1, TimeScale: 60,
		Upstream: &scenario.Upstream{
			Latency: scenario.Latency{Fixed: 20 * time.Millisecond},
			BodyMin: 512, BodyMax: 8192, CacheControl: "public, max-age=600",
		},
		Systems: []scenario.System{
			{Name: "old", Kind: scenario.KindDirect, Share: 0.95},
			{Name: "new", Kind: scenario.KindOptimizer, Share: 0.05,
				Config: map[string]any{"cache": map[string]any{"max_memory_mb": uint64(100), "default_ttl": "5m"}}, ConfigAt: "t.yaml:5:34",
				Cache: scenario.Cache{MaxMemory: 100e6, DefaultTTL: 5 * time.Minute}},
		},
		Load: scenario.Load{
			Rate: []scenario.Segment{{From: 100, To: 100}}, Protocols: []scenario.ProtocolShare{{Protocol: scenario.HTTP1, Share: 1}}, Streams: scenario.DefaultStreams, Path: "/items/{key}",
			Keys:    scenario.Keys{Distribution: scenario.Zipf, Count: 500, Exponent: 1.1, Speed: 1},
			Writes:  scenario.Writes{Share: 0.01, Method: "POST", Path: "/orders"},
			Timeout: 5 * time.Second, Verify: true,
		},
		Prewarm: scenario.Prewarm{Top: 400, Concurrency: 64},
		Warmup:  time.Second, Steady: 10 * time.Second,
		Sequential: scenario.Sequential{Direct: 12, Hits: 200},
		Confidence: 0.95,
		Gates: []scenario.Gate{
			{Condition: p95, System: "new"},
			{Condition: mustParse(t, "wrong_responses <= 0"), System: "new", Implied: true},
		},
		Triggers: []scenario.Trigger{{Condition: mustParse(t, "error_rate > 2%"), System: "new", For: 3 * time.Minute, Action: "immediate"}},
		Notices:  []string{"time scale 60: the triggers' times and windows are divided by it"},
	}
	if diff := cmp.Diff(want, plan, cmpopts.IgnoreFields(scenario.Plan{}, "Origin")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func mustParse(t *testing.T, text string) scenario.Condition {
	t.Helper()
	c, err := scenario.ParseCondition(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOptions(t *testing.T) {
	t.Parallel()
	seed := uint64(7)
	for _, tt := range []struct {
		why   string
		opts  scenario.Options
		check func(*scenario.Plan) any
		want  any
	}{
		{"a profile by name", scenario.Options{Profile: "full"},
			func(p *scenario.Plan) any { return []any{p.Profile, p.Steady, p.TimeScale, len(p.Notices)} },
			[]any{"full", 24 * time.Hour, 1.0, 0}},
		{"a seed", scenario.Options{Seed: &seed}, func(p *scenario.Plan) any { return p.Seed }, uint64(7)},
		{"an embedded scenario has no source file", scenario.Options{Embedded: true},
			func(p *scenario.Plan) any { return p.Source }, ""},
		{"a value", scenario.Options{Set: []string{"load.rate=200/s"}},
			func(p *scenario.Plan) any { return p.Load.Rate[0].To }, 200.0},
		{"the later of two", scenario.Options{Set: []string{"load.rate=200/s", "load.rate=300/s"}},
			func(p *scenario.Plan) any { return p.Load.Rate[0].To }, 300.0},
		{"YAML with commas and colons", scenario.Options{Set: []string{`systems.new={kind: url, url: "http://127.0.0.1:8080"}`}},
			func(p *scenario.Plan) any { return p.System("new").URL }, &url.URL{Scheme: "http", Host: "127.0.0.1:8080"}},
		{"a value with an equals sign in it", scenario.Options{Set: []string{"gates.0=memory <= 100MB"}},
			func(p *scenario.Plan) any { return p.Gates[0].Text }, "memory <= 100MB"},
		{"one more gate", scenario.Options{Set: []string{"gates.1=cpu < 20%"}},
			func(p *scenario.Plan) any { return p.Gates[1].Text }, "cpu < 20%"},
		{"mappings that aren't there yet", scenario.Options{Set: []string{"sequential.direct=3", "profiles.standard.steady=1m"}, Profile: "standard"},
			func(p *scenario.Plan) any { return []any{p.Sequential, p.Steady} },
			[]any{scenario.Sequential{Direct: 3, Hits: 200}, time.Minute}},
		{"a list that isn't there yet", scenario.Options{Set: []string{"upstream.vary.0=Accept"}},
			func(p *scenario.Plan) any { return p.Upstream.Vary }, []string{"Accept"}},
		{"deep in the optimizer's configuration", scenario.Options{Set: []string{"systems.new.config.cache.max_memory_mb=50"}},
			func(p *scenario.Plan) any { return p.System("new").Config["cache"].(map[string]any)["max_memory_mb"] }, uint64(50)},
		{"a key removed", scenario.Options{Set: []string{"prewarm=null"}},
			func(p *scenario.Plan) any { return p.Prewarm.Top }, 0},
		{"a log replaces the choice of keys, and is replayed cold", scenario.Options{Set: []string{"load.keys.access_log=a.log"}},
			func(p *scenario.Plan) any { return []any{p.Load.Keys, p.Prewarm, p.Load.Writes, p.Notices[1:]} },
			[]any{scenario.Keys{AccessLog: "a.log", FileAt: "--set load.keys.access_log=a.log", Speed: 1}, scenario.Prewarm{}, scenario.Writes{}, []string{
				"load.writes dropped: the recorded methods are used",
				"prewarm dropped: prewarming with what is recorded would be foreknowledge, so it is replayed cold",
			}}},
		{"the log's pace", scenario.Options{Set: []string{"load.keys.access_log=a.log", "load.keys.pace=log", "load.keys.speed=10"}},
			func(p *scenario.Plan) any { return []any{p.Load.Keys, p.Load.Rate == nil, p.Notices[1]} },
			[]any{scenario.Keys{AccessLog: "a.log", FileAt: "--set load.keys.access_log=a.log", PaceLog: true, Speed: 10}, true, "load.rate is not used: the recorded times set the pace, 10 times as fast"}},
		{"the log's pace, said first", scenario.Options{Set: []string{"load.keys.pace=log", "load.keys.access_log=a.log"}},
			func(p *scenario.Plan) any { return p.Load.Keys }, scenario.Keys{AccessLog: "a.log", FileAt: "--set load.keys.access_log=a.log", PaceLog: true, Speed: 1}},
		{"targets replace the choice of keys as a log does", scenario.Options{Set: []string{"load.keys.targets=a.txt"}},
			func(p *scenario.Plan) any { return []any{p.Load.Keys, p.Prewarm} },
			[]any{scenario.Keys{Targets: "a.txt", FileAt: "--set load.keys.targets=a.txt", Speed: 1, Repeat: true}, scenario.Prewarm{}}},
		{"of two recordings the later, with what was said about both", scenario.Options{Set: []string{"load.keys.access_log=a.log", "load.keys.repeat=true", "load.keys.har=a.har"}},
			func(p *scenario.Plan) any { return p.Load.Keys }, scenario.Keys{HAR: "a.har", FileAt: "--set load.keys.har=a.har", Speed: 1, Repeat: true}},
		{"straight to the upstream: nothing to warm, no hits, no settings", scenario.Options{System: "direct"},
			func(p *scenario.Plan) any {
				return []any{*p.System("new"), p.Prewarm.Top, p.Sequential, p.Notices[1:]}
			},
			[]any{scenario.System{Name: "new", Kind: scenario.KindDirect, Share: 0.05}, 0, scenario.Sequential{Direct: 12, Hits: 12}, []string{
				"prewarm dropped: a system of kind direct stores nothing",
				"sequential.hits reduced to 12: a system of kind direct has no hits",
			}}},
		{"a proxy before our upstream: verified", scenario.Options{System: "http://127.0.0.1:8080"},
			func(p *scenario.Plan) any {
				return []any{p.System("new").URL.Host, p.Upstream != nil, p.Load.Verify, p.System("old").Kind}
			},
			[]any{"127.0.0.1:8080", true, true, scenario.KindDirect}},
		{"the optimizer keeps its configuration", scenario.Options{System: "optimizer"},
			func(p *scenario.Plan) any { return len(p.System("new").Config) }, 1},
		{"settings that don't apply are said", scenario.Options{Set: []string{"systems.new.kind=direct"}},
			func(p *scenario.Plan) any { return p.Notices[1] }, "systems.new.config is not applied: a system of kind direct has settings of its own"},
	} {
		plan, err := scenario.Compile([]byte(valid), "t.yaml", tt.opts)
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		if diff := cmp.Diff(tt.want, tt.check(plan)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.why, diff)
		}
	}
}

func TestImpliedGate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, gates string
		want       []string
	}{
		{"listed last", "- p95_latency < 10ms", []string{"p95_latency < 10ms new", "wrong_responses <= 0 new implied"}},
		{"not twice", "- wrong_responses<=0\n  - p95_latency < 10ms", []string{"wrong_responses <= 0 new", "p95_latency < 10ms new"}},
		{"a laxer one doesn't replace it", "- wrong_responses <= 2", []string{"wrong_responses <= 2 new", "wrong_responses <= 0 new implied"}},
		{"the old arm's isn't the new one's", "- {gate: wrong_responses <= 0, system: old}", []string{"wrong_responses <= 0 old", "wrong_responses <= 0 new implied"}},
		{"one of another profile isn't judged in this one", "- {gate: wrong_responses <= 0, profiles: [full]}\n  - p95_latency < 10ms", []string{"p95_latency < 10ms new", "wrong_responses <= 0 new implied"}},
	} {
		plan, err := scenario.Compile([]byte(with("- p95_latency < 10ms", tt.gates)), "t.yaml", scenario.Options{})
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		var got []string
		for _, g := range plan.Gates {
			text := g.Text + " " + g.System
			if g.Implied {
				text += " implied"
			}
			got = append(got, text)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.why, diff)
		}
	}
}

func TestEmbeddedScenariosCompileInEveryProfile(t *testing.T) {
	t.Parallel()
	if got := scenarios.Names(); !cmp.Equal(got, []string{"compare", "defects-churn", "defects-content", "defects-faults", "defects-keys", "defects-service", "exhaustion", "faults-answers", "faults-network", "phase1", "phase2", "phase3", "phase4", "regression"}) {
		t.Fatalf("embedded: %v", got)
	}
	missing := func(string) ([]byte, error) { return nil, fs.ErrNotExist }
	for _, name := range scenarios.Names() {
		profiles := []string{"quick", "standard", "full"}
		if strings.HasPrefix(name, "defects-") || strings.HasPrefix(name, "faults-") || name == "exhaustion" {
			profiles = profiles[:1] // they are made to be short
		}
		for _, profile := range profiles {
			for _, system := range []string{"", "optimizer", "direct", "http://127.0.0.1:8080"} {
				plan, err := scenario.Open(name, missing, scenario.Options{Profile: profile, System: system})
				if err != nil {
					t.Errorf("%s %s %s: %v", name, profile, system, err)
					continue
				}
				if plan.Name != name || plan.Source != "" || !plan.Load.Verify || strings.HasPrefix(name, "phase") && len(plan.Triggers) == 0 {
					t.Errorf("%s %s: %+v", name, profile, plan)
				}
			}
		}
	}
}

// The table of the quick profiles: enough requests on the new system to decide
// the availability gate at 95 % with no failure, ln(0.05)/ln(availability).
func TestEmbeddedQuickProfilesDecideAvailability(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct{ offered, needed float64 }{
		"phase1": {7800, 5990}, "phase2": {19500, 14978}, "phase3": {32500, 29956}, "phase4": {32500, 29956},
	} {
		plan := open(t, name, scenario.Options{})
		offered := plan.Load.Rate[0].To * plan.System("new").Share * plan.Steady.Seconds()
		if math.Abs(offered-want.offered) > 1e-6 {
			t.Errorf("%s: %v requests on the new system, want %v", name, offered, want.offered)
		}
		for _, g := range plan.Gates {
			if g.Metric.Name != "availability" {
				continue
			}
			needed := math.Ceil(math.Log(1-plan.Confidence) / math.Log(g.Threshold))
			if math.Abs(needed-want.needed) > 1 || offered < needed {
				t.Errorf("%s: %v offered, %v needed, want %v needed", name, offered, needed, want.needed)
			}
		}
	}
}

// The gates and triggers of the plan's table, phase by phase.
func TestEmbeddedGatesAreThePlans(t *testing.T) {
	t.Parallel()
	http2 := []string{"http2_adoption > 80%", "connection_reuse > 70%", "negotiation_success > 95%"}
	watched := []string{"dashboard_uptime > 99.9%", "alert_response < 2m", "trace_completeness > 95%", "log_completeness >= 100%"}
	production := []string{"p95_latency > 50ms 5m0s immediate", "error_rate > 5% 2m0s immediate", "cache_hit_ratio < 30% 10m0s gradual", "memory > 500MB 5m0s immediate"}
	enhanced := []string{"http2_adoption < 80% 5m0s alert", "connection_reuse < 70% 5m0s alert", "negotiation_success < 95% 5m0s alert"}
	const growth = "memory_growth_rate < 10MB/hour"
	for name, want := range map[string]struct {
		gates    []string
		triggers []string
		config   string
		full     time.Duration
		newShare float64
	}{
		"phase1": {
			[]string{"p95_latency < 10ms", "throughput > 15/s", "cache_hit_ratio > 70%", "error_rate < 0.5%", "availability > 99.95%", "memory <= 100MB", "cpu < 20%", growth},
			[]string{"p95_latency > 50ms 5m0s immediate", "error_rate > 2% 3m0s immediate", "cache_hit_ratio < 50% 10m0s immediate", "memory > 150MB 0s immediate", "cpu > 50% 0s immediate"},
			"map[cache:map[default_ttl:5m max_memory_mb:100]]", 24 * time.Hour, 0.05,
		},
		"phase2": {
			append([]string{"p95_latency < 5ms", "throughput > 50/s", "cache_hit_ratio > 80%", "error_rate < 0.5%", "availability > 99.98%", "memory <= 200MB", growth}, http2...),
			slices.Concat(production, enhanced), "map[cache:map[capacity:20000 default_ttl:10m max_memory_mb:200]]", 48 * time.Hour, 0.25,
		},
		"phase3": {
			append(append([]string{"p95_latency < 2ms", "throughput > 70/s", "cache_hit_ratio > 85%", "error_rate < 0.1%", "availability > 99.99%", "memory <= 200MB", growth}, http2...), watched...),
			production, "map[cache:map[capacity:20000 default_ttl:10m max_memory_mb:200]]", 24 * time.Hour, 0.5,
		},
		"phase4": {
			append(append(append([]string{"p95_latency < 1ms", "throughput > 90/s", "cache_hit_ratio > 90%", "error_rate < 0.1%", "availability > 99.99%", "memory <= 200MB", growth}, http2...), watched...),
				"security_score >= 100%", "hit_latency_improvement > 2164", "throughput_improvement > 42"),
			production, "map[cache:map[capacity:20000 default_ttl:10m max_memory_mb:200]]", 4 * time.Hour, 1,
		},
	} {
		for _, profile := range []string{"quick", "full"} {
			plan := open(t, name, scenario.Options{Profile: profile})
			var gates, triggers []string
			for _, g := range plan.Gates[:len(plan.Gates)-1] {
				gates = append(gates, g.Text)
			}
			for _, tr := range plan.Triggers {
				triggers = append(triggers, fmt.Sprint(tr.Text, " ", tr.For, " ", tr.Action))
			}
			wanted := append([]string(nil), want.gates...)
			if profile == "quick" { // a minute can't decide growth
				wanted = strings.Split(strings.Replace(strings.Join(wanted, "|"), growth+"|", "", 1), "|")
				wanted = strings.Split(strings.TrimSuffix(strings.Join(wanted, "|"), "|"+growth), "|")
			} else if plan.Steady != want.full {
				t.Errorf("%s full: %v", name, plan.Steady)
			}
			if diff := cmp.Diff(wanted, gates); diff != "" {
				t.Errorf("%s %s gates (-want +got):\n%s", name, profile, diff)
			}
			if diff := cmp.Diff(want.triggers, triggers); diff != "" {
				t.Errorf("%s %s triggers (-want +got):\n%s", name, profile, diff)
			}
			if got := fmt.Sprint(plan.System("new").Config); got != want.config {
				t.Errorf("%s: config %s", name, got)
			}
			if got := plan.System("new"); got.Share != want.newShare || got.UpstreamTLS != (name != "phase1") {
				t.Errorf("%s: %+v", name, got)
			}
		}
	}
}

func open(t *testing.T, name string, opts scenario.Options) *scenario.Plan {
	t.Helper()
	plan, err := scenario.Open(name, func(string) ([]byte, error) { return nil, fs.ErrNotExist }, opts)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestOpen(t *testing.T) {
	t.Parallel()
	files := map[string]string{"mine.yaml": valid, "bare": valid, "phase1.yaml": valid}
	readFile := func(name string) ([]byte, error) {
		if src, ok := files[name]; ok {
			return []byte(src), nil
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	for _, tt := range []struct{ why, name, want string }{
		{"a file", "mine.yaml", "t mine.yaml"},
		{"a file without suffix", "bare", "t bare"},
		{"an embedded scenario", "phase1", "phase1 "},
		{"a suffix means a file", "phase1.yaml", "t phase1.yaml"},
		{"a suffix never means an embedded scenario", "phase2.yaml", "read scenario: open phase2.yaml: file does not exist"},
		{"nor does a separator", "./phase2", "read scenario: open ./phase2: file does not exist"},
		{"a name that is none", "phase5", "no scenario phase5 (nearest: phase1, phase2, phase3); allowed: a file, or one of compare, defects-churn, defects-content, defects-faults, defects-keys, defects-service, exhaustion, faults-answers, faults-network, phase1, phase2, phase3, phase4, regression"},
	} {
		got := ""
		if plan, err := scenario.Open(tt.name, readFile, scenario.Options{}); err != nil {
			got = err.Error()
		} else {
			got = plan.Name + " " + plan.Source
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
}

func ExampleCompile() {
	const src = `
name: replay
upstream: {latency: 464ms}
systems: {new: {kind: optimizer}}
load: {rate: 200/s, keys: {access_log: access.log.gz}}
profiles: {quick: {steady: 1m}}
gates:
  - p95_latency < 10MB
  - cache_hit_rate > 70%
`
	plan, err := scenario.Compile([]byte(src), "replay.yaml", scenario.Options{
		Set: []string{"gates.0=p95_latency < 10ms", "gates.1=cache_hit_ratio > 70%"},
	})
	fmt.Println(plan.Gates[0].Text, plan.Gates[0].Threshold, err)

	_, err = scenario.Compile([]byte(src), "replay.yaml", scenario.Options{})
	var faults scenario.Errors
	if errors.As(err, &faults) {
		fmt.Println(len(faults), "faults, the first in line", faults[0].Line)
	}
	fmt.Println(err)
	// Output:
	// p95_latency < 10ms 0.01 <nil>
	// 2 faults, the first in line 8
	// replay.yaml:8:5: gates.0: p95_latency: 10MB has the unknown unit MB; allowed: a duration such as 250ms, 5m or 24h (units ns, us, ms, s, m, h, d)
	// replay.yaml:9:5: gates.1: unknown metric cache_hit_rate; nearest: cache_hit_ratio
}
