//go:build !linux

package load

import "time"

// goSleeper falls back on Go's timers, which are about 1 ms late; the lag in
// the report shows it.
type goSleeper struct{}

func newSleeper() sleeper { return goSleeper{} }

func (goSleeper) sleep(d time.Duration) { time.Sleep(d) }
func (goSleeper) close()                {}
