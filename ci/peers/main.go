package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{""}
	}
	switch args[0] {
	case "serve": // the server, started by the benches
		return serve(ctx, args[1:])
	case "phasegate": // our generator, as a process like the others
		return generate(ctx, args[1:])
	case "hitratio":
		file := ""
		if len(args) > 1 {
			file = args[1]
		}
		return hitRatios(os.Stdout, file)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := bench{self: self, bin: filepath.Dir(self), rounds: 3}
	if len(args) > 1 {
		if b.rounds, err = strconv.Atoi(args[1]); err != nil || b.rounds < 1 || b.rounds > 100 {
			return fmt.Errorf("read the number of rounds: found %q; allowed is 1 to 100", args[1])
		}
	}
	switch args[0] {
	case "stall":
		return b.stall(ctx, os.Stdout)
	case "load":
		return b.load(ctx, os.Stdout)
	case "proxy", "http2":
		length := 8 * time.Second
		if len(args) > 2 {
			if length, err = time.ParseDuration(args[2]); err != nil || length < time.Second || length > time.Minute {
				return fmt.Errorf("read the length of a run: found %q; allowed is 1s to 1m", args[2])
			}
		}
		if args[0] == "http2" {
			return proxyBench{b, length}.http2(ctx, os.Stdout)
		}
		return proxyBench{b, length}.proxies(ctx, os.Stdout)
	}
	return fmt.Errorf("found %q; allowed is stall, load, proxy or http2, a number of rounds, and for the last two the length of a run; or hitratio and a file", args[0])
}
