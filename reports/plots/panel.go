package plots

import (
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

type colorOf = color.RGBA

// centre lifts text that is aligned by the middle of its line box to the middle
// of its digits.
const centre = vg.Length(1.2)

// pen draws in the coordinates of one panel.
type pen struct {
	draw.Canvas
	x, y axis
}

func (p *pen) at(x, y float64) vg.Point {
	return vg.Point{X: p.X(p.x.position(x)), Y: p.Y(p.y.position(y))}
}

// draw puts the panel on c, whose rectangle is that of the data; labels go
// outside of it.
func (p *panel) draw(c draw.Canvas, x axis, size Size, last bool) {
	d := &pen{c, x, p.y}
	c.FillText(label(textSize, ink, true), vg.Point{X: c.Min.X, Y: c.Max.Y + 4}, p.name)
	free := c.Min.X // right of the names of bands
	for _, b := range p.bands {
		free = d.band(b, free)
	}
	lines := slices.Clone(p.lines)
	for i := range lines {
		l := &lines[i]
		switch {
		case len(l.points) <= size.points:
		case l.step:
			l.points = downsample(l.points, size.points, x.position)
		default:
			l.points = d.spread(*l, size.points/3)
		}
	}
	d.grid(last)
	var drawn []vg.Point // what bound labels should not cover
	var ends []endLabel
	for _, l := range lines {
		path := d.line(l)
		drawn = append(drawn, along(path)...)
		if l.end != "" && len(path) > 0 {
			ends = append(ends, endLabel{l.end, l.color, path[len(path)-1].Y})
		}
	}
	d.ends(ends)
	var taken []vg.Rectangle
	for _, m := range p.marks {
		taken = append(taken, d.mark(m, drawn, taken))
	}
	for _, b := range p.bounds {
		taken = append(taken, d.bound(b, drawn, taken))
	}
}

func (d *pen) grid(labels bool) {
	small := label(textSize, muted, false)
	small.XAlign, small.YAlign = text.XRight, text.YCenter
	for _, t := range d.y.ticks {
		y := d.at(d.x.min, t.at).Y
		if t.label == "" {
			d.StrokeLine2(draw.LineStyle{Color: finegrid, Width: 0.5}, d.Min.X, y, d.Max.X, y)
			continue
		}
		d.StrokeLine2(draw.LineStyle{Color: gridline, Width: 0.6}, d.Min.X, y, d.Max.X, y)
		d.FillText(small, vg.Point{X: d.Min.X - 5, Y: y + centre}, t.label)
	}
	small.XAlign, small.YAlign = text.XCenter, text.YTop
	free := vg.Length(math.Inf(-1)) // right edge of the last label
	for _, t := range d.x.ticks {
		x := d.at(t.at, d.y.min).X
		if x > d.Max.X+0.01 {
			continue
		}
		if t.label == "" {
			d.StrokeLine2(draw.LineStyle{Color: finegrid, Width: 0.5}, x, d.Min.Y, x, d.Max.Y)
			continue
		}
		d.StrokeLine2(draw.LineStyle{Color: gridline, Width: 0.6}, x, d.Min.Y, x, d.Max.Y)
		if width := small.Width(t.label); labels && x-width/2 > free {
			free = x + width/2 + 3
			d.FillText(small, vg.Point{X: x, Y: d.Min.Y - 4}, t.label)
		}
	}
	d.StrokeLine2(draw.LineStyle{Color: muted, Width: 0.8}, d.Min.X, d.Min.Y, d.Max.X, d.Min.Y)
}

// band shades a stage and writes its name into it, or the short one across it,
// if there is room right of free; it returns what is free then.
func (d *pen) band(b band, free vg.Length) vg.Length {
	from, to := d.at(max(b.from, d.x.min), d.y.min), d.at(min(b.to, d.x.max), d.y.max)
	if to.X <= from.X {
		return free
	}
	d.FillPolygon(b.color, corners(vg.Rectangle{Min: from, Max: to}))
	sty := label(textSize-1, muted, false)
	name, left := b.name, from.X+2
	if sty.Width(name)+4 >= to.X-from.X {
		name = b.short
		left = min(max((from.X+to.X-sty.Width(name))/2, d.Min.X), d.Max.X-sty.Width(name))
	}
	if name == "" || left < free {
		return free
	}
	d.FillText(sty, vg.Point{X: left, Y: to.Y - 9}, name)
	return left + sty.Width(name) + 3
}

// mark draws a moment, a vertical line with its name beside it, and returns the
// name's place.
func (d *pen) mark(m mark, drawn []vg.Point, taken []vg.Rectangle) vg.Rectangle {
	if m.at < d.x.min || m.at > d.x.max {
		return vg.Rectangle{}
	}
	x := d.at(m.at, d.y.min).X
	d.StrokeLine2(draw.LineStyle{Color: ink, Width: 1.4}, x, d.Min.Y, x, d.Max.Y)
	if m.name == "" {
		return vg.Rectangle{}
	}
	sty := label(textSize, ink, true)
	name := fit(sty, m.name, (d.Max.X-d.Min.X)/2-8)
	left := x + 4
	if width := sty.Width(name); left+width > d.Max.X {
		left = x - 4 - width
	}
	var candidates []vg.Point
	for y := d.Max.Y - 10; y > d.Min.Y+4; y -= 12 {
		candidates = append(candidates, vg.Point{X: left, Y: y})
	}
	return d.place(sty, name, candidates, drawn, taken)
}

// text writes on a white ground, so that lines below don't strike it out, and
// returns the ground.
func (d *pen) text(sty text.Style, pt vg.Point, s string) vg.Rectangle {
	ground := textBox(sty, pt, s)
	d.FillPolygon(paper, corners(ground))
	d.FillText(sty, pt, s)
	return ground
}

func textBox(sty text.Style, pt vg.Point, s string) vg.Rectangle {
	return vg.Rectangle{
		Min: vg.Point{X: pt.X - 2, Y: pt.Y - 2.5},
		Max: vg.Point{X: pt.X + sty.Width(s) + 2, Y: pt.Y + 8.5},
	}
}

// spread shades what a line's samples span in each of n slices, and returns
// their medians, to be drawn as the line.
func (d *pen) spread(l line, n int) []point {
	spans := summarize(l.points, n, d.x.position)
	pts := make([]point, len(spans))
	for i, s := range spans {
		pts[i] = point{s.x, s.middle}
	}
	for start := 0; start < len(spans); start++ {
		if math.IsNaN(spans[start].middle) {
			continue
		}
		end := start
		var shape []vg.Point
		for ; end < len(spans) && !math.IsNaN(spans[end].middle); end++ {
			shape = append(shape, d.at(spans[end].x, spans[end].high))
		}
		for i := end - 1; i >= start; i-- {
			shape = append(shape, d.at(spans[i].x, spans[i].low))
		}
		d.FillPolygon(pale(l.color), shape)
		start = end
	}
	return pts
}

// line draws the points and returns where they lie. A sample between two gaps
// becomes a dot.
func (d *pen) line(l line) (path []vg.Point) {
	for _, seg := range segments(l.points) {
		var ps []vg.Point
		for i, p := range seg {
			pt := d.at(p.x, p.y)
			if l.step && i > 0 {
				ps = append(ps, vg.Point{X: ps[len(ps)-1].X, Y: pt.Y})
			}
			ps = append(ps, pt)
		}
		if len(ps) == 1 {
			d.DrawGlyph(draw.GlyphStyle{Color: l.color, Radius: l.stroke.width, Shape: draw.CircleGlyph{}}, ps[0])
		} else {
			d.StrokeLines(l.stroke.style(l.color), d.ClipLinesXY(pieces(ps)...)...)
		}
		path = append(path, ps...)
	}
	return path
}

// along returns points on the path so close together that no name can hide a
// part of it between two.
func along(path []vg.Point) []vg.Point {
	const step = 6
	var out []vg.Point
	for i, to := range path {
		if i > 0 {
			from := path[i-1]
			way := to.Sub(from)
			n := int(max(math.Abs(float64(way.X)), math.Abs(float64(way.Y))) / step)
			for j := 1; j < n; j++ {
				out = append(out, from.Add(way.Scale(vg.Length(j)/vg.Length(n))))
			}
		}
		out = append(out, to)
	}
	return out
}

// pieces cuts a long path into short ones that share a segment, so that the joint
// can't be seen. The rasterizer's time grows with the square of how often one
// path crosses a row of pixels: a dense line takes seconds whole, and
// milliseconds in pieces.
func pieces(path []vg.Point) [][]vg.Point {
	const longest = 48
	if len(path) <= 3*longest {
		return [][]vg.Point{path}
	}
	var out [][]vg.Point
	for len(path) > longest {
		out = append(out, path[:longest])
		path = path[longest-2:]
	}
	return append(out, path)
}

type endLabel struct {
	text  string
	color colorOf
	y     vg.Length
}

// ends names lines at the right edge, pushed apart where they would overlap.
func (d *pen) ends(labels []endLabel) {
	slices.SortStableFunc(labels, func(a, b endLabel) int {
		if a.y < b.y {
			return -1
		}
		return 1
	})
	floor := vg.Length(math.Inf(-1))
	for _, e := range labels {
		y := max(e.y, floor)
		sty := label(textSize, e.color, true)
		sty.YAlign = text.YCenter
		d.FillText(sty, vg.Point{X: d.Max.X + 4, Y: y + centre}, e.text)
		floor = y + textSize + 1
	}
}

// bound draws a threshold with its name above or below, and returns the name's
// place.
func (d *pen) bound(b bound, drawn []vg.Point, taken []vg.Rectangle) vg.Rectangle {
	left, right := d.at(d.x.min, b.at), d.at(d.x.max, b.at)
	if b.until > 0 {
		right = d.at(min(b.until, d.x.max), b.at)
		d.StrokeLines(limit.style(ink), []vg.Point{left, right, {X: right.X, Y: d.Max.Y}})
	} else {
		d.StrokeLines(limit.style(ink), []vg.Point{left, right})
	}
	sty := label(textSize, ink, false)
	name := fit(sty, b.name, d.Max.X-d.Min.X-8)
	var candidates []vg.Point
	for _, share := range []vg.Length{1, 0, 0.5, 0.75, 0.25} {
		for _, dy := range []vg.Length{4, -10.5} {
			x := left.X + 4 + max(right.X-left.X-sty.Width(name)-8, 0)*share
			candidates = append(candidates, vg.Point{X: x, Y: left.Y + dy})
		}
	}
	return d.place(sty, name, candidates, drawn, taken)
}

// place writes s at that of the candidates where it covers least: no text placed
// before, nothing beyond the panel, few of the points drawn. The first is taken
// among equals.
func (d *pen) place(sty text.Style, s string, candidates, drawn []vg.Point, taken []vg.Rectangle) vg.Rectangle {
	var best vg.Point
	least := math.Inf(1)
	for _, pt := range candidates {
		box := textBox(sty, pt, s)
		cost := 0.0
		for _, p := range drawn {
			if p.X >= box.Min.X && p.X <= box.Max.X && p.Y >= box.Min.Y && p.Y <= box.Max.Y {
				cost++
			}
		}
		for _, r := range taken {
			if box.Min.X < r.Max.X && r.Min.X < box.Max.X && box.Min.Y < r.Max.Y && r.Min.Y < box.Max.Y {
				cost += 10_000
			}
		}
		if box.Max.Y > d.Max.Y || box.Min.Y < d.Min.Y {
			cost += 5_000
		}
		if cost < least {
			best, least = pt, cost
		}
	}
	return d.text(sty, best, s)
}

// fit shortens s until it is no wider than room.
func fit(sty text.Style, s string, room vg.Length) string {
	if sty.Width(s) <= room {
		return s
	}
	runes := []rune(s)
	for len(runes) > 1 && sty.Width(string(runes)+"…") > room {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}
