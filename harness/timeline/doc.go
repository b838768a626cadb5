// Package timeline keeps what was observed: per system and interval the
// requests that fell due, how they ended, how long they took, what the system
// used of the machine and what the upstream's ledger saw.
//
// Everything is binned by due time, so that a stall belongs to the seconds
// that suffered it and not to the one in which it ended; only the cacheable
// requests, which are held against the upstream's ledger, are counted where
// they were sent. A [Recorder] takes
// observations from any number of goroutines; a [Window] is what was seen
// between two times, merged, and is what gates and triggers judge.
//
// Times are offsets from the start of the schedule, given by the caller: the
// package reads no clock.
package timeline
