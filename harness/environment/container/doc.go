// Package container runs programs in containers of an engine on this machine or
// elsewhere, and surely removes them again.
//
// A container is kept by a process, [Keep]: while that lives the container
// does, and its outputs, its end and its exit code are the process's. So
// whoever supervises processes supervises containers:
//
//	harness ─── supervise ── contain ┄┄ engine ── the program
//
// [Connect] finds an engine. Everything that is made there carries labels: the
// run, and the process that owns it. [Engine.Sweep] removes what belongs to
// owners that don't live any more, [Engine.Remove] what belongs to one run.
// Images are built around static binaries ([Engine.Build]), tagged with a hash
// of their content, and kept as a cache.
package container
