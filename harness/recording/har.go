package recording

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"phasegate/fixtures/upstream/wire"
)

// harEntry is what replay needs of an entry of a HAR file (HTTP Archive 1.2).
// Its numbers may be written as any JSON number.
type harEntry struct {
	Started string `json:"startedDateTime"`
	Request struct {
		Method   string
		URL      string
		Headers  []harPair
		PostData *harBody
	}
	Response struct {
		Status   float64
		BodySize float64 // as it came, −1 if unknown, 0 out of the browser's cache
		Content  struct {
			Size float64 // uncompressed
		}
	}
	FromCache string `json:"_fromCache"` // Chrome: memory, disk
}

type harPair struct{ Name, Value string }

type harBody struct {
	MimeType, Text string
	Params         []harPair // of a form; then text may be missing
}

// ReadHAR reads a HAR file (HTTP Archive 1.2), as the developer tools of
// browsers save them. Its entries are put in the order in which the requests
// were made. Entries that never left the browser can't be replayed: those that
// its own cache answered, and those that got no answer.
func ReadHAR(path string) (*Recording, error) { return read(path, harFile, (*Recording).har) }

func (r *Recording) har(b *bufio.Reader) error {
	lines := &lineCounter{from: b}
	dec := json.NewDecoder(lines)
	err := r.harLog(dec, lines)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		var col int
		r.Lines, col = lines.at(lines.read)
		return &misplaced{col, io.ErrUnexpectedEOF}
	}
	var col int
	if r.Lines, col = lines.at(dec.InputOffset()); err != nil {
		return &misplaced{col, err}
	}
	slices.SortStableFunc(r.entries, func(a, b entry) int { return int(min(max(a.at-b.at, -1), 1)) })
	return nil
}

// harLog walks to log.entries and takes one after the other, so that a file of
// any size needs room for one entry.
func (r *Recording) harLog(dec *json.Decoder, lines *lineCounter) error {
	if err := enter(dec, "log"); err != nil {
		return err
	}
	if err := enter(dec, "entries"); err != nil {
		return err
	}
	if t, err := dec.Token(); err != nil {
		return err
	} else if t != json.Delim('[') {
		return errors.New("log.entries isn't a list")
	}
	var raw json.RawMessage
	for dec.More() {
		if err := dec.Decode(&raw); err != nil {
			return err
		}
		line, begin := lines.at(dec.InputOffset() - int64(len(raw)))
		q, err := r.parseEntry(raw)
		if err != nil {
			r.reject(line, begin, err)
			continue
		}
		if err := r.add(line, begin, q); err != nil {
			return err
		}
	}
	_, err := dec.Token() // the list's end: the file isn't cut off here
	return err
}

// enter reads an object up to the value of a key.
func enter(dec *json.Decoder, key string) error {
	if t, err := dec.Token(); err != nil {
		return err
	} else if t != json.Delim('{') {
		return fmt.Errorf("no object with %q", key)
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		if name == key {
			return nil
		}
		var skipped json.RawMessage
		if err := dec.Decode(&skipped); err != nil {
			return err
		}
	}
	return fmt.Errorf("no %q", key)
}

// parseEntry reads one entry. The error says what keeps it from being
// replayed.
func (r *Recording) parseEntry(raw []byte) (found, error) {
	var q found
	var e harEntry
	if err := json.Unmarshal(raw, &e); err != nil {
		return q, err
	}
	var err error
	if q.at, err = time.Parse(time.RFC3339, e.Started); err != nil {
		return q, fmt.Errorf("startedDateTime %.40q isn't of the form %s", e.Started, time.RFC3339)
	}
	q.method = e.Request.Method
	if err = checkMethod(q.method); err != nil {
		return q, err
	}
	if q.target, q.host, err = originForm([]byte(e.Request.URL)); err != nil {
		return q, err
	}
	if q.host == "" {
		return q, fmt.Errorf("%.40q is no http URL", e.Request.URL)
	}
	if e.FromCache != "" {
		return q, fmt.Errorf("the browser answered it from its own %s cache", e.FromCache)
	}
	if s := e.Response.Status; !(s >= 100 && s < 600) || s == 101 {
		return q, fmt.Errorf("status %v: there was no answer; allowed is 100 to 599 without 101", s)
	}
	q.status = int(e.Response.Status)
	size := e.Response.BodySize
	if size <= 0 {
		size = e.Response.Content.Size
	}
	q.size = int64(min(max(size, 0), wire.MaxSize))

	var fields [][2]string
	for _, h := range e.Request.Headers {
		fields = append(fields, [2]string{h.Name, h.Value})
	}
	if q.extra.Header, err = replayed(fields, secrets); err != nil {
		return q, err
	}
	if p := e.Request.PostData; p != nil {
		if q.extra.Body = p.body(); len(q.extra.Body) > maxBody {
			return q, fmt.Errorf("a body of %d bytes; allowed are %d", len(q.extra.Body), maxBody)
		}
		if !has(q.extra.Header, map[string]bool{"content-type": true}) && p.MimeType != "" {
			more, err := replayed([][2]string{{"Content-Type", p.MimeType}}, nil)
			if err != nil {
				return q, err
			}
			q.extra.Header = append(q.extra.Header, more...)
		}
	}
	if has(fields, secrets) {
		r.secretly++
	}
	return q, nil
}

// body is the text of a posted body, or a form made of its parameters.
func (p *harBody) body() []byte {
	if p.Text != "" || len(p.Params) == 0 {
		return []byte(p.Text)
	}
	var b strings.Builder
	for i, v := range p.Params {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(v.Name) + "=" + url.QueryEscape(v.Value))
	}
	return []byte(b.String())
}

// lineCounter tells at which line and column a byte stands that was read from it. It must
// be asked in the order of the bytes.
type lineCounter struct {
	from io.Reader
	read int64   // bytes
	ends []int64 // offsets of the line ends not yet passed
	line int     // line ends passed
	last int64   // offset behind the last of them
}

func (l *lineCounter) Read(p []byte) (int, error) {
	n, err := l.from.Read(p)
	for rest := p[:n]; ; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		l.ends = append(l.ends, l.read+int64(n-len(rest)+i))
		rest = rest[i+1:]
	}
	l.read += int64(n)
	return n, err
}

func (l *lineCounter) at(offset int64) (line, col int) {
	n, _ := slices.BinarySearch(l.ends, offset)
	if n > 0 {
		l.last = l.ends[n-1] + 1
	}
	l.ends = slices.Delete(l.ends, 0, n)
	l.line += n
	return l.line + 1, int(max(offset-l.last, 0)) + 1
}
