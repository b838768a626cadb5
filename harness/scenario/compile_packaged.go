package scenario

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The defaults of the general settings, which are the optimizer's.
const (
	defaultMaxMemory = 100e6
	defaultTTL       = 5 * time.Minute
)

// limits are what a packaged system can't do and a cache should, for whoever
// compares it with one that can.
var limits = map[Kind]string{
	KindNginx: "sends no Age, doesn't drop a stored response when its target is written to, wakes those who wait for the same fetch every 500 ms only, " +
		"speaks HTTP/1.1 to its upstream, and keeps its cache in files in the folder for temporary ones, so that its memory is that of its processes without the responses",
	KindVarnish: "doesn't drop a stored response when its target is written to, speaks HTTP/1.1 in clear text to its upstream, and has no stale-if-error",
	KindHAProxy: "fetches once for each of those who wait for the same response, serves nothing stale and validates nothing, " +
		"stores no status but 200 and nothing that names no lifetime, and tells variants apart by Accept-Encoding, Origin and Referer only",
}

// packaged fills in a system that comes from a package: of its configuration
// what can be said of any cache, and notices of what can't be had.
func (c *compiler) packaged(v *value, s *System) {
	s.Cache = Cache{MaxMemory: defaultMaxMemory, DefaultTTL: defaultTTL}
	var ignored []string
	each(v.get("config"), "", func(path string, x *value) {
		switch path {
		case "cache.max_memory_mb":
			mb, err := strconv.ParseFloat(x.text, 64)
			if err != nil || mb < 4 || mb > 1<<20 {
				c.failAt(x.at, "systems.%s.config.%s: %s; allowed: a number from 4 to 1048576", s.Name, path, x.describe())
				return
			}
			s.Cache.MaxMemory = int64(mb * 1e6)
		case "cache.default_ttl":
			ttl, err := parseDuration(x.text)
			if err != nil {
				c.failAt(x.at, "systems.%s.config.%s: %s; allowed: %s", s.Name, path, x.describe(), durationAllowed)
				return
			}
			if s.Cache.DefaultTTL = ttl; s.Kind == KindHAProxy {
				ignored = append(ignored, path)
			}
		default:
			ignored = append(ignored, path)
		}
	})
	if len(ignored) > 0 {
		c.notice("systems.%s.config: not applied to %s: %s", s.Name, s.Kind, strings.Join(ignored, ", "))
	}
	c.notice("systems.%s: %s %s", s.Name, s.Kind, limits[s.Kind])
	s.UpstreamTLS = read(v, "upstream_tls", false)
	if s.UpstreamTLS && s.Kind == KindVarnish {
		s.UpstreamTLS = false
		c.notice("systems.%s.upstream_tls is not applied: varnish speaks no TLS, so it is given the upstream's clear-text port, where nothing is negotiated", s.Name)
	}
}

// each calls do for every single value and list below v, by its path.
func each(v *value, path string, do func(path string, x *value)) {
	switch {
	case v == nil:
	case v.form == mapping:
		for _, f := range v.fields {
			each(f.value, join(path, f.name), do)
		}
	default:
		do(path, v)
	}
}

// optimizerCache reads the general settings from the optimizer's own, which it
// checks itself: what can't be read stands for nothing here.
func optimizerCache(config *value) Cache {
	cache := Cache{MaxMemory: defaultMaxMemory, DefaultTTL: defaultTTL}
	if x := config.get("cache").get("max_memory_mb"); x != nil {
		if mb, err := strconv.ParseFloat(fmt.Sprint(x.data), 64); err == nil && mb > 0 {
			cache.MaxMemory = int64(mb * 1e6)
		}
	}
	if x := config.get("cache").get("default_ttl"); x != nil {
		if ttl, err := parseDuration(x.text); err == nil {
			cache.DefaultTTL = ttl
		}
	}
	if x := config.get("telemetry").get("access_log"); x != nil {
		switch fmt.Sprint(x.data) { // true is json by its older name
		case "true", "json", "combined":
			cache.AccessLog = true
		}
	}
	return cache
}
