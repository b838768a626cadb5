package guard_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"phasegate/optimizer/guard"
)

func ExampleParseSize() {
	for _, s := range []string{"10MB", "16KiB", "512", "1.5KiB"} {
		fmt.Println(guard.ParseSize(s))
	}
	// Output:
	// 10MB <nil>
	// 16KiB <nil>
	// 512B <nil>
	// 1536B <nil>
}

func TestBadSizesAreRefused(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "MB", "-1MB", "1.5B", "10 apples", "NaN", "1e99", "10mb"} {
		if v, err := guard.ParseSize(s); err == nil {
			t.Errorf("%q is read as %v", s, v)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("10MB")
	f.Add("0x1p4KiB")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := guard.ParseSize(s)
		if err != nil {
			return
		}
		if again, err := guard.ParseSize(v.String()); v < 0 || err != nil || again != v {
			t.Fatalf("%q is %d, written %q, read as %d, %v", s, v, v.String(), again, err)
		}
	})
}

func TestConfigFaultsAreJoined(t *testing.T) {
	t.Parallel()
	err := guard.Config{MaxRequestSize: -1, MaxHeaderSize: 5, RateLimit: guard.RateLimit{RequestsPerMinute: -1}}.Validate()
	for _, key := range []string{"guard.max_request_size", "guard.max_header_size", "guard.rate_limit.requests_per_minute"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s isn't named in %v", key, err)
		}
	}
	if err := (guard.Config{}).Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

func TestRateLimitIsATokenBucketPerAddress(t *testing.T) {
	t.Parallel()
	l, err := guard.NewLimiter(guard.RateLimit{RequestsPerMinute: 60, Burst: 2, Addresses: 2})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	a, b := []byte("10.0.0.1"), []byte("10.0.0.2")
	for i, want := range []bool{true, true, false} {
		if ok, _ := l.Allow(a, now); ok != want {
			t.Errorf("request %d: %v", i, ok)
		}
	}
	if _, wait := l.Allow(a, now); wait != time.Second {
		t.Errorf("wait %v, want 1s at one token a second", wait)
	}
	if ok, _ := l.Allow(b, now); !ok {
		t.Error("one address pays for another")
	}
	if ok, _ := l.Allow(a, now.Add(time.Second)); !ok {
		t.Error("no token a second later")
	}
	var none *guard.Limiter
	if ok, _ := none.Allow(a, now); !ok {
		t.Error("no limiter refuses")
	}
}

func TestAmbiguousFraming(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]bool{
		"Host: a\r\nContent-Length: 5\r\n":                          false,
		"Transfer-Encoding: chunked\r\nHost: a\r\n":                 false,
		"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n":       true,
		"transfer-encoding : x\r\nHost: a\r\ncontent-length: 0\r\n": true,
	} {
		if got := guard.AmbiguousFraming([]byte(raw)); got != want {
			t.Errorf("%q: %v", raw, got)
		}
	}
}

func TestFolded(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]bool{"X: a\r\nY: b c\r\n": false, "X: a\r\n b\r\n": true, "X: a\n\tb\r\n": true} {
		if got := guard.Folded([]byte(raw)); got != want {
			t.Errorf("%q: %v", raw, got)
		}
	}
}

func TestHostAndTarget(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{"a.test:80": true, "[::1]:80": true, "": false, "a/b": false, "u@h": false, "a b": false, "a\x00": false} {
		if got := guard.ValidHost([]byte(host)); got != want {
			t.Errorf("host %q: %v", host, got)
		}
	}
	for target, want := range map[string]bool{"/": true, "/ä?b=%20": true, "": false, "a": false, "/a b": false, "/a#b": false, "/\x01": false,
		"/%zz": false, "//h/%": false, "/%2": false, "/a?%zz": true} {
		if got := guard.ValidTarget([]byte(target)); got != want {
			t.Errorf("target %q: %v", target, got)
		}
	}
}

// The way to the upstream relies on it.
func FuzzValidTargetsParse(f *testing.F) {
	for _, target := range []string{"/", "//h/%20", "/%2", "/a:b?%zz", "/\xff", "/*"} {
		f.Add([]byte(target))
	}
	f.Fuzz(func(t *testing.T, target []byte) {
		if !guard.ValidTarget(target) {
			return
		}
		if u, err := url.ParseRequestURI(string(target)); err != nil || u.Host != "" || u.Opaque != "" {
			t.Errorf("%q: %v, %#v", target, err, u)
		}
	})
}
