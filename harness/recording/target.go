package recording

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// checkMethod reports what keeps a method from being replayed.
func checkMethod(method string) error {
	if len(method) > 32 || !httpguts.ValidHeaderFieldName(method) { // a token, both
		return fmt.Errorf("method %.40q isn't a token of at most 32 bytes", method)
	}
	if method == "CONNECT" {
		return errors.New("CONNECT asks for a tunnel, not for a resource")
	}
	return nil
}

// originForm makes a request target in origin form (RFC 9112, section 3.2.1)
// of a path or an http URL, and tells the URL's host. A URL is cut down to its
// path and query; bytes above 0x7E are percent-encoded; a fragment, which no
// request has, is dropped. A path with a broken escape is refused, as by servers: they
// answer it with 400 themselves, whatever stands behind them.
func originForm(raw []byte) (target, host string, err error) {
	if len(raw) > 0 && raw[0] != '/' {
		if raw, host, err = cutAuthority(raw); err != nil {
			return "", "", err
		}
	}
	raw, _, _ = bytes.Cut(raw, []byte("#"))
	if len(raw) == 0 {
		return "", "", errors.New("the request has no target")
	}
	path, _, _ := bytes.Cut(raw, []byte("?"))
	if _, err := url.PathUnescape(string(path)); err != nil {
		return "", "", fmt.Errorf("request target %.40q has a %% without two hexadecimal digits after it", raw)
	}
	var out strings.Builder
	for _, c := range raw {
		switch {
		case c <= ' ' || c == 0x7f:
			return "", "", fmt.Errorf("request target %.40q holds %q", raw, string(rune(c)))
		case c > 0x7f:
			fmt.Fprintf(&out, "%%%02X", c)
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), host, nil
}

// cutAuthority cuts the scheme and authority off "http://host/path?query".
func cutAuthority(raw []byte) (target []byte, host string, err error) {
	if string(raw) == "*" {
		return nil, "", errors.New(`request target "*" asks the server, not for a resource`)
	}
	for _, scheme := range []string{"http://", "https://"} {
		if len(raw) < len(scheme) || !strings.EqualFold(string(raw[:len(scheme)]), scheme) {
			continue
		}
		rest := raw[len(scheme):]
		i := bytes.IndexAny(rest, "/?#")
		if i < 0 {
			i = len(rest)
		}
		host = strings.ToLower(string(rest[:i]))
		host = host[strings.LastIndexByte(host, '@')+1:]
		switch {
		case i == len(rest) || rest[i] == '#':
			return []byte("/"), host, nil
		case rest[i] == '?':
			return append([]byte("/"), rest[i:]...), host, nil
		default:
			return rest[i:], host, nil
		}
	}
	return nil, "", fmt.Errorf("request target %.40q is neither a path nor an http URL", raw)
}
