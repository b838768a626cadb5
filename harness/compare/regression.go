package compare

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"phasegate/harness/stat"
	"phasegate/reports/result"
)

// judged are the metrics by which a revision is said to be worse. CPU time per
// request is the steadiest of them on a machine shared with others.
var judged = []string{cpuPerRequest, "p50_latency", "p99_latency", "memory"}

const (
	maxError  = 0.05 // of calling an unchanged revision a regression, all looks and metrics together
	power     = 0.9
	mostLooks = 3
	// MinRevisionRounds is how many rounds a comparison of revisions needs: at the level
	// of a look, fewer leave signed ranks without any bound (2^-8 < 0.05/12 < 2^-7).
	MinRevisionRounds = 8
)

// looks are the rounds after which a regression is looked for: the last one,
// and earlier ones that leave it time to be seen sooner. Each look is taken at
// a level of its share of the error (Bonferroni), so that looking often isn't paid for in
// false alarms.
func looks(rounds int) []int {
	var at []int
	for i := 1; i <= mostLooks; i++ {
		if r := int(math.Ceil(float64(rounds*i) / mostLooks)); r >= MinRevisionRounds || r == rounds {
			at = append(at, r)
		}
	}
	return slices.Compact(at)
}

// look reports whether a round is one after which the comparison of two
// revisions ends early: a regression is shown, or the steadiest metric lies
// within the tolerance. Waiting for the least steady one would be waiting for the end,
// and its figure says what it could have seen.
func (w *comparison) look(round int) bool {
	if !slices.Contains(w.looks, round) || round == w.Rounds {
		return false
	}
	r := regression(w.whole(), w.Tolerance, w.looks, round)
	return r.Metrics[0].State == within ||
		slices.ContainsFunc(r.Metrics, func(m result.RegressionMetric) bool { return m.State == worse })
}

// The answers by one metric.
const (
	worse  = "regression" // the whole interval lies beyond the tolerance
	within = "within"     // the whole interval lies within it
	open   = "open"       // neither
)

// regression asks each judged metric whether the second system is worse than
// the first.
func regression(whole [][]*result.Result, tolerance float64, looks []int, round int) *result.Regression {
	out := &result.Regression{Tolerance: tolerance, Looks: len(looks)}
	for _, at := range looks {
		if at <= round {
			out.Looked++
		}
	}
	out.Level = 1 - maxError/float64(len(looks)*len(judged))
	for _, name := range judged {
		out.Metrics = append(out.Metrics, answer(name, values(whole[0], name), values(whole[1], name), tolerance, out.Level))
	}
	return out
}

func answer(name string, before, after []float64, tolerance, level float64) result.RegressionMetric {
	m := result.RegressionMetric{Metric: name, State: open}
	var ratios []float64
	for i := range before {
		if before[i] > 0 && after[i] > 0 {
			ratios = append(ratios, math.Log(after[i])-math.Log(before[i]))
		}
	}
	if len(ratios) == 0 {
		m.Note = "not measured"
		return m
	}
	e, ok := stat.Pseudomedian(ratios, level)
	m.Bounds = exponential(bounds(len(ratios), e, ok))
	same := !slices.ContainsFunc(ratios, func(r float64) bool { return r != ratios[0] })
	if !e.Bounded && !same {
		m.Note = fmt.Sprintf("no interval from %d rounds at %.3g %%", len(ratios), 100*level)
	}
	limit := math.Log(1 + tolerance)
	switch {
	case same && len(ratios) >= stat.MinRounds && e.Value == 0:
		m.State = within // to the last digit
	case !e.Bounded:
	case e.Low > limit:
		m.State = worse
	case e.High < limit:
		m.State = within
	}
	if e.Bounded {
		factor := math.Exp(limit + e.Detectable(len(ratios), level, power))
		m.Detectable = &factor
	}
	return m
}

// regressed is the verdict on a revision: a fail if a metric shows it, or if it
// fails a gate that the other one doesn't.
func regressed(out *result.Comparison) result.Verdict {
	for _, m := range out.Regression.Metrics {
		if m.State == worse {
			return result.Fail
		}
	}
	for _, g := range out.Gates {
		if g.Cells[1].Verdict == result.Fail && g.Cells[0].Verdict != result.Fail {
			out.Notices = append(out.Notices, fmt.Sprintf("%s fails the gate %s, which %s doesn't: %s", out.Systems[1].Name, g.Gate, out.Systems[0].Name, g.Cells[1].Reason))
			return result.Fail
		}
	}
	if !slices.ContainsFunc(out.Regression.Metrics, func(m result.RegressionMetric) bool { return m.Low != nil || m.State == within }) {
		return result.Inconclusive // nothing could have been seen
	}
	return result.Pass
}

// sameFile reports whether two programs are the same, byte by byte.
func sameFile(a, b string) bool {
	x, errX := sum(a)
	y, errY := sum(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func sum(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}
