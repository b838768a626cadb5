package plots

import (
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// panel is one pair of axes of a figure; those of a figure share the x axis and
// stand below one another.
type panel struct {
	name   string  // above it, with the unit: "latency, log scale"
	weight float64 // share of the figure's height
	y      axis
	lines  []line
	bounds []bound
	bands  []band
	marks  []mark
}

// line is one series. Its end label names it beside the last point.
type line struct {
	name   string // in the legend; "" for none
	end    string
	color  colorOf
	stroke stroke
	step   bool // each value holds since the point before
	points []point
}

// bound is a limit or a gate's threshold: a dashed horizontal line, or, where
// until is set, one from the left edge to x = until and up from there.
type bound struct {
	name  string
	at    float64
	until float64
}

// band shades a stage; mark is a moment.
type band struct {
	name     string
	short    string // of the name, where there is no room for it; "" for nothing shorter
	from, to float64
	color    colorOf
	inLegend bool
}

type mark struct {
	name string
	at   float64
}

// draw puts the figure on c: title, legend, then the panels.
func (f *Figure) draw(c draw.Canvas, size Size, title string) {
	area := c.Rectangle
	area.Min.X += 2
	area.Max.X -= 8
	area.Max.Y -= 3
	if title != "" {
		c.FillText(label(titleSize, ink, true), vg.Point{X: area.Min.X + 6, Y: area.Max.Y - 15}, title)
		area.Max.Y -= titleHeight
	}
	if f.Empty {
		sty := label(titleSize, muted, false)
		sty.XAlign, sty.YAlign = text.XCenter, text.YCenter
		c.FillText(sty, c.Center(), "no samples")
		return
	}
	area.Max.Y = f.legend(c, area, size) - 5
	x := f.xAxis(size)
	left, right := f.margins(size)
	area.Min.X += left
	area.Max.X -= right
	area.Min.Y += 2*lineHeight + 5

	const gap = 2.4 * lineHeight // between panels, with the name of the lower one
	total := 0.0
	for _, p := range f.panels {
		total += p.weight
	}
	room := area.Size().Y - lineHeight - gap*vg.Length(len(f.panels)-1)
	top := area.Max.Y - lineHeight
	for i := range f.panels {
		p := &f.panels[i]
		bottom := top - room*vg.Length(p.weight/total)
		data := draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: area.Min.X, Y: bottom}, Max: vg.Point{X: area.Max.X, Y: top},
		}}
		p.draw(data, x, size, i == len(f.panels)-1)
		top = bottom - gap
	}
	name := "time since the start of the warm-up"
	if !f.timeAxis {
		name = "percentile, each further nine in equal room"
	}
	sty := label(textSize, muted, false)
	sty.XAlign = text.XCenter
	c.FillText(sty, vg.Point{X: (area.Min.X + area.Max.X) / 2, Y: c.Min.Y + 3}, name)
}

func (f *Figure) xAxis(size Size) axis {
	labels := 8
	if size.width < Wide.width {
		labels = 4
	}
	if f.timeAxis {
		return timeAxis(f.xMin, f.xMax, labels)
	}
	a := percentileAxis(f.xMax)
	if size.width < Wide.width {
		a.ticks = a.ticks[1:] // 0 % and 50 % would touch
	}
	return a
}

// margins leave room for the widest label on the left, at least so much that
// the figures of a report line up, and for the names of the lines on the right.
func (f *Figure) margins(size Size) (left, right vg.Length) {
	small := label(textSize, ink, false)
	left = size.fixed
	for _, p := range f.panels {
		for _, t := range p.y.ticks {
			left = max(left, small.Width(t.label)+9)
		}
		for _, l := range p.lines {
			right = max(right, small.Width(l.end)+6)
		}
	}
	return left, max(right, 16)
}

// legend draws the names of lines and bands in rows below the top edge of area,
// each name once, and returns the y of its lower edge.
func (f *Figure) legend(c draw.Canvas, area vg.Rectangle, size Size) vg.Length {
	const sample, space = vg.Length(22), vg.Length(14)
	sty := label(textSize, ink, false)
	x, y := area.Min.X+6, area.Max.Y-lineHeight
	seen := map[string]bool{}
	place := func(name string, draw func(at vg.Rectangle)) {
		if name == "" || seen[name] {
			return
		}
		seen[name] = true
		width := sample + 4 + sty.Width(name)
		if x > area.Min.X+6 && x+width > area.Max.X {
			x, y = area.Min.X+6, y-lineHeight
		}
		draw(vg.Rectangle{Min: vg.Point{X: x, Y: y}, Max: vg.Point{X: x + sample, Y: y + 8}})
		c.FillText(sty, vg.Point{X: x + sample + 4, Y: y + 1}, name)
		x += width + space
	}
	for _, p := range f.panels {
		for _, l := range p.lines {
			place(fit(sty, l.name, area.Size().X-sample-8), func(at vg.Rectangle) {
				mid := (at.Min.Y + at.Max.Y) / 2
				c.StrokeLine2(l.stroke.style(l.color), at.Min.X, mid, at.Max.X, mid)
			})
		}
	}
	for _, p := range f.panels {
		for _, l := range p.lines {
			if !l.step && len(l.points) > size.points {
				place("line: median, shade: all intervals", func(at vg.Rectangle) { c.FillPolygon(pale(l.color), corners(at)) })
			}
		}
		for _, b := range p.bands {
			if b.inLegend {
				place(fit(sty, b.name, area.Size().X-sample-8), func(at vg.Rectangle) { c.FillPolygon(b.color, corners(at)) })
			}
		}
		if len(p.bounds) > 0 {
			place("gate or limit", func(at vg.Rectangle) {
				mid := (at.Min.Y + at.Max.Y) / 2
				c.StrokeLine2(limit.style(ink), at.Min.X, mid, at.Max.X, mid)
			})
		}
	}
	if len(seen) == 0 {
		return area.Max.Y
	}
	return y
}

func corners(r vg.Rectangle) []vg.Point {
	return []vg.Point{r.Min, {X: r.Max.X, Y: r.Min.Y}, r.Max, {X: r.Min.X, Y: r.Max.Y}}
}
