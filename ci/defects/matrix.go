package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// verdict on the harness.
type verdict string

const (
	caught  verdict = "caught"
	another verdict = "by another"
	missed  verdict = "missed"
	passed  verdict = "passed"
	alarm   verdict = "FALSE ALARM"
	open    verdict = "undecided"
	broken  verdict = "not run"
)

// row is one run of one system.
type row struct {
	name, scenario string
	gate, size     string // of a defect
	healthy        bool   // nothing may fail
	spared         bool   // a defect that must not show here: nothing may fail either, and its gate must pass

	verdict  verdict
	measured string
	also     []string // other gates that failed
}

// judge reads the verdict from a run's result.
func (r *row) judge(res *result.Result, err error) {
	if err != nil {
		r.verdict, r.measured = broken, err.Error()
		return
	}
	found, crashed, held := false, false, false
	for _, g := range res.Gates {
		crashed = crashed || g.Metric == "unexpected_exits" && g.Verdict == result.Fail
		held = held || g.Metric == r.gate && g.Verdict == result.Pass
		switch {
		case g.Metric == r.gate && !r.spared:
			r.measured = told(g)
			found = g.Verdict == result.Fail
		case g.Verdict == result.Fail:
			r.also = append(r.also, told(g))
		case g.Verdict == result.Inconclusive && (r.healthy || r.spared):
			r.measured = strings.TrimPrefix(r.measured+"; "+g.Gate+": "+g.Reason, "; ")
		}
	}
	clean := r.healthy || r.spared
	switch {
	case clean && len(r.also) > 0:
		r.verdict = alarm
	case r.healthy && res.Verdict != result.Pass, r.spared && !held:
		r.verdict = open
	case clean:
		r.verdict = passed
	case found && !crashed: // a gate that fails for want of a system has caught nothing
		r.verdict = caught
	case len(r.also) > 0:
		r.verdict = another
	default:
		r.verdict = missed
	}
}

func told(g result.Gate) string {
	return fmt.Sprintf("%s: %s", g.Gate, unit.Beside(g.Value, g.Threshold, g.Unit))
}

// matrix prints the rows as they come, and counts them.
type matrix struct {
	rows    int
	defects int
	counts  map[verdict]int
}

func (m *matrix) add(r row) {
	if m.counts == nil {
		m.counts = map[verdict]int{}
	}
	m.rows++
	m.counts[r.verdict]++
	if !r.healthy && !r.spared {
		m.defects++
	}
	fmt.Fprintf(os.Stdout, "%-11s %-18s %-16s %s", r.verdict, r.name, r.scenario, r.measured)
	if len(r.also) > 0 {
		fmt.Fprintf(os.Stdout, "   also failed: %s", strings.Join(r.also, ", "))
	}
	fmt.Fprintln(os.Stdout)
	if r.verdict == caught {
		fmt.Fprintf(os.Stdout, "%-11s must be caught from here on: %s\n", "", r.size)
	}
}

// summary returns the exit code.
func (m *matrix) summary(w io.Writer, took time.Duration) int {
	fmt.Fprintf(w, "\n%d defects: %d caught by their gate, %d by another only, %d missed; %d runs without one to show: %d passed, %d false alarms, %d undecided; %d not run; %s\n",
		m.defects, m.counts[caught], m.counts[another], m.counts[missed],
		m.rows-m.defects, m.counts[passed], m.counts[alarm], m.counts[open], m.counts[broken], took.Round(time.Second))
	switch {
	case m.rows == 0: // misspelt
		return 2
	case m.counts[broken] > 0:
		return 4
	case m.counts[caught]+m.counts[passed] < m.rows:
		return 1
	}
	return 0
}
