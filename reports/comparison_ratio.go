package reports

import (
	"fmt"
	"math"

	"phasegate/reports/result"
	"phasegate/reports/unit"
)

// between is an interval, or "".
func between(b result.Bounds, u string) string {
	if b.Low == nil || b.High == nil {
		return ""
	}
	return "[" + unit.Beside(b.Low, *b.High, u) + ", " + unit.Beside(b.High, *b.Low, u) + "]"
}

// relativeText is a comparison with the first system and its interval.
func relativeText(v result.ComparedValue, u string) (value, interval string) {
	if v.Relative.Value == nil {
		return "", ""
	}
	if v.Difference {
		value = signed(*v.Relative.Value, u)
		if v.Relative.Low != nil {
			interval = "[" + signed(*v.Relative.Low, u) + ", " + signed(*v.Relative.High, u) + "]"
		}
		return value, interval
	}
	return factors(*v.Relative)
}

// factors are a ratio and its interval with equally many digits: so many that
// what lies between each of them and 1 shows.
func factors(b result.Bounds) (value, interval string) {
	if b.Value == nil {
		return "", ""
	}
	digits := 2
	for _, p := range []*float64{b.Value, b.Low, b.High} {
		if p == nil {
			continue
		}
		if off := math.Abs(*p - 1); off > 0 && off < 0.1 {
			digits = max(digits, min(1-int(math.Floor(math.Log10(off))), 4))
		}
	}
	format := func(v float64) string {
		switch {
		case v >= 100:
			return unit.Format(v, "ratio")
		case v < 0.1:
			return fmt.Sprintf("%.2g×", v)
		}
		return fmt.Sprintf("%.*f×", digits, v)
	}
	if b.Low != nil && b.High != nil {
		interval = "[" + format(*b.Low) + ", " + format(*b.High) + "]"
	}
	return format(*b.Value), interval
}

func signed(v float64, u string) string {
	text := unit.Format(v, u)
	if v > 0 {
		return "+" + text
	}
	return text
}

// stripReach is how far from 1 the strips of a metric go: the logarithm at their
// ends, at least 5 % and at most a factor of 100.
func stripReach(m result.ComparedMetric) float64 {
	reach := math.Log(1.05)
	for _, v := range m.Values {
		if v.Relative == nil || v.Difference {
			continue
		}
		for _, p := range []*float64{v.Relative.Value, v.Relative.Low, v.Relative.High} {
			if p != nil && *p > 0 {
				reach = max(reach, math.Abs(math.Log(*p)))
			}
		}
	}
	return min(reach*1.1, math.Log(100))
}

func newStrip(v result.ComparedValue, reach float64) *strip {
	b := v.Relative
	if v.Difference || b.Value == nil || b.Low == nil || !(*b.Low > 0) {
		return nil
	}
	place := func(v float64) float64 {
		at := 50 + 46*math.Log(v)/reach
		return math.Round(min(max(at, 0), 100)*10) / 10
	}
	s := &strip{From: place(*b.Low), Value: place(*b.Value), Differs: *b.Low > 1 || *b.High < 1}
	s.Width = max(place(*b.High)-s.From, 0.8)
	return s
}
