package optimizer_test

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"phasegate/optimizer"
)

func earlyHints(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Link", "</style.css>; rel=preload")
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
	}
	w.WriteHeader(http.StatusEarlyHints)
	w.Header().Del("X-Hop")
	w.Header().Del("Connection")
	w.Header().Set("Cache-Control", "max-age=60")
	io.WriteString(w, "body of "+r.URL.Path)
}

// beforeOne is an optimizer before an upstream that speaks one protocol in clear text.
func beforeOne(t *testing.T, protocol string, upstream http.HandlerFunc) *proxy {
	t.Helper()
	server := httptest.NewUnstartedServer(upstream)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(protocol == "http/1.1")
	server.Config.Protocols.SetUnencryptedHTTP2(protocol == "h2c")
	server.Start()
	t.Cleanup(server.Close)
	cfg := optimizer.Config{Listen: "127.0.0.1:0"}
	cfg.Upstream.URL, cfg.Upstream.Protocol = server.URL, protocol
	return before(t, cfg)
}

// RFC 8297: 103 goes to the client whose request it was, on a connection's first
// request and on later ones; a hit has none. The upstream may speak either protocol.
func TestEarlyHintsAreForwarded(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"http/1.1", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			checkEarlyHints(t, beforeOne(t, protocol, earlyHints))
		})
	}
}

func checkEarlyHints(t *testing.T, p *proxy) {
	t.Helper()
	for _, tt := range []struct {
		target string
		hints  int
	}{{"/a", 1}, {"/a", 0}, {"/b", 1}, {"/c", 1}} {
		var hints []textproto.MIMEHeader
		req, _ := http.NewRequest("GET", p.url+tt.target, nil)
		req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			if status == http.StatusEarlyHints {
				hints = append(hints, h)
			}
			return nil
		}}))
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "body of "+tt.target || len(hints) != tt.hints {
			t.Fatalf("%s: %q, %d hints, want %d", tt.target, body, len(hints), tt.hints)
		}
		for _, h := range hints {
			if h.Get("Link") != "</style.css>; rel=preload" || h.Get("X-Hop") != "" || h.Get("Connection") != "" {
				t.Errorf("%s: hint %v", tt.target, h)
			}
		}
	}
}

// Clients that send requests ahead get every answer whole and in order: a hint must
// not come before the end of the answer before.
func TestEarlyHintsStayInOrderWhenRequestsArePipelined(t *testing.T) {
	t.Parallel()
	p := start(t, earlyHints)
	conn, err := net.Dial("tcp", p.o.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	const n = 20
	var all strings.Builder
	for i := range n {
		fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i%7)
	}
	half := all.Len()/2 + 11 // in the middle of a request
	io.WriteString(conn, all.String()[:half])
	time.Sleep(20 * time.Millisecond)
	io.WriteString(conn, all.String()[half:])
	r := bufio.NewReader(conn)
	for i := range n {
		resp, err := http.ReadResponse(r, nil)
		for err == nil && resp.StatusCode == http.StatusEarlyHints {
			resp, err = http.ReadResponse(r, nil)
		}
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(body) != fmt.Sprintf("body of /%d", i%7) {
			t.Fatalf("answer %d: %d %q", i, resp.StatusCode, body)
		}
	}
}

// An upstream that sends interim responses without end, or without measure, is a bad one, and
// isn't asked again; as many as anybody needs are let through.
func TestInterimResponsesAreBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		number int
		bytes  int // of a field in each
		status int
	}{
		{"many", 256, 10, 200},
		{"one too many", 257, 10, 502},
		{"without end", math.MaxInt, 10, 502},
		{"large", 2, 30 << 10, 200},
		{"too large", 3, 30 << 10, 502},
	} {
		for _, protocol := range []string{"http/1.1", "h2c"} {
			t.Run(tt.why+" "+protocol, func(t *testing.T) {
				t.Parallel()
				var asked atomic.Int64
				p := beforeOne(t, protocol, func(w http.ResponseWriter, r *http.Request) {
					asked.Add(1)
					w.Header().Set("Link", strings.Repeat("x", tt.bytes))
					for i := 0; i < tt.number && r.Context().Err() == nil; i++ {
						w.WriteHeader(http.StatusEarlyHints)
					}
				})
				p.client.Timeout = patient
				if a, err := p.try("GET", "/", ""); err != nil || a.status != tt.status || asked.Load() != 1 {
					t.Errorf("%d, %v, asked %d times; want %d, once", a.status, err, asked.Load(), tt.status)
				}
			})
		}
	}
}

// HTTP/1.0 knows no interim responses.
func TestEarlyHintsAreKeptFromOldClients(t *testing.T) {
	t.Parallel()
	p := start(t, earlyHints)
	if status, _ := p.raw("GET /old HTTP/1.0\r\nHost: x\r\n\r\n"); status != http.StatusOK {
		t.Errorf("first answer %d", status)
	}
}
