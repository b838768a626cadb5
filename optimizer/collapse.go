package optimizer

import (
	"net/http"
	"time"

	"phasegate/optimizer/httpcache"
	"phasegate/optimizer/telemetry"
)

// miss answers from the upstream, with what is stored, if anything, to validate
// and to fall back on.
func (h *handler) miss(x *exchange, stale *object) telemetry.Result {
	if x.directives.OnlyIfCached {
		return x.refused(http.StatusGatewayTimeout, "")
	}
	// What isn't kept is the client's own affair, so are its conditions.
	own := x.passing && (x.says("If-None-Match") || x.says("If-Modified-Since"))
	f := h.newFetch(x, string(x.ctx.Method()), stale, !own)
	if !f.store {
		return h.forward(x, f, "; fwd=miss", telemetry.Miss)
	}
	// Nobody waits for an answer that he may not get: one that is personal, that the
	// client wants for itself, or that couldn't be shared, or not without asking again,
	// the last time.
	shared := !x.passing && !f.personal() && !x.directives.NoCache &&
		(stale == nil || stale.fresh.Decide(&noDirectives, time.Unix(0, stale.asked)) != httpcache.Validate)
	patience := time.Now().Add(h.timeout)
	for rounds := 0; ; rounds++ {
		t, flight, leader := h.store.begin(x.key, x.variant, shared && rounds < maxRounds)
		if leader {
			defer t.end()
			// Meanwhile another's fetch may have come in, or an invalidation: what was
			// dropped isn't to be built upon.
			if o := h.lookup(x); !o.same(stale) {
				if o != nil && o.fresh.Decide(&x.directives, x.now) == httpcache.Fresh {
					return x.respond(o, "optimizer; hit", true, telemetry.Hit)
				}
				f.stale = o
			}
			return h.conclude(x, f, h.fetch(f, &t))
		}
		result, use := h.follow(x, flight, stale, patience)
		switch use {
		case served:
			return result
		case unshareable:
			shared = false
		}
	}
}

// maxRounds bounds how often a request waits for another's fetch: once more if the
// first leader had no luck, so that not all its followers ask a weak upstream at
// once, or brought another variant. Then each tries for itself.
const maxRounds = 2

// uses of a flight's result for one that waited for it.
type use int

const (
	served      use = iota
	unlucky         // it brought nothing for this request; another may
	unshareable     // nobody else's will
)

// follow waits for another request's fetch and answers with what it brought, if
// this request may have that.
func (h *handler) follow(x *exchange, flight *flight, stale *object, patience time.Time) (telemetry.Result, use) {
	defer flight.leave()
	timer := time.NewTimer(time.Until(patience))
	defer timer.Stop()
	var left <-chan struct{}
	if client := x.gone(); client != nil {
		left = client.Done()
	}
	select {
	case <-flight.done:
	case <-timer.C:
		return 0, unshareable
	case <-left:
		return h.passOn(x, outcome{err: errClientLeft}, "; fwd=miss; collapsed", telemetry.Miss), served
	}
	x.now = time.Now()
	if flight.failed && stale != nil && stale.fresh.StaleOnError(&x.directives, x.now, h.grace(flight.silent)) {
		return x.respondStale(stale, "; fwd=stale; collapsed"), served
	}
	o := flight.object
	switch {
	case flight.unsent != nil:
		return h.passOn(x, outcome{err: flight.unsent}, "; fwd=miss; collapsed", telemetry.Miss), served
	case o == nil && flight.failed:
		return 0, unlucky
	case o == nil:
		return 0, unshareable
	case !flight.matches(x.selecting):
		// By now it is known what the resource varies by.
		if o = h.lookup(x); o == nil || o.fresh.Decide(&x.directives, x.now) != httpcache.Fresh {
			return 0, unlucky
		}
	case o.fresh.Decide(&x.directives, x.now) == httpcache.Validate:
		return 0, unshareable
	}
	return x.respond(o, "optimizer; fwd=miss; collapsed", true, telemetry.Collapsed), served
}

// grace is how long a stale response is used where nobody says so: while the upstream
// gives no answer at all (RFC 9111 §4.2.4).
func (h *handler) grace(silent bool) time.Duration {
	if silent {
		return h.rules.Load().disconnected
	}
	return 0
}

// conclude answers the request whose fetch it was.
func (h *handler) conclude(x *exchange, f *fetch, out outcome) telemetry.Result {
	forward := "; fwd=miss"
	switch {
	case f.stale != nil && f.stale.fresh.Lifetime > f.stale.fresh.Age(x.now):
		forward = "; fwd=request"
	case f.stale != nil:
		forward = "; fwd=stale"
	}
	x.now = time.Now()
	if out.failed && f.stale != nil && f.stale.fresh.StaleOnError(&x.directives, x.now, h.grace(out.status == 0)) {
		out.close()
		return x.respondStale(f.stale, "; fwd=stale")
	}
	if out.err != nil && f.stale != nil && (f.stale.fresh.Strict || f.stale.fresh.NoMaxStale) && !unsent(out.err) {
		return x.refused(http.StatusGatewayTimeout, forward) // §5.2.2.2, §5.2.2.10: want 504 of a cache that can't validate
	}
	if out.object == nil {
		return h.passOn(x, out, forward, telemetry.Miss)
	}
	x.keep(out.object)
	status, result := "optimizer"+forward, telemetry.Miss
	if out.validated {
		status += "; fwd-status=304"
		result = telemetry.Revalidated
	}
	if out.stored {
		status += "; stored"
	}
	return x.respond(out.object, status, out.object.aged, result)
}
