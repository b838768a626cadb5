package stat

// A run that changed its level is taken as such where the change accounts for
// nine tenths of what its intervals vary by, from so many intervals on. Of runs
// whose intervals only go together, as far as the calibration goes (seven tenths
// of a deviation carried over, or ten bursts in a run), fewer than 2 % look so
// by chance at those lengths, and fewer than 1 in 200 with more bad than good.
const (
	explained  = 0.9
	oneChange  = 15
	twoChanges = 30
)

// aroundLevels returns the residuals of a run, one per interval, around its
// levels, and the intervals with which a new one begins: where it changed once
// (it froze) or twice (it failed and recovered). A run that didn't comes back
// as it is.
//
// Who takes a change of level for variance learns next to nothing from a run:
// half good and half bad would be one observation of each. But a claim that a
// run refutes is one about this run, with its change, and not about others in
// which it might have come at another time: given its levels, all that chance
// can add to its sum is what varies around them. What holds for passing is the
// opposite, since that speaks of what goes on.
//
// Changes are found one after the other, each where it takes most of the squares
// away (binary segmentation; Scott & Knott, Biometrics 30, 1974).
func aroundLevels(residuals []float64) (around []float64, changes []int) {
	var total float64
	for _, e := range residuals {
		total += e * e
	}
	at, gain := split(residuals)
	switch {
	case len(residuals) < oneChange || !(total > 0):
		return residuals, nil
	case gain >= explained*total:
		return centred(residuals, at), []int{at}
	case len(residuals) < twoChanges:
		return residuals, nil
	}
	other, further := split(residuals[:at])
	if second, more := split(residuals[at:]); more > further {
		other, further = at+second, more
	}
	if gain+further < explained*total {
		return residuals, nil
	}
	changes = []int{min(at, other), max(at, other)}
	return centred(residuals, changes...), changes
}

// split finds the place in a series at which two means instead of one take most
// away from its sum of squares, and how much that is.
func split(values []float64) (at int, gain float64) {
	var sum, before float64
	for _, v := range values {
		sum += v
	}
	n := float64(len(values))
	for i := 1; i < len(values); i++ {
		before += values[i-1]
		a := float64(i)
		off := before - sum*a/n
		if g := off * off * n / (a * (n - a)); g > gain {
			at, gain = i, g
		}
	}
	return at, gain
}

// centred takes its own mean from each of the stretches that begin at 0 and at
// the given places.
func centred(values []float64, begins ...int) []float64 {
	out := make([]float64, 0, len(values))
	for _, end := range append(begins[:len(begins):len(begins)], len(values)) {
		stretch, mean := values[len(out):end], 0.0
		for _, v := range stretch {
			mean += v / float64(len(stretch))
		}
		for _, v := range stretch {
			out = append(out, v-mean)
		}
	}
	return out
}
