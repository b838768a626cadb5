// Package httpcache holds the rules of HTTP caching for a shared cache as pure
// functions of (request, response, now): RFC 9111, the stale-* extensions of
// RFC 5861, immutable (RFC 8246), CDN-Cache-Control (RFC 9213), and what RFC 9110
// says on conditional and range requests answered from a stored response. It stores
// nothing, opens nothing, and never asks for the time.
//
//   - [ParseRequest], [ParseResponse], [ParseTargeted]: Cache-Control, read strictly
//   - [Evaluate]: may this response be stored, and until when is it fresh (§3, §4.2)
//   - [Unshared]: the fields that a qualified no-cache or private keeps out (§5.2.2.4, §5.2.2.7)
//   - [Freshness.Decide], [Freshness.StaleOnError]: what a stored response may be used for now (§4.2.4, §5.2.1)
//   - [Vary], [AppendSelecting]: which stored response belongs to a request (§4.1)
//   - [AddConditions], [Freshen], [HeadFreshens]: validation and what updates a stored response (§3.2, §4.3)
//   - [Conditions]: conditions and ranges of clients
//   - [Invalidates], [InvalidatedTargets], [InvalidatedBy]: unsafe methods (§4.4), and Link: rel="inv-by"
//
// Where a value is invalid, repeated or contradictory, the reading is the safe
// one: not stored, or stale at once; a targeted field that is malformed is as if it
// weren't there. What is left out, as the RFCs allow: partial responses are neither
// stored nor combined (§3.4), answers to POST aren't stored (RFC 9110 §9.3.3), and
// Accept-Language is matched in its order, which many upstreams go by.
package httpcache
