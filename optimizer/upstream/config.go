package upstream

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"time"

	"phasegate/optimizer/pemfile"
)

// The protocols that a pool may be told to speak.
const (
	Auto  = "auto"     // http: HTTP/1.1; https: HTTP/2 if ALPN gives it, else HTTP/1.1
	HTTP1 = "http/1.1" // HTTP/1.1 on both
	H2C   = "h2c"      // HTTP/2 by prior knowledge, HTTP/1.1 if that isn't understood; http only
)

// How requests are spread over several upstreams.
const (
	RoundRobin   = "round_robin"
	LeastPending = "least_pending"
)

// Config describes one upstream, or several that serve the same API. URL is required; every other zero value means
// the default that stands beside it.
type Config struct {
	URL string `yaml:"url" help:"http or https, host, optional port and path prefix"`
	// URLs are further upstreams that serve the same API. Requests are spread over all.
	URLs     []string `yaml:"urls" help:"further addresses of the same API, with the scheme and path of url; default none"`
	Balance  string   `yaml:"balance" help:"among several, round_robin or least_pending; default round_robin"`
	Protocol string   `yaml:"protocol" help:"auto, http/1.1 or h2c; default auto"`
	// FallbackFor is how long HTTP/1.1 is spoken after the upstream turned out not to
	// speak HTTP/2; then a connection is opened beside the requests to look again. If
	// it said nothing at all, it is a second, unless HTTP/1.1 is answered in that.
	FallbackFor time.Duration `yaml:"fallback_for" help:"after HTTP/2 failed, how long HTTP/1.1 is spoken before it is tried again; default 5m"`

	// MaxConnectionsPerHost bounds the open connections; further requests wait.
	// Over HTTP/1.1 it also bounds the misses in flight: at an upstream of 464 ms,
	// 20 connections carry 43 requests/s. So the default, 512, is a safety net
	// against running out of descriptors and not a brake; an upstream that wants
	// fewer sets fewer. Over HTTP/2 a further connection is opened when the upstream
	// allows no more streams on the others. Those that take no more requests (GOAWAY,
	// or too old) aren't counted while their last answers come; but all in all there are
	// twice as many at most. After a fallback, or its end, those of the other protocol come on
	// top until they close, idle or with their last answers: three times as many at most, and
	// the one that looks whether HTTP/2 is spoken again.
	MaxConnectionsPerHost int `yaml:"max_connections_per_host" help:"open connections at most; further requests wait; default 512"`
	// MaxWaiting and WaitTimeout bound those who wait for a connection or a stream, in
	// order of arrival. Who is beyond gets 503 with Retry-After, or a stale response; so
	// does, with the optimizer's cache, who waits beside one of them for the same response.
	// A wait of more than half of Timeout would leave the upstream less time than the line.
	// The first connection of HTTP/2 isn't what WaitTimeout bounds: like one of HTTP/1.1, which
	// a request opens for itself, it takes as long as DialTimeout, TLSTimeout and the request's
	// own deadline allow.
	MaxWaiting  int           `yaml:"max_waiting" help:"requests that wait for a connection at most, further ones get 503 at once; default 1024"`
	WaitTimeout time.Duration `yaml:"wait_timeout" help:"how long one waits before it gets 503, at most half of timeout; default 5s, or that half"`
	// ConnectionPoolSize bounds the connections of HTTP/1.1 kept open without work;
	// default 100. Those of HTTP/2 are few, and close after IdleTimeout.
	ConnectionPoolSize int `yaml:"connection_pool_size" help:"connections of HTTP/1.1 kept open without work; default 100"`
	// MaxConnectionAge bounds how long a connection gets new requests, so that the
	// upstream's name is resolved anew.
	MaxConnectionAge time.Duration `yaml:"max_connection_age" help:"a connection gets no new requests after this, so that the name is resolved anew; default 10m"`

	IdleTimeout time.Duration `yaml:"idle_timeout" help:"an unused connection is closed after this; default 90s"`
	// DialTimeout and TLSTimeout together bound all tries of a name's addresses; one whose
	// handshake hangs is followed by the next after half of that at most.
	DialTimeout time.Duration `yaml:"dial_timeout" help:"TCP connect; default 5s"`
	TLSTimeout  time.Duration `yaml:"tls_timeout" help:"TLS handshake, and HTTP/2's exchange of SETTINGS; default 10s"`
	// FirstByteTimeout is the time from the request's end to the answer's header.
	FirstByteTimeout time.Duration `yaml:"first_byte_timeout" help:"from the request's end to the answer's header; default as timeout"`
	// Timeout bounds a buffered exchange from its begin, waiting for a connection
	// included, to the last byte; for a streamed body, the header and then every
	// pause between two reads. Default 30s.
	Timeout time.Duration `yaml:"timeout" help:"for a whole exchange, or the pause between two reads of a streamed body; default 30s"`
	// LastByteTimeout bounds all of an exchange with a streamed body, so that an upstream
	// that drips doesn't hold its connection forever.
	LastByteTimeout time.Duration `yaml:"last_byte_timeout" help:"from a request to the last byte of its streamed body; default 1h"`

	// RetryBudget bounds the retries of idempotent requests whose connection ended
	// without an answer: this share of all requests, and ten per second. Requests that
	// the upstream surely didn't process are sent again in any case.
	RetryBudget *float64 `yaml:"retry_budget" help:"retries of idempotent requests, as a share of all, and ten per second besides; 0: none; default 0.2"`

	// Of several upstreams one that fails is left out for a while: after EjectAfter failed
	// requests in a row for EjectFor, then for twice as long, up to five minutes; and
	// while it fails its probes.
	EjectAfter int           `yaml:"eject_after" help:"of several upstreams, one is left out after so many failed requests in a row; default 5"`
	EjectFor   time.Duration `yaml:"eject_for" help:"for how long; doubled each time, up to 5m; default 5s"`
	Health     Health        `yaml:"health"`

	CAFile             string `yaml:"ca_file" help:"PEM file of authorities to trust instead of the system's"`
	CertFile           string `yaml:"cert_file" help:"PEM file of the certificate, with its chain, to show to the upstream"`
	KeyFile            string `yaml:"key_file" help:"PEM file of its key"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify" help:"accept any certificate; a warning is logged"`
	EnablePush         bool   `yaml:"enable_push" help:"accepted, without effect: one log line says so"`
	PreserveHost       bool   `yaml:"preserve_host" help:"send the client's Host instead of the URL's"`

	// Adopt takes a new connection over and gives the one to use in its place; nil
	// leaves it as it is.
	Adopt func(*net.TCPConn) (net.Conn, error) `yaml:"-"`

	// Logger is told when a pool falls back to HTTP/1.1, and when it speaks HTTP/2 again; nil:
	// nobody is.
	Logger *slog.Logger `yaml:"-"`

	Breaker Breaker `yaml:"-"` // stands beside upstream in the optimizer's file, so it is filled in by the caller
}

// Health sets how several upstreams are asked whether they are well.
type Health struct {
	Path      string        `yaml:"path" help:"what each upstream is asked for, a status from 200 to 399 is good; default none: they aren't asked"`
	Interval  time.Duration `yaml:"interval" help:"how often; default 5s"`
	Timeout   time.Duration `yaml:"timeout" help:"for the answer; default 2s"`
	Healthy   int           `yaml:"healthy" help:"good answers in a row after which it is in again; default 2"`
	Unhealthy int           `yaml:"unhealthy" help:"bad ones after which it is left out; default 3"`
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
	orString(&c.Balance, RoundRobin)
	orNumber(&c.EjectAfter, 5)
	orNumber(&c.EjectFor, 5*time.Second)
	orNumber(&c.Health.Interval, 5*time.Second)
	orNumber(&c.Health.Timeout, 2*time.Second)
	orNumber(&c.Health.Healthy, 2)
	orNumber(&c.Health.Unhealthy, 3)
	orNumber(&c.FallbackFor, 5*time.Minute)
	orNumber(&c.MaxConnectionsPerHost, 512)
	orNumber(&c.MaxWaiting, 1024)
	orNumber(&c.ConnectionPoolSize, 100)
	orNumber(&c.IdleTimeout, 90*time.Second)
	orNumber(&c.DialTimeout, 5*time.Second)
	orNumber(&c.TLSTimeout, 10*time.Second)
	orNumber(&c.Timeout, 30*time.Second)
	orNumber(&c.WaitTimeout, min(5*time.Second, c.longestWait()))
	orNumber(&c.FirstByteTimeout, c.Timeout)
	orNumber(&c.LastByteTimeout, time.Hour)
	orNumber(&c.MaxConnectionAge, 10*time.Minute)
	if c.RetryBudget == nil {
		c.RetryBudget = new(0.2)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	orNumber(&c.Breaker.ErrorShare, 0.5)
	orNumber(&c.Breaker.MinRequests, 20)
	orNumber(&c.Breaker.Window, 10*time.Second)
	orNumber(&c.Breaker.OpenFor, 5*time.Second)
	orNumber(&c.Breaker.HalfOpenRequests, 5)
	return c
}

// longestWait is how long a request may wait for a connection: so long that the upstream
// has as much of the timeout.
func (c Config) longestWait() time.Duration { return max(time.Millisecond, c.Timeout/2) }

// Validate reports every fault, joined, each beginning with the key at fault. The files
// that are named are read.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	u, err := parseURL(c.URL)
	if err != nil {
		fault("upstream.url: %w", err)
	}
	for i, address := range c.URLs {
		other, err := parseURL(address)
		switch {
		case address == c.URL, slices.Contains(c.URLs[:i], address):
			fault("upstream.urls: %q is named twice", address)
		case err != nil:
			fault("upstream.urls: %w", err)
		case u != nil && (other.Scheme != u.Scheme || other.EscapedPath() != u.EscapedPath()):
			fault("upstream.urls: %q must have the scheme and the path of upstream.url, %q", address, c.URL)
		}
	}
	if c.Balance != RoundRobin && c.Balance != LeastPending {
		fault("upstream.balance: %q, allowed are round_robin, least_pending", c.Balance)
	}
	if c.Health.Path != "" && c.Health.Path[0] != '/' {
		fault("upstream.health.path: %q, must begin with /", c.Health.Path)
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
		{"upstream.max_waiting", c.MaxWaiting}, {"upstream.eject_after", c.EjectAfter},
		{"upstream.health.healthy", c.Health.Healthy}, {"upstream.health.unhealthy", c.Health.Unhealthy},
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
		{"upstream.fallback_for", c.FallbackFor}, {"upstream.max_connection_age", c.MaxConnectionAge}, {"upstream.first_byte_timeout", c.FirstByteTimeout},
		{"upstream.eject_for", c.EjectFor}, {"upstream.health.interval", c.Health.Interval}, {"upstream.health.timeout", c.Health.Timeout},
		{"upstream.timeout", c.Timeout}, {"upstream.last_byte_timeout", c.LastByteTimeout}, {"upstream.wait_timeout", c.WaitTimeout}, {"breaker.window", c.Breaker.Window}, {"breaker.open_for", c.Breaker.OpenFor},
	} {
		if d.value < time.Millisecond {
			fault("%s: %v, must be 1ms or more (a number needs a unit, like 5s)", d.key, d.value)
		}
	}
	if most := c.longestWait(); c.WaitTimeout > most {
		fault("upstream.wait_timeout: %v, must be at most half of upstream.timeout: %v of %v", c.WaitTimeout, most, c.Timeout)
	}
	if share := *c.RetryBudget; !(share >= 0 && share <= 1) {
		fault("upstream.retry_budget: %v, must be 0 (no retries) to 1", share)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		fault("upstream.cert_file: %q with key_file %q, give both or neither", c.CertFile, c.KeyFile)
	} else if c.CertFile != "" {
		_, err := pemfile.Pair("upstream", c.CertFile, c.KeyFile)
		faults = append(faults, err)
	}
	if c.CAFile != "" {
		_, err := pemfile.Authorities("upstream.ca_file", c.CAFile)
		faults = append(faults, err)
	}
	if !(c.Breaker.ErrorShare > 0 && c.Breaker.ErrorShare <= 1) {
		fault("breaker.error_share: %v, must be above 0 and at most 1", c.Breaker.ErrorShare)
	}
	return errors.Join(faults...)
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return nil, errors.New("missing; give http://HOST:PORT or https://HOST:PORT")
	case err != nil:
		return nil, err
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("%q is not of the form http://HOST:PORT or https://HOST:PORT", text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q has user, query or fragment; only scheme, host, port and a path prefix are allowed", u.Redacted())
	}
	return u, nil
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
