package plots

import (
	"math"
	"strconv"

	"phasegate/reports/unit"
)

// tick is a grid line; without a label it is a fine one.
type tick struct {
	at    float64
	label string
}

// axis maps values to 0…1.
type axis struct {
	min, max float64
	log      bool
	ticks    []tick
}

func (a axis) position(v float64) float64 {
	if !a.log {
		return (v - a.min) / (a.max - a.min)
	}
	// Zero has no place on a log axis; it is drawn on its lower edge.
	v = max(v, a.min)
	return math.Log(v/a.min) / math.Log(a.max/a.min)
}

// linearAxis covers low to high with round steps, about n of them.
func linearAxis(low, high float64, u string, n int) axis {
	if high <= low {
		high = low + 1
	}
	step := niceStep((high - low) / float64(n))
	a := axis{min: math.Floor(low/step+1e-9) * step, max: math.Ceil(high/step-1e-9) * step}
	for i := range int(math.Round((a.max-a.min)/step)) + 1 {
		v := a.min + float64(i)*step
		a.ticks = append(a.ticks, tick{v, unit.Exact(v, u)})
	}
	return a
}

// niceStep rounds up to 1, 2, 2.5 or 5 times a power of ten.
func niceStep(step float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(step)))
	for _, m := range []float64{1, 2, 2.5, 5} {
		if step <= m*power*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

// logAxis covers low to high, both above zero, ending on 1, 2 or 5 times a power
// of ten. Up to three decades it labels these, else the powers only.
func logAxis(low, high float64, u string) axis {
	steps := []float64{1, 2, 5}
	var marks []tick
	for exp := int(math.Floor(math.Log10(low))) - 1; exp <= int(math.Ceil(math.Log10(high)))+1; exp++ {
		for _, m := range steps {
			// Parsed, so that 1e-3 is the number that a threshold of 1 ms is.
			v, _ := strconv.ParseFloat(strconv.Itoa(int(m))+"e"+strconv.Itoa(exp), 64)
			marks = append(marks, tick{at: v})
		}
	}
	first, last := 0, len(marks)-1
	for marks[first+1].at <= low {
		first++
	}
	for marks[last-1].at >= high {
		last--
	}
	if last-first < 2 {
		first, last = max(first-1, 0), min(last+1, len(marks)-1)
	}
	a := axis{min: marks[first].at, max: marks[last].at, log: true}
	wide := math.Log10(a.max/a.min) > 2.4
	for i := first; i <= last; i++ {
		m := marks[i]
		if i%3 == 0 || !wide {
			m.label = unit.Exact(m.at, u)
		}
		a.ticks = append(a.ticks, m)
	}
	return a
}

// timeAxis covers a run from low to high seconds with at most n labels.
func timeAxis(low, high float64, n int) axis {
	if high <= low {
		high = low + 1
	}
	step := 0.0
	for _, s := range []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200} {
		if step = s; (high-low)/s <= float64(n) {
			break
		}
	}
	for (high-low)/step > float64(n) {
		step *= 2
	}
	a := axis{min: low, max: high}
	for i := math.Ceil(low/step - 1e-9); i*step <= high*(1+1e-9); i++ {
		v := i * step
		text := unit.Exact(v, "s")
		switch {
		case v == 0:
			text = "0"
		case v < 1:
			text = strconv.FormatFloat(v, 'g', 3, 64) + " s"
		case step >= 60 && v < 3600:
			text = strconv.FormatFloat(v/60, 'g', 3, 64) + " m"
		case step >= 60:
			text = unit.Duration(v)
		}
		a.ticks = append(a.ticks, tick{v, text})
	}
	return a
}

// percentileAxis is HdrHistogram's: x = 1/(1−q) on a log scale, so that each
// further nine takes the same room. It covers 0 % to the percentile that one of
// n samples lies beyond.
func percentileAxis(n float64) axis {
	a := axis{min: 1, max: max(n, 10), log: true}
	a.ticks = append(a.ticks, tick{1, "0 %"}, tick{2, "50 %"}, tick{4, ""})
	for x, digits := 10.0, -1; x <= a.max*(1+1e-9); x, digits = x*10, digits+1 {
		text := strconv.FormatFloat(100*(1-1/x), 'f', max(digits, 0), 64) + " %"
		a.ticks = append(a.ticks, tick{x, text}, tick{2 * x, ""}, tick{5 * x, ""})
	}
	return a
}
