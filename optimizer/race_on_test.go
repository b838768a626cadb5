//go:build race

package optimizer

// Under the race detector sync.Pool drops items at random, so allocations can't be counted.
const raceDetector = true
