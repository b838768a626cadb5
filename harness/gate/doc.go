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
// Everything here is a pure function of what it is given. Time and data are
// arguments, so that a rule of five minutes is tested without a clock.
package gate
