// Command phasegate judges whether a caching proxy is ready for the next share
// of the traffic. `phasegate --help` lists what it can do.
package main

import (
	"os"

	"phasegate/harness/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
