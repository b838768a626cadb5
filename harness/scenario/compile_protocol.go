package scenario

import (
	"math"
	"slices"
)

// protocols fills the client's leg and checks that every system speaks it.
func (c *compiler) protocols(load *value) {
	v := load.get("protocol")
	shares := []ProtocolShare{{HTTP1, 1}}
	switch {
	case v == nil:
	case v.form == scalar:
		shares[0].Protocol = Protocol(read(load, "protocol", string(HTTP1)))
	case v.form == mapping:
		if shares = c.protocolMix(v); shares == nil {
			return
		}
	default:
		return // reported
	}
	c.plan.Load.Protocols = shares
	speaks := func(p Protocol) bool {
		return slices.ContainsFunc(shares, func(s ProtocolShare) bool { return s.Protocol == p })
	}
	if streams := load.get("streams"); streams != nil && !speaks(H2) && !speaks(H2C) {
		c.fail(streams, "HTTP/1.1 has no streams; allowed: with protocol h2 or h2c")
	}
	if n := c.plan.Load.Connections; n > 0 && n < len(shares) {
		c.fail(load.get("connections"), "%d connection for %d protocols; allowed: at least one for each", n, len(shares))
	}
	for _, s := range c.plan.Systems {
		if speaks(H2) {
			c.offersTLS(v, s)
		}
		if speaks(H2C) {
			c.offersClear(v, s)
		}
	}
}

// protocolMix reads {http/1.1: 50%, h2: 50%}; nil if it was reported.
func (c *compiler) protocolMix(v *value) []ProtocolShare {
	var shares []ProtocolShare
	sum := 0.0
	for _, p := range protocols {
		if !v.sound(string(p)) {
			return nil
		}
		if share := read(v, string(p), 0.0); share > 0 {
			shares = append(shares, ProtocolShare{p, share})
			sum += share
		}
	}
	switch {
	case math.Abs(sum-1) > 1e-9:
		c.fail(v, "the shares are %s together; allowed: 100%%", percent(sum))
		return nil
	case read(v, string(H2), 0.0) > 0 && read(v, string(H2C), 0.0) > 0:
		c.fail(v, "both h2, which needs TLS, and h2c, which is clear text, and a system has one address; allowed: http/1.1 with one of them")
		return nil
	}
	return shares
}

// offersTLS reports a system that can't be spoken to over TLS.
func (c *compiler) offersTLS(v *value, s System) {
	const need = "h2 needs TLS, and the %s system "
	switch {
	case s.Kind == KindDirect && c.plan.Upstream != nil && !c.plan.Upstream.TLS.Speaks(string(H2)):
		c.fail(v, "the %s system is the upstream itself, whose upstream.tls.alpn has no h2; allowed: http/1.1 or h2c, or h2 in upstream.tls.alpn", s.Name)
	case s.Kind == KindVarnish:
		c.fail(v, need+"is of kind varnish, which speaks no TLS; allowed: http/1.1 or h2c", s.Name)
	case s.Kind == KindCommand:
		c.fail(v, need+"is of kind command, whose {listen} is a clear-text address; allowed: http/1.1 or h2c, or kind url with an https address", s.Name)
	case s.Kind == KindURL && s.URL != nil && s.URL.Scheme != "https":
		c.fail(v, need+"is at %s; allowed: http/1.1 or h2c, or an https address", s.Name, s.URL)
	}
}

// offersClear reports a system that can't be spoken to in clear-text HTTP/2.
func (c *compiler) offersClear(v *value, s System) {
	if s.Kind == KindURL && s.URL != nil && s.URL.Scheme != "http" {
		c.fail(v, "h2c is clear text, and the %s system is at %s; allowed: http/1.1 or h2, or an http address", s.Name, s.URL)
	}
}

// maxRate is the closed loop of load.rate: max.
func (c *compiler) maxRate(load, v *value) {
	c.plan.Load.Max = true
	if load.sound("connections") && c.plan.Load.Connections == 0 {
		c.fail(v, "max needs as many clients as load.connections says, and it is auto; allowed: a number of connections")
	}
	if keys := c.plan.Load.Keys; keys.File() != "" && !keys.Repeat {
		c.fail(v, "max goes on until the time is up, and the recording %s ends; allowed: with keys.repeat true", quote(keys.File()))
	}
	if streams := load.get("streams"); streams != nil {
		c.fail(streams, "with rate max every client has a connection of its own and one request at a time; allowed: with a rate")
	}
	c.notice("load.rate is max: a closed loop without a schedule, so the times are service times, a stall holds back the very requests that would have shown it (coordinated omission), and no gate on latency is decided")
}
