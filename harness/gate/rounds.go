package gate

import (
	"fmt"

	"phasegate/harness/scenario"
	"phasegate/harness/stat"
)

// leastRounds is how many rounds judge a share together. With five, bursts of one
// second made 16 % of the runs at a threshold pass: too few rounds met one.
const leastRounds = 8

// JudgeRounds judges a share by all rounds together of which each is too short to
// decide it: what was bad and what there was, round by round. reason says what
// they saw, whatever the verdict.
func JudgeRounds(c scenario.Condition, rounds []stat.Count, look Look) (v Verdict, reason string) {
	cl := claim{Condition: c, level: look.level()}
	var t tally
	for _, r := range rounds {
		t.k, t.n = t.k+r.K, t.n+r.N
	}
	t.counts, t.of = rounds, counted(c.Metric)
	have := stat.Filled(rounds)
	reason = fmt.Sprintf("%s is %s (%s of %s %s) in %d rounds together", c.Metric.Name, formatShare(t.share()), formatCount(t.k), formatCount(t.n), t.of, have)
	if have < leastRounds {
		return Inconclusive, fmt.Sprintf("%s; %s; a bound needs at least %d, so need %d more rounds", reason, cl.asks(), leastRounds, leastRounds-have)
	}
	bad := t
	if !atMost(c.Op) {
		bad = t.complement()
	}
	effect := stat.RoundsEffect(bad.counts, cl.level)
	low, high := stat.ClusteredLower(bad.k, bad.n, effect, cl.level), stat.ClusteredUpper(bad.k, bad.n, effect, cl.level)
	if !atMost(c.Op) {
		low, high = 1-high, 1-low
	}
	v = decide(c, low, high)
	return v, fmt.Sprintf("%s, between %s and %s at %s confidence%s; %s", reason, formatShare(low), formatShare(high), formatShare(cl.level), clustered(t.n, effect), cl.asks())
}
