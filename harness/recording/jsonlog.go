package recording

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// jsonLine is a line of an access log that nginx writes with
//
//	log_format name escape=json '{"msec":$msec,"request":"$request","status":$status,…}';
//
// Fields are named after nginx's variables; others are passed over. Of those
// that say the same the first one here is used.
type jsonLine struct {
	Msec        text `json:"msec"`         // seconds since 1970, with milliseconds
	TimeISO8601 text `json:"time_iso8601"` // 2015-05-17T10:05:03+02:00
	TimeLocal   text `json:"time_local"`   // 17/May/2015:10:05:03 +0200
	Time        text `json:"time"`         // any of the three
	Timestamp   text `json:"timestamp"`
	AtTimestamp text `json:"@timestamp"`

	RequestMethod text `json:"request_method"`
	Method        text `json:"method"`
	RequestURI    text `json:"request_uri"` // as it was asked for
	URI           text `json:"uri"`         // decoded, without …
	Args          text `json:"args"`        // … the query
	Request       text `json:"request"`     // GET /path?query HTTP/1.1

	Status        text `json:"status"`
	BodyBytesSent text `json:"body_bytes_sent"`
	BytesSent     text `json:"bytes_sent"` // with the header: better than nothing
}

// text is a JSON string or number: which one is up to who wrote the format.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		var s string
		err := json.Unmarshal(b, &s)
		*t = text(s)
		return err
	}
	switch b[0] {
	case '{', '[', 't', 'f':
		return fmt.Errorf("%.40s where a string or a number is expected", b)
	case 'n':
		return nil
	}
	*t = text(b)
	return nil
}

// parseJSONLine reads one line. The error says what keeps it from being
// replayed.
func parseJSONLine(line []byte) (found, error) {
	var q found
	var l jsonLine
	if err := json.Unmarshal(line, &l); err != nil {
		return q, &misplaced{jsonColumn(err), fmt.Errorf("not a JSON object: %w", err)}
	}
	var err error
	if q.at, err = l.time(); err != nil {
		return q, err
	}
	if q.method, q.target, err = l.requested(); err != nil {
		return q, err
	}
	if l.Status == "" {
		return q, errors.New(`no "status"`)
	}
	if q.status, err = parseStatus(string(l.Status)); err != nil {
		return q, err
	}
	if size := first(l.BodyBytesSent, l.BytesSent); size != "" {
		q.size, err = parseSize(size)
	}
	return q, err
}

// jsonColumn is where in a text json found an error.
func jsonColumn(err error) int {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return int(max(syntax.Offset, 1))
	case errors.As(err, &kind):
		return int(max(kind.Offset, 1))
	}
	return 1
}

// first returns the first that isn't empty.
func first(texts ...text) string {
	for _, t := range texts {
		if t != "" {
			return string(t)
		}
	}
	return ""
}

func (l *jsonLine) time() (time.Time, error) {
	stamp := first(l.Msec, l.TimeISO8601, l.TimeLocal, l.Time, l.Timestamp, l.AtTimestamp)
	if stamp == "" {
		return time.Time{}, errors.New(`no "msec", "time_iso8601" or "time_local"`)
	}
	if t, err := parseEpoch(stamp); err == nil {
		return t, nil
	}
	for _, layout := range []string{time.RFC3339, localTime} {
		if t, err := time.Parse(layout, stamp); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("time %.40q is neither seconds since 1970 nor of the form %s or %s", stamp, time.RFC3339, localTime)
}

// parseEpoch reads seconds since 1970 with up to nine decimals, exactly: as a
// float64 they would be good for 0.2 µs only.
func parseEpoch(text string) (time.Time, error) {
	whole, fraction, _ := strings.Cut(text, ".")
	if len(fraction) > 9 {
		fraction = fraction[:9]
	}
	s, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || s >= 1<<33 { // the year 2242
		return time.Time{}, errors.New("no seconds since 1970")
	}
	ns := uint64(0)
	if fraction != "" {
		if ns, err = strconv.ParseUint(fraction+strings.Repeat("0", 9-len(fraction)), 10, 32); err != nil {
			return time.Time{}, err
		}
	}
	return time.Unix(int64(s), int64(ns)).UTC(), nil
}

// requested finds out what was asked for.
func (l *jsonLine) requested() (method, target string, err error) {
	method = first(l.RequestMethod, l.Method)
	switch {
	case method != "" && l.RequestURI != "":
		target, _, err = originForm([]byte(l.RequestURI))
	case l.Request != "":
		return splitRequestLine([]byte(l.Request))
	case method != "" && l.URI != "":
		target, _, err = originForm(escapeURI(string(l.URI), string(l.Args)))
	default:
		return "", "", errors.New(`no "request", and no "request_method" with "request_uri" or "uri"`)
	}
	if err == nil {
		err = checkMethod(method)
	}
	return method, target, err
}

// escapeURI undoes nginx's decoding of $uri and puts $args behind it.
func escapeURI(uri, args string) []byte {
	var out bytes.Buffer
	for i := range len(uri) {
		if c := uri[i]; c <= ' ' || c == 0x7f || c == '%' || c == '?' || c == '#' {
			fmt.Fprintf(&out, "%%%02X", c)
		} else {
			out.WriteByte(c)
		}
	}
	if args != "" && args != "-" {
		out.WriteString("?" + args)
	}
	return out.Bytes()
}
