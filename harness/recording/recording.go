// Package recording reads request sequences that were recorded elsewhere, to
// be replayed: access logs ([ReadAccessLog]), HAR files of browsers
// ([ReadHAR]) and vegeta's target lists ([ReadTargets]). All three become one
// [Recording].
//
// What can't be replayed is counted and told of, and is an error only where
// nothing else is left: a log of millions of lines always has some that are
// no request.
//
// # What is sent again
//
// Method, path and query, always. Of a HAR file and a target list also the
// body and the header fields, without those that the load generator sets
// itself (Host, User-Agent, Content-Length, Expect), those that hold for one
// connection (Connection and what it names, and all that RFC 9110, section
// 7.6.1, lists), HTTP/2's pseudo fields, and Accept-Encoding: a compressed
// body couldn't be held against what the upstream made.
//
// Fields that change what a cache may do (Authorization, Cookie,
// Cache-Control, Range, If-None-Match) stay as a target list has them, since
// somebody wrote them there. Of a HAR file Cookie and Authorization are left
// out: a browser recorded them without being asked, they are somebody's
// secrets, and a replayed session would act in their name.
package recording

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"phasegate/harness/scenario"
)

const (
	maxLine     = 64 << 10  // bytes of one line; longer ones can't be replayed
	maxBody     = 64 << 20  // bytes of one request body
	maxBodies   = 512 << 20 // bytes of all that is kept of distinct headers and bodies
	keepReasons = 20        // problems whose reason is kept
)

// The kinds of recording.
const (
	accessLog  = "access log"
	harFile    = "HAR file"
	targetList = "target list"
)

// Recording is a sequence of requests, ready to be replayed. Once read it
// doesn't change.
type Recording struct {
	Path       string    // of the file
	Kind       string    // "access log", "HAR file" or "target list"
	Lines      int       // in the file
	Blank      int       // lines of an access log without any text
	firstBlank int       // the first of them
	Malformed  int       // requests that can't be replayed: lines of an access log, targets, entries
	Problems   []Problem // the first of them

	entries  []entry
	methods  []string
	paths    []string // request targets in the order of their first request
	extras   []Extra
	outcomes map[outcome]int
	hosts    map[string]int // requests by the host that they were for; none for an access log
	secretly int            // requests that lost a secret
	fine     bool           // some time has a fraction of a second

	methodID map[string]uint8 // only while reading, like the next two
	pathID   map[string]uint32
	extraID  map[string]uint32
	kept     int // bytes of extras
}

// Problem is what can't be replayed.
type Problem struct {
	Line, Column int // from 1, the column in bytes
	Reason       string
}

// String returns "line 17: no [time]".
func (p Problem) String() string { return fmt.Sprintf("line %d: %s", p.Line, p.Reason) }

// misplaced is an error whose place isn't the beginning of what couldn't be read.
type misplaced struct {
	col int // from 1
	error
}

func (e *misplaced) Unwrap() error { return e.error }

// column is where an error is; begin, from 1, is where what couldn't be read
// begins.
func column(begin int, err error) int {
	var at *misplaced
	if errors.As(err, &at) {
		return begin + at.col - 1
	}
	return begin
}

// Request is one request of a recording.
type Request struct {
	Method string
	Target uint32 // an index below [Recording.Targets]
	Extra  int    // an index into [Recording.Extras]; −1 for none
}

// Extra is what a request brings besides its method and target.
type Extra struct {
	Header [][2]string // names and values, in order
	Body   []byte
}

type entry struct {
	at     int64 // nanoseconds since 1970; 0 where nothing is recorded
	path   uint32
	extra  uint32 // an index into extras, plus 1
	method uint8
}

// outcome is how a path was answered; a recording counts how often each was.
type outcome struct {
	path   uint32
	status int16
	size   int64
	head   bool // HEAD: the recorded size isn't the resource's
}

// found is a request as a reader found it.
type found struct {
	at     time.Time // of a recording that is Timed
	method string
	target string // path and query, fit for a request line
	host   string // "" for none
	extra  Extra
	status int   // 0 for none
	size   int64 // of the answer's body
}

// Read reads the recorded file that keys names; nil where the keys are
// generated.
func Read(keys scenario.Keys) (*Recording, error) {
	switch {
	case keys.AccessLog != "":
		return ReadAccessLog(keys.AccessLog)
	case keys.HAR != "":
		return ReadHAR(keys.HAR)
	case keys.Targets != "":
		return ReadTargets(keys.Targets)
	}
	return nil, nil
}

// read opens a file, plain or compressed with gzip (told by its first bytes),
// and has it parsed.
func read(path, kind string, parse func(*Recording, *bufio.Reader) error) (*Recording, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", kind, err)
	}
	defer f.Close()
	r := empty(path, kind)
	if err := r.parse(f, parse); err != nil {
		return nil, err
	}
	return r, nil
}

func empty(path, kind string) *Recording {
	return &Recording{
		Path: path, Kind: kind, outcomes: map[outcome]int{}, hosts: map[string]int{},
		methodID: map[string]uint8{}, pathID: map[string]uint32{}, extraID: map[string]uint32{},
	}
}

func (r *Recording) parse(from io.Reader, parse func(*Recording, *bufio.Reader) error) error {
	b := bufio.NewReaderSize(from, maxLine)
	if magic, _ := b.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(b)
		if err != nil {
			return fmt.Errorf("read %s %s: %w", r.Kind, r.Path, err)
		}
		b = bufio.NewReaderSize(z, maxLine)
	}
	if mark, _ := b.Peek(3); string(mark) == "\ufeff" { // RFC 8259, section 8.1: may be ignored
		_, _ = b.Discard(3)
	}
	if err := parse(r, b); err != nil {
		return fmt.Errorf("%s:%d:%d: read the %s: %w", r.Path, max(r.Lines, 1), column(1, err), r.Kind, err)
	}
	r.methodID, r.pathID, r.extraID = nil, nil, nil
	return r.usable()
}

// readLine reads one line without its end. A line longer than maxLine is read
// past, and tooLong.
func readLine(b *bufio.Reader) (line []byte, tooLong bool, err error) {
	line, err = b.ReadSlice('\n')
	tooLong = errors.Is(err, bufio.ErrBufferFull)
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = b.ReadSlice('\n')
	}
	if err == io.EOF && (len(line) > 0 || tooLong) {
		err = nil
	}
	return bytes.TrimRight(line, "\r\n"), tooLong, err
}

// add takes a request that was found at a line and column. The error is of what can't be
// gone on with.
func (r *Recording) add(line, begin int, q found) error {
	if len(r.entries) == math.MaxInt32 {
		return fmt.Errorf("more than %d requests", len(r.entries))
	}
	if y := q.at.Year(); r.Timed() && (y < 1970 || y > 2200) { // nanoseconds since 1970 hold until 2262
		r.reject(line, begin, fmt.Errorf("the year %d; allowed is 1970 to 2200", y))
		return nil
	}
	method, ok := r.methodID[q.method]
	if !ok {
		if len(r.methods) > math.MaxUint8 {
			r.reject(line, begin, fmt.Errorf("method %q is the file's %dth; %d are allowed", q.method, len(r.methods)+1, len(r.methods)))
			return nil
		}
		method = uint8(len(r.methods))
		r.methodID[q.method] = method
		r.methods = append(r.methods, q.method)
	}
	path, ok := r.pathID[q.target]
	if !ok {
		path = uint32(len(r.paths))
		r.pathID[q.target] = path
		r.paths = append(r.paths, q.target)
	}
	e := entry{path: path, method: method}
	if r.Timed() {
		e.at = q.at.UnixNano()
		r.fine = r.fine || q.at.Nanosecond() != 0
	}
	var err error
	if e.extra, err = r.intern(q.extra); err != nil {
		return err
	}
	r.entries = append(r.entries, e)
	if q.status != 0 {
		r.outcomes[outcome{path: path, status: int16(q.status), size: q.size, head: q.method == "HEAD"}]++
	}
	if q.host != "" {
		r.hosts[q.host]++
	}
	return nil
}

// intern keeps one copy of what many requests bring alike.
func (r *Recording) intern(x Extra) (uint32, error) {
	if len(x.Header) == 0 && len(x.Body) == 0 {
		return 0, nil
	}
	var b strings.Builder
	for _, f := range x.Header {
		b.WriteString(f[0] + ":" + f[1] + "\n") // neither can hold a line end
	}
	b.WriteByte('\n')
	b.Write(x.Body)
	text := b.String()
	id, ok := r.extraID[text]
	if !ok {
		if r.kept += len(text); r.kept > maxBodies {
			return 0, fmt.Errorf("the requests' distinct headers and bodies have more than %d bytes", maxBodies)
		}
		r.extras = append(r.extras, x)
		id = uint32(len(r.extras))
		r.extraID[text] = id
	}
	return id, nil
}

func (r *Recording) reject(line, begin int, reason error) {
	r.Malformed++
	if len(r.Problems) < keepReasons {
		r.Problems = append(r.Problems, Problem{Line: line, Column: column(begin, reason), Reason: reason.Error()})
	}
}

// units names what a kind of recording consists of.
var units = map[string]string{accessLog: "lines", harFile: "entries", targetList: "targets"}

// usable is the error of a recording without a single request.
func (r *Recording) usable() error {
	if len(r.entries) > 0 {
		return nil
	}
	if r.Malformed == 0 {
		return fmt.Errorf("read %s %s: it holds no requests", r.Kind, r.Path)
	}
	text := fmt.Sprintf("%s:%d:%d: %s", r.Path, r.Problems[0].Line, r.Problems[0].Column, r.Problems[0].Reason)
	for _, p := range r.Problems[1:min(3, len(r.Problems))] {
		text += "; " + p.String()
	}
	allowed := map[string]string{
		accessLog:  "allowed: common or combined log format, or a JSON object per line",
		harFile:    "allowed: requests to http and https URLs",
		targetList: "allowed: vegeta's JSON or HTTP format",
	}[r.Kind]
	return fmt.Errorf("%s (none of the %d %s of this %s can be replayed; %s)", text, r.Malformed, units[r.Kind], r.Kind, allowed)
}

// Requests returns how many requests the recording holds.
func (r *Recording) Requests() int { return len(r.entries) }

// Targets returns how many distinct request targets they are for.
func (r *Recording) Targets() int { return len(r.paths) }

// At returns request i, from 0.
func (r *Recording) At(i int) Request {
	e := r.entries[i]
	return Request{Method: r.methods[e.method], Target: e.path, Extra: int(e.extra) - 1}
}

// Target returns a request target: path and query.
func (r *Recording) Target(id uint32) string { return r.paths[id] }

// Extras returns the distinct headers and bodies of the requests. They must
// not be changed.
func (r *Recording) Extras() []Extra { return r.extras }

// Notices returns what a reader of figures made from this recording must know,
// a sentence each: requests left out, times that run backwards, hosts and
// secrets that weren't kept.
func (r *Recording) Notices() []string {
	var notices []string
	notice := func(format string, args ...any) {
		notices = append(notices, r.Path+": "+fmt.Sprintf(format, args...))
	}
	if r.Malformed > 0 {
		total := len(r.entries) + r.Malformed + r.Blank
		text := fmt.Sprintf("%d of %d %s can't be replayed", r.Malformed, total, units[r.Kind])
		for i, p := range r.Problems[:min(3, len(r.Problems))] {
			text += [...]string{": ", "; ", "; "}[i] + p.String()
		}
		if more := r.Malformed - 3; more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
		notice("%s", text)
	}
	if r.Blank > 0 {
		notice("%d blank lines skipped, the first is line %d", r.Blank, r.firstBlank)
	}
	if len(r.hosts) > 1 {
		most := slices.SortedFunc(maps.Keys(r.hosts), func(a, b string) int {
			if n := r.hosts[b] - r.hosts[a]; n != 0 {
				return n
			}
			return strings.Compare(a, b)
		})
		text := strings.Join(most[:min(3, len(most))], ", ")
		if more := len(most) - 3; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		notice("the requests are for %d hosts (%s), and all go to the systems under test: only path and query are used", len(most), text)
	}
	if r.secretly > 0 {
		notice("%d requests carried Cookie or Authorization, which a browser's recording isn't replayed with: to a cache they look like anybody's", r.secretly)
	}
	if back, most := r.backwards(); back > 0 {
		notice("%d of %d requests are logged after later ones, by up to %s; the logged order is kept", back, len(r.entries), most)
	}
	return notices
}
