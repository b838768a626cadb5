package plots

import (
	"image/color"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// The palette of Okabe and Ito, and greys.
var (
	blue       = color.RGBA{0x00, 0x72, 0xB2, 0xFF}
	vermillion = color.RGBA{0xD5, 0x5E, 0x00, 0xFF}
	green      = color.RGBA{0x00, 0x9E, 0x73, 0xFF}
	purple     = color.RGBA{0xCC, 0x79, 0xA7, 0xFF}
	sky        = color.RGBA{0x56, 0xB4, 0xE9, 0xFF}
	orange     = color.RGBA{0xE6, 0x9F, 0x00, 0xFF}

	ink      = color.RGBA{0x1A, 0x1A, 0x1A, 0xFF}
	muted    = color.RGBA{0x55, 0x55, 0x55, 0xFF}
	gridline = color.RGBA{0xDD, 0xDD, 0xDD, 0xFF}
	finegrid = color.RGBA{0xF1, 0xF1, 0xF1, 0xFF}
	shade    = color.RGBA{0xEB, 0xEB, 0xEB, 0xFF}
	tint     = color.RGBA{0xDD, 0xEF, 0xFB, 0xFF}
	paper    = color.RGBA{0xFF, 0xFF, 0xFF, 0xFF}
)

// armColor gives the two arms of a split the same colours in every figure, and
// the systems of a comparison one each.
func armColor(arm string, index int) color.RGBA {
	switch arm {
	case "old":
		return blue
	case "new":
		return vermillion
	}
	others := []color.RGBA{green, purple, sky, orange, ink}
	return others[index%len(others)]
}

// pale is the color on a ground that lines of it still stand out from.
func pale(c color.RGBA) color.RGBA { return faded(c, 22) }

// faded is the color with so many hundredths of its strength.
func faded(c color.RGBA, strength int) color.RGBA {
	mix := func(v uint8) uint8 { return uint8(255 - (255-int(v))*strength/100) }
	return color.RGBA{mix(c.R), mix(c.G), mix(c.B), 0xFF}
}

// stroke is the look of a line.
type stroke struct {
	width vg.Length
	dash  []vg.Length
}

var (
	thick  = stroke{width: 1.9}
	thin   = stroke{width: 1.1}
	dashed = stroke{width: 1.1, dash: []vg.Length{5, 2.5}}
	dotted = stroke{width: 1.2, dash: []vg.Length{1.3, 2.2}}
	limit  = stroke{width: 1.2, dash: []vg.Length{8, 3, 2, 3}}
)

func (s stroke) style(c color.Color) draw.LineStyle {
	return draw.LineStyle{Color: c, Width: s.width, Dashes: s.dash}
}

const (
	textSize    = 9.5
	titleSize   = 13
	titleHeight = vg.Length(22)
	lineHeight  = vg.Length(13)
)

// label is the style of a text of that size and colour, aligned left on its
// base line unless changed.
func label(size float64, c color.Color, bold bool) text.Style {
	f := font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, vg.Length(size))
	if bold {
		f.Weight = xfont.WeightBold
	}
	return text.Style{Color: c, Font: f, Handler: plot.DefaultTextHandler}
}
