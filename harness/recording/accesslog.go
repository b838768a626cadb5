package recording

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"phasegate/fixtures/upstream/wire"

	"golang.org/x/net/http/httpguts"
)

// parseLine reads one line in Apache's or nginx's common or combined log
// format, without its line end:
//
//	host ident user [02/Jan/2006:15:04:05 -0700] "GET /path?query HTTP/1.1" 200 512 "referer" "agent"
//
// Whatever stands before the time and after the size may have any form, so
// formats that put a virtual host in front or a duration behind are read too.
// The error says what keeps the line from being replayed.
func parseLine(line []byte) (found, error) {
	var l found
	// at places an error at what is left of the line.
	at := func(left int, err error) error { return &misplaced{1 + len(line) - left, err} }
	open := bytes.Index(line, []byte(" ["))
	if open < 0 {
		return l, errors.New("no [time]")
	}
	rest := line[open+2:]
	left := len(rest)
	stamp, rest, ok := bytes.Cut(rest, []byte("]"))
	if !ok {
		return l, at(left, errors.New("the [time] has no end"))
	}
	var err error
	if l.at, err = time.Parse(localTime, string(stamp)); err != nil {
		return l, at(left, fmt.Errorf("time %.40q isn't of the form %s", stamp, localTime))
	}
	left = len(rest)
	rest, ok = bytes.CutPrefix(rest, []byte(` "`))
	if !ok {
		return l, at(left, errors.New(`no "request" after the [time]`))
	}
	request := len(rest)
	requestLine, rest, ok := unquote(rest)
	if !ok {
		return l, at(request, errors.New(`the "request" has no end`))
	}
	fields := bytes.Fields(rest)
	if len(fields) < 2 || len(rest) == 0 || rest[0] != ' ' {
		return l, at(len(rest), errors.New(`no status and size after the "request"`))
	}
	left = len(bytes.TrimLeft(rest, " \t"))
	if l.status, err = parseStatus(string(fields[0])); err != nil {
		return l, at(left, err)
	}
	left = len(bytes.TrimLeft(rest[len(rest)-left+len(fields[0]):], " \t"))
	if l.size, err = parseSize(string(fields[1])); err != nil {
		return l, at(left, err)
	}
	if l.method, l.target, err = splitRequestLine(requestLine); err != nil {
		return l, at(request, err)
	}
	return l, nil
}

// localTime is the form of Apache's and nginx's own times.
const localTime = "02/Jan/2006:15:04:05 -0700"

func parseStatus(text string) (int, error) {
	status, err := strconv.Atoi(text)
	if err != nil || len(text) != 3 || status < 100 || status > 599 {
		return 0, fmt.Errorf("status %.20q; allowed is 100 to 599", text)
	}
	return status, nil
}

// parseSize reads the size of a body; "-" is 0.
func parseSize(text string) (int64, error) {
	if text == "-" {
		return 0, nil
	}
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil || size < 0 || size > wire.MaxSize || text[0] == '+' {
		return 0, fmt.Errorf("size %.20q; allowed is a number of bytes up to %d, or -", text, int64(wire.MaxSize))
	}
	return size, nil
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

// splitRequestLine reads "GET /path HTTP/1.1" into a method and a target in
// origin form.
func splitRequestLine(b []byte) (method, target string, err error) {
	if len(b) == 0 || string(b) == "-" {
		return "", "", errors.New("the request is empty: the client sent none")
	}
	first, last := bytes.IndexByte(b, ' '), bytes.LastIndexByte(b, ' ')
	if first < 0 || !httpguts.ValidHeaderFieldName(string(b[:first])) {
		return "", "", fmt.Errorf("request %.40q doesn't begin with a method", b)
	}
	method = string(b[:first])
	if err := checkMethod(method); err != nil {
		return "", "", err
	}
	if version := b[last+1:]; first == last || !isVersion(version) {
		return "", "", fmt.Errorf("request %.40q doesn't end with a protocol version", b)
	}
	target, _, err = originForm(b[first+1 : last])
	return method, target, err
}

// isVersion reports whether b is HTTP/1.0, HTTP/1.1, HTTP/2.0, HTTP/2 or the
// like.
func isVersion(b []byte) bool {
	v, ok := bytes.CutPrefix(b, []byte("HTTP/"))
	digit := func(i int) bool { return v[i] >= '0' && v[i] <= '9' }
	return ok && (len(v) == 1 && digit(0) || len(v) == 3 && digit(0) && v[1] == '.' && digit(2))
}

// ReadAccessLog reads an access log, plain or compressed with gzip (told by its
// first bytes). Every line is in Apache's or nginx's common or combined format,
// or a JSON object as nginx writes it (log_format … escape=json).
func ReadAccessLog(path string) (*Recording, error) {
	return read(path, accessLog, (*Recording).logLines)
}

func (r *Recording) logLines(b *bufio.Reader) error {
	for {
		line, tooLong, err := readLine(b)
		if err == io.EOF {
			return nil
		}
		r.Lines++
		if err != nil {
			return err
		}
		if tooLong {
			r.reject(r.Lines, 1, fmt.Errorf("longer than %d bytes", maxLine))
			continue
		}
		begin := 1 + len(line) - len(bytes.TrimLeft(line, " \t"))
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			if r.Blank++; r.Blank == 1 {
				r.firstBlank = r.Lines
			}
			continue
		}
		parse := parseLine
		if line[0] == '{' {
			parse = parseJSONLine
		}
		q, err := parse(line)
		if err != nil {
			r.reject(r.Lines, begin, err)
			continue
		}
		if err := r.add(r.Lines, begin, q); err != nil {
			return err
		}
	}
}
