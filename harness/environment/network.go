package environment

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/environment/network"
	"phasegate/harness/scenario"
)

// A network is made worse by a proxy on the leg. Where some drill of the plan
// does that, the proxy stands there from the start, so that its own cost is in
// all that is compared; where none does, there is no proxy.

// noProxy says why no proxy can stand on a leg of the new system; nil if one can.
func (e *Environment) noProxy(leg string) error {
	switch system := e.plan.System(scenario.New); {
	case system.Kind == scenario.KindURL:
		return errors.New("the new system runs already, and nothing can be put before or behind it")
	case leg == scenario.ClientLeg:
		return nil
	case e.plan.Upstream == nil || system.Kind == scenario.KindDirect:
		return errors.New("the new system has no leg to an upstream of ours")
	case e.plan.Upstream.Listen != "":
		return errors.New("the new system finds the upstream at a fixed address (upstream.listen), where nothing can be put between")
	}
	return e.unproxied
}

// proxyUpstream puts proxies between the new system and its upstream, and hands
// the system their addresses. Where none can stand between containers, that is left
// for CanWorsen to tell.
func (e *Environment) proxyUpstream(ctx context.Context) error {
	if e.runsInside(e.plan.System(scenario.New)) {
		gateway, err := e.engine.Gateway(ctx, e.run)
		if err == nil {
			err = e.proxyInside(ctx, gateway)
		}
		if err != nil {
			e.unproxied = fmt.Errorf("no proxy can stand between the containers of the new system and the upstream: %w", err)
		}
		return ctx.Err()
	}
	arm := e.ready.Arms[scenario.New]
	through := func(address string) (string, error) {
		u, err := e.through(scenario.UpstreamLeg, address)
		if err != nil {
			return "", err
		}
		return u.String(), nil
	}
	var proxied wire.ArmAddress
	var err, errTLS error
	proxied.URL, err = through(arm.URL)
	proxied.TLSURL, errTLS = through(arm.TLSURL)
	e.ready.Arms[scenario.New] = proxied
	return errors.Join(err, errTLS)
}

// proxyInside puts proxies on the gateway of the containers' network, which is an
// address of this machine if the engine runs here. The new system goes there by the
// upstream's name, so that certificates fit as before; other ports are all it is told.
//
// They go to the upstream's own address: the engine ends what goes through a published
// port when the container is off the network, where a partition is silence.
func (e *Environment) proxyInside(ctx context.Context, gateway netip.Addr) (err error) {
	const leg = scenario.UpstreamLeg
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	defer func() {
		if err != nil {
			e.closeNetworks(leg)
			delete(e.networks, leg)
		}
	}()
	inside, at := e.inside[scenario.New], e.upstream.Container.at
	through := func(address string) (string, error) {
		u, err := baseURL(address)
		if err != nil {
			return "", err
		}
		own := net.JoinHostPort(at.String(), u.Port())
		// A proxy would try for minutes what a firewall drops.
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", own)
		if err != nil {
			return "", fmt.Errorf("reach the upstream by its container's own address: %w", err)
		}
		conn.Close()
		p, err := network.New(gateway, own)
		if err != nil {
			return "", fmt.Errorf("listen on the gateway of their network, which an engine in a virtual machine, or without root, has elsewhere: %w", err)
		}
		e.networks[leg] = append(e.networks[leg], p)
		_, port, err := net.SplitHostPort(p.Addr())
		u.Host = net.JoinHostPort(u.Hostname(), port)
		return u.String(), err
	}
	var proxied wire.ArmAddress
	if proxied.URL, err = through(inside.URL); err != nil {
		return err
	}
	if proxied.TLSURL, err = through(inside.TLSURL); err != nil {
		return err
	}
	// The firewall of this machine may keep containers from its addresses.
	if err := e.control.Reach(ctx, "http://"+e.networks[leg][0].Addr()+wire.ProbePath); err != nil {
		return fmt.Errorf("reach the gateway of their network from a container, which a firewall may forbid: %w", err)
	}
	e.upstream.Container.dialed = true
	e.inside[scenario.New] = proxied
	e.hosts = map[string]netip.Addr{upstreamName: gateway}
	return nil
}

// through puts a proxy before an address, and returns the one to use instead.
func (e *Environment) through(leg, address string) (*url.URL, error) {
	u, err := baseURL(address)
	if err == nil {
		var p *network.Proxy
		if p, err = network.New(network.Loopback, u.Host); err == nil {
			e.networks[leg] = append(e.networks[leg], p)
			u.Host = p.Addr()
			return u, nil
		}
	}
	return nil, &Error{Op: "put a proxy on the " + leg + " leg", System: scenario.New, Err: err}
}

// Worsen makes the network on a leg of the new system as bad as that. It fails
// where no proxy stands there.
func (e *Environment) Worsen(ctx context.Context, n scenario.Network) error {
	if err := e.CanWorsen(n.Leg); err != nil {
		return err
	}
	var errs []error
	for _, p := range e.networks[n.Leg] {
		errs = append(errs, p.Worsen(ctx, n))
	}
	return errors.Join(errs...)
}

// Restore makes the network on a leg what it was.
func (e *Environment) Restore(ctx context.Context, leg string) error {
	var errs []error
	for _, p := range e.networks[leg] {
		errs = append(errs, p.Restore(ctx))
	}
	return errors.Join(errs...)
}

// Met is how many connections met what the network on a leg was last made, all
// proxies together; see [network.Proxy.Met].
func (e *Environment) Met(leg string) map[string]int64 {
	sum := map[string]int64{}
	for _, p := range e.networks[leg] {
		for name, n := range p.Met() {
			sum[name] += n
		}
	}
	return sum
}

// CanWorsen says why the network on a leg can't be made worse; nil if it can.
func (e *Environment) CanWorsen(leg string) error {
	err := e.noProxy(leg)
	if err == nil && len(e.networks[leg]) == 0 {
		err = fmt.Errorf("there is no proxy on the %s leg", leg)
	}
	return err
}

// closeNetworks ends every proxy on a leg.
func (e *Environment) closeNetworks(leg string) {
	for _, p := range e.networks[leg] {
		p.Close()
	}
}
