// Package probe reads what the operating system knows of the processes under
// test, and of the machine: resident memory, CPU time, processors. It sees them
// from outside, so no system can flatter itself.
//
// [Below] samples everything that runs under a supervisor, daemonised
// grandchildren included; [New] samples one process and its descendants, [Group]
// a container. What the mock upstream saw is read with its own client,
// wire.Control. [Metrics] alone asks a system about itself, to explain what was
// seen.
package probe
