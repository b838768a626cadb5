// Package upstream sends requests to the API behind the optimizer: one pool of
// connections, with limits and deadlines, behind a circuit breaker.
//
// An http:// address is spoken to in HTTP/1.1, or in HTTP/2 by prior knowledge if
// the protocol is h2c. An https:// address offers h2 and http/1.1 by ALPN and takes
// what the upstream chooses. Where HTTP/2 can't be had after all, HTTP/1.1 takes its
// place for a while (http2.go), and the log is told (switches.go).
//
// A connection of HTTP/1.1 carries one request at a time (http1.go). Those of HTTP/2 are
// golang.org/x/net's; they are opened one by one, take requests once SETTINGS were exchanged,
// as many as the peer allows, and are followed by another one when streams run out. Leave to
// use either is given first come, first served, to a bounded number of requests that wait
// (line.go).
//
// A request that the upstream surely didn't process is sent again, and so is an
// idempotent one whose connection ended without an answer, within a budget (retry.go).
//
// Several upstreams of one API are a group of pools, which leaves out those that fail
// (group.go). Hedging is not there yet.
package upstream
