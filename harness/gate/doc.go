// Package gate turns conditions into decisions: a gate's claim about a metric
// into a verdict with its evidence ([Judge]), and a rollback trigger's
// condition, seen again and again, into pending and firing ([Trigger]).
//
// There are three verdicts. A gate passes if the confidence bound on the
// threshold's side satisfies the claim, fails if the opposite bound violates
// it, and is inconclusive otherwise. Nothing passes for want of evidence: a
// metric that isn't offered, an empty sample and a division by nothing are
// inconclusive, with the reason in words.
//
// A pass is a claim about what goes on, of which a run is a sample. A failure is
// one about the run itself: a system that froze halfway may do so once in a
// thousand runs, and has failed in this one. So where a run changed its level,
// the bound by which shares, quantiles and means fail varies around its levels,
// and the one by which they pass has the change in it.
//
// What the machine may have done is no failure of the system: a latency gate that
// fails where the load generator sent late or the machine was starved, and a gate on
// errors that fails by requests which timed out while the load generator stood still,
// are inconclusive, if what surely was the system's doesn't fail them. Nothing passes
// by that, and a trigger has no data then.
//
// Everything here is a pure function of what it is given. Time and data are
// arguments, so that a rule of five minutes is tested without a clock.
package gate
