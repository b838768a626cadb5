// Command memory measures who keeps a memory budget: the optimizer, nginx, Varnish and
// HAProxy, one after the other, each before the same upstream and with the same budget.
//
//	memory [-systems optimizer,nginx,varnish,haproxy] [-budget 100] [-objects 400000] [-mixed 4000]
//
// Three loads over 64 connections of loopback, each on a system started anew:
//
//	distinct  so many different objects of 1 KiB, each once
//	mixed     so many different objects of 100 B to 5 MB, as many in each octave of sizes
//	zipf      as many requests as distinct for 200,000 objects of 1 KiB with popularity 1/rank,
//	          of which one in 50 requests gives a rank, of those most used too, to a new object
//
// Peak is the resident memory of all its processes, in 10^6 bytes: the most that the sum
// of their proportional sets was at any look (each 100 ms), or that the kernel says one
// process ever had, whichever is more. Disk is what it has in files. After the first two
// loads the upstream answers with nothing that may be stored, and the objects, every one
// of mixed and one in eight of distinct, are asked for once more, the newest first: kept
// are those that come whole, and payload is their bytes. Failed are answers of another
// status than 200, in all of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "memory:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("memory", flag.ContinueOnError)
	names := flags.String("systems", "optimizer,nginx,varnish,haproxy", "`NAMES` of the systems")
	budget := flags.Int("budget", 100, "memory budget in 10^6 bytes, at least 40")
	objects := flags.Int("objects", 400_000, "objects of the load distinct, and requests of zipf")
	mixed := flags.Int("mixed", 4_000, "objects of the load mixed")
	loads := flags.String("loads", "distinct,mixed,zipf", "`NAMES` of the loads")
	if err := flags.Parse(args); err != nil {
		return err
	}
	up, err := newOrigin()
	if err != nil {
		return err
	}
	defer up.close()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "load\tsystem\tpeak MB, budget %d\tdisk MB\tobjects kept\tpayload at rest MB\thit ratio\tfailed\n", *budget)
	for _, load := range strings.Split(*loads, ",") {
		for _, name := range strings.Split(*names, ",") {
			r, err := measure(ctx, up, name, load, *budget, *objects, *mixed)
			var absent *absentError
			if errors.As(err, &absent) {
				fmt.Fprintf(table, "%s\t%s\tSKIPPED: %v\n", load, name, absent)
				continue
			}
			if err != nil {
				table.Flush()
				return fmt.Errorf("%s, %s: %w", load, name, err)
			}
			kept, payload, ratio := "", "", ""
			if load == "zipf" {
				ratio = fmt.Sprintf("%.4f", r.ratio)
			} else {
				kept, payload = fmt.Sprint(r.kept), fmt.Sprintf("%.1f", float64(r.payload)/1e6)
			}
			fmt.Fprintf(table, "%s\t%s\t%.1f\t%.1f\t%s\t%s\t%s\t%d\n", load, name, float64(r.peak)/1e6, float64(r.disk)/1e6, kept, payload, ratio, r.failed)
		}
	}
	return table.Flush()
}

// result is what one system did under one load.
type result struct {
	peak, disk, payload int64
	kept, failed        int
	ratio               float64
}

func measure(ctx context.Context, up *origin, name, load string, budget, objects, mixed int) (r result, err error) {
	s, err := start(ctx, name, budget, up.address())
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	up.answerWith(true)
	c := client{address: s.listen}
	switch load {
	case "distinct", "mixed":
		kind, n, sampled := "d", objects, 8
		if load == "mixed" {
			kind, n, sampled = "m", mixed, 1
		}
		paths := make([]string, n)
		for i := range paths {
			paths[i] = fmt.Sprintf("/%s/%d", kind, i)
		}
		stored, err := c.ask(ctx, paths)
		if err != nil {
			return r, err
		}
		up.answerWith(false)
		var sample []string
		for i := len(paths) - 1; i >= 0; i -= sampled {
			sample = append(sample, paths[i])
		}
		kept, err := c.ask(ctx, sample)
		if err != nil {
			return r, err
		}
		r.kept, r.payload, r.failed = kept.whole*sampled, kept.payload*int64(sampled), stored.failed+kept.failed
	case "zipf":
		paths := zipf(objects, 200_000)
		before := up.asked.Load()
		asked, err := c.ask(ctx, paths)
		if err != nil {
			return r, err
		}
		r.failed = asked.failed
		r.ratio = 1 - float64(up.asked.Load()-before)/float64(len(paths))
	default:
		return r, fmt.Errorf("found load %q; allowed are distinct, mixed and zipf", load)
	}
	r.peak, r.disk = s.peak(), s.disk()
	return r, nil
}
