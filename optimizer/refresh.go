package optimizer

import (
	"cmp"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"phasegate/optimizer/httpcache"
	"phasegate/optimizer/telemetry"
)

// Renewal keeps clients from waiting when entries expire. Two things begin it: a hit
// on an entry that is due, and, because most entries of a long tail aren't asked for
// in the short while between due and expired, a look at the whole cache every
// sweepEvery. Only what was asked for in its lifetime is renewed, and then twice more
// without having been asked for: a key that is asked for 1.3 times per lifetime isn't
// in 27 % of its lifetimes, but in 2 % of three of them together. A response that nobody
// asked for again after its first request is never renewed.
const (
	maxBackground = 64              // renewals under way at once
	sweepEvery    = 2 * time.Second // the cost: about 100 ns for each entry
	refreshRetry  = time.Second     // pause after a renewal that brought nothing
	refusedRetry  = time.Minute     // and after one that was refused
	idleCredit    = 2               // lifetimes without a request through which an entry is renewed

	// Entries that were stored together would all fall due together, so each is due up
	// to this share of its time earlier.
	refreshJitter = 0.1
	// Shorter lives are left to hits: the sweep would come too late for them anyway.
	minSweptLifetime = 10 * sweepEvery
)

// refreshAt is when renewal of a response that is used falls due.
func (h *handler) refreshAt(f httpcache.Freshness) int64 {
	ahead := h.rules.Load().refreshAhead
	if ahead <= 0 || f.Validate || f.Immutable { // RFC 8246 §2: what doesn't change isn't asked about while it is fresh
		return f.Born + int64(f.Lifetime)
	}
	return f.Born + int64(float64(f.Lifetime)*ahead*(1-refreshJitter*rand.Float64()))
}

// renewedFor is the credit of the object's successor.
func (o *object) renewedFor() int8 {
	if o.hot.Load() {
		return idleCredit
	}
	return max(0, o.credit-1)
}

// refresh renews in the background what a client has just been served, at most once
// at a time for an object.
func (h *handler) refresh(x *exchange, o *object) {
	due := o.refreshAt.Load()
	now := x.now.UnixNano()
	if now < due || !o.refreshAt.CompareAndSwap(due, now+int64(h.timeout)) {
		return
	}
	select {
	case h.background <- struct{}{}:
	default: // too many at once; a later hit tries again
		o.refreshAt.Store(now + int64(refreshRetry))
		return
	}
	f := h.newFetch(x, http.MethodGet, o.hold(), true)   // after a HEAD too: a HEAD's answer can't be stored
	f.request.Directives = httpcache.NoRequestDirectives // the client's wishes were met; this is the cache's own
	f.interim, f.renewal = nil, true
	h.renew(f, x.key, x.variant)
}

// renew fetches in the background; a place for that is taken already. It releases the
// object to be renewed.
func (h *handler) renew(f *fetch, primary, variant []byte) {
	t, flight, leader := h.store.begin(primary, variant, true)
	if !leader {
		flight.leave()
		f.stale.release()
		<-h.background
		return
	}
	key := variant
	if len(key) == 0 {
		key = primary
	}
	current := h.store.peek(key)
	current.release()
	if !current.same(f.stale) { // dropped or replaced
		t.end()
		f.stale.release()
		<-h.background
		return
	}
	h.workers.Go(func() {
		defer func() { <-h.background }()
		defer f.stale.release()
		defer t.end()
		out := h.fetch(f, &t)
		out.close()
		switch {
		case out.validated:
			h.metrics.Refreshed(telemetry.Unchanged)
		case !out.failed:
			h.metrics.Refreshed(telemetry.Stored)
		default:
			h.metrics.Refreshed(telemetry.Failed)
		}
		if !out.stored {
			f.stale.refreshAt.Store(f.retryAt(out.failed, time.Now()).UnixNano())
		}
	})
}

// retryAt is when a renewal that brought nothing is tried again. One that was refused
// for want of a client's fields would be again; it is left to the clients.
func (f *fetch) retryAt(failed bool, now time.Time) time.Time {
	if f.bare && !failed {
		if expires := time.Unix(0, f.stale.fresh.Born).Add(f.stale.fresh.Lifetime); expires.After(now) {
			return expires
		}
		return now.Add(refusedRetry)
	}
	return now.Add(refreshRetry)
}

// due is an entry that is to be renewed, if it is still the one that was asked for then.
type due struct {
	key            string
	asked, expires int64
}

// maxDue bounds what one look at the cache lists. What isn't in the list is at the next.
const maxDue = 4096

// keepFresh renews what falls due, until the handler's end.
func (h *handler) keepFresh() {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	var found []due
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-ticker.C:
		}
		if h.rules.Load().refreshAhead <= 0 {
			continue
		}
		found = h.findDue(found[:0], time.Now())
		for _, d := range found {
			select {
			case h.background <- struct{}{}:
			case <-h.ctx.Done():
				return
			}
			h.renewStored(d)
		}
		clear(found)
	}
}

// findDue lists the entries to renew, those that expire first first.
func (h *handler) findDue(found []due, now time.Time) []due {
	at := now.UnixNano()
	sort := func() { slices.SortFunc(found, func(a, b due) int { return cmp.Compare(a.expires, b.expires) }) }
	var o object
	h.store.cache.Each(func(key, value []byte) {
		o = viewOf(value)
		if o.kind != stored || o.refreshAt.Load() > at || !o.hot.Load() && o.credit == 0 {
			return
		}
		f := &o.fresh
		if f.Validate || f.Lifetime < minSweptLifetime || f.Age(now) >= f.Lifetime+max(f.StaleWhileRevalidate, f.StaleIfError) {
			return
		}
		if f.Immutable && f.Age(now) < f.Lifetime {
			return
		}
		if len(found) == 2*maxDue {
			sort()
			clear(found[maxDue:])
			found = found[:maxDue]
		}
		found = append(found, due{string(key), o.asked, f.Born + int64(f.Lifetime)})
	})
	sort()
	if len(found) > maxDue {
		clear(found[maxDue:])
		found = found[:maxDue]
	}
	return found
}

// renewStored renews an entry without a client's request: a place for that is taken
// already. Of a request's fields only those are known that the response varies by, and
// no other can have counted.
func (h *handler) renewStored(d due) {
	now := time.Now()
	primary, variant, varies := strings.Cut(d.key, "\x00")
	header := http.Header{}
	o := h.store.peek([]byte(d.key))
	at := int64(0)
	if o != nil && o.kind == stored && o.asked == d.asked {
		at = o.refreshAt.Load()
	}
	if varies {
		root := h.store.peek([]byte(primary))
		if root == nil || root.kind != varying || !selected(header, root.selectingFields(nil), variant) {
			at = 0 // another generation of variants
		}
		root.release()
	}
	if at == 0 || at > now.UnixNano() || !o.refreshAt.CompareAndSwap(at, now.Add(h.timeout).UnixNano()) {
		o.release()
		<-h.background
		return
	}
	slash := strings.IndexByte(primary, '/')
	f := h.compose(http.MethodGet, header, primary[:slash], primary[slash:], o, true, httpcache.NoRequestDirectives)
	f.renewal, f.bare = true, true
	if f.request.Cookie { // nobody's session is kept alive in his absence
		o.refreshAt.Store(f.retryAt(false, now).UnixNano())
		o.release()
		<-h.background
		return
	}
	variantKey := []byte(nil)
	if varies {
		variantKey = []byte(d.key)
	}
	h.renew(f, []byte(primary), variantKey)
}

// selected sets the fields to what a variant's key, without the primary key, says
// that they were.
func selected(header http.Header, fields []string, variant string) bool {
	if len(variant) < 8 {
		return false
	}
	rest := variant[8:]
	for _, name := range fields {
		value, after, ok := strings.Cut(rest, "\x00")
		if !ok {
			return false
		}
		if value != "\x01" {
			header[strings.Clone(name)] = []string{value} // the root goes
		}
		rest = after
	}
	return rest == ""
}
