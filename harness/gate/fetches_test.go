package gate

import (
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
)

// fetches is a window of as many equal seconds with these counts each.
func fetches(seconds int, c timeline.Counts, l timeline.LedgerCounts) timeline.Window {
	w := timeline.Window{HaveLedger: true, Seconds: float64(seconds), To: time.Duration(seconds) * time.Second}
	for s := range seconds {
		at := time.Duration(s) * time.Second
		w.Intervals = append(w.Intervals, timeline.Interval{Start: at, End: at + time.Second, Counts: c, Ledger: l, HaveLedger: true})
	}
	n := int64(seconds)
	w.Counts = timeline.Counts{
		Offered: n * c.Offered, Requests: n * c.Requests, Proven: n * c.Proven, Cacheable: n * c.Cacheable, CacheableProven: n * c.CacheableProven,
		ClaimHit: n * c.ClaimHit, ClaimMiss: n * c.ClaimMiss, WrongAge: n * c.WrongAge,
	}
	w.Counts.Class[timeline.OK] = w.Requests
	return w
}

func TestFetches(t *testing.T) {
	t.Parallel()
	const rate = 1000
	counts := func(hit, miss int64) timeline.Counts {
		return timeline.Counts{Offered: rate, Requests: rate, Proven: rate, Cacheable: rate, CacheableProven: rate, ClaimHit: hit, ClaimMiss: miss}
	}
	reads := func(reads, conditional, duplicates int64) timeline.LedgerCounts {
		return timeline.LedgerCounts{Requests: reads, Reads: reads, Conditional: conditional, Duplicates: duplicates}
	}
	for _, tt := range []struct {
		why, gate string
		c         timeline.Counts
		l         timeline.LedgerCounts
		verdict   Verdict
		value     float64
	}{
		{"every fetch is claimed as a miss", "false_hit_ratio < 2%", counts(900, 100), reads(100, 0, 0), Pass, 0},
		{"fewer are, since some wait for another's fetch", "false_hit_ratio < 2%", counts(800, 200), reads(100, 0, 0), Pass, 0},
		{"hits claimed and fetched", "false_hit_ratio < 2%", counts(1000, 0), reads(100, 0, 0), Fail, 0.1},
		{"a refresh in the background has nobody who waited", "false_hit_ratio < 2%", counts(1000, 0), reads(100, 100, 0), Pass, 0},
		{"no claim is no lie", "false_hit_ratio < 2%", counts(500, 0), reads(500, 0, 0), Pass, 0},
		{"nobody claims anything", "false_hit_ratio < 2%", counts(0, 0), reads(500, 0, 0), Inconclusive, 0},
		{"requests are collapsed", "duplicate_fetches < 0.5%", counts(900, 100), reads(100, 0, 0), Pass, 0},
		{"and aren't", "duplicate_fetches < 0.5%", counts(900, 100), reads(100, 0, 2), Fail, 0.02},
		{"all hits: nothing was fetched", "duplicate_fetches < 0.5%", counts(1000, 0), reads(0, 0, 0), Inconclusive, 0},
		{"fewer upstream requests than requests", "upstream_amplification < 1.5x", counts(900, 100), reads(100, 0, 0), Pass, 0.1},
		{"three tries for each", "upstream_amplification < 1.5x", counts(0, 1000), reads(3000, 0, 0), Fail, 3},
	} {
		g := gateOn(t, tt.gate)
		j := Judge(g, Data{Windows: map[string]timeline.Window{scenario.New: fetches(12, tt.c, tt.l)}}, Look{})
		if j.Verdict != tt.verdict || j.Verdict != Inconclusive && *j.Value != tt.value {
			t.Errorf("%s: %s: %s, %v, %s", tt.why, tt.gate, j.Verdict, j.Value, j.Reason)
		}
	}
}

// The most breakers that were open at once, as far as the system told of any.
func TestOpenBreakersAsClaimed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why, gate string
		usage     []timeline.Usage
		verdict   Verdict
		value     float64
	}{
		{"one opened in between", "claimed_open_breakers >= 1", []timeline.Usage{{Breakers: 1}, {Breakers: 1, OpenBreakers: 1}, {Breakers: 1}}, Pass, 1},
		{"one opened and mustn't", "claimed_open_breakers <= 0", []timeline.Usage{{Breakers: 1}, {Breakers: 1, OpenBreakers: 1}, {Breakers: 1}}, Fail, 1},
		{"none opened and one must", "claimed_open_breakers >= 1", []timeline.Usage{{Breakers: 1}, {}}, Fail, 0},
		{"none opened", "claimed_open_breakers <= 0", []timeline.Usage{{Breakers: 2}}, Pass, 0},
		{"silence says nothing", "claimed_open_breakers <= 0", []timeline.Usage{{Resident: 1}}, Inconclusive, 0},
		{"nor does what wasn't sampled", "claimed_open_breakers <= 0", nil, Inconclusive, 0},
	} {
		var w timeline.Window
		for _, u := range tt.usage {
			w.Resources = append(w.Resources, timeline.Sample{Usage: u})
		}
		j := Judge(gateOn(t, tt.gate), Data{Windows: map[string]timeline.Window{scenario.New: w}}, Look{})
		if j.Verdict != tt.verdict || j.Verdict != Inconclusive && *j.Value != tt.value {
			t.Errorf("%s: %s, %v, %s", tt.why, j.Verdict, j.Value, j.Reason)
		}
	}
}

// One answer with a wrong age is enough, and none says nothing without proof.
func TestWrongAgeCounts(t *testing.T) {
	t.Parallel()
	judge := func(w timeline.Window) Judgement {
		return Judge(gateOn(t, "wrong_age <= 0"), Data{Windows: map[string]timeline.Window{scenario.New: w}}, Look{})
	}
	c := timeline.Counts{Offered: 10, Requests: 10, Proven: 10}
	if j := judge(fetches(2, c, timeline.LedgerCounts{})); j.Verdict != Pass {
		t.Errorf("none: %+v", j)
	}
	c.WrongAge = 1
	if j := judge(fetches(2, c, timeline.LedgerCounts{})); j.Verdict != Fail || *j.Value != 2 {
		t.Errorf("two: %+v", j)
	}
	c.WrongAge, c.Proven = 0, 0
	if j := judge(fetches(2, c, timeline.LedgerCounts{})); j.Verdict != Inconclusive || !strings.Contains(j.Reason, "self-description") {
		t.Errorf("without proof: %+v", j)
	}
}
