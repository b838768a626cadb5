package optimizer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"phasegate/optimizer/upstream"
)

// smallBody is the size up to which a request body is read before it goes up; it
// can then be sent again if the connection turns out to be dead: by an idempotent
// method always, by another one if nothing had gone up yet.
const smallBody = 64 << 10

// attachBody gives the fetch the request's body, read already if it is small and
// there is room for it.
func (h *handler) attachBody(x *exchange, f *fetch, room *room) error {
	size := x.ctx.Request.Header.ContentLength()
	stream := x.ctx.RequestBodyStream()
	switch {
	case stream == nil || size == 0 || size == -2:
		return nil
	case size > 0 && size <= smallBody:
		body, err := readAhead(stream, size, room)
		if err != nil {
			return fmt.Errorf("%w: %w", upstream.ErrRequestBody, err)
		}
		if len(body) < size {
			stream = io.MultiReader(bytes.NewReader(body), stream)
			break
		}
		f.again = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		f.body, _ = f.again()
		f.bodySize = int64(size)
		return nil
	}
	f.body = &clientBody{stream: stream, wake: x.wakeBody(), left: int64(h.guard.MaxRequestSize)}
	f.bodySize = int64(size) // -1: chunked
	return nil
}

// unannounced is what is read of a body before it takes room: no more than any request
// costs that somebody works on.
const unannounced = 512

// readAhead reads a body of the size, or its begin if there is no room for more. Room is
// taken as it comes, for no more than twice as much as has come: who announces a body
// and doesn't send it takes none.
func readAhead(stream io.Reader, size int, room *room) ([]byte, error) {
	body := make([]byte, min(size, unannounced))
	for at := 0; ; {
		if _, err := io.ReadFull(stream, body[at:]); err != nil {
			return nil, err
		}
		at = len(body)
		next := min(size, 2*at)
		if at == size || !room.take(int64(next)-room.taken) {
			return body, nil
		}
		body = append(make([]byte, 0, next), body...)[:next]
	}
}

// clientBody lends a request's body to net/http, which may go on reading after it
// has returned a response; detach takes it back, because the connection then belongs
// to the next request.
type clientBody struct {
	mu       sync.Mutex
	stream   io.Reader
	wake     func() // ends a read that waits for the client
	left     int64
	done     bool // the end was seen
	reading  atomic.Bool
	tooLarge atomic.Bool
}

// Read reads from the client.
func (b *clientBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stream == nil {
		return 0, io.ErrClosedPipe
	}
	b.reading.Store(true)
	n, err := b.stream.Read(p)
	b.reading.Store(false)
	if b.left -= int64(n); b.left < 0 {
		b.tooLarge.Store(true)
		return 0, fmt.Errorf("%w: beyond guard.max_request_size", upstream.ErrRequestBody)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", upstream.ErrRequestBody, err)
	}
	b.done = b.done || errors.Is(err, io.EOF)
	return n, err
}

// Close does nothing: the connection outlives the body.
func (b *clientBody) Close() error { return nil }

// wakeBody is what ends a read of the request's body, for as long as anybody may call
// it: over HTTP/2, the body goes on going up when the stream's place here is another's.
func (x *exchange) wakeBody() func() {
	past := time.Unix(1, 0)
	conn := x.ctx.Conn()
	if s, ok := conn.(*stream); ok {
		of := s.s
		return func() { of.SetReadDeadline(past) }
	}
	return func() { conn.SetReadDeadline(past) }
}

// detach ends all reading and reports whether the body was read to its end.
func (b *clientBody) detach() bool {
	if !b.mu.TryLock() {
		// A read waits for the client, whose answer is already here: wake it.
		b.wake()
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	b.stream = nil
	return b.done
}
