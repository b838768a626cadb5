// Package http2 is the engine for clients that speak HTTP/2 (RFC 9113).
//
// Frames are read, and their form checked, by golang.org/x/net/http2's Framer, header
// blocks by its hpack. What is here is the rest of a connection: streams, windows, the
// order of things, and bounds. net/http's engine has all that too, but takes a goroutine
// and some 20 kB for every request, and with a few hundred of them under way the heap of
// an optimizer of 100 MB is full: of 16 connections with 32 streams each it answered 6,000
// hits a second, the collector taking most of the time (25,000 to 35,000 with no bound on
// the heap); this one answers 317,000 (make bench-h2).
//
// One goroutine reads a connection. What Reply can answer it answers there, into the
// buffer that leaves by one write when nothing more is there to read. Only other requests
// get a goroutine of their own, a Stream.
//
// # What a client can make us hold and do
//
// The bounds, each with a test that attacks it:
//
//   - A connection has at most Config.MaxStreams streams under way. One that its client
//     resets counts until its goroutine has ended; those beyond are refused, which costs
//     nothing, and too many of both end the connection (rapid reset).
//   - A header list is kept up to Config.MaxHeader; HPACK's table has 4 KiB. A block that
//     says more is answered with 431, one that goes on after that, in another frame, ends the
//     connection, also where its CONTINUATIONs are empty (CONTINUATION flood, HPACK bomb).
//   - Nothing is read, and no stream sends, while more than 64 KiB of answers wait for those
//     that are being written, so that neither frames (floods of SETTINGS and PING, empty
//     frames) nor many streams can make a queue grow; 4 KiB, if the buffers of all clients
//     have more than Config.MaxUnsent. What came last may go beyond: a frame, a header block,
//     or an answer of Reply. As much is being written. Ten thousand frames in a row that ask
//     for nothing end the connection.
//   - A connection that has nothing to write has no buffer for it.
//   - Streams wait in line for the connection's window, and a WINDOW_UPDATE wakes one. A new
//     SETTINGS_INITIAL_WINDOW_SIZE concerns all, and the 101st ends the connection.
//   - A request's body waits for its reader in 64 KiB, all of a connection's in 128 KiB.
//   - What is kept of requests under way, header lists and buffers of bodies, has a bound over
//     all connections, Config.MaxKept. A connection may have as much of it as it leaves to all
//     others, and 4 KiB in any case, so that those who ask for much don't keep out who asks for
//     little. A request beyond it is refused, and may be sent again (§8.7). Of bodies no more is
//     read then; what came last may go beyond: a frame. What Reply answers isn't kept.
//   - What is sent from is held until it was sent, so a client has to take 16 KiB of an answer,
//     or what is left of it, in each Config.Write that its stream's window keeps it waiting. For
//     the connection's window it is 16 KiB of all answers: those of 100 streams on a network of
//     10 kB/s don't get as much each. Only where more of a connection's answers waits than it
//     leaves to all others of Config.MaxPending each has to. Waits add up until so much was taken.
//   - Nobody waits for the rest of a frame, or of a header block, for longer than Config.Read;
//     for a request than Config.Idle. For a body Serve sets the bound, by SetReadDeadline, and
//     for a write the net.Conn.
//
// What is read until such a connection ends is bounded with that; and a byte of it costs at
// most twice the CPU of one of requests, as measured (work_test.go, which fails at five times).
//
// Priorities are read and have no effect; there is no push.
package http2
