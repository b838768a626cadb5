package reports

import (
	"fmt"

	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// growthView is the table beside the memory plot, one per arm.
type growthView struct {
	Arm  string
	Rows []growthRow
}

type growthRow struct {
	Name, End, Growth, Interval, Says string
	Part                              bool // of the row above
}

// growthTables says of each arm how its memory grew.
func growthTables(r *result.Result) []growthView {
	var out []growthView
	for _, name := range arms(r) {
		if g := r.Systems[name].Growth; g != nil && g.Slope != nil {
			out = append(out, growthView{name, growthRows(g)})
		}
	}
	return out
}

func growthRows(g *result.Growth) []growthRow {
	end := unit.None
	if n := len(g.Line); n > 0 {
		end = unit.Format(g.Line[n-1].Bytes, "B")
	}
	says := fmt.Sprintf("A line through the %s of %s.", plural(g.Troughs, "trough"), unit.Duration(roundTenth(g.Duration)))
	if g.Detectable != nil {
		says += fmt.Sprintf(" Growth below %s can't be told from none in that time.", unit.Format(*g.Detectable, "B/h"))
	}
	rows := []growthRow{{Name: "Resident memory", End: end, Growth: unit.Pointer(g.Slope, "B/h"), Interval: bounds(g.Low, g.High, "B/h"), Says: says}}
	if p := g.PerMillion; p != nil {
		rows = append(rows, growthRow{Name: "per million requests", Growth: unit.Pointer(p.Value, "B"), Interval: bounds(p.Low, p.High, "B"), Part: true,
			Says: "The same troughs over the requests finished by then, since most leaks go with requests and not with time."})
	}
	if e := g.Extrapolated; e != nil {
		rows = append(rows, growthRow{Name: "at this phase's own rate of " + unit.Format(g.Rate, "1/s"), Growth: unit.Pointer(e.Value, "B/h"), Interval: bounds(e.Low, e.High, "B/h"), Part: true,
			Says: "Extrapolated from the row above, not measured over an hour."})
	}
	if g.Parts == nil {
		return rows
	}
	part := func(name string, p *result.GrowthPart, within bool, says string) {
		if p != nil {
			rows = append(rows, growthRow{Name: name, End: unit.Format(p.Bytes, "B"), Growth: unit.Pointer(p.Value, "B/h"), Interval: bounds(p.Low, p.High, "B/h"), Part: within, Says: says})
		}
	}
	part("Live heap", g.Parts.LiveHeap, false, "What its garbage collector found in use, by the system's own metrics, at the same troughs.")
	part("cache", g.Parts.CachePayload, true, "What the system accounts to its cache, by its own metrics: within the live heap, or beside it and so in the rest.")
	part("The rest", g.Parts.Rest, false, "Resident memory less live heap: garbage not collected yet, stacks, buffers, the program itself, and whatever is kept beside the heap.")
	return rows
}

// growthLine says in one line how an arm's memory grew; "" where what was seen
// can't be told from no growth.
func growthLine(name string, g *result.Growth) string {
	if g == nil || g.Slope == nil || g.Low == nil || g.High == nil || *g.Low <= 0 && *g.High >= 0 {
		return ""
	}
	text := fmt.Sprintf("resident memory of %s grew by %s %s over %s", name, unit.Pointer(g.Slope, "B/h"), bounds(g.Low, g.High, "B/h"), unit.Duration(roundTenth(g.Duration)))
	if p, e := g.PerMillion, g.Extrapolated; p != nil && e != nil {
		text += fmt.Sprintf("; by requests, %s per million, which at this phase's own rate of %s would be %s (extrapolated)",
			unit.Pointer(p.Value, "B"), unit.Format(g.Rate, "1/s"), unit.Pointer(e.Value, "B/h"))
	}
	return text
}

func bounds(low, high *float64, u string) string {
	if low == nil || high == nil {
		return unit.None
	}
	return "[" + unit.Pointer(low, u) + ", " + unit.Pointer(high, u) + "]"
}

func roundTenth(v float64) float64 { return float64(int64(v*10+0.5)) / 10 }
