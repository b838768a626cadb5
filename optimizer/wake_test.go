package optimizer

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"phasegate/optimizer/http2"
)

// A request of HTTP/2 whose body goes on going up when its answer has ended may run into
// the upstream's timeout, which wakes the body's reader: its stream's place is another's,
// or nobody's, by then.
func TestATimeoutAfterTheAnswer(t *testing.T) {
	t.Parallel()
	p := newPaths(t)
	var body *clientBody
	p.h.do = func(req *http.Request) (*http.Response, error) {
		body = req.Body.(*clientBody)
		return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, ContentLength: 5, Body: io.NopCloser(strings.NewReader("early"))}, nil
	}
	server := http2.New(http2.Config{
		Replier: p.h.newStreamPath, Serve: p.h.serveStream,
		MaxUnsent: 1 << 20, MaxStreams: 10, MaxHeader: 8 << 10, Idle: time.Minute, Read: time.Minute, Write: time.Minute,
	})
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		server.Serve(far)
		close(served)
	}()
	go func() { // a pipe holds nothing
		var begin, block bytes.Buffer
		begin.WriteString(http2.Preface)
		enc := hpack.NewEncoder(&block)
		for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "api.test"}, {":path", "/"}} {
			enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		framer := xhttp2.NewFramer(&begin, nil)
		framer.WriteSettings()
		framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
		near.Write(begin.Bytes())
	}()
	framer := xhttp2.NewFramer(nil, near)
	for answered := false; !answered; {
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		_, answered = f.(*xhttp2.RSTStreamFrame) // the rest isn't wanted
	}
	near.Close()
	<-served
	server.Wait()
	body.wake()
}
