package telemetry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// The formats of the access log.
const (
	Off      = "off"
	JSON     = "json"
	Combined = "combined" // as Apache and nginx write it, then the cache's part and the seconds it took
)

// ParseFormat returns the format, or an error that says which there are.
func ParseFormat(text string) (string, error) {
	if text != Off && text != JSON && text != Combined {
		return "", fmt.Errorf("%q, must be off, json or combined", text)
	}
	return text, nil
}

// What lines wait in memory: writing begins at once, and requests wait for it only
// when there is this much.
const maxPending = 1 << 20

// AccessLog writes one line per answered request. Lines are collected in memory and
// written by a goroutine that lives while there are some, so that a request doesn't wait
// for a disk; if that is slower than the requests for long, they wait, and no line is
// lost. A nil AccessLog writes nothing. Its methods may be called concurrently.
type AccessLog struct {
	combined bool
	out      io.Writer

	mu      sync.Mutex
	room    sync.Cond // less is pending, or nobody waits any more
	pending []byte
	spare   []byte        // was written, and takes what is pending next
	lines   int           // that aren't written
	writing chan struct{} // closed by the goroutine at its end; nil: there is none
	hurried bool
	fault   error
}

// Access is one request, as the access log tells it: of one that couldn't be read, what is
// known of it. Strings needn't outlive the call.
type Access struct {
	Begun                        time.Time
	Client, Method, Host, Target string
	Protocol, Referer, Agent     string
	Status                       int
	Size                         int64 // bytes of the body that was prepared; -1: not known yet
	Result                       Result
	Took                         time.Duration // until the answer was prepared
}

// NewAccessLog returns a log that writes to out in the format, JSON or Combined; nil if
// that is Off.
func NewAccessLog(format string, out io.Writer) *AccessLog {
	if format == Off || out == nil {
		return nil
	}
	l := &AccessLog{combined: format == Combined, out: out}
	l.room.L = &l.mu
	return l
}

// Enabled reports whether lines are written; ask before building an Access.
func (l *AccessLog) Enabled() bool { return l != nil }

// Write takes one line. It waits only if too many wait already, and not after Hurry.
func (l *AccessLog) Write(a Access) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) >= maxPending && !l.hurried {
		l.room.Wait()
	}
	l.pending = l.append(l.pending, a)
	l.lines++
	if l.writing == nil {
		l.writing = make(chan struct{})
		go l.write()
	}
}

// Hurry has no request wait from here on, however many lines do: for when there will be
// few more of them, and nobody may read them any more.
func (l *AccessLog) Hurry() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hurried = true
	l.room.Broadcast()
}

// Close hurries, waits until what was taken is written or ctx ends, and returns the first
// error that writing met. A later request that still holds the log may go on to write.
func (l *AccessLog) Close(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.Hurry()
	l.mu.Lock()
	writing := l.writing
	l.mu.Unlock()
	if writing != nil {
		select {
		case <-writing:
		case <-ctx.Done():
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if writing != nil && l.writing == writing {
		l.failed(fmt.Errorf("%d lines are left, which nobody takes: %w", l.lines, ctx.Err()))
	}
	return l.fault
}

// write writes until nothing is pending.
func (l *AccessLog) write() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) > 0 {
		writing, lines := l.pending, l.lines
		l.pending = l.spare[:0]
		l.room.Broadcast()
		l.mu.Unlock()
		_, err := l.out.Write(writing)
		l.mu.Lock()
		l.failed(err)
		l.spare = writing
		l.lines -= lines
	}
	close(l.writing)
	l.writing = nil
}

func (l *AccessLog) failed(err error) {
	if err != nil && l.fault == nil {
		l.fault = errors.Join(errors.New("write the access log"), err)
	}
}

// append writes the line. What clients send is escaped, so that it can't end the line
// or the quotes.
func (l *AccessLog) append(dst []byte, a Access) []byte {
	if !l.combined {
		dst = append(dst, `{"time":"`...)
		dst = a.Begun.UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
		for _, f := range [...]struct{ name, value string }{
			{"client", a.Client}, {"method", a.Method}, {"host", a.Host}, {"target", a.Target}, {"protocol", a.Protocol},
		} {
			dst = appendString(dst, f.name, f.value)
		}
		dst = strconv.AppendInt(append(dst, `,"status":`...), int64(a.Status), 10)
		if a.Size >= 0 {
			dst = strconv.AppendInt(append(dst, `,"bytes":`...), a.Size, 10)
		}
		dst = appendString(dst, "cache", a.Result.String())
		dst = strconv.AppendFloat(append(dst, `,"seconds":`...), a.Took.Seconds(), 'f', 6, 64)
		dst = appendString(dst, "referer", a.Referer)
		dst = appendString(dst, "agent", a.Agent)
		return append(dst, "}\n"...)
	}
	dst = appendEscaped(dst, a.Client)
	dst = append(dst, " - - ["...)
	dst = a.Begun.AppendFormat(dst, "02/Jan/2006:15:04:05 -0700")
	dst = append(dst, `] "`...)
	dst = appendEscaped(dst, cmp.Or(a.Method, "-"))
	dst = appendEscaped(append(dst, ' '), cmp.Or(a.Target, "-"))
	dst = appendEscaped(append(dst, ' '), a.Protocol)
	dst = strconv.AppendInt(append(dst, `" `...), int64(a.Status), 10)
	dst = append(dst, ' ')
	if a.Size >= 0 {
		dst = strconv.AppendInt(dst, a.Size, 10)
	} else {
		dst = append(dst, '-')
	}
	for _, value := range [...]string{a.Referer, a.Agent} {
		dst = append(appendEscaped(append(dst, ` "`...), cmp.Or(value, "-")), '"')
	}
	dst = append(append(dst, ' '), a.Result.String()...)
	dst = strconv.AppendFloat(append(dst, ' '), a.Took.Seconds(), 'f', 6, 64)
	return append(dst, '\n')
}

// appendString appends a member of a JSON object.
func appendString(dst []byte, name, value string) []byte {
	dst = append(append(append(dst, `,"`...), name...), `":`...)
	for i := range len(value) {
		if c := value[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			text, _ := json.Marshal(value) // a string always can be
			return append(dst, text...)
		}
	}
	return append(append(append(dst, '"'), value...), '"')
}

// appendEscaped appends with \xHH in place of what would break the line.
func appendEscaped(dst []byte, value string) []byte {
	const hex = "0123456789abcdef"
	for i := range len(value) {
		switch c := value[i]; {
		case c < ' ' || c == '"' || c == '\\' || c >= 0x7f:
			dst = append(dst, '\\', 'x', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
