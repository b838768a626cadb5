package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// The protocols that a pool may be told to speak.
const (
	Auto  = "auto"     // http: HTTP/1.1; https: what ALPN gives
	HTTP1 = "http/1.1" // HTTP/1.1 on both
	H2C   = "h2c"      // HTTP/2 by prior knowledge; http only
)

// Config describes one upstream. URL is required; every other zero value means
// the default that stands beside it.
type Config struct {
	URL      string `yaml:"url" help:"http or https, host, optional port and path prefix"`
	Protocol string `yaml:"protocol" help:"auto, http/1.1 or h2c; default auto"`

	// MaxConnectionsPerHost bounds the open connections; further requests wait.
	// Over HTTP/1.1 it also bounds the misses in flight: at an upstream of 464 ms,
	// 20 connections carry 43 requests/s. So the default, 512, is a safety net
	// against running out of descriptors and not a brake; an upstream that wants
	// fewer sets fewer.
	MaxConnectionsPerHost int `yaml:"max_connections_per_host" help:"open connections at most; further requests wait; default 512"`
	// ConnectionPoolSize bounds the connections kept open without work; default 100.
	ConnectionPoolSize int `yaml:"connection_pool_size" help:"connections kept open without work; default 100"`

	IdleTimeout time.Duration `yaml:"idle_timeout" help:"an unused connection is closed after this; default 90s"`
	DialTimeout time.Duration `yaml:"dial_timeout" help:"TCP connect; default 5s"`
	TLSTimeout  time.Duration `yaml:"tls_timeout" help:"TLS handshake; default 10s"`
	// Timeout bounds a buffered exchange from its begin, waiting for a connection
	// included, to the last byte; for a streamed body, the header and then every
	// pause between two reads. Default 30s.
	Timeout time.Duration `yaml:"timeout" help:"for a whole exchange, or the pause between two reads of a streamed body; default 30s"`

	CAFile             string `yaml:"ca_file" help:"PEM file of authorities to trust instead of the system's"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify" help:"accept any certificate; a warning is logged"`
	EnablePush         bool   `yaml:"enable_push" help:"accepted, without effect: one log line says so"`
	PreserveHost       bool   `yaml:"preserve_host" help:"send the client's Host instead of the URL's"`

	// Adopt takes a new connection over and gives the one to use in its place; nil
	// leaves it as it is.
	Adopt func(*net.TCPConn) (net.Conn, error) `yaml:"-"`

	Breaker Breaker `yaml:"-"` // stands beside upstream in the optimizer's file, so it is filled in by the caller
}

// Breaker sets when the circuit opens.
type Breaker struct {
	Disabled         bool          `yaml:"disabled" help:"never open"`
	ErrorShare       float64       `yaml:"error_share" help:"share of failed exchanges at which it opens; default 0.5"`
	MinRequests      int           `yaml:"min_requests" help:"exchanges in the window below which it never opens; default 20"`
	Window           time.Duration `yaml:"window" help:"rolling window; default 10s"`
	OpenFor          time.Duration `yaml:"open_for" help:"how long no request goes up; default 5s"`
	HalfOpenRequests int           `yaml:"half_open_requests" help:"exchanges tried then; all must succeed to close it; default 5"`
}

// WithDefaults returns c with every zero value replaced by its default.
func (c Config) WithDefaults() Config {
	orString(&c.Protocol, Auto)
	orNumber(&c.MaxConnectionsPerHost, 512)
	orNumber(&c.ConnectionPoolSize, 100)
	orNumber(&c.IdleTimeout, 90*time.Second)
	orNumber(&c.DialTimeout, 5*time.Second)
	orNumber(&c.TLSTimeout, 10*time.Second)
	orNumber(&c.Timeout, 30*time.Second)
	orNumber(&c.Breaker.ErrorShare, 0.5)
	orNumber(&c.Breaker.MinRequests, 20)
	orNumber(&c.Breaker.Window, 10*time.Second)
	orNumber(&c.Breaker.OpenFor, 5*time.Second)
	orNumber(&c.Breaker.HalfOpenRequests, 5)
	return c
}

// Validate reports every fault, joined, each beginning with the key at fault.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	u, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		fault("upstream.url: missing; give http://HOST:PORT or https://HOST:PORT")
	case err != nil:
		fault("upstream.url: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		fault("upstream.url: %q is not of the form http://HOST:PORT or https://HOST:PORT", c.URL)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		fault("upstream.url: %q has user, query or fragment; only scheme, host, port and a path prefix are allowed", u.Redacted())
	}
	switch c.Protocol {
	case Auto, HTTP1:
	case H2C:
		if u != nil && u.Scheme == "https" {
			fault("upstream.protocol: h2c is for http:// addresses; https:// chooses h2 by ALPN under auto")
		}
	default:
		fault("upstream.protocol: %q, allowed are auto, http/1.1, h2c", c.Protocol)
	}
	for _, n := range []struct {
		key   string
		value int
	}{
		{"upstream.max_connections_per_host", c.MaxConnectionsPerHost}, {"upstream.connection_pool_size", c.ConnectionPoolSize},
		{"breaker.min_requests", c.Breaker.MinRequests}, {"breaker.half_open_requests", c.Breaker.HalfOpenRequests},
	} {
		if n.value < 1 || n.value > 1<<20 {
			fault("%s: %d, must be 1 to 1048576", n.key, n.value)
		}
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{
		{"upstream.idle_timeout", c.IdleTimeout}, {"upstream.dial_timeout", c.DialTimeout}, {"upstream.tls_timeout", c.TLSTimeout},
		{"upstream.timeout", c.Timeout}, {"breaker.window", c.Breaker.Window}, {"breaker.open_for", c.Breaker.OpenFor},
	} {
		if d.value < time.Millisecond {
			fault("%s: %v, must be 1ms or more (a number needs a unit, like 5s)", d.key, d.value)
		}
	}
	if !(c.Breaker.ErrorShare > 0 && c.Breaker.ErrorShare <= 1) {
		fault("breaker.error_share: %v, must be above 0 and at most 1", c.Breaker.ErrorShare)
	}
	return errors.Join(faults...)
}

func orString(v *string, fallback string) {
	if *v == "" {
		*v = fallback
	}
}

func orNumber[T int | float64 | time.Duration](v *T, fallback T) {
	if *v == 0 {
		*v = fallback
	}
}
