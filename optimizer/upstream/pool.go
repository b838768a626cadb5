package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Pool sends requests to one upstream. Its methods may be called concurrently.
type Pool struct {
	cfg       Config
	url       *url.URL
	transport *http.Transport
	breaker   *breaker

	open    atomic.Int64
	dials   atomic.Uint64
	reused  atomic.Uint64
	fresh   atomic.Uint64
	waiting atomic.Int64
}

// Stats is a snapshot of the pool's connections.
type Stats struct {
	Open    int64  // connections open now
	Dials   uint64 // connections opened since the start
	Reused  uint64 // requests that got a connection used before
	Fresh   uint64 // requests that got a new connection
	Waiting int64  // requests without a connection yet
	State   State  // the breaker's
}

// New makes a pool; it opens no connection yet.
func New(cfg Config) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.WithDefaults()
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("upstream.url: %w", err)
	}
	p := &Pool{cfg: cfg, url: u}
	if !cfg.Breaker.Disabled {
		p.breaker = newBreaker(cfg.Breaker)
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: cfg.InsecureSkipVerify}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("upstream.ca_file: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("upstream.ca_file: no certificate in PEM form in %s", cfg.CAFile)
		}
	}
	dialer := &net.Dialer{Timeout: cfg.DialTimeout, KeepAlive: 30 * time.Second}
	p.transport = &http.Transport{
		Protocols:             protocols(u.Scheme, cfg.Protocol),
		TLSClientConfig:       tlsConfig,
		TLSHandshakeTimeout:   cfg.TLSTimeout,
		IdleConnTimeout:       cfg.IdleTimeout,
		MaxConnsPerHost:       cfg.MaxConnectionsPerHost,
		MaxIdleConns:          cfg.ConnectionPoolSize,
		MaxIdleConnsPerHost:   cfg.ConnectionPoolSize,
		DisableCompression:    true, // the client's Accept-Encoding goes up, and the answer comes back, untouched
		ResponseHeaderTimeout: cfg.Timeout,
		// Without pings a connection whose other end vanished would take every request
		// until TCP gives up, which is a quarter of an hour.
		HTTP2: &http.HTTP2Config{SendPingTimeout: min(10*time.Second, cfg.Timeout/2), PingTimeout: min(5*time.Second, cfg.Timeout/2)},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if tcp, ok := conn.(*net.TCPConn); ok && p.cfg.Adopt != nil {
				if conn, err = p.cfg.Adopt(tcp); err != nil {
					return nil, err
				}
			}
			p.dials.Add(1)
			p.open.Add(1)
			return &countedConn{Conn: conn, open: &p.open}, nil
		},
	}
	return p, nil
}

func protocols(scheme, wanted string) *http.Protocols {
	ps := new(http.Protocols)
	switch {
	case wanted == H2C:
		ps.SetUnencryptedHTTP2(true)
	case scheme == "https" && wanted == Auto:
		ps.SetHTTP1(true)
		ps.SetHTTP2(true)
	default:
		ps.SetHTTP1(true)
	}
	return ps
}

// URL returns the upstream's address; it must not be changed.
func (p *Pool) URL() *url.URL { return p.url }

// ErrRequestBody marks an error that the reader of a request body returned because
// the client didn't deliver it: the exchange ends, and the upstream isn't to blame.
var ErrRequestBody = errors.New("read the request's body from the client")

// Do sends req and returns the answer as soon as its header is there. The caller
// closes the body. Redirects aren't followed.
//
// While the breaker is open nothing is sent, and the error is an *OpenError. An
// exchange counts as failed when it ends in an error or in status 500, 502, 503 or
// 504; one whose context the caller cancelled, or whose body, or the cause of whose
// cancellation, is ErrRequestBody, doesn't count.
func (p *Pool) Do(req *http.Request) (*http.Response, error) {
	done := func(error) {}
	if p.breaker != nil {
		var err error
		if done, err = p.breaker.allow(); err != nil {
			return nil, err
		}
	}
	p.waiting.Add(1)
	var got atomic.Bool
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if got.CompareAndSwap(false, true) {
			p.waiting.Add(-1)
		}
		if info.Reused {
			p.reused.Add(1)
		} else {
			p.fresh.Add(1)
		}
	}}
	resp, err := p.transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if got.CompareAndSwap(false, true) {
		p.waiting.Add(-1)
	}
	cause := context.Cause(req.Context())
	switch {
	case err != nil && (errors.Is(cause, context.Canceled) || errors.Is(cause, ErrRequestBody) || errors.Is(err, ErrRequestBody)):
		done(context.Canceled)
	case err != nil:
		done(err)
	case Failed(resp.StatusCode):
		done(errStatus)
	default:
		done(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("ask upstream %s: %w", p.url.Host, err)
	}
	return resp, nil
}

// Failed reports whether the status says that the upstream isn't well: the ones
// that RFC 5861 §4 counts as errors.
func Failed(status int) bool {
	return status == 500 || status == 502 || status == 503 || status == 504
}

// Stats returns the pool's counters, read one by one.
func (p *Pool) Stats() Stats {
	s := Stats{Open: p.open.Load(), Dials: p.dials.Load(), Reused: p.reused.Load(), Fresh: p.fresh.Load(), Waiting: p.waiting.Load()}
	if p.breaker != nil {
		s.State = p.breaker.state()
	}
	return s
}

// Close closes the connections that are idle now; those in use close with their
// last request.
func (p *Pool) Close() { p.transport.CloseIdleConnections() }

// countedConn takes itself off the count of open connections when it is closed.
type countedConn struct {
	net.Conn
	once sync.Once
	open *atomic.Int64
}

// Close closes the connection.
func (c *countedConn) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
