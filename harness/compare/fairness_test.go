package compare

import (
	"strings"
	"testing"

	"phasegate/reports/result"
)

// Each of these is a comparison that flatters one side, and must be called so.
func TestFairness(t *testing.T) {
	t.Parallel()
	bytes := func(n int64) *int64 { return &n }
	logs := func(b bool) *bool { return &b }
	contained := func(r *result.Result) { r.Environment.Upstream = "container" }
	sound := map[string]float64{"http2_adoption": 0, "connection_reuse": 0.99}
	for _, c := range []struct {
		why   string
		check string
		want  string
		b     func(r *result.Result) // what is done to the second system's runs
		set   []string               // of the second system's scenario
	}{
		{"nothing to find", "same load sent", result.Held, nil, nil},
		{"nothing to find", "warmed alike", result.Held, nil, nil},
		{"nothing to find", "keep-alive to the upstream", result.Held, nil, nil},
		{"nothing to find", "same protocol to the upstream", result.Held, nil, nil},
		{"nothing to find", "same cache size in force", result.Held, nil, nil},
		{"nothing to find", "logging alike", result.Held, nil, nil},
		{"half of the load", "same load sent", result.Violated, func(r *result.Result) { set(r, func(s *result.System) { s.Requests = 500 }) }, nil},
		{"a generator that fell behind", "same load sent", result.Violated, func(r *result.Result) { r.Load.SentRate = 80 }, nil},
		{"HTTP/2 from the client on one side", "same protocol to the system", result.Violated, func(r *result.Result) { r.Load.Spoken[0].Protocol = "h2c" }, nil},
		{"both in containers", "in a container alike", result.Held, nil, nil},
		{"only one in a container", "in a container alike", result.Violated, nil, []string{"systems.new={kind: nginx}"}},
		{"the same limits", "same limits of the containers", result.Held, nil, nil},
		{"half the CPUs", "same limits of the containers", result.Violated, nil, []string{"systems.new.limits={cpus: 0.5}"}},
		{"less memory", "same limits of the containers", result.Violated, nil, []string{"systems.new.limits={memory: 150MB}"}},
		{"what nobody starts", "freshly started for every round", result.Violated, nil, []string{"systems.new={kind: url, url: \"http://127.0.0.1:1\"}"}},
		{"a neighbour took CPU time", "machine left to the systems", result.Violated, func(r *result.Result) { r.Load.Stolen = 0.3 }, nil},
		{"not prewarmed", "warmed alike", result.Violated, func(r *result.Result) { r.Load.Prewarmed = 0 }, nil},
		{"prewarming failed", "warmed alike", result.Violated, func(r *result.Result) { r.Load.PrewarmFailed = 3 }, nil},
		{"prewarmed, and yet cold", "warmed alike", result.Violated, func(r *result.Result) { cold := 0.5; r.Timeline[0].HitRatio = &cold }, nil},
		{"no ledger", "warmed alike", result.Unknown, func(r *result.Result) { r.Timeline[0].HitRatio = nil }, nil},
		{"HTTP/2 to the upstream on one side", "same protocol to the upstream", result.Violated, func(r *result.Result) { *r.Systems["new"].Metrics["http2_adoption"] = 1 }, nil},
		{"TLS to the upstream on one side", "same protocol to the upstream", result.Violated, nil, []string{"systems.new.upstream_tls=true"}},
		{"no upstream request", "same protocol to the upstream", result.Unknown, func(r *result.Result) { r.Systems["new"].Metrics["http2_adoption"] = nil }, nil},
		{"a connection per request", "keep-alive to the upstream", result.Violated, func(r *result.Result) { *r.Systems["new"].Metrics["connection_reuse"] = 0.1 }, nil},
		{"two requests, both on new connections", "keep-alive to the upstream", result.Unknown, func(r *result.Result) {
			few := int64(1)
			*r.Systems["new"].Metrics["connection_reuse"] = 0
			r.Timeline[0].UpstreamRequests, r.Timeline[1].UpstreamRequests = &few, &few
		}, nil},
		{"twice the cache", "same cache size in force", result.Violated, func(r *result.Result) { set(r, func(s *result.System) { s.Setup.CacheBytes = bytes(200) }) }, nil},
		{"a program of one's own doesn't say", "same cache size in force", result.Unknown, func(r *result.Result) { set(r, func(s *result.System) { s.Setup.CacheBytes = nil }) }, nil},
		{"a log on one side", "logging alike", result.Violated, func(r *result.Result) { set(r, func(s *result.System) { s.Setup.AccessLog = logs(true) }) }, nil},
		{"a result of an earlier version", "logging alike", result.Unknown, func(r *result.Result) { set(r, func(s *result.System) { s.Setup = nil }) }, nil},
	} {
		whole := make([][]*result.Result, 2)
		for i := range whole {
			for range 3 {
				r := measured(sound)
				set(r, func(s *result.System) { s.Setup = &result.Setup{CacheBytes: bytes(100), AccessLog: logs(false)} })
				if strings.Contains(c.check, "container") {
					contained(r) // the upstream is the same for all
				}
				if i == 1 && c.b != nil {
					c.b(r)
				}
				whole[i] = append(whole[i], r)
			}
		}
		systems := []System{{Name: "a", Plan: plan(t)}, {Name: "b", Plan: plan(t, c.set...)}}
		found := false
		for _, f := range fairness(systems, whole) {
			if f.Check == c.check {
				found = true
				if f.State != c.want {
					t.Errorf("%s: %s is %s (%s), want %s", c.why, f.Check, f.State, f.Found, c.want)
				}
			}
		}
		if !found {
			t.Errorf("%s: no check %q", c.why, c.check)
		}
	}
	// Straight to the upstream there is no cache to be warm.
	direct := []System{{Name: "a", Plan: plan(t)}, {Name: "b", Plan: plan(t, "systems.new={kind: direct}")}}
	for _, f := range fairness(direct, [][]*result.Result{{measured(sound)}, {measured(sound)}}) {
		if f.Check == "warmed alike" {
			t.Errorf("a bare upstream is asked whether it is warm: %s", f.Found)
		}
	}
}

func set(r *result.Result, change func(*result.System)) {
	s := r.Systems["new"]
	change(&s)
	r.Systems["new"] = s
}
