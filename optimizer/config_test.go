package optimizer_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"phasegate/optimizer"
)

const completeFile = `
listen: 127.0.0.1:9001
admin: {listen: 127.0.0.1:9002}
upstream:
  url: http://127.0.0.1:9000
  protocol: http/1.1
  max_connections_per_host: 20
  connection_pool_size: 100
  idle_timeout: 90s
  dial_timeout: 1s
  tls_timeout: 10s
  timeout: 3s
  ca_file: ca.pem
  insecure_skip_verify: true
  enable_push: true
  preserve_host: true
cache: {max_memory_mb: 200, capacity: 20000, max_object_share: 0.2, default_ttl: 10m, negative_ttl: 0s, refresh_ahead: 0, stale_while_revalidate: 1s, stale_if_error: 2s,
  stale_when_disconnected: 3s, cookies: rfc9111, purge_from: [127.0.0.1/32]}
guard: {max_request_size: 10MB, max_header_size: 8KiB, max_uri_length: 4KiB, read_timeout: 10s, write_timeout: 20s, idle_timeout: 3m, rate_limit: {requests_per_minute: 1000, burst: 100, addresses: 10}}
breaker: {disabled: true, error_share: 0.3, min_requests: 7, window: 1s, open_for: 2s, half_open_requests: 3}
telemetry: {access_log: combined, access_log_file: access.log}
handover: optimizer.sock
`

func TestEveryKeyIsReadAndShownWithItsSource(t *testing.T) {
	t.Parallel()
	c, settings, err := optimizer.ReadConfig("o.yaml", strings.NewReader(completeFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if *c.Cache.DefaultTTL != 10*time.Minute || *c.Cache.RefreshAhead != 0 || c.Guard.MaxRequestSize != 10e6 || c.Breaker.MinRequests != 7 || c.Upstream.MaxConnectionsPerHost != 20 {
		t.Errorf("read %+v", c)
	}
	if err := settings.Set(&c, "listen", "127.0.0.1:7", "flag --listen"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := settings.Print(&out, c); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"listen: \"127.0.0.1:7\"", "# flag --listen", "  default_ttl: 10m0s", "  max_request_size: 10MB", "    burst: 100", "  negative_ttl: 0s"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no %q in\n%s", line, out.String())
		}
	}
	if strings.Contains(out.String(), "# default") {
		t.Errorf("a key of the file is shown as default, or a key is missing in the file:\n%s", out.String())
	}
}

func TestDefaultsNeedNothingButTheUpstream(t *testing.T) {
	t.Parallel()
	c, settings, err := optimizer.ReadConfig("empty.yaml", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "upstream.url") {
		t.Errorf("without an upstream: %v", err)
	}
	c.Upstream.URL = "http://127.0.0.1:9000"
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if got := settings.Source("cache.default_ttl"); got != "default" {
		t.Errorf("source %q", got)
	}
}

func TestFaultsSayWhereTheyAre(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ why, file, want string }{
		{"unknown key", "cache:\n  max_memory: 5\n", "o.yaml:2:3: unknown field"},
		{"wrong kind", "cache:\n  max_memory_mb: many\n", "o.yaml:2:18: "},
		{"duration without sense", "cache: {default_ttl: soon}\n", `o.yaml:1:22: cache.default_ttl: "soon" is not a duration`},
		{"size without sense", "guard:\n  max_request_size: 10 apples\n", `o.yaml:2:21: guard.max_request_size: "10 apples"`},
		{"not YAML", "cache: [", "o.yaml:1:"},
		{"a key twice", "listen: a\nlisten: b\n", "o.yaml:2:1: "},
		{"a bare number as duration", "cache:\n  default_ttl: 300\n", `o.yaml:2:16: cache.default_ttl: "300" is not a duration`},
		{"too little memory", "cache:\n  max_memory_mb: 3\n", "o.yaml:2:18: cache.max_memory_mb: 3, must be 40 to"},
		{"several at once", "upstream: {protocol: spdy}\nbreaker: {error_share: 5}\n", "o.yaml:2:24: breaker.error_share"},
	} {
		c, settings, err := optimizer.ReadConfig("o.yaml", strings.NewReader(tt.file))
		if err == nil {
			err = settings.Explain(c.Validate())
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q in it", tt.why, err, tt.want)
		}
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add(completeFile)
	f.Add("cache: {default_ttl: -1s}")
	f.Fuzz(func(t *testing.T, text string) {
		c, settings, err := optimizer.ReadConfig("f", strings.NewReader(text))
		if err != nil {
			return
		}
		settings.Explain(c.Validate())
	})
}
