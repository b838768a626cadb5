// Package network puts a TCP proxy between two parties, whose network it can
// make worse for a while. It is the only one that knows Toxiproxy, the library
// that does it.
//
// [New] opens a proxy; [Proxy.Worsen] and [Proxy.Restore] change the network
// behind it, for connections that are open too, and [Proxy.Met] tells how many
// met it; [Proxy.Close] ends it with every connection through it.
package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"phasegate/harness/scenario"
)

// restoreTime is how long the library may take to take its toxics out of the
// connections that are open. It waits for each to take notice, and one that has
// just ended may never do.
const restoreTime = 2 * time.Second

// sliceGap is the time between two pieces of an answer: without one they would be
// put together again on their way.
const sliceGap = time.Millisecond

// silence keeps the library's own log off standard error: some of its toxics tell
// of every change, whatever logger the proxy has.
var silence = sync.OnceFunc(func() { zerolog.SetGlobalLevel(zerolog.Disabled) })

// Proxy is a TCP proxy. Its methods may be called at once.
type Proxy struct {
	target string
	listen string
	proxy  chan *toxiproxy.Proxy // holds the one there is; taken out while it is changed
	met    atomic.Pointer[counted]
}

// counted are the counts of the last worse network.
type counted struct {
	numbers []int64
	counts  map[string]*atomic.Int64
}

func (c *counted) add(name string) (number int64) {
	c.counts[name], number = newCount()
	c.numbers = append(c.numbers, number)
	return number
}

// forget ends the counting; what was counted stays.
func (c *counted) forget() {
	for _, number := range c.numbers {
		counts.Delete(number)
	}
}

// Loopback is where a proxy listens for processes of this machine.
var Loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// New opens a proxy to the target at an address of this machine, on a port of its own.
func New(at netip.Addr, target string) (*Proxy, error) {
	silence()
	p := &Proxy{target: target, listen: netip.AddrPortFrom(at, 0).String(), proxy: make(chan *toxiproxy.Proxy, 1)}
	inner, err := p.open()
	if err != nil {
		return nil, err
	}
	p.listen = inner.Listen
	p.proxy <- inner
	return p, nil
}

func (p *Proxy) open() (*toxiproxy.Proxy, error) {
	// Its log tells every connection, and its metrics nobody asks for.
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	inner := toxiproxy.NewProxy(server, p.target, p.listen, p.target)
	if err := inner.Start(); err != nil {
		return nil, fmt.Errorf("open a proxy to %s on %s: %w", p.target, p.listen, err)
	}
	return inner, nil
}

// Addr is where the proxy listens: "127.0.0.1:41234".
func (p *Proxy) Addr() string { return p.listen }

// toxic is one of the library's, as its documentation of the HTTP interface has
// them.
type toxic struct {
	Type       string           `json:"type"`
	Name       string           `json:"name"`
	Stream     string           `json:"stream"`
	Toxicity   float64          `json:"toxicity"`
	Attributes map[string]int64 `json:"attributes"`
}

// worsening are the toxics that make a network so bad. "downstream" is the way back, to the
// party that opened the connection: what is added there is added to every round
// trip, once. A meter stands before what is met by some connections alone, and one
// for all of them.
func worsening(n scenario.Network, met *counted) []toxic {
	all := []toxic{{meterType, scenario.MetConnections, "upstream", 1, map[string]int64{"count": met.add(scenario.MetConnections), "bytes": 1}}}
	meter := func(name string, bytes int64) {
		all = append(all, toxic{meterType, name, "downstream", 1, map[string]int64{"count": met.add(name), "bytes": bytes}})
	}
	add := func(kind string, share float64, both bool, attributes map[string]int64) {
		all = append(all, toxic{kind, kind + "_down", "downstream", share, attributes})
		if both {
			all = append(all, toxic{kind, kind + "_up", "upstream", share, attributes})
		}
	}
	if n.Reset > 0 {
		// Of the library's own, which resets none here, comes that the ends of new
		// connections are resets.
		add("reset_peer", 0, false, map[string]int64{"timeout": 0})
		add(resetType, n.Reset, false, map[string]int64{"count": met.add(scenario.MetReset)})
	}
	if n.Timeout > 0 {
		add("timeout", 1, true, map[string]int64{"timeout": n.Timeout.Milliseconds()})
	}
	if n.Latency > 0 {
		add("latency", 1, false, map[string]int64{"latency": n.Latency.Milliseconds(), "jitter": n.Jitter.Milliseconds()})
	}
	if n.Bandwidth > 0 {
		add("bandwidth", 1, true, map[string]int64{"rate": n.Bandwidth / 1000})
	}
	if n.Slice > 0 {
		add("slicer", 1, false, map[string]int64{"average_size": n.Slice, "size_variation": n.Slice / 2, "delay": sliceGap.Microseconds()})
	}
	if n.LimitData > 0 {
		meter(scenario.MetLimit, n.LimitData)
		add("limit_data", 1, false, map[string]int64{"bytes": n.LimitData})
	}
	if n.SlowClose > 0 {
		meter(scenario.MetClose, 0)
		add("slow_close", 1, true, map[string]int64{"delay": n.SlowClose.Milliseconds()})
	}
	return all
}

// Worsen makes the network as bad as that, for the connections that are open
// and for new ones. ctx bounds how long it may take.
func (p *Proxy) Worsen(ctx context.Context, n scenario.Network) error {
	inner, err := p.take(ctx)
	if err != nil {
		return err
	}
	met := &counted{counts: map[string]*atomic.Int64{}}
	if last := p.met.Swap(met); last != nil {
		last.forget()
	}
	failed := make(chan error, 1)
	go func() {
		var errs []error
		for _, t := range worsening(n, met) {
			text, err := json.Marshal(t)
			if err == nil {
				_, err = inner.Toxics.AddToxicJson(bytes.NewReader(text))
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("worsen the network to %s by %s: %w", p.target, t.Type, err))
			}
		}
		p.proxy <- inner
		failed <- errors.Join(errs...)
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("worsen the network to %s: %w", p.target, ctx.Err())
	}
}

// Restore makes the network what it was. Connections stay open, unless the
// library can't be brought to let go of one: then all are ended, and new ones
// find the network as it was.
func (p *Proxy) Restore(ctx context.Context) error {
	inner, err := p.take(ctx)
	if err != nil {
		return err
	}
	if met := p.met.Load(); met != nil {
		met.forget() // ends that the restoration brings about aren't the network's
	}
	done := make(chan struct{})
	go func() {
		inner.Toxics.ResetToxics(context.WithoutCancel(ctx))
		close(done)
	}()
	timer := time.NewTimer(restoreTime)
	defer timer.Stop()
	select {
	case <-done:
		p.proxy <- inner
		return nil
	case <-timer.C:
	}
	stop(inner)
	fresh, err := p.open()
	if err != nil {
		p.proxy <- inner
		return err
	}
	p.proxy <- fresh
	return nil
}

// stop ends the library's proxy. It listens no more at once; what is held up by a connection
// that it can't let go of is left to the process's end.
func stop(inner *toxiproxy.Proxy) {
	stopped := make(chan struct{})
	go func() {
		inner.Stop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(restoreTime):
	}
}

// Met is how many connections have met the last worse network until it was restored,
// by the names that [scenario] has for that.
func (p *Proxy) Met() map[string]int64 {
	met := map[string]int64{}
	if last := p.met.Load(); last != nil {
		for name, n := range last.counts {
			met[name] = n.Load()
		}
	}
	return met
}

// take takes the inner proxy out, for a change.
func (p *Proxy) take(ctx context.Context) (*toxiproxy.Proxy, error) {
	select {
	case inner := <-p.proxy:
		return inner, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("change the network to %s: %w", p.target, ctx.Err())
	}
}

// Close ends the proxy and every connection through it. One that the library
// doesn't let go of is left to the process's end.
func (p *Proxy) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), restoreTime)
	defer cancel()
	if inner, err := p.take(ctx); err == nil {
		stop(inner)
		p.proxy <- inner
	}
	if last := p.met.Load(); last != nil {
		last.forget()
	}
}
