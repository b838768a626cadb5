// Command optimizer runs the caching proxy as a process: flags and signals only.
//
//	optimizer --upstream URL --listen ADDR [--admin ADDR] [--config FILE] [--check]
//
// Every key of the file is also a flag and an environment variable: cache.default_ttl
// is --cache-default-ttl and OPTIMIZER_CACHE_DEFAULT_TTL. SIGHUP reads them anew.
//
// Once it accepts connections it prints one line on standard output, and nothing
// else ever:
//
//	optimizer listening on http://127.0.0.1:8080 admin http://127.0.0.1:40123
//
// Programs that start it wait for this line and take the two addresses from it, so
// its form doesn't change; the first is an https one where clients must speak TLS. Logs go to standard error. SIGTERM or SIGINT drains; a
// second one doesn't wait. A second process with the same --handover takes the
// listening sockets over, which drains the first like a signal. Exit code 0: stopped after a clean drain (or --check, or
// --help); 1: a failure; 2: wrong usage or configuration.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"phasegate/optimizer"
)

// drainTimeout bounds the wait for requests in flight after a signal, and lastResort that for
// all else to end then.
const (
	drainTimeout = 30 * time.Second
	lastResort   = 10 * time.Second
)

func main() {
	signal.Ignore(syscall.SIGPIPE) // that nobody reads standard error any more is no reason to end
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	hup := make(chan os.Signal, 1) // before all that takes its time: not waited for, the signal kills
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	usage := func(err error) int {
		fmt.Fprintf(stderr, "optimizer: %v\n", err)
		return 2
	}
	line, err := parse(args, stdout)
	if errors.Is(err, errHelp) {
		return 0
	} else if err != nil {
		return usage(err)
	}
	cfg, settings, err := line.load()
	if err != nil {
		return usage(err)
	}
	if line.check {
		if err := settings.Print(stdout, cfg); err != nil {
			return 1
		}
		return 0
	}
	if !cfg.Admin.Pprof {
		runtime.MemProfileRate = 0 // nobody can ask for the samples, which take memory
	}
	log := newNews(stderr)
	defer log.end()
	cfg.Logger = slog.New(slog.NewJSONHandler(log, nil))
	cfg.AccessLog = stderr
	cfg.Source = func() (optimizer.Config, error) {
		cfg, _, err := line.load()
		return cfg, err
	}
	optimizer.LimitProcessMemory(cfg)
	o, err := optimizer.New(cfg)
	if err != nil { // a file that the configuration names, for one
		return usage(err)
	}
	return serve(ctx, hup, o, cfg.Logger, stdout)
}

func serve(ctx context.Context, hup <-chan os.Signal, o *optimizer.Optimizer, logger *slog.Logger, stdout io.Writer) int {
	failed := func(doing string, err error) int {
		logger.Error(doing, "error", err)
		return 1
	}
	if err := o.Start(ctx); err != nil {
		return failed("start", err)
	}
	// Nobody need read the line for what comes next to be heard.
	go fmt.Fprintf(stdout, "optimizer listening on %s admin http://%s\n", o.URL(), o.AdminAddr())
	for running := true; running; {
		select {
		case <-hup:
			o.Reload() // it logs what came of it
		case <-o.HandedOver():
			logger.Info("another process serves in this one's place")
			running = false
		case <-ctx.Done():
			running = false
		}
	}
	logger.Info("draining", "for_at_most", drainTimeout)
	if err := end(o.Stop); err != nil {
		return failed("stop", err)
	}
	return 0
}

// end stops by stop, within drainTimeout. What doesn't end soon after that is a fault of this
// program's, by which the process isn't held: the error says where all goroutines are.
func end(stop func(context.Context) error) error {
	bound, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- stop(bound) }()
	select {
	case err := <-stopped:
		return err
	case <-time.After(drainTimeout + lastResort):
		stacks := make([]byte, 1<<20)
		return fmt.Errorf("it hasn't ended %v after its time, which is a defect; goroutines:\n%s", lastResort, stacks[:runtime.Stack(stacks, true)])
	}
}

// news takes lines of the log and has a goroutine write them, so that nothing waits for
// standard error: if nobody reads it, neither requests nor signals may suffer.
type news struct {
	lines   chan []byte
	written chan struct{}
}

func newNews(to io.Writer) *news {
	n := &news{make(chan []byte, 1000), make(chan struct{})}
	go func() {
		defer close(n.written)
		for line := range n.lines {
			if line == nil {
				return
			}
			_, _ = to.Write(line) // there is no other place to complain
		}
	}()
	return n
}

// Write takes a line. If too many wait already it is lost.
func (n *news) Write(line []byte) (int, error) {
	select {
	case n.lines <- bytes.Clone(line):
	default:
	}
	return len(line), nil
}

// end waits a little for what was taken until now.
func (n *news) end() {
	n.Write(nil)
	select {
	case <-n.written:
	case <-time.After(time.Second):
	}
}
