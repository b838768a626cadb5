package network

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
)

// Two toxics of our own beside the library's, which keep count of the connections
// that they see. The library makes toxics of JSON, so these find their counts by a
// number.
const (
	meterType = "phasegate_meter"
	resetType = "phasegate_reset"
)

func init() {
	toxics.Register(meterType, new(meter))
	toxics.Register(resetType, new(reset))
}

var (
	counts  sync.Map // by number, *atomic.Int64
	numbers atomic.Int64
)

// newCount returns a count and its number.
func newCount() (n *atomic.Int64, number int64) {
	n, number = new(atomic.Int64), numbers.Add(1)
	counts.Store(number, n)
	return n, number
}

// count adds one to the count of a number, if that is still kept.
func count(number int64) {
	if n, ok := counts.Load(number); ok {
		n.(*atomic.Int64).Add(1)
	}
}

// meter lets everything through and counts a connection once: when that many
// bytes have come, or when it ends.
type meter struct {
	Count int64 `json:"count"`
	Bytes int64 `json:"bytes"` // 0: it counts ends
}

// metered is what a meter knows of one connection.
type metered struct {
	bytes int64
	held  *stream.StreamChunk // what nobody took when it was interrupted
}

// NewState is called for each connection.
func (m *meter) NewState() any { return new(metered) }

// Pipe is the library's noop, which looks at what passes, and can be interrupted where
// that isn't taken: by a toxic that has ended the connection, and reads no more.
func (m *meter) Pipe(stub *toxics.ToxicStub) {
	state := stub.State.(*metered)
	for {
		if state.held != nil {
			select {
			case <-stub.Interrupt:
				return
			case stub.Output <- state.held:
				state.held = nil
			}
		}
		select {
		case <-stub.Interrupt:
			return
		case c := <-stub.Input:
			if c == nil {
				if m.Bytes == 0 {
					count(m.Count)
				}
				stub.Close()
				return
			}
			if before := state.bytes; m.Bytes > before {
				if state.bytes += int64(len(c.Data)); state.bytes >= m.Bytes {
					count(m.Count)
				}
			}
			state.held = c
		}
	}
}

// takeTime is how long what is held may take to go on when the meter is taken out.
const takeTime = 500 * time.Millisecond

// Cleanup is called when the meter is taken out, and Pipe has returned. What can't go on
// is the connection's end: without it the other side would get what follows it.
func (m *meter) Cleanup(stub *toxics.ToxicStub) {
	state := stub.State.(*metered)
	if state.held == nil {
		return
	}
	select {
	case stub.Output <- state.held:
	case <-time.After(takeTime):
		stub.Close()
		go func() {
			for range stub.Input { // see reset
			}
		}()
	}
}

// reset ends a connection with the first data that comes, and drops these. It is the
// library's reset_peer, which can't tell what it did.
type reset struct {
	Count int64 `json:"count"`
}

func (r *reset) Pipe(stub *toxics.ToxicStub) {
	select {
	case <-stub.Interrupt:
	case c := <-stub.Input:
		if c != nil {
			count(r.Count)
		}
		stub.Close()
		for range stub.Input { // what comes before the source has ended: whoever hands it on would wait
		}
	}
}
