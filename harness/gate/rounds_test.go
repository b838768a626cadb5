package gate

import (
	"strings"
	"testing"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
)

func TestJudgeRounds(t *testing.T) {
	t.Parallel()
	alike := func(rounds int, k, n float64) (list []stat.Count) {
		for range rounds {
			list = append(list, stat.Count{K: k, N: n})
		}
		return list
	}
	for _, tt := range []struct {
		why, gate string
		rounds    []stat.Count
		verdict   Verdict
		reason    string
	}{
		{"clean and enough", "error_rate < 1%", alike(8, 0, 6000), Pass, "error_rate is 0 % (0 of 48,000 requests) in 8 rounds together"},
		{"hits", "cache_hit_ratio > 90%", alike(8, 5900, 6000), Pass, "between"},
		{"misses", "cache_hit_ratio > 90%", alike(8, 4000, 6000), Fail, "the gate asks for > 90 %"},
		{"seven rounds may have met no burst", "error_rate < 1%", alike(7, 0, 6000), Inconclusive, "a bound needs at least 8, so need 1 more rounds"},
		{"one bad round in eight may be two in the next", "error_rate < 1%", append(alike(7, 0, 6000), stat.Count{K: 400, N: 6000}), Inconclusive, "independent ones"},
		{"rounds without a sample are none", "cache_hit_ratio > 90%", append(alike(2, 5900, 6000), alike(6, 0, 0)...), Inconclusive, "in 2 rounds"},
		{"nothing at all", "cache_hit_ratio > 90%", nil, Inconclusive, "in 0 rounds"},
	} {
		v, reason := JudgeRounds(condition(t, tt.gate), tt.rounds, Look{Planned: 3})
		if v != tt.verdict || !strings.Contains(reason, tt.reason) {
			t.Errorf("%s: %s, want %s with %q: %s", tt.why, v, tt.verdict, tt.reason, reason)
		}
	}
}

// Rounds of two seconds, each of which starts afresh, at the threshold.
func TestRoundsCalibration(t *testing.T) {
	t.Parallel()
	const length = 2
	runs := runsPerRow(t, 100)
	for _, row := range calibrated[:3] {
		g := gateOn(t, row.gate)
		for _, f := range families[:6] { // what is longer than a round differs by round
			for _, rounds := range []int{leastRounds, 24} {
				rng := seeded("rounds", row.gate, f.name, rounds)
				var passes, failures int
				for range runs {
					var counts []stat.Count
					for range rounds {
						d := simulated(rng, f.series(rng, length, 65)[:length], 1, row.bad, f.bimodal)
						w := d.Windows[scenario.New]
						tally, missing := tallyOf(g.Metric, &w)
						if missing != "" {
							t.Fatal(missing)
						}
						counts = append(counts, stat.Count{K: tally.k, N: tally.n})
					}
					switch v, _ := JudgeRounds(g.Condition, counts, Look{}); v {
					case Pass:
						passes++
					case Fail:
						failures++
					}
				}
				p, q := float64(passes)/float64(runs), float64(failures)/float64(runs)
				t.Logf("%-26s %-12s %2d rounds of %d s: false passes %5.2f %%, false failures %5.2f %%", row.gate, f.name, rounds, length, 100*p, 100*q)
				if p > tolerated(runs) || q > tolerated(runs) {
					t.Errorf("%s, %s, %d rounds: false passes %.4f, false failures %.4f of %d, want at most %.4f", row.gate, f.name, rounds, p, q, runs, tolerated(runs))
				}
			}
		}
	}
}
