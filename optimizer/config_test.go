package optimizer_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phasegate/optimizer"
)

const completeFile = `
listen: 127.0.0.1:9001
tls: {cert_file: cert.pem, key_file: key.pem, min_version: "1.3"}
http2: {max_concurrent_streams: 100}
admin: {listen: 127.0.0.1:9002, pprof: true}
upstream:
  url: http://127.0.0.1:9000
  urls: [http://127.0.0.1:9003]
  balance: least_pending
  protocol: http/1.1
  fallback_for: 1m
  max_connections_per_host: 20
  max_waiting: 50
  wait_timeout: 1s
  connection_pool_size: 100
  max_connection_age: 1m
  idle_timeout: 90s
  dial_timeout: 1s
  tls_timeout: 10s
  first_byte_timeout: 2s
  last_byte_timeout: 30m
  timeout: 3s
  retry_budget: 0.1
  eject_after: 3
  eject_for: 2s
  health: {path: /healthz, interval: 1s, timeout: 500ms, healthy: 1, unhealthy: 2}
  ca_file: ca.pem
  cert_file: cert.pem
  key_file: key.pem
  insecure_skip_verify: true
  enable_push: true
  preserve_host: true
cache: {max_memory_mb: 200, capacity: 20000, max_object_share: 0.2, policy: s3fifo, default_ttl: 10m, negative_ttl: 0s, refresh_ahead: 0, stale_while_revalidate: 1s, stale_if_error: 2s,
  stale_when_disconnected: 3s, cookies: rfc9111, purge_from: [127.0.0.1/32],
  forward_headers: [Accept], ignore_query: [utm_*], sort_query: true}
guard: {max_request_size: 10MB, max_header_size: 8KiB, max_uri_length: 4KiB, max_connections: 9, read_timeout: 10s, write_timeout: 20s, idle_timeout: 3m, rate_limit: {requests_per_minute: 1000, burst: 100, addresses: 10}}
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
	for fault := range strings.SplitSeq(fmt.Sprint(settings.Explain(c.Validate())), "\n") {
		if !strings.HasSuffix(fault, "no such file or directory") {
			t.Error(fault)
		}
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
		{"wrong kind", "cache:\n  max_memory_mb: many\n", `o.yaml:2:18: cache.max_memory_mb: "many", must be a whole number`},
		{"a list for a number", "cache: {max_object_share: [1]}\n", "o.yaml:1:27: cache.max_object_share: a list, must be a number"},
		{"a value for a section", "cache: 5\n", `o.yaml:1:8: cache: "5", must be keys, each with a value`},
		{"text for a list", "cache: {purge_from: here}\n", `o.yaml:1:21: cache.purge_from: "here", must be a list`},
		{"duration without sense", "cache: {default_ttl: soon}\n", `o.yaml:1:22: cache.default_ttl: "soon" is not a duration`},
		{"size without sense", "guard:\n  max_request_size: 10 apples\n", `o.yaml:2:21: guard.max_request_size: "10 apples"`},
		{"not YAML", "cache: [", "o.yaml:1:"},
		{"a key twice", "listen: a\nlisten: b\n", "o.yaml:2:1: "},
		{"a bare number as duration", "cache:\n  default_ttl: 300\n", `o.yaml:2:16: cache.default_ttl: "300" is not a duration`},
		{"too little memory", "cache:\n  max_memory_mb: 3\n", "o.yaml:2:18: cache.max_memory_mb: 3, must be 40 to"},
		{"a share beyond effect", "cache:\n  max_object_share: 0.3\n", "o.yaml:2:21: cache.max_object_share: 0.3, must be above 0 and at most 0.25"},
		{"an unknown policy", "cache:\n  policy: fifo\n", `o.yaml:2:11: cache.policy: "fifo", must be lru or s3fifo`},
		{"a header field that can't be", "cache: {forward_headers: [a b]}\n", `o.yaml:1:26: cache.forward_headers: "a b", must be names of header fields`},
		{"a pattern that isn't one", "cache: {ignore_query: ['[a']}\n", `o.yaml:1:23: cache.ignore_query: "[a", must be names of parameters`},
		{"a second document", "listen: a\n---\ncache: {policy: lru}\n", "o.yaml:2:1: a second document begins, must be one"},
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

// Certificates and keys are read when the configuration is, whether they will be used or
// not, and what is wrong with one names its key, the file, and where it was named.
func TestFilesThatAreNamedAreRead(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, "a")
	_, otherKey := certificate(t, "b")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ file, want string }{
		{"upstream: {url: http://a, ca_file: none.pem}", "o.yaml:1:36: upstream.ca_file: open none.pem: "},
		{"upstream: {url: https://a, ca_file: none.pem}", "o.yaml:1:37: upstream.ca_file: open none.pem: "},
		{"upstream: {url: http://a, ca_file: " + empty + "}", "o.yaml:1:36: upstream.ca_file: no certificate in PEM form in " + empty},
		{"upstream: {url: http://a, cert_file: none.pem, key_file: " + key + "}", "o.yaml:1:38: upstream.cert_file: open none.pem: "},
		{"upstream: {url: http://a, cert_file: " + key + ", key_file: " + key + "}", "o.yaml:1:38: upstream.cert_file: no certificate in PEM form in " + key},
		{"upstream: {url: http://a, key_file: none.pem, cert_file: " + cert + "}", "o.yaml:1:37: upstream.key_file: open none.pem: "},
		{"upstream: {url: http://a, key_file: " + otherKey + ", cert_file: " + cert + "}", "o.yaml:1:37: upstream.key_file: " + otherKey + " for the certificate in " + cert + ": "},
		{"upstream: {url: http://a}\ntls: {cert_file: none.pem, key_file: " + key + "}", "o.yaml:2:18: tls.cert_file: open none.pem: "},
		{"upstream: {url: http://a}\ntls: {key_file: " + empty + ", cert_file: " + cert + "}", "o.yaml:2:17: tls.key_file: " + empty + " for the certificate in " + cert + ": "},
		{"upstream: {url: http://a, ca_file: " + cert + ", cert_file: " + cert + ", key_file: " + key + "}\ntls: {cert_file: " + cert + ", key_file: " + key + "}", "<nil>"},
	} {
		c, settings, err := optimizer.ReadConfig("o.yaml", strings.NewReader(tt.file))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(settings.Explain(c.Validate())); !strings.HasPrefix(got, tt.want) || strings.Contains(got, "\n") {
			t.Errorf("%s\n%s, want %s", tt.file, got, tt.want)
		}
	}
}

// What is set to nothing has its default, and doesn't pass for set.
func TestNothingStandsForTheDefault(t *testing.T) {
	t.Parallel()
	c, settings, err := optimizer.ReadConfig("o.yaml", strings.NewReader("upstream: {url: http://a, protocol: ''}\ncache: {stale_if_error: 0s, default_ttl: 0s}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := settings.Set(&c, "upstream.max_connections_per_host", "0", "flag --x"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := settings.Print(&out, c); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"max_connections_per_host: 512 # default, which 0 in flag --x means ", `protocol: "auto" # default, which "" in o.yaml:1:37 means `,
		"stale_if_error: 0s # o.yaml:2:25 ", "default_ttl: 0s # o.yaml:2:42 ", "max_waiting: 1024 # default ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// Who embeds it hears the warning too, at every start.
func TestTheWarningOfUnverifiedCertificates(t *testing.T) {
	t.Parallel()
	for _, set := range []bool{true, false} {
		var log bytes.Buffer
		cfg := optimizer.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}
		cfg.Upstream.URL, cfg.Upstream.InsecureSkipVerify = "https://127.0.0.1:1", set
		o, err := optimizer.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "level=WARN msg=\"the upstream's certificate isn't verified: upstream.insecure_skip_verify is set\""); (n == 1) != set || n > 1 {
			t.Errorf("insecure_skip_verify %v: %q", set, log.String())
		}
	}
}

// lines is a log of few lines.
type lines chan string

// Write adds one.
func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// A fallback to HTTP/1.1 is a line of the optimizer's log.
func TestTheLogHasFallbacks(t *testing.T) {
	t.Parallel()
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	defer api.Close()
	log := make(lines, 10)
	cfg := optimizer.Config{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	cfg.Upstream.URL, cfg.Upstream.InsecureSkipVerify = api.URL, true
	o, err := optimizer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	<-log // of insecure_skip_verify
	resp, err := (&http.Client{Transport: o.RoundTripper()}).Get(api.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	select {
	case line := <-log:
		if !strings.Contains(line, "HTTP/1.1 takes the place of HTTP/2") || !strings.Contains(line, "reason=alpn") {
			t.Errorf("the log has %s", line)
		}
	case <-time.After(patient):
		t.Error("the log has nothing")
	}
	if err := o.Stop(t.Context()); err != nil {
		t.Fatal(err)
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
