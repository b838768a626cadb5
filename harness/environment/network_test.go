package environment

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/environment/network"
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
		{scenario.System{Kind: scenario.KindOptimizer}, "", true, "", ""},
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

// Between containers proxies stand on their network's gateway, and are told to the
// system by the upstream's name. Where that can't be, the reason is kept and nothing
// else changes. The gateway and the upstream's own address are the loopback's here.
func TestProxyInside(t *testing.T) {
	t.Parallel()
	arm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }))
	t.Cleanup(arm.Close)
	port := arm.URL[strings.LastIndexByte(arm.URL, ':'):]
	told := wire.ArmAddress{URL: "http://upstream" + port, TLSURL: "https://upstream" + port}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(address string) (string, error) {
		resp, err := client.Get(address)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return string(text), err
	}
	for _, tt := range []struct {
		name    string
		gateway string
		own     string
		reaches bool // a container reaches the gateway
		want    string
	}{
		{"stands", "127.0.0.1", "127.0.0.1", true, ""},
		{"gateway elsewhere", "192.0.2.1", "127.0.0.1", true, "virtual machine"},
		{"firewall", "127.0.0.1", "127.0.0.1", false, "firewall"},
		{"upstream elsewhere", "127.0.0.1", "127.0.0.2", true, "its container's own address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked, err := get(r.FormValue("url"))
				if r.URL.Path != wire.ReachPath || asked != wire.ProbePath || err != nil || !tt.reaches {
					http.Error(w, "no", http.StatusBadGateway)
				}
			}))
			t.Cleanup(control.Close)
			e := &Environment{
				plan: plan(optimizer(nil)), contained: true,
				inside:   map[string]wire.ArmAddress{scenario.New: told},
				networks: map[string][]*network.Proxy{},
				control:  wire.Dial(control.Listener.Addr().String()),
				upstream: &System{Container: &Container{at: netip.MustParseAddr(tt.own)}},
			}
			t.Cleanup(func() { e.closeNetworks(scenario.UpstreamLeg); e.control.Close() })
			err := e.proxyInside(t.Context(), netip.MustParseAddr(tt.gateway))
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %q", err, tt.want)
				}
				if e.inside[scenario.New] != told || e.hosts != nil || len(e.networks) > 0 || e.upstream.Container.dialed {
					t.Errorf("left: %+v, hosts %v, proxies %v", e.inside, e.hosts, e.networks)
				}
				return
			}
			if err != nil || e.hosts["upstream"] != netip.MustParseAddr(tt.gateway) || !e.upstream.Container.dialed {
				t.Fatalf("%v, hosts %v", err, e.hosts)
			}
			now := e.inside[scenario.New]
			if at := e.upstreamOf(&System{Name: scenario.New, Container: new(Container)}); !strings.Contains(at, now.URL+", by its /etc/hosts at "+tt.gateway) {
				t.Errorf("its upstream is told to be at %s", at)
			}
			for before, after := range map[string]string{told.URL: now.URL, told.TLSURL: now.TLSURL} {
				u, err := url.Parse(after)
				if err != nil || u.Hostname() != "upstream" || after == before || !strings.HasPrefix(after, before[:5]) {
					t.Errorf("%s became %s, %v", before, after, err)
					continue
				}
				if said, err := get("http://" + net.JoinHostPort(tt.gateway, u.Port()) + "/x"); said != "/x" {
					t.Errorf("through %s came %q, %v", after, said, err)
				}
			}
		})
	}
}
