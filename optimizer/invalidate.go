package optimizer

import (
	"bytes"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"phasegate/optimizer/httpcache"
	"phasegate/optimizer/telemetry"
)

// purge is an invalidation that names no single key. The sweep of the cache finds
// what is stored; the record of it in each stripe finds what is on its way: a fetch
// that began before keeps out of the cache whatever it brings that matches.
type purge struct {
	at    uint64 // the stripe's count of purges, this one included
	match func(primary string, o *object) bool
}

// purged reports whether the object, brought by the ticket's fetch, was invalidated
// since that began. The stripe is locked.
func (t *ticket) purged(o *object) bool {
	for _, p := range t.stripe.purges {
		if p.at > t.since && (p.match(t.key, o) || t.base != nil && p.match(t.key, t.base)) {
			return true
		}
	}
	return false
}

// enter notes that the ticket's fetch is under way, leave that it no longer is: a
// record is kept while a fetch is under way that began before it. The stripe is locked.
func (st *stripe) enter(t *ticket) {
	t.since = st.count
	if st.under == nil {
		st.under = map[uint64]int{}
	}
	st.under[st.count]++
}

func (st *stripe) leave(t *ticket) {
	if st.under[t.since]--; st.under[t.since] > 0 {
		return
	}
	delete(st.under, t.since)
	oldest := st.count
	for since := range st.under {
		oldest = min(oldest, since)
	}
	for len(st.purges) > 0 && st.purges[0].at <= oldest {
		st.purges = st.purges[1:]
	}
	if len(st.purges) == 0 {
		st.purges = nil
	}
}

// invalidateFunc drops every entry that match accepts, and returns how many. When it
// returns, no request that begins later sees a matching response fetched before. match
// gets the primary key, and the object, which is not a response for each resource that
// varies; it is called with locks held, and both are gone when it returns. It looks at
// the whole cache.
func (s *store) invalidateFunc(match func(primary string, o *object) bool) int {
	s.record(match)
	return s.sweep(match)
}

// record keeps what fetches under way will bring out of the cache, if it matches.
func (s *store) record(match func(primary string, o *object) bool) {
	for i := range s.stripes {
		st := &s.stripes[i]
		// Whoever stores, stores with this lock: before this, and the sweep finds it,
		// or after, and finds the record. A flight from before isn't joined after.
		st.mu.Lock()
		st.count++
		if len(st.under) > 0 {
			st.purges = append(st.purges, purge{st.count, match})
		}
		st.mu.Unlock()
	}
}

// sweep drops what matches of what is stored.
func (s *store) sweep(match func(primary string, o *object) bool) int {
	var o object
	return s.cache.DeleteFunc(func(key, value []byte) bool {
		o = viewOf(value)
		primary, _, _ := strings.Cut(unsafe.String(unsafe.SliceData(key), len(key)), "\x00")
		return match(primary, &o)
	})
}

// invalidateTags drops the responses that carry one of the tags.
func (s *store) invalidateTags(tags []string) int {
	return s.invalidateFunc(func(_ string, o *object) bool { return o.tagged(tags) })
}

// invalidatePaths drops the resources whose host and path fit one of the patterns.
func (s *store) invalidatePaths(patterns []pattern) int {
	return s.invalidateFunc(func(primary string, _ *object) bool { return fitsAny(patterns, primary) })
}

// invalidateVersions drops the responses whose Content-Version is one of the given, or,
// except, those that have another.
func (s *store) invalidateVersions(versions []string, except bool) int {
	return s.invalidateFunc(func(_ string, o *object) bool {
		v := o.field("Content-Version")
		return v != nil && slices.Contains(versions, string(v)) != except
	})
}

// invalidateDependents drops the resources with these keys, what says of itself that
// it is made from them, what is made from that, and so on. What isn't stored says
// nothing of itself: a chain ends there.
func (h *handler) invalidateDependents(keys []string) (removed int) {
	seen := map[string]bool{}
	for len(keys) > 0 {
		round := make(map[string]bool, len(keys)) // never changes: fetches under way are held against it later
		for _, key := range keys {
			seen[key], round[key] = true, true
		}
		match := func(primary string, o *object) bool { return round[primary] || h.madeFrom(primary, o, round) }
		h.store.record(match)
		keys = nil
		removed += h.store.sweep(func(primary string, o *object) bool {
			if !match(primary, o) {
				return false
			}
			if !seen[primary] {
				primary = strings.Clone(primary)
				seen[primary] = true
				keys = append(keys, primary)
			}
			return true
		})
	}
	return removed
}

// tags goes through what the response is tagged with, in Surrogate-Key, separated by
// spaces, and Cache-Tag, separated by commas.
func (o *object) tags(yield func(tag []byte) bool) {
	for rest := o.head; len(rest) > 0; {
		var name, value []byte
		name, value, rest = next(rest)
		separator := byte(' ')
		switch string(name) {
		case "Surrogate-Key":
		case "Cache-Tag":
			separator = ','
		default:
			continue
		}
		for len(value) > 0 {
			end := bytes.IndexByte(value, separator)
			if end < 0 {
				end = len(value)
			}
			if tag := bytes.Trim(value[:end], " \t"); len(tag) > 0 && !yield(tag) {
				return
			}
			value = value[min(end+1, len(value)):]
		}
	}
}

// tagged reports whether the response carries one of the tags.
func (o *object) tagged(tags []string) bool {
	for own := range o.tags {
		if slices.Contains(tags, string(own)) {
			return true
		}
	}
	return false
}

// madeFrom reports whether the response with the primary key names one of the resources
// as what invalidates it, by Link with the relation inv-by: as clients call it or, below
// the upstream's URL, as the upstream was asked.
func (h *handler) madeFrom(primary string, o *object, resources map[string]bool) bool {
	if o.field("Link") == nil {
		return false
	}
	header := o.header()
	query := &h.rules.Load().query
	named := func(key string) bool { return resources[string(query.normal([]byte(key)))] }
	host, path, _ := strings.Cut(primary, "/")
	for _, target := range httpcache.InvalidatedBy("http", host, "/"+path, header) {
		if named(target) {
			return true
		}
	}
	asked, base := strings.ToLower(h.upstream.Host), strings.TrimSuffix(h.upstream.EscapedPath(), "/")
	if h.preserveHost {
		asked = host
	}
	for _, target := range httpcache.InvalidatedBy(h.upstream.Scheme, asked, base+"/"+path, header) {
		if below, ok := strings.CutPrefix(target, asked+base+"/"); ok && named(host+"/"+below) {
			return true
		}
	}
	return false
}

// pattern is what an operator names resources by, with * for any run of characters: one
// way to divide it between host and path, which a * may belong to both of.
type pattern struct{ host, path string }

// patternsOf reads HOST/PATH, a URL, or /PATH for any host. The host is in any case.
func patternsOf(text string) (patterns []pattern, ok bool) {
	if rest, is := withoutScheme(text); is {
		if text = rest; !strings.ContainsAny(text, "/*") {
			text += "/"
		}
	}
	for i := range len(text) {
		switch text[i] {
		case '/':
			host := text[:i]
			if host == "" {
				host = "*"
			}
			return append(patterns, pattern{strings.ToLower(host), text[i:]}), true
		case '*':
			patterns = append(patterns, pattern{strings.ToLower(text[:i+1]), text[i:]})
		}
	}
	return patterns, len(patterns) > 0
}

// fitsAny matches a primary key. Its query counts where a pattern has one.
func fitsAny(patterns []pattern, primary string) bool {
	at := strings.IndexByte(primary, '/')
	for _, p := range patterns {
		path := primary[at:]
		if !strings.Contains(p.path, "?") {
			path, _, _ = strings.Cut(path, "?")
		}
		if fits(p.host, primary[:at]) && fits(p.path, path) {
			return true
		}
	}
	return false
}

// fits matches s against a pattern in which * stands for any run of characters.
func fits(pattern, s string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return s == pattern
	}
	s, ok := strings.CutPrefix(s, head)
	if !ok {
		return false
	}
	for {
		part, more, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], more
	}
}

// mayPurge reports whether a client at the address may invalidate by PURGE.
func (h *handler) mayPurge(client netip.Addr) bool {
	for _, prefix := range h.rules.Load().purgeFrom {
		if prefix.Contains(client.Unmap()) {
			return true
		}
	}
	return false
}

// purge drops the resource, or what carries the tags that the request names.
func (h *handler) purge(x *exchange) telemetry.Result {
	address, _ := netip.AddrFromSlice(x.address())
	if !h.mayPurge(address) {
		return x.refused(http.StatusForbidden, "")
	}
	removed := 0
	request := &x.ctx.Request.Header
	tags := strings.Fields(string(request.Peek("Surrogate-Key")))
	for tag := range strings.SplitSeq(string(request.Peek("Cache-Tag")), ",") {
		if tag = strings.Trim(tag, " \t"); tag != "" {
			tags = append(tags, tag)
		}
	}
	if len(tags) > 0 {
		removed = h.store.invalidateTags(tags)
	} else if h.store.invalidate(x.key) {
		removed = 1
	}
	x.refused(http.StatusOK, "")
	x.ctx.Response.Header.SetContentType("application/json")
	x.ctx.Response.SetBodyString(`{"removed":` + strconv.Itoa(removed) + "}\n")
	return telemetry.Purged
}
