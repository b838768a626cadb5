// Command optimizer runs the caching proxy as a process: flags and signals only.
//
//	optimizer --upstream URL --listen ADDR [--admin ADDR] [--config FILE] [--check]
//
// Once it accepts connections it prints one line on standard output, and nothing
// else ever:
//
//	optimizer listening on http://127.0.0.1:8080 admin http://127.0.0.1:40123
//
// Programs that start it wait for this line and take the two addresses from it, so
// its form doesn't change. Logs go to standard error. SIGTERM or SIGINT drains; a
// second one doesn't wait. Exit code 0: stopped after a clean drain (or --check, or
// --help); 1: a failure; 2: wrong usage or configuration.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"phasegate/optimizer"
)

// drainTimeout bounds the wait for requests in flight after a signal.
const drainTimeout = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("optimizer", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var (
		upstreamURL = flags.String("upstream", "", "`URL` of the API behind (upstream.url)")
		listen      = flags.String("listen", "", "`ADDR`ess for clients (listen), default 127.0.0.1:8080")
		admin       = flags.String("admin", "", "`ADDR`ess for health, metrics and invalidation (admin.listen), default 127.0.0.1:0")
		file        = flags.String("config", "", "configuration `FILE` in YAML; flags win over it")
		check       = flags.Bool("check", false, "print the effective configuration with the source of each value, and exit")
	)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	usage := func(err error) int {
		fmt.Fprintf(stderr, "optimizer: %v\n", err)
		return 2
	}
	if flags.NArg() > 0 {
		return usage(fmt.Errorf("unexpected argument %q; see optimizer --help", flags.Arg(0)))
	}
	var cfg optimizer.Config
	settings := new(optimizer.Settings)
	if *file != "" {
		f, err := os.Open(*file)
		if err != nil {
			return usage(fmt.Errorf("read the configuration: %w", err))
		}
		cfg, settings, err = optimizer.ReadConfig(*file, f)
		f.Close()
		if err != nil {
			return usage(err)
		}
	}
	for _, o := range []struct {
		flag, key, value string
		target           *string
	}{
		{"--upstream", "upstream.url", *upstreamURL, &cfg.Upstream.URL},
		{"--listen", "listen", *listen, &cfg.Listen},
		{"--admin", "admin.listen", *admin, &cfg.Admin.Listen},
	} {
		if o.value != "" {
			*o.target = o.value
			settings.SetByFlag(o.key, o.flag)
		}
	}
	if err := cfg.Validate(); err != nil {
		return usage(settings.Explain(err))
	}
	if *check {
		if err := settings.Print(stdout, cfg); err != nil {
			return 1
		}
		return 0
	}
	cfg.Logger = slog.New(slog.NewJSONHandler(stderr, nil))
	optimizer.LimitProcessMemory(cfg)
	o, err := optimizer.New(cfg)
	if err != nil { // a file that the configuration names, for one
		return usage(err)
	}
	return serve(ctx, o, cfg.Logger, stdout)
}

func serve(ctx context.Context, o *optimizer.Optimizer, logger *slog.Logger, stdout io.Writer) int {
	failed := func(doing string, err error) int {
		logger.Error(doing, "error", err)
		return 1
	}
	if err := o.Start(ctx); err != nil {
		return failed("start", err)
	}
	fmt.Fprintf(stdout, "optimizer listening on http://%s admin http://%s\n", o.Addr(), o.AdminAddr())
	<-ctx.Done()
	logger.Info("draining", "for_at_most", drainTimeout)
	bound, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := o.Stop(bound); err != nil {
		return failed("stop", err)
	}
	return 0
}
