package reports

import (
	"fmt"
	"slices"
	"strings"

	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// legView is the table of one leg: a column per system.
type legView struct {
	Title, Key string
	Arms       []string
	Rows       []legRow
}

type legRow struct {
	Name, Metric string // Metric is "" where there is none
	Cells        []metricCell
	Part         bool // of the row above
}

// leg is one side of a system.
type leg struct {
	title, key, prefix string // prefix of its metrics' names
	of                 func(s result.System) *result.Leg
}

var legs = []leg{
	{"From the clients to the system", "By the load generator, of its own connections; it resumes no TLS session.", "client_",
		func(s result.System) *result.Leg { return s.ClientLeg }},
	{"From the system to the upstream", "By the upstream’s ledger.", "",
		func(s result.System) *result.Leg { return s.UpstreamLeg }},
}

// spoke reports whether there is anything to show beyond HTTP/1 in clear text.
func spoke(s result.System) bool {
	return slices.ContainsFunc(legs, func(l leg) bool {
		g := l.of(s)
		return g != nil && g.HTTP2()+g.TLS() > 0
	})
}

// legTables are both legs of all systems; none where nothing was spoken but
// HTTP/1 in clear text.
func legTables(r *result.Result) []legView {
	if !slices.ContainsFunc(arms(r), func(name string) bool { return spoke(r.Systems[name]) }) {
		return nil
	}
	var out []legView
	for _, l := range legs {
		v := legView{Title: l.title, Key: l.key}
		var of []*result.Leg
		for _, name := range arms(r) {
			if g := l.of(r.Systems[name]); g != nil {
				v.Arms, of = append(v.Arms, clean(name)), append(of, g)
			}
		}
		if len(of) > 0 {
			v.Rows = legRows(l.prefix, of)
			if slices.ContainsFunc(of, tellsGoAways) {
				v.Key += " GOAWAYs are those by which it recycled connections; where HTTP/1.1 was spoken as well, each Connection: close in its place counts as one."
			}
			out = append(out, v)
		}
	}
	return out
}

func legRows(prefix string, of []*result.Leg) []legRow {
	var rows []legRow
	row := func(name, metric string, part bool, cell func(g *result.Leg) metricCell) {
		r := legRow{Name: name, Metric: metric, Part: part}
		for _, g := range of {
			r.Cells = append(r.Cells, cell(g))
		}
		rows = append(rows, r)
	}
	count := func(name string, part bool, n func(g *result.Leg) int64) {
		row(name, "", part, func(g *result.Leg) metricCell { return metricCell{Value: unit.Count(n(g))} })
	}
	count("Requests", false, func(g *result.Leg) int64 { return g.Requests })
	count("over HTTP/1.1 or 1.0", true, func(g *result.Leg) int64 { return g.HTTP1 })
	count("over HTTP/2 in TLS (h2)", true, func(g *result.Leg) int64 { return g.H2 })
	count("over HTTP/2 in clear text (h2c)", true, func(g *result.Leg) int64 { return g.H2C })
	if slices.ContainsFunc(of, func(g *result.Leg) bool { return unanswered(g) > 0 }) {
		count("without an answer", true, unanswered)
	}
	row("Share over HTTP/2", prefix+"http2_adoption", false, func(g *result.Leg) metricCell { return partOf(g.HTTP2(), g.Requests) })
	row("On a connection used before", prefix+"connection_reuse", false, func(g *result.Leg) metricCell { return partOf(g.Reused, g.Requests) })
	count("Connections opened", false, func(g *result.Leg) int64 { return g.Connections })
	if slices.ContainsFunc(of, func(g *result.Leg) bool { return g.TLS() > 0 }) {
		row("TLS handshakes completed", prefix+"negotiation_success", false, func(g *result.Leg) metricCell { return partOf(g.TLS()-g.FailedHandshakes, g.TLS()) })
		count("full", true, func(g *result.Leg) int64 { return g.FullHandshakes })
		count("resumed", true, func(g *result.Leg) int64 { return g.ResumedHandshakes })
		count("TLS handshakes failed", false, func(g *result.Leg) int64 { return g.FailedHandshakes })
	}
	if slices.ContainsFunc(of, tellsGoAways) {
		row("GOAWAYs from the upstream", "", false, func(g *result.Leg) metricCell {
			if !tellsGoAways(g) {
				return metricCell{Value: unit.None}
			}
			return metricCell{Value: unit.Count(*g.GoAways)}
		})
	}
	return rows
}

// tellsGoAways reports whether a leg's notices may be told of as GOAWAYs: there is
// none in HTTP/1.1, where a connection that is recycled ends by Connection: close.
func tellsGoAways(g *result.Leg) bool { return g.GoAways != nil && g.HTTP2() > 0 }

func unanswered(g *result.Leg) int64 { return max(g.Requests-g.HTTP1-g.HTTP2(), 0) }

// partOf is a share with what it is made of.
func partOf(part, all int64) metricCell {
	if all == 0 {
		return metricCell{Value: unit.None}
	}
	return metricCell{Value: unit.Format(float64(part)/float64(all), "share"), Why: unit.Count(part) + " of " + unit.Count(all)}
}

// legLines says the same of a system in a line of text for each leg; none where
// nothing was spoken but HTTP/1 in clear text.
func legLines(name string, s result.System) []string {
	if !spoke(s) {
		return nil
	}
	var lines []string
	for _, l := range legs {
		g := l.of(s)
		if g == nil {
			continue
		}
		share := func(c metricCell) string { return c.Value + " (" + c.Why + ")" }
		parts := []string{
			unit.Count(g.Requests) + " requests: " + unit.Count(g.HTTP1) + " http/1, " + unit.Count(g.H2) + " h2, " + unit.Count(g.H2C) + " h2c",
		}
		if g.Requests > 0 {
			parts = append(parts, "over HTTP/2 "+share(partOf(g.HTTP2(), g.Requests)), "on a connection used before "+share(partOf(g.Reused, g.Requests)))
		}
		parts = append(parts, unit.Count(g.Connections)+" connections opened")
		if g.TLS() > 0 {
			parts = append(parts, fmt.Sprintf("TLS handshakes %s full, %s resumed, %s failed", unit.Count(g.FullHandshakes), unit.Count(g.ResumedHandshakes), unit.Count(g.FailedHandshakes)))
		}
		if tellsGoAways(g) {
			parts = append(parts, unit.Count(*g.GoAways)+" GOAWAYs from the upstream")
		}
		side := "clients to " + name
		if l.prefix == "" {
			side = name + " to upstream"
		}
		lines = append(lines, side+": "+strings.Join(parts, "; "))
	}
	return lines
}
