package scenario

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oneOf is a choice of words.
func oneOf[S ~string](words ...S) *kindOf {
	allowed := make([]string, len(words))
	for i, w := range words {
		allowed[i] = string(w)
	}
	return &kindOf{listed(allowed), func(text string) (any, error) {
		if !slices.Contains(allowed, text) {
			return nil, fmt.Errorf("%s is none of the choices%s", quote(text), meant(text, allowed))
		}
		return text, nil
	}, map[string]any{"enum": allowed}}
}

// meant suggests the nearest words, as a clause.
func meant(word string, among []string) string {
	if near := Nearest(word, among); near != nil {
		return " (nearest: " + listed(near) + ")"
	}
	return ""
}

// whole is a whole number from low to high, an int.
func whole(low, high int) *kindOf {
	return &kindOf{fmt.Sprintf("a whole number from %d to %d", low, high), parsed(func(text string) (int, error) {
		n, err := parseCount(text)
		if err == nil && (n < float64(low) || n > float64(high)) {
			err = fmt.Errorf("%s is out of range", quote(text))
		}
		return int(n), err
	}), map[string]any{"type": "integer", "minimum": low, "maximum": high}}
}

// number is a plain number from low to high, a float64.
func number(low, high float64) *kindOf {
	return &kindOf{fmt.Sprintf("a number from %v to %v", low, strconv.FormatFloat(high, 'f', -1, 64)), parsed(func(text string) (float64, error) {
		n, unit, err := splitNumber(text)
		switch {
		case err != nil:
		case unit != "":
			err = fmt.Errorf("%s has the unknown unit %s", quote(text), quote(unit))
		case n < low || n > high:
			err = fmt.Errorf("%s is out of range", quote(text))
		}
		return n, err
	}), map[string]any{"type": "number", "minimum": low, "maximum": high}}
}

func parseText(text string) (string, error) {
	if strings.TrimSpace(text) == "" {
		return "", errors.New("empty")
	}
	return text, nil
}

func parseFlag(text string) (bool, error) {
	if text != "true" && text != "false" {
		return false, fmt.Errorf("%s is neither", quote(text))
	}
	return text == "true", nil
}

func parseSeed(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a whole number from 0 to 2^64−1", quote(text))
	}
	return n, nil
}

func parseName(text string) (string, error) {
	if !namePattern.MatchString(text) {
		return "", fmt.Errorf("%s is not a name", quote(text))
	}
	return text, nil
}

func parsePath(text string) (string, error) {
	if !pathPattern.MatchString(text) {
		return "", fmt.Errorf("%s is not a path", quote(text))
	}
	for _, p := range placeholder.FindAllString(text, -1) {
		if p != "{key}" {
			return "", fmt.Errorf("%s has the unknown placeholder %s, {key} is the only one", quote(text), p)
		}
	}
	return text, nil
}

func parsePrefix(text string) (string, error) {
	if !pathPattern.MatchString(text) {
		return "", fmt.Errorf("%s is not a path", quote(text))
	}
	return text, nil
}

// paceMax is the word for a closed loop.
const paceMax = "max"

// parsePace returns paceMax, or a rate per second as a number.
func parsePace(text string) (any, error) {
	if text == paceMax {
		return paceMax, nil
	}
	return parsed(parseRate)(text)
}

// parseConnections returns 0 for auto.
func parseConnections(text string) (int, error) {
	if text == "auto" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 100_000 {
		return 0, fmt.Errorf("%s is neither", quote(text))
	}
	return n, nil
}

// parseLoopback accepts localhost, 127.0.0.0/8 and [::1] with a port.
func parseLoopback(text string) (string, error) {
	u, err := url.Parse("//" + text)
	if err != nil || u.Host != text || u.Hostname() == "" {
		return "", fmt.Errorf("%s is not HOST:PORT", quote(text))
	}
	if !validPort(u.Port()) {
		return "", fmt.Errorf("%s has no port from 1 to 65535", quote(text))
	}
	if h := u.Hostname(); h != "localhost" && h != "::1" && !loopback4.MatchString(h) {
		return "", fmt.Errorf("%s is not a loopback address, and the mock upstream must not be reachable from outside", quote(text))
	}
	return text, nil
}

func validPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

var loopback4 = regexp.MustCompile(`^127(\.(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}$`)

// parseBaseURL accepts a server's address and nothing that each request
// brings itself.
func parseBaseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s is not a URL", quote(text))
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%s begins with neither http:// nor https://", quote(text))
	case u.Hostname() == "":
		return nil, fmt.Errorf("%s has no host", quote(text))
	case u.Port() != "" && !validPort(u.Port()):
		return nil, fmt.Errorf("%s has no port from 1 to 65535", quote(text))
	case u.User != nil:
		return nil, fmt.Errorf("%s has a user in it, which would end up in reports", quote(u.Redacted()))
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("%s has a path, and the load brings its own", quote(text))
	}
	u.Path = ""
	return u, nil
}
