package compare

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"phasegate/reports/result"
)

// simulated are two revisions of which the second takes factor times as much
// CPU, in rounds that vary by noise (of a logarithm) and drift together. In one
// round of so many the machine is taken away from either of them.
func simulated(rng *rand.Rand, rounds int, factor, noise, taken float64) [][]*result.Result {
	whole := make([][]*result.Result, 2)
	drift := 0.0
	for range rounds {
		drift += 0.03 * rng.NormFloat64()
		for i := range whole {
			cpu := 0.3 * math.Exp(drift+noise*rng.NormFloat64())
			if i == 1 {
				cpu *= factor
			}
			if rng.Float64() < taken/2 {
				cpu *= math.Exp(0.2 + 0.15*rng.Float64())
			}
			draw := func(sigma float64) float64 { return math.Exp(sigma * rng.NormFloat64()) }
			whole[i] = append(whole[i], measured(map[string]float64{
				"cpu": cpu, "p50_latency": 0.0002 * draw(3*noise), "p99_latency": 0.001 * draw(8*noise), "memory": 50e6 * draw(noise),
			}))
		}
	}
	return whole
}

// decide takes looks as a comparison does, and says whether a regression was
// shown, and after how many rounds it ended.
func decide(whole [][]*result.Result, rounds int) (shown bool, ended int) {
	w := &comparison{Config: Config{Rounds: rounds, Tolerance: 0.05}, looks: looks(rounds), results: whole, out: &result.Comparison{}}
	for round := 1; round <= rounds; round++ {
		w.out.Rounds = round
		if w.look(round) {
			ended = round
			break
		}
		ended = round
	}
	r := regression(w.whole(), w.Tolerance, w.looks, ended)
	return slices.ContainsFunc(r.Metrics, func(m result.RegressionMetric) bool { return m.State == worse }), ended
}

// An unchanged revision, and one that is worse by the tolerance itself, may be
// called a regression in 5 % of comparisons, over all looks and metrics; one that is
// 10 % slower is to be found in nine of ten.
func TestRegressionCalibration(t *testing.T) {
	t.Parallel()
	const comparisons, rounds = 1000, 24
	sampling := 3 * math.Sqrt(0.05*0.95/comparisons)
	for _, c := range []struct {
		factor, noise, taken float64
		least, most          float64 // of comparisons that show a regression
	}{
		{1, 0.02, 0, 0, 0.05},
		{1, 0.08, 0, 0, 0.05},
		{1, 0.02, 0.125, 0, 0.05},
		{1.05, 0.02, 0, 0, 0.05},
		{1.05, 0.08, 0, 0, 0.05},
		{1.05, 0.02, 0.125, 0, 0.05},
		{1.10, 0.02, 0, 0.9, 1},
		{1.10, 0.02, 0.08, 0.9, 1},
		{1.25, 0.08, 0, 0.9, 1},
	} {
		t.Run(fmt.Sprintf("%g times, noise %g, taken %g", c.factor, c.noise, c.taken), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(uint64(1000*c.factor), uint64(1000*c.noise)))
			var shown, total int
			for range comparisons {
				yes, ended := decide(simulated(rng, rounds, c.factor, c.noise, c.taken), rounds)
				if yes {
					shown++
				}
				total += ended
			}
			share := float64(shown) / comparisons
			t.Logf("CPU %4.2f times, noise %2.0f %%, taken in %4.1f %% of rounds: shown in %5.1f %%, after %4.1f rounds of %d", c.factor, 100*c.noise, 100*c.taken, 100*share, float64(total)/comparisons, rounds)
			if share > c.most+sampling || share < c.least-sampling {
				t.Errorf("a regression is shown in %.3f of comparisons, want %g to %g", share, c.least, c.most)
			}
		})
	}
}

// Few rounds that lie alike on both sides are not the same in every round.
func TestAnswerFromFewRounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		after       []float64
		state, note string
	}{
		{[]float64{0.5, 1, 2, 1}, open, "no interval from 4 rounds at 99.6 %"},
		{[]float64{1, 1, 1, 1}, within, "the same in every round"},
	} {
		m := answer("memory", []float64{1, 1, 1, 1}, c.after, 0.05, 0.996)
		if m.State != c.state || m.Note != c.note || *m.Value != 1 {
			t.Errorf("%v: %s, %q; want %s, %q", c.after, m.State, m.Note, c.state, c.note)
		}
	}
}

func TestLooks(t *testing.T) {
	t.Parallel()
	for rounds, want := range map[int][]int{1: {1}, 8: {8}, 10: {10}, 12: {8, 12}, 20: {14, 20}, 24: {8, 16, 24}} {
		if got := looks(rounds); !slices.Equal(got, want) {
			t.Errorf("%d rounds are looked at after %v, want %v", rounds, got, want)
		}
	}
}

// As few rounds as are allowed show a revision that takes ten times the CPU, and
// fewer, which have no bounds, are no pass.
func TestFewestRounds(t *testing.T) {
	t.Parallel()
	for rounds, want := range map[int]result.Verdict{MinRevisionRounds: result.Fail, 5: result.Inconclusive} {
		f := &fake{answer: func(system string, round int) (*result.Result, error) {
			cpu := 0.05 + 0.001*float64(round)
			if system == "new" {
				cpu *= 10
			}
			return measured(map[string]float64{"cpu": cpu}), nil
		}}
		c := config(t, f, "old", "new")
		c.Rounds, c.Tolerance = rounds, 0.05
		if out, err := Run(t.Context(), c); err != nil || out.Verdict != want {
			t.Errorf("%d rounds: verdict %s, %v; want %s", rounds, out.Verdict, err, want)
		}
	}
}

// A revision that answers errors quickly costs less CPU, and isn't better.
func TestRegressionByGate(t *testing.T) {
	t.Parallel()
	f := &fake{answer: func(system string, _ int) (*result.Result, error) {
		res := measured(map[string]float64{"cpu": 0.3})
		if system == "new" {
			*res.Systems["new"].Metrics["cpu"] = 0.1
			res.Gates[0].Verdict, res.Gates[0].Reason, res.Verdict = result.Fail, "all of them failed", result.Fail
		}
		return res, nil
	}}
	c := config(t, f, "old", "new")
	c.Tolerance = 0.05
	out, err := Run(t.Context(), c)
	if err != nil || out.Verdict != result.Fail {
		t.Errorf("verdict %s, %v", out.Verdict, err)
	}
}

// What wasn't measured at all is no pass.
func TestRegressionWithoutFigures(t *testing.T) {
	t.Parallel()
	f := &fake{answer: func(string, int) (*result.Result, error) { return measured(nil), nil }}
	c := config(t, f, "old", "new")
	c.Tolerance = 0.05
	if out, err := Run(t.Context(), c); err != nil || out.Verdict != result.Inconclusive {
		t.Errorf("verdict %s, %v", out.Verdict, err)
	}
}

// No round of two seconds decides a share; all of them do, for both revisions,
// and what isn't a share fails in more rounds than chance explains.
func TestRevisionsPoolTheirRounds(t *testing.T) {
	t.Parallel()
	f := &fake{answer: func(system string, round int) (*result.Result, error) {
		res := measured(map[string]float64{"cpu": 0.3})
		errors, late := 0.0, result.Inconclusive
		if system == "new" {
			errors = 0.05
			if round == 1 {
				late = result.Fail
			}
		}
		res.Gates = []result.Gate{
			{Gate: "error_rate < 1%", Metric: "error_rate", Op: "<", Threshold: 0.01, System: "new", Value: &errors, Samples: 6000, Verdict: result.Inconclusive, Reason: "too short"},
			{Gate: "p95_latency < 10ms", Metric: "p95_latency", Op: "<", Threshold: 0.01, System: "new", Value: &errors, Samples: 6000, Verdict: late, Reason: "too short"},
			{Gate: "dashboard_uptime > 99.9%", Metric: "dashboard_uptime", Op: ">", Threshold: 0.999, System: "new", Verdict: result.Inconclusive, Reason: "no dashboards"},
		}
		return res, nil
	}}
	c := config(t, f, "old", "new")
	c.Rounds, c.Tolerance = 24, 0.05
	out, err := Run(t.Context(), c)
	if err != nil || out.Verdict != result.Fail {
		t.Fatalf("verdict %s, %v", out.Verdict, err)
	}
	for i, want := range []result.Verdict{result.Pass, result.Fail} {
		if cell := out.Gates[0].Cells[i]; cell.Verdict != want || !cell.Pooled {
			t.Errorf("%s: %+v, want %s by all rounds", out.Systems[i].Name, cell, want)
		}
		if cell := out.Gates[1].Cells[i]; cell.Verdict != result.Inconclusive || cell.Pooled || !strings.HasSuffix(cell.Reason, "too short") {
			t.Errorf("%s: %+v, want what the rounds say", out.Systems[i].Name, cell)
		}
		if cell := out.Gates[2].Cells[i]; cell.Pooled || cell.Reason != "no dashboards" {
			t.Errorf("%s: %+v, want nothing made of no value", out.Systems[i].Name, cell)
		}
	}
	c.Rounds, c.Tolerance, c.Out = 3, 0, t.TempDir()
	if out, err = Run(t.Context(), c); err != nil || out.Gates[0].Cells[0].Verdict != result.Inconclusive {
		t.Errorf("systems side by side: %+v, %v; want each round to stand for itself", out.Gates, err)
	}
}
