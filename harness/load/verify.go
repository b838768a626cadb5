package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/timeline"
)

// ageResolution is how finely HTTP tells ages: Date and Age are in whole
// seconds, and so are the clocks of some caches.
const ageResolution = time.Second

// answer is a complete response, its body already summed up and gone.
type answer struct {
	protocol wireProtocol
	reused   bool // its connection had brought an answer before
	status   int
	fields   fields
	length   int64 // of the body as received
	declared int64 // what a HEAD's Content-Length says; −1 if nothing
	part     part  // of a 206
	proof    proof
	end      time.Time // when the last body byte was read
}

// add takes a piece of the body.
func (a *answer) add(piece []byte) {
	a.length += int64(len(piece))
	if a.proof.present && a.proof.fault == nil {
		_, _ = a.proof.digest.Write(piece) // never fails
	}
}

// proof is what an answer says about itself.
type proof struct {
	present bool  // there is a self-description …
	fault   error // … that can't be read
	d       wire.Description
	digest  wire.Digest // fed with the body
}

// fields are the header fields of an answer that are looked at, whatever protocol
// brought them. Of those that are no list, the first counts.
type fields struct {
	descriptions, cacheStatus                            [][]byte
	xCache, xCacheStatus, age, contentType, contentRange []byte
}

// reset forgets all.
func (f *fields) reset() {
	*f = fields{descriptions: f.descriptions[:0], cacheStatus: f.cacheStatus[:0]}
}

// note takes a field, which is kept if it is one of them; name is in canonical form.
func (f *fields) note(name string, value []byte) {
	only := func(kept *[]byte) {
		if *kept == nil {
			*kept = value
		}
	}
	switch name {
	case wire.Header:
		f.descriptions = append(f.descriptions, value)
	case "Cache-Status":
		f.cacheStatus = append(f.cacheStatus, value)
	case "X-Cache":
		only(&f.xCache)
	case "X-Cache-Status":
		only(&f.xCacheStatus)
	case "Age":
		only(&f.age)
	case "Content-Type":
		only(&f.contentType)
	case "Content-Range":
		only(&f.contentRange)
	}
}

// proof reads the self-description.
func (f *fields) proof() proof {
	if len(f.descriptions) == 0 {
		return proof{}
	}
	p := proof{present: true}
	if n := len(f.descriptions); n > 1 {
		p.fault = fmt.Errorf("%d self-descriptions in one answer", n)
		return p
	}
	if p.d, p.fault = wire.Parse(f.descriptions[0]); p.fault == nil {
		p.digest = p.d.Digest(f.descriptions[0])
	}
	return p
}

// expectation is what an answer is held against.
type expectation struct {
	method  string
	target  []byte
	from    string    // the arm of the run whose upstream must have made it …
	since   time.Time // … if it was made since the run began
	sent    time.Time // by the wall clock that the mock upstream's births are from
	version uint64    // a write of ours that had ended before the send made this one; 0 for none
	verify  bool
	catalog wire.Catalog
	asks    asks
	variant string
}

// finding is what judging an answer found.
type finding struct {
	class    timeline.Class
	why      error // for every class but OK, and for stale
	stale    bool
	blocking bool
	proven   bool
	earlier  bool   // made before the run began
	version  uint64 // described; 0 where nothing is
}

// judge holds a complete answer against what was asked for. In this order:
//
//   - 5xx is a server error, whoever made it;
//   - a self-description made during this run, but by another run's upstream or
//     for the other arm, is none: our ledger for this arm doesn't know of it.
//     One from before the run is that of a cache that was warm already;
//   - a self-description that is damaged, or that is of another key, another
//     variant, another status or another body, makes the answer wrong;
//   - a status other than 2xx that the replayed recording doesn't have for this
//     path, and that the request's own header didn't ask for, is a wrong status;
//   - without a self-description, the answer is unproven, if verifying;
//   - an answer to a write that was made before the write was sent is another
//     one's, and wrong: this write may never have arrived;
//   - anything else is right, and may still be stale: older, when it was asked
//     for, than its lifetime and its allowance together, or of a version that
//     a write of ours had replaced. Caches count ages in whole seconds (RFC
//     9111, section 5.1), so a lifetime is judged to the second; what must not
//     be stored is stale at any age.
//
// An answer born after it was asked for had to wait for the upstream: it is
// blocking. Births have a resolution of 1 µs, so the send is cut down to that.
func judge(e expectation, a *answer) finding {
	var f finding
	p := &a.proof
	foreign := p.present && p.fault == nil && p.d.From != e.from && !p.d.Birth.Before(e.since)
	f.proven = p.present && p.fault == nil && !foreign
	if a.status >= 500 {
		f.class, f.why = timeline.ServerError, fmt.Errorf("status %d", a.status)
		return f
	}
	if e.verify && p.present && !foreign {
		if err := compare(e, a); err != nil {
			f.class, f.why = timeline.Wrong, err
			return f
		}
	}
	if (a.status < 200 || a.status > 299) && !e.asks.allow(a.status) {
		if expected := e.catalog[string(e.target)].Status; a.status != expected {
			f.class, f.why = timeline.Status, unexpected(a.status, expected)
			return f
		}
	}
	if !e.verify {
		return f
	}
	if !p.present {
		f.class, f.why = timeline.Unproven, errors.New("the answer has no "+wire.Header+" field: it didn't come from the mock upstream, or lost the field on its way")
		return f
	}
	if foreign {
		f.class, f.why = timeline.Unproven, fmt.Errorf("the answer was made by %.80q; expected is %q: the system stands before another upstream than the one that this run has for it", p.d.From, e.from)
		return f
	}
	f.version, f.earlier = p.d.Version, p.d.Birth.Before(e.since)
	sent := e.sent.Truncate(time.Microsecond)
	age := sent.Sub(p.d.Birth)
	f.blocking = age <= 0
	cacheable := request{method: e.method}.cacheable()
	if !cacheable && age > ageResolution { // the clocks of two processes may be set in between
		f.class, f.why = timeline.Wrong, fmt.Errorf("a receipt made %s before the %s was sent: another request's", age, e.method)
		return f
	}
	allowed := p.d.Fresh + p.d.Grace
	if allowed > 0 {
		allowed += ageResolution
	}
	switch {
	case !cacheable:
	case age > allowed:
		f.stale, f.why = true, fmt.Errorf("%s old when it was asked for; allowed are %s of freshness and %s beyond", age, p.d.Fresh, p.d.Grace)
	case p.d.Version < e.version:
		f.stale, f.why = true, fmt.Errorf("version %d, though a write that had ended before it was asked for made version %d", p.d.Version, e.version)
	}
	return f
}

// compare reports how an answer differs from its self-description, or that
// from what was asked for.
func compare(e expectation, a *answer) error {
	p := &a.proof
	if p.fault != nil {
		return p.fault
	}
	d := &p.d
	if d.Key != string(e.target) {
		return fmt.Errorf("the answer is for %.100q", d.Key)
	}
	// An answer without any representation is of no variant.
	if selected(d.Variant) != e.variant && (d.Variant != "" || d.Size > 0) {
		return fmt.Errorf("the answer is the variant %.60q; asked for was %.60q", d.Variant, e.variant)
	}
	if d.Status == http.StatusOK && a.status != http.StatusOK && e.asks.allow(a.status) {
		return a.part.compare(a, d)
	}
	if d.Status != a.status {
		return fmt.Errorf("status %d, but the upstream had answered %d", a.status, d.Status)
	}
	if e.method == http.MethodHead {
		if a.declared >= 0 && a.declared != d.Size {
			return fmt.Errorf("Content-Length %d, but the resource has %d bytes", a.declared, d.Size)
		}
		return nil
	}
	if a.length != d.Size {
		return fmt.Errorf("the body has %d bytes, but the upstream had made %d", a.length, d.Size)
	}
	if !p.digest.Matches() {
		return errors.New("the body isn't the one the upstream had made: the checksum differs")
	}
	return nil
}

func unexpected(status, expected int) error {
	if expected == 0 {
		return fmt.Errorf("status %d; expected is 2xx", status)
	}
	return fmt.Errorf("status %d; expected is %d", status, expected)
}

// wrongAge holds an Age field against the age that a stored answer had when it was
// asked for and when it was complete. A cache has to send one with every answer
// that it has stored (RFC 9111, section 4), and whatever counts on freshness
// behind it counts on that. Ages are in whole seconds and may be reckoned from a
// Date that is up to a second too early, so 2 s either way are right. What is
// younger than a second may have been on its way when it was asked for, and not
// stored.
func wrongAge(field []byte, asked, complete time.Duration) bool {
	if asked <= time.Second {
		return false
	}
	if len(field) == 0 {
		return true
	}
	seconds, err := strconv.ParseInt(string(field), 10, 32)
	age := time.Duration(seconds) * time.Second
	return err != nil || age < asked-2*ageResolution || age > complete+2*ageResolution
}

// claim reads what an answer's header says about the cache: Cache-Status
// (RFC 9211), else X-Cache or X-Cache-Status, as many caches send it, else an
// Age above 0.
func (f *fields) claim() timeline.Claim {
	if len(f.cacheStatus) > 0 {
		claim := timeline.NoClaim
		for _, v := range f.cacheStatus {
			claim = max(claim, cacheStatus(v))
			if cacheStatus(v) == timeline.ClaimHit {
				return timeline.ClaimHit
			}
		}
		return claim
	}
	for _, v := range [][]byte{f.xCache, f.xCacheStatus} {
		if len(v) > 0 {
			if containsFold(v, "hit") || containsFold(v, "stale") || containsFold(v, "updating") {
				return timeline.ClaimHit
			}
			return timeline.ClaimMiss
		}
	}
	if len(f.age) > 0 {
		if age, err := strconv.ParseUint(string(f.age), 10, 64); err == nil && age > 0 {
			return timeline.ClaimHit
		}
	}
	return timeline.NoClaim
}

// cacheStatus reads one Cache-Status field: a list of caches with parameters
// (RFC 9211, section 2). A hit in any of them is a hit; a fwd parameter, or
// hit=?0, without one is a miss.
func cacheStatus(v []byte) timeline.Claim {
	claim := timeline.NoClaim
	for len(v) > 0 {
		var item []byte
		var end byte
		item, end, v = nextItem(v)
		_ = item // the cache's name
		for end == ';' {
			item, end, v = nextItem(v)
			name, value, valued := bytes.Cut(bytes.TrimSpace(item), []byte("="))
			switch {
			case string(name) == "hit" && (!valued || string(value) == "?1"):
				return timeline.ClaimHit
			case string(name) == "hit", string(name) == "fwd":
				claim = timeline.ClaimMiss
			}
		}
	}
	return claim
}

// nextItem cuts v at the next comma or semicolon that isn't inside a quoted
// string (RFC 8941, section 3.3.3), and tells which one it was; 0 at the end.
func nextItem(v []byte) (item []byte, end byte, rest []byte) {
	quoted := false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == ';'):
			return v[:i], c, v[i+1:]
		}
	}
	return v, 0, nil
}

// containsFold reports whether v contains word, which is in lower case, in any
// case.
func containsFold(v []byte, word string) bool {
	for i := 0; i+len(word) <= len(v); i++ {
		if bytes.EqualFold(v[i:i+len(word)], []byte(word)) {
			return true
		}
	}
	return false
}
