package eventloop

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// The beginning of a connection can be looked at before anybody takes it, and is told
// from what comes later.
func TestPeekTakesNothing(t *testing.T) {
	t.Parallel()
	type look struct {
		first        bool
		peeked, read string
	}
	looks := make(chan look, 4)
	s := listen(t, Config{Replier: fixed(3), Serve: func(c *Conn) {
		defer c.Close()
		l := look{first: c.First()}
		b, _ := c.Peek(6)
		l.peeked = string(b)
		got := make([]byte, 10)
		n, _ := io.ReadFull(c, got)
		l.read = string(got[:n])
		looks <- l
	}})
	for _, before := range []string{"", "fast\r\n\r\n"} {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, before)
		io.ReadFull(conn, make([]byte, len(before)*3/8))
		for _, piece := range []string{"slo", "wly", " she", "d"} {
			io.WriteString(conn, piece)
			time.Sleep(time.Millisecond)
		}
		conn.(*net.TCPConn).CloseWrite()
		if l := <-looks; l != (look{before == "", "slowly", "slowly she"}) {
			t.Errorf("after %q: %+v", before, l)
		}
		conn.Close()
	}
}

// Drain wakes who waits for another request on a connection that he keeps, and leaves
// those alone that mind it themselves.
func TestDrainOfKeptConnections(t *testing.T) {
	t.Parallel()
	const length = 800 * time.Millisecond
	for _, minds := range []bool{false, true} {
		ended, waits := make(chan error, 1), make(chan bool)
		s := listen(t, Config{Replier: fixed(3), Serve: func(c *Conn) {
			defer c.Close()
			c.Keep(minds)
			io.ReadFull(c, make([]byte, 4))
			c.SetIdle(true)
			close(waits)
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}})
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "slow")
		<-waits
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		err = s.Drain(ctx)
		if minds {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("one that is minded: %v, must be waited for", err)
			}
			conn.Close()
			<-ended
			continue
		}
		if read := <-ended; err != nil || !errors.Is(read, os.ErrDeadlineExceeded) {
			t.Errorf("drain: %v, read: %v", err, read)
		}
	}
}
