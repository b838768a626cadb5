package recording

import (
	"slices"
	"time"
)

// Timed reports whether the recording says when its requests were made.
func (r *Recording) Timed() bool { return r.Kind != targetList }

// Times returns when the requests are due at the recording's own pace, from
// the first on, and how long one pass takes.
//
// A log is in the order in which answers ended, so its times may run
// backwards; requests keep the recorded order, and the k-th of them is due at
// the k-th earliest of the times.
//
// Where all times are whole seconds, that is their resolution: the requests of
// one second are spread evenly over it. All sent at its start, they would be a
// burst that nobody had sent. A pass ends with the last second. Finer times
// are kept as they are, and a pass ends one mean distance after the last, so
// that a repetition doesn't begin with a collision.
func (r *Recording) Times() (due []time.Duration, pass time.Duration) {
	due = make([]time.Duration, len(r.entries))
	for i, e := range r.entries {
		due[i] = time.Duration(e.at)
	}
	slices.Sort(due)
	first, last := due[0], due[len(due)-1]
	for i := range due {
		due[i] -= first
	}
	if r.fine && last > first {
		return due, last - first + max(1, (last-first)/time.Duration(len(due)-1))
	}
	for i := 0; i < len(due); {
		j := i + 1
		for j < len(due) && due[j] == due[i] {
			j++
		}
		for n := i; n < j; n++ {
			due[n] += time.Duration(n-i) * time.Second / time.Duration(j-i)
		}
		i = j
	}
	return due, last - first + time.Second
}

// backwards tells how many requests are recorded after later ones, and by how
// much at most.
func (r *Recording) backwards() (n int, most time.Duration) {
	latest := r.entries[0].at
	for _, e := range r.entries {
		if e.at < latest {
			n++
			most = max(most, time.Duration(latest-e.at))
		}
		latest = max(latest, e.at)
	}
	return n, most
}
