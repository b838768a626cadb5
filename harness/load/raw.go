package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// Raw writes every request of a run of the schedule to a file in one of
// vegeta's encodings, for `vegeta report`, `vegeta plot` and the like. The
// attack is named after the system; a result's time is when the request was
// due, and its latency counts from there, as the gates' does: of a request
// without a usable answer it is at least the timeout.
//
// Whoever ends a request hands its result to a queue and goes on; a goroutine
// of its own encodes and writes it. That takes 1 to 3 µs each, so the queue,
// some 60,000 results or 15 MB long, fills up only where the disk stands
// still. Then results are dropped and counted: a sender that waited for the
// disk would measure the disk.
type Raw struct {
	queue   chan vegeta.Result
	dropped atomic.Uint64
	done    chan struct{} // closed when everything is written

	file *os.File
	err  error // of writing; valid after done
}

// rawQueue is how many results may wait to be written.
const rawQueue = 60_000

// CreateRaw creates the file, or empties it. The name's ending chooses the
// encoding: .json (an object per line), .csv, and gob for everything else.
func CreateRaw(path string) (*Raw, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create the file for raw results: %w", err)
	}
	r := &Raw{file: f, queue: make(chan vegeta.Result, rawQueue), done: make(chan struct{})}
	encoder := vegeta.NewEncoder
	switch strings.ToLower(filepath.Ext(path)) {
	case ".json":
		encoder = vegeta.NewJSONEncoder
	case ".csv":
		encoder = vegeta.NewCSVEncoder
	}
	go r.write(f, encoder)
	return r, nil
}

// write encodes what comes until the queue is closed. After a fault what comes
// is dropped.
func (r *Raw) write(to io.Writer, encoder func(io.Writer) vegeta.Encoder) {
	defer close(r.done)
	b := bufio.NewWriterSize(to, 256<<10)
	encode := encoder(b)
	for result := range r.queue {
		if r.err != nil {
			r.dropped.Add(1)
		} else if r.err = encode(&result); r.err != nil {
			r.dropped.Add(1)
		}
	}
	if r.err == nil {
		r.err = b.Flush()
	}
}

// add takes a result, or drops it.
func (r *Raw) add(result vegeta.Result) {
	select {
	case r.queue <- result:
	default:
		r.dropped.Add(1)
	}
}

// Close writes what is still waiting and closes the file. It must not be
// called before the generator is closed, nor twice. The error says what is
// missing in the file, and why.
func (r *Raw) Close() error {
	close(r.queue)
	<-r.done
	err := errors.Join(r.err, r.file.Close())
	n := r.dropped.Load()
	switch {
	case err != nil:
		return fmt.Errorf("write raw results to %s: %w: it isn't complete", r.file.Name(), err)
	case n > 0:
		return fmt.Errorf("%d results are missing in %s: it was written too slowly", n, r.file.Name())
	}
	return nil
}

// rawResult puts a finished request into vegeta's words.
func rawResult(a *arm, base time.Time, j job, x *exchange, target []byte) vegeta.Result {
	r := vegeta.Result{
		Attack:    a.Name,
		Seq:       j.seq,
		Code:      uint16(x.status),
		Timestamp: base.Add(j.due),
		Latency:   x.Latency,
		BytesOut:  uint64(len(j.content())),
		BytesIn:   uint64(x.received),
		Method:    j.method,
		URL:       a.origin + string(target),
	}
	if x.why != nil {
		r.Error = cut(x.why.Error())
	}
	return r
}
