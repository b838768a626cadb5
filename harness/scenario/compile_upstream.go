package scenario

import (
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"phasegate/fixtures/upstream/wire"
)

// maxSpread is the largest ratio of 95th percentile to mean that a log-normal
// distribution has: ln(p95/mean) = zσ − σ²/2 is at most z²/2, with z = 1.6449.
var maxSpread = math.Exp(1.6448536269514722 * 1.6448536269514722 / 2)

func (c *compiler) upstream(root *value) {
	v := root.get("upstream")
	if v == nil || v.form != mapping {
		return
	}
	u := &Upstream{
		Listen:       read(v, "listen", ""),
		CacheControl: read(v, "cache_control", "public, max-age=600"),
		BodyMin:      512,
		BodyMax:      8 << 10,
	}
	c.plan.Upstream = u
	if l := v.get("latency"); l != nil {
		u.Latency = c.latency(l)
	}
	if b := v.get("body"); b != nil && b.form == scalar {
		u.BodyMin = read(v, "body", u.BodyMin)
		u.BodyMax = u.BodyMin
	} else if b != nil && b.sound("min", "max") {
		u.BodyMin, u.BodyMax = read(b, "min", int64(0)), read(b, "max", int64(0))
		if u.BodyMin > u.BodyMax && b.get("max") != nil {
			c.fail(b.get("min"), "%s is more than max, %s; allowed: min at most max", quote(b.get("min").text), quote(b.get("max").text))
		}
	}
	if u.BodyMax > 1<<30 {
		c.fail(v.get("body"), "bodies of %d bytes; allowed: at most 1GiB", u.BodyMax)
	}
	if vary := v.get("vary"); vary != nil {
		for _, item := range vary.items {
			if item.text == "*" {
				c.fail(item, "* matches no request, so nothing could ever be a hit; allowed: names of request fields")
			} else if !fieldName.MatchString(item.text) {
				c.fail(item, "%s is not the name of a request field; allowed: one such as Accept-Language", quote(item.text))
			}
			u.Vary = append(u.Vary, item.text)
		}
	}
	u.MaxStreams = read(v, "max_streams", 0)
	if t := v.get("tls"); t != nil {
		u.TLS = c.upstreamTLS(t)
	}
	if g := v.get("goaway"); g != nil && g.form == mapping {
		u.GoAway = wire.GoAway{Every: read(g, "every", time.Duration(0)), Requests: read(g, "requests", 0)}
		if g.sound("every", "requests") && u.GoAway == (wire.GoAway{}) {
			c.fail(g, "neither every nor requests; allowed: one of them or both, such as {every: 1s}")
		}
	}
	c.cacheControl(v)
	if paths := v.get("paths"); paths != nil {
		for _, item := range paths.items {
			c.cacheControl(item)
			u.Paths = append(u.Paths, UpstreamPath{
				Prefix:       read(item, "prefix", ""),
				CacheControl: read(item, "cache_control", u.CacheControl),
				Errors:       read(item, "errors", 0.0),
			})
		}
	}
}

func (c *compiler) upstreamTLS(v *value) wire.TLS {
	t := wire.TLS{
		Min: read(v, "min_version", ""), Max: read(v, "max_version", ""),
		FullHandshakes: read(v, "full_handshakes", 0.0),
	}
	if lowest, highest := t.Versions(); lowest > highest {
		c.fail(v.get("min_version"), "%s is above max_version, %s; allowed: min_version at most max_version", t.Min, t.Max)
	}
	alpn := v.get("alpn")
	if alpn == nil || alpn.form != list {
		return t
	}
	if len(alpn.items) == 0 {
		c.fail(alpn, "no protocol; allowed: at least one of %s", listed(wire.ALPN))
	}
	for _, item := range alpn.items {
		if slices.Contains(t.ALPN, item.text) {
			c.fail(item, "%s is written twice; allowed: once", quote(item.text))
		}
		t.ALPN = append(t.ALPN, item.text)
	}
	return t
}

func (c *compiler) cacheControl(v *value) {
	cc := v.get("cache_control")
	if cc == nil {
		return
	}
	if strings.ContainsAny(cc.text, "\r\n\x00") {
		c.fail(cc, "%s has a line break; allowed: one field value", quote(cc.text))
	} else if _, err := wire.ParsePolicy(cc.text); err != nil {
		c.fail(cc, "%s; allowed: directives of RFC 9111 and RFC 5861, each once", oneLine(err.Error()))
	}
}

// fieldName is a token of RFC 9110, section 5.6.2.
var fieldName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

func (c *compiler) latency(v *value) Latency {
	if v.form == scalar {
		d, _ := v.read.(time.Duration)
		return Latency{Fixed: d}
	}
	l := Latency{
		Fixed: read(v, "fixed", time.Duration(0)),
		Mean:  read(v, "mean", time.Duration(0)),
		P95:   read(v, "p95", time.Duration(0)),
	}
	mean, p95 := v.get("mean"), v.get("p95")
	switch {
	case v.form != mapping || !v.sound("fixed", "mean", "p95"):
	case v.get("fixed") != nil && (mean != nil || p95 != nil):
		c.fail(v, "both fixed and a distribution; allowed: {fixed: 464ms} or {mean: 464ms, p95: 520ms}")
	case (mean == nil) != (p95 == nil):
		c.fail(v, "one of mean and p95 is missing; allowed: both, or fixed")
	case mean == nil:
	case l.P95 < l.Mean:
		c.fail(p95, "%s is below the mean, %s; allowed: from the mean to %.2f times the mean", quote(p95.text), quote(mean.text), maxSpread)
	case float64(l.P95) > maxSpread*float64(l.Mean):
		c.fail(p95, "%s is %.2f times the mean, %s, which no log-normal distribution has; allowed: from the mean to %.2f times the mean",
			quote(p95.text), float64(l.P95)/float64(l.Mean), quote(mean.text), maxSpread)
	}
	return l
}
