package ci

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"phasegate/harness/environment/network"
	"phasegate/harness/scenario"
	"phasegate/optimizer"
	"phasegate/optimizer/upstream"
)

// cutOff is the status of an answer that has none, or no end.
const cutOff = 0

// badNetwork is a network on a leg of the optimizer, and what may come of it at most. The
// README's table has the same rows.
type badNetwork struct {
	network scenario.Network
	status  int    // without anything stored
	stale   bool   // a stored response is used, where stale-if-error allows it
	counted string // in optimizer_upstream_…
	opens   bool   // the breaker
}

// Whatever a network does to the optimizer's leg to its upstream, clients see no more of it
// than the table says, and never a part of an answer as the whole. On their own leg they may
// see an answer cut off, and nobody else does. How long that takes is the scenario
// faults-network's to hold: here each limit of time that a row may not wait for is an hour.
func TestBadNetworks(t *testing.T) {
	t.Parallel()
	const up, down = scenario.UpstreamLeg, scenario.ClientLeg
	const ms = time.Millisecond
	for _, b := range []badNetwork{
		{network: scenario.Network{Leg: up, Latency: 50 * ms, Jitter: 20 * ms}, status: 200},
		{network: scenario.Network{Leg: up, Bandwidth: 100_000}, status: 200},
		{network: scenario.Network{Leg: up, Slice: 500}, status: 200},
		{network: scenario.Network{Leg: up, SlowClose: time.Hour}, status: 200},
		{network: scenario.Network{Leg: up, Reset: 1}, status: 502, stale: true, counted: `retries_total{reason="lost",`, opens: true},
		{network: scenario.Network{Leg: up, Timeout: time.Hour}, status: 504, stale: true, counted: "errors_total", opens: true},
		{network: scenario.Network{Leg: up, LimitData: 1000}, status: 502, stale: true, counted: "errors_total"},
		{network: scenario.Network{Leg: down, Latency: 50 * ms, Jitter: 20 * ms}, status: 200},
		{network: scenario.Network{Leg: down, Bandwidth: 100_000}, status: 200},
		{network: scenario.Network{Leg: down, Slice: 500}, status: 200},
		{network: scenario.Network{Leg: down, SlowClose: time.Hour}, status: 200},
		{network: scenario.Network{Leg: down, Reset: 1}, status: cutOff},
		{network: scenario.Network{Leg: down, LimitData: 1000}, status: cutOff},
	} {
		t.Run(b.network.String(), func(t *testing.T) {
			t.Parallel()
			b.hold(t)
		})
	}
}

// content is the upstream's answer: longer than what a row lets through, and none is
// another's.
func content(path string) string { return strings.Repeat(path+" ", 400) }

func (b badNetwork) hold(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60, stale-if-error=600")
		w.Header().Set("Age", "60") // stale at once
		io.WriteString(w, content(r.URL.Path))
	}))
	t.Cleanup(server.Close)
	closes := b.network.SlowClose > 0 // each answer is its connection's last
	server.Config.SetKeepAlivesEnabled(!closes)
	upstreamLeg := proxied(t, server.Listener.Addr().String())
	c := optimizer.Config{Listen: "127.0.0.1:0", Breaker: upstream.Breaker{MinRequests: 5, Window: time.Hour, OpenFor: time.Hour}}
	c.Upstream = upstream.Config{URL: "http://" + upstreamLeg.Addr(), DialTimeout: time.Hour, FirstByteTimeout: time.Hour, Timeout: time.Hour}
	if b.status == http.StatusGatewayTimeout {
		c.Upstream.FirstByteTimeout = 500 * time.Millisecond
	}
	o, err := optimizer.New(c)
	if err == nil {
		err = o.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Stop(t.Context()) })
	worse := proxied(t, o.Addr().String())
	clients := "http://" + worse.Addr()
	if b.network.Leg == scenario.UpstreamLeg {
		worse = upstreamLeg
	}

	transport := &http.Transport{DisableCompression: true, DisableKeepAlives: closes}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second} // who waits for an hour is found out then
	if status, _, text := fetch(client, clients+"/stored"); status != 200 || text != content("/stored") {
		t.Fatalf("while all is well: %d %.40q", status, text)
	}
	if err := worse.Worsen(t.Context(), b.network); err != nil {
		t.Fatal(err)
	}
	switch status, cache, text := fetch(client, clients+"/stored"); {
	case b.status == cutOff: // as what isn't stored
	case status != 200 || text != content("/stored") || (cache == "optimizer; fwd=stale") != b.stale:
		t.Errorf("with a stored response: %d %.40q %s, want stale %t", status, text, cache, b.stale)
	}
	for i := range 6 {
		path := fmt.Sprint("/new", i)
		switch status, _, text := fetch(client, clients+path); {
		case status == 503 && b.opens: // the breaker is open by now
		case status != b.status || status == 200 && text != content(path):
			t.Errorf("%d %.40q, want %d", status, text, b.status)
		}
	}
	if b.network.Leg == scenario.ClientLeg {
		if status, _, text := fetch(client, "http://"+o.Addr().String()+"/else"); status != 200 || text != content("/else") {
			t.Errorf("who isn't behind that network: %d %.40q", status, text)
		}
	}
	b.counts(t, worse, client, o)
}

// counts checks that the network was met, and what the optimizer's metrics say of it.
func (b badNetwork) counts(t *testing.T, worse *network.Proxy, client *http.Client, o *optimizer.Optimizer) {
	for name, n := range worse.Met() {
		if n == 0 {
			t.Errorf("no connection met %s", name)
		}
	}
	_, _, metrics := fetch(client, "http://"+o.AdminAddr().String()+"/metrics")
	value := func(name string) (v float64) {
		for line := range strings.Lines(metrics) {
			if strings.HasPrefix(line, name) {
				fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &v)
			}
		}
		return v
	}
	if opened := value("optimizer_breaker_state{") == 2; opened != b.opens {
		t.Errorf("the breaker is open: %t, want %t", opened, b.opens)
	}
	if b.counted != "" && value("optimizer_upstream_"+b.counted) == 0 {
		t.Errorf("optimizer_upstream_%s… is 0", b.counted)
	}
	if b.counted == "" && value("optimizer_upstream_errors_total") != 0 {
		t.Error("an error of the upstream is counted, and there was none")
	}
}

// proxied puts a network before an address.
func proxied(t *testing.T, address string) *network.Proxy {
	t.Helper()
	p, err := network.New(network.Loopback, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func fetch(client *http.Client, u string) (status int, cache, text string) {
	resp, err := client.Get(u)
	if err != nil {
		return cutOff, "", err.Error()
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return cutOff, "", fmt.Sprintf("%d bytes of %d: %v", len(all), resp.StatusCode, err)
	}
	return resp.StatusCode, resp.Header.Get("Cache-Status"), string(all)
}
