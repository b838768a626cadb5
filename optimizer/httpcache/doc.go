// Package httpcache holds the rules of HTTP caching for a shared cache as pure
// functions of (request, response, now): RFC 9111, the stale-* extensions of
// RFC 5861, and what RFC 9110 says on conditional and range requests answered
// from a stored response. It stores nothing, opens nothing, and never asks for
// the time.
//
//   - [ParseRequest], [ParseResponse]: Cache-Control, read strictly
//   - [Evaluate]: may this response be stored, and until when is it fresh (§3, §4.2)
//   - [Freshness.Decide], [Freshness.StaleOnError]: what a stored response may be used for now (§4.2.4, §5.2.1)
//   - [Vary], [AppendSelecting]: which stored response belongs to a request (§4.1)
//   - [AddConditions], [Freshen]: validation and the 304 that updates (§3.2, §4.3)
//   - [NotModified], [ParseRange]: conditions and ranges of clients
//   - [Invalidates], [InvalidatedTargets]: unsafe methods (§4.4)
//
// Where a value is invalid, repeated or contradictory, the reading is the safe
// one: not stored, or stale at once. What is not there yet: qualified private
// and no-cache are treated as unqualified (which §5.2.2 allows), HEAD doesn't
// freshen a stored GET (§4.3.5), partial responses are never combined (§3.4),
// and targeted fields (RFC 9213) are ignored.
package httpcache
