// Package unit writes the figures of a result for human eyes: 0.0031 with unit
// "s" becomes "3.1 ms". Units are those of result.Gate: "s", "B", "B/h",
// "share", "1/s", "count" and "ratio"; sizes are decimal, as in scenario files
// (1 MB is 10^6 bytes).
package unit

import (
	"math"
	"strconv"
	"strings"
)

// None stands where there is no sample.
const None = "–"

// scale is one step of a unit: figures from 1×size on are divided by size.
type scale struct {
	size   float64
	suffix string
}

// Steps of the units that have prefixes, largest first.
var (
	seconds = []scale{{1, " s"}, {1e-3, " ms"}, {1e-6, " µs"}}
	bytes   = []scale{{1e12, " TB"}, {1e9, " GB"}, {1e6, " MB"}, {1e3, " kB"}, {1, " B"}}
)

// Format writes v with as many digits as a reader needs to see what happened:
// one decimal, or for shares as many as show two digits of the distance to
// 0 or 100 %. NaN and infinities become [None].
func Format(v float64, unit string) string { return format(v, unit, 1) }

// Pointer is [Format] for an optional figure; nil becomes [None].
func Pointer(v *float64, unit string) string {
	if v == nil {
		return None
	}
	return Format(*v, unit)
}

// Exact writes v without rounding it visibly (six significant digits) and
// without trailing zeros: for thresholds and other figures that people chose.
func Exact(v float64, unit string) string {
	text := format(v, unit, 6)
	number, suffix := split(text)
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return number + suffix
}

// Beside writes v like [Format] but with so many digits more that it can't look
// equal to the bound next to it unless it is: 9.97 ms beside 10 ms is "9.97 ms",
// not "10.0 ms".
func Beside(v *float64, bound float64, unit string) string {
	if v == nil {
		return None
	}
	for digits := 1; ; digits++ {
		text := format(*v, unit, digits)
		if digits == 9 || *v == bound || math.IsNaN(bound) || text != format(bound, unit, digits) {
			return text
		}
	}
}

// Count writes n with thousands separated by commas.
func Count(n int64) string { return group(strconv.FormatInt(n, 10)) }

// Duration writes a time span in seconds the way people say it: "450 ms",
// "65 s", "5 m", "1 h 30 m".
func Duration(s float64) string {
	if math.IsNaN(s) || math.IsInf(s, 0) {
		return None
	}
	if math.Abs(s) < 120 {
		return Exact(round(s, 3), "s")
	}
	total := int64(math.Round(s))
	var parts []string
	for _, step := range []struct {
		size   int64
		suffix string
	}{{3600, " h"}, {60, " m"}, {1, " s"}} {
		if n := total / step.size; n != 0 {
			parts = append(parts, Count(n)+step.suffix)
			total -= n * step.size
		}
	}
	return strings.Join(parts[:min(len(parts), 2)], " ")
}

func format(v float64, unit string, digits int) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return None
	}
	switch unit {
	case "s":
		return scaled(v, seconds, digits)
	case "B":
		return scaled(v, bytes, digits)
	case "B/h":
		return scaled(v, bytes, digits) + "/h"
	case "share":
		return share(v, digits)
	case "1/s":
		return plain(v, digits) + "/s"
	case "count":
		if v == math.Trunc(v) {
			return plain(v, 0)
		}
		return plain(v, digits)
	case "ratio":
		return plain(v, digits) + "×"
	case "":
		return strconv.FormatFloat(v, 'g', digits+3, 64)
	default:
		return strconv.FormatFloat(v, 'g', digits+3, 64) + " " + unit
	}
}

// scaled picks the step in which v has a digit before the point. A figure that
// rounding would show as 1000 of a step belongs to the one above.
func scaled(v float64, steps []scale, digits int) string {
	last := len(steps) - 1
	if v == 0 {
		return "0" + steps[last].suffix
	}
	for i, step := range steps[:last] {
		in := v / step.size
		if math.Abs(in) < 1 && math.Abs(round(v/steps[i+1].size, digits)) >= 1000 {
			in = math.Copysign(1, v)
		}
		if math.Abs(in) >= 1 {
			return plain(in, digits) + step.suffix
		}
	}
	if steps[last].suffix == " B" && v == math.Trunc(v) {
		digits = 0
	}
	return plain(v/steps[last].size, digits) + steps[last].suffix
}

// share writes a proportion in per cent so that both a small error rate and an
// availability close to 1 show two significant digits of what matters.
func share(v float64, digits int) string {
	percent := v * 100
	distance := min(math.Abs(percent), math.Abs(100-percent))
	decimals := 0
	if distance > 1e-9 {
		decimals = min(max(digits-int(math.Floor(math.Log10(distance))), digits), 4+digits)
	}
	return group(strconv.FormatFloat(percent, 'f', decimals, 64)) + " %"
}

// plain writes a number with the given decimals, more where it is below 1,
// none from 1,000 on unless more than one was asked for.
func plain(v float64, digits int) string {
	switch abs := math.Abs(v); {
	case abs >= 1000 && digits == 1, abs == 0:
		digits = 0
	case abs > 0 && abs < 1 && digits > 0:
		digits = min(digits-int(math.Floor(math.Log10(abs))), digits+6)
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Trim(text, "-0.") == "" {
		text = strings.TrimPrefix(text, "-")
	}
	return group(text)
}

func round(v float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(v*p) / p
}

// group puts commas between the thousands of a decimal number's integer part.
func group(number string) string {
	sign := ""
	if strings.HasPrefix(number, "-") {
		sign, number = "-", number[1:]
	}
	whole, fraction, found := strings.Cut(number, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if found {
		whole += "." + fraction
	}
	return sign + whole
}

// split cuts a formatted figure into its number and its suffix.
func split(text string) (number, suffix string) {
	end := strings.LastIndexAny(text, "0123456789") + 1
	return text[:end], text[end:]
}
