package scenario_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"phasegate/harness/scenario"
)

// What is allowed, as messages end.
const (
	durations  = "a duration such as 250ms, 5m or 24h (units ns, us, ms, s, m, h, d)"
	sizes      = "a size such as 512B, 8KiB (2^10) or 100MB (10^6) (units B, kB, MB, GB, KiB, MiB, GiB)"
	shares     = "a share from 0 to 1, such as 70% or 0.7"
	rates      = "a rate such as 200/s (also /m, /h)"
	paces      = rates + ", or max"
	conditions = "METRIC OP VALUE, such as p95_latency < 10ms or cache_hit_ratio > 70%"
	aName      = "a name of lower-case letters, digits, '-', '_' and '.', such as phase1"
	theKinds   = "optimizer, nginx, varnish, haproxy, direct, command, container, url"
)

// faulty are scenarios that must be refused: what is replaced in valid, and
// the whole message, place included.
var faulty = []struct {
	why, from, to string
	want          string
}{
	{"a typing error in a key at the top", "triggers:", "trigger:",
		"t.yaml:17:1: unknown key trigger in a scenario (nearest: triggers); allowed: name, title, seed, upstream, systems, traffic, load, prewarm, sequential, confidence, abort, profiles, gates, triggers, drills"},
	{"a typing error further down", "latency: 20ms", "latencies: 20ms",
		"t.yaml:3:3: unknown key latencies in upstream (nearest: latency); allowed: listen, latency, body, cache_control, vary, paths, tls, max_streams, goaway"},
	{"a key far from any", "latency: 20ms", "zzz: 20ms",
		"t.yaml:3:3: unknown key zzz in upstream; allowed: listen, latency, body, cache_control, vary, paths, tls, max_streams, goaway"},
	{"the same key twice", "  rate: 100/s", "  rate: 100/s\n  rate: 200/s",
		"t.yaml:9:3: load: the key rate is written twice, first at t.yaml:8:3; allowed: once"},
	{"a required key", "name: t\n", "",
		"t.yaml:1:1: name is missing; allowed: " + aName},
	{"a required key without a value", "name: t\n", "name:\n",
		"t.yaml:1:1: name is missing; allowed: " + aName},
	{"a required key inside", "  rate: 100/s\n", "",
		"t.yaml:7:1: load.rate is missing; allowed: " + paces + ", or a mapping with ramp, steps, sine"},
	{"a name that can't be a folder", "name: t", "name: ../t",
		"t.yaml:1:7: name: ../t is not a name; allowed: " + aName},
	{"a bare number of what?", "latency: 20ms", "latency: 464",
		"t.yaml:3:12: upstream.latency: 464 has no unit; allowed: " + durations},
	{"a unit that is none", "latency: 20ms", "body: 10MBs",
		"t.yaml:3:9: upstream.body: 10MBs has the unknown unit MBs; allowed: " + sizes},
	{"a size for a duration", "latency: 20ms", "latency: 10MB",
		"t.yaml:3:12: upstream.latency: 10MB has the unknown unit MB; allowed: " + durations},
	{"a negative duration", "latency: 20ms", "latency: -20ms",
		"t.yaml:3:12: upstream.latency: -20ms is negative; allowed: " + durations},
	{"no time at all", "steady: 10s", "steady: 0s",
		"t.yaml:13:31: profiles.quick.steady: 0s is not above 0; allowed: " + durations + ", above 0"},
	{"bytes come whole", "latency: 20ms", "body: 0.5B",
		"t.yaml:3:9: upstream.body: 0.5B is not a whole number of bytes; allowed: " + sizes},
	{"a directive that nobody could read", "latency: 20ms", "cache_control: max-age=abc",
		`t.yaml:3:18: upstream.cache_control: "max-age=abc": whole seconds expected; allowed: directives of RFC 9111 and RFC 5861, each once`},
	{"a variant of anything", "latency: 20ms", `vary: ["*"]`,
		"t.yaml:3:10: upstream.vary.0: * matches no request, so nothing could ever be a hit; allowed: names of request fields"},
	{"gates for other profiles only: the implied one alone is no judgement", "- p95_latency < 10ms", "- {gate: p95_latency < 10ms, profiles: [full]}",
		"t.yaml:15:1: gates: no gate for the profile quick, so nothing would be judged; allowed: at least one"},
	{"min above max", "latency: 20ms", "body: {min: 2kB, max: 1kB}",
		"t.yaml:3:15: upstream.body.min: 2kB is more than max, 1kB; allowed: min at most max"},
	{"p95 below the mean", "latency: 20ms", "latency: {mean: 464ms, p95: 400ms}",
		"t.yaml:3:31: upstream.latency.p95: 400ms is below the mean, 464ms; allowed: from the mean to 3.87 times the mean"},
	{"p95 beyond a log-normal", "latency: 20ms", "latency: {mean: 100ms, p95: 500ms}",
		"t.yaml:3:31: upstream.latency.p95: 500ms is 5.00 times the mean, 100ms, which no log-normal distribution has; allowed: from the mean to 3.87 times the mean"},
	{"half a distribution", "latency: 20ms", "latency: {mean: 100ms}",
		"t.yaml:3:12: upstream.latency: one of mean and p95 is missing; allowed: both, or fixed"},
	{"two latencies", "latency: 20ms", "latency: {fixed: 1ms, mean: 100ms, p95: 200ms}",
		"t.yaml:3:12: upstream.latency: both fixed and a distribution; allowed: {fixed: 464ms} or {mean: 464ms, p95: 520ms}"},
	{"a port for everybody", "latency: 20ms", "listen: 0.0.0.0:9000",
		"t.yaml:3:11: upstream.listen: 0.0.0.0:9000 is not a loopback address, and the mock upstream must not be reachable from outside; allowed: a loopback HOST:PORT, such as 127.0.0.1:9000"},
	{"a free port is what leaving it out means", "latency: 20ms", "listen: 127.0.0.1:0",
		"t.yaml:3:11: upstream.listen: 127.0.0.1:0 has no port from 1 to 65535; allowed: a loopback HOST:PORT, such as 127.0.0.1:9000"},
	{"an address without port", "latency: 20ms", "listen: localhost",
		"t.yaml:3:11: upstream.listen: localhost has no port from 1 to 65535; allowed: a loopback HOST:PORT, such as 127.0.0.1:9000"},
	{"more than everything", "new: 5%", "new: 105%",
		"t.yaml:6:16: traffic.new: 105% is more than 100%; allowed: " + shares},
	{"per cent forgotten", "new: 5%", "new: 5",
		"t.yaml:6:16: traffic.new: 5 is more than 1, which is 100%; allowed: " + shares},
	{"arms that don't sum up", "new: 5%", "new: 6%",
		"t.yaml:6:25: traffic.old: new 6% and old 95% are 101% together; allowed: 100%, or leave one out"},
	{"nothing to judge", "{new: 5%, old: 95%}", "{new: 0%}",
		"t.yaml:6:16: traffic.new: the new system gets no traffic, so nothing would be judged; allowed: traffic.new above 0%"},
	{"a kind that is none", "kind: optimizer", "kind: optimiser",
		"t.yaml:5:15: systems.new.kind: optimiser is none of the choices (nearest: optimizer); allowed: " + theKinds},
	{"a cache of a packaged system's own that holds nothing", "kind: optimizer, config: {cache: {max_memory_mb: 100", "kind: nginx, config: {cache: {max_memory_mb: none",
		"t.yaml:5:54: systems.new.config.cache.max_memory_mb: none; allowed: a number from 4 to 1048576"},
	{"a lifetime without a unit, for a packaged system", "kind: optimizer, config: {cache: {max_memory_mb: 100, default_ttl: 5m", "kind: varnish, config: {cache: {default_ttl: 5",
		"t.yaml:5:54: systems.new.config.cache.default_ttl: 5; allowed: a duration such as 250ms, 5m or 24h (units ns, us, ms, s, m, h, d)"},
	{"h2 is over TLS, which varnish has none of", "{kind: optimizer, config: {cache: {max_memory_mb: 100, default_ttl: 5m}}}\ntraffic: {new: 5%, old: 95%}\nload:\n", "{kind: varnish}\nload:\n  protocol: {h2: 50%, http/1.1: 50%}\n",
		"t.yaml:7:13: load.protocol: h2 needs TLS, and the new system is of kind varnish, which speaks no TLS; allowed: http/1.1 or h2c"},
	{"no kind", "{kind: optimizer, config: ", "{config: ",
		"t.yaml:5:8: systems.new.kind is missing; allowed: " + theKinds},
	{"an image is a container's", "kind: optimizer", "image: nginx, kind: optimizer",
		"t.yaml:5:16: systems.new.image: not a key of kind optimizer; allowed: with kind container"},
	{"a command without one", "kind: optimizer", "kind: command",
		"t.yaml:5:8: systems.new.command is missing; allowed: a list of text"},
	{"a command of nothing", "kind: optimizer", "kind: command, command: []",
		"t.yaml:5:33: systems.new.command: no program; allowed: a program and its arguments"},
	{"a typing error in a placeholder", "kind: optimizer", `kind: command, command: [p, "{listen}", "{upstreams}", "{upstream}"]`,
		"t.yaml:5:49: systems.new.command.2: {upstreams} has the unknown placeholder {upstreams} (nearest: {upstream}, {upstream_tls}); allowed: {listen}, {upstream}, {upstream_tls}, {ca}, {admin}"},
	{"metrics of a system that has its own", "kind: optimizer", `kind: optimizer, metrics: "http://127.0.0.1:1/metrics"`,
		"t.yaml:5:35: systems.new.metrics: not a key of kind optimizer; allowed: with kind command, container"},
	{"metrics at the upstream's", "kind: optimizer", `kind: command, command: [p, "{listen}", "{upstream}"], metrics: "{upstream}/metrics"`,
		"t.yaml:5:73: systems.new.metrics: {upstream}/metrics has the unknown placeholder {upstream}; allowed: a URL such as http://{admin}/metrics, with {admin} or {listen} as its host"},
	{"metrics without a scheme", "kind: optimizer", `kind: command, command: [p, "{listen}", "{upstream}"], metrics: "{admin}/metrics"`,
		"t.yaml:5:73: systems.new.metrics: {admin}/metrics is not the http address of metrics; allowed: a URL such as http://{admin}/metrics, with {admin} or {listen} as its host"},
	{"a command nobody can reach", "kind: optimizer", `kind: command, command: [p, "{upstream}"]`,
		"t.yaml:5:33: systems.new.command: no argument has {listen}; allowed: the address to listen on passed as {listen}"},
	{"a command that reaches nobody", "kind: optimizer", `kind: command, command: [p, "{listen}"]`,
		"t.yaml:5:33: systems.new.command: no argument has {upstream} or {upstream_tls}; allowed: one of them, or a fixed address by upstream.listen"},
	{"a command as one string", "kind: optimizer", `kind: command, command: "p {listen} {upstream}"`,
		`t.yaml:5:33: systems.new.command: "p {listen} {upstream}"; allowed: a list of text`},
	{"a key of another kind", "kind: optimizer", "kind: optimizer, url: \"http://127.0.0.1\"",
		"t.yaml:5:31: systems.new.url: not a key of kind optimizer; allowed: with kind url"},
	{"TLS to the upstream needs a system that is set up", "kind: optimizer", "kind: direct, upstream_tls: true",
		"t.yaml:5:37: systems.new.upstream_tls: not a key of kind direct; allowed: with kind optimizer, nginx, varnish, haproxy"},
	{"a URL without scheme", "kind: optimizer", "kind: url, url: \"127.0.0.1:80\"",
		"t.yaml:5:25: systems.new.url: 127.0.0.1:80 is not a URL; allowed: http://HOST:PORT or https://HOST:PORT, without path"},
	{"a URL with a path", "kind: optimizer", "kind: url, url: \"http://127.0.0.1/api\"",
		"t.yaml:5:25: systems.new.url: http://127.0.0.1/api has a path, and the load brings its own; allowed: http://HOST:PORT or https://HOST:PORT, without path"},
	{"a password in a report", "kind: optimizer", "kind: url, url: \"http://me:secret@127.0.0.1\"",
		"t.yaml:5:25: systems.new.url: http://me:xxxxx@127.0.0.1 has a user in it, which would end up in reports; allowed: http://HOST:PORT or https://HOST:PORT, without path"},
	{"an upstream is needed", "upstream:\n  latency: 20ms\n", "",
		"t.yaml:1:1: upstream is missing, and the old system is of kind direct; allowed: without upstream, a single system of kind url"},
	{"a rate of nothing", "rate: 100/s", "rate: 0/s",
		"t.yaml:8:9: load.rate: 0/s sends nothing; allowed: a rate above 0"},
	{"a rate below nothing", "rate: 100/s", "rate: -1/s",
		"t.yaml:8:9: load.rate: -1/s is negative; allowed: " + paces},
	{"a rate per nothing", "rate: 100/s", "rate: 100",
		"t.yaml:8:9: load.rate: 100 has no unit; allowed: " + paces},
	{"a rate in Hertz", "rate: 100/s", "rate: 100Hz",
		"t.yaml:8:9: load.rate: 100Hz has the unknown unit Hz; allowed: " + paces},
	{"a rate per millisecond is a typing error", "rate: 100/s", "rate: 100/ms",
		"t.yaml:8:9: load.rate: 100/ms has the unknown unit /ms; allowed: " + paces},
	{"a rate beyond any machine", "rate: 100/s", "rate: 100000000/s",
		"t.yaml:8:9: load.rate: 100000000/s is more than one machine sends; allowed: at most 1000000/s"},
	{"a ramp without length", "rate: 100/s", "rate: {ramp: {from: 10/s, to: 200/s}}",
		"t.yaml:8:16: load.rate.ramp.over is missing; allowed: " + durations + ", above 0"},
	{"a ramp into silence", "rate: 100/s", "rate: {ramp: {from: 10/s, to: 0/s, over: 1s}}",
		"t.yaml:8:33: load.rate.ramp.to: 0/s ends in silence; allowed: a rate above 0"},
	{"a ramp and steps", "rate: 100/s", "rate: {ramp: {from: 10/s, to: 200/s, over: 1s}, steps: [{rate: 1/s}]}",
		"t.yaml:8:9: load.rate: none or several of ramp, steps and sine; allowed: one of them"},
	{"no steps", "rate: 100/s", "rate: {steps: []}",
		"t.yaml:8:17: load.rate.steps: no step; allowed: a list of {rate: 10/s, for: 30s}"},
	{"a step without length before the last", "rate: 100/s", "rate: {steps: [{rate: 1/s}, {rate: 2/s}]}",
		"t.yaml:8:18: load.rate.steps.0.for is missing; allowed: " + durations + ", above 0"},
	{"steps of silence", "rate: 100/s", "rate: {steps: [{rate: 0/s}]}",
		"t.yaml:8:17: load.rate.steps: no step sends anything; allowed: at least one rate above 0"},
	{"a wave deeper than its mean", "rate: 100/s", "rate: {sine: {mean: 100/s, amplitude: 101/s, period: 1m}}",
		"t.yaml:8:41: load.rate.sine.amplitude: 101/s is more than the mean, and no rate is below 0; allowed: at most 100/s"},
	{"a wave about silence", "rate: 100/s", "rate: {sine: {mean: 0/s, amplitude: 0/s, period: 1m}}",
		"t.yaml:8:23: load.rate.sine.mean: 0/s sends nothing; allowed: a rate above 0"},
	{"a wave without length", "rate: 100/s", "rate: {sine: {mean: 10/s, amplitude: 1/s}}",
		"t.yaml:8:16: load.rate.sine.period is missing; allowed: " + durations + ", above 0"},
	{"a wave that starts nowhere", "rate: 100/s", "rate: {sine: {mean: 10/s, amplitude: 1/s, period: 1m, start: top}}",
		"t.yaml:8:64: load.rate.sine.start: top is none of the choices; allowed: mean-up, peak, mean-down, trough"},
	{"a wave whose peak is beyond any machine", "rate: 100/s", "rate: {sine: {mean: 600000/s, amplitude: 600000/s, period: 1m}}",
		"t.yaml:8:9: load.rate: 1200000/s is more than one machine sends; allowed: at most 1000000/s"},
	{"arrivals of no known kind", "rate: 100/s", "rate: 100/s\n  arrivals: random",
		"t.yaml:9:13: load.arrivals: random is none of the choices; allowed: constant, poisson"},
	{"a protocol that nobody speaks", "rate: 100/s", "rate: 100/s\n  protocol: h3",
		"t.yaml:9:13: load.protocol: h3 is none of the choices (nearest: h2, h2c); allowed: http/1.1, h2, h2c"},
	{"a mix that isn't whole", "rate: 100/s", "rate: 100/s\n  protocol: {h2: 50%, http/1.1: 40%}",
		"t.yaml:9:13: load.protocol: the shares are 90% together; allowed: 100%"},
	{"TLS and clear text to one address", "rate: 100/s", "rate: 100/s\n  protocol: {h2: 50%, h2c: 50%}",
		"t.yaml:9:13: load.protocol: both h2, which needs TLS, and h2c, which is clear text, and a system has one address; allowed: http/1.1 with one of them"},
	{"fewer connections than protocols", "rate: 100/s", "rate: 100/s\n  connections: 1\n  protocol: {http/1.1: 50%, h2: 50%}",
		"t.yaml:9:16: load.connections: 1 connection for 2 protocols; allowed: at least one for each"},
	{"streams where there are none", "rate: 100/s", "rate: 100/s\n  streams: 10",
		"t.yaml:9:12: load.streams: HTTP/1.1 has no streams; allowed: with protocol h2 or h2c"},
	{"the highest rate of how many", "rate: 100/s", "rate: max",
		"t.yaml:8:9: load.rate: max needs as many clients as load.connections says, and it is auto; allowed: a number of connections"},
	{"the highest rate of a recording that ends", "rate: 100/s\n  keys: {distribution: zipf, count: 500}", "rate: max\n  connections: 4\n  keys: {har: a.har}",
		"t.yaml:8:9: load.rate: max goes on until the time is up, and the recording a.har ends; allowed: with keys.repeat true"},
	{"no connections", "rate: 100/s", "rate: 100/s\n  connections: 0",
		"t.yaml:9:16: load.connections: 0 is neither; allowed: auto, or a whole number from 1 to 100000"},
	{"all keys one", "rate: 100/s", "rate: 100/s\n  path: /items",
		"t.yaml:9:9: load.path: /items has no {key}, so all keys would be one; allowed: a path with {key}"},
	{"an unknown placeholder in the path", "rate: 100/s", "rate: 100/s\n  path: /items/{id}",
		"t.yaml:9:9: load.path: /items/{id} has the unknown placeholder {id}, {key} is the only one; allowed: a path of ASCII that begins with / and has no white space, such as /items/{key}"},
	{"a path is absolute", "rate: 100/s", "rate: 100/s\n  path: items/{key}",
		"t.yaml:9:9: load.path: items/{key} is not a path; allowed: a path of ASCII that begins with / and has no white space, such as /items/{key}"},
	{"beyond the histogram", "rate: 100/s", "rate: 100/s\n  timeout: 2m",
		"t.yaml:9:12: load.timeout: 2m is too long; allowed: at most 60s, the longest latency that is recorded"},
	{"neither auto nor off", "rate: 100/s", "rate: 100/s\n  verify: no",
		"t.yaml:9:11: load.verify: no is none of the choices; allowed: auto, off"},
	{"no choice of keys", "distribution: zipf, ", "",
		"t.yaml:9:9: load.keys has none of distribution, access_log, har, targets; allowed: one of them"},
	{"two choices of keys", "distribution: zipf, ", "distribution: zipf, access_log: a.log, ",
		"t.yaml:9:9: load.keys: both distribution and access_log; allowed: one of them"},
	{"two recordings", "{distribution: zipf, count: 500}", "{targets: a.txt, har: a.har}",
		"t.yaml:9:9: load.keys: both har and targets; allowed: one of them"},
	{"the times of targets, which have none", "{distribution: zipf, count: 500}", "{targets: a.txt, pace: log}",
		"t.yaml:9:32: load.keys.pace: targets have no times of their own; allowed: rate"},
	{"keys without number", ", count: 500", "",
		"t.yaml:9:9: load.keys.count is missing; allowed: a whole number from 1"},
	{"no keys", "count: 500", "count: 0",
		"t.yaml:9:37: load.keys.count: 0 is out of range; allowed: a whole number from 1 to 100000000"},
	{"half a key", "count: 500", "count: 0.5",
		"t.yaml:9:37: load.keys.count: 0.5 is not a whole number; allowed: a whole number from 1 to 100000000"},
	{"zipf's key for uniform", "zipf,", "uniform, exponent: 1,",
		"t.yaml:9:43: load.keys.exponent: not a key of distribution uniform; allowed: with distribution zipf"},
	{"a distribution's key for a log", "distribution: zipf,", "access_log: a.log,",
		"t.yaml:9:36: load.keys.count: not a key of access_log; allowed: with distribution"},
	{"a log's key for a distribution", "count: 500", "count: 500, pace: log",
		"t.yaml:9:48: load.keys.pace: not a key of generated keys; allowed: with access_log, har, targets"},
	{"speed of a fixed rate", "{distribution: zipf, count: 500}", "{access_log: a.log, speed: 2}",
		"t.yaml:9:36: load.keys.speed: not a key of pace rate; allowed: with pace: log"},
	{"a hot set of everything", "zipf,", "hot, hot_keys: 100%,",
		"t.yaml:9:39: load.keys.hot_keys: 100% is no part of the keys; allowed: above 0% and below 100%"},
	{"only writes", "share: 1%", "share: 100%",
		"t.yaml:10:19: load.writes.share: 100% leaves no reads; allowed: below 100%"},
	{"a method that doesn't write", "share: 1%", "share: 1%, method: GET",
		"t.yaml:10:31: load.writes.method: GET is none of the choices (nearest: PUT); allowed: POST, PUT, PATCH, DELETE"},
	{"more keys than there are", "top: 400", "top: 600",
		"t.yaml:11:16: prewarm.top: 600 of 500 keys; allowed: at most load.keys.count"},
	{"half of a comparison", "prewarm: {top: 400}", "sequential: {direct: 0}",
		"t.yaml:11:13: sequential: one of direct and hits is 0, and the stage compares them; allowed: both above 0, or both 0 for none"},
	{"certainty", "prewarm: {top: 400}", "confidence: 100%",
		"t.yaml:11:13: confidence: 100% is out of range; allowed: at least 50% and below 100%"},
	{"a profile that isn't one", "full:", "fulll:",
		"t.yaml:14:3: unknown key fulll in profiles (nearest: full); allowed: quick, standard, full"},
	{"no gates", "\n  - p95_latency < 10ms", " []",
		"t.yaml:15:8: gates: no gate, so nothing would be judged; allowed: a list of " + conditions},
	{"a gate without anything", "- p95_latency < 10ms", "-",
		"t.yaml:16:4: gates.0: nothing; allowed: " + conditions + ", or a mapping with gate, system, profiles"},
	{"a gate on nothing", "p95_latency < 10ms", "p95_latencies < 10ms",
		"t.yaml:16:5: gates.0: unknown metric p95_latencies; nearest: p95_latency, p90_latency, p99_latency"},
	{"words in another order", "p95_latency < 10ms", "latency_p95 < 10ms",
		"t.yaml:16:5: gates.0: unknown metric latency_p95; nearest: p95_latency"},
	{"a gate in the wrong unit", "p95_latency < 10ms", "p95_latency < 10MB",
		"t.yaml:16:5: gates.0: p95_latency: 10MB has the unknown unit MB; allowed: " + durations},
	{"a gate without unit", "p95_latency < 10ms", "p95_latency < 10",
		"t.yaml:16:5: gates.0: p95_latency: 10 has no unit; allowed: " + durations},
	{"an operator that is none", "p95_latency < 10ms", "p95_latency == 10ms",
		"t.yaml:16:5: gates.0: unknown operator ==; allowed: <, <=, >, >="},
	{"no operator", "p95_latency < 10ms", "p95_latency 10ms",
		`t.yaml:16:5: gates.0: "p95_latency 10ms" has no operator after the metric; allowed: <, <=, >, >=`},
	{"no value", "p95_latency < 10ms", "p95_latency <",
		`t.yaml:16:5: gates.0: "p95_latency <" has no value after the operator; allowed: ` + conditions},
	{"no metric", "p95_latency < 10ms", "\"< 10ms\"",
		`t.yaml:16:5: gates.0: "< 10ms" doesn't begin with a metric; allowed: ` + conditions},
	{"a gate that can't fail", "p95_latency < 10ms", "error_rate <= 100%",
		`t.yaml:16:5: gates.0: "error_rate <= 100%" holds for every possible value, so it decides nothing; allowed: a threshold that some values meet and others don't`},
	{"a gate that can't pass", "p95_latency < 10ms", "cache_hit_ratio > 100%",
		`t.yaml:16:5: gates.0: "cache_hit_ratio > 100%" holds for no possible value; allowed: a threshold that some values meet and others don't`},
	{"a gate written twice", "- p95_latency < 10ms", "- p95_latency < 10ms\n  - p95_latency<10 ms",
		`t.yaml:17:5: gates.1: the gate "p95_latency < 10ms" is written twice, first at t.yaml:16:5; allowed: once`},
	{"a gate of no profile", "- p95_latency < 10ms", "- {gate: cpu < 20%, profiles: [standard]}",
		"t.yaml:16:34: gates.0.profiles.0: no profile standard in this scenario; allowed: quick, full"},
	{"a gate on an arm without traffic", "- p95_latency < 10ms", "- {gate: cpu < 20%, system: odl}",
		"t.yaml:16:31: gates.0.system: odl is none of the choices (nearest: old); allowed: old, new"},
	{"a gate as a mapping of something else", "- p95_latency < 10ms", "- {p95_latency: 10ms}",
		"t.yaml:16:5: gates.0.gate is missing; allowed: " + conditions + "\nt.yaml:16:6: unknown key p95_latency in gates.0; allowed: gate, system, profiles"},
	{"a trigger on what is measured once", "error_rate > 2%", "hit_latency_improvement < 10",
		"t.yaml:18:12: triggers.0.when: hit_latency_improvement is measured once, and a trigger watches a window; allowed: metrics of the running load"},
	{"an action that is none", "for: 3m}", "for: 3m, action: now}",
		"t.yaml:18:46: triggers.0.action: now is none of the choices; allowed: immediate, gradual, alert"},
	{"a drill without a kind", "triggers:", "drills: [{fault: {for: 1s}, expect: [x]}]\ntriggers:",
		"t.yaml:17:18: drills.0.fault: no kind; allowed: {kind: NAME, for: DURATION}"},
	{"a drill that expects nothing", "triggers:", "drills: [{fault: {kind: pause, for: 1s}, expect: []}]\ntriggers:",
		"t.yaml:17:10: drills.0: nothing is expected, so nothing would be judged; allowed: conditions, and no trigger"},
	{"an expectation that is none", "triggers:", "drills: [{fault: {kind: pause, for: 1s}, expect: [no triggers]}]\ntriggers:",
		`t.yaml:17:51: drills.0.expect.0: "no triggers"; allowed: no trigger, or METRIC OP VALUE, such as error_rate < 1%`},
	{"a fault of what the scenario hasn't", "traffic: {new: 5%, old: 95%}", "drills: [{fault: {kind: pause, for: 1s, target: old}, expect: [no trigger]}]",
		"t.yaml:6:49: drills.0.fault.target: the scenario has no old to break; allowed: what it has"},
	{"a fault without an end", "triggers:", "drills: [{fault: {kind: pause}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:18: drills.0.fault.for is missing; allowed: " + durations + ", above 0"},
	{"a fault of something that isn't there", "triggers:", "drills: [{fault: {kind: pause, for: 1s, target: news}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:49: drills.0.fault.target: news is none of the choices (nearest: new); allowed: upstream, new, old"},
	{"a fault with another's key", "triggers:", "drills: [{fault: {kind: hang, for: 1s, delay: 1s}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:40: unknown key delay in drills.0.fault; allowed: kind, for, share"},
	{"a slowness of no length", "triggers:", "drills: [{fault: {kind: slow_headers, for: 1s}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:18: drills.0.fault.delay is missing; allowed: " + durations + ", above 0"},
	{"a fault that breaks nothing", "triggers:", "drills: [{fault: {kind: errors, share: 0%, for: 1s}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:40: drills.0.fault.share: breaks nothing; allowed: above 0%"},
	{"a status that is no error", "triggers:", "drills: [{fault: {kind: errors, status: 404, for: 1s}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:41: drills.0.fault.status: 404 is out of range; allowed: a whole number from 500 to 599"},
	{"a protocol nobody knows", "latency: 20ms", "tls: {alpn: [http2]}",
		"t.yaml:3:16: upstream.tls.alpn.0: http2 is none of the choices; allowed: h2, http/1.1, h3"},
	{"a protocol twice", "latency: 20ms", "tls: {alpn: [h2, h2]}",
		"t.yaml:3:20: upstream.tls.alpn.1: h2 is written twice; allowed: once"},
	{"no protocol", "latency: 20ms", "tls: {alpn: []}",
		"t.yaml:3:15: upstream.tls.alpn: no protocol; allowed: at least one of h2, http/1.1, h3"},
	{"versions the wrong way round", "latency: 20ms", "tls: {min_version: 1.3, max_version: 1.2}",
		"t.yaml:3:22: upstream.tls.min_version: 1.3 is above max_version, 1.2; allowed: min_version at most max_version"},
	{"a version that is forbidden", "latency: 20ms", "tls: {min_version: 1.1}",
		"t.yaml:3:22: upstream.tls.min_version: 1.1 is none of the choices (nearest: 1.2, 1.3); allowed: 1.2, 1.3"},
	{"a goaway that never comes", "latency: 20ms", "goaway: {}",
		"t.yaml:3:11: upstream.goaway: neither every nor requests; allowed: one of them or both, such as {every: 1s}"},
	{"a fallback to what isn't offered", "latency: 20ms", "tls: {alpn: [h2]}\ndrills: [{fault: {kind: http1_only, for: 1s}, expect: [no trigger]}]",
		"t.yaml:4:18: drills.0.fault: upstream.tls.alpn has no http/1.1; allowed: with it"},
	{"a container of nothing", "kind: optimizer", "kind: container",
		"t.yaml:5:8: systems.new: neither of image and dockerfile; allowed: one of them"},
	{"a fault of no kind that there is", "triggers:", "drills: [{fault: {kind: netwrok, for: 1s}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:25: drills.0.fault.kind: netwrok is none of the choices (nearest: network); allowed: partition, pause, network, errors, hang, slow_headers, slow_body, truncated_body, wrong_length, garbage, connection_reset, goaway_storm, handshake_failure, certificate_expired, certificate_name, http1_only, upstream_outage"},
	{"a network like none that there is", "triggers:", "drills: [{fault: {kind: network, leg: client, for: 1s, profile: mars}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:65: drills.0.fault.profile: mars is none of the choices; allowed: distant_region"},
	{"a bandwidth that is no number", "triggers:", "drills: [{fault: {kind: network, leg: client, for: 1s, bandwidth: fast}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:67: drills.0.fault.bandwidth: fast is not a number; allowed: " + sizes},
	{"a bandwidth that is a list", "triggers:", "drills: [{fault: {kind: network, leg: client, for: 1s, bandwidth: [1MB]}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:67: drills.0.fault.bandwidth: a list; allowed: " + sizes},
	{"a bandwidth of next to nothing", "triggers:", "drills: [{fault: {kind: network, leg: client, for: 1s, bandwidth: 5B}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:67: drills.0.fault.bandwidth: 5 bytes per second; allowed: 1kB or more"},
	{"a latency below the profile's jitter", "triggers:", "drills: [{fault: {kind: network, leg: client, for: 1s, profile: distant_region, latency: 5ms}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:90: drills.0.fault.latency: 5ms is less than the jitter of distant_region, 20ms; allowed: at least that, or with a jitter of at most it"},
	{"a jitter beyond the latency", "triggers:", "drills: [{fault: {kind: network, leg: client, for: 1s, latency: 5ms, jitter: 9ms}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:78: drills.0.fault.jitter: 9ms is more than the latency, 5ms; allowed: at most that"},
	{"a jitter of an unknown latency", "triggers:", "drills: [{fault: {kind: network, leg: client, for: 1s, latency: long, jitter: 9ms}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:65: drills.0.fault.latency: long is not a number; allowed: " + durations + ", above 0"},
	{"a jitter that is no number", "triggers:", "drills: [{fault: {kind: network, leg: client, for: 1s, jitter: quick}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:64: drills.0.fault.jitter: quick is not a number; allowed: " + durations + ", above 0"},
	{"a network that is as it was", "triggers:", "drills: [{fault: {kind: network, leg: client, for: 1s, slice: 0B}, expect: [no trigger]}]\ntriggers:",
		"t.yaml:17:18: drills.0.fault: nothing gets worse; allowed: profile, latency, bandwidth, slow_close, reset, timeout, slice or limit_data"},
	{"a number beyond all", "top: 400", "top: .inf",
		"t.yaml:11:16: prewarm.top: .inf is not supported in a scenario; allowed: mappings, lists, text, numbers, true and false"},
	{"a drill's expectation", "triggers:", "drills: [{fault: {kind: pause, for: 1s}, expect: [error_rat < 1%]}]\ntriggers:",
		"t.yaml:17:51: drills.0.expect.0: unknown metric error_rat; nearest: error_rate"},
	{"a list for a mapping", "{top: 400}", "[400]",
		"t.yaml:11:10: prewarm: a list; allowed: a mapping with top, concurrency"},
	{"a mapping for a value", "name: t", "name: {a: b}",
		"t.yaml:1:7: name: a mapping; allowed: " + aName},
	{"an anchor", "name: t", "name: &a t",
		"t.yaml:1:7: name: &: YAML anchors, aliases and tags are not supported; allowed: the value written out"},
	{"a merge key", "prewarm: {top: 400}", "prewarm: {<<: {top: 400}}",
		"t.yaml:11:11: prewarm: << can't be a key; allowed: text"},
	{"a bracket left open", "{top: 400}", "{top: 400",
		"t.yaml:12:1: not YAML: ',' or '}' must be specified"},
	{"a second document", "triggers:", "---\ntriggers:",
		"t.yaml:18:1: a second YAML document; allowed: one per file"},
}

// Load over HTTP/2 goes to the upstream itself where a system is direct.
func TestHTTP2NeedsAnUpstreamThatOffersIt(t *testing.T) {
	t.Parallel()
	set := []string{"systems.new={kind: direct}", "load.protocol=h2"}
	if _, err := scenario.Compile([]byte(valid), "t.yaml", scenario.Options{Set: set}); err != nil {
		t.Error(err)
	}
	_, err := scenario.Compile([]byte(valid), "t.yaml", scenario.Options{Set: append(set, "upstream.tls={alpn: [http/1.1]}")})
	if err == nil || !strings.Contains(err.Error(), "the new system is the upstream itself, whose upstream.tls.alpn has no h2") {
		t.Error(err)
	}
}

func TestCompileRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range faulty {
		plan, err := scenario.Compile([]byte(with(tt.from, tt.to)), "t.yaml", scenario.Options{})
		if err == nil {
			t.Errorf("%s: accepted as %+v", tt.why, plan)
		} else if err.Error() != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.why, err, tt.want)
		}
	}
}

func TestCompileRefusesOptions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why  string
		opts scenario.Options
		want string
	}{
		{"a profile that the file doesn't have", scenario.Options{Profile: "standard"},
			"t.yaml:12:1: profiles: no profile standard; allowed: quick, full"},
		{"a profile that is none", scenario.Options{Profile: "quik"},
			"t.yaml:12:1: profiles: no profile quik (nearest: quick); allowed: quick, full"},
		{"a value that can't be read", scenario.Options{Set: []string{"load.rate=fast"}},
			"--set load.rate=fast: load.rate: fast is not a number; allowed: " + paces},
		{"an unknown key", scenario.Options{Set: []string{"load.rat=1/s"}},
			"--set load.rat=1/s: unknown key rat in load (nearest: rate, path); allowed: rate, arrivals, protocol, connections, streams, path, keys, writes, also, timeout, verify"},
		{"no value", scenario.Options{Set: []string{"load.rate"}},
			"--set load.rate: no PATH=VALUE; allowed: a dotted path and a YAML value, such as load.rate=200/s or gates.0=p95_latency < 10ms"},
		{"no path", scenario.Options{Set: []string{"=1"}},
			"--set =1: no PATH=VALUE; allowed: a dotted path and a YAML value, such as load.rate=200/s or gates.0=p95_latency < 10ms"},
		{"a hole in the path", scenario.Options{Set: []string{"load..rate=1/s"}},
			"--set load..rate=1/s: no PATH=VALUE; allowed: a dotted path and a YAML value, such as load.rate=200/s or gates.0=p95_latency < 10ms"},
		{"not YAML", scenario.Options{Set: []string{"load.keys={distribution: zipf"}},
			"--set load.keys={distribution: zipf: not YAML: could not find flow mapping end token '}'"},
		{"inside a single value", scenario.Options{Set: []string{"load.rate.ramp.from=1/s"}},
			"--set load.rate.ramp.from=1/s: load.rate is 100/s and has no ramp inside; allowed: set load.rate as a whole"},
		{"beyond a list's end", scenario.Options{Set: []string{"gates.5=cpu < 20%"}},
			"--set gates.5=cpu < 20%: gates is a list of 1; allowed after it: an index from 0 to 1, which appends"},
		{"a name in a list", scenario.Options{Set: []string{"gates.p95=cpu < 20%"}},
			"--set gates.p95=cpu < 20%: gates is a list of 1; allowed after it: an index from 0 to 1, which appends"},
		{"shares of the file and of the command line", scenario.Options{Set: []string{"traffic.new=50%"}},
			"t.yaml:6:25: traffic.old: new 50% and old 95% are 145% together; allowed: 100%, or leave one out"},
		{"a mapping that lacks something", scenario.Options{Set: []string{"load.keys={distribution: zipf}"}},
			"--set load.keys={distribution: zipf}: load.keys.count is missing; allowed: a whole number from 1"},
		{"a container can't be named alone", scenario.Options{System: "container"},
			`--system container: a container needs an image; allowed: --set 'systems.new={kind: container, image: "NAME:TAG"}'`},
		{"a system that is none", scenario.Options{System: "squid"},
			"--system squid: unknown system; allowed: optimizer, nginx, varnish, haproxy, direct, or a URL that begins with http:// or https://"},
		{"a setting of the system that --system replaces", scenario.Options{System: "nginx", Set: []string{"systems.new.limits={memory: 50MB}"}},
			"--set systems.new.limits={memory: 50MB}: --system nginx takes the place of the system that has it; allowed beside it: config, upstream_tls"},
		{"also of one that keeps none", scenario.Options{System: "direct", Set: []string{"systems.new.limits={cpus: 1}"}},
			"--set systems.new.limits={cpus: 1}: --system direct takes the place of the system that has it; allowed beside it: no key of systems.new"},
		{"a command can't be named alone", scenario.Options{System: "command"},
			`--system command: a command needs its arguments; allowed: --set 'systems.new={kind: command, command: [PROGRAM, ARG, "{listen}", "{upstream}"]}'`},
		{"nor a URL", scenario.Options{System: "url"},
			"--system url: no address; allowed: the URL itself, such as --system http://127.0.0.1:8080"},
		{"a URL of another kind", scenario.Options{System: "ftp://127.0.0.1"},
			"--system ftp://127.0.0.1: systems.new.url: ftp://127.0.0.1 begins with neither http:// nor https://; allowed: http://HOST:PORT or https://HOST:PORT, without path"},
	} {
		plan, err := scenario.Compile([]byte(valid), "t.yaml", tt.opts)
		if err == nil {
			t.Errorf("%s: accepted as %+v", tt.why, plan)
		} else if err.Error() != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.why, err, tt.want)
		}
	}
}

// All faults of a file come together, by line, and those of the command line
// after them.
func TestCompileReportsEveryFault(t *testing.T) {
	t.Parallel()
	src := with("latency: 20ms", "latency: 20", "new: 5%", "new: 500%", "distribution: zipf", "distribution: zip",
		"p95_latency < 10ms", "p95 < 10ms", "for: 3m", "for: 3", "name: t\n", "name: t\nnmae: t\n")
	_, err := scenario.Compile([]byte(src), "t.yaml", scenario.Options{Set: []string{"load.rate=fast", "prewarm.top=-1"}})
	var faults scenario.Errors
	if !errors.As(err, &faults) {
		t.Fatalf("%T: %v", err, err)
	}
	var got []string
	for _, fault := range faults {
		got = append(got, fmt.Sprintf("%d:%d", fault.Line, fault.Col))
	}
	want := "2:1 4:12 7:16 10:24 17:5 19:34 0:0 0:0"
	if text := strings.Join(got, " "); text != want {
		t.Errorf("places %s, want %s\n%v", text, want, err)
	}
	if n := strings.Count(err.Error(), "\n"); n != len(faults)-1 {
		t.Errorf("%d lines for %d faults", n+1, len(faults))
	}
	var one *scenario.Error
	if !errors.As(err, &one) || one != faults[0] {
		t.Errorf("errors.As finds %v", one)
	}
}

// Places count lines and characters as an editor does.
func TestPlaces(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ why, src, want string }{
		{"nothing at all", "", "t.yaml:1:1: name is missing; allowed: " + aName},
		{"comments only", "# nothing\n", "t.yaml:1:1: name is missing; allowed: " + aName},
		{"one word", "phase1\n", "t.yaml:1:1: phase1; allowed: a mapping with name, title, seed, upstream, systems, traffic, load, prewarm, sequential, confidence, abort, profiles, gates, triggers, drills"},
		{"Windows line ends", strings.ReplaceAll(with("latency: 20ms", "latency: 464"), "\n", "\r\n"), "t.yaml:3:12: upstream.latency: 464 has no unit; allowed: " + durations},
		{"characters, not bytes", with("name: t\n", "{name: t, title: \"größer als…\", seed: -1}\n---\n"), "t.yaml:3:1: a second YAML document; allowed: one per file"},
		{"after letters of several bytes", with("prewarm: {top: 400}", "sequential: {\"größe\": 1}"), "t.yaml:11:14: unknown key größe in sequential; allowed: direct, hits"},
		{"not UTF-8", "name: t\ntitle: \"größe \xff\"\n", "t.yaml:2:15: byte 0xff is not UTF-8; allowed: YAML in UTF-8"},
		{"too large", strings.Repeat("#", 64<<10+1), "t.yaml:1:1: 65537 bytes; allowed: at most 65536"},
		{"too many brackets", "name: " + strings.Repeat("[", 100), "t.yaml:1:47: nested too deep; allowed: 40 levels"},
		{"too many dashes", strings.Repeat("- ", 100), "t.yaml:1:81: nested too deep; allowed: 40 levels"},
		{"a tab", "name: t\n\tx: y\n", "t.yaml:2:1: not YAML: found character '\t' that cannot start any token"},
	} {
		_, err := scenario.Compile([]byte(tt.src), "t.yaml", scenario.Options{})
		if err == nil {
			t.Errorf("%s: accepted", tt.why)
			continue
		}
		first, _, _ := strings.Cut(err.Error(), "\n")
		if first != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.why, first, tt.want)
		}
	}
}
