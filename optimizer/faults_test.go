package optimizer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"phasegate/optimizer"
	"phasegate/optimizer/upstream"
)

// How long a fault may keep a client is told by the limit that it may wait for. That one
// is short; each other outlasts the test, so whoever waits for it is found, however busy
// the machine is.
const (
	short   = 500 * time.Millisecond
	forever = time.Hour
	patient = 30 * time.Second // the client; it is found out then
)

// limit names one of the upstream's limits of time.
type limit int

const (
	none limit = iota
	firstByte
	whole
)

// limits has the one short, and all others long.
func limits(l limit) upstream.Config {
	c := upstream.Config{DialTimeout: forever, TLSTimeout: forever, FirstByteTimeout: forever, Timeout: forever, WaitTimeout: forever / 2}
	switch l {
	case firstByte:
		c.FirstByteTimeout = short
	case whole:
		c.Timeout, c.WaitTimeout = short, 0
	}
	return c
}

// faulty is one way in which an upstream may fail, and what may come of it at most. The
// README's table has the same rows.
type faulty struct {
	kind   string
	answer http.HandlerFunc                                            // in place of the good answer, over HTTP/1.1
	over2  http.HandlerFunc                                            // the same over HTTP/2
	hello  func(good *tls.Config, c certificates) (*tls.Config, error) // in place of the good handshake; nil: clear text

	status int    // without anything stored
	spends limit  // that a client waits for at most
	again  int    // that the upstream is asked again for one response at most; there are pauses from the second time on
	stale  bool   // a stored response is used, where stale-if-error allows it
	metric string // that counts it
	opens  bool   // the breaker
}

func hijacked(answer string, reset bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(conn, answer)
		if reset {
			time.Sleep(20 * time.Millisecond) // what was written is to arrive
			conn.(*net.TCPConn).SetLinger(0)
		}
		conn.Close()
	}
}

// connKey finds a connection by a request's context.
type connKey struct{}

// severed writes raw bytes to a request's connection and ends it.
func severed(raw string, reset bool) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		conn := r.Context().Value(connKey{}).(*net.TCPConn)
		io.WriteString(conn, raw)
		if reset {
			conn.SetLinger(0)
		}
		conn.Close()
	}
}

func half(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "max-age=60")
	w.Header().Set("Content-Length", "1000")
	w.Write(make([]byte, 500))
	w.(http.Flusher).Flush()
}

func unavailable(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
func hang(_ http.ResponseWriter, r *http.Request)        { <-r.Context().Done() }
func late(w http.ResponseWriter, r *http.Request)        { time.Sleep(short / 5); good(w, r) }
func stopped(w http.ResponseWriter, r *http.Request)     { half(w); <-r.Context().Done() }
func cut(w http.ResponseWriter, _ *http.Request)         { half(w); panic(http.ErrAbortHandler) }
func silent(http.ResponseWriter, *http.Request)          { panic(http.ErrAbortHandler) }

var faults = []faulty{
	{kind: "5xx", answer: unavailable, over2: unavailable,
		status: 503, stale: true, metric: "optimizer_upstream_errors_total", opens: true},
	{kind: "hang", answer: hang, over2: hang,
		status: 504, spends: firstByte, stale: true, metric: "optimizer_upstream_errors_total", opens: true},
	{kind: "slow headers", answer: late, over2: late,
		status: 200},
	{kind: "slow body", answer: stopped, over2: stopped,
		status: 504, spends: whole, stale: true, metric: "optimizer_upstream_errors_total"},
	{kind: "truncated body", answer: cut, over2: cut,
		status: 502, stale: true, metric: "optimizer_upstream_errors_total"},
	{kind: "wrong length", answer: hijacked("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\ngood and more", false),
		status: 200},
	{kind: "less than was announced", over2: func(w http.ResponseWriter, _ *http.Request) { half(w) },
		status: 502, stale: true, metric: "optimizer_upstream_errors_total"},
	{kind: "garbage bytes", answer: hijacked(strings.Repeat("garbage! ", 20), false),
		status: 502, stale: true, metric: "optimizer_upstream_errors_total", opens: true},
	{kind: "garbage bytes", over2: severed(strings.Repeat("garbage! ", 20), false),
		status: 502, again: 5, stale: true, metric: "optimizer_upstream_errors_total", opens: true},
	{kind: "closed without an answer", answer: hijacked("", false), over2: severed("", false),
		status: 502, again: 5, stale: true, metric: `optimizer_upstream_retries_total{reason="lost",upstream="HOST"}`, opens: true},
	{kind: "stream reset without an answer", over2: silent,
		status: 502, again: 5, stale: true, metric: "optimizer_upstream_errors_total", opens: true},
	{kind: "reset mid-stream", answer: hijacked("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1000\r\n\r\ngo", true),
		status: 502, stale: true, metric: "optimizer_upstream_errors_total"},
	{kind: "reset mid-stream",
		over2: func(w http.ResponseWriter, r *http.Request) {
			half(w)
			time.Sleep(20 * time.Millisecond)
			severed("", true)(w, r)
		},
		status: 502, again: 5, stale: true, metric: "optimizer_upstream_errors_total"}, // those beside it may have no answer yet
	{kind: "GOAWAY storm", over2: func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close"); good(w, r) },
		status: 200, metric: `optimizer_upstream_goaways_total{upstream="HOST"}`},
	{kind: "handshake failure", hello: func(*tls.Config, certificates) (*tls.Config, error) { return nil, errors.New("none today") },
		status: 502, stale: true, metric: `optimizer_upstream_handshake_failures_total{reason="tls",upstream="HOST"}`, opens: true},
	{kind: "expired certificate", hello: func(good *tls.Config, c certificates) (*tls.Config, error) { return good, c.use(good, "expired") },
		status: 502, stale: true, metric: `optimizer_upstream_handshake_failures_total{reason="certificate",upstream="HOST"}`, opens: true},
	{kind: "certificate for another name", hello: func(good *tls.Config, c certificates) (*tls.Config, error) { return good, c.use(good, "another") },
		status: 502, stale: true, metric: `optimizer_upstream_handshake_failures_total{reason="certificate",upstream="HOST"}`, opens: true},
}

func good(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "max-age=60, stale-if-error=600")
	if r.URL.Path == "/stored" {
		w.Header().Set("Age", "60") // stale at once
	}
	io.WriteString(w, "good")
}

// Whatever an upstream does, clients see no more of it than the table says, and never a
// part of an answer as the whole. How long they wait is held without a clock: one limit of
// time is short, and whoever is asked no more often than the row says waits for it no more
// often, and for no more pauses than TestPausesBetweenAttempts allows.
func TestFaultsOfTheUpstream(t *testing.T) {
	t.Parallel()
	issued := issue(t)
	type run struct {
		name string
		faulty
		h2 bool
	}
	var runs []run
	for _, f := range faults {
		if f.answer != nil || f.hello != nil {
			runs = append(runs, run{f.kind, f, false})
		}
		if f.over2 != nil {
			f.answer = f.over2
			runs = append(runs, run{f.kind + " over HTTP/2", f, true})
		}
	}
	for _, f := range runs {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			var broken atomic.Bool
			var asked tally
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if broken.Load() {
					asked.add(r.URL.Path)
					if f.answer != nil {
						f.answer(w, r)
						return
					}
				}
				good(w, r)
			}))
			cfg := optimizer.Config{Listen: "127.0.0.1:0"}
			cfg.Breaker = upstream.Breaker{MinRequests: 5, Window: forever, OpenFor: forever}
			cfg.Upstream = limits(f.spends)
			switch {
			case f.hello != nil:
				usual := &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
				if err := issued.use(usual, "valid"); err != nil {
					t.Fatal(err)
				}
				server.TLS = usual.Clone()
				server.TLS.SessionTicketsDisabled = true // a resumed session shows no certificate
				server.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
					if broken.Load() {
						asked.add("handshakes")
						return f.hello(usual.Clone(), issued)
					}
					return nil, nil
				}
				server.EnableHTTP2 = true
				server.Config.ErrorLog = log.New(io.Discard, "", 0)
				server.StartTLS()
				cfg.Upstream.CAFile = issued.ca
			case f.h2:
				server.Config.Protocols = new(http.Protocols)
				server.Config.Protocols.SetUnencryptedHTTP2(true)
				server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
					return context.WithValue(ctx, connKey{}, c)
				}
				server.Config.ErrorLog = log.New(io.Discard, "", 0)
				server.Start()
				cfg.Upstream.Protocol = "h2c"
			default:
				server.Config.ErrorLog = log.New(io.Discard, "", 0)
				server.Start()
			}
			t.Cleanup(server.Close)
			t.Cleanup(server.CloseClientConnections)
			cfg.Upstream.URL = server.URL
			p := before(t, cfg)
			p.client.Timeout = patient
			if a := p.get("/stored"); a.body != "good" {
				t.Fatalf("while all is well: %d %q", a.status, a.body)
			}
			broken.Store(true)
			if f.hello != nil {
				server.CloseClientConnections()
				time.Sleep(20 * time.Millisecond)
			}
			begun := time.Now()
			stored := p.get("/stored")
			longest := time.Since(begun)
			if wasStale := stored.cache() == "optimizer; fwd=stale"; wasStale != f.stale || stored.status != 200 || stored.body != "good" {
				t.Errorf("with a stored response: %d %q %s, want stale %v", stored.status, stored.body, stored.cache(), f.stale)
			}
			const clients = 6
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range clients {
				wg.Go(func() {
					begun := time.Now()
					a, err := p.try("GET", fmt.Sprint("/new", i), "")
					took := time.Since(begun)
					mu.Lock()
					defer mu.Unlock()
					longest = max(longest, took)
					switch {
					case err != nil:
						t.Errorf("the client's connection failed, or the client waited for what it mustn't: %v", err)
					case a.status == 503 && f.opens: // the breaker is open by now
					case a.status != f.status || a.status == 200 && a.body != "good":
						t.Errorf("%d %q, want %d", a.status, a.body, f.status)
					case a.status == 504 && took < short:
						t.Errorf("504 after %v, and the upstream has %v", took, short)
					}
				})
			}
			wg.Wait()
			most := 1 + f.again
			if f.hello != nil {
				most = 1 + clients // each for itself
			}
			path, times := asked.most()
			if times < 1 || times > most {
				t.Errorf("asked %d times for %s, want at most %d", times, path, most)
			}
			host := strings.TrimPrefix(strings.TrimPrefix(server.URL, "https://"), "http://")
			state := p.metric(`optimizer_breaker_state{upstream="` + host + `"}`)
			if opened := state == 2; opened != f.opens {
				t.Errorf("the breaker's state is %v, open wanted: %v", state, f.opens)
			}
			counted := 0.0
			if f.metric != "" {
				if counted = p.metric(strings.ReplaceAll(f.metric, "HOST", host)); counted == 0 {
					t.Errorf("%s is 0", f.metric)
				}
			}
			name, _, _ := strings.Cut(f.metric, ",")
			t.Logf("| %s | %d | %v, asked %d times | stale: %v | %s = %v | breaker open: %v |", f.name, f.status, longest.Round(time.Millisecond), times, f.stale, name, counted, state == 2)
		})
	}
}

// tally counts by name.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func (t *tally) add(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[string]int{}
	}
	t.n[name]++
}

// most is what was counted most often.
func (t *tally) most() (name string, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for one, count := range t.n {
		if count > n {
			name, n = one, count
		}
	}
	return name, n
}

// The optimizer's side of pool exhaustion: beyond what may wait, 503 with Retry-After at
// once, or what is stored; the breaker stays closed.
func TestRequestsBeyondThePoolAreToldAtOnce(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	var slow atomic.Bool
	p := start(t, func(w http.ResponseWriter, r *http.Request) {
		if slow.Load() {
			<-release
		}
		good(w, r)
	}, func(c *optimizer.Config) {
		address := c.Upstream.URL
		c.Upstream = limits(none)
		c.Upstream.URL = address
		c.Upstream.MaxConnectionsPerHost, c.Upstream.MaxWaiting = 2, 3
	})
	p.client.Timeout = patient
	t.Cleanup(let)
	p.get("/stored")
	slow.Store(true)
	u, _ := url.Parse(p.upstream)
	metric := func(name, labels string) float64 { return p.metric(name + "{" + labels + `upstream="` + u.Host + `"}`) }
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			if a, err := p.try("GET", fmt.Sprint("/wait", i), ""); err != nil || a.status != 200 {
				t.Errorf("one that may wait: %d, %v", a.status, err)
			}
		})
	}
	eventually(t, "three wait", func() bool { return metric("optimizer_upstream_waiting_requests", "") == 3 })
	for i := range 20 { // each at once: nothing is answered, and nobody's wait ends, before let
		if a := p.get(fmt.Sprint("/beyond", i)); a.status != 503 || a.header.Get("Retry-After") != "1" {
			t.Fatalf("beyond the bound: %d, Retry-After %q", a.status, a.header.Get("Retry-After"))
		}
	}
	if a := p.get("/stored"); a.status != 200 || a.cache() != "optimizer; fwd=stale" {
		t.Errorf("stored: %d %s", a.status, a.cache())
	}
	let()
	wg.Wait()
	if full, open := metric("optimizer_upstream_refused_total", `reason="full",`), metric("optimizer_breaker_state", ""); full != 21 || open != 0 {
		t.Errorf("%v refused, breaker %v", full, open)
	}
	if n := metric("optimizer_upstream_wait_seconds_count", ""); n != 6 {
		t.Errorf("%v requests in the histogram of waits, want 6", n)
	}
}

// Who waits beside another for its fetch waits in no line, so what that one is told for
// want of a connection goes for all: none waits, or asks, in its turn again.
func TestThoseBesideARefusedOneAreRefused(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	p := start(t, func(w http.ResponseWriter, r *http.Request) { <-release }, func(c *optimizer.Config) {
		c.Upstream.MaxConnectionsPerHost, c.Upstream.MaxWaiting, c.Upstream.WaitTimeout = 1, 10, time.Second
	})
	t.Cleanup(let)
	var wg, refused sync.WaitGroup
	wg.Go(func() { p.get("/long") })
	eventually(t, "the connection is in use", func() bool { return p.asked.Load() == 1 })
	for range 20 {
		refused.Go(func() {
			if a := p.get("/beside"); a.status != 503 || a.header.Get("Retry-After") != "1" {
				t.Errorf("%d, Retry-After %q", a.status, a.header.Get("Retry-After"))
			}
		})
	}
	refused.Wait()
	u, _ := url.Parse(p.upstream)
	count := func(reason string) float64 {
		return p.metric(`optimizer_upstream_refused_total{reason="` + reason + `",upstream="` + u.Host + `"}`)
	}
	if n := count("full") + count("timeout"); n == 0 || n > 5 { // 1, unless some of them come late
		t.Errorf("%v of 20 asked for a connection", n)
	}
	let()
	wg.Wait()
}

// certificates are of an authority of the test's own, in files.
type certificates struct {
	ca    string
	pairs map[string]tls.Certificate
}

// use has the server show the certificate.
func (c certificates) use(config *tls.Config, name string) error {
	config.Certificates = []tls.Certificate{c.pairs[name]}
	return nil
}

func issue(t *testing.T) certificates {
	t.Helper()
	sign := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (tls.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, key
	}
	now := time.Now()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	root, key := sign(authority, nil, nil)
	c := certificates{ca: filepath.Join(t.TempDir(), "ca.pem"), pairs: map[string]tls.Certificate{}}
	if err := os.WriteFile(c.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	here := []net.IP{net.IPv4(127, 0, 0, 1)}
	for name, leaf := range map[string]*x509.Certificate{
		"valid":   {NotAfter: now.Add(time.Hour), IPAddresses: here},
		"expired": {NotAfter: now.Add(-time.Minute), IPAddresses: here},
		"another": {NotAfter: now.Add(time.Hour), DNSNames: []string{"another.test"}},
	} {
		leaf.SerialNumber, leaf.NotBefore, leaf.Subject = big.NewInt(2), now.Add(-time.Hour), pkix.Name{CommonName: name}
		c.pairs[name], _ = sign(leaf, authority, key)
	}
	return c
}

// An answer that isn't stored goes out as it comes. Its header is kept back with the begin
// of a short body, so that there the upstream's failure can still be told.
func TestAShortAnswerThatStopsIsTold(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, _ *http.Request) { half(w); panic(http.ErrAbortHandler) })
	for _, method := range []string{"POST", "GET"} {
		a, err := p.try(method, "/", "", "Range: bytes=0-999")
		if err != nil || a.status != 502 {
			t.Errorf("%s: %d %q, %v; want 502", method, a.status, a.body, err)
		}
	}
}

// One that is cut off while it is passed on is counted, though its status has left.
func TestACutOffAnswerIsCounted(t *testing.T) {
	t.Parallel()
	p := start(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "40000")
		w.Write(make([]byte, 20000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	if a, err := p.try("POST", "/", ""); err == nil {
		t.Errorf("%d with %d bytes passes for whole", a.status, len(a.body))
	}
	eventually(t, "it is counted", func() bool { return p.metric("optimizer_upstream_errors_total") == 1 })
}
