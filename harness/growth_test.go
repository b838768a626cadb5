package harness

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"phasegate/harness/probe"
)

func TestClaimsGrowStale(t *testing.T) {
	t.Parallel()
	var none *claims
	if none = newClaims(nil, claimEvery); none.at(0) != (probe.Claims{}) {
		t.Error("a system without metrics claimed something")
	}
	c := &claims{every: claimEvery, last: probe.Claims{LiveHeap: 7}, when: time.Minute}
	for _, tt := range []struct {
		why  string
		at   time.Duration
		want int64
	}{
		{"at once", time.Minute, 7},
		{"one answer overdue", time.Minute + 2*claimEvery, 7},
		{"what was said long ago says nothing of now", time.Minute + 2*claimEvery + 1, 0},
	} {
		if got := c.at(tt.at).LiveHeap; got != tt.want {
			t.Errorf("%s: %d, want %d", tt.why, got, tt.want)
		}
	}
}

// A system that never answers holds nothing up, and stopping waits for no answer.
func TestClaimsAreAskedBesideTheWatch(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 10)
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		if r.URL.Path == "/stuck" {
			<-release
		}
		io.WriteString(w, "optimizer_cache_bytes 42\n")
	}))
	defer server.Close()
	defer close(release)
	for _, path := range []string{"/stuck", "/metrics"} {
		address, err := url.Parse(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		c := newClaims(address, claimEvery)
		recorded := make(chan struct{}, 1)
		stop := c.start(context.Background(), func() time.Duration {
			recorded <- struct{}{}
			return time.Second
		})
		<-asked
		want := int64(0)
		if path == "/metrics" {
			<-recorded
			want = 42
		}
		stop()
		if got := c.at(time.Second).CachePayload; got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}
