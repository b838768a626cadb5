// Package guard refuses requests before any work is done for them: ambiguous
// framing, a target or a body beyond its limit, an address beyond its rate.
// Authentication and content types are not there yet.
package guard
