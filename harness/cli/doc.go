// Package cli is the phasegate program: one file per command, and the only
// place that talks to people.
//
// Rules of all output: results go to standard output, everything about the way
// there (progress, notices, errors) to standard error. An error is followed by
// what to do about it. Nothing is coloured or redrawn unless the stream is a
// terminal.
package cli
