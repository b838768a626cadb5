package httpcache

import (
	"strings"
	"time"
)

// ValidDate reports whether s is an HTTP-date in one of its three forms.
func ValidDate(s string) bool {
	_, ok := parseDate(s, time.Time{})
	return ok
}

// parseDate reads an HTTP-date in any of its three forms (RFC 9110 §5.6.7), in any
// case and in no zone but GMT, as RFC 9111 §4.2 asks of caches. now tells which
// century a year of two digits is in: not more than 50 years ahead. A day of the
// week that the date doesn't fall on is overlooked.
func parseDate(s string, now time.Time) (time.Time, bool) {
	s = strings.Trim(s, " \t")
	day, rest, comma := strings.Cut(s, ",")
	var layout string
	switch {
	case shaped(s, "aaa, dd aaa dddd dd:dd:dd GMT"):
		layout = "Mon, 02 Jan 2006 15:04:05 GMT"
	case comma && shaped(rest, " dd-aaa-dd dd:dd:dd GMT"):
		s, layout = day+","+rest, "Monday, 02-Jan-06 15:04:05 GMT"
	case shaped(s, "aaa aaa _d dd:dd:dd dddd"):
		t, err := time.Parse(time.ANSIC, s)
		return t, err == nil
	default:
		return time.Time{}, false
	}
	t, err := time.Parse(layout, s[:len(s)-3]+"GMT")
	if err != nil {
		return time.Time{}, false
	}
	if comma && len(day) > 3 {
		year := now.Year() - now.Year()%100 + t.Year()%100
		if year > now.Year()+50 {
			year -= 100
		}
		t = t.AddDate(year-t.Year(), 0, 0)
	}
	return t, true
}

// shaped reports whether s has the form: a is a letter, d a digit, _ a digit or a
// space, anything else itself in any case. time.Parse alone takes hours of one digit
// and fractions of seconds.
func shaped(s, form string) bool {
	if len(s) != len(form) {
		return false
	}
	for i := range len(form) {
		c := s[i]
		digit, letter := '0' <= c && c <= '9', 'a' <= c|0x20 && c|0x20 <= 'z'
		ok := c == form[i] || letter && c&^0x20 == form[i]
		switch form[i] {
		case 'a':
			ok = letter
		case 'd':
			ok = digit
		case '_':
			ok = digit || c == ' '
		}
		if !ok {
			return false
		}
	}
	return true
}
