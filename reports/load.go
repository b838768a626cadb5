package reports

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// loadFacts is what the load generator says of itself, one by one.
func loadFacts(l *result.Load) []fact {
	if l == nil {
		return nil
	}
	rate := func(v float64) string { return unit.Format(v, "1/s") }
	facts := []fact{{"Source", clean(l.Source)}}
	if l.ClosedLoop {
		facts = append(facts, fact{"Schedule", "none: a closed loop"})
	}
	facts = append(facts,
		fact{"Due", rate(l.OfferedRate)}, fact{"Sent", rate(l.SentRate)}, fact{"Completed", rate(l.Completed)},
		fact{"Schedule lag, median", unit.Pointer(l.LagP50, "s")},
		fact{"Schedule lag, 99th percentile", unit.Pointer(l.LagP99, "s")},
		fact{"Schedule lag, longest", unit.Pointer(l.LagMax, "s")},
	)
	for _, arm := range slices.Sorted(maps.Keys(l.Connections)) {
		facts = append(facts, fact{"Connections to " + clean(arm), unit.Count(int64(l.Connections[arm]))})
	}
	for _, s := range l.Spoken {
		facts = append(facts, fact{"Spoken to " + clean(s.System) + ": " + clean(s.Protocol), spoken(s)})
	}
	facts = append(facts, fact{"CPU time of the whole harness process, the load generator in it", unit.Format(l.CPU, "s")}, fact{"Prewarmed", unit.Count(l.Prewarmed) + " keys"})
	if l.LogSkipped > 0 {
		facts = append(facts, fact{"Unusable log lines", unit.Count(l.LogSkipped)})
	}
	return facts
}

func spoken(s result.Spoken) string {
	return unit.Count(s.Requests) + " requests on " + unit.Count(s.Connections) + " connections"
}

// loadLine is the same in one line of text; "" where no load was generated.
func loadLine(l *result.Load) string {
	if l == nil {
		return ""
	}
	rate := func(v float64) string { return unit.Format(v, "1/s") }
	parts := []string{fmt.Sprintf("due %s, sent %s, completed %s", rate(l.OfferedRate), rate(l.SentRate), rate(l.Completed))}
	if l.LagP99 != nil {
		parts = append(parts, fmt.Sprintf("schedule lag %s median, %s p99, %s longest",
			unit.Pointer(l.LagP50, "s"), unit.Pointer(l.LagP99, "s"), unit.Pointer(l.LagMax, "s")))
	}
	if l.ClosedLoop {
		parts = append(parts, "closed loop")
	}
	said := map[string]bool{}
	for _, s := range l.Spoken {
		said[s.System] = true
		parts = append(parts, clean(s.System)+" "+clean(s.Protocol)+" "+spoken(s))
	}
	for _, arm := range slices.Sorted(maps.Keys(l.Connections)) {
		if !said[arm] {
			parts = append(parts, clean(arm)+" "+unit.Count(int64(l.Connections[arm]))+" connections")
		}
	}
	return strings.Join(append(parts, "CPU of the whole harness, the load generator in it, "+unit.Format(l.CPU, "s")), "; ")
}

// timeRow is one line of the table of times.
type timeRow struct {
	System, Name, Count string
	Cells               []string
}

// timeQuantiles are the columns of the table of times.
var timeQuantiles = []struct {
	Name string
	of   float64 // per cent
}{{"median", 50}, {"p90", 90}, {"p95", 95}, {"p99", 99}, {"p99.9", 99.9}, {"longest", 100}}

// timeRows puts each system's latency and service time one below the other.
func timeRows(r *result.Result) []timeRow {
	var rows []timeRow
	for _, name := range arms(r) {
		s := r.Systems[name]
		for _, kind := range []struct{ name, histogram string }{{"latency", s.Histogram}, {"service time", s.ServiceHistogram}} {
			h, err := result.DecodeHistogram(kind.histogram)
			if err != nil || h == nil || h.TotalCount() == 0 {
				continue
			}
			row := timeRow{System: clean(name), Name: kind.name, Count: unit.Count(h.TotalCount())}
			if r.Load != nil && r.Load.ClosedLoop && kind.name == "latency" {
				continue // there is none: no request was due at a time of its own
			}
			for _, q := range timeQuantiles {
				row.Cells = append(row.Cells, unit.Format(float64(h.ValueAtQuantile(q.of))/1e6, "s"))
			}
			rows = append(rows, row)
		}
	}
	return rows
}
