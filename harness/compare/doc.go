// Package compare has the same work done by several systems, in rounds: in each
// of them every system runs the scenario once, freshly started and prewarmed
// alike, in an order drawn at random, so that what a minute of the machine does
// to one it does to all in turn. [Run] is the whole story.
//
// A single run is judged within itself; here a run is one observation, and what
// is said of a system rests on how it varied from round to round.
package compare
