package gate

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"phasegate/harness/scenario"
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

// allowed is the share of runs in which an error of 5 % may be seen: 5 % and
// three standard errors of the simulation.
func allowed(runs int) float64 { return 0.05 + 3*math.Sqrt(0.05*0.95/float64(runs)) }

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
	const look = 65
	for _, row := range calibrated {
		g := gateOn(t, row.gate)
		runs := runsPerRow(t, 60)
		for _, f := range families {
			for _, looks := range []int{1, 3} {
				t.Run(fmt.Sprintf("%s, %s, %d looks", row.gate, f.name, looks), func(t *testing.T) {
					t.Parallel()
					rng := seeded(row.gate, f.name, looks)
					var passes, failures int
					for range runs {
						d := simulated(rng, f.series(rng, looks*look, look), 1, row.bad, f.bimodal)
						switch judgeAll(g, d, look, looks) {
						case Pass:
							passes++
						case Fail:
							failures++
						}
					}
					p, q := float64(passes)/float64(runs), float64(failures)/float64(runs)
					t.Logf("%-26s %-12s %d looks: false passes %5.2f %%, false failures %5.2f %%", row.gate, f.name, looks, 100*p, 100*q)
					if p > allowed(runs) || q > allowed(runs) {
						t.Errorf("%s, %s, %d looks: false passes %.4f, false failures %.4f of %d, want at most %.4f", row.gate, f.name, looks, p, q, runs, allowed(runs))
					}
				})
			}
		}
	}
}

// judgeAll takes looks at a run until one decides.
func judgeAll(g scenario.Gate, d Data, look, looks int) Verdict {
	for n := 1; n <= looks; n++ {
		part := d
		if n < looks {
			part = upTo(d, n*look)
		}
		if v := Judge(g, part, Look{Number: n, Planned: looks, Confidence: 0.95}).Verdict; v != Inconclusive {
			return v
		}
	}
	return Inconclusive
}
