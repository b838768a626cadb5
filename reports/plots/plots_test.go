package plots_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image"
	"image/png"
	"io"
	"slices"
	"strings"
	"testing"

	"phasegate/reports/internal/resulttest"
	"phasegate/reports/plots"
)

func TestSVGOfEveryVariant(t *testing.T) {
	t.Parallel()
	for _, variant := range resulttest.Variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			figures := plots.All(resulttest.New(variant))
			if len(figures) != 5 {
				t.Fatalf("%d figures, want 5", len(figures))
			}
			for _, f := range figures {
				if f.Caption == "" || strings.Contains(f.Caption, "NaN") || f.Empty != strings.HasPrefix(f.Caption, "No samples: ") {
					t.Errorf("%s: empty is %v, caption %q", f.Name, f.Empty, f.Caption)
				}
				for _, size := range []plots.Size{plots.Wide, plots.Narrow} {
					svg, err := f.SVG(size)
					if err != nil {
						t.Fatal(err)
					}
					checkSVG(t, f.Name, svg)
				}
			}
		})
	}
}

// checkSVG: well-formed, named for screen readers, nothing from elsewhere, and
// no longer than lines of 600 points give.
func checkSVG(t *testing.T, name, svg string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	var root, title bool
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e, ok := token.(xml.StartElement); ok {
			root = root || e.Name.Local == "svg"
			title = title || e.Name.Local == "title"
			if !slices.Contains([]string{"svg", "title", "g", "path", "text"}, e.Name.Local) {
				t.Errorf("%s: element %s", name, e.Name.Local)
			}
		}
	}
	if !root || !title {
		t.Errorf("%s: svg element %v, title %v", name, root, title)
	}
	for _, bad := range []string{"NaN", "Inf", "xmlns", "font-family"} {
		if strings.Contains(svg, bad) && !strings.Contains(svg, "http://example.com") {
			t.Errorf("%s: contains %q", name, bad)
		}
	}
	if len(svg) > 90_000 {
		t.Errorf("%s: %d bytes", name, len(svg))
	}
}

func TestEmptiness(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		variant, figure string
		empty           bool
		caption         string
	}{
		{"pass", "hit_ratio", false, "median of the intervals 9"},
		// A system that is only a URL: no ledger, no process. The reason is the figure.
		{"no-ledger", "hit_ratio", true, "self-description"},
		{"no-ledger", "resources", true, "a URL's process can't be sampled"},
		{"no-ledger", "latency", false, "new p95"},
		{"error", "latency", true, "no interval of the timeline"},
		{"error", "percentiles", true, "no system has a histogram"},
		{"empty", "traffic", true, "the timeline is empty"},
		// What was measured until the system died is shown.
		{"died", "latency", false, "new p95"},
		{"died", "traffic", false, "new: 4,680 errors"},
	} {
		for _, f := range plots.All(resulttest.New(c.variant)) {
			if f.Name == c.figure && (f.Empty != c.empty || !strings.Contains(f.Caption, c.caption)) {
				t.Errorf("%s of %s: empty %v, caption %q; want %v, %q", c.figure, c.variant, f.Empty, f.Caption, c.empty, c.caption)
			}
		}
	}
}

func TestPNG(t *testing.T) {
	t.Parallel()
	for _, variant := range []string{"incomplete", "error"} {
		// Two that differ most: rasterizing all takes seconds under -race.
		for _, f := range plots.All(resulttest.New(variant))[:2] {
			var b bytes.Buffer
			if err := f.PNG(&b); err != nil {
				t.Fatal(err)
			}
			img, err := png.Decode(&b)
			if err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
			if w := img.Bounds().Dx(); w != 1200 {
				t.Errorf("%s is %d pixels wide, want 1200", f.Name, w)
			}
			// The new arm's colour is there if and only if something was measured.
			if got := has(img, 0xD5, 0x5E, 0x00); got == f.Empty {
				t.Errorf("%s of %s: new arm drawn %v, empty %v", f.Name, variant, got, f.Empty)
			}
		}
	}
}

func has(img image.Image, r, g, b uint8) bool {
	pixels, ok := img.(*image.RGBA)
	if !ok {
		panic("the PNG is not in true colour")
	}
	for i := 0; i+3 < len(pixels.Pix); i += 4 {
		if p := pixels.Pix[i:]; p[0] == r && p[1] == g && p[2] == b {
			return true
		}
	}
	return false
}
