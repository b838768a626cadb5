package optimizer

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// 16 clients read 1,000 keys while what they read is invalidated in every way there
// is, each time because it has changed: no request that begins after an invalidation
// has returned gets a response that was born before. OPTIMIZER_READS=1000000 is the
// full size.
func TestNothingBornBeforeAPurgeIsServedAfterIt(t *testing.T) {
	t.Parallel()
	reads := int64(30_000)
	if testing.Short() {
		reads = 5_000
	}
	if text := os.Getenv("OPTIMIZER_READS"); text != "" {
		var err error
		if reads, err = strconv.ParseInt(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	const clients, groups, perGroup = 16, 10, 100
	var clock atomic.Int64
	var content [groups][perGroup]atomic.Int64 // when it last changed
	r := newRig(t, nil)
	r.answer = func(req *http.Request) (*http.Response, error) {
		group, key, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
		lines := []string{"Cache-Control: max-age=3600", "Surrogate-Key: all " + group, "Content-Version: " + group, "Link: </root/" + group + `>; rel="inv-by"`}
		if key[0]%2 == 0 {
			lines = append(lines, "Vary: Foo")
		}
		g, _ := strconv.Atoi(group[1:])
		k, _ := strconv.Atoi(key)
		changed := strconv.FormatInt(content[g][k].Load(), 10)
		lines = append(lines, `ETag: "`+changed+`"`)
		if rand.IntN(4) == 0 { // the purge comes while the answer is on its way
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		}
		if req.Header.Get("If-None-Match") == `"`+changed+`"` {
			return respond(req, 304, "", lines...), nil
		}
		return respond(req, 200, changed, lines...), nil
	}
	var floors [groups][perGroup]atomic.Int64
	var done, purges, hits, quick atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			fast := r.h.newFastPath()
			for (done.Add(1) <= reads || purges.Load() < 21) && !t.Failed() {
				group, key := rand.IntN(groups), rand.IntN(perGroup)
				fields := []string{"Foo: " + strconv.Itoa(rand.IntN(2))}
				if rand.IntN(20) == 0 {
					fields = append(fields, "Cache-Control: no-cache")
				}
				floor := floors[group][key].Load()
				target := fmt.Sprintf("/g%d/%d", group, key)
				head := "GET " + target + " HTTP/1.1\r\nHost: api.test\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n"
				var a reply
				var text []byte
				ok := rand.IntN(2) == 0
				if ok {
					text, ok = fast(nil, []byte(head), nil)
				}
				if ok {
					_, body, _ := strings.Cut(string(text), "\r\n\r\n")
					a = reply{status: 200, body: body}
					quick.Add(1)
				} else {
					a = r.do("GET", target, fields...)
				}
				if changed, _ := strconv.ParseInt(a.body, 10, 64); a.status != 200 || changed < floor {
					t.Errorf("/g%d/%d: status %d, of %d, purged after %d; %s", group, key, a.status, changed, floor, a.header.Get("Cache-Status"))
				}
				if strings.Contains(a.header.Get("Cache-Status"), "; hit") {
					hits.Add(1)
				}
			}
		})
	}
	stop := make(chan struct{})
	purger := make(chan struct{})
	go func() {
		defer close(purger)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			kind, group := n%7, n/7%groups
			name := "g" + strconv.Itoa(group)
			groupFrom, groupTo, first, last := group, group+1, 0, perGroup
			switch kind {
			case 4, 5:
				first = n % perGroup
				last = first + 1
			case 6:
				groupFrom, groupTo = 0, groups
			}
			at := clock.Add(1)
			each := func(set func(g, k int)) {
				for g := groupFrom; g < groupTo; g++ {
					for k := first; k < last; k++ {
						set(g, k)
					}
				}
			}
			each(func(g, k int) { content[g][k].Store(at) })
			switch kind {
			case 0:
				r.h.store.invalidateTags([]string{name})
			case 1:
				r.h.store.invalidatePaths([]pattern{{"*", "/" + name + "/*"}})
			case 2:
				r.h.store.invalidateVersions([]string{name}, false)
			case 3:
				r.h.invalidateDependents([]string{"api.test/root/" + name})
			case 4, 5:
				r.h.store.invalidate(fmt.Appendf(nil, "api.test/%s/%d", name, first))
			case 6:
				r.h.store.invalidateTags([]string{"all"})
			}
			each(func(g, k int) { floors[g][k].Store(at) })
			purges.Add(1)
			runtime.Gosched()
			time.Sleep(500 * time.Microsecond)
		}
	}()
	wg.Wait()
	close(stop)
	<-purger
	t.Logf("%d reads, %d of them hits on the fast path, %d other hits, %d upstream, during %d invalidations", done.Load()-clients, quick.Load(), hits.Load(), r.asks(), purges.Load())
	if quick.Load() == 0 || hits.Load() == 0 || purges.Load() == 0 {
		t.Error("nothing was tried")
	}
	for i := range r.h.store.stripes {
		if st := &r.h.store.stripes[i]; len(st.purges)+len(st.under)+len(st.groups) != 0 {
			t.Fatalf("stripe %d still holds %d purges, %d counts, %d groups", i, len(st.purges), len(st.under), len(st.groups))
		}
	}
}

func TestInvalidationDropsWhatItNames(t *testing.T) {
	t.Parallel()
	up := func(req *http.Request) (*http.Response, error) {
		lines := map[string][]string{
			"/item/1": {"Surrogate-Key: a b", "Content-Version: 7"}, "/item/2": {"Cache-Tag: a, c d", "Content-Version: 8", "Vary: Foo"},
			"/list": {`Link: </style>; rel=preload, </item/1>; rel="up inv-by"`}, "/home": {`Link: <http://api.test/list?utm=z>; rel=inv-by`}, "/other": {"Surrogate-Key: ab"},
			"/up": {`Link: <http://Upstream.test/base/item/1>; rel="inv-by"`}, "/below": {`Link: </base/item/1>; rel="inv-by"`},
		}[strings.TrimPrefix(req.URL.Path, "/base")]
		return respond(req, 200, "x", append(lines, fresh)...), nil
	}
	all := []string{"/item/1", "/item/2", "/item/2?q=1", "/list", "/home", "/other", "/up", "/below"}
	for _, tt := range []struct {
		query   string
		dropped []string
		removed int
	}{
		{"tag=a", []string{"/item/1", "/item/2", "/item/2?q=1"}, 3},
		{"tag=c%20d", []string{"/item/2", "/item/2?q=1"}, 2},
		{"tag=b&tag=ab", []string{"/item/1", "/other"}, 2},
		{"tag=nosuch", nil, 0},
		{"path=/item/*", []string{"/item/1", "/item/2", "/item/2?q=1"}, 5},
		{"path=api.test/*o*e*", []string{"/home", "/other"}, 2},
		{"path=/item/2", []string{"/item/2", "/item/2?q=1"}, 4},
		{"path=/item/2?q=*", []string{"/item/2?q=1"}, 2},
		{"path=other.test/*", nil, 0},
		{"path=*I.test/item/1", []string{"/item/1"}, 1},
		{"path=*t*m*2%3Fq=1", []string{"/item/2?q=1"}, 2},
		{"path=API.test/item/1", []string{"/item/1"}, 1},
		{"path=API.test/Item/*", nil, 0},
		{"path=HTTP://api.test/h*", []string{"/home"}, 1},
		{"path=http://other.test", nil, 0},
		{"path=http://api.test:80/h*", []string{"/home"}, 1},
		{"version=7", []string{"/item/1"}, 1},
		{"version=7&version=8", []string{"/item/1", "/item/2", "/item/2?q=1"}, 3},
		{"version_not=7", []string{"/item/2", "/item/2?q=1"}, 2},
		{"dependency=http://api.test/item/1", []string{"/item/1", "/list", "/home", "/up", "/below"}, 5},
		{"dependency=api.test/list", []string{"/list", "/home"}, 2},
		{"key=api.test:80/list&key=http://API.test:80/home", []string{"/list", "/home"}, 2},
		{"key=api.test/item/2?q=1", []string{"/item/2?q=1"}, 1},
		{"key=http://api.test/item/2?utm=x%26q=1", []string{"/item/2?q=1"}, 1},
		{"all", all, 10},
	} {
		t.Run(tt.query, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, up, func(c *Config) { c.Upstream.URL += "/base"; c.Cache.IgnoreQuery = []string{"utm"} })
			for _, target := range all {
				r.do("GET", target)
			}
			o := &Optimizer{cfg: Config{}.WithDefaults(), handler: r.h}
			w := httptest.NewRecorder()
			o.invalidate(w, httptest.NewRequest("POST", "/invalidate?"+tt.query, nil))
			if want := fmt.Sprintf("{\"removed\":%d}\n", tt.removed); w.Code != 200 || w.Body.String() != want {
				t.Errorf("%d %q, want %q", w.Code, w.Body.String(), want)
			}
			for _, target := range all {
				before := r.asks()
				r.do("GET", target)
				dropped := false
				for _, d := range tt.dropped {
					dropped = dropped || d == target
				}
				if (r.asks() > before) != dropped {
					t.Errorf("%s: dropped %v, want %v", target, !dropped, dropped)
				}
			}
		})
	}
}

func TestAnInvalidationThatNamesNothingIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	o := &Optimizer{cfg: Config{}.WithDefaults(), handler: r.h}
	for _, query := range []string{"", "tag=", "tag=a&path=/b", "key=", "key=nohost", "dependency=/a", "all&key=/a", "tag=a&tag=%zz", "tag=a;tag=b", "tags=b", "tag=a&tags=b", "version_not=1&version_not=2", "path=api.test"} {
		w := httptest.NewRecorder()
		if o.invalidate(w, httptest.NewRequest("POST", "/invalidate?"+query, nil)); w.Code != http.StatusBadRequest {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
	}
}

func TestPurgeMethod(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		from   []string
		fields []string
		status int
		asks   int // upstream in the end
		result string
	}{
		{"not enabled: the upstream's affair, and an unsafe method", nil, nil, 200, 3, "bypass"},
		{"another network", []string{"10.0.0.0/8"}, nil, 403, 1, "refused"},
		{"the resource", []string{"127.0.0.0/8"}, nil, 200, 2, "purge"},
		{"by tag", []string{"127.0.0.0/8"}, []string{"Surrogate-Key: x a"}, 200, 2, "purge"},
		{"by another tag", []string{"127.0.0.0/8"}, []string{"Cache-Tag: x, y"}, 200, 1, "purge"},
	} {
		r := newRig(t, func(req *http.Request) (*http.Response, error) {
			return respond(req, 200, "x", fresh, "Surrogate-Key: a"), nil
		}, func(c *Config) { c.Cache.PurgeFrom = tt.from })
		r.do("GET", "/")
		a := r.do("PURGE", "/", tt.fields...)
		r.do("GET", "/")
		if a.status != tt.status || r.asks() != tt.asks {
			t.Errorf("%s: status %d, upstream asked %d times; want %d and %d", tt.why, a.status, r.asks(), tt.status, tt.asks)
		}
		w := httptest.NewRecorder()
		r.h.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if !strings.Contains(w.Body.String(), `optimizer_requests_total{result="`+tt.result+`"} 1`) {
			t.Errorf("%s: not counted as %s", tt.why, tt.result)
		}
	}
}

// A leader without luck: one of its followers tries for all, and only if that fails
// too each for itself.
func TestFollowersElectANewLeader(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why          string
		fail, asks   int // failures first; upstream requests in all
		status       int
		cacheControl string
	}{
		{"the first serves all", 0, 1, 200, "max-age=60"},
		{"the second serves the others", 1, 2, 200, "max-age=60"},
		{"two failures", 2, 10, 200, "max-age=60"}, // 1, 1, and the 8 that are left
		{"what can't be shared doesn't make them wait again", 0, 10, 200, "private"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int64
				r := newRig(t, func(req *http.Request) (*http.Response, error) {
					failing := int(n.Add(1)) <= tt.fail
					time.Sleep(time.Second)
					if failing {
						return nil, errHungUp
					}
					return respond(req, 200, "x", "Cache-Control: "+tt.cacheControl), nil
				})
				var wg sync.WaitGroup
				var good atomic.Int64
				begin := time.Now()
				for range 10 {
					wg.Go(func() {
						if r.do("GET", "/").status == 200 {
							good.Add(1)
						}
					})
				}
				wg.Wait()
				if took := time.Since(begin); r.asks() != tt.asks || int(good.Load()) != 10-tt.fail || took > 3*time.Second {
					t.Errorf("%d good answers of 10, upstream asked %d times, want %d, in %v", good.Load(), r.asks(), tt.asks, took)
				}
			})
		})
	}
}
