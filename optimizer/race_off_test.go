//go:build !race

package optimizer

const raceDetector = false
