package upstream

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// names is a resolver that knows the addresses of one name, whatever it is asked for.
type names struct {
	mu        sync.Mutex
	addresses []string
	asked     int
}

func (n *names) set(addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses = addresses
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go n.serve(server)
		return client, nil
	}}
}

// serve answers one question in the form of DNS over TCP, which the Go resolver speaks on
// anything that isn't a packet connection.
func (n *names) serve(conn net.Conn) {
	defer conn.Close()
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return
	}
	packet := make([]byte, binary.BigEndian.Uint16(size[:]))
	var question dnsmessage.Message
	if _, err := io.ReadFull(conn, packet); err != nil || question.Unpack(packet) != nil {
		return
	}
	answer := dnsmessage.Message{Header: dnsmessage.Header{ID: question.ID, Response: true, Authoritative: true}, Questions: question.Questions}
	if q := question.Questions[0]; q.Type == dnsmessage.TypeA {
		n.mu.Lock()
		n.asked++
		for _, address := range n.addresses {
			answer.Answers = append(answer.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 3600},
				Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(address).To4())},
			})
		}
		n.mu.Unlock()
	}
	packed, err := answer.Pack()
	if err != nil {
		return
	}
	conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...))
}

// Of a name's addresses those that don't answer are passed over; and after
// max_connection_age a new address of the name is found.
func TestAddressesOfAName(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{HTTP1, H2C} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			first, second := pairOfAddresses(t)
			_, port, _ := net.SplitHostPort(first.Addr().String())
			for name, ln := range map[string]net.Listener{"first": first, "second": second} {
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, name) }))
				server.Config.Protocols = new(http.Protocols)
				server.Config.Protocols.SetHTTP1(true)
				server.Config.Protocols.SetUnencryptedHTTP2(true)
				server.Listener.Close()
				server.Listener = ln
				server.Start()
				t.Cleanup(server.Close)
			}
			p, err := New(Config{URL: "http://api.test:" + port, Protocol: protocol, MaxConnectionAge: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			var n names
			p.dialer.Resolver = n.resolver()
			get := func() string {
				req, _ := http.NewRequestWithContext(t.Context(), "GET", p.url.String(), nil)
				resp, err := p.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				return string(body)
			}
			n.set("127.0.0.4", "127.0.0.2") // nobody listens at the one
			if got := get(); got != "first" {
				t.Fatalf("answered by %q", got)
			}
			n.set("127.0.0.3")
			for begun := time.Now(); get() != "second"; {
				if time.Since(begun) > 5*time.Second {
					t.Fatal("the new address is never asked")
				}
				time.Sleep(10 * time.Millisecond)
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.asked < 2 {
				t.Errorf("the name was resolved %d times", n.asked)
			}
		})
	}
}

// An address that takes connections and says nothing in the handshake is followed by the
// next one; one that says what isn't to be trusted isn't.
func TestAddressesWhoseHandshakesFail(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why     string
		first   func(net.Conn)
		second  func(net.Conn) // nil: it is well
		timeout time.Duration  // 0: the default
		answers bool
		reason  string
		dials   uint64
	}{
		{"cut off", closesAtOnce, nil, 0, true, "tls", 2},
		{"cut off everywhere", closesAtOnce, closesAtOnce, 0, false, "tls", 4}, // two rounds
		{"hangs", hangs, nil, 100 * time.Millisecond, true, "tls_timeout", 2},
		{"hangs everywhere", hangs, hangs, 20 * time.Millisecond, false, "tls_timeout", 2},
		{"not to be trusted", func(c net.Conn) { tls.Server(c, untrusted(t)).Handshake() }, nil, 0, false, "certificate", 1},
		{"no TLS", func(c net.Conn) {
			c.Read(make([]byte, 1))
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			hangs(c)
		}, nil, 0, false, "tls", 1},
	} {
		for _, protocol := range []string{HTTP1, Auto} {
			t.Run(tt.why+" "+protocol, func(t *testing.T) {
				t.Parallel()
				first, second := pairOfAddresses(t)
				serveEach(t, first, tt.first)
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "second") }))
				server.Listener.Close()
				server.Listener = second
				server.EnableHTTP2 = true
				server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that come too late
				if tt.second != nil {
					serveEach(t, second, tt.second)
					server.Listener, _ = net.Listen("tcp", "127.0.0.1:0")
				}
				server.StartTLS()
				t.Cleanup(server.Close)
				ca := filepath.Join(t.TempDir(), "ca.pem")
				if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
					t.Fatal(err)
				}
				_, port, _ := net.SplitHostPort(first.Addr().String())
				p, err := New(Config{URL: "https://example.com:" + port, Protocol: protocol, CAFile: ca, TLSTimeout: tt.timeout, Breaker: Breaker{Disabled: true}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(p.Close)
				var n names
				n.set("127.0.0.2", "127.0.0.3")
				p.dialer.Resolver = n.resolver()
				ask := func() error {
					req, _ := http.NewRequestWithContext(t.Context(), "GET", p.url.String(), nil)
					resp, err := p.Do(req)
					if err == nil {
						resp.Body.Close()
					}
					return err
				}
				err = ask()
				times := uint64(1)
				for ; tt.answers && tt.timeout > 0 && err != nil && times < 100; times++ {
					err = ask() // the good one may have had too little time
				}
				s := p.Stats()
				if (err == nil) != tt.answers || s.Dials != times*tt.dials {
					t.Errorf("%v, after %d connections", err, s.Dials)
				}
				failed := uint64(0)
				for _, n := range s.Failures {
					failed += n
				}
				if s.Failures[tt.reason] != failed || tt.answers == (failed == s.Dials) {
					t.Errorf("failures %v, want %s", s.Failures, tt.reason)
				}
			})
		}
	}
}

// Of many addresses that are down eight are tried, in each of the two rounds.
func TestManyAddressesWhoseHandshakesFail(t *testing.T) {
	t.Parallel()
	one, other := pairOfAddresses(t) // there are further loopback addresses
	one.Close()
	other.Close()
	ln, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	serveEach(t, ln, closesAtOnce)
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	p, err := New(Config{URL: "https://api.test:" + port, Protocol: HTTP1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	var n names
	n.set("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8", "127.0.0.9", "127.0.0.10")
	p.dialer.Resolver = n.resolver()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", p.url.String(), nil)
	if _, err := p.Do(req); err == nil || p.Stats().Dials != 16 {
		t.Errorf("%v after %d connections", err, p.Stats().Dials)
	}
}

// A handshake gets upstream.tls_timeout, and leaves half of the time to addresses that
// weren't tried.
func TestTimeForAHandshake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &Pool{cfg: Config{TLSTimeout: 10 * time.Second}}
		for _, tt := range []struct {
			left  time.Duration
			tried addresses
			want  time.Duration
		}{
			{15 * time.Second, addresses{"a": true}, 10 * time.Second},
			{15 * time.Second, addresses{"a": true, "b": false}, 7500 * time.Millisecond},
			{30 * time.Second, addresses{"a": true, "b": false}, 10 * time.Second},
			{7 * time.Second, addresses{"a": true, "b": true}, 7 * time.Second},
			{7 * time.Second, addresses{}, 7 * time.Second},
		} {
			if got := p.handshakeTime(time.Now().Add(tt.left), tt.tried); got != tt.want {
				t.Errorf("of %v, with %v: %v, want %v", tt.left, tt.tried, got, tt.want)
			}
		}
	})
}

// pairOfAddresses listens at one port of two addresses.
func pairOfAddresses(t *testing.T) (first, second net.Listener) {
	t.Helper()
	first, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skipf("no further loopback addresses: %v", err)
	}
	t.Cleanup(func() { first.Close() })
	_, port, _ := net.SplitHostPort(first.Addr().String())
	if second, err = net.Listen("tcp", "127.0.0.3:"+port); err != nil {
		t.Skipf("the port is taken there: %v", err)
	}
	t.Cleanup(func() { second.Close() })
	return first, second
}

func closesAtOnce(net.Conn) {}

func hangs(c net.Conn) { io.Copy(io.Discard, c) }

// serveEach serves each connection that ln takes, and closes it.
func serveEach(t *testing.T, ln net.Listener, serve func(net.Conn)) {
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		serving.Wait()
	})
}

// untrusted is the certificate of an authority that nobody knows.
func untrusted(t *testing.T) *tls.Config {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Error(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Error(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}, NextProtos: []string{alpnHTTP2, alpnHTTP1}}
}
