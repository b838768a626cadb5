package optimizer

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// event is one step of a random sequence: time passes, a client asks, and the
// upstream, if it is asked, has this to say.
type event struct {
	wait        int // seconds
	method, foo string
	key         int
	ask         directives

	hangUp bool
	status int
	etag   string
	vary   bool
	say    directives
}

// directives are the words of a Cache-Control; a number of -1 is a missing one.
type directives struct {
	noCache, noStore, private, must, public, onlyIfCached bool
	maxAge, sMaxage, swr, sie, maxStale, minFresh         int
}

func (d directives) String() string {
	var words []string
	for word, set := range map[string]bool{"no-cache": d.noCache, "no-store": d.noStore, "private": d.private, "must-revalidate": d.must, "public": d.public, "only-if-cached": d.onlyIfCached} {
		if set {
			words = append(words, word)
		}
	}
	for word, n := range map[string]int{"max-age": d.maxAge, "s-maxage": d.sMaxage, "stale-while-revalidate": d.swr, "stale-if-error": d.sie, "max-stale": d.maxStale, "min-fresh": d.minFresh} {
		if n >= 0 {
			words = append(words, fmt.Sprintf("%s=%d", word, n))
		}
	}
	return strings.Join(words, ", ")
}

func (e event) String() string {
	up := "hangs up"
	if !e.hangUp {
		up = fmt.Sprintf("%d, Cache-Control: %v, ETag: %s, varies: %v", e.status, e.say, e.etag, e.vary)
	}
	return fmt.Sprintf("after %d s %s /%d Foo: %s Cache-Control: %v; upstream: %s", e.wait, e.method, e.key, e.foo, e.ask, up)
}

// kept is a response in the reference cache.
type kept struct {
	body, status, born int
	retry              int // not before is it tried again to renew it
	etag               string
	vary               bool
	say                directives
}

// reference is a shared cache as naive as can be: the rules one after the other, in
// whole seconds, one client at a time. It shares no code with the real one.
type reference struct {
	now     int
	entries [3]map[string]*kept // by Foo, or by "" where the response doesn't vary
}

func (m *reference) find(e event) *kept {
	if k := m.entries[e.key][""]; k != nil {
		return k
	}
	return m.entries[e.key]["Foo:"+e.foo]
}

// step returns the body (the number of the event that made it), the status, and
// whether the upstream is asked.
func (m *reference) step(n int, e event) (body, status int, asked bool) {
	m.now += e.wait
	if e.method == "POST" {
		if e.hangUp {
			return -1, 502, true
		}
		if e.status < 400 {
			m.entries[e.key] = nil
		}
		return n, e.status, true
	}
	k := m.find(e)
	if k != nil {
		late := m.now - k.born - k.life()
		switch {
		case k.say.noCache || e.ask.noCache || e.ask.noStore && !e.ask.onlyIfCached || e.ask.maxAge >= 0 && m.now-k.born > e.ask.maxAge:
		case late < 0 && -late >= e.ask.minFresh:
			return k.body, k.status, false
		case late < 0 || k.say.must || e.ask.minFresh >= 0:
		case k.say.sMaxage < 0 && late <= e.ask.maxStale:
			return k.body, k.status, false
		case e.ask.maxAge < 0 && late < k.say.swr:
			if m.now < k.retry {
				return k.body, k.status, false
			}
			m.fetch(n, e, k, directives{maxAge: -1}) // in the background
			k.retry = m.now + 1
			return k.body, k.status, true
		}
	}
	if e.ask.onlyIfCached {
		return -1, 504, false
	}
	body, status = m.fetch(n, e, k, e.ask)
	return body, status, true
}

func (k *kept) life() int {
	if k.say.sMaxage >= 0 {
		return k.say.sMaxage
	}
	return max(0, k.say.maxAge)
}

// fetch asks the upstream, with what is kept to fall back on.
func (m *reference) fetch(n int, e event, k *kept, ask directives) (body, status int) {
	if k != nil && (e.hangUp || e.status == 500) {
		allowed := k.say.sie
		if k.say.sMaxage < 0 {
			allowed = max(allowed, ask.sie)
			if k.say.sie < 0 && e.hangUp {
				allowed = 60
			}
		}
		age := m.now - k.born
		old := ask.maxAge >= 0 && (age > ask.maxAge || ask.maxStale < 0 && age >= k.life())
		if !k.say.noCache && !k.say.must && !ask.noCache && !old && age < k.life()+max(0, allowed) {
			return k.body, k.status
		}
	}
	if e.hangUp {
		if k != nil && (k.say.must || k.say.sMaxage >= 0) {
			return -1, 504
		}
		return -1, 502
	}
	got := &kept{body: n, status: e.status, born: m.now, etag: e.etag, vary: e.vary, say: e.say}
	if k != nil && k.etag != "" && k.etag == e.etag && e.status == 200 { // validated
		got.body, got.status, got.vary = k.body, k.status, k.vary || e.vary // a field that the 304 leaves out stays
	}
	explicit := e.say.maxAge >= 0 || e.say.sMaxage >= 0
	useless := (e.say.noCache || got.life()+max(0, e.say.swr, e.say.sie) == 0) && e.etag == ""
	byDefault := got.status == 200 || got.status == 404
	storable := !ask.noStore && !e.say.noStore && !e.say.private && (explicit || e.say.public || byDefault) && !useless
	switch {
	case storable && got.vary:
		if m.entries[e.key] == nil || m.entries[e.key][""] != nil {
			m.entries[e.key] = map[string]*kept{}
		}
		m.entries[e.key]["Foo:"+e.foo] = got
	case storable:
		m.entries[e.key] = map[string]*kept{"": got}
	case !ask.noStore && m.entries[e.key][""] != nil && (got.status != 500 || got.body != n):
		m.entries[e.key] = nil // what isn't for all any more isn't kept for all
	}
	return got.body, got.status
}

// play holds the cache against the reference and says where they part.
func play(t *testing.T, events []event) (fault string) {
	synctest.Test(t, func(t *testing.T) {
		never, none := 0.0, time.Duration(0)
		r := newRig(t, nil, func(c *Config) { c.Cache.RefreshAhead, c.Cache.NegativeTTL = &never, &none })
		var m reference
		for n, e := range events {
			r.mu.Lock()
			r.answer = func(req *http.Request) (*http.Response, error) {
				if e.hangUp {
					return nil, errHungUp
				}
				lines := []string{"Cache-Control: " + e.say.String()}
				if e.etag != "" {
					lines = append(lines, "ETag: "+e.etag)
				}
				if e.vary {
					lines = append(lines, "Vary: Foo")
				}
				if e.etag != "" && req.Header.Get("If-None-Match") == e.etag && e.status == 200 {
					return respond(req, 304, "", lines...), nil
				}
				return respond(req, e.status, fmt.Sprint("body ", n), lines...), nil
			}
			r.mu.Unlock()
			time.Sleep(time.Duration(e.wait) * time.Second)
			before := r.asks()
			fields := []string{"Foo: " + e.foo}
			if cc := e.ask.String(); cc != "" {
				fields = append(fields, "Cache-Control: "+cc)
			}
			a := r.do(e.method, fmt.Sprint("/", e.key), fields...)
			synctest.Wait()
			body, status, asked := m.step(n, e)
			if got := r.asks() > before; a.status != status || got != asked || body >= 0 && a.body != fmt.Sprint("body ", body) {
				fault = fmt.Sprintf("event %d: answered %d %q, upstream asked: %v (%s)\nwant status %d, body %d, upstream asked: %v", n, a.status, a.body, got, a.header.Get("Cache-Status"), status, body, asked)
				return
			}
		}
	})
	return fault
}

func TestCacheAgreesWithTheNaiveModel(t *testing.T) {
	seconds := func(at int) *rapid.Generator[int] { // mostly missing
		return rapid.OneOf(rapid.Just(-1), rapid.Just(-1), rapid.IntRange(0, at))
	}
	seldom := rapid.Custom(func(t *rapid.T) bool { return rapid.IntRange(0, 9).Draw(t, "seldom") == 9 })
	some := rapid.Custom(func(t *rapid.T) event {
		return event{
			wait: rapid.IntRange(0, 4).Draw(t, "wait"), method: rapid.SampledFrom([]string{"GET", "GET", "GET", "GET", "POST"}).Draw(t, "method"),
			key: rapid.IntRange(0, 2).Draw(t, "key"), foo: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "foo"),
			ask: directives{
				noCache: seldom.Draw(t, "ask no-cache"), noStore: seldom.Draw(t, "ask no-store"), onlyIfCached: seldom.Draw(t, "only-if-cached"),
				maxAge: seconds(4).Draw(t, "ask max-age"), maxStale: seconds(4).Draw(t, "max-stale"), minFresh: seconds(4).Draw(t, "min-fresh"), sie: seconds(4).Draw(t, "ask stale-if-error"),
				sMaxage: -1, swr: -1,
			},
			hangUp: seldom.Draw(t, "hang up"), status: rapid.SampledFrom([]int{200, 200, 200, 200, 404, 500}).Draw(t, "status"),
			etag: rapid.SampledFrom([]string{"", `"x"`, `"y"`}).Draw(t, "etag"), vary: seldom.Draw(t, "vary"),
			say: directives{
				noCache: seldom.Draw(t, "no-cache"), noStore: seldom.Draw(t, "no-store"), private: seldom.Draw(t, "private"), must: seldom.Draw(t, "must-revalidate"), public: seldom.Draw(t, "public"),
				maxAge: rapid.IntRange(-1, 6).Draw(t, "max-age"), sMaxage: seconds(6).Draw(t, "s-maxage"), swr: seconds(4).Draw(t, "swr"), sie: seconds(4).Draw(t, "sie"),
				maxStale: -1, minFresh: -1,
			},
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		events := rapid.SliceOfN(some, 1, 30).Draw(rt, "events")
		if fault := play(t, events); fault != "" {
			rt.Fatalf("%s", fault)
		}
	})
}
