package optimizer

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// minutes is the length of a play; entries expire after ten.
const minutes = 20

// waiting plays twenty minutes of phase 1: 5,000 keys by Zipf's law, 4,000 of them
// fetched at once before it begins, so that they all expire together, and 120 requests
// a second. It returns the share of requests that waited for the upstream once the
// first entries had expired, the share in the worst minute, and the upstream's requests
// for each of the clients'.
func waiting(t *testing.T, cacheControl string, refreshAhead float64) (share, worst, asked float64) {
	synctest.Test(t, func(t *testing.T) {
		const (
			keys, prewarmed, rate, life = 5000, 4000, 120, 10 * time.Minute
			delay                       = 464 * time.Millisecond
		)
		r := newRig(t, func(req *http.Request) (*http.Response, error) {
			time.Sleep(delay)
			return respond(req, 200, "x", "Cache-Control: "+cacheControl), nil
		}, func(c *Config) { c.Cache.RefreshAhead = &refreshAhead })
		if refreshAhead > 0 {
			r.h.workers.Go(r.h.keepFresh)
		}
		var wg sync.WaitGroup
		for key := range prewarmed {
			wg.Go(func() { r.do("GET", "/"+strconv.Itoa(key)) })
		}
		wg.Wait()
		begin := time.Now()
		var waited [minutes]atomic.Int64 // by minute
		zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, keys-1)
		before := 0
		for n := range minutes * 60 * rate {
			time.Sleep(time.Until(begin.Add(time.Duration(n) * time.Second / rate)))
			if n == int(life.Seconds())*rate {
				before = r.asks()
			}
			target := "/" + strconv.FormatUint(zipf.Uint64(), 10)
			minute := int(time.Since(begin) / time.Minute)
			wg.Go(func() {
				sent := time.Now()
				r.do("GET", target)
				if time.Since(sent) > delay/100 {
					waited[minute].Add(1)
				}
			})
		}
		asked = float64(r.asks()-before) / ((minutes - 10) * 60 * rate)
		wg.Wait()
		for minute := 10; minute < minutes; minute++ {
			n := float64(waited[minute].Load()) / (60 * rate)
			share += n / (minutes - 10)
			worst = max(worst, n)
		}
	})
	return share, worst, asked
}

// Every entry expires each ten minutes, most are asked for less than once a minute,
// and all were stored in the same second.
func TestFewRequestsWaitWhenEntriesExpire(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("plays 400,000 requests")
	}
	t.Parallel()
	for _, tt := range []struct {
		why, cacheControl string
		refreshAhead      float64
		atMost            float64
	}{
		{"as phase 1 has it", "public, max-age=600, stale-while-revalidate=60", 0.9, 0.01},
		{"without leave to serve stale", "max-age=600", 0.9, 0.01},
	} {
		t.Run(tt.why, func(t *testing.T) {
			share, worst, asked := waiting(t, tt.cacheControl, tt.refreshAhead)
			t.Logf("%.2f %% of the requests waited, %.2f %% in the worst minute; the upstream got %.1f %% as many", 100*share, 100*worst, 100*asked)
			if share >= tt.atMost || worst >= 2*tt.atMost {
				t.Errorf("more than %.0f %% waited", 100*tt.atMost)
			}
		})
	}
	// What the test can tell apart.
	if share, worst, _ := waiting(t, "max-age=600", 0); share < 0.02 {
		t.Errorf("without renewal only %.2f %% waited, %.2f %% in the worst minute", 100*share, 100*worst)
	}
}

func TestWhatIsRenewedWithoutARequest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why   string
		lines []string
		ask   []string
		hits  int // after the first request
		want  int // requests upstream in five lifetimes without a client
	}{
		{"asked for once: never", nil, nil, 0, 1},
		{"asked for again: in this lifetime, and twice more", nil, nil, 1, 4},
		{"a variant, with the fields that it varies by", []string{"Vary: Accept-Language, Foo"}, []string{"Accept-Language: de, en"}, 1, 4},
		{"a variant by a cookie: nobody's session is kept alive", []string{"Vary: Cookie"}, []string{"Cookie: a=b"}, 1, 1},
		{"one that must be validated each time", []string{"Cache-Control: no-cache"}, nil, 1, 2},
		{"one that never changes", []string{"Cache-Control: immutable"}, nil, 1, 1},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(req *http.Request) (*http.Response, error) {
					return respond(req, 200, "x", append([]string{"Cache-Control: max-age=100", `ETag: "a"`}, tt.lines...)...), nil
				})
				r.h.workers.Go(r.h.keepFresh)
				for range 1 + tt.hits {
					r.do("GET", "/a?b", tt.ask...)
				}
				time.Sleep(500 * time.Second)
				synctest.Wait()
				if r.asks() != tt.want {
					t.Fatalf("upstream asked %d times, want %d", r.asks(), tt.want)
				}
				for _, req := range r.asked {
					name, value, _ := strings.Cut(strings.Join(tt.ask, ""), ": ")
					if got := strings.ReplaceAll(req.Header.Get(name), ", ", ","); got != strings.ReplaceAll(value, ", ", ",") || req.Header["Foo"] != nil || req.URL.String() != "http://upstream.test/a?b" {
						t.Errorf("asked %s %v", req.URL, req.Header)
					}
				}
			})
		})
	}
}

// A renewal has no client's credentials: what it gets instead of the response says
// nothing of that.
func TestARefusedRenewalLeavesTheEntryAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(req *http.Request) (*http.Response, error) {
			if req.Header.Get("Api-Key") == "" {
				return respond(req, 401, "no", "Cache-Control: no-store"), nil
			}
			return respond(req, 200, "yes", "Cache-Control: max-age=100"), nil
		})
		r.h.workers.Go(r.h.keepFresh)
		r.do("GET", "/", "Api-Key: x")
		r.do("GET", "/", "Api-Key: x")
		time.Sleep(95 * time.Second)
		if a := r.do("HEAD", "/", "Api-Key: x"); r.asks() < 2 || a.status != 200 || a.header.Get("Age") != "95" {
			t.Errorf("after %d requests upstream: %+v", r.asks(), a)
		}
	})
}
