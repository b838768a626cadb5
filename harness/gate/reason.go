package gate

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"phasegate/harness/scenario"
)

// text is the condition as it was written.
func (c claim) text() string {
	if c.Text != "" {
		return c.Text
	}
	return fmt.Sprintf("%s %s %s", c.Metric.Name, c.Op, c.format(c.Threshold))
}

func (c claim) asks() string {
	return fmt.Sprintf("the gate asks for %s %s", c.Op, c.format(c.Threshold))
}

// percentile is "95" for p95.
func (c claim) percentile() string {
	return strconv.FormatFloat(math.Round(c.Metric.Quantile*1e6)/1e4, 'f', -1, 64)
}

// tooLong says which requests count against the threshold (or for it).
func (c claim) tooLong() string {
	if c.Op == scenario.LessEqual || c.Op == scenario.Greater {
		return "longer than " + formatSeconds(c.Threshold)
	}
	return formatSeconds(c.Threshold) + " or longer"
}

// clustered says what a sample is worth whose failures may come together.
func clustered(n, effect float64) string {
	if effect < 1.05 {
		return ""
	}
	if n < effect {
		return ", counted as less than one independent one"
	}
	return fmt.Sprintf(", counted as %s independent ones", formatCount(math.Floor(n/effect)))
}

// changed says when a run changed its level, and from what to what.
func (c claim) changed(t tally, b bounds) string {
	if len(b.changes) == 0 {
		return ""
	}
	var shares []string
	ends := append(b.changes[:len(b.changes):len(b.changes)], len(t.counts))
	for from, i := 0, 0; i < len(ends); from, i = ends[i], i+1 {
		var k, n float64
		for _, count := range t.counts[from:ends[i]] {
			k, n = k+count.K, n+count.N
		}
		level := formatShare(min(max(k/n, 0), 1)) // the ledger may count a second's reads in the next
		if i > 0 {
			level += fmt.Sprintf(" after %s", formatSeconds((c.window.Intervals[from].Start - c.window.From).Seconds()))
		}
		shares = append(shares, level)
	}
	return "; it changed from " + strings.Join(shares, " to ") + ", and is judged around these levels"
}

// explainBounds gives a reason for a verdict that rests on Low and High. needed
// says what would decide it if the interval had to shrink by a factor.
func (c claim) explainBounds(j *Judgement, needed func(factor float64) need) {
	value, low, high := *j.Value, *j.Low, *j.High
	switch {
	case j.Verdict == Pass:
	case j.Verdict == Fail && atMost(c.Op):
		j.Reason = fmt.Sprintf("%s is %s, at least %s at %s confidence; %s", c.Metric.Name, c.format(value), c.format(low), formatShare(c.level), c.asks())
	case j.Verdict == Fail:
		j.Reason = fmt.Sprintf("%s is %s, at most %s at %s confidence; %s", c.Metric.Name, c.format(value), c.format(high), formatShare(c.level), c.asks())
	default:
		// The bound towards the threshold must come in as far as it.
		width, distance := high-value, c.Threshold-value
		if value > c.Threshold {
			width, distance = value-low, value-c.Threshold
		}
		j.need = beyondReach
		if factor := width / distance; distance > 0 && factor < 1e4 {
			j.need = needed(max(factor, 1))
		}
		j.Reason = fmt.Sprintf("%s is %s, between %s and %s; %s", c.Metric.Name, c.format(value), c.format(low), c.format(high), c.asks())
	}
}

func (c claim) format(v float64) string { return formatUnit(c.Metric.Unit, v) }

func formatUnit(u scenario.Unit, v float64) string {
	switch u {
	case scenario.Seconds:
		return formatSeconds(v)
	case scenario.Bytes:
		return formatBytes(v)
	case scenario.BytesPerHour:
		return formatBytes(v) + "/hour"
	case scenario.Share:
		return formatShare(v)
	case scenario.PerSecond:
		return significant(v, 3) + "/s"
	case scenario.Count:
		return formatCount(v)
	case scenario.Ratio:
		return significant(v, 3) + "x"
	default:
		return significant(v, 3)
	}
}

// formatShare writes per cent with three digits of the share or of what is
// missing to all, whichever is smaller: 99.9743 %, not 100 %.
func formatShare(v float64) string {
	p := 100 * v
	small := min(math.Abs(p), math.Abs(100-p))
	decimals := 0
	if small > 0 && !math.IsInf(small, 0) {
		decimals = min(max(2-int(math.Floor(math.Log10(small))), 0), 9)
	}
	return trim(strconv.FormatFloat(p, 'f', decimals, 64)) + " %"
}

// formatSeconds writes a time in the unit that suits it: 464ms, 2.5s.
func formatSeconds(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0s"
	case a < 1e-3:
		return significant(v*1e6, 3) + "µs"
	case a < 1:
		return significant(v*1e3, 3) + "ms"
	default:
		return significant(v, 3) + "s"
	}
}

// formatLong writes how long something takes, rounded up.
func formatLong(seconds float64) string {
	switch {
	case seconds < 120:
		return formatCount(max(math.Ceil(seconds), 1)) + " s"
	case seconds < 2*3600:
		return formatCount(math.Ceil(seconds/60)) + " min"
	case seconds < 48*3600:
		return formatCount(math.Ceil(seconds/3600)) + " h"
	default:
		return formatCount(math.Ceil(seconds/86400)) + " days"
	}
}

func formatBytes(v float64) string {
	switch a := math.Abs(v); {
	case a < 1e3:
		return formatCount(v) + " B"
	case a < 1e6:
		return significant(v/1e3, 3) + " kB"
	case a < 1e9:
		return significant(v/1e6, 3) + " MB"
	default:
		return significant(v/1e9, 3) + " GB"
	}
}

// significant writes v with so many digits, but never fewer than its integer
// part has.
func significant(v float64, digits int) string {
	decimals := digits - 1
	if v != 0 && !math.IsInf(v, 0) && !math.IsNaN(v) {
		decimals = min(max(digits-1-int(math.Floor(math.Log10(math.Abs(v)))), 0), 12)
	}
	return thousands(trim(strconv.FormatFloat(v, 'f', decimals, 64)))
}

func formatCount(v float64) string { return thousands(strconv.FormatFloat(math.Round(v), 'f', 0, 64)) }

func trim(s string) string {
	if !strings.Contains(s, ".") {
		return s
	}
	return strings.TrimRight(strings.TrimRight(s, "0"), ".")
}

// thousands puts a comma between every three digits of the integer part.
func thousands(s string) string {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	whole, fraction, dotted := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if dotted {
		whole += "." + fraction
	}
	return sign + whole
}
