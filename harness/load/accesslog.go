package load

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"phasegate/fixtures/upstream/wire"
)

const (
	maxLine     = 64 << 10 // bytes of one log line; longer ones can't be replayed
	keepReasons = 20       // lines whose reason is kept
)

// logLine is what replay needs of one line of an access log.
type logLine struct {
	at     time.Time
	method string
	target string // path and query
	status int
	size   int64 // of the body; 0 for "-"
}

// parseLine reads one line in Apache's or nginx's common or combined log
// format, without its line end:
//
//	host ident user [02/Jan/2006:15:04:05 -0700] "GET /path?query HTTP/1.1" 200 512 "referer" "agent"
//
// Whatever stands before the time and after the size may have any form, so
// formats that put a virtual host in front or a duration behind are read too.
// The error says what keeps the line from being replayed.
func parseLine(line []byte) (logLine, error) {
	var l logLine
	open := bytes.Index(line, []byte(" ["))
	if open < 0 {
		return l, errors.New("no [time]")
	}
	rest := line[open+2:]
	stamp, rest, ok := bytes.Cut(rest, []byte("]"))
	if !ok {
		return l, errors.New("the [time] has no end")
	}
	var err error
	if l.at, err = time.Parse("02/Jan/2006:15:04:05 -0700", string(stamp)); err != nil {
		return l, fmt.Errorf("time %.40q isn't of the form 02/Jan/2006:15:04:05 -0700", stamp)
	}
	rest, ok = bytes.CutPrefix(rest, []byte(` "`))
	if !ok {
		return l, errors.New(`no "request" after the [time]`)
	}
	requestLine, rest, ok := unquote(rest)
	if !ok {
		return l, errors.New(`the "request" has no end`)
	}
	fields := bytes.Fields(rest)
	if len(fields) < 2 || len(rest) == 0 || rest[0] != ' ' {
		return l, errors.New(`no status and size after the "request"`)
	}
	l.status, err = strconv.Atoi(string(fields[0]))
	if err != nil || len(fields[0]) != 3 || l.status < 100 || l.status > 599 {
		return l, fmt.Errorf("status %.20q; allowed is 100 to 599", fields[0])
	}
	if size := string(fields[1]); size != "-" {
		l.size, err = strconv.ParseInt(size, 10, 64)
		if err != nil || l.size < 0 || l.size > wire.MaxSize || size[0] == '+' {
			return l, fmt.Errorf("size %.20q; allowed is a number of bytes up to %d, or -", size, int64(wire.MaxSize))
		}
	}
	l.method, l.target, err = splitRequestLine(requestLine)
	return l, err
}

// unquote reads up to the closing quote and undoes the escapes with which
// Apache and nginx keep a field in its quotes: \" and \\, \n, \t and the like,
// and \xHH. An escape that neither writes stands for itself.
func unquote(b []byte) (field, rest []byte, ok bool) {
	end := bytes.IndexAny(b, `"\`)
	if end < 0 {
		return nil, nil, false
	}
	if b[end] == '"' { // the usual case: nothing is escaped
		return b[:end], b[end+1:], true
	}
	field = append(field, b[:end]...)
	for i := end; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return field, b[i+1:], true
		case c != '\\':
			field = append(field, c)
		case i+1 == len(b):
			return nil, nil, false
		default:
			i++
			if b[i] == 'x' && i+2 < len(b) {
				if n, err := strconv.ParseUint(string(b[i+1:i+3]), 16, 8); err == nil {
					field = append(field, byte(n))
					i += 2
					continue
				}
			}
			if at := strings.IndexByte("nrtvbf", b[i]); at >= 0 {
				field = append(field, "\n\r\t\v\b\f"[at])
				continue
			}
			if b[i] != '"' && b[i] != '\\' {
				field = append(field, '\\')
			}
			field = append(field, b[i])
		}
	}
	return nil, nil, false
}

// splitRequestLine reads "GET /path HTTP/1.1" into a method and an origin-form
// target (RFC 9112, section 3.2.1). An absolute form is cut down to its path;
// bytes above 0x7E are percent-encoded; a fragment, which no request has, is
// dropped.
func splitRequestLine(b []byte) (method, target string, err error) {
	if len(b) == 0 || string(b) == "-" {
		return "", "", errors.New("the request is empty: the client sent none")
	}
	first, last := bytes.IndexByte(b, ' '), bytes.LastIndexByte(b, ' ')
	if first < 0 || !isToken(string(b[:first])) {
		return "", "", fmt.Errorf("request %.40q doesn't begin with a method", b)
	}
	method = string(b[:first])
	if method == "CONNECT" {
		return "", "", errors.New("CONNECT asks for a tunnel, not for a resource")
	}
	if version := b[last+1:]; first == last || !isVersion(version) {
		return "", "", fmt.Errorf("request %.40q doesn't end with a protocol version", b)
	}
	raw := b[first+1 : last]
	if len(raw) > 0 && raw[0] != '/' {
		if raw, err = originForm(raw); err != nil {
			return "", "", err
		}
	}
	raw, _, _ = bytes.Cut(raw, []byte("#"))
	if len(raw) == 0 {
		return "", "", fmt.Errorf("request %.40q has no target", b)
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
	return method, out.String(), nil
}

// originForm cuts the scheme and authority off "http://host/path?query".
func originForm(raw []byte) ([]byte, error) {
	if string(raw) == "*" {
		return nil, errors.New(`request target "*" asks the server, not for a resource`)
	}
	for _, scheme := range []string{"http://", "https://"} {
		if len(raw) < len(scheme) || !strings.EqualFold(string(raw[:len(scheme)]), scheme) {
			continue
		}
		rest := raw[len(scheme):]
		switch i := bytes.IndexAny(rest, "/?#"); {
		case i < 0 || rest[i] == '#':
			return []byte("/"), nil
		case rest[i] == '?':
			return append([]byte("/"), rest[i:]...), nil
		default:
			return rest[i:], nil
		}
	}
	return nil, fmt.Errorf("request target %.40q is neither a path nor an http URL", raw)
}

// isVersion reports whether b is HTTP/1.0, HTTP/1.1, HTTP/2.0, HTTP/2 or the
// like.
func isVersion(b []byte) bool {
	v, ok := bytes.CutPrefix(b, []byte("HTTP/"))
	digit := func(i int) bool { return v[i] >= '0' && v[i] <= '9' }
	return ok && (len(v) == 1 && digit(0) || len(v) == 3 && digit(0) && v[1] == '.' && digit(2))
}

// ReadAccessLog reads an access log in Apache's or nginx's common or combined
// format, plain or compressed with gzip (told by its first bytes). Lines that
// can't be replayed are counted, and the first few kept with their reasons;
// they are an error only where no line is left.
func ReadAccessLog(path string) (*Log, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read access log: %w", err)
	}
	defer f.Close()
	l, err := readLog(f)
	if err != nil {
		return nil, fmt.Errorf("read access log %s: %w", path, err)
	}
	l.Path = path
	return l, nil
}

func readLog(from io.Reader) (*Log, error) {
	r := bufio.NewReaderSize(from, maxLine)
	if magic, _ := r.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = bufio.NewReaderSize(z, maxLine)
	}
	l := newLog()
	for {
		line, err := r.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("line %d: %w", l.Lines+1, err)
		}
		if len(line) > 0 {
			if err := l.take(line, tooLong); err != nil {
				return nil, err
			}
		}
		if err == io.EOF {
			break
		}
	}
	return l, l.usable()
}

// take adds one line as it was read, line end included.
func (l *Log) take(line []byte, tooLong bool) error {
	l.Lines++
	line = bytes.TrimRight(line, "\r\n")
	if tooLong {
		l.reject(fmt.Errorf("longer than %d bytes", maxLine))
		return nil
	}
	if len(bytes.TrimSpace(line)) == 0 {
		l.Blank++
		return nil
	}
	parsed, err := parseLine(line)
	if err != nil {
		l.reject(err)
		return nil
	}
	if len(l.entries) == math.MaxInt32 {
		return fmt.Errorf("line %d: more than %d requests", l.Lines, len(l.entries))
	}
	l.add(parsed)
	return nil
}

func (l *Log) reject(reason error) {
	l.Malformed++
	if len(l.Problems) < keepReasons {
		l.Problems = append(l.Problems, Problem{Line: l.Lines, Reason: reason.Error()})
	}
}

// usable is the error of a log without a single request.
func (l *Log) usable() error {
	if len(l.entries) > 0 {
		return nil
	}
	if l.Lines == l.Blank {
		return errors.New("it holds no requests")
	}
	reasons := make([]string, 0, 3)
	for _, p := range l.Problems[:min(3, len(l.Problems))] {
		reasons = append(reasons, p.String())
	}
	return fmt.Errorf("none of its %d lines is in common or combined log format: %s", l.Malformed, strings.Join(reasons, "; "))
}
