package optimizer

import (
	"crypto/tls"
	"errors"
	"io"
	"time"

	"phasegate/optimizer/eventloop"
	"phasegate/optimizer/pemfile"
	"phasegate/optimizer/telemetry"
)

// TLS sets the encryption of the clients' connections. With a certificate the port
// speaks TLS and nothing else; without, it speaks none.
type TLS struct {
	CertFile   string `yaml:"cert_file" help:"PEM file with the certificate for clients, and those between it and the authority; default none: no TLS"`
	KeyFile    string `yaml:"key_file" help:"PEM file with its private key"`
	MinVersion string `yaml:"min_version" help:"oldest version of TLS that is spoken, 1.2 or 1.3; default 1.2"`
}

// on reports whether clients must speak TLS.
func (t TLS) on() bool { return t.CertFile != "" }

var tlsVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// The names by which clients choose the protocol (RFC 7301, RFC 9113 §3.2).
const (
	alpnHTTP2 = "h2"
	alpnHTTP1 = "http/1.1"
)

// check reports what is wrong, also with the files.
func (t TLS) check(fault func(format string, args ...any)) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		fault("tls.cert_file: %q with tls.key_file %q, must be both or neither", t.CertFile, t.KeyFile)
	} else if _, err := t.load(); err != nil {
		fault("%w", err)
	}
	if tlsVersions[t.MinVersion] == 0 {
		fault("tls.min_version: %q, must be 1.2 or 1.3", t.MinVersion)
	}
}

// load reads the files. Of TLS 1.2 only the suites with forward secrecy and
// authenticated encryption are offered: HTTP/2 forbids all others (RFC 9113 appendix A),
// and TLS 1.3 has dropped them. It is nil without a certificate.
func (t TLS) load() (*tls.Config, error) {
	if !t.on() {
		return nil, nil
	}
	certificate, err := pemfile.Pair("tls", t.CertFile, t.KeyFile)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tlsVersions[t.MinVersion],
		NextProtos:   []string{alpnHTTP2, alpnHTTP1},
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}, nil
}

// lendSecure has a client shake hands, and gives his connection to the engine for the
// protocol that they agree on. The event loop doesn't get it back: what it would read
// is encrypted.
func (o *Optimizer) lendSecure(conn *eventloop.Conn, config *tls.Config) {
	conn.Keep(false)
	secured := tls.Server(conn, config)
	_ = conn.SetDeadline(time.Now().Add(o.cfg.Guard.ReadTimeout))
	if err := secured.HandshakeContext(o.handler.ctx); err != nil {
		o.handler.metrics.Handshakes[telemetry.Broken].Inc()
		o.cfg.Logger.Debug("handshake", "client", conn.Client(), "error", err)
		var record tls.RecordHeaderError
		if errors.As(err, &record) && record.Conn != nil && plainHTTP(record.RecordHeader) {
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 40\r\n\r\nThis port speaks TLS: begin with https.\n")
		}
		conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{})
	state := secured.ConnectionState()
	if state.DidResume {
		o.handler.metrics.Handshakes[telemetry.Resumed].Inc()
	} else {
		o.handler.metrics.Handshakes[telemetry.Full].Inc()
	}
	if state.NegotiatedProtocol == alpnHTTP2 {
		conn.Keep(true)
		o.http2.Serve(secured)
		return
	}
	o.serveHTTP1(&clientConn{Conn: secured, loop: conn})
}

// plainHTTP reports whether what should begin a record of TLS begins a request.
func plainHTTP(record [5]byte) bool {
	switch string(record[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET":
		return true
	}
	return false
}
