// Package plots draws the figures of a run from its result: latency over time,
// the percentile curve, hit ratio, traffic, memory and CPU. Each [Figure] is
// drawn by the same code as PNG and as SVG for a page.
//
// Colours are those of Okabe and Ito, "Color Universal Design" (2008), which
// stay distinct in the common forms of colour blindness; no meaning rests on
// colour alone: lines are named at their ends and differ in dash and width.
package plots

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"regexp"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"phasegate/reports/result"
)

// Figure is one picture of a run. It holds all points of the result; how many
// are drawn is decided by the size it is drawn in.
type Figure struct {
	Name    string // file name without ending, and the element id in the page: "hit_ratio"
	Title   string // "Cache hit ratio over time"
	Caption string // what it shows, in figures, for those who can't see it; "no samples: …" where Empty
	Empty   bool   // nothing was measured that could be drawn

	timeAxis bool
	xMin     float64
	xMax     float64
	panels   []panel
	height   vg.Length // of the wide form
}

// Size is a form in which a figure is drawn.
type Size struct {
	width  vg.Length
	height float64 // relative to the figure's own
	points int     // at most that many per line
	fixed  vg.Length
}

// The sizes of figures in a page: Wide for screens and paper, Narrow for phones.
var (
	Wide   = Size{width: 720, height: 1, points: 600, fixed: 58}
	Narrow = Size{width: 340, height: 0.85, points: 160, fixed: 50}
)

// dpi makes a PNG of the wide form 1,200 pixels wide.
const dpi = 120

// All returns the figures of r, in the order of the report. There are always
// the same ones; where nothing was measured, Empty is set.
func All(r *result.Result) []Figure {
	s := newSource(r)
	return []Figure{s.latency(), s.percentiles(), s.hitRatio(), s.traffic(), s.resources()}
}

// PNG writes the figure with its title, 1,200 pixels wide.
func (f *Figure) PNG(w io.Writer) error {
	img := vgimg.NewWith(vgimg.UseWH(Wide.width, f.height+titleHeight), vgimg.UseDPI(dpi))
	f.draw(draw.New(img), Wide, f.Title)
	if _, err := (vgimg.PngCanvas{Canvas: img}).WriteTo(w); err != nil {
		return fmt.Errorf("draw %s.png: %w", f.Name, err)
	}
	return nil
}

// svgFont matches the font that vgsvg gives each text; the page's style sheet
// sets it once, with fallbacks for readers who don't have it.
var svgFont = regexp.MustCompile(`font-family:[^;]*;font-variant:[^;]*;font-weight:(normal|bold);font-style:normal;`)

// SVG returns the figure as an svg element for inclusion in a page: no XML
// prologue, no name spaces, no title drawn (the page has a heading) but one for
// screen readers, scaled by the width of its container.
func (f *Figure) SVG(size Size) (string, error) {
	height := f.height * vg.Length(size.height)
	c := vgsvg.New(size.width, height)
	f.draw(draw.New(c), size, "")
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", fmt.Errorf("draw %s as SVG: %w", f.Name, err)
	}
	text := b.String()
	start := regexp.MustCompile(`<svg[^>]*>`).FindStringIndex(text)
	if start == nil {
		return "", fmt.Errorf("draw %s as SVG: the drawing has no svg element", f.Name)
	}
	body := svgFont.ReplaceAllString(text[start[1]:], "font-weight:$1;")
	return fmt.Sprintf(`<svg class="plot" viewBox="0 0 %.0f %.0f" role="img" aria-label="%s"><title>%s</title>%s`,
		size.width.Points(), height.Points(), html.EscapeString(f.Title+". "+f.Caption), html.EscapeString(f.Title), body), nil
}
