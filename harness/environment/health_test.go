package environment

import (
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"phasegate/harness/scenario"
)

// A system that widens a stream's window beyond what there may be (RFC 9113 §6.9.1) isn't
// healthy, and isn't waited for any longer than another one.
func TestProbedWindowThatOverflows(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go widen(conn)
		}
	}()
	e := &Environment{plan: &scenario.Plan{}}
	e.plan.Load.Protocols = []scenario.ProtocolShare{{Protocol: scenario.H2C, Share: 1}}
	ended := make(chan error, 1)
	go func() {
		ended <- e.waitFor(t.Context(), &url.URL{Scheme: "http", Host: listener.Addr().String()}, nil, 300*time.Millisecond, func(int) bool { return true })
	}()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it is healthy")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the probe doesn't end")
	}
}

// widen answers each request on a connection with a window too wide.
func widen(conn net.Conn) {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(conn, conn)
	_ = f.WriteSettings()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		if frame.Header().Type == http2.FrameHeaders {
			_ = f.WriteWindowUpdate(frame.Header().StreamID, 1<<31-1)
		}
	}
}
