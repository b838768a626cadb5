package recording

import (
	"fmt"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// notReplayed are the header fields that aren't sent again, by their names in
// lower case, and why.
var notReplayed = map[string]bool{
	// The load generator names the system and itself.
	"host": true, "user-agent": true,
	// It frames the message.
	"content-length": true, "transfer-encoding": true, "trailer": true, "te": true, "expect": true,
	// They hold for one connection (RFC 9110, section 7.6.1).
	"connection": true, "keep-alive": true, "proxy-connection": true, "upgrade": true, "http2-settings": true,
	"proxy-authorization": true,
	// It holds bodies against what the upstream made.
	"accept-encoding": true,
}

// secrets are the fields that a browser's recording isn't replayed with.
var secrets = map[string]bool{"cookie": true, "authorization": true}

// replayed picks the header fields that are sent again; those for which drop
// is true aren't either. The error says what keeps the request from being
// sent.
func replayed(fields [][2]string, drop map[string]bool) ([][2]string, error) {
	named := map[string]bool{} // by Connection
	for _, f := range fields {
		if strings.EqualFold(f[0], "Connection") {
			for name := range strings.SplitSeq(f[1], ",") {
				named[strings.ToLower(strings.TrimSpace(name))] = true
			}
		}
	}
	var kept [][2]string
	for _, f := range fields {
		name := strings.ToLower(f[0])
		if strings.HasPrefix(name, ":") || notReplayed[name] || drop[name] || named[name] {
			continue
		}
		value := strings.Trim(f[1], " \t")
		if !httpguts.ValidHeaderFieldName(f[0]) {
			return nil, fmt.Errorf("header field %.40q isn't named by a token", f[0])
		}
		if !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("header field %.40s has a value that can't be sent: %.40q", f[0], value)
		}
		kept = append(kept, [2]string{f[0], value})
	}
	return kept, nil
}

// has reports whether any of the fields is in the set of lower-case names.
func has(fields [][2]string, names map[string]bool) bool {
	for _, f := range fields {
		if names[strings.ToLower(f[0])] {
			return true
		}
	}
	return false
}
