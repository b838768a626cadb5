package http2

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Slow clients: for a body, for a window, between requests.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	const short = 50 * time.Millisecond
	ended := make(chan error, 1)
	r := newRig(t, func(s *Stream) {
		if s.Path == "/read" {
			s.SetReadDeadline(time.Now().Add(short))
			_, err := io.ReadAll(s)
			ended <- err
			return
		}
		s.Header(AppendStatus(nil, 200), false)
		ended <- s.Send(make([]byte, 1<<20), true)
	}, func(c *Config) { c.Write, c.Idle = short, 4*short })
	c := r.dial()
	for i, path := range []string{"/read", "/send"} {
		c.ask(uint32(2*i+1), path, false)
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", path, err)
		}
	}
	c.wantGoAway("silent between requests", http2.ErrCodeNo)
}

// What has begun to come has to come within Config.Read, whether requests are under way or not,
// and whatever happens meanwhile.
func TestPatienceForAFrame(t *testing.T) {
	t.Parallel()
	const patience, pause = 10 * time.Second, 3 * time.Second
	ping := []byte("\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678")
	begun := []byte("\x00\x00\x00\x01\x01\x00\x00\x00\x05") // HEADERS that don't end
	next := []byte("\x00\x00\x00\x09\x00\x00\x00\x00\x05")
	for _, tt := range []struct {
		what   string
		under  string // the request under way
		pieces [][]byte
		ended  bool
	}{
		{"a frame that drips", "", slices.Collect(slices.Chunk(ping, 1)), true},
		{"the same beside a request", "/slow", slices.Collect(slices.Chunk(ping, 1)), true},
		{"the same beside one that ends", "/soon", slices.Collect(slices.Chunk(ping, 1)), true},
		{"CONTINUATIONs beside a request", "/slow", append([][]byte{begun}, slices.Repeat([][]byte{next}, 5)...), true},
		{"a frame in time", "/slow", slices.Collect(slices.Chunk(ping, 5)), false},
		{"many of them", "/slow", slices.Repeat([][]byte{ping[:5], ping[5:]}, 5), false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := New(Config{
					Replier: func() Reply { return small }, MaxUnsent: 1 << 20, MaxStreams: 20, MaxHeader: 16 << 10, Idle: time.Hour, Read: patience, Write: time.Hour,
					Serve: func(s *Stream) {
						select {
						case <-s.Context.Done():
						case <-time.After(map[string]time.Duration{"/slow": time.Hour, "/soon": 2 * pause}[s.Path]):
						}
					},
				})
				ours, theirs := net.Pipe()
				go server.Serve(ours)
				c := &client{t: t, Conn: theirs, Framer: http2.NewFramer(theirs, theirs)}
				c.enc = hpack.NewEncoder(&c.block)
				ended := c.drain()
				io.WriteString(theirs, Preface)
				c.WriteSettings()
				if tt.under != "" {
					c.ask(1, tt.under, true)
				}
				time.Sleep(10 * patience) // silence is another matter
				if tt.under == "/soon" {
					c.ask(3, tt.under, true)
				}
				first := time.Now()
				for _, piece := range tt.pieces {
					if _, err := theirs.Write(piece); err != nil {
						break
					}
					time.Sleep(pause)
				}
				if !tt.ended {
					select {
					case code := <-ended:
						t.Errorf("ended with %v after %v", code, time.Since(first))
					default:
					}
					theirs.Close()
					<-ended
				} else {
					<-ended
					if took := time.Since(first).Truncate(pause); took > patience+pause {
						t.Errorf("ended after %v, must be %v", took, patience)
					}
				}
				theirs.Close()
				server.Wait()
			})
		})
	}
}

// Who waits for a window waits for as long as the client takes enough: of this answer, or, where
// he waits for the connection's, of all. While something is being written, that is what counts.
func TestPatienceForWindows(t *testing.T) {
	t.Parallel()
	const streams, rounds, patience = 3, 12, 10 * time.Second
	for _, tt := range []struct {
		what    string
		initial uint32 // a stream's window
		more    uint32 // that is given in less than the time for it
		deaf    bool   // the client doesn't read either
		pending int64  // Config.MaxPending
		ended   int64
	}{
		{"enough of all", 1 << 20, leastTaken, false, 8 << 20, 0},
		{"less of all", 1 << 20, leastTaken / 2, false, 8 << 20, streams},
		{"a byte of all", 1 << 20, 1, false, 8 << 20, streams},
		{"enough of each", 0, leastTaken, false, 8 << 20, 0},
		{"less of each", 0, leastTaken / 2, false, 8 << 20, streams},
		{"a byte of each", 0, 1, false, 8 << 20, streams},
		{"what isn't written", 1 << 20, 1 << 20, true, 8 << 20, 0},
		{"enough of all, but too much waits", 1 << 20, leastTaken, false, 5 << 20, 1},
		{"what isn't written, and is too much", 1 << 20, 1 << 20, true, 3 << 20, 2},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ended atomic.Int64
				server := New(Config{
					Replier: func() Reply { return small }, MaxUnsent: 1 << 20, MaxPending: tt.pending, MaxStreams: streams, MaxHeader: 16 << 10, Idle: time.Hour, Read: time.Hour, Write: patience,
					Serve: func(s *Stream) {
						s.Header(AppendStatus(nil, 200), false)
						if err := s.Send(make([]byte, 1<<20), true); errors.Is(err, os.ErrDeadlineExceeded) {
							ended.Add(1)
						}
					},
				})
				ours, theirs := net.Pipe()
				go server.Serve(ours)
				reader := &deafened{Conn: theirs}
				c := &client{t: t, Conn: theirs, Framer: http2.NewFramer(theirs, reader)}
				c.enc = hpack.NewEncoder(&c.block)
				c.drain()
				io.WriteString(theirs, Preface)
				c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: tt.initial})
				if tt.initial == 0 {
					c.WriteWindowUpdate(0, 1<<20)
				}
				for n := range uint32(streams) {
					c.ask(2*n+1, "/", true)
				}
				synctest.Wait()
				reader.deaf.Store(tt.deaf)
				for i := range rounds {
					time.Sleep(patience - time.Second)
					switch {
					case tt.deaf && i > 0: // what is said now isn't read
					case tt.initial > 0:
						c.WriteWindowUpdate(0, tt.more)
					default:
						for n := range uint32(streams) {
							c.WriteWindowUpdate(2*n+1, tt.more)
						}
					}
				}
				if n := ended.Load(); n != tt.ended {
					t.Errorf("%d were given up, must be %d", n, tt.ended)
				}
				reader.deaf.Store(false)
				time.Sleep(3 * patience)
				if n := ended.Load(); n != streams {
					t.Errorf("%d of %d were given up when it has taken nothing any more", n, streams)
				}
				theirs.Close()
				server.Wait()
			})
		})
	}
}
