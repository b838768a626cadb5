// Package load sends a scenario's traffic and judges every answer.
//
// [New] makes a [Generator] from a [Config]; [Generator.Prewarm] fills a cache,
// [Generator.Run] keeps the schedule, [Generator.Sequential] is one client in a
// closed loop. What is asked for is generated, or replayed from a
// [phasegate/harness/recording.Recording]. What is observed goes to a [Sink], and to a [Raw] file
// for vegeta's tools; what only the generator knows is in the [Report].
//
// # Open loop
//
// Request i is due at a time that the schedule alone decides, whatever became
// of the others; latency runs from there to the last body byte. A request that
// got no answer to use (cut off, refused, timed out, 5xx) has waited at least the
// timeout, however soon that was known: failing fast isn't being fast. A dispatcher
// on a thread of its own sleeps to each due time and writes the request to an
// idle connection itself. On Linux the same thread reads the answers of HTTP/1.1,
// and an answer's end is when its last byte reached the kernel, by the kernel's
// clock: the generator's own delay in reading isn't the system's latency.
// Elsewhere, and over HTTP/2, it is when the byte was read. Where the connections
// are limited and all are busy, the request waits in line, and that is latency too.
// The timeout counts from the due time, also for a request that is never sent, and
// for an answer whose bytes keep coming: the dispatcher reads in turns, between
// which it sends what is due.
//
// # Closed loop
//
// With Load.Max there is no schedule: as many clients as there are connections
// send their next request when their last has ended. That finds the highest
// rate, and says nothing about latency: a request is due when it is sent.
//
// # Protocols
//
// HTTP/1.1 is spoken by this package itself, one request at a time on a
// connection. HTTP/2 is golang.org/x/net's, over TLS or in clear text; which connection
// and stream a request goes over, and how long it waited for that, is decided
// and measured here. An HTTP/2 connection takes as many requests at a time as
// the server allows and the scenario says. Both follow the same rules of timeout,
// repetition and verification.
//
// # The same seed, the same requests
//
// Which arm, method and target belong to position i is a pure function of the
// configuration, the seed and i: each is drawn by a hash of the position, in a
// stream of its own. So is when it is due: by the integral of a rate that is
// constant, climbs, steps or swings, evenly or as a Poisson process, or by the
// times that a recording has. [Generator.At] shows the sequence without
// running it.
//
// # Verification
//
// The mock upstream's answers describe themselves (package
// phasegate/fixtures/upstream/wire). With verification on, every answer's
// description must be of the target that was asked for, of the status that
// came, and of the body that came, checksum included; it also tells how old
// the answer was when it was asked for and whether it had to wait for the
// upstream. Nothing that the system under test adds is believed; its claims
// are recorded beside. What a recorded request's own header asks for (304, 206,
// 412, 416) is expected, and a part is held against the description's size.
// Births are read against this host's clock, so the mock
// upstream has to run on the same host.
package load
