package optimizer_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"phasegate/optimizer"
)

// certificate writes one for localhost, with its key, and returns their paths.
func certificate(t testing.TB, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// What TLS is spoken, and that nothing else is.
func TestTLS(t *testing.T) {
	t.Parallel()
	p := startAs(t, securedHTTP, counted("Cache-Control: max-age=60"))
	for _, tt := range []struct {
		why    string
		config *tls.Config
		want   string // protocol, or a part of the error
	}{
		{"both", &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, "h2"},
		{"the older", &tls.Config{NextProtos: []string{"http/1.1"}}, "http/1.1"},
		{"nothing", &tls.Config{}, ""},
		{"nothing that we speak", &tls.Config{NextProtos: []string{"spdy/3"}}, "no application protocol"},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}, "h2"},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "protocol version"},
		{"no forward secrecy", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, "handshake failure"},
		{"no authenticated encryption", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, "handshake failure"},
	} {
		tt.config.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", p.o.Addr().String(), tt.config)
		if err != nil {
			if tt.want == "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, must be %q", tt.why, err, tt.want)
			}
			continue
		}
		if got := conn.ConnectionState().NegotiatedProtocol; got != tt.want {
			t.Errorf("%s: %q, must be %q", tt.why, got, tt.want)
		}
		conn.Close()
	}
	if status, closed := p.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); status != 400 || !closed {
		t.Errorf("without TLS: %d, closed %v, must be 400", status, closed)
	}
	p.get("/x")
	for part, want := range map[string]bool{`optimizer_client_handshakes_total{outcome="failed"} 5`: true, "optimizer_http2_requests_total 1": true} {
		eventually(t, part, func() bool {
			resp, err := http.Get(p.admin + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			return strings.Contains(string(text), part) == want
		})
	}
}

// A reload reads the certificate's files again: connections that begin then have the new
// one. Bad files change nothing, and whether TLS is spoken at all needs a restart.
func TestCertificatesAreReloaded(t *testing.T) {
	t.Parallel()
	var next atomic.Pointer[optimizer.Config]
	p := startAs(t, securedHTTP, counted(), func(c *optimizer.Config) {
		c.Source = func() (optimizer.Config, error) { return *next.Load(), nil }
		c.TLS.CertFile, c.TLS.KeyFile = certificate(t, "a")
		next.Store(c)
	})
	c := *next.Load()
	next.Store(&c)
	name := func() string {
		conn, err := tls.Dial("tcp", p.o.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	held, err := tls.Dial("tcp", p.o.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	certFile, keyFile := certificate(t, "b")
	for from, to := range map[string]string{certFile: c.TLS.CertFile, keyFile: c.TLS.KeyFile} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if got := name(); got != "a" {
		t.Errorf("before a reload: %q", got)
	}
	if done, err := p.o.Reload(); err != nil || len(done.NeedsRestart) > 0 || name() != "b" {
		t.Errorf("after it: %+v, %v, %q", done, err, name())
	}
	fmt.Fprint(held, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if answer, err := io.ReadAll(held); !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) {
		t.Errorf("a connection that was there: %q, %v", answer, err)
	}
	if err := os.WriteFile(c.TLS.KeyFile, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.o.Reload(); err == nil || !strings.Contains(err.Error(), "tls.key_file") || name() != "b" {
		t.Errorf("a bad key: %v, %q", err, name())
	}
	without := c
	without.TLS = optimizer.TLS{}
	next.Store(&without)
	if done, err := p.o.Reload(); err == nil && len(done.NeedsRestart) != 2 {
		t.Errorf("without TLS: %+v", done)
	}
}
