package scenario

import (
	"strings"
	"time"

	"phasegate/fixtures/upstream/wire"
)

// drills reads the planned faults.
func (c *compiler) drills(root *value) {
	v := root.get("drills")
	if v == nil {
		return
	}
	for _, item := range v.items {
		fault, expect := item.get("fault"), item.get("expect")
		if fault == nil || fault.form != mapping {
			continue
		}
		kind := fault.get("kind")
		if kind == nil || kind.form != scalar || strings.TrimSpace(kind.text) == "" {
			c.fail(fault, "no kind; allowed: {kind: NAME, for: DURATION}")
			continue
		}
		if c.check(kind, &shape{scalar: oneOf(FaultKinds()...)}, fault.path+".kind"); kind.read == nil {
			continue
		}
		text := strings.TrimSpace(kind.text)
		drill := Drill{}
		drill.Fault = c.fault(FaultKind(text), fault)
		if d := fault.get("for"); d != nil {
			text += " for " + d.text
		}
		if expect != nil && len(expect.items) > 0 {
			var said string
			said, drill.Expect = c.expected(expect)
			text += "; expect " + said
		}
		if expect == nil || len(expect.items) == 0 {
			c.fail(item, "nothing is expected, so nothing would be judged; allowed: conditions, and %s", NoTrigger)
		}
		drill.Text = text
		c.plan.Drills = append(c.plan.Drills, drill)
	}
}

// faultShape is what may be said of a fault of one kind.
func faultShape(kind FaultKind) shape {
	keys := []key{
		{name: "kind", required: true, shape: one(aText)},
		{name: "for", required: true, shape: one(aTime)},
	}
	add := func(name string, required bool, k *kindOf) {
		keys = append(keys, key{name: name, required: required, shape: one(k)})
	}
	k := wire.FaultKind(kind)
	switch {
	case kind == Worse:
		add("leg", true, oneOf(ClientLeg, UpstreamLeg))
		add("profile", false, oneOf("distant_region"))
		add("latency", false, aTime)
		add("jitter", false, aTime)
		add("bandwidth", false, aSize)
		add("slow_close", false, aTime)
		add("reset", false, aShare)
		add("timeout", false, aTime)
		add("slice", false, aSize)
		add("limit_data", false, aSize)
		return shape{keys: keys}
	case kind == Partition, kind == Pause:
		add("target", false, oneOf(TargetUpstream, New, Old))
		return shape{keys: keys}
	case k == wire.UpstreamOutage:
		return shape{keys: keys}
	case k == wire.Errors:
		add("status", false, whole(500, 599))
	case k.Delays():
		add("delay", true, aTime)
	}
	add("share", false, aShare)
	return shape{keys: keys}
}

// fault reads a fault of a kind that there is.
func (c *compiler) fault(kind FaultKind, v *value) Fault {
	allowed := faultShape(kind)
	c.check(v, &allowed, v.path)
	f := Fault{Kind: kind, Target: read(v, "target", TargetUpstream), For: read(v, "for", time.Duration(0))}
	switch {
	case kind == Worse:
		f.Network = c.network(v)
		return f
	case !kind.AtUpstream():
		if f.Target == TargetUpstream && c.plan.Upstream == nil || f.Target != TargetUpstream && c.plan.System(f.Target) == nil {
			at := v
			if target := v.get("target"); target != nil {
				at = target
			}
			c.fail(at, "the scenario has no %s to break; allowed: what it has", f.Target)
		}
		return f
	}
	f.Wire = wire.Fault{
		Kind: wire.FaultKind(kind), Share: read(v, "share", 0.0),
		Status: read(v, "status", 0), Delay: read(v, "delay", time.Duration(0)),
	}
	if share := v.get("share"); share != nil && share.read != nil && f.Wire.Share == 0 {
		c.fail(share, "breaks nothing; allowed: above 0%%")
	}
	switch u := c.plan.Upstream; {
	case u == nil:
		c.fail(v, "there is no mock upstream to break; allowed: with upstream")
	case f.Wire.Kind == wire.HTTP1Only && !u.TLS.Speaks(wire.HTTP1):
		c.fail(v, "upstream.tls.alpn has no http/1.1; allowed: with it")
	}
	return f
}

// network reads how bad one gets.
func (c *compiler) network(v *value) Network {
	var n Network
	if v.get("profile") != nil && v.sound("profile") {
		n = DistantRegion()
	}
	set := func(name string, to *time.Duration) {
		if *to = read(v, name, *to); *to%time.Millisecond != 0 {
			c.fail(v.get(name), "%s; allowed: whole milliseconds", quote(v.get(name).text))
		}
	}
	set("latency", &n.Latency)
	set("jitter", &n.Jitter)
	set("slow_close", &n.SlowClose)
	set("timeout", &n.Timeout)
	n.Bandwidth = read(v, "bandwidth", n.Bandwidth)
	n.Slice = read(v, "slice", n.Slice)
	n.LimitData = read(v, "limit_data", n.LimitData)
	n.Reset = read(v, "reset", n.Reset)
	switch {
	case !v.sound("profile", "latency", "jitter", "bandwidth", "slow_close", "reset", "timeout", "slice", "limit_data"):
		// Told already, and what isn't known can't be held against the rest.
	case n.Jitter > n.Latency && v.get("jitter") == nil:
		c.fail(v.get("latency"), "%s is less than the jitter of %s, %s; allowed: at least that, or with a jitter of at most it", n.Latency, v.get("profile").text, n.Jitter)
	case n.Jitter > n.Latency:
		c.fail(v.get("jitter"), "%s is more than the latency, %s; allowed: at most that", n.Jitter, n.Latency)
	case v.get("bandwidth") != nil && n.Bandwidth < 1000:
		c.fail(v.get("bandwidth"), "%d bytes per second; allowed: 1kB or more", n.Bandwidth)
	case n == Network{}:
		c.fail(v, "nothing gets worse; allowed: profile, latency, bandwidth, slow_close, reset, timeout, slice or limit_data")
	}
	n.Leg = read(v, "leg", "")
	return n
}

// expected joins a drill's expectations: conditions, and [NoTrigger].
func (c *compiler) expected(v *value) (text string, all []Expectation) {
	var parts []string
	for _, item := range v.items {
		text := strings.TrimSpace(item.text)
		e := Expectation{Text: text}
		if strings.ContainsAny(text, "<>=") {
			condition, err := ParseCondition(text)
			if err != nil {
				c.fail(item, "%v", err)
			}
			e = Expectation{condition.Text, &condition}
		} else if text != NoTrigger {
			c.fail(item, "%s; allowed: %s, or METRIC OP VALUE, such as error_rate < 1%%", quote(text), NoTrigger)
		}
		parts = append(parts, e.Text)
		all = append(all, e)
	}
	return strings.Join(parts, ", "), all
}
