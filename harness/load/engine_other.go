//go:build !linux

package load

// newEngine makes the engine of this system.
func newEngine() engine { return newGoroutines() }
