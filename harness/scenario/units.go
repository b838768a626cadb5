package scenario

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What may be written for each kind of quantity: the end of every message
// about a quantity that can't be read.
const (
	durationAllowed = "a duration such as 250ms, 5m or 24h (units ns, us, ms, s, m, h, d)"
	sizeAllowed     = "a size such as 512B, 8KiB (2^10) or 100MB (10^6) (units B, kB, MB, GB, KiB, MiB, GiB)"
	shareAllowed    = "a share from 0 to 1, such as 70% or 0.7"
	rateAllowed     = "a rate such as 200/s (also /m, /h)"
	growthAllowed   = "a growth such as 10MB/hour (a size per s, m, h or d)"
	ratioAllowed    = "a factor such as 42 or 42x"
	countAllowed    = "a whole number from 0"
	dollarsAllowed  = "an amount such as $0.03"
	pointsAllowed   = "a number from 0 to 10"
)

// unitSize is a unit and its size in the base unit.
type unitSize struct {
	name string
	size float64
}

var timeUnits = []unitSize{
	{"ns", 1}, {"us", 1e3}, {"µs", 1e3}, {"ms", 1e6}, {"s", 1e9},
	{"m", 60e9}, {"min", 60e9}, {"h", 3600e9}, {"hour", 3600e9}, {"d", 86400e9}, {"day", 86400e9},
}

var byteUnits = []unitSize{
	{"B", 1},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
}

func sizeOf(units []unitSize, name string) (float64, bool) {
	i := slices.IndexFunc(units, func(u unitSize) bool { return u.name == name })
	if i < 0 {
		return 0, false
	}
	return units[i].size, true
}

// splitNumber cuts the decimal number off the front of text: "10MB" gives 10
// and "MB". Exponents, hexadecimals and digit separators are no numbers here.
func splitNumber(text string) (number float64, rest string, err error) {
	end := 0
	if strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+") {
		end = 1
	}
	dots, digits := 0, 0
	for ; end < len(text); end++ {
		switch c := text[end]; {
		case c >= '0' && c <= '9':
			digits++
			continue
		case c == '.' && dots == 0:
			dots++
			continue
		}
		break
	}
	if digits == 0 {
		return 0, "", fmt.Errorf("%s is not a number", quote(text))
	}
	number, err = strconv.ParseFloat(text[:end], 64)
	if err != nil {
		return 0, "", fmt.Errorf("%s is too large", quote(text))
	}
	if number < 0 {
		return 0, "", fmt.Errorf("%s is negative", quote(text))
	}
	return number, strings.TrimSpace(text[end:]), nil
}

// quote shows what was found: as written, shortened, and in quotation marks
// where its edges would be unclear.
func quote(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	if text == "" || strings.ContainsAny(text, " \t\r\n\"") || strconv.Quote(text) != `"`+text+`"` {
		return strconv.Quote(text)
	}
	return text
}

// quantity reads one number with one unit, in the base unit.
func quantity(text string, units []unitSize) (float64, error) {
	number, unit, err := splitNumber(text)
	if err != nil {
		return 0, err
	}
	if unit == "" {
		return 0, fmt.Errorf("%s has no unit", quote(text))
	}
	size, ok := sizeOf(units, unit)
	if !ok {
		return 0, fmt.Errorf("%s has the unknown unit %s", quote(text), quote(unit))
	}
	return number * size, nil
}

// parseDuration reads "250ms", "24h" or a sum such as "1h30m".
func parseDuration(text string) (time.Duration, error) {
	if _, _, err := splitNumber(text); err != nil {
		return 0, err
	}
	var sum float64
	for rest := text; ; {
		// The unit of one term ends where the number of the next begins.
		end := strings.IndexFunc(rest, func(r rune) bool { return r > '9' || r == ' ' })
		if end < 0 {
			end = len(rest)
		}
		if next := strings.IndexAny(rest[end:], "0123456789."); next >= 0 {
			end += next
		} else {
			end = len(rest)
		}
		term, err := quantity(rest[:end], timeUnits)
		if err != nil {
			if rest == text && end == len(rest) {
				return 0, err
			}
			return 0, fmt.Errorf("%s: %w", quote(text), err)
		}
		sum += term
		if rest = rest[end:]; rest == "" {
			break
		}
	}
	if sum > math.MaxInt64/2 { // 146 years; leaves room to add durations
		return 0, fmt.Errorf("%s is too long", quote(text))
	}
	return time.Duration(math.Round(sum)), nil
}

// parseSize reads "512B", "8KiB" or "100MB" as bytes.
func parseSize(text string) (int64, error) {
	n, err := quantity(text, byteUnits)
	switch {
	case err != nil:
		return 0, err
	case n > 1<<53:
		return 0, fmt.Errorf("%s is too large", quote(text))
	case n != math.Trunc(n):
		return 0, fmt.Errorf("%s is not a whole number of bytes", quote(text))
	}
	return int64(n), nil
}

// parseShare reads "70%" or "0.7".
func parseShare(text string) (float64, error) {
	n, unit, err := splitNumber(text)
	switch {
	case err != nil:
		return 0, err
	case unit == "%" && n > 100:
		return 0, fmt.Errorf("%s is more than 100%%", quote(text))
	case unit == "%":
		return n / 100, nil
	case unit != "":
		return 0, fmt.Errorf("%s has the unknown unit %s", quote(text), quote(unit))
	case n > 1:
		return 0, fmt.Errorf("%s is more than 1, which is 100%%", quote(text))
	}
	return n, nil
}

// parseRate reads "200/s", "90/m" or "1/h" as a number per second.
func parseRate(text string) (float64, error) {
	n, unit, err := splitNumber(text)
	if err != nil {
		return 0, err
	}
	if unit == "" {
		return 0, fmt.Errorf("%s has no unit", quote(text))
	}
	per, isRate := strings.CutPrefix(unit, "/")
	size, ok := sizeOf(timeUnits, strings.TrimSpace(per))
	if !isRate || !ok || size < 1e9 {
		return 0, fmt.Errorf("%s has the unknown unit %s", quote(text), quote(unit))
	}
	return n / (size / 1e9), nil
}

// parseGrowth reads "10MB/hour" as bytes per hour.
func parseGrowth(text string) (float64, error) {
	amount, per, ok := strings.Cut(text, "/")
	n, err := quantity(strings.TrimSpace(amount), byteUnits)
	if err != nil {
		return 0, err
	}
	size, known := sizeOf(timeUnits, strings.TrimSpace(per))
	switch {
	case !ok:
		return 0, fmt.Errorf("%s is not per unit of time", quote(text))
	case !known || size < 1e9:
		return 0, fmt.Errorf("%s has the unknown unit of time %s", quote(text), quote(per))
	}
	return n * (3600e9 / size), nil
}

// parseRatio reads "42" or "42x".
func parseRatio(text string) (float64, error) {
	n, unit, err := splitNumber(text)
	if err == nil && unit != "" && unit != "x" {
		err = fmt.Errorf("%s has the unknown unit %s", quote(text), quote(unit))
	}
	return n, err
}

// parseCount reads a whole number.
func parseCount(text string) (float64, error) {
	n, unit, err := splitNumber(text)
	switch {
	case err != nil:
		return 0, err
	case unit != "":
		return 0, fmt.Errorf("%s has the unknown unit %s", quote(text), quote(unit))
	case n != math.Trunc(n):
		return 0, fmt.Errorf("%s is not a whole number", quote(text))
	}
	return n, nil
}

// parseDollars reads "$0.03".
func parseDollars(text string) (float64, error) {
	amount, ok := strings.CutPrefix(text, "$")
	if !ok {
		return 0, fmt.Errorf("%s does not begin with $", quote(text))
	}
	n, unit, err := splitNumber(amount)
	if err == nil && unit != "" {
		err = fmt.Errorf("%s has the unknown unit %s", quote(text), quote(unit))
	}
	return n, err
}

// parsePoints reads a bare number on a scale of ten.
func parsePoints(text string) (float64, error) {
	n, unit, err := splitNumber(text)
	switch {
	case err != nil:
		return 0, err
	case unit != "":
		return 0, fmt.Errorf("%s has the unknown unit %s", quote(text), quote(unit))
	case n > 10:
		return 0, fmt.Errorf("%s is more than 10", quote(text))
	}
	return n, nil
}

// parse reads a threshold in unit u. The error says what was found and what
// is allowed.
func (u Unit) parse(text string) (float64, error) {
	var n float64
	var err error
	var allowed string
	switch u {
	case Seconds:
		var d time.Duration
		d, err = parseDuration(text)
		n, allowed = d.Seconds(), durationAllowed
	case Bytes:
		var size int64
		size, err = parseSize(text)
		n, allowed = float64(size), sizeAllowed
	case BytesPerHour:
		n, err = parseGrowth(text)
		allowed = growthAllowed
	case Share:
		n, err = parseShare(text)
		allowed = shareAllowed
	case PerSecond:
		n, err = parseRate(text)
		allowed = rateAllowed
	case Count:
		n, err = parseCount(text)
		allowed = countAllowed
	case Ratio:
		n, err = parseRatio(text)
		allowed = ratioAllowed
	case Dollars:
		n, err = parseDollars(text)
		allowed = dollarsAllowed
	case Points:
		n, err = parsePoints(text)
		allowed = pointsAllowed
	}
	if err == nil && math.IsInf(n, 0) {
		err = errors.New(quote(text) + " is too large")
	}
	if err != nil {
		return 0, fmt.Errorf("%w; allowed: %s", err, allowed)
	}
	return n, nil
}
