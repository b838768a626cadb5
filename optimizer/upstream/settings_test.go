package upstream

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	framing "golang.org/x/net/http2"
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
			framing.NewFramer(peer, nil).WriteSettings(framing.Setting{ID: framing.SettingMaxConcurrentStreams, Val: streams})
		}
		go io.Copy(io.Discard, peer)
		go allow(0)
		c, err := p.greet(t.Context(), &conn{Conn: raw, raw: raw, pool: p, born: time.Now(), handshake: "plain"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.cc.Close()
		for _, streams := range []uint32{0, 100, 1} {
			allow(streams)
			synctest.Wait()
			if got := p.streams.Load(); got != streams {
				t.Errorf("%d streams, want %d", got, streams)
			}
		}
	})
}
