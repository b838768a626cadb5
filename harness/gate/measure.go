package gate

import (
	"fmt"
	"math"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
	"phasegate/harness/timeline"
)

// tally is a metric that is a share: k of n.
type tally struct {
	k, n    float64
	counts  []stat.Count    // the same by interval …
	starts  []time.Duration // … which begin at these times
	unknown float64         // more of n whose end isn't known
	of      string          // what is counted
}

func (t tally) share() float64 {
	if !(t.n > 0) {
		return 0
	}
	return t.k / t.n
}

// bySecond is k, interval by interval.
func (t tally) bySecond() []float64 {
	k := make([]float64, len(t.counts))
	for i, c := range t.counts {
		k[i] = c.K
	}
	return k
}

// complement turns the k around: the rest of n.
func (t tally) complement() tally {
	t.k = t.n - t.k
	counts := make([]stat.Count, len(t.counts))
	for i, c := range t.counts {
		counts[i] = stat.Count{K: c.N - c.K, N: c.N}
	}
	t.counts = counts
	return t
}

const (
	noProof = "no answer carried the mock upstream's self-description, so its ledger says nothing about this system"

	ofRequests  = "requests"
	ofCacheable = "cacheable requests"
	ofUpstream  = "upstream requests"
)

// tallyOf counts a metric that is a share. missing says why it can't.
func tallyOf(m scenario.Metric, w *timeline.Window) (t tally, missing string) {
	// of adds up what one interval contributes.
	of := func(what string, part func(c *timeline.Counts, l *timeline.LedgerCounts) (k, n int64)) tally {
		k, n := part(&w.Counts, &w.Ledger)
		t := tally{k: float64(k), n: float64(n), of: what}
		for i := range w.Intervals {
			k, n := part(&w.Intervals[i].Counts, &w.Intervals[i].Ledger)
			t.counts = append(t.counts, stat.Count{K: float64(k), N: float64(n)})
			t.starts = append(t.starts, w.Intervals[i].Start)
		}
		return t
	}
	type counts = timeline.Counts
	type ledger = timeline.LedgerCounts

	if m.Source == scenario.FromLedger {
		switch {
		case !w.HaveLedger:
			return tally{}, "the upstream's ledger was not read"
		case w.Requests > 0 && w.Proven == 0:
			return tally{}, noProof
		}
		covered := w.Ledgered()
		w = &covered
	}
	empty := noRequests(w)
	switch m.Name {
	case "error_rate":
		t = of(ofRequests, func(c *counts, _ *ledger) (k, n int64) { return c.Errors(), c.Requests })
		t.unknown = float64(w.Pending())
	case "availability":
		t = of(ofRequests, func(c *counts, _ *ledger) (k, n int64) { return c.Usable(), c.Requests })
		t.unknown = float64(w.Pending())
	case "timeout_rate":
		t = of(ofRequests, func(c *counts, _ *ledger) (k, n int64) { return c.Class[timeline.Timeout], c.Requests })
		t.unknown = float64(w.Pending())
	case "client_http2_adoption":
		t = of(ofRequests, func(c *counts, _ *ledger) (k, n int64) { return c.ClientHTTP2, c.Requests })
		t.unknown = float64(w.Pending())
	case "client_connection_reuse":
		t = of(ofRequests, func(c *counts, _ *ledger) (k, n int64) { return c.ClientReused, c.Requests })
		t.unknown = float64(w.Pending())
	case "client_negotiation_success":
		t = of("TLS handshakes", func(c *counts, _ *ledger) (k, n int64) {
			return c.ClientHandshakes - c.ClientHandshakeFailures, c.ClientHandshakes
		})
		empty = "there was no TLS handshake with the system"
	case "cache_hit_ratio":
		// Every upstream read is a miss, and so is every request whose answer
		// doesn't prove where it came from: a system that answers nothing
		// asks nothing of the upstream either.
		// One that was fetched and then lost counts twice, on the safe side.
		t = of(ofCacheable, func(c *counts, l *ledger) (k, n int64) { return c.CacheableProven - l.Reads, c.Cacheable })
		t.k = max(t.k, 0)
		empty = "no cacheable request was measured"
	case "revalidation_ratio":
		t = of(ofCacheable, func(c *counts, l *ledger) (k, n int64) { return l.Conditional, c.Cacheable })
		t.k = min(t.k, t.n)
		empty = "no cacheable request was measured"
	case "blocking_ratio":
		t = of("proven answers", func(c *counts, _ *ledger) (k, n int64) { return c.CacheableBlocking, c.CacheableProven })
		empty = "no answer to a cacheable request carried the mock upstream's self-description"
	case "claimed_hit_ratio":
		t = of("answers that claim to be a hit or a miss", func(c *counts, _ *ledger) (k, n int64) { return c.ClaimHit, c.ClaimHit + c.ClaimMiss })
		empty = "no answer carried a Cache-Status, X-Cache or Age field"
	case "false_hit_ratio":
		// Each fetch has one client who waited for it first and is told of a
		// miss, or gets no claim at all. A background refresh has none, and is a
		// conditional request wherever there is a validator.
		t = of("answers that claim to be a hit or a miss", func(c *counts, l *ledger) (k, n int64) {
			admitted := c.Cacheable - c.ClaimHit
			return l.Reads - l.Conditional - admitted, c.ClaimHit + c.ClaimMiss
		})
		t.k = min(max(t.k, 0), t.n)
		empty = "no answer carried a Cache-Status, X-Cache or Age field"
	case "duplicate_fetches":
		t = of("upstream reads", func(_ *counts, l *ledger) (k, n int64) { return l.Duplicates, l.Reads })
		empty = "no read reached the upstream"
	case "http2_adoption":
		t = of(ofUpstream, func(_ *counts, l *ledger) (k, n int64) { return l.HTTP2, l.Requests })
		empty = "no request reached the upstream"
	case "connection_reuse":
		t = of(ofUpstream, func(_ *counts, l *ledger) (k, n int64) { return l.Reused, l.Requests })
		empty = "no request reached the upstream"
	case "negotiation_success":
		t = of("TLS handshakes", func(_ *counts, l *ledger) (k, n int64) { return l.Handshakes, l.Handshakes + l.HandshakeFailures })
		empty = "there was no TLS handshake with the upstream"
	default:
		return tally{}, notMeasured(m)
	}
	if !(t.n > 0) {
		return tally{}, empty
	}
	return t, ""
}

func noRequests(w *timeline.Window) string {
	if n := w.Pending(); n > 0 {
		return fmt.Sprintf("none of %s requests finished", formatCount(float64(n)))
	}
	return "no request was measured"
}

// series is a metric that is a mean, a rate, or a quotient of two of them.
type series struct {
	pairs   []stat.Pair
	by      []stat.Pair // what it is divided by; nil where it isn't
	unknown int64       // requests whose end isn't known
	samples int64
}

func (s series) value() (float64, bool) {
	mean := func(pairs []stat.Pair) (float64, bool) {
		var num, den float64
		for _, p := range pairs {
			num += p.Num
			den += p.Den
		}
		return num / den, den > 0
	}
	v, ok := mean(s.pairs)
	if s.by != nil {
		by, okBy := mean(s.by)
		v, ok = v/by, ok && okBy && by > 0
	}
	return v, ok && !math.IsNaN(v) && !math.IsInf(v, 0)
}

func (s series) estimate(level float64) (stat.Estimate, bool) {
	if s.by != nil {
		return stat.Quotient(s.pairs, s.by, level)
	}
	return stat.Ratio(s.pairs, level)
}

// run bounds what the run was, for a claim to fail by.
func (s series) run(level float64) (stat.Estimate, bool) {
	if s.by != nil {
		return stat.RunQuotient(s.pairs, s.by, level)
	}
	return stat.RunRatio(s.pairs, level)
}

// seriesOf collects a metric that is a mean, by interval.
func seriesOf(m scenario.Metric, d Data, w *timeline.Window) (s series, missing string) {
	latencies := func(w *timeline.Window) []stat.Pair {
		var pairs []stat.Pair
		for i := range w.Intervals {
			c := &w.Intervals[i].Counts
			pairs = append(pairs, stat.Pair{Num: c.LatencySum, Den: float64(c.Requests)})
		}
		return pairs
	}
	switch m.Name {
	case "mean_latency":
		if w.Requests == 0 {
			return s, noRequests(w)
		}
		return series{pairs: latencies(w), unknown: w.Pending(), samples: w.Requests}, ""
	case "throughput":
		if w.Requests == 0 && w.Offered == 0 {
			return s, noRequests(w) // where requests were due, none finished is a rate of 0
		}
		for i := range w.Intervals {
			in := &w.Intervals[i]
			s.pairs = append(s.pairs, stat.Pair{Num: float64(in.GoodEnded), Den: (in.End - in.Start).Seconds()})
		}
		s.samples = w.Requests
		return s, ""
	case "latency_improvement":
		before, after := d.Windows[scenario.Old], d.Windows[scenario.New]
		for _, arm := range []struct {
			name string
			w    *timeline.Window
		}{{scenario.Old, &before}, {scenario.New, &after}} {
			if arm.w.Requests == 0 {
				return s, "no request to the " + arm.name + " system was measured"
			}
		}
		return series{
			pairs: latencies(&before), by: latencies(&after),
			unknown: after.Pending(), samples: min(before.Requests, after.Requests),
		}, ""
	case "cpu":
		for _, r := range w.Resources {
			s.pairs = append(s.pairs, stat.Pair{Num: r.CPU * r.Span.Seconds(), Den: r.Span.Seconds()})
		}
		if s.samples = int64(len(s.pairs)); s.samples == 0 {
			return s, "the system's CPU time was not sampled"
		}
		return s, ""
	default:
		return s, notMeasured(m)
	}
}

// countOf counts occurrences that must not be. None at all says nothing where
// no answer could be checked.
func countOf(m scenario.Metric, w *timeline.Window) (n int64, missing string) {
	switch m.Name {
	case "wrong_responses":
		n = w.Class[timeline.Wrong] + w.Truncated
	case "stale_responses":
		n = w.Stale
	case "wrong_age":
		n = w.WrongAge
	default:
		return 0, notMeasured(m)
	}
	switch {
	case n > 0:
	case w.Requests == 0:
		return 0, noRequests(w)
	case w.Proven == 0:
		return 0, "no answer carried the mock upstream's self-description, so none could be checked"
	}
	return n, ""
}

// checkable counts the requests whose answers were held against what they should be.
func checkable(w *timeline.Window) int64 {
	return w.Class[timeline.OK] + w.Class[timeline.Status] + w.Class[timeline.Wrong] + w.Truncated
}

// peakOf is the highest value observed and the number of observations.
func peakOf(m scenario.Metric, w *timeline.Window) (v float64, samples int64, missing string) {
	switch m.Name {
	case "memory":
		for _, r := range w.Resources {
			v = max(v, float64(r.Resident), float64(r.Peak))
		}
		if len(w.Resources) == 0 {
			return 0, 0, "the system's memory was not sampled"
		}
		return v, int64(len(w.Resources)), ""
	case "claimed_open_breakers":
		for _, r := range w.Resources {
			if r.Breakers > 0 {
				v = max(v, float64(r.OpenBreakers))
				samples++
			}
		}
		if samples == 0 {
			return 0, 0, "the system told nothing of circuit breakers"
		}
		return v, samples, ""
	case "max_latency":
		if w.Requests == 0 {
			return 0, 0, noRequests(w)
		}
		return w.MaxLatency.Seconds(), w.Requests, ""
	case "upstream_amplification":
		switch {
		case !w.HaveLedger:
			return 0, 0, "the upstream's ledger was not read"
		case w.Proven == 0:
			return 0, 0, noProof
		}
		covered := w.Ledgered()
		for _, in := range covered.Intervals {
			if in.Offered > 0 {
				v = max(v, float64(in.Ledger.Requests)/float64(in.Offered))
				samples++
			}
		}
		if samples == 0 {
			return 0, 0, noRequests(w)
		}
		return v, samples, ""
	default:
		return 0, 0, notMeasured(m)
	}
}
