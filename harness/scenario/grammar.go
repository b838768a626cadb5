package scenario

import (
	"fmt"
	"regexp"
	"time"

	"phasegate/fixtures/upstream/wire"
)

// shape says what may stand at one place of a scenario: a single value, a
// mapping, a list, or several of these.
type shape struct {
	scalar *kindOf // nil: no single value
	keys   []key   // nil: no mapping, unless open
	open   bool    // a mapping of any keys, passed on as it is
	item   *shape  // nil: no list
	atMost int     // items of the list; 0 for any number
}

// key is one key of a mapping.
type key struct {
	name     string
	shape    shape
	required bool
	help     string
}

// kindOf is one kind of single value.
type kindOf struct {
	allowed string                         // "a duration such as 250ms"
	parse   func(text string) (any, error) // the error says what was found
	schema  map[string]any                 // JSON Schema
}

// one returns the shape of a single value only.
func one(k *kindOf) shape { return shape{scalar: k} }

// parsed adapts a typed parser, with checks of what it returns.
func parsed[T any](parse func(string) (T, error), checks ...func(T) error) func(string) (any, error) {
	return func(text string) (any, error) {
		v, err := parse(text)
		for _, check := range checks {
			if err == nil {
				err = check(v)
			}
		}
		if err != nil {
			return nil, err
		}
		return v, nil
	}
}

func positive(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("%v is not above 0", d)
	}
	return nil
}

// The patterns of the quantities, for editors.
const (
	numberPattern   = `[0-9]*\.?[0-9]+ ?`
	durationPattern = `^(` + numberPattern + `(ns|us|µs|ms|s|m|min|h|hour|d|day) ?)+$`
	sizePattern     = `^` + numberPattern + `([kKMGT]?B|[KMGT]iB)$`
	ratePattern     = `^` + numberPattern + `/ ?(s|m|min|h|hour|d|day)$`
	sharePattern    = `^` + numberPattern + `%$`
)

func pattern(p string) map[string]any { return map[string]any{"type": "string", "pattern": p} }

var shareSchema = map[string]any{"anyOf": []any{
	map[string]any{"type": "number", "minimum": 0, "maximum": 1},
	pattern(sharePattern),
}}

// The kinds of single value.
var (
	aText     = &kindOf{"text", parsed(parseText), map[string]any{"type": "string", "minLength": 1}}
	anyText   = &kindOf{"text", func(text string) (any, error) { return text, nil }, map[string]any{"type": "string"}}
	aDuration = &kindOf{durationAllowed, parsed(parseDuration), pattern(durationPattern)}
	aTime     = &kindOf{durationAllowed + ", above 0", parsed(parseDuration, positive), pattern(durationPattern)}
	aSize     = &kindOf{sizeAllowed, parsed(parseSize), pattern(sizePattern)}
	aRate     = &kindOf{rateAllowed, parsed(parseRate), pattern(ratePattern)}
	aPace     = &kindOf{rateAllowed + ", or max", parsePace, map[string]any{"anyOf": []any{map[string]any{"const": paceMax}, pattern(ratePattern)}}}
	aShare    = &kindOf{shareAllowed, parsed(parseShare), shareSchema}
	aFlag     = &kindOf{"true or false", parsed(parseFlag), map[string]any{"type": "boolean"}}
	aSeed     = &kindOf{"a whole number from 0", parsed(parseSeed), map[string]any{"type": "integer", "minimum": 0}}
	aName     = &kindOf{"a name of lower-case letters, digits, '-', '_' and '.', such as phase1",
		parsed(parseName), pattern(namePattern.String())}
	aPath = &kindOf{"a path of ASCII that begins with / and has no white space, such as /items/{key}",
		parsed(parsePath), pattern(pathPattern.String())}
	aPrefix = &kindOf{"a path of ASCII that begins with / and has no white space, such as /account/",
		parsed(parsePrefix), pattern(pathPattern.String())}
	// With quotation marks or without: YAML has 1.2 as a number.
	tlsVersion = &kindOf{"1.2, 1.3", oneOf("1.2", "1.3").parse, map[string]any{"enum": []any{"1.2", "1.3", 1.2, 1.3}}}
	aMethod    = oneOf("POST", "PUT", "PATCH", "DELETE")
	anAddress  = &kindOf{"a loopback HOST:PORT, such as 127.0.0.1:9000", parsed(parseLoopback), map[string]any{"type": "string"}}
	aURL       = &kindOf{"http://HOST:PORT or https://HOST:PORT, without path", parsed(parseBaseURL), pattern(`^https?://[^/?#@]+/?$`)}

	aCondition = &kindOf{"", parsed(ParseCondition), pattern(conditionPattern())}

	connections = &kindOf{"auto, or a whole number from 1 to 100000", parsed(parseConnections), map[string]any{"anyOf": []any{
		map[string]any{"const": "auto"}, map[string]any{"type": "integer", "minimum": 1, "maximum": 100000},
	}}}
)

var (
	namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	pathPattern = regexp.MustCompile(`^/[!"$-~]*$`)
)

// The choices of words.
var (
	kinds     = []Kind{KindOptimizer, KindNginx, KindVarnish, KindHAProxy, KindDirect, KindCommand, KindContainer, KindURL}
	protocols = []Protocol{HTTP1, H2, H2C}
	profiles  = []string{"quick", "standard", "full"}
)

var (
	latencyShape = shape{scalar: aDuration, keys: []key{
		{name: "fixed", shape: one(aDuration), help: "the same for every request"},
		{name: "mean", shape: one(aTime), help: "mean of a log-normal distribution; needs p95"},
		{name: "p95", shape: one(aTime), help: "95th percentile of the log-normal distribution"},
	}}
	tlsShape = shape{keys: []key{
		{name: "alpn", shape: shape{item: &shape{scalar: oneOf(wire.ALPN...)}, atMost: len(wire.ALPN)}, help: "protocols offered, in the order of preference; default [h2, http/1.1]; [h3] is a list that no client over TCP has anything in common with"},
		{name: "min_version", shape: one(tlsVersion), help: "lowest version of TLS; default 1.2"},
		{name: "max_version", shape: one(tlsVersion), help: "highest version of TLS; default 1.3"},
		{name: "full_handshakes", shape: one(aShare), help: "share of the sessions offered for resumption that are refused, so that the handshake is a full one; default 0%"},
	}}
	systemShape = shape{keys: []key{
		{name: "kind", required: true, shape: one(oneOf(kinds...)), help: "optimizer: the reference proxy. nginx, varnish, haproxy: these, from their packages and set up as caching proxies. direct: no system, straight to the upstream. command: any program. container: any image. url: a server that is already running"},
		{name: "config", shape: shape{open: true}, help: "the optimizer's own configuration, passed on as it is; of it, nginx, varnish and haproxy get cache.max_memory_mb and cache.default_ttl"},
		{name: "upstream_tls", shape: one(aFlag), help: "kinds optimizer, nginx and haproxy: speak TLS to the upstream, which offers HTTP/2 and HTTP/1.1 there; default false: clear text, HTTP/1.1"},
		{name: "command", shape: shape{item: &shape{scalar: anyText}, atMost: 1000}, help: "kind command: program and arguments; kind container: what follows the entry point; {listen}, {upstream}, {upstream_tls}, {ca} and {admin} are replaced"},
		{name: "metrics", shape: one(aText), help: "kinds command and container: where it serves its metrics in the Prometheus text format, such as http://{admin}/metrics; they explain growth of memory, and no gate rests on them"},
		{name: "url", shape: one(aURL), help: "kind url: where the server is"},
		{name: "image", shape: one(aText), help: "kind container: what is run; fetched if the engine doesn't have it"},
		{name: "dockerfile", shape: one(aText), help: "kind container, instead of image: the file to build it from, in whose folder everything lies that it copies; a path from the working directory"},
		{name: "env", shape: shape{open: true}, help: "kind container: added to its environment; the same is replaced as in command"},
		{name: "port", shape: one(whole(1, 65535)), help: "kind container: where it listens on all interfaces; default 8080, which is {listen}"},
		{name: "limits", shape: shape{keys: []key{
			{name: "memory", shape: one(aSize), help: "a system that needs more is killed; default what the laxest trigger on memory allows, else none"},
			{name: "cpus", shape: one(number(0.01, 10_000)), help: "CPU time per time; default no limit"},
		}}, help: "kind container, and optimizer with --upstream container: enforced by the kernel"},
	}}
	rateShape = shape{scalar: aPace, keys: []key{
		{name: "ramp", shape: shape{keys: []key{
			{name: "from", required: true, shape: one(aRate), help: "rate at the start of the warm-up"},
			{name: "to", required: true, shape: one(aRate), help: "rate at the end of the ramp, and from then on"},
			{name: "over", required: true, shape: one(aTime), help: "length of the ramp"},
		}}, help: "a linear change, then constant"},
		{name: "steps", shape: shape{item: &shape{keys: []key{
			{name: "rate", required: true, shape: one(aRate), help: "rate of this step"},
			{name: "for", shape: one(aTime), help: "length of this step; the last one lasts until the end"},
		}}, atMost: 1000}, help: "constant rates, one after the other, from the start of the warm-up"},
		{name: "sine", shape: shape{keys: []key{
			{name: "mean", required: true, shape: one(aRate), help: "rate that the wave swings about"},
			{name: "amplitude", required: true, shape: one(aRate), help: "how far it swings, at most the mean"},
			{name: "period", required: true, shape: one(aTime), help: "length of a wave"},
			{name: "start", shape: one(oneOf(sineStarts...)), help: "where in the wave the warm-up starts; default mean-up"},
		}}, help: "a wave, from the start of the warm-up"},
	}}
	keysShape = shape{keys: []key{
		{name: "distribution", shape: one(oneOf(Zipf, Uniform, HotSet)), help: "popularity of generated keys"},
		{name: "count", shape: one(whole(1, 100_000_000)), help: "number of distinct keys"},
		{name: "exponent", shape: one(number(0.01, 10)), help: "zipf: the k-th key gets a share proportional to k^-exponent; default 1.1"},
		{name: "hot_keys", shape: one(aShare), help: "hot: share of the keys that is hot; default 10%"},
		{name: "hot_traffic", shape: one(aShare), help: "hot: share of the requests that goes to hot keys; default 90%"},
		{name: "access_log", shape: one(aText), help: "replay this access log (common or combined format, or nginx's JSON lines; plain or .gz) instead of generating keys; a path from the working directory, like the next two"},
		{name: "har", shape: one(aText), help: "replay this HAR file of a browser, without its Cookie and Authorization fields"},
		{name: "targets", shape: one(aText), help: "replay this target list in vegeta's JSON or HTTP format, header fields and bodies included; of a URL path and query are used"},
		{name: "pace", shape: one(oneOf("rate", "log")), help: "access_log, har: rate (default) sends at load.rate, log at the recorded times"},
		{name: "speed", shape: one(number(0.001, 1_000_000)), help: "pace log: that many times as fast as recorded; default 1"},
		{name: "repeat", shape: one(aFlag), help: "access_log, har, targets: start over at the end; default true for targets, else false: the load ends there"},
	}}
	protocolShape = shape{scalar: oneOf(protocols...), keys: []key{
		{name: string(HTTP1), shape: one(aShare), help: "share of the requests over HTTP/1.1"},
		{name: string(H2), shape: one(aShare), help: "share of the requests over HTTP/2 with TLS"},
		{name: string(H2C), shape: one(aShare), help: "share of the requests over HTTP/2 in clear text"},
	}}
	loadShape = shape{keys: []key{
		{name: "rate", shape: rateShape, help: "requests per second to all systems together, open loop; or max: closed loop, each of so many clients as there are connections sends its next request when its last has ended, for the highest throughput and without latency gates"},
		{name: "arrivals", shape: one(oneOf("constant", "poisson")), help: "spacing of the due times: constant (default) follows the rate evenly; poisson draws them at random with that rate, as many independent clients come"},
		{name: "protocol", shape: protocolShape, help: "client leg: http/1.1 (default), h2 (TLS and ALPN), h2c (clear text, prior knowledge), or a mix such as {http/1.1: 50%, h2c: 50%}"},
		{name: "connections", shape: one(connections), help: "connections per system; auto (default) is rate × latency × 1.5; a number limits them, and waiting for one is latency"},
		{name: "streams", shape: one(whole(1, 100_000)), help: "requests at a time on one HTTP/2 connection, if the server allows as many; default 100"},
		{name: "path", shape: one(aPath), help: "request path of generated keys, with {key}; default /items/{key}"},
		{name: "keys", required: true, shape: keysShape, help: "what is asked for: generated keys, or a recorded access log, HAR file or target list"},
		{name: "writes", shape: shape{keys: []key{
			{name: "share", required: true, shape: one(aShare), help: "share of requests that write"},
			{name: "method", shape: one(aMethod), help: "default POST"},
			{name: "path", shape: one(aPath), help: "may contain {key}; default /orders"},
		}}, help: "writes among generated requests"},
		{name: "also", shape: shape{item: &shape{keys: []key{
			{name: "share", required: true, shape: one(aShare), help: "share of all requests"},
			{name: "path", required: true, shape: one(aPath), help: "request path, with {key} if there are several keys; may have a query"},
			{name: "keys", shape: one(whole(1, 10_000_000)), help: "number of distinct keys, asked for alike; default 1"},
			{name: "header", shape: shape{open: true}, help: "fields that its requests carry, each with a value or a list of values to draw from: {Accept-Language: [de, en]}"},
			{name: "close", shape: one(aFlag), help: "true: HTTP/1.1 clients that close their connection after each answer; default false"},
		}}, atMost: 100}, help: "further kinds of read among generated requests: other paths, users, languages, clients that don't keep their connection"},
		{name: "timeout", shape: one(aTime), help: "from the due time, at most 60s; default 5s"},
		{name: "verify", shape: one(oneOf("auto", "off")), help: "auto (default) checks every answer against the mock upstream's self-description; off for foreign upstreams"},
	}}
	profileShape = shape{keys: []key{
		{name: "warmup", shape: one(aDuration), help: "load before the clock starts; default 0s"},
		{name: "steady", required: true, shape: one(aTime), help: "the time that gates judge"},
		{name: "extensions", shape: one(whole(0, 20)), help: "how often the steady state may be run on to decide a gate; default 0"},
		{name: "time_scale", shape: one(number(0.001, 1_000_000)), help: "divides the triggers' times: 60 turns 5m into 5s; default 1"},
	}}
	gateShape = shape{scalar: aCondition, keys: []key{
		{name: "gate", required: true, shape: one(aCondition), help: "METRIC OP VALUE"},
		{name: "system", shape: one(oneOf(Old, New)), help: "default new"},
		{name: "profiles", shape: shape{item: &shape{scalar: oneOf(profiles...)}}, help: "the profiles that judge this gate; default all"},
	}}
	triggerShape = shape{keys: []key{
		{name: "when", required: true, shape: one(aCondition), help: "METRIC OP VALUE"},
		{name: "for", shape: one(aDuration), help: "how long the condition must hold without a break, before time_scale; default 0s fires at once"},
		{name: "action", shape: one(oneOf("immediate", "gradual", Alert)), help: "how to roll back; default immediate. alert rolls nothing back, and a drill that expects no trigger doesn't mean it; one that fires in the steady state fails the run like any"},
		{name: "system", shape: one(oneOf(Old, New)), help: "default new"},
	}}
	drillShape = shape{keys: []key{
		{name: "fault", required: true, shape: shape{open: true}, help: "what is broken, and for how long before time_scale: {kind: partition, for: 30s} takes the container of the upstream (or target: new) off its network, {kind: pause, for: 30s} makes it stand still. The upstream itself, in a container or not: errors (status, share), hang, slow_headers and slow_body (delay), truncated_body, wrong_length, garbage, connection_reset, goaway_storm; handshake_failure, certificate_expired, certificate_name, http1_only; upstream_outage. share: 20% breaks that share of the answers or handshakes. {kind: network, leg: upstream, profile: distant_region} worsens the network between the new system and its upstream, or leg: client between the load and it: latency and jitter, bandwidth (a size, per second), reset (a share of connections), timeout, slice and limit_data (sizes), slow_close"},
		{name: "expect", required: true, shape: shape{item: &shape{scalar: aText}}, help: "conditions on the new system that must hold while the fault is there, and no trigger"},
	}}

	grammar = shape{keys: []key{
		{name: "name", required: true, shape: one(aName), help: "short name; results go to out/NAME"},
		{name: "title", shape: one(aText), help: "one line for people; default the name"},
		{name: "seed", shape: one(aSeed), help: "of keys, split and upstream; default 1"},
		{name: "upstream", help: "the mock upstream; may be left out if the only system is a url", shape: shape{keys: []key{
			{name: "listen", shape: one(anAddress), help: "fixed clear-text address for the new system, for a proxy that you start yourself; default a free port"},
			{name: "latency", shape: latencyShape, help: "how long it thinks; default none"},
			{name: "body", shape: shape{scalar: aSize, keys: []key{
				{name: "min", required: true, shape: one(aSize), help: "smallest"},
				{name: "max", required: true, shape: one(aSize), help: "largest, at most 1GiB"},
			}}, help: "size of generated bodies; default 512B to 8KiB"},
			{name: "cache_control", shape: one(anyText), help: `Cache-Control of GET and HEAD answers; default "public, max-age=600"; "" sends none`},
			{name: "vary", shape: shape{item: &shape{scalar: aText}, atMost: 20}, help: "request fields that select a variant"},
			{name: "paths", shape: shape{item: &shape{keys: []key{
				{name: "prefix", required: true, shape: one(aPrefix), help: "of the request path, such as /account/; the first that fits counts"},
				{name: "cache_control", shape: one(anyText), help: "Cache-Control there; default upstream.cache_control"},
				{name: "errors", shape: one(aShare), help: "share of GET and HEAD there that is answered with 503; default 0%"},
			}}, atMost: 100}, help: "paths on which the upstream answers otherwise"},
			{name: "tls", shape: tlsShape, help: "what its TLS listeners offer"},
			{name: "max_streams", shape: one(whole(1, 100_000)), help: "requests at a time on one HTTP/2 connection; default above what any client opens"},
			{name: "goaway", shape: shape{keys: []key{
				{name: "every", shape: one(aTime), help: "age of a connection, after which its next answer is the last"},
				{name: "requests", shape: one(whole(1, 1_000_000_000)), help: "number of requests on a connection, of which the last answer is the last"},
			}}, help: "ends connections that are otherwise fine, without losing a request: over HTTP/2 by GOAWAY, over HTTP/1.1 with TLS by Connection: close; those in clear HTTP/1.1 are kept. Default never"},
		}}},
		{name: "systems", required: true, help: "what is judged, and what it is compared with", shape: shape{keys: []key{
			{name: "old", shape: systemShape, help: "the arm that traffic comes from; default direct if traffic.old is above 0"},
			{name: "new", required: true, shape: systemShape, help: "the system under test"},
		}}},
		{name: "traffic", help: "shares of the load; default all on new", shape: shape{keys: []key{
			{name: "new", shape: one(aShare), help: "share of the new system; default what old leaves"},
			{name: "old", shape: one(aShare), help: "share of the old system; default what new leaves"},
		}}},
		{name: "load", required: true, shape: loadShape, help: "the requests"},
		{name: "prewarm", help: "fills the new system before the clock starts; stands for the days before the gate", shape: shape{keys: []key{
			{name: "top", required: true, shape: one(whole(0, 100_000_000)), help: "number of keys, the most popular ones"},
			{name: "concurrency", shape: one(whole(1, 10_000)), help: "requests at a time; default 64"},
		}}},
		{name: "sequential", help: "one client, one request after the other: direct, then hits", shape: shape{keys: []key{
			{name: "direct", shape: one(whole(0, 1_000_000)), help: "requests straight to the upstream; default 12"},
			{name: "hits", shape: one(whole(0, 1_000_000)), help: "requests for one warm key through the new system; default 200"},
		}}},
		{name: "confidence", shape: one(aShare), help: "of each gate's one-sided bound, at least 50% and below 100%; default 95%"},
		{name: "abort", shape: one(oneOf("never", "on_failure")), help: "on_failure stops the run as soon as a gate has failed for certain, whatever is still to come; half of the error budget for failing pays for that. Default never"},
		{name: "profiles", required: true, help: "how long a run lasts", shape: shape{keys: []key{
			{name: "quick", shape: profileShape, help: "decides what can be decided while one waits; the default"},
			{name: "standard", shape: profileShape, help: "minutes, in real time"},
			{name: "full", shape: profileShape, help: "as long as the phase itself"},
		}}},
		{name: "gates", required: true, shape: shape{item: &gateShape}, help: "the claims to be judged"},
		{name: "triggers", shape: shape{item: &triggerShape}, help: "conditions under which traffic is rolled back"},
		{name: "drills", shape: shape{item: &drillShape}, help: "planned faults with an expected outcome, one by one after the steady state"},
	}}
)
