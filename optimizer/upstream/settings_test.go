package upstream

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// How many connections are opened goes by what the upstream allowed last, and not by its
// first SETTINGS, whether it allows more now or less.
func TestLaterSettingsAreFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Config{URL: "http://127.0.0.1:1", Protocol: H2C})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		raw, peer := net.Pipe()
		allow := func(streams uint32) {
			http2.NewFramer(peer, nil).WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: streams})
		}
		go io.Copy(io.Discard, peer)
		go allow(0)
		c, err := p.greet(t.Context(), &conn{Conn: raw, raw: raw, pool: p, born: time.Now(), handshake: "plain"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.cc.Close()
		for _, streams := range []uint32{50, 1, 0} {
			allow(streams)
			synctest.Wait()
			if got := p.streams; got != streams {
				t.Errorf("%d streams, want %d", got, streams)
			}
		}
	})
}

// Where the only connection allows no streams, no further ones are opened. Where others do, how
// many are opened goes by them, and not by the one that spoke last.
func TestOneConnectionThatAllowsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Config{URL: "http://127.0.0.1:1", Protocol: H2C})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		p.streams = 0
		for i, streams := range []uint32{0, 10} {
			raw, peer := net.Pipe()
			go io.Copy(io.Discard, peer)
			go http2.NewFramer(peer, nil).WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: streams})
			c, err := p.greet(t.Context(), &conn{Conn: raw, raw: raw, pool: p, born: time.Now(), handshake: "plain"})
			if err != nil {
				t.Fatal(err)
			}
			defer c.cc.Close()
			p.line.mu.Lock()
			p.conns = append(p.conns, c)
			p.dialMore(11)
			if want := []int{0, 2}[i]; p.dialing != want {
				t.Errorf("with %d connections %d are opened, want %d", i+1, p.dialing, want)
			}
			p.line.mu.Unlock()
		}
	})
}

// A connection that was to be of HTTP/2, and on which ALPN chose HTTP/1.1, is kept unless all
// that there may be are in use.
func TestWhatIsKeptInsteadIsBounded(t *testing.T) {
	t.Parallel()
	for placed, kept := range []int{1, 0} {
		p, err := New(Config{URL: "https://127.0.0.1:1", MaxConnectionsPerHost: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		raw, peer := net.Pipe()
		defer peer.Close()
		p.placed = placed
		p.open.Add(1)
		fell := p.giveUpHTTP2(withoutH2, time.Now(), &conn{Conn: raw, raw: raw, pool: p, born: time.Now(), handshake: "full"})
		if !fell || len(p.kept) != kept {
			t.Errorf("beside %d: fell back %v, %d kept, want %d", placed, fell, len(p.kept), kept)
		}
		if kept == 0 {
			if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the other one isn't closed: %v", err)
			}
		}
	}
}
