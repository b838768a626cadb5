package gate

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
	"phasegate/harness/timeline"
)

// runsPerRow is how many runs are simulated for one row of a calibration:
// `make calibrate` sets the variable to 2,000.
func runsPerRow(t *testing.T, otherwise int) int {
	text := os.Getenv("PHASEGATE_CALIBRATE")
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 100 {
		t.Fatalf("PHASEGATE_CALIBRATE=%q: want a number of runs from 100 on", text)
	}
	return n
}

// tolerated is the share of runs in which an error of 5 % may be seen: 5 % and
// three standard errors of the simulation.
func tolerated(runs int) float64 { return 0.05 + 3*math.Sqrt(0.05*0.95/float64(runs)) }

// seeded is a source for one row of one table, the same in every run.
func seeded(row ...any) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, row...)
	return rand.New(rand.NewPCG(h.Sum64(), 17))
}

// Gates whose truth is exactly at the threshold may pass in one run of twenty,
// and fail in one of twenty, over all looks together. What is judged here is
// what a run's engine calls, and it goes on as the engine does: until the gate
// is decided, or the looks are used up.
func TestCalibration(t *testing.T) {
	t.Parallel()
	for _, row := range calibrated {
		g := gateOn(t, row.gate)
		runs := runsPerRow(t, 40)
		for _, f := range families {
			for _, l := range lengths {
				// Ten bursts don't fit into so short a look, and fewer aren't claimed; nothing
				// passes on a shorter one.
				if strings.HasPrefix(f.name, "bursts") && l.look >= stat.MinIntervals && l.look < 65 {
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, %d looks of %d", row.gate, f.name, l.looks, l.look), func(t *testing.T) {
					t.Parallel()
					rng := seeded(row.gate, f.name, l.looks, l.look)
					var passes, failures int
					for range runs {
						d := simulated(rng, f.series(rng, l.looks*l.look, l.look), 1, row.bad, f.bimodal)
						switch judgeAll(g, d, l.look, l.looks) {
						case Pass:
							passes++
						case Fail:
							failures++
						}
					}
					p, q := float64(passes)/float64(runs), float64(failures)/float64(runs)
					t.Logf("%-26s %-12s %d looks of %2d s: false passes %5.2f %%, false failures %5.2f %%", row.gate, f.name, l.looks, l.look, 100*p, 100*q)
					if p > tolerated(runs) || q > tolerated(runs) {
						t.Errorf("%s, %s, %d looks of %d s: false passes %.4f, false failures %.4f of %d, want at most %.4f", row.gate, f.name, l.looks, l.look, p, q, runs, tolerated(runs))
					}
				})
			}
		}
	}
}

// lengths are the looks that are calibrated, in intervals: the short ones from
// below what a bound takes.
var lengths = []struct{ look, looks int }{{65, 1}, {65, 3}, {2, 1}, {9, 1}, {10, 1}, {12, 1}}

// Of a drill's fault all was seen, so the claim is about what its own seconds
// were: the independent bound holds for that, however alike neighbours are. Each
// series is put to a mean of exactly 1 within its look.
func TestWholeCalibration(t *testing.T) {
	t.Parallel()
	for _, row := range calibrated[:5] {
		g := gateOn(t, row.gate)
		runs := runsPerRow(t, 40)
		for _, f := range families {
			for _, look := range []int{5, 20} {
				rng := seeded("whole", row.gate, f.name, look)
				var passes, failures int
				for range runs {
					series, sum := f.series(rng, look, look), 0.0
					for _, v := range series {
						sum += v
					}
					for i := range series {
						series[i] *= float64(look) / sum
					}
					switch verdictOf(g, simulated(rng, series, 1, row.bad, f.bimodal), Look{Whole: true}) {
					case Pass:
						passes++
					case Fail:
						failures++
					}
				}
				p, q := float64(passes)/float64(runs), float64(failures)/float64(runs)
				t.Logf("%-26s %-12s a drill of %2d s: false passes %5.2f %%, false failures %5.2f %%", row.gate, f.name, look, 100*p, 100*q)
				if p > tolerated(runs) || q > tolerated(runs) {
					t.Errorf("%s, %s, a drill of %d s: false passes %.4f, false failures %.4f of %d, want at most %.4f", row.gate, f.name, look, p, q, runs, tolerated(runs))
				}
			}
		}
	}
}

// A share of what comes in a few seconds of a long run is known from these few:
// five reconnects of 60 connections, of which one is hit by whatever made 8 fail.
func TestSparseDenominator(t *testing.T) {
	t.Parallel()
	g := gateOn(t, "negotiation_success > 95%")
	judge := func(bursts int, failures int64) Judgement {
		w := timeline.Window{Seconds: 65, HaveLedger: true, Intervals: make([]timeline.Interval, 65)}
		w.Counts = timeline.Counts{Requests: 65 * perSecond, Offered: 65 * perSecond, Proven: 65 * perSecond}
		for i := range w.Intervals {
			in := &w.Intervals[i]
			in.HaveLedger = true
			in.Counts = timeline.Counts{Requests: perSecond, Offered: perSecond, Proven: perSecond}
			if i%(60/bursts) == 0 && i/(60/bursts) < bursts {
				in.Ledger.Handshakes, in.Ledger.HandshakeFailures = 60-failures, failures
				failures = 0
				w.Ledger.Handshakes += in.Ledger.Handshakes
				w.Ledger.HandshakeFailures += in.Ledger.HandshakeFailures
			}
		}
		return Judge(g, Data{Windows: map[string]timeline.Window{scenario.New: w}}, Look{})
	}
	// Five more such seconds come in another 65, and do where none has failed.
	for failures, want := range map[int64]string{0: "need 7,800 more requests (about 65 s at 120/s)", 8: "min at 120/s)"} {
		j := judge(5, failures)
		if j.Verdict != Inconclusive || !strings.Contains(j.Reason, "there are 5") || !strings.Contains(j.Reason, want) {
			t.Errorf("%d of 300 handshakes failed, in 5 bursts: %s, want inconclusive with %q: %s", failures, j.Verdict, want, j.Reason)
		}
		consistent(t, g, j)
	}
	if j := judge(12, 0); j.Verdict != Pass {
		t.Errorf("12 bursts without a failure: %s: %s", j.Verdict, j.Reason)
	}
	if j := judge(12, 8); j.Verdict == Pass {
		t.Error("8 failures in one of 12 bursts pass")
	}
}

// judgeAll takes looks at a run until one decides.
func judgeAll(g scenario.Gate, d Data, look, looks int) Verdict {
	for n := 1; n <= looks; n++ {
		part := d
		if n < looks {
			part = upTo(d, n*look)
		}
		if v := verdictOf(g, part, Look{Number: n, Planned: looks, Confidence: 0.95}); v != Inconclusive {
			return v
		}
	}
	return Inconclusive
}

// verdictOf is that of Judge, which here needn't work out what else is needed.
func verdictOf(g scenario.Gate, d Data, look Look) Verdict {
	c := newClaim(g, d, look)
	c.hasty = true
	return c.verdict(look).Verdict
}

// advised is what an inconclusive judgement says it needs.
var advised = regexp.MustCompile(`need ([0-9,]+) more requests \(about `)

// "Need n more requests" is a promise: a run that goes on for that much longer,
// as it was, decides. It goes on here by its own intervals back and forth, as
// often as it takes, so that the share stays what it is.
func TestAdviceDecides(t *testing.T) {
	t.Parallel()
	const runs, longest = 15, 20_000
	for _, row := range calibrated {
		g := gateOn(t, row.gate)
		rng := seeded("more", row.gate)
		tried := 0
		for run := range runs {
			length := []int{4, 8, 10, 30}[run%4] // the first two decide nothing
			level := []float64{0.75, 0.85, 0.95}[run%3]
			d := simulated(rng, even(rng, length, length), level, row.bad, true)
			j := Judge(g, d, Look{})
			if j.Verdict != Inconclusive {
				continue
			}
			m := advised.FindStringSubmatch(j.Reason)
			if m == nil {
				if !strings.Contains(j.Reason, "so close to the threshold") {
					t.Errorf("%s, run %d: no advice: %s", row.gate, run, j.Reason)
				}
				continue
			}
			more, err := strconv.Atoi(strings.ReplaceAll(m[1], ",", ""))
			if err != nil || more > longest {
				continue // so close to the threshold that simulating it takes long
			}
			tried++
			again := int(math.Ceil(float64(more) / perSecond))
			if j := Judge(g, goneOn(d, length+again), Look{}); j.Verdict == Inconclusive {
				t.Errorf("%s, run %d: %d more requests, and still %s", row.gate, run, more, j.Reason)
			}
		}
		if tried == 0 {
			t.Errorf("%s: no run of %d was inconclusive", row.gate, runs)
		}
	}
}

// What the advice is worth if the run doesn't go on as it was, but as the system
// is: whatever comes next is drawn anew. More than half of the runs decide, since
// what was seen is as likely to be better than the truth as to be worse.
func TestAdviceHolds(t *testing.T) {
	t.Parallel()
	const length, longest = 30, 4000
	runs := min(runsPerRow(t, 60), 400)
	for _, row := range calibrated {
		g, rng := gateOn(t, row.gate), seeded("anew", row.gate)
		var tried, decided int
		for run := range runs {
			level := []float64{0.5, 0.75, 1.5}[run%3]
			d := simulated(rng, even(rng, length, length), level, row.bad, true)
			j := Judge(g, d, Look{})
			m := advised.FindStringSubmatch(j.Reason)
			if j.Verdict != Inconclusive || m == nil {
				continue
			}
			more, err := strconv.Atoi(strings.ReplaceAll(m[1], ",", ""))
			again := int(math.Ceil(float64(more) / perSecond))
			if err != nil || again > longest {
				continue
			}
			tried++
			next := simulated(rng, even(rng, again, again), level, row.bad, true)
			if Judge(g, followedBy(d, next), Look{}).Verdict != Inconclusive {
				decided++
			}
		}
		t.Logf("%-26s advice: %d of %d inconclusive runs decide after it", row.gate, decided, tried)
		if 2*decided < tried {
			t.Errorf("%s: %d of %d runs decide after what was said", row.gate, decided, tried)
		}
	}
}

// followedBy is a run that goes on with another.
func followedBy(d, next Data) Data {
	long, length := Data{Windows: map[string]timeline.Window{}}, 0
	for name, w := range d.Windows {
		n := next.Windows[name]
		w.Intervals = append(w.Intervals[:len(w.Intervals):len(w.Intervals)], n.Intervals...)
		w.Resources = append(w.Resources[:len(w.Resources):len(w.Resources)], n.Resources...)
		long.Windows[name], length = w, len(w.Intervals)
	}
	return upTo(long, length)
}

// goneOn is a run that goes on as it was, back and forth, to so many intervals.
func goneOn(d Data, intervals int) Data {
	long := Data{Windows: map[string]timeline.Window{}}
	for name, w := range d.Windows {
		w.Intervals = fold(w.Intervals, intervals)
		if w.Resources != nil {
			w.Resources = fold(w.Resources, intervals)
		}
		long.Windows[name] = w
	}
	return upTo(long, intervals)
}

// How many intervals of 120 requests it takes until half of what is allowed is
// seen as such, in nine runs of ten. Drifts and waves are as long as the run;
// bursts last as they do in one of 65 intervals, and a longer run meets more.
func TestPower(t *testing.T) {
	t.Parallel()
	const runs = 20
	tried := families
	if os.Getenv("PHASEGATE_CALIBRATE") == "" {
		tried = families[:2]
	}
	for _, row := range calibrated {
		g := gateOn(t, row.gate)
		for _, f := range tried {
			if f.name == "one change" {
				continue // whoever is good and then bad isn't to pass, as long as that is most of the run
			}
			rng := seeded("power", row.gate, f.name)
			decided := 0
			for _, length := range []int{10, 20, 30, 45, 65, 100, 150, 250, 400} {
				passes, span := 0, length
				if strings.HasPrefix(f.name, "bursts") {
					span = 65
				}
				for range runs {
					d := simulated(rng, f.series(rng, length, span), 0.5, row.bad, f.bimodal)
					if verdictOf(g, d, Look{}) == Pass {
						passes++
					}
				}
				if passes >= runs*9/10 {
					decided = length
					break
				}
			}
			t.Logf("%-26s %-12s at half of the threshold: %6d requests, %3d s, decide nine runs of ten", row.gate, f.name, decided*perSecond, decided)
			if decided == 0 {
				t.Errorf("%s, %s: 400 s don't show half of what is allowed", row.gate, f.name)
			}
		}
	}
}

// How often a run fails that changed its level once, by how much it spent of
// its allowance. Two levels that nine tenths of its intervals' variance come from
// are told from chance within them: those rows fail as soon as their sum does.
func TestChangePower(t *testing.T) {
	t.Parallel()
	const look = 65
	runs := min(runsPerRow(t, 40), 400)
	for _, row := range calibrated {
		g, line := gateOn(t, row.gate), fmt.Sprintf("%-26s one change   fails at", row.gate)
		for _, level := range []float64{1.2, 1.5, 2} {
			rng, failures := seeded("change", row.gate, level), 0
			for range runs {
				if verdictOf(g, simulated(rng, change(rng, look, look), level, row.bad, false), Look{}) == Fail {
					failures++
				}
			}
			line += fmt.Sprintf("  %g×: %3d %%", level, 100*failures/runs)
			// Where counting adds little to two levels.
			plain := strings.HasPrefix(row.gate, "cache_hit") || strings.HasPrefix(row.gate, "mean") || strings.HasPrefix(row.gate, "cpu")
			if plain && level > 1.2 && failures < runs*9/10 {
				t.Errorf("%s: %d of %d runs fail that are %g times as bad as allowed", row.gate, failures, runs, level)
			}
		}
		t.Log(line)
	}
}
