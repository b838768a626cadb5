package compare

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"phasegate/harness/gate"
	"phasegate/harness/scenario"
	"phasegate/harness/stat"
	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// level is the confidence of the two-sided intervals, and bound that of each of
// their ends.
const (
	level = 0.95
	bound = (1 + level) / 2
)

// cpuPerRequest is the CPU time of the system's process tree in the steady
// state over the requests that ended in it, in seconds: the steadiest measure of
// what a request costs, since waiting for others doesn't count.
const cpuPerRequest = "cpu_per_request"

// metricsOf are a run's metrics of its new system, and what follows from them.
func metricsOf(res *result.Result) map[string]*float64 {
	s := res.Systems[scenario.New]
	cpus := s.CPUs
	if cpus == 0 {
		cpus = float64(res.Environment.CPUs)
	}
	out := maps.Clone(s.Metrics)
	if out == nil {
		out = map[string]*float64{}
	}
	from, to := steady(res)
	if cpu := out["cpu"]; cpu != nil && s.Requests > 0 && to > from {
		v := *cpu * cpus * (to - from) / float64(s.Requests)
		out[cpuPerRequest] = &v
	}
	return out
}

// steady is where the steady state begins and ends, in seconds.
func steady(res *result.Result) (from, to float64) {
	for _, m := range res.Marks {
		if m.Name == "steady" {
			return m.From, m.To
		}
	}
	return 0, 0
}

// describe says what a system is and what its runs had to say.
func describe(s *result.ComparedSystem, runs []*result.Result) {
	s.Errors, s.Missing = map[string]int64{}, map[string]string{}
	type seen struct {
		text string
		runs int
	}
	var notices []*seen
	for _, res := range runs {
		arm := res.Systems[scenario.New]
		if arm.Kind != "" {
			s.Kind, s.Version = arm.Kind, arm.Version
		}
		if s.Command == nil {
			s.Command = arm.Command
		}
		for class, n := range arm.Errors {
			s.Errors[class] += n
		}
		for metric, why := range arm.Missing {
			if s.Missing[metric] == "" {
				s.Missing[metric] = why
			}
		}
		for _, n := range res.Notices {
			i := slices.IndexFunc(notices, func(o *seen) bool { return shapeOf(o.text) == shapeOf(n) })
			if i < 0 {
				notices = append(notices, &seen{n, 1})
			} else {
				notices[i].runs++
			}
		}
	}
	for _, n := range notices {
		text := n.text
		if n.runs < len(runs) {
			text = fmt.Sprintf("%s (so or alike in %d of %d runs)", text, n.runs, len(runs))
		}
		s.Notices = append(s.Notices, text)
	}
}

// shareNotices says once what every system's runs say alike.
func shareNotices(out *result.Comparison) {
	for _, n := range slices.Clone(out.Systems[0].Notices) {
		if slices.ContainsFunc(out.Systems, func(o result.ComparedSystem) bool { return !slices.Contains(o.Notices, n) }) {
			continue
		}
		out.Notices = append(out.Notices, n)
		for i := range out.Systems {
			s := &out.Systems[i]
			s.Notices = slices.DeleteFunc(s.Notices, func(t string) bool { return t == n })
		}
	}
}

var numbers = regexp.MustCompile(`[0-9][0-9.,]*`)

// shapeOf is a notice without its figures: the same thing said of two runs.
func shapeOf(notice string) string { return numbers.ReplaceAllString(notice, "#") }

// values are a metric's of one system, by round; NaN where it has none.
func values(runs []*result.Result, metric string) []float64 {
	out := make([]float64, len(runs))
	for i, res := range runs {
		out[i] = math.NaN()
		if v := metricsOf(res)[metric]; v != nil {
			out[i] = *v
		}
	}
	return out
}

// metrics compares every metric that some system has.
func metrics(systems []result.ComparedSystem, whole [][]*result.Result) []result.ComparedMetric {
	names := map[string]bool{}
	for _, runs := range whole {
		for _, res := range runs {
			for name, v := range metricsOf(res) {
				if v != nil {
					names[name] = true
				}
			}
		}
	}
	sorted := slices.SortedFunc(maps.Keys(names), func(a, b string) int {
		_, i := unit.Of(a)
		_, j := unit.Of(b)
		return cmp.Or(cmp.Compare(i, j), strings.Compare(a, b))
	})
	var out []result.ComparedMetric
	for _, name := range sorted {
		m, _ := unit.Of(name)
		row := result.ComparedMetric{Metric: name, Unit: m.Unit}
		first := values(whole[0], name)
		for i, s := range systems {
			own := values(whole[i], name)
			v := result.ComparedValue{System: s.Name, Rounds: len(finite(own)), Bounds: estimate(finite(own), m.Unit)}
			if why := s.Missing[name]; v.Value == nil && why != "" {
				v.Note = why
			}
			if i > 0 && v.Value != nil {
				v.Relative, v.Difference = relative(own, first)
			}
			row.Values = append(row.Values, v)
		}
		out = append(out, row)
	}
	return out
}

func finite(list []float64) []float64 {
	return slices.DeleteFunc(slices.Clone(list), math.IsNaN)
}

// estimate is the mean of a metric over rounds. What can only be positive and
// has no upper end is taken by its logarithm: a round that is slow is so by a
// factor.
func estimate(values []float64, u string) result.Bounds {
	scaled := u != "share" && u != "count" && u != "B/h" && positive(values)
	if scaled {
		values = logs(values)
	}
	e, ok := stat.Rounds(values, bound)
	b := bounds(len(values), e, ok)
	if scaled {
		return exponential(b)
	}
	if u == "share" && b.Low != nil {
		*b.Low, *b.High = max(*b.Low, 0), min(*b.High, 1)
	}
	return b
}

// relative compares with the first system, round by round: as a ratio where
// every value is positive, else as a difference.
func relative(own, first []float64) (b *result.Bounds, difference bool) {
	var x, y []float64
	for i := range min(len(own), len(first)) {
		if !math.IsNaN(own[i]) && !math.IsNaN(first[i]) {
			x, y = append(x, own[i]), append(y, first[i])
		}
	}
	if len(x) == 0 {
		return nil, false
	}
	scaled := positive(x) && positive(y)
	if scaled {
		x, y = logs(x), logs(y)
	}
	for i := range x {
		x[i] -= y[i]
	}
	e, ok := stat.Rounds(x, bound)
	out := bounds(len(x), e, ok)
	if scaled {
		out = exponential(out)
	}
	return &out, !scaled
}

func positive(values []float64) bool {
	return !slices.ContainsFunc(values, func(v float64) bool { return !(v > 0) })
}

func logs(values []float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = math.Log(v)
	}
	return out
}

func exponential(b result.Bounds) result.Bounds {
	for _, p := range []*float64{b.Value, b.Low, b.High} {
		if p != nil {
			*p = math.Exp(*p)
		}
	}
	return b
}

// bounds is an estimate of n rounds as it is written.
func bounds(n int, e stat.Estimate, ok bool) result.Bounds {
	switch {
	case !ok:
		return result.Bounds{Note: "not measured"}
	case !e.Bounded && n >= stat.MinRounds:
		return result.Bounds{Value: &e.Value, Note: "the same in every round"}
	case !e.Bounded:
		return result.Bounds{Value: &e.Value, Note: fmt.Sprintf("no interval from fewer than %d rounds", stat.MinRounds)}
	}
	return result.Bounds{Value: &e.Value, Low: &e.Low, High: &e.High}
}

// gates lays every gate of the scenario beside the systems. With a look they are
// two revisions; without one each round stands for itself.
func gates(systems []result.ComparedSystem, whole [][]*result.Result, look *gate.Look) []result.ComparedGate {
	var out []result.ComparedGate
	for i := range systems {
		for _, res := range whole[i] {
			for _, g := range res.Gates {
				at := slices.IndexFunc(out, func(o result.ComparedGate) bool { return o.Gate == g.Gate && o.System == g.System })
				if at < 0 {
					at = len(out)
					row := result.ComparedGate{Gate: g.Gate, Metric: g.Metric, System: g.System, Implied: g.Implied}
					for _, s := range systems {
						row.Cells = append(row.Cells, result.ComparedByGate{System: s.Name})
					}
					out = append(out, row)
				}
				cell := &out[at].Cells[i]
				cell.Rounds = append(cell.Rounds, g.Verdict)
				if cell.Reason == "" && g.Verdict != result.Pass {
					cell.Reason = g.Reason
				}
			}
		}
	}
	for i := range out {
		for j := range out[i].Cells {
			cell := &out[i].Cells[j]
			// A gate on unexpected exits stands only where there was one.
			for out[i].Implied && len(cell.Rounds) < len(whole[j]) {
				cell.Rounds = append(cell.Rounds, result.Pass)
			}
			if cell.Verdict = together(cell.Rounds); look != nil {
				ofRevision(cell, out[i], whole[j], *look)
			}
		}
	}
	return out
}

// ofRevision judges a revision's gate by its many short rounds. At the threshold
// one round in twenty fails, so among 24 some do: a share is judged by all rounds
// together, if they saw it, and other estimates fail only in more rounds than chance
// explains. What is counted in full fails by one, and so does the peak of memory.
func ofRevision(cell *result.ComparedByGate, row result.ComparedGate, runs []*result.Result, look gate.Look) {
	switch metric, known := scenario.Lookup(row.Metric); {
	case !known || metric.Estimator == scenario.ByCount || metric.Name == "memory":
	case metric.Estimator == scenario.ByShare && pool(cell, row, runs, look):
	case cell.Verdict == result.Fail:
		failed := 0
		for _, v := range cell.Rounds {
			if v == result.Fail {
				failed++
			}
		}
		if by := 1 - look.Confidence; stat.Lower(float64(failed), float64(len(cell.Rounds)), 1-by/float64(look.Planned)) <= by {
			cell.Verdict = result.Inconclusive
			cell.Reason = fmt.Sprintf("failed in %d of %d rounds, which happens by chance at the threshold; in one of them, %s", failed, len(cell.Rounds), cell.Reason)
		}
	}
}

// pool judges a share by all rounds of a system together, and reports whether they
// saw it.
func pool(cell *result.ComparedByGate, row result.ComparedGate, runs []*result.Result, look gate.Look) bool {
	var c scenario.Condition
	var rounds []stat.Count
	for _, res := range runs {
		for _, g := range res.Gates {
			if g.Gate != row.Gate || g.System != row.System || g.Drill > 0 || g.Value == nil {
				continue
			}
			metric, _ := scenario.Lookup(g.Metric)
			c = scenario.Condition{Metric: metric, Op: scenario.Op(g.Op), Threshold: g.Threshold}
			n := float64(g.Samples)
			rounds = append(rounds, stat.Count{K: math.Round(*g.Value * n), N: n})
		}
	}
	if len(rounds) == 0 {
		return false
	}
	v, reason := gate.JudgeRounds(c, rounds, look)
	cell.Verdict, cell.Reason, cell.Pooled = result.Verdict(v), reason, true
	if cell.Verdict == result.Pass {
		cell.Reason = ""
	}
	return true
}
