package ci

import (
	"math"
	"os/exec"
	"path/filepath"
	"testing"

	"phasegate/harness/scenario"
	"phasegate/optimizer"
	"phasegate/reports/result"
)

// The room that a scenario gives to other caches is what the optimizer has.
func TestSameRoom(t *testing.T) {
	t.Parallel()
	for _, mb := range []int{40, 100, 150, 2000} {
		c := optimizer.Config{}
		c.Cache.MaxMemoryMB = mb
		if ours, theirs := c.CacheBytes(), (scenario.Cache{MaxMemory: int64(mb) * 1e6}).Bytes(); math.Abs(float64(ours-theirs)) > 1 {
			t.Errorf("of %d MB the optimizer has %d bytes for responses, others %d", mb, ours, theirs)
		}
	}
}

// installed skips a test, and says what to install, where a system's program
// isn't here.
func installed(t *testing.T, system string) {
	t.Helper()
	program := map[string]string{"varnish": "varnishd"}[system]
	if program == "" {
		program = system
	}
	for _, name := range []string{program, "/usr/sbin/" + program, "/usr/local/sbin/" + program} {
		if _, err := exec.LookPath(name); err == nil {
			return
		}
	}
	t.Skipf("no %s here: install the Debian package %s (apt-get install %[2]s)", program, system)
}

// Servers from packages are judged as the optimizer is, over each leg that they
// have, and what one doesn't have never passes.
func TestSystems(t *testing.T) {
	t.Parallel()
	warm := map[string]float64{"cache_hit_ratio": 0.7}
	short := []string{"upstream.cache_control=public, max-age=1, stale-while-revalidate=1", "gates=[stale_responses <= 0]"}
	// Few of tiny's requests reach the upstream otherwise, too few to judge.
	often := "upstream.cache_control=public, max-age=1"
	http2 := "gates=[http2_adoption > 80%, negotiation_success > 95%]"
	for _, tt := range []struct {
		why, system string
		set         []string
		code        int
		verdicts    map[string]result.Verdict
		atLeast     map[string]float64
		spoken      string // by the load, to the new system
	}{
		{"as it comes", "nginx", []string{counted}, 0, nil, warm, "http/1.1"},
		{"as it comes", "varnish", []string{counted}, 0, nil, warm, "http/1.1"},
		{"as it comes", "haproxy", []string{counted}, 0, nil, warm, "http/1.1"},
		{"as long as the upstream allows", "nginx", short, 0, nil, nil, "http/1.1"},
		{"as long as the upstream allows", "varnish", short, 0, nil, nil, "http/1.1"},
		{"as long as the upstream allows", "haproxy", short, 0, nil, nil, "http/1.1"},
		{"its upstream offers HTTP/2, and it has none", "nginx", []string{"systems.new.upstream_tls=true", often, http2}, 1,
			map[string]result.Verdict{"http2_adoption": result.Fail}, nil, "http/1.1"},
		{"it has no TLS: no handshake is no sample", "varnish", []string{"systems.new.upstream_tls=true", often, http2}, 1,
			map[string]result.Verdict{"http2_adoption": result.Fail, "negotiation_success": result.Inconclusive}, nil, "http/1.1"},
		{"HTTP/2 to the upstream", "haproxy", []string{"systems.new.upstream_tls=true", often, http2}, 3,
			nil, map[string]float64{"http2_adoption": 0.8, "connection_reuse": 0.5}, "http/1.1"},
		{"HTTP/2 over TLS from clients, with a certificate of its own", "nginx", []string{"load.protocol=h2", counted}, 0, nil, nil, "h2"},
		{"HTTP/2 in clear text from clients", "varnish", []string{"load.protocol=h2c", counted}, 0, nil, nil, "h2c"},
		{"both at one port", "haproxy", []string{"load.protocol={http/1.1: 50%, h2c: 50%}", counted}, 0, nil, nil, "h2c"},
	} {
		t.Run(tt.system+": "+tt.why, func(t *testing.T) {
			t.Parallel()
			installed(t, tt.system)
			args := []string{"run", tiny, "--system", tt.system}
			for _, set := range tt.set {
				args = append(args, "--set", set)
			}
			p := unraced(t, args...)
			p.run(tt.code)
			for metric, verdict := range tt.verdicts {
				p.want(metric, verdict, "")
			}
			r := p.result()
			s := r.Systems["new"]
			for metric, least := range tt.atLeast {
				p.atLeast(metric, least)
			}
			if s.Version == "" || s.Setup == nil || s.Setup.AccessLog == nil || *s.Setup.AccessLog || s.Setup.Warmed != 200 ||
				s.Setup.CacheBytes == nil || math.Abs(float64(*s.Setup.CacheBytes)-74.4e6) > 1e6 {
				t.Errorf("version %q, set up as %+v", s.Version, s.Setup)
			}
			heard := false
			for _, spoken := range r.Load.Spoken {
				heard = heard || spoken.System == "new" && spoken.Protocol == tt.spoken && spoken.Requests > 0
			}
			if !heard {
				t.Errorf("it was spoken to as %+v; want %s too", r.Load.Spoken, tt.spoken)
			}
			unraced(t, "verify", p.out).run(0)
			if left, _ := filepath.Glob(filepath.Join(p.tmp, "*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
