package cli

import "phasegate/harness/environment"

// superviseName is the first argument under which the harness starts this
// program again to keep a process tree. It isn't part of the grammar: what
// follows it is another program's command line, in which no flag is ours.
const superviseName = "supervise"

func supervise(args []string) int { return environment.Supervise(args) }

// containName is the first argument under which it is started to keep a
// container; a file follows.
const containName = "contain"

func contain(file string) int { return environment.Keep(file) }
