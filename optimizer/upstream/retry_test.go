package upstream

import (
	"testing"
	"time"
)

// However often a request fails, the pauses that are to spare the upstream keep the client
// no longer than this.
func TestPausesBetweenAttempts(t *testing.T) {
	t.Parallel()
	for attempts, want := range map[int]time.Duration{1: 0, maxAttempts: 150 * time.Millisecond, maxMoves: 1270 * time.Millisecond} {
		var all time.Duration
		for failed := 1; failed < attempts; failed++ {
			all += pauseAfter(failed)
		}
		if all != want {
			t.Errorf("%v between %d attempts, want %v", all, attempts, want)
		}
	}
}
