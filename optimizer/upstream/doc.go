// Package upstream sends requests to the API behind the optimizer: one pool of
// connections, with limits and deadlines, behind a circuit breaker.
//
// An http:// address is spoken to in HTTP/1.1, or in HTTP/2 by prior knowledge if
// the protocol is h2c. An https:// address offers h2 and http/1.1 by ALPN and takes
// what the upstream chooses, so that HTTP/1.1 is the fallback.
//
// A request that fails on a reused connection before any answer is sent again by
// net/http itself if it is idempotent and its body can be repeated: keep-alive
// connections that the upstream closed at the wrong moment don't become errors.
//
// There is one upstream per pool; several of them, health checks, a retry budget
// and hedging are not there yet.
package upstream
