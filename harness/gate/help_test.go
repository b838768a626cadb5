package gate

import (
	"math/rand/v2"
	"testing"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

const ms = time.Millisecond

func ptr[T any](v T) *T { return &v }

func condition(t testing.TB, text string) scenario.Condition {
	t.Helper()
	c, err := scenario.ParseCondition(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func gateOn(t testing.TB, text string) scenario.Gate {
	t.Helper()
	return scenario.Gate{Condition: condition(t, text), System: scenario.New}
}

// run is a simulated steady state of one system.
type run struct {
	seconds, rate int
	outcome       func(i int) timeline.Outcome // of the i-th request; Due is filled in
	unfinished    int                          // of the last requests
	reads         func(i int) bool             // whether the i-th reaches the upstream; nil: no ledger
	memory        func(second int) int64       // nil: not sampled
	cpu           func(second int) float64
}

// window records the run as the engine would.
func (r run) window(t testing.TB, limits ...time.Duration) timeline.Window {
	t.Helper()
	rec, err := timeline.New(timeline.Config{Systems: []string{scenario.New}, Over: limits})
	if err != nil {
		t.Fatal(err)
	}
	var ledger timeline.LedgerCounts
	total := r.seconds * r.rate
	for second := range r.seconds {
		if r.reads != nil {
			rec.Ledger(0, time.Duration(second)*time.Second, ledger)
		}
		for k := range r.rate {
			i := second*r.rate + k
			due := time.Duration(second)*time.Second + time.Duration(k)*time.Second/time.Duration(r.rate)
			rec.Offer(0, due)
			if i >= total-r.unfinished {
				continue
			}
			o := r.outcome(i)
			o.Due = due
			rec.Record(0, o)
			if r.reads != nil && r.reads(i) {
				ledger.Reads++
				ledger.Requests++
				ledger.HTTP2++
				if ledger.Requests > 4 {
					ledger.Reused++
				}
			}
		}
		if r.memory != nil {
			u := timeline.Usage{Resident: r.memory(second), CPU: 0.1}
			if r.cpu != nil {
				u.CPU = r.cpu(second)
			}
			rec.Resources(0, time.Duration(second)*time.Second+999*ms, u)
		}
	}
	if r.reads != nil {
		rec.Ledger(0, time.Duration(r.seconds)*time.Second, ledger)
	}
	return rec.Window(0, 0, time.Duration(r.seconds)*time.Second)
}

func (r run) data(t testing.TB, gates ...scenario.Gate) Data {
	t.Helper()
	return Data{
		Windows: map[string]timeline.Window{scenario.New: r.window(t, Thresholds(gates, nil)...)},
		Rate:    map[string]float64{scenario.New: float64(r.rate)},
	}
}

// hit and miss are the two answers of a cache before a slow upstream.
func hit() timeline.Outcome {
	return timeline.Outcome{Latency: 2 * ms, Service: 2 * ms, Cacheable: true, Proven: true, Claim: timeline.ClaimHit}
}

// overHTTP2 is a hit on a connection that was used before.
func overHTTP2() timeline.Outcome {
	o := hit()
	o.HTTP2, o.Reused = true, true
	return o
}

func miss() timeline.Outcome {
	return timeline.Outcome{Latency: 464 * ms, Service: 464 * ms, Cacheable: true, Proven: true, Blocking: true, Claim: timeline.ClaimMiss}
}

func failed(class timeline.Class) timeline.Outcome {
	return timeline.Outcome{Latency: ms, Service: ms, Cacheable: true, Class: class}
}

// always answers every request in the same way.
func always(o timeline.Outcome) func(int) timeline.Outcome {
	return func(int) timeline.Outcome { return o }
}

// mix draws from a with the given probability, else from b.
func mix(seed uint64, share float64, a, b timeline.Outcome) func(int) timeline.Outcome {
	rng := rand.New(rand.NewPCG(seed, 0))
	return func(int) timeline.Outcome {
		if rng.Float64() < share {
			return a
		}
		return b
	}
}

// first answers the first n requests with a, the others with b.
func first(n int, a, b timeline.Outcome) func(int) timeline.Outcome {
	return func(i int) timeline.Outcome {
		if i < n {
			return a
		}
		return b
	}
}

// between answers the requests from one to another with a, the others with b.
func between(from, to int, a, b timeline.Outcome) func(int) timeline.Outcome {
	return func(i int) timeline.Outcome {
		if i >= from && i < to {
			return a
		}
		return b
	}
}
