package environment

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
)

// worse is a plan with drills that worsen the network on both legs.
func worse(systems ...scenario.System) *scenario.Plan {
	p := plan(systems...)
	for _, leg := range []string{scenario.ClientLeg, scenario.UpstreamLeg} {
		p.Drills = append(p.Drills, scenario.Drill{Fault: scenario.Fault{Kind: scenario.Worse, Network: scenario.Network{Leg: leg, Latency: 1}}})
	}
	return p
}

// Proxies stand on the legs of the new system alone, each delays its own, and what
// was slow is as fast as before afterwards.
func TestProxiesOnBothLegs(t *testing.T) {
	t.Parallel()
	e := startPlan(t, worse(scenario.System{Name: scenario.Old, Kind: scenario.KindDirect, Share: 0.5}, optimizer(nil)))
	old, system := e.Systems()[scenario.Old], e.Systems()[scenario.New]
	if got := strings.Join(system.Command, " "); !strings.Contains(got, "--upstream "+e.ready.Arms[scenario.New].URL) {
		t.Errorf("the system is told %s", got)
	}
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	took := func(s *System) time.Duration {
		start := time.Now()
		resp, err := client.Get(s.URL.String() + "/items/1")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return time.Since(start)
	}
	const delay = 150 * time.Millisecond
	took(system) // connections are open
	for _, leg := range []string{scenario.ClientLeg, scenario.UpstreamLeg} {
		if err := e.CanWorsen(leg); err != nil {
			t.Fatal(err)
		}
		if err := e.Worsen(t.Context(), scenario.Network{Leg: leg, Latency: delay}); err != nil {
			t.Fatal(err)
		}
		if d := took(system); d < delay {
			t.Errorf("%s leg: %v, and %v were added", leg, d, delay)
		}
		if d := took(old); d > delay {
			t.Errorf("%s leg: the old system took %v", leg, d)
		}
		if err := e.Restore(t.Context(), leg); err != nil {
			t.Fatal(err)
		}
		if d := took(system); d > delay {
			t.Errorf("%s leg: %v after it was restored", leg, d)
		}
		if met := e.Met(leg)[scenario.MetConnections]; met != 1 {
			t.Errorf("%s leg: %d connections met it", leg, met)
		}
	}
	if ledger, err := e.Control().Ledger(t.Context(), scenario.New, false); err != nil || ledger.Probes < 6 {
		t.Errorf("through the proxies came %+v, %v", ledger, err)
	}
}

// Where no drill asks for one there is no proxy, and where there can be none the
// reason is told.
func TestNoProxy(t *testing.T) {
	t.Parallel()
	e := startPlan(t, plan(optimizer(nil)))
	if len(e.networks) > 0 || e.CanWorsen(scenario.ClientLeg) == nil {
		t.Errorf("a proxy that nobody asked for: %v", e.networks)
	}
	for _, tt := range []struct {
		system    scenario.System
		listen    string
		contained bool
		client    string // part of the reason; "" for none
		upstream  string
	}{
		{scenario.System{Kind: scenario.KindURL}, "", false, "runs already", "runs already"},
		{scenario.System{Kind: scenario.KindDirect}, "", false, "", "no leg"},
		{scenario.System{Kind: scenario.KindCommand}, "127.0.0.1:9000", false, "", "fixed address"},
		{scenario.System{Kind: scenario.KindOptimizer}, "", true, "containers", "containers"},
		{scenario.System{Kind: scenario.KindNginx}, "", false, "", ""},
	} {
		tt.system.Name = scenario.New
		e := &Environment{plan: plan(tt.system), contained: tt.contained}
		e.plan.Upstream.Listen = tt.listen
		for leg, want := range map[string]string{scenario.ClientLeg: tt.client, scenario.UpstreamLeg: tt.upstream} {
			if err := e.noProxy(leg); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%+v, %s leg: %v, want %q", tt.system, leg, err, want)
			}
		}
	}
}
