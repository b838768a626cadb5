// Package harness runs a compiled scenario from start to verdict. [Run] is the
// whole story and the place to begin reading; what it calls lives in a room of
// its own: forecast lays out the schedule, environment starts processes, load
// sends requests, timeline keeps what was observed, gate decides, probe samples.
// The outcome is a [phasegate/reports/result.Result], from which every report is
// made.
package harness
