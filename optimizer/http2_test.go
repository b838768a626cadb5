package optimizer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"phasegate/optimizer"
)

// The ways to speak to an optimizer, by name.
const (
	plainHTTP1  = "HTTP/1.1"
	plainHTTP2  = "h2c"
	securedOld  = "HTTP/1.1 over TLS"
	securedHTTP = "h2"
)

// startAs starts an optimizer whose client speaks like this.
func startAs(t *testing.T, way string, upstream http.HandlerFunc, options ...option) *proxy {
	t.Helper()
	secured := way == securedOld || way == securedHTTP
	if secured {
		options = append(options, func(c *optimizer.Config) { c.TLS.CertFile, c.TLS.KeyFile = certificate(t, "a") })
	}
	p := start(t, upstream, options...)
	p.speak(way)
	return p
}

// speak changes how the client speaks.
func (p *proxy) speak(way string) {
	transport := p.client.Transport.(*http.Transport)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(way == plainHTTP1 || way == securedOld)
	transport.Protocols.SetHTTP2(way == securedHTTP)
	transport.Protocols.SetUnencryptedHTTP2(way == plainHTTP2)
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	p.url = p.o.URL()
}

// One handler serves all: whatever is asked, over each of them the same is answered,
// from the same cache.
func TestAllProtocolsGetTheSameAnswers(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789abcdef", 30_000)
	upstream := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", "Sun, 01 Mar 2026 12:00:00 GMT")
		w.Header().Set("Cache-Control", "max-age=360000000")
		w.Header().Set("Etag", `"v"`)
		w.Header().Set("Content-Type", "text/x")
		w.Header().Add("X-Twice", "1")
		w.Header().Add("X-Twice", "2")
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/vary":
			w.Header().Set("Vary", "Accept-Language, Cookie")
			w.Header().Set("Cache-Control", "public, max-age=360000000")
			fmt.Fprint(w, r.Header["Accept-Language"], r.Header["Cookie"])
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/large":
			io.WriteString(w, big)
		case "/cookie":
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Add("Set-Cookie", "a=b")
			w.Header().Add("Set-Cookie", "c=d")
		case "/stream":
			w.Header().Set("Cache-Control", "no-store")
			for range 5 {
				io.WriteString(w, big)
				w.(http.Flusher).Flush()
			}
		case "/broken":
			w.WriteHeader(http.StatusBadGateway)
		case "/notype":
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "<html>")
		default:
			fmt.Fprintf(w, "%s %s %s %s %s", r.Method, r.URL, body, r.Header.Get("X-Forwarded-For"), r.Header.Get("X-A"))
		}
	}
	var first []string
	for _, way := range []string{plainHTTP1, plainHTTP2, securedOld, securedHTTP} {
		p := startAs(t, way, upstream, func(c *optimizer.Config) {
			c.Guard.MaxURILength, c.Guard.MaxRequestSize, c.Guard.MaxHeaderSize = 1000, 100_000, 4<<10
		})
		var answers []string
		for _, ask := range [][]string{
			{"GET", "/a?b=c", ""}, {"GET", "/a?b=c", ""}, {"HEAD", "/a?b=c", ""}, {"GET", "/a?b=c", "", "Range: bytes=1-3"}, {"GET", "/a?b=c", "", "If-None-Match: \"v\""},
			{"GET", "/a?b=c", "", "Cache-Control: no-cache"}, {"GET", "/x", "", "Cache-Control: only-if-cached"}, {"HEAD", "/head", ""},
			{"GET", "/vary", "", "Accept-Language: de", "Cookie: a=b; c=d"}, {"GET", "/vary", "", "Accept-Language: de", "Cookie: a=b; c=d"}, {"GET", "/vary", "", "Accept-Language: en"},
			{"GET", "/none", ""}, {"GET", "/none", ""}, {"GET", "/large", ""}, {"GET", "/large", ""}, {"GET", "/cookie", ""}, {"GET", "/stream", ""}, {"GET", "/broken", ""}, {"GET", "/notype", ""}, {"GET", "/notype", ""},
			{"POST", "/p", "small"}, {"PUT", "/p", strings.Repeat("x", 90_000)}, {"PUT", "/p", strings.Repeat("x", 110_000)}, {"POST", "/a?b=c", ""}, {"GET", "/a?b=c", ""},
			{"GET", "/" + strings.Repeat("u", 1000), ""}, {"GET", "/%zz", ""}, {"TRACE", "/", ""}, {"OPTIONS", "/o", ""}, {"DELETE", "/o", ""},
			{"GET", "/h", "", "X-A: " + strings.Repeat("a", 3000)}, // beyond the bound of the header list net/http's client doesn't ask
		} {
			a, err := p.try(ask[0], ask[1], ask[2], ask[3:]...)
			if err != nil && !(ask[1] == "/%zz") {
				t.Errorf("%s: %s %s: %v", way, ask[0], ask[1], err)
			}
			for _, name := range []string{"Connection", "Date", "Age"} { // a connection's own; refusals have the present
				a.header.Del(name)
			}
			answers = append(answers, fmt.Sprintf("%s %.20s: %d %v %d %.60q", ask[0], ask[1], a.status, a.header, len(a.body), a.body))
		}
		if first == nil {
			first = answers
		}
		for i := range answers {
			if answers[i] != first[i] {
				t.Errorf("%s:\n%s, must be as over HTTP/1.1\n%s", way, answers[i], first[i])
			}
		}
	}
}

// The first bytes choose: each kind of client is served on one port, and finds in the
// cache what another has brought there.
func TestOnePortTwoProtocols(t *testing.T) {
	t.Parallel()
	p := start(t, counted("Cache-Control: max-age=60"))
	for i, way := range []string{plainHTTP1, plainHTTP2, plainHTTP1} {
		p.client.CloseIdleConnections()
		p.client.Transport = &http.Transport{}
		p.speak(way)
		if a := p.get("/x"); (a.cache() == "optimizer; hit") != (i > 0) {
			t.Errorf("%s: %s", way, a.cache())
		}
		p.client.CloseIdleConnections()
	}
	p.wantAsked(1, "one cache")
	for begin, want := range map[string]string{
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r":            "",             // and never the rest: it is waited for
		"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n":          "HTTP/1.1 400", // no preface
		"PUT /x HTTP/1.1\r\nHost: a\r\n\r\n":        "HTTP/1.1 200", // begins with the same letter
		"PRI * HTTP/1.1\r\nHost: a\r\n\r\n":         "HTTP/1.1 400",
		"GET /x HTTP/1.1\r\nHost: a\r\n\r\nPRI * H": "HTTP/1.1 200",
	} {
		conn, err := net.Dial("tcp", p.o.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range []byte(begin) { // in pieces, as a network may bring it
			conn.Write([]byte{b})
		}
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if want == "" {
			conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		}
		got := make([]byte, len("HTTP/1.1 200"))
		if n, _ := io.ReadFull(conn, got); string(got[:n]) != want {
			t.Errorf("%q: %q, must be %q", begin, got[:n], want)
		}
		conn.Close()
	}
	// RFC 9113 has no upgrade; who asks for it is answered as if he hadn't.
	if a := p.get("/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"); a.status != 200 {
		t.Errorf("upgrade: %d", a.status)
	}
}

// Interim responses go to the stream whose request brought them.
func TestEarlyHintsOverHTTP2(t *testing.T) {
	t.Parallel()
	p := startAs(t, plainHTTP2, earlyHints)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			hints := 0
			req, _ := http.NewRequest("GET", fmt.Sprint(p.url, "/", i), nil)
			req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
				if status == http.StatusEarlyHints && h.Get("Link") != "" && h.Get("X-Hop") == "" {
					hints++
				}
				return nil
			}}))
			resp, err := p.client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if body, _ := io.ReadAll(resp.Body); hints != 1 || string(body) != fmt.Sprint("body of /", i) || resp.Header.Get("Link") == "" {
				t.Errorf("%d: %d hints, %q, %v", i, hints, body, resp.Header)
			}
		})
	}
	all.Wait()
}

// A request that its client has reset is no longer asked upstream, unless its answer may
// be stored; an upload goes on while its answer comes.
func TestStreamsEndAndGoOnByThemselves(t *testing.T) {
	t.Parallel()
	ended := make(chan bool, 1)
	p := startAs(t, plainHTTP2, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/reset" {
			<-r.Context().Done()
			ended <- true
			return
		}
		http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Cache-Control", "no-store")
		w.(http.Flusher).Flush()
		io.Copy(w, r.Body)
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "POST", p.url+"/reset", nil)
	eventuallyAsked := make(chan bool)
	go func() {
		defer close(eventuallyAsked)
		if resp, err := p.client.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	eventually(t, "the upstream is asked", func() bool { return p.asked.Load() == 1 })
	cancel()
	<-eventuallyAsked
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the upstream still works for a client that has left")
	}
	body := strings.Repeat("x", 3_000_000)
	if a := p.do("POST", "/echo", body); a.body != body {
		t.Errorf("%d bytes came back", len(a.body))
	}
}

// A request that its client has reset no longer waits for another's fetch.
func TestAResetStreamWaitsForNobody(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	p := start(t, func(w http.ResponseWriter, r *http.Request) { <-release })
	t.Cleanup(let)
	other := &proxy{o: p.o, client: &http.Client{Transport: new(http.Transport)}}
	other.speak(plainHTTP2)
	t.Cleanup(other.client.CloseIdleConnections)
	var asking sync.WaitGroup
	asking.Go(func() { p.get("/") })
	eventually(t, "the upstream is asked", func() bool { return p.asked.Load() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	asking.Go(func() {
		req, _ := http.NewRequestWithContext(ctx, "GET", p.url, nil)
		if resp, err := other.client.Do(req); err == nil {
			resp.Body.Close()
			t.Error("answered")
		}
	})
	eventually(t, "another one waits", func() bool { return p.metric("optimizer_in_flight_requests") == 2 })
	cancel()
	eventually(t, "it doesn't any more", func() bool { return p.metric("optimizer_in_flight_requests") == 1 })
	let()
	asking.Wait()
}

// Stop while streams are under way: they are finished, clients are told to leave, and
// nothing that was sent before they could know is lost.
func TestStopFinishesStreams(t *testing.T) {
	t.Parallel()
	for _, way := range []string{plainHTTP2, securedHTTP, securedOld} {
		arrived, release := make(chan bool, 1), make(chan bool)
		p := startAs(t, way, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				arrived <- true
				<-release
			}
			io.WriteString(w, "done")
		})
		p.get("/") // a connection that is kept
		got := make(chan answer, 1)
		go func() {
			a, err := p.try("GET", "/slow", "")
			if err != nil {
				t.Errorf("%s: under way: %v", way, err)
			}
			got <- a
		}()
		<-arrived
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // by half of which nobody else is waited for
		defer cancel()
		stopped := make(chan error, 1)
		go func() { stopped <- p.o.Stop(ctx) }()
		time.Sleep(2500 * time.Millisecond)
		close(release)
		if a := <-got; a.body != "done" {
			t.Errorf("%s: under way: %+v", way, a)
		}
		if err := <-stopped; err != nil {
			t.Errorf("%s: %v", way, err)
		}
		if _, err := p.try("GET", "/", ""); err == nil {
			t.Errorf("%s: still accepting", way)
		}
	}
}

// The kept connections of clients that have nothing to say end with a word, over
// HTTP/2, and in time, over TLS.
func TestStopEndsIdleConnections(t *testing.T) {
	t.Parallel()
	p := startAs(t, securedHTTP, counted("Cache-Control: max-age=60"))
	old, err := tls.Dial("tcp", p.o.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	fmt.Fprint(old, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if n, err := old.Read(make([]byte, 4<<10)); n == 0 {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", p.o.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.WriteSettings()
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: requestBlock("/"), EndStream: true, EndHeaders: true})
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- p.o.Stop(ctx) }()
	last := []uint32{}
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			break
		}
		if f, ok := f.(*http2.GoAwayFrame); ok {
			last = append(last, f.LastStreamID)
		}
	}
	if fmt.Sprint(last) != "[2147483647 1]" {
		t.Errorf("GOAWAY with %v, must warn, and then name the last stream", last)
	}
	if _, err := io.ReadAll(old); err != nil {
		t.Errorf("HTTP/1.1: %v, must be closed in order", err)
	}
	if err := <-stopped; err != nil || time.Since(begun) > 8*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

func requestBlock(path string) []byte {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", path}} {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return block.Bytes()
}

// A hit that the fast path begins and leaves to the other one is one request to the limiter.
func TestWhatTheFastPathLeavesIsChargedOnce(t *testing.T) {
	t.Parallel()
	for _, way := range []string{plainHTTP1, plainHTTP2} {
		p := startAs(t, way, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=600")
			w.WriteHeader(http.StatusNoContent) // it can't be written there
		}, func(c *optimizer.Config) {
			c.Guard.RateLimit.RequestsPerMinute, c.Guard.RateLimit.Burst = 1, 5
		})
		for i := range 6 {
			want, cache := http.StatusNoContent, "hit"
			switch i {
			case 0:
				cache = "stored"
			case 5:
				want, cache = http.StatusTooManyRequests, ""
			}
			if a := p.get("/"); a.status != want || !strings.Contains(a.cache(), cache) {
				t.Errorf("%s: request %d: %d, %s; want %d, %s", way, i+1, a.status, a.cache(), want, cache)
			}
		}
	}
}

// Who waits for leave to send a body gets it (RFC 9110 §10.1.1).
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	for _, way := range []string{plainHTTP1, plainHTTP2} {
		p := startAs(t, way, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
		p.client.Transport.(*http.Transport).ExpectContinueTimeout = time.Hour
		continued := false
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: func() { continued = true }})
		req, err := http.NewRequestWithContext(ctx, "POST", p.url, strings.NewReader("whole"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Expect", "100-continue")
		resp, err := p.client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", way, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		if resp.Body.Close(); err != nil || string(body) != "whole" || !continued {
			t.Errorf("%s: %q, %v, 100 Continue: %v", way, body, err, continued)
		}
	}
}

func TestAccessLogOfHTTP2(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var out bytes.Buffer
	p := startAs(t, plainHTTP2, counted("Cache-Control: max-age=60"), func(c *optimizer.Config) {
		c.Telemetry.AccessLog, c.AccessLog = "json", lockedWriter{&mu, &out}
		c.Guard.MaxHeaderSize, c.Guard.MaxURILength = 4096, 1000
	})
	for _, cache := range []string{"miss", "hit"} {
		p.get("/logged")
		eventually(t, "a record of a "+cache, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return strings.Contains(out.String(), `{"time":"`) && strings.Contains(out.String(), `"client":"127.0.0.1","method":"GET","host":"`+p.o.Addr().String()+`","target":"/logged","protocol":"HTTP/2.0","status":200,"bytes":`) &&
				strings.Contains(out.String(), `"cache":"`+cache+`"`)
		})
	}
	conn, err := net.Dial("tcp", p.o.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	var block bytes.Buffer
	fields := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "a"}, {Name: ":path", Value: "/long"}} {
		fields.WriteField(f)
	}
	for range 5 {
		fields.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 1000)})
	}
	if err := errors.Join(framer.WriteSettings(), framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a record of what is too long", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(out.String(), `"client":"127.0.0.1","method":"GET","host":"a","target":"/long","protocol":"HTTP/2.0","status":431,"bytes":`)
	})
}
