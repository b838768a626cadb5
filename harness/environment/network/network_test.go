package network

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"phasegate/harness/scenario"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

func proxied(t *testing.T) *Proxy {
	t.Helper()
	p, err := New(Loopback, echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dialed(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	return conn
}

// trip sends n bytes and waits until they are back: in how many reads, and how many
// came.
func trip(conn net.Conn, n int) (reads, got int, err error) {
	if _, err := conn.Write(make([]byte, n)); err != nil {
		return 0, 0, err
	}
	buffer := make([]byte, n)
	for got < n && err == nil {
		var m int
		m, err = conn.Read(buffer[got:])
		got += m
		reads++
	}
	return reads, got, err
}

// Each part of a network shows on a connection that was open before and on a
// new one, and both are as before once it is restored.
func TestWorsenAndRestore(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		network scenario.Network
		bytes   int
		shows   func(took time.Duration, reads, got int, err error) bool
		ends    bool // the connection
	}{
		{"latency", scenario.Network{Latency: time.Second, Jitter: 100 * ms}, 10, func(took time.Duration, _, got int, err error) bool {
			return err == nil && got == 10 && took >= 899*ms
		}, false},
		{"bandwidth, both ways", scenario.Network{Bandwidth: 100_000}, 10_000, func(took time.Duration, _, got int, err error) bool {
			return err == nil && got == 10_000 && took >= 150*ms
		}, false},
		{"answers in pieces", scenario.Network{Slice: 100}, 10_000, func(_ time.Duration, reads, got int, err error) bool {
			return err == nil && got == 10_000 && reads > 3
		}, false},
		{"a reset", scenario.Network{Reset: 1}, 10, func(_ time.Duration, _, got int, err error) bool { return err != nil && got == 0 }, true},
		{"nothing gets through", scenario.Network{Timeout: 200 * ms}, 10, func(took time.Duration, _, got int, err error) bool {
			return err != nil && got == 0 && took >= 199*ms
		}, true},
		{"an end after some bytes", scenario.Network{LimitData: 100}, 1000, func(_ time.Duration, _, got int, err error) bool { return err != nil && got == 100 }, true},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			p := proxied(t)
			before := dialed(t, p)
			if _, _, err := trip(before, 10); err != nil {
				t.Fatal(err)
			}
			start := time.Now() // of what the network does to the open connection
			if err := p.Worsen(t.Context(), tt.network); err != nil {
				t.Fatal(err)
			}
			conn := before
			for i := range 2 {
				if i == 1 {
					start = time.Now()
					conn = dialed(t, p)
				}
				reads, got, err := trip(conn, tt.bytes)
				if took := time.Since(start); !tt.shows(took, reads, got, err) {
					t.Errorf("connection %d: %v, %d reads, %d bytes, %v", i, took, reads, got, err)
				}
			}
			if err := p.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			conn = before
			if tt.ends {
				conn = dialed(t, p)
			}
			start = time.Now()
			if _, got, err := trip(conn, 1000); err != nil || got != 1000 || time.Since(start) > 800*ms {
				t.Errorf("restored: %v, %d bytes, %v", time.Since(start), got, err)
			}
		})
	}
}

// A share of the connections is reset, and the others aren't.
func TestShareOfResets(t *testing.T) {
	t.Parallel()
	p := proxied(t)
	if err := p.Worsen(t.Context(), scenario.Network{Reset: 0.2}); err != nil {
		t.Fatal(err)
	}
	failed := 0
	const n = 200
	for range n {
		conn := dialed(t, p)
		if _, _, err := trip(conn, 10); err != nil {
			failed++
		}
		conn.Close()
	}
	// A binomial number is outside of this once in 10^6.
	if failed < 14 || failed > 70 {
		t.Errorf("%d of %d connections were reset; a fifth was asked for", failed, n)
	}
}

// Connections are counted as they meet a network: all through which something was
// sent, and apart those that it ended or closes late, until it is restored.
func TestMet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		network scenario.Network
		idle    int   // connections that are open and silent
		trips   []int // one connection each, with so many bytes
		met     map[string]int64
	}{
		{"delayed", scenario.Network{Latency: ms}, 2, []int{10, 10, 10}, map[string]int64{scenario.MetConnections: 3}},
		{"nobody was there", scenario.Network{Latency: ms}, 2, nil, map[string]int64{scenario.MetConnections: 0}},
		{"all are reset", scenario.Network{Reset: 1, Slice: 10}, 1, []int{10, 10}, map[string]int64{scenario.MetConnections: 2, scenario.MetReset: 2}},
		{"as good as none is reset", scenario.Network{Reset: 1e-9}, 1, []int{10, 10}, map[string]int64{scenario.MetConnections: 2, scenario.MetReset: 0}},
		{"those beyond the limit", scenario.Network{LimitData: 100}, 0, []int{10, 99, 100, 200}, map[string]int64{scenario.MetConnections: 4, scenario.MetLimit: 2}},
		{"closed meanwhile", scenario.Network{SlowClose: ms}, 2, []int{10}, map[string]int64{scenario.MetConnections: 1, scenario.MetClose: 1}},
		{"nothing gets through", scenario.Network{Timeout: 500 * ms}, 0, []int{10}, map[string]int64{scenario.MetConnections: 1}},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			p := proxied(t)
			for range tt.idle {
				if _, _, err := trip(dialed(t, p), 10); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Worsen(t.Context(), tt.network); err != nil {
				t.Fatal(err)
			}
			for _, n := range tt.trips {
				conn := dialed(t, p)
				trip(conn, n)
				conn.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, conn) // until the end, which a close from here would overtake
			}
			if err := p.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			trip(dialed(t, p), 10) // not counted any more
			if got := p.Met(); !maps.Equal(got, tt.met) {
				t.Errorf("met by %v, want %v", got, tt.met)
			}
		})
	}
}

// An end that comes late holds up neither data nor the restoration.
func TestSlowClose(t *testing.T) {
	t.Parallel()
	p := proxied(t)
	if err := p.Worsen(t.Context(), scenario.Network{SlowClose: time.Second}); err != nil {
		t.Fatal(err)
	}
	conn := dialed(t, p)
	start := time.Now()
	if _, _, err := trip(conn, 10); err != nil || time.Since(start) > 900*ms {
		t.Errorf("data: %v, %v", time.Since(start), err)
	}
	start = time.Now()
	conn.(*net.TCPConn).CloseWrite()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF || time.Since(start) < time.Second {
		t.Errorf("ended with %v after %v", err, time.Since(start))
	}
}

func TestProxyErrors(t *testing.T) {
	t.Parallel()
	p := proxied(t)
	inner := <-p.proxy // somebody is changing it
	ctx, cancel := context.WithTimeout(t.Context(), 20*ms)
	defer cancel()
	if err := p.Worsen(ctx, scenario.Network{Latency: ms}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := p.Restore(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	p.proxy <- inner
	if err := p.Worsen(t.Context(), scenario.Network{Latency: ms}); err != nil {
		t.Error(err)
	}
	if err := p.Worsen(t.Context(), scenario.Network{Latency: ms}); err == nil {
		t.Error("made worse twice, and only the second could be taken back")
	}
}

// The network is mended though something lies in a connection that has ended, and isn't closed
// yet: nobody takes it.
func TestRestoreOfAnEndedConnection(t *testing.T) {
	t.Parallel()
	p := proxied(t)
	if err := p.Worsen(t.Context(), scenario.Network{Timeout: ms, SlowClose: time.Second}); err != nil {
		t.Fatal(err)
	}
	conn := dialed(t, p)
	for range 20 { // the first ones are dropped, until the end
		conn.Write([]byte("x"))
		time.Sleep(5 * ms)
	}
	mended(t, p)
}

// mended restores the network while a client comes, and has another one use it then.
func mended(t *testing.T, p *Proxy) {
	t.Helper()
	coming := time.AfterFunc(50*ms, func() {
		if conn, err := net.Dial("tcp", p.Addr()); err == nil {
			t.Cleanup(func() { conn.Close() })
		}
	})
	defer coming.Stop()
	restored := make(chan error, 1)
	go func() { restored <- p.Restore(t.Context()) }()
	select {
	case err := <-restored:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it isn't mended")
	}
	if _, got, err := trip(dialed(t, p), 10); got != 10 {
		t.Errorf("%d of 10 bytes came back: %v", got, err)
	}
}
