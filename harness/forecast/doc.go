// Package forecast says what a run could decide, before it runs: how many
// requests each system gets, which gates the sample can't decide, which ones no
// system passes, and what gates, upstream and request sequence mean for one
// another ([New]). It sends the load's own sequence, in thought, to the best
// systems there could be, and has their gates judged by the rules of a run.
//
// It also holds what a run and its forecast share: the [Schedule].
//
// It reads a recording that is to be replayed, and starts and calls nothing.
package forecast
