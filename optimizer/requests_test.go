package optimizer_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"phasegate/optimizer"
)

func TestRequestsThatCouldBeMisreadAreRefused(t *testing.T) {
	t.Parallel()
	p := start(t, counted("Cache-Control: max-age=60"), func(c *optimizer.Config) { c.Guard.MaxURILength = 100; c.Guard.MaxHeaderSize = 2048 })
	for _, tt := range []struct {
		why, request string
		status       int
	}{
		{"both lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"both, the other way round", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400},
		{"both, identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n", 400},
		{"two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
		{"length with a sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400},
		{"unknown transfer coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
		{"folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400},
		{"space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
		{"space in a field's name", "GET / HTTP/1.1\r\nHost: a\r\nFoo Bar: 1\r\n\r\n", 400},
		{"control character in a value", "GET / HTTP/1.1\r\nHost: a\r\nFoo: a\x01b\r\n\r\n", 400},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		{"long target", "GET /" + strings.Repeat("a", 200) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
		{"long header", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 4000) + "\r\n\r\n", 431},
		{"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405},
		{"CONNECT to a path", "CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", 405},
		{"TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405},
		{"escape that isn't one", "GET //other.test/%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	} {
		status, closed := p.raw(tt.request)
		if status != tt.status {
			t.Errorf("%s: %d, want %d", tt.why, status, tt.status)
		}
		if status == 400 && strings.Contains(tt.request, "POST") && !closed {
			t.Errorf("%s: the connection stays open", tt.why)
		}
	}
	p.wantAsked(0, "refused requests")
	if status, _ := p.raw("GET http://abs.test/x HTTP/1.1\r\nHost: other\r\n\r\n"); status != 200 {
		t.Errorf("absolute form: %d", status)
	}
	p.get("/x", "Host: abs.test")
	p.get("/x", "Host: abs.test:80")
	p.wantAsked(1, "absolute form and origin form are one resource, with the scheme's port or without")
	if status, _ := p.raw("GET /x HTTP/1.0\r\n\r\n"); status != 200 {
		t.Errorf("HTTP/1.0 without Host: %d", status)
	}
	// This one is seen only while the body goes up, so the upstream sees a broken request.
	if status, closed := p.raw("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n"); status != 400 || !closed {
		t.Errorf("bad chunk size: %d, closed %v", status, closed)
	}
}

// Whatever happens at once, hits, misses, variants, expiry, evictions, writes and
// failures, an answer belongs to its request and is whole.
// A client of HTTP/1.0 knows no chunks (RFC 9112 §6.1).
func TestOldClientsGetNoChunks(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		for range 3 {
			io.WriteString(w, "piece ")
			w.(http.Flusher).Flush()
		}
	})
	conn, err := net.Dial("tcp", p.o.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprint(conn, "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
	all, err := io.ReadAll(conn)
	head, body, _ := strings.Cut(string(all), "\r\n\r\n")
	if err != nil || body != "piece piece piece " || !strings.Contains(head, " 200 ") || strings.Contains(head, "Transfer-Encoding") || strings.Contains(head, "Content-Length") || !strings.Contains(head, "Connection: close") {
		t.Errorf("%q, %v", all, err)
	}
}

// What net/url would escape doesn't have it unescape the rest.
func TestTargetsGoUpAsTheyCame(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) })
	for target, want := range map[string]string{
		"/a%2Fb//c/../d;e?f=%2F|g":              "/a%2Fb//c/../d;e?f=%2F|g",
		"/a|b%2Fc{\xc3\xa4":                     "/a%7Cb%2Fc%7B%C3%A4",
		"http://other.test/a|b%2Fc?d":           "/a%7Cb%2Fc?d",
		"http://other.test?d":                   "/?d",
		"http://other.test":                     "/",
		"http://someone@other.test:80//a%2fb?d": "//a%2fb?d",
	} {
		conn, err := net.Dial("tcp", p.o.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(resp.Body); string(got) != want {
			t.Errorf("%s went up as %s, want %s", target, got, want)
		}
		resp.Body.Close()
	}
}
