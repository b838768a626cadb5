// Package environment starts what a plan needs, the mock upstream and the
// systems under test, each as a process or a container of its own, and stops it
// again.
//
// [Start] returns when everything answers; [Environment.Stop] when nothing of
// it is left. Between harness and process stands a supervisor, this program
// executed once more ([Supervise]): it ends the process with everything that
// descends from it, also when the harness is killed and can't do it any more.
//
//	harness ─┬─ supervise ── upstream
//	         └─ supervise ── system ── whatever it forks
//
// A system from a package, such as nginx, is started with a configuration that
// [phasegate/fixtures/systems] makes for this run.
//
// A container is kept by a process, so it is supervised like one; see package
// container.
//
// Where a drill worsens the network, a proxy stands on that leg of the new system,
// in this process; see package network. Between containers it listens on the gateway
// of their network.
//
// The environment failed if Start returns an [*Error]: it names the system,
// holds its last log lines and says what to do.
package environment
