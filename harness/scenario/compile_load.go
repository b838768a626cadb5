package scenario

import (
	"math"
	"slices"
	"strings"
	"time"
)

// maxTimeout is the longest latency that histograms record.
const maxTimeout = time.Minute

// maxRate is more than one machine sends.
const maxRate = 1e6

func (c *compiler) load(root *value) {
	v := root.get("load")
	if v == nil || v.form != mapping {
		return
	}
	l := &c.plan.Load
	*l = Load{
		Connections: read(v, "connections", 0),
		Streams:     read(v, "streams", DefaultStreams),
		Path:        read(v, "path", "/items/{key}"),
		Timeout:     read(v, "timeout", 5*time.Second),
		Verify:      read(v, "verify", "auto") == "auto" && root.get("upstream") != nil,
	}
	c.protocols(v)
	if l.Timeout > maxTimeout {
		c.fail(v.get("timeout"), "%s is too long; allowed: at most 60s, the longest latency that is recorded", quote(v.get("timeout").text))
	}
	if c.plan.Upstream != nil && !l.Verify && v.sound("verify") {
		c.notice("verification is off: answers are not checked, and what the upstream's ledger says proves nothing about them")
	}
	l.Keys = c.keys(v.get("keys"))
	c.rate(v)
	if l.Poisson = read(v, "arrivals", "constant") == "poisson"; l.Poisson && (l.Keys.PaceLog || l.Max) {
		l.Poisson = false
		c.notice("load.arrivals is not used: requests fall due by recorded times, or by none")
	}
	if p := v.get("path"); l.Keys.File() == "" && p != nil && p.read != nil && !strings.Contains(l.Path, "{key}") {
		c.fail(p, "%s has no {key}, so all keys would be one; allowed: a path with {key}", quote(p.text))
	}
	c.writes(v)
	c.also(v)
}

func (c *compiler) keys(v *value) Keys {
	if v == nil || v.form != mapping {
		return Keys{}
	}
	var choices []string
	for _, name := range append([]string{"distribution"}, recordings...) {
		if v.get(name) != nil {
			choices = append(choices, name)
		}
	}
	switch {
	case len(choices) == 0:
		c.failAt(v.at, "%s has none of distribution, %s; allowed: one of them", v.path, strings.Join(recordings, ", "))
	case len(choices) > 1:
		c.fail(v, "both %s and %s; allowed: one of them", choices[0], choices[1])
	case choices[0] == "distribution":
		return c.generated(v)
	default:
		return c.recorded(v, choices[0])
	}
	return Keys{}
}

// recordings are the keys that name a recorded file.
var recordings = []string{"access_log", "har", "targets"}

func (c *compiler) recorded(v *value, kind string) Keys {
	for _, name := range []string{"count", "exponent", "hot_keys", "hot_traffic"} {
		if x := v.get(name); x != nil {
			c.fail(x, "not a key of %s; allowed: with distribution", kind)
		}
	}
	k := Keys{
		AccessLog: read(v, "access_log", ""),
		HAR:       read(v, "har", ""),
		Targets:   read(v, "targets", ""),
		FileAt:    v.get(kind).at.String(),
		PaceLog:   read(v, "pace", "rate") == "log",
		Speed:     read(v, "speed", 1.0),
		// Vegeta goes round its targets, too; a log is what happened, once.
		Repeat: read(v, "repeat", kind == "targets"),
	}
	if k.PaceLog && kind == "targets" {
		c.fail(v.get("pace"), "targets have no times of their own; allowed: rate")
	}
	if x := v.get("speed"); x != nil && !k.PaceLog && v.sound("pace") {
		c.fail(x, "not a key of pace rate; allowed: with pace: log")
	}
	return k
}

func (c *compiler) generated(v *value) Keys {
	for _, name := range recordingKeys {
		if x := v.get(name); x != nil {
			c.fail(x, "not a key of generated keys; allowed: with %s", listed(recordings))
		}
	}
	k := Keys{
		Distribution: Distribution(read(v, "distribution", "")),
		Count:        read(v, "count", 0),
		Speed:        1,
	}
	if v.get("count") == nil {
		c.failAt(v.at, "%s.count is missing; allowed: a whole number from 1", v.path)
	}
	if k.Distribution == "" {
		return k // reported
	}
	for _, owned := range []struct {
		name  string
		owner Distribution
	}{{"exponent", Zipf}, {"hot_keys", HotSet}, {"hot_traffic", HotSet}} {
		if x := v.get(owned.name); x != nil && k.Distribution != owned.owner {
			c.fail(x, "not a key of distribution %s; allowed: with distribution %s", k.Distribution, owned.owner)
		}
	}
	switch k.Distribution {
	case Zipf:
		k.Exponent = read(v, "exponent", 1.1)
	case HotSet:
		k.HotKeys, k.HotTraffic = read(v, "hot_keys", 0.1), read(v, "hot_traffic", 0.9)
		if k.HotKeys == 0 || k.HotKeys == 1 {
			c.fail(v.get("hot_keys"), "%s is no part of the keys; allowed: above 0%% and below 100%%", quote(v.get("hot_keys").text))
		}
	}
	return k
}

// rate fills the segments of the schedule.
func (c *compiler) rate(load *value) {
	l := &c.plan.Load
	v := load.get("rate")
	if l.Keys.PaceLog {
		if v != nil {
			c.notice("load.rate is not used: the recorded times set the pace, %v times as fast", l.Keys.Speed)
		}
		return
	}
	switch {
	case v == nil:
		c.failAt(load.at, "load.rate is missing; allowed: %s", rateShape.describe())
	case v.form == scalar && v.read == paceMax:
		c.maxRate(load, v)
	case v.form == scalar:
		r, ok := v.read.(float64)
		if ok && r == 0 {
			c.fail(v, "%s sends nothing; allowed: a rate above 0", quote(v.text))
		}
		l.Rate = []Segment{{From: r, To: r}}
	case v.form != mapping:
	case count(v.get("ramp") != nil, v.get("steps") != nil, v.get("sine") != nil) != 1:
		c.fail(v, "none or several of ramp, steps and sine; allowed: one of them")
	case v.get("sine") != nil:
		c.sine(v.get("sine"))
	case v.get("ramp") != nil:
		ramp := v.get("ramp")
		from, to := read(ramp, "from", 0.0), read(ramp, "to", 0.0)
		if ramp.form == mapping && ramp.sound("from", "to") && ramp.get("to") != nil && to == 0 {
			c.fail(ramp.get("to"), "%s ends in silence; allowed: a rate above 0", quote(ramp.get("to").text))
		}
		l.Rate = []Segment{{From: from, To: to, For: read(ramp, "over", time.Duration(0))}, {From: to, To: to}}
	default:
		c.steps(v.get("steps"))
	}
	if peak := l.Peak(); peak > maxRate {
		c.fail(v, "%.0f/s is more than one machine sends; allowed: at most 1000000/s", peak)
	}
}

func count(flags ...bool) (n int) {
	for _, set := range flags {
		if set {
			n++
		}
	}
	return n
}

// sineStarts are where a sine may start, a quarter of its period each.
var sineStarts = []string{"mean-up", "peak", "mean-down", "trough"}

func (c *compiler) sine(v *value) {
	if v.form != mapping {
		return
	}
	s := &Sine{
		Mean:      read(v, "mean", 0.0),
		Amplitude: read(v, "amplitude", 0.0),
		Period:    read(v, "period", time.Duration(0)),
		Start:     float64(slices.Index(sineStarts, read(v, "start", sineStarts[0]))) * math.Pi / 2,
	}
	switch {
	case !v.sound("mean", "amplitude") || v.get("mean") == nil || v.get("amplitude") == nil:
	case s.Mean == 0:
		c.fail(v.get("mean"), "%s sends nothing; allowed: a rate above 0", quote(v.get("mean").text))
	case s.Amplitude > s.Mean:
		c.fail(v.get("amplitude"), "%s is more than the mean, and no rate is below 0; allowed: at most %v/s", quote(v.get("amplitude").text), s.Mean)
	}
	c.plan.Load.Sine = s
}

func (c *compiler) steps(v *value) {
	if v.form != list {
		return
	}
	if len(v.items) == 0 {
		c.fail(v, "no step; allowed: a list of {rate: 10/s, for: 30s}")
		return
	}
	var segments []Segment
	sends := false
	for i, step := range v.items {
		last := i == len(v.items)-1
		r, d := read(step, "rate", 0.0), read(step, "for", time.Duration(0))
		sends = sends || r > 0 || !step.sound("rate")
		if step.form == mapping && step.get("for") == nil && !last {
			c.failAt(step.at, "%s.for is missing; allowed: %s", step.path, aTime.allowed)
		}
		if last {
			if d > 0 {
				c.notice("load.rate: the last step goes on after its %v, until the end of the run", d)
			}
			d = 0
		}
		segments = append(segments, Segment{From: r, To: r, For: d})
	}
	if !sends {
		c.fail(v, "no step sends anything; allowed: at least one rate above 0")
	}
	c.plan.Load.Rate = segments
}

func (c *compiler) writes(load *value) {
	v := load.get("writes")
	if v == nil || v.form != mapping {
		return
	}
	w := Writes{
		Share:  read(v, "share", 0.0),
		Method: read(v, "method", "POST"),
		Path:   read(v, "path", "/orders"),
	}
	switch {
	case w.Share == 1:
		c.fail(v.get("share"), "%s leaves no reads; allowed: below 100%%", quote(v.get("share").text))
	case w.Share == 0:
	case c.plan.Load.Keys.File() != "":
		c.notice("load.writes dropped: the recorded methods are used")
	default:
		c.plan.Load.Writes = w
	}
}

// notAsked are the request fields that the load generator sends itself, or that
// would break a message's frame: no population may bring them.
var notAsked = []string{"host", "user-agent", "content-length", "transfer-encoding", "trailer", "te", "expect",
	"connection", "keep-alive", "proxy-connection", "upgrade", "http2-settings", "accept-encoding"}

func (c *compiler) also(load *value) {
	v := load.get("also")
	if v == nil || v.form != list {
		return
	}
	if c.plan.Load.Keys.File() != "" {
		c.notice("load.also dropped: the recorded requests are used")
		return
	}
	sum := c.plan.Load.Writes.Share
	for _, item := range v.items {
		p := Population{
			Share: read(item, "share", 0.0),
			Path:  read(item, "path", ""),
			Count: read(item, "keys", 1),
			Close: read(item, "close", false),
		}
		if p.Count > 1 && p.Path != "" && !strings.Contains(p.Path, "{key}") {
			c.fail(item.get("path"), "%s has no {key}, so all %d keys would be one; allowed: a path with {key}, or keys: 1", quote(p.Path), p.Count)
		}
		if p.Close && (len(c.plan.Load.Protocols) > 1 || len(c.plan.Load.Protocols) == 1 && c.plan.Load.Protocols[0].Protocol != HTTP1) {
			c.fail(item.get("close"), "the requests of one HTTP/2 connection can't close it; allowed: with load.protocol http/1.1")
		}
		if header := item.get("header"); header != nil {
			p.Fields = c.fields(header)
		}
		if sum += p.Share; sum >= 1 && item.sound("share") {
			c.fail(item, "with the shares before it and the writes it comes to %s, which leaves nothing for load.path; allowed: below 100%%", percent(sum))
		}
		c.plan.Load.Also = append(c.plan.Load.Also, p)
	}
}

// fields reads a mapping of request header fields.
func (c *compiler) fields(header *value) []Field {
	var fields []Field
	for _, f := range header.fields {
		field := Field{Name: f.name}
		if !fieldName.MatchString(f.name) || slices.Contains(notAsked, strings.ToLower(f.name)) {
			c.failAt(f.at, "%s is not the name of a field that a request may bring here; allowed: one such as Accept-Language, and none that frames the message or names the host", quote(f.name))
		}
		values := f.value.items
		if f.value.form == scalar {
			values = []*value{f.value}
		}
		for _, v := range values {
			if v.form != scalar || strings.Trim(v.text, " \t") != v.text || v.text == "" || strings.ContainsFunc(v.text, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f }) {
				c.failAt(v.at, "%s is not the value of a field; allowed: visible ASCII, such as de", v.describe())
			}
			field.Values = append(field.Values, v.text)
		}
		if len(values) == 0 {
			c.failAt(f.at, "%s has no value; allowed: one, or a list to draw from", quote(f.name))
		}
		fields = append(fields, field)
	}
	return fields
}

func (c *compiler) prewarm(root *value) {
	v := root.get("prewarm")
	if v == nil || v.form != mapping {
		return
	}
	w := Prewarm{Top: read(v, "top", 0), Concurrency: read(v, "concurrency", 64)}
	keys := c.plan.Load.Keys
	s := c.plan.System(New)
	switch {
	case w.Top == 0:
	case keys.File() != "":
		c.notice("prewarm dropped: prewarming with what is recorded would be foreknowledge, so it is replayed cold")
	case s != nil && s.Kind == KindDirect:
		c.notice("prewarm dropped: a system of kind direct stores nothing")
	case keys.Count > 0 && w.Top > keys.Count:
		c.fail(v.get("top"), "%d of %d keys; allowed: at most load.keys.count", w.Top, keys.Count)
	default:
		c.plan.Prewarm = w
	}
}

func (c *compiler) sequential(root *value) {
	v := root.get("sequential")
	if root.get("upstream") == nil {
		if v != nil {
			c.fail(v, "needs requests straight to the upstream, and this scenario has none; allowed: with upstream")
		}
		return
	}
	if v != nil && (v.form != mapping || !v.sound("direct", "hits")) {
		return
	}
	q := Sequential{Direct: read(v, "direct", 12), Hits: read(v, "hits", 200)}
	if (q.Direct == 0) != (q.Hits == 0) {
		c.fail(v, "one of direct and hits is 0, and the stage compares them; allowed: both above 0, or both 0 for none")
	}
	// Each would wait for the upstream: 200 of 464 ms are a minute and a half.
	if s := c.plan.System(New); s != nil && s.Kind == KindDirect && q.Hits > q.Direct {
		q.Hits = q.Direct
		c.notice("sequential.hits reduced to %d: a system of kind direct has no hits", q.Hits)
	}
	c.plan.Sequential = q
}
