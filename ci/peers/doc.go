// Command peers measures Phasegate's load generator, and its proxy, beside what
// people use. Of generators: the same server, the same machine, one run, each tool a process
// of its own whose CPU time the kernel counts.
//
//	peers stall    a server that stalls for 2 of 8 s: what p99 does each tool see?
//	peers load     the highest rate over 64 connections, and the CPU per request at 2,000/s
//	peers proxy    the optimizer beside HAProxy, nginx and Varnish, by wrk and our generator
//
// vegeta, Fortio and hey are built from this module's go.mod, a module of its
// own so that no rival is a dependency of the product; wrk and h2load are
// Debian's packages wrk and nghttp2-client. A tool that is missing is named and
// left out. k6 is left out for its licence (AGPL).
package main
