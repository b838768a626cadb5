package scenario_test

import (
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
)

// What a scenario says of any cache reaches a server from a package; what it
// can't have is said, never passed over.
func TestPackaged(t *testing.T) {
	t.Parallel()
	const tuned = "cache: {max_memory_mb: 200, capacity: 20000, default_ttl: 10m}, guard: {rate: 5}"
	for _, tt := range []struct {
		why, system, option string
		cache               scenario.Cache
		tls                 bool
		notices             []string
		silent              string // in no notice
	}{
		{why: "sizes and lifetimes are translated", system: "{kind: nginx, config: {" + tuned + "}}",
			cache:   scenario.Cache{MaxMemory: 200e6, DefaultTTL: 10 * time.Minute},
			notices: []string{"systems.new.config: not applied to nginx: cache.capacity, guard.rate", "systems.new: nginx sends no Age"}},
		{why: "nothing said is what the optimizer takes for it", system: "{kind: varnish}",
			cache: scenario.Cache{MaxMemory: 100e6, DefaultTTL: 5 * time.Minute}, notices: []string{"no stale-if-error"}, silent: "not applied"},
		{why: "a lifetime of 0 is no lifetime, not the default", system: "{kind: nginx, config: {cache: {default_ttl: 0s}}}",
			cache: scenario.Cache{MaxMemory: 100e6}, silent: "not applied"},
		{why: "HAProxy has one max-age for all", system: "{kind: haproxy, config: {cache: {default_ttl: 1m}}}",
			cache: scenario.Cache{MaxMemory: 100e6, DefaultTTL: time.Minute}, notices: []string{"not applied to haproxy: cache.default_ttl"}},
		{why: "the upstream's TLS port", system: "{kind: haproxy, upstream_tls: true}", tls: true,
			cache: scenario.Cache{MaxMemory: 100e6, DefaultTTL: 5 * time.Minute}, silent: "upstream_tls"},
		{why: "which Varnish can't speak to", system: "{kind: varnish, upstream_tls: true}",
			cache: scenario.Cache{MaxMemory: 100e6, DefaultTTL: 5 * time.Minute}, notices: []string{"upstream_tls is not applied: varnish speaks no TLS"}},
		{why: "in the place of the optimizer it gets the same settings", system: "{kind: optimizer, upstream_tls: true, config: {" + tuned + "}}", option: "nginx", tls: true,
			cache: scenario.Cache{MaxMemory: 200e6, DefaultTTL: 10 * time.Minute}, notices: []string{"not applied to nginx: cache.capacity"}},
		{why: "and the optimizer in its own place its limits, too", system: "{kind: optimizer, limits: {memory: 150MB, cpus: 1}, config: {" + tuned + "}}", option: "optimizer",
			cache: scenario.Cache{MaxMemory: 200e6, DefaultTTL: 10 * time.Minute}},
		{why: "and the optimizer says the same of itself", system: "{kind: optimizer, config: {telemetry: {access_log: combined}, " + tuned + "}}",
			cache: scenario.Cache{MaxMemory: 200e6, DefaultTTL: 10 * time.Minute, AccessLog: true}, silent: "not applied"},
	} {
		src := strings.Replace(valid, "{kind: optimizer, config: {cache: {max_memory_mb: 100, default_ttl: 5m}}}", tt.system, 1)
		plan, err := scenario.Compile([]byte(src), "t.yaml", scenario.Options{System: tt.option})
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
			continue
		}
		s := plan.System(scenario.New)
		if want := (scenario.Limits{Memory: 150e6, CPUs: 1}); tt.option == "optimizer" && s.Limit != want {
			t.Errorf("%s: limits %+v, want %+v", tt.why, s.Limit, want)
		}
		if s.Cache != tt.cache || s.UpstreamTLS != tt.tls {
			t.Errorf("%s: %+v, TLS %v; want %+v, %v", tt.why, s.Cache, s.UpstreamTLS, tt.cache, tt.tls)
		}
		notices := strings.Join(plan.Notices, "\n")
		for _, want := range tt.notices {
			if !strings.Contains(notices, want) {
				t.Errorf("%s: notices\n%s\nlack %q", tt.why, notices, want)
			}
		}
		if tt.silent != "" && strings.Contains(notices, tt.silent) {
			t.Errorf("%s: notices\n%s\nhave %q", tt.why, notices, tt.silent)
		}
	}
	for limit, want := range map[int64]int64{100e6: 74.4e6, 40e6: 15.6e6, 10e6: 3.9e6} {
		if got := (scenario.Cache{MaxMemory: limit}).Bytes(); got != want {
			t.Errorf("room for %d bytes of %d; want %d", got, limit, want)
		}
	}
}
