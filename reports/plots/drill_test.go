package plots

import (
	"bytes"
	"image/png"
	"math"
	"strings"
	"testing"

	"phasegate/reports/internal/resulttest"
	"phasegate/reports/result"
)

// drilled is a run with a drill some time after its steady state, in which the
// new system answered nothing for 30 s.
func drilled() (r *result.Result, begun float64) {
	r = resulttest.New("pass")
	last := r.Timeline[len(r.Timeline)-1].T
	begun = last + 20
	r.Marks = append(r.Marks, result.Mark{Name: result.DrillMark(1, "pause of the new system for 30m0s"), From: begun + 5, To: begun + 35})
	for s := 1.0; s <= 40; s++ {
		for _, arm := range []string{"old", "new"} {
			in := result.Interval{T: begun + s, System: arm, Stage: result.StageDrill, Split: 0.05, Offered: 100, Requests: 100,
				P50: resulttest.P(0.001), P95: resulttest.P(0.002), P99: resulttest.P(0.003)}
			if s == 1 {
				in.From = &begun
			}
			if arm == "new" && s > 5 && s <= 35 {
				in.Errors, in.P50, in.P95, in.P99 = 100, resulttest.P(2), resulttest.P(2), resulttest.P(2)
			}
			r.Timeline = append(r.Timeline, in)
		}
	}
	return r, begun
}

// A reader sees where something was broken on purpose, and that it was.
func TestDrillIsShaded(t *testing.T) {
	t.Parallel()
	r, begun := drilled()
	for _, f := range All(r) {
		if !f.timeAxis {
			continue
		}
		if f.xMax != begun+40 {
			t.Errorf("%s ends at %g, want the drill's end %g", f.Name, f.xMax, begun+40)
		}
		for _, size := range []Size{Wide, Narrow} {
			svg, err := f.SVG(size)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(svg, ">drill 1: pause of the new system for 30m0s<") {
				t.Errorf("%s: the legend doesn't name the drill", f.Name)
			}
			// The whole name has no room in the panel.
			if !strings.Contains(svg, ">drill 1<") {
				t.Errorf("%s: the span has no label", f.Name)
			}
		}
		for _, p := range f.panels {
			if n := len(p.bands); n != 2 || p.bands[1].from != begun+5 || p.bands[1].to != begun+35 {
				t.Errorf("%s, %s: bands %+v, want the warm-up and the drill's", f.Name, p.name, p.bands)
			}
			for _, l := range p.lines {
				for _, seg := range segments(l.points) {
					if first, last := seg[0].x, seg[len(seg)-1].x; first < begun && last > begun {
						t.Errorf("%s: the line %s leads from %g to %g, across the time before the drill", f.Name, l.name, first, last)
					}
				}
			}
		}
	}
	figure := All(r)[0]
	var b bytes.Buffer
	if err := figure.PNG(&b); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	shaded := 0
	for x := range img.Bounds().Dx() {
		if r, g, b, _ := img.At(x, img.Bounds().Dy()/2).RGBA(); uint8(r>>8) == tint.R && uint8(g>>8) == tint.G && uint8(b>>8) == tint.B {
			shaded++
		}
	}
	if shaded < 50 {
		t.Errorf("%d pixels of a row are shaded, want the drill's span", shaded)
	}
}

// What a drill did to a system is no part of what the steady state is said to be.
func TestDrillIsApart(t *testing.T) {
	t.Parallel()
	plain, broken := All(resulttest.New("pass")), []Figure(nil)
	r, _ := drilled()
	broken = All(r)
	if plain[0].Caption != broken[0].Caption {
		t.Errorf("the steady state's latency is told as\n%s\nand with a drill as\n%s", plain[0].Caption, broken[0].Caption)
	}
	if want := "3,000 of them in drills."; !strings.Contains(broken[3].Caption, want) {
		t.Errorf("traffic is told as %q, want %q in it", broken[3].Caption, want)
	}
}

// A rate counts from the drill's own start.
func TestRateAfterAPause(t *testing.T) {
	t.Parallel()
	from := 10.0
	s := newSource(&result.Result{Timeline: []result.Interval{
		{T: 1, System: "new", Stage: result.StageSteady, Requests: 50},
		{From: &from, T: 11, System: "new", Stage: result.StageDrill, Requests: 50},
	}})
	pts := s.perSecond("new", func(in result.Interval) int64 { return in.Requests })
	if len(pts) != 3 || pts[0] != (point{0.5, 50}) || !math.IsNaN(pts[1].y) || pts[2] != (point{10.5, 50}) {
		t.Errorf("points %v, want 50/s, a gap, and 50/s", pts)
	}
}
