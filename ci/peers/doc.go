// Command peers measures Phasegate's load generator, and its proxy, beside what
// people use. Of generators: the same server, the same machine, one run, each tool a process
// of its own whose CPU time the kernel counts.
//
//	peers stall    a server that stalls for 2 of 8 s: what p99 does each tool see?
//	peers load     the highest rate over 64 connections, and the CPU per request at 2,000/s
//	peers proxy    the optimizer beside HAProxy, nginx and Varnish, by wrk and our generator
//	peers http2    the optimizer beside nginx, hits over HTTP/2 and TLS, by h2load
//	peers hitratio [FILE]   the arena's policies beside plain LRU, otter and Belady's optimum
//
// vegeta, Fortio and hey (and otter, a library) are built from this module's go.mod, a module of its
// own so that no rival is a dependency of the product; wrk and h2load are
// Debian's packages wrk and nghttp2-client. A tool that is missing is named and
// left out. k6 is one that is found on the PATH or isn't: its licence (AGPL) keeps it
// out of go.mod.
package main
