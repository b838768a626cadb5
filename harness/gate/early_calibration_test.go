package gate

import (
	"fmt"
	"math"
	"testing"
	"time"

	"phasegate/harness/scenario"
)

// watched looks at a run every step intervals, until a look decides it or the
// watch is certain of a failure: how the engine does with abort: on_failure. It
// returns the verdict, and after how many intervals the run was stopped, 0 if it
// wasn't.
func watched(g scenario.Gate, d Data, look, looks, step int) (v Verdict, stopped int) {
	for at := step; at <= looks*look; at += step {
		number := (at + look - 1) / look
		part := upTo(d, at)
		early := Early{
			After: time.Duration(at) * time.Second, Intervals: number * look,
			Remaining: map[string]float64{scenario.New: float64(number*look-at) * perSecond},
			Watch:     true,
		}
		l := Look{Number: number, Planned: looks, Confidence: 0.95, Watched: true}
		if _, certain := JudgeEarly(g, part, l, early); certain {
			return Fail, at
		}
		if at%look == 0 {
			if v := verdictOf(g, part, l); v != Inconclusive {
				return v, 0
			}
		}
	}
	return Inconclusive, 0
}

// What would have stopped a run at some second still does at the look: so a
// calibration that looks once sees every stop of a watch that looks each second.
func TestEarlyRemembers(t *testing.T) {
	t.Parallel()
	const look = 65
	g, rng := gateOn(t, "p95_latency < 10ms"), seeded("remembers")
	stops := 0
	for run := range 30 {
		// A second half without any fault would make up for the first, if it could.
		f := even(rng, look, look)
		for i := range f {
			f[i] = 0.01
			if i < 32 {
				f[i] = 1.5 + 0.06*float64(run)
			}
		}
		d := simulated(rng, f, 1, 0.05, false)
		_, each := watched(g, d, look, 1, 1)
		_, once := watched(g, d, look, 1, look)
		if each > 0 != (once > 0) {
			t.Errorf("run %d: stopped after %d looking each second, after %d looking once", run, each, once)
		}
		if each > 0 {
			stops++
		}
	}
	if stops == 0 || stops == 30 {
		t.Errorf("%d of 30 runs were stopped, so nothing was tried", stops)
	}
}

// A watch that looks every second stops no more runs at the threshold than the
// half of the error budget allows that is its own; and with the looks it fails
// no more than all of it.
func TestEarlyCalibration(t *testing.T) {
	t.Parallel()
	runs := runsPerRow(t, 40)
	for _, row := range calibrated[:5] {
		g := gateOn(t, row.gate)
		for _, f := range families {
			for _, l := range []struct{ look, looks int }{{65, 1}, {65, 3}, {9, 1}} {
				look, looks := l.look, l.looks
				t.Run(fmt.Sprintf("%s, %s, %d looks of %d", row.gate, f.name, looks, look), func(t *testing.T) {
					t.Parallel()
					rng := seeded("early", row.gate, f.name, looks, look)
					var passes, failures, stops int
					for range runs {
						d := simulated(rng, f.series(rng, looks*look, look), 1, row.bad, f.bimodal)
						switch v, stopped := watched(g, d, look, looks, look); {
						case stopped > 0:
							stops++
							failures++
						case v == Fail:
							failures++
						case v == Pass:
							passes++
						}
					}
					share := func(n int) float64 { return float64(n) / float64(runs) }
					t.Logf("%-26s %-12s %d looks of %2d s: false stops %5.2f %%, false failures with them %5.2f %%, false passes %5.2f %%",
						row.gate, f.name, looks, look, 100*share(stops), 100*share(failures), 100*share(passes))
					own := 0.025 + 3*math.Sqrt(0.025*0.975/float64(runs))
					if share(stops) > own || share(failures) > tolerated(runs) || share(passes) > tolerated(runs) {
						t.Errorf("%s, %s, %d looks of %2d s: false stops %.4f, failures %.4f, passes %.4f of %d runs, want at most %.4f, %.4f, %.4f",
							row.gate, f.name, looks, look, share(stops), share(failures), share(passes), runs, own, tolerated(runs), tolerated(runs))
					}
				})
			}
		}
	}
}

// How soon a watch stops a run that is bad throughout, by how much too many
// requests are.
func TestEarlyPower(t *testing.T) {
	t.Parallel()
	const look = 65
	runs := min(runsPerRow(t, 8), 40)
	for _, row := range calibrated[:5] {
		g := gateOn(t, row.gate)
		for _, f := range []family{families[0], families[1], families[5]} {
			line := fmt.Sprintf("%-26s %-12s stopped after", row.gate, f.name)
			for _, level := range []float64{2, 4, 20} {
				rng := seeded("power", row.gate, f.name, level)
				var sum, stops int
				for range runs {
					d := simulated(rng, f.series(rng, look, look), level, row.bad, f.bimodal)
					if _, at := watched(g, d, look, 1, 1); at > 0 {
						sum, stops = sum+at, stops+1
					}
				}
				line += fmt.Sprintf("  %g×: %2d s (%3d %%)", level, sum/max(stops, 1), 100*stops/runs)
				// Twenty times too many are too many in a third of the run, at the latest.
				if level == 20 && (stops < runs || sum/runs > look/3) {
					t.Errorf("%s, %s, %g times as bad as allowed: %d of %d stopped, after %d of %d s", row.gate, f.name, level, stops, runs, sum/max(stops, 1), look)
				}
			}
			t.Log(line)
		}
	}
}
