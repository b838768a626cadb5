package upstream_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is an HTTP/2 server that does what a test says, frame by frame.
type peer struct {
	address  string
	settings []http2.Setting
	serve    func(c *peerConn, r peerRequest) // called in a goroutine of its own, in the order of arrival per connection
	headed   func(c *peerConn, r peerRequest) // called when the header is there; may be nil
	opened   atomic.Int64
	most     atomic.Int64 // connections beyond this are closed without a word; 0: none
}

type peerConn struct {
	net.Conn
	number int64         // 1 is the first connection
	ended  chan struct{} // closed when the client has closed it
	mu     sync.Mutex
	framer *http2.Framer
}

type peerRequest struct {
	stream uint32
	number int // on its connection, from 1
	path   string
	body   string
}

// newPeer serves in clear text on a port of its own.
func newPeer(t *testing.T, serve func(*peerConn, peerRequest), settings ...http2.Setting) *peer {
	t.Helper()
	p := &peer{settings: settings, serve: serve}
	p.address = listen(t, nil, func(conn net.Conn) {
		number := p.opened.Add(1)
		if most := p.most.Load(); most > 0 && number > most {
			return
		}
		var running sync.WaitGroup
		defer running.Wait()
		defer conn.Close()
		c := &peerConn{Conn: conn, number: number, framer: http2.NewFramer(conn, conn), ended: make(chan struct{})}
		p.talk(c, &running)
		close(c.ended)
	})
	return p
}

func (p *peer) url() string { return "http://" + p.address }

func (p *peer) talk(c *peerConn, running *sync.WaitGroup) {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c, preface); err != nil || string(preface) != http2.ClientPreface {
		return
	}
	c.write(func(f *http2.Framer) { f.WriteSettings(p.settings...) })
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	requests := map[uint32]*peerRequest{}
	arrived := 0
	whole := func(r *peerRequest) {
		arrived++
		r.number = arrived
		running.Go(func() { p.serve(c, *r) })
	}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.write(func(w *http2.Framer) { w.WriteSettingsAck() })
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				c.write(func(w *http2.Framer) { w.WritePing(true, f.Data) })
			}
		case *http2.MetaHeadersFrame:
			r := &peerRequest{stream: f.StreamID, path: f.PseudoValue("path")}
			requests[f.StreamID] = r
			if p.headed != nil {
				p.headed(c, *r)
			}
			if f.StreamEnded() {
				whole(r)
			}
		case *http2.DataFrame:
			r := requests[f.StreamID]
			r.body += string(f.Data())
			if f.StreamEnded() {
				whole(r)
			}
		}
	}
}

func (c *peerConn) write(what func(*http2.Framer)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	what(c.framer)
}

func (c *peerConn) begin(stream uint32) {
	var block bytes.Buffer
	hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	c.write(func(f *http2.Framer) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
	})
}

func (c *peerConn) answer(stream uint32, body string) {
	c.begin(stream)
	c.write(func(f *http2.Framer) { f.WriteData(stream, true, []byte(body)) })
}

func (c *peerConn) reset(stream uint32, code http2.ErrCode) {
	c.write(func(f *http2.Framer) { f.WriteRSTStream(stream, code) })
}

func (c *peerConn) goAway(last uint32, code http2.ErrCode) {
	c.write(func(f *http2.Framer) { f.WriteGoAway(last, code, nil) })
}

// certificate is one for 127.0.0.1, which only insecure_skip_verify accepts.
func certificate(t *testing.T, alpn ...string) *tls.Config {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	server.Close()
	return &tls.Config{Certificates: server.TLS.Certificates, NextProtos: alpn}
}

// x509Key is the server's private key.
func x509Key(server *httptest.Server) ([]byte, error) {
	return x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
}

// listenAt takes a port that was in use a moment ago.
func listenAt(address string) (ln net.Listener, err error) {
	for range 20 {
		if ln, err = net.Listen("tcp", address); err == nil {
			return ln, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, err
}
