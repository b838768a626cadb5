package guard

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/time/rate"

	"phasegate/optimizer/lru"
)

// Config sets the limits. Zero values mean the defaults beside them.
type Config struct {
	MaxRequestSize Size      `yaml:"max_request_size" help:"body; default 10MB"`
	MaxHeaderSize  Size      `yaml:"max_header_size" help:"request line and header fields; default 16KiB"`
	MaxURILength   Size      `yaml:"max_uri_length" help:"request target; default 8KiB"`
	MaxConnections int       `yaml:"max_connections" help:"clients at once; further ones wait until others have left; default 0: no bound"`
	RateLimit      RateLimit `yaml:"rate_limit" help:"per client address; default none"`

	ReadTimeout  time.Duration `yaml:"read_timeout" help:"how long a client may take to send a request, head and body, or over HTTP/2 the rest of a frame that has begun; default 1m"`
	WriteTimeout time.Duration `yaml:"write_timeout" help:"how long a client may keep us waiting for taking 16 KiB of its answer, or the rest of it; over HTTP/2 of all its answers, for those that wait for the connection; default 30s"`
	IdleTimeout  time.Duration `yaml:"idle_timeout" help:"how long a client may be silent between requests; default 2m"`
}

// RateLimit is a token bucket per client address.
type RateLimit struct {
	RequestsPerMinute int `yaml:"requests_per_minute" help:"0: no limit"`
	Burst             int `yaml:"burst" help:"size of the bucket; default 100"`
	Addresses         int `yaml:"addresses" help:"buckets kept, least recently used dropped first; default 65536"`
}

// WithDefaults returns c with every zero value replaced by its default.
func (c Config) WithDefaults() Config {
	if c.MaxRequestSize == 0 {
		c.MaxRequestSize = 10e6
	}
	if c.MaxHeaderSize == 0 {
		c.MaxHeaderSize = 16 << 10
	}
	if c.MaxURILength == 0 {
		c.MaxURILength = 8 << 10
	}
	if c.RateLimit.Burst == 0 {
		c.RateLimit.Burst = 100
	}
	if c.RateLimit.Addresses == 0 {
		c.RateLimit.Addresses = 1 << 16
	}
	if c.ReadTimeout == 0 {
		c.ReadTimeout = time.Minute
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 30 * time.Second
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 2 * time.Minute
	}
	return c
}

// Validate reports every fault, joined, each beginning with the key at fault.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var faults []error
	check := func(key string, value, low, high int64) {
		if value < low || value > high {
			faults = append(faults, fmt.Errorf("guard.%s: %d, must be %d to %d", key, value, low, high))
		}
	}
	check("max_request_size", int64(c.MaxRequestSize), 1, math.MaxInt32)
	check("max_header_size", int64(c.MaxHeaderSize), 1<<10, 1<<20)
	check("max_uri_length", int64(c.MaxURILength), 64, int64(c.MaxHeaderSize))
	check("max_connections", int64(c.MaxConnections), 0, 1<<20)
	check("rate_limit.requests_per_minute", int64(c.RateLimit.RequestsPerMinute), 0, 1e9)
	check("rate_limit.burst", int64(c.RateLimit.Burst), 1, 1e9)
	check("rate_limit.addresses", int64(c.RateLimit.Addresses), 1, 1<<24)
	for _, d := range []struct {
		key   string
		value time.Duration
	}{{"read_timeout", c.ReadTimeout}, {"write_timeout", c.WriteTimeout}, {"idle_timeout", c.IdleTimeout}} {
		if d.value < 10*time.Millisecond || d.value > 24*time.Hour {
			faults = append(faults, fmt.Errorf("guard.%s: %v, must be 10ms to 24h", d.key, d.value))
		}
	}
	return errors.Join(faults...)
}

// Limiter holds one token bucket per address. A nil Limiter allows everything.
//
// The table is bounded: an address that was dropped from it begins with a full
// bucket again, which is what it would have after a minute's rest or so anyway.
// Someone with more addresses than the table has room isn't held by it.
type Limiter struct {
	limit   rate.Limit
	burst   int
	buckets *lru.Cache[*rate.Limiter]
}

// NewLimiter returns a limiter, or nil if none is configured.
func NewLimiter(cfg RateLimit) (*Limiter, error) {
	if cfg.RequestsPerMinute == 0 {
		return nil, nil
	}
	cfg = Config{RateLimit: cfg}.WithDefaults().RateLimit
	buckets, err := lru.New[*rate.Limiter](lru.Config{MaxBytes: int64(cfg.Addresses)})
	if err != nil {
		return nil, fmt.Errorf("guard.rate_limit: %w", err)
	}
	return &Limiter{limit: rate.Limit(float64(cfg.RequestsPerMinute) / 60), burst: cfg.Burst, buckets: buckets}, nil
}

// Allow takes a token for the address at now. Without one it reports how long
// until there is.
func (l *Limiter) Allow(address []byte, now time.Time) (ok bool, wait time.Duration) {
	if l == nil {
		return true, 0
	}
	bucket, found := l.buckets.Get(address)
	if !found {
		// Two first requests of an address may each make a bucket; the second wins,
		// and at most one burst is lost or won.
		bucket = rate.NewLimiter(l.limit, l.burst)
		l.buckets.Put(address, bucket, 1)
	}
	if bucket.AllowN(now, 1) {
		return true, 0
	}
	missing := 1 - bucket.TokensAt(now)
	return false, time.Duration(missing / float64(l.limit) * float64(time.Second))
}

// Folded reports whether a line of the raw header, without its first line, is
// continued on the next one: obsolete (RFC 9112 §5.2), and read differently by
// different recipients.
func Folded(raw []byte) bool {
	return bytes.Contains(raw, []byte("\n ")) || bytes.Contains(raw, []byte("\n\t"))
}

// AmbiguousFraming reports whether the raw header of a request, without its first
// line, names both Content-Length and Transfer-Encoding (RFC 9112 §6.1): two readers
// could then disagree on where the request ends.
func AmbiguousFraming(raw []byte) bool {
	var length, encoding bool
	for len(raw) > 0 {
		line, rest, _ := bytes.Cut(raw, []byte("\n"))
		raw = rest
		name, _, _ := bytes.Cut(line, []byte(":"))
		name = bytes.TrimSpace(name)
		length = length || bytes.EqualFold(name, []byte("Content-Length"))
		encoding = encoding || bytes.EqualFold(name, []byte("Transfer-Encoding"))
	}
	return length && encoding
}

// ValidField reports whether name and value may be a header field's (RFC 9110 §5.1, §5.5).
func ValidField(name, value []byte) bool {
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return ValidToken(name)
}

// ValidToken reports whether it is a token (RFC 9110 §5.6.2), as methods and names are.
func ValidToken[T ~string | ~[]byte](text T) bool {
	for i := range len(text) {
		if !IsToken(text[i]) {
			return false
		}
	}
	return len(text) > 0
}

// IsToken reports whether c is one of the characters of names (RFC 9110 §5.6.2).
func IsToken(c byte) bool { return token[c] }

var token = func() (t [256]bool) {
	for c := range 256 {
		t[c] = '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c != 0 && bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), byte(c)) >= 0
	}
	return t
}()

// ValidHost reports whether the bytes may stand in a Host field: enough to keep
// white space, slashes and user information out of cache keys.
func ValidHost(host []byte) bool {
	if len(host) == 0 || len(host) > 255+6 {
		return false
	}
	for _, c := range host {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_', c == ':', c == '[', c == ']', c == '~', c == '%':
		default:
			return false
		}
	}
	return true
}

// ValidTarget reports whether the bytes may stand as a request target in origin
// form: a slash first, visible ASCII or UTF-8 bytes, whole escapes in the path, no
// fragment. net/url parses what it accepts.
func ValidTarget(target []byte) bool {
	if len(target) == 0 || target[0] != '/' {
		return false
	}
	path := true
	for i, c := range target {
		switch {
		case c <= ' ', c == 0x7f, c == '#':
			return false
		case c == '?':
			path = false
		case c == '%' && path && !(i+2 < len(target) && isHex(target[i+1]) && isHex(target[i+2])):
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
