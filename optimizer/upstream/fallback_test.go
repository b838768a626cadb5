package upstream_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"phasegate/optimizer/upstream"
)

// oneOne answers HTTP/1.1 on a connection, until the other side closes.
func oneOne(conn net.Conn, r *bufio.Reader) {
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nHTTP/1.1"
		if req.Method == "PRI" { // RFC 9113 §3.4: what an old server makes of the preface
			answer = "HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
		}
		if _, err := io.WriteString(conn, answer); err != nil || req.Method == "PRI" {
			return
		}
	}
}

// Where HTTP/2 can't be had, requests go over HTTP/1.1, none of them fails, the reason is
// counted once, and the choice is remembered. A connection on which no SETTINGS came wasn't
// made ready.
func TestFallback(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		alpn   []string       // nil: clear text
		http2  func(net.Conn) // what happens where HTTP/2 is begun; nil: HTTP/1.1
		reason string
		dials  uint64
		ready  uint64
	}{
		{"the upstream offers HTTP/1.1 only", []string{"http/1.1"}, nil, "alpn", 1, 1},
		{"the upstream has no ALPN", []string{}, nil, "alpn", 1, 1},
		{"nothing in common", []string{"spdy/3"}, nil, "no_common_alpn", 2, 1},
		{"an old server behind h2c", nil, nil, "preface", 2, 1},
		{"garbage", []string{"h2", "http/1.1"}, func(c net.Conn) { c.Write(bytes.Repeat([]byte("garbage! "), 10)) }, "preface", 2, 1},
		{"closed without a word, twice", []string{"h2", "http/1.1"}, func(c net.Conn) {}, "silence", 3, 1},
		{"HTTP_1_1_REQUIRED on the connection", []string{"h2", "http/1.1"}, refusing(func(f *http2.Framer, _ uint32) { f.WriteGoAway(0, http2.ErrCodeHTTP11Required, nil) }), "http_1_1_required", 2, 2},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			cfg := upstream.Config{URL: "http://", Protocol: "h2c", InsecureSkipVerify: true, TLSTimeout: 5 * time.Second}
			var config *tls.Config
			if tt.alpn != nil {
				config = certificate(t, tt.alpn...)
				cfg.URL, cfg.Protocol = "https://", "auto"
			}
			cfg.URL += listen(t, config, func(conn net.Conn) {
				if secured, ok := conn.(*tls.Conn); ok && tt.http2 != nil {
					if secured.Handshake() == nil && secured.ConnectionState().NegotiatedProtocol == "h2" {
						tt.http2(conn)
						return
					}
				}
				oneOne(conn, bufio.NewReader(conn))
			})
			p := newPool(t, cfg)
			for i := range 5 {
				if _, body, err := ask(t, p, "POST"); err != nil || body != "HTTP/1.1" {
					t.Fatalf("request %d: %q, %v", i+1, body, err)
				}
			}
			s := p.Stats()
			if s.Fallbacks[tt.reason] != 1 || sum(s.Fallbacks) != 1 || s.Dials != tt.dials || s.Protocol["http/1.1"].Reused < 4 {
				t.Errorf("fallbacks %v, %d connections, want %s and %d; %+v", s.Fallbacks, s.Dials, tt.reason, tt.dials, s)
			}
			if sum(s.Handshakes) != tt.ready {
				t.Errorf("handshakes %v, want %d", s.Handshakes, tt.ready)
			}
		})
	}
}

func sum(counts map[string]uint64) (total uint64) {
	for _, n := range counts {
		total += n
	}
	return total
}

// RFC 9113 §8.7 doesn't have HTTP_1_1_REQUIRED say that nothing was done: what may be
// repeated, and can be, goes over HTTP/1.1 at once, the rest from the next request on. However
// many streams are reset with it, that is one fallback.
func TestHTTP11RequiredOnStreams(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method, body string
		once         bool // the body can't be had again
		answers      bool
	}{
		{"GET", "", false, true},
		{"PUT", "whole", false, true},
		{"PUT", "part", true, false},
		{"POST", "whole", false, false},
	} {
		t.Run(tt.method+" "+tt.body, func(t *testing.T) {
			t.Parallel()
			const n = 5
			var mu sync.Mutex
			var held []uint32
			two := &peer{serve: func(c *peerConn, r peerRequest) {
				mu.Lock()
				defer mu.Unlock()
				if held = append(held, r.stream); len(held) == n {
					for _, stream := range held {
						c.reset(stream, http2.ErrCodeHTTP11Required)
					}
				}
			}}
			config := certificate(t, "h2", "http/1.1")
			var over1 atomic.Int64
			p := newPool(t, upstream.Config{InsecureSkipVerify: true, RetryBudget: new(0.0), Breaker: upstream.Breaker{Disabled: true},
				URL: "https://" + listen(t, config, func(conn net.Conn) {
					if secured := conn.(*tls.Conn); secured.Handshake() == nil && secured.ConnectionState().NegotiatedProtocol == "h2" {
						var running sync.WaitGroup
						two.talk(&peerConn{Conn: conn, framer: http2.NewFramer(conn, conn)}, &running)
						running.Wait()
						return
					}
					over1.Add(1)
					oneOne(conn, bufio.NewReader(conn))
				})})
			var asking sync.WaitGroup
			for range n {
				asking.Go(func() {
					if _, err := send(t, p, tt.method, tt.body, tt.once); (err == nil) != tt.answers {
						t.Errorf("error %v", err)
					}
				})
			}
			asking.Wait()
			if !tt.answers && over1.Load() > 0 {
				t.Error("one was sent again")
			}
			if _, err := send(t, p, "POST", "next", true); err != nil {
				t.Errorf("the next one: %v", err)
			}
			if s := p.Stats(); s.Fallbacks["http_1_1_required"] != 1 || sum(s.Fallbacks) != 1 {
				t.Errorf("fallbacks %v", s.Fallbacks)
			}
		})
	}
}

// After a while HTTP/2 is tried again, beside the requests: none waits for it, and none
// fails if it still isn't spoken.
func TestHTTP2IsTriedAgain(t *testing.T) {
	t.Parallel()
	var modern atomic.Bool
	var log lines
	tlsConfig := certificate(t)
	tlsConfig.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := certificateOf(tlsConfig, "http/1.1")
		if modern.Load() {
			c = certificateOf(tlsConfig, "h2", "http/1.1")
		}
		return c, nil
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	server.EnableHTTP2 = true
	server.TLS = tlsConfig
	server.StartTLS()
	t.Cleanup(server.Close)
	p := newPool(t, upstream.Config{URL: server.URL, InsecureSkipVerify: true, FallbackFor: 30 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	spoken := func() string {
		_, body, err := ask(t, p, "GET")
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	until(t, "a second try", func() bool {
		if got := spoken(); got != "HTTP/1.1" {
			t.Fatalf("spoke %s", got)
		}
		return p.Stats().Fallbacks["alpn"] >= 2
	})
	modern.Store(true)
	until(t, "HTTP/2", func() bool { return spoken() == "HTTP/2.0" })
	until(t, "two lines of the log", func() bool { return strings.Count(log.String(), "\n") > 1 })
	if text := log.String(); !strings.Contains(text, "level=WARN") || !strings.HasSuffix(text, "level=INFO msg=\"HTTP/2 is spoken again\" upstream="+p.URL().Host+"\n") || strings.Count(text, "\n") != 2 {
		t.Errorf("the log has\n%s", text)
	}
}

// lines is a log that is read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write adds a line.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all of them.
func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A connection of HTTP/2 whose dial began before the fallback doesn't undo it when it becomes
// ready: what led to that is the later word.
func TestAnOlderConnectionUndoesNoFallback(t *testing.T) {
	t.Parallel()
	config := certificate(t)
	two := &peer{settings: []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1}}, serve: func(c *peerConn, r peerRequest) {
		c.goAway(r.stream, http2.ErrCodeNo)
		c.answer(r.stream, "HTTP/2")
	}}
	shaken, release := make(chan bool), make(chan bool)
	let := sync.OnceFunc(func() { close(release) })
	t.Cleanup(let)
	var opened atomic.Int64
	p := newPool(t, upstream.Config{InsecureSkipVerify: true, URL: "https://" + listen(t, nil, func(raw net.Conn) {
		n := opened.Add(1)
		if n > 2 {
			<-shaken
			conn := tls.Server(raw, certificateOf(config, "http/1.1"))
			oneOne(conn, bufio.NewReader(conn))
			return
		}
		conn := tls.Server(raw, certificateOf(config, "h2"))
		if err := conn.Handshake(); err != nil {
			t.Error(err)
		}
		if n == 2 {
			close(shaken)
			<-release
		}
		var running sync.WaitGroup
		two.talk(&peerConn{Conn: conn, framer: http2.NewFramer(conn, conn)}, &running)
		running.Wait()
	})})
	get := func(want string) {
		if _, body, err := ask(t, p, "GET"); err != nil || body != want {
			t.Errorf("%q, %v; want %s", body, err, want)
		}
	}
	get("HTTP/2") // and one stream on each connection from now on
	until(t, "it has left", func() bool { return p.Stats().Protocol["h2"] == upstream.Usage{Fresh: 1} })
	var asking sync.WaitGroup
	for range 2 {
		asking.Go(func() { get("HTTP/1.1") })
	}
	asking.Wait()
	let()
	until(t, "the older one is ready", func() bool { return p.Stats().Protocol["h2"].Idle == 1 })
	get("HTTP/1.1")
	if s := p.Stats(); sum(s.Fallbacks) != 1 || s.Fallbacks["alpn"] != 1 {
		t.Errorf("fallbacks %v", s.Fallbacks)
	}
}

// Silence says nothing of the protocol: an upstream that was down when HTTP/2 was begun is
// spoken to in HTTP/2 soon after it is back, unless it has answered in HTTP/1.1, and not
// only that it wants none.
func TestSilenceIsSoonForgotten(t *testing.T) {
	t.Parallel()
	only := &peer{serve: func(c *peerConn, r peerRequest) { c.answer(r.stream, "ok") }}
	var opened atomic.Int64
	address := listen(t, nil, func(conn net.Conn) {
		if opened.Add(1) <= 2 {
			return
		}
		var running sync.WaitGroup
		only.talk(&peerConn{Conn: conn, framer: http2.NewFramer(conn, conn)}, &running) // returns at once from HTTP/1.1
		running.Wait()
		io.WriteString(conn, "HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	})
	p := newPool(t, upstream.Config{URL: "http://" + address, Protocol: upstream.H2C, Breaker: upstream.Breaker{Disabled: true}})
	if _, body, _ := ask(t, p, "POST"); body != "" || p.Stats().Fallbacks["silence"] != 1 {
		t.Errorf("%q, %+v", body, p.Stats())
	}
	until(t, "HTTP/2", func() bool {
		_, body, err := ask(t, p, "POST")
		return err == nil && body == "ok"
	})
}

func certificateOf(c *tls.Config, alpn ...string) *tls.Config {
	return &tls.Config{Certificates: c.Certificates, NextProtos: alpn}
}

// A further handshake resumes the first one's session; the client shows its certificate.
func TestSessionsAreResumedAndTheCertificateIsShown(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // over HTTP/2 too: a GOAWAY
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.Organization[0])
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	key, err := x509Key(server)
	if err != nil {
		t.Fatal(err)
	}
	cert := write("cert.pem", "CERTIFICATE", server.Certificate().Raw)
	for _, protocol := range []string{"auto", "http/1.1"} {
		p := newPool(t, upstream.Config{URL: server.URL, Protocol: protocol, CAFile: cert, CertFile: cert, KeyFile: write("key.pem", "PRIVATE KEY", key)})
		for range 4 {
			if _, body, err := ask(t, p, "GET"); err != nil || body != "Acme Co" {
				t.Fatalf("%s: %q, %v", protocol, body, err)
			}
		}
		if s := p.Stats(); s.Handshakes["full"] > 2 || s.Handshakes["resumed"] < 2 {
			t.Errorf("%s: handshakes %v", protocol, s.Handshakes)
		}
	}
	p := newPool(t, upstream.Config{URL: server.URL, CAFile: cert})
	if _, _, err := ask(t, p, "GET"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without a certificate: %v", err)
	}
}

// A handshake that is cut off is begun again; one that fails for cause isn't, and is
// counted by its reason.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		serve   func(n int64, c net.Conn)
		config  upstream.Config
		reason  string
		answers bool
	}{
		{"cut off once", func(n int64, c net.Conn) {
			if n > 1 {
				secured := tls.Server(c, certificate(t, "http/1.1"))
				oneOne(secured, bufio.NewReader(secured))
			}
		}, upstream.Config{InsecureSkipVerify: true}, "tls", true},
		{"cut off always", func(int64, net.Conn) {}, upstream.Config{InsecureSkipVerify: true}, "tls", false},
		{"hangs", func(_ int64, c net.Conn) { io.Copy(io.Discard, c) }, upstream.Config{TLSTimeout: 50 * time.Millisecond}, "tls_timeout", false},
		{"not to be trusted", func(_ int64, c net.Conn) { tls.Server(c, certificate(t, "h2")).Handshake() }, upstream.Config{}, "certificate", false},
	} {
		for _, protocol := range []string{"auto", "http/1.1"} {
			t.Run(tt.why+" "+protocol, func(t *testing.T) {
				t.Parallel()
				var n atomic.Int64
				cfg := tt.config
				cfg.URL = "https://" + listen(t, nil, func(c net.Conn) { tt.serve(n.Add(1), c) })
				cfg.Protocol = protocol
				p := newPool(t, cfg)
				begun := time.Now()
				_, _, err := ask(t, p, "GET")
				if (err == nil) != tt.answers || time.Since(begun) > 5*time.Second {
					t.Errorf("%v after %v", err, time.Since(begun))
				}
				if s := p.Stats(); s.Failures[tt.reason] == 0 || s.Failures[tt.reason] > 2 || s.Protocol["h2"].Idle+s.Protocol["h2"].Active > 0 {
					t.Errorf("failures %v, %+v", s.Failures, s)
				}
			})
		}
	}
}

// listen serves each connection in a goroutine, and closes it after.
func listen(t *testing.T, config *tls.Config, serve func(net.Conn)) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	var running sync.WaitGroup
	var open sync.Map
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			open.Store(conn, nil)
			running.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		open.Range(func(conn, _ any) bool { conn.(net.Conn).Close(); return true })
		running.Wait()
	})
	return ln.Addr().String()
}

// refusing is a peer that speaks HTTP/2 and refuses each request in its way.
func refusing(refuse func(f *http2.Framer, stream uint32)) func(net.Conn) {
	return func(c net.Conn) {
		f := http2.NewFramer(c, c)
		io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		f.WriteSettings()
		f.WriteSettingsAck()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			if h := frame.Header(); h.Type == http2.FrameHeaders {
				refuse(f, h.StreamID)
			}
		}
	}
}
