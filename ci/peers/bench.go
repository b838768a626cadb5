package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// bench runs tools one after the other, each against a fresh server.
type bench struct {
	self, bin string // this program, and the folder of those built beside it
	rounds    int
}

// outcome is one tool's run.
type outcome struct {
	figures
	cpu  time.Duration // of the tool's process
	exit int
}

var errAbsent = errors.New("not installed")

// find is the path of a tool's program.
func (b bench) find(program string) (string, error) {
	if program == "" {
		return b.self, nil
	}
	if path, err := exec.LookPath(filepath.Join(b.bin, program)); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", errAbsent
	}
	return path, nil
}

// command is a program that dies with this one.
func command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// server starts a server; stop ends it.
func (b bench) server(args ...string) (url string, stop func(), err error) {
	c := command(b.self, append([]string{"serve"}, args...)...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := c.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("start the server: %w", err)
	}
	return "http://" + strings.TrimSpace(address), stop, nil
}

// do has one tool do a job against a fresh server.
func (b bench) do(ctx context.Context, t tool, j job, server ...string) (o outcome, err error) {
	program, err := b.find(t.program)
	if err != nil {
		return o, err
	}
	fmt.Fprintf(os.Stderr, "%s, %d connections, %s …\n", t.name, j.connections, protocolOf(j))
	if j.scratch, err = os.MkdirTemp("", "peers-"); err != nil {
		return o, err
	}
	defer os.RemoveAll(j.scratch)
	url, stop, err := b.server(server...)
	if err != nil {
		return o, err
	}
	defer stop()
	j.url, j.program = url, program
	args := t.args(j)
	if args == nil {
		return o, errUnable
	}
	c := command(program, args...)
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Start(); err != nil {
		return o, err
	}
	bounded, cancel := context.WithTimeout(ctx, j.length+time.Minute)
	defer cancel()
	defer context.AfterFunc(bounded, func() { _ = c.Process.Kill() })()
	err = c.Wait()
	o.exit = c.ProcessState.ExitCode()
	o.cpu = c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	switch {
	case bounded.Err() != nil:
		return o, bounded.Err()
	case err != nil && o.exit < 0:
		return o, err
	}
	if o.figures, err = t.read(j, out.Bytes()); err != nil {
		return o, fmt.Errorf("read what %s printed (exit code %d, %.300q): %w", t.name, o.exit, errOut.String(), err)
	}
	return o, nil
}

var errUnable = errors.New("can't do that")

// The stall: 500 requests/s for 8 s, of which the server answers nothing from
// the third to the fifth second.
const (
	stallRate   = 500
	stallLength = 8 * time.Second
	stallBegin  = 3 * time.Second
	stallFor    = 2 * time.Second
)

// truth is the 99th percentile seen from the schedule: request i is due at
// i/rate, and what falls due in the stall is answered at its end. An answer
// takes no time otherwise.
func truth() time.Duration {
	var latencies []time.Duration
	for i := range int(stallRate * stallLength.Seconds()) {
		due := time.Duration(i) * time.Second / stallRate
		latencies = append(latencies, max(0, stallBegin+stallFor-max(due, stallBegin)))
		if due < stallBegin {
			latencies[i] = 0
		}
	}
	return p99(latencies)
}

// stall prints what every tool takes for the 99th percentile, with few and
// with many connections.
func (b bench) stall(ctx context.Context, w io.Writer) error {
	want := truth()
	fmt.Fprintf(w, "%d requests/s for %s; the server answers nothing for %s of them. Seen from the schedule, p99 is %s.\n\n", stallRate, stallLength, stallFor, want.Round(time.Millisecond))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TOOL\tPROTOCOL\tCONNECTIONS\tANSWERED\tP99\tOF THE TRUTH\tEXIT CODE")
	for _, http2 := range []bool{false, true} {
		for _, connections := range []int{10, 1000} {
			for _, t := range tools {
				if t.loadOnly {
					continue
				}
				j := job{rate: stallRate, connections: connections, length: stallLength, http2: http2}
				o, err := b.do(ctx, t, j, "--stall", stallFor.String(), "--after", stallBegin.String())
				switch {
				case errors.Is(err, errUnable):
					fmt.Fprintf(table, "%s\t%s\t%d\tnot offered: %s\n", t.name, protocolOf(j), connections, t.lacks)
					continue
				case errors.Is(err, errAbsent):
					fmt.Fprintf(table, "%s\t%s\t%d\t%v\n", t.name, protocolOf(j), connections, err)
					continue
				case err != nil:
					return fmt.Errorf("%s over %s, %d connections: %w", t.name, protocolOf(j), connections, err)
				}
				fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%.1f ms\t%.1f %%\t%d\n", t.name, protocolOf(j), connections, o.Requests,
					1000*o.P99.Seconds(), 100*o.P99.Seconds()/want.Seconds(), o.exit)
			}
		}
	}
	return table.Flush()
}

// load prints, as medians over the rounds, the highest rate over 64
// connections and the CPU time per request at a constant 2,000/s. The tools
// take turns, so that a slow moment of the machine hits them alike; ratios are
// taken within a round.
func (b bench) load(ctx context.Context, w io.Writer) error {
	for _, part := range []struct {
		title string
		job   job
	}{
		{"as many requests as 64 connections take", job{connections: 64, length: 8 * time.Second}},
		{"2,000 requests/s over 50 connections", job{rate: 2000, connections: 50, length: 8 * time.Second}},
	} {
		fmt.Fprintf(w, "%s, %s each, %d rounds in turn; medians\n\n", part.title, part.job.length, b.rounds)
		all := map[string][]outcome{}
		for range b.rounds {
			for _, t := range tools {
				o, err := b.do(ctx, t, part.job)
				switch {
				case errors.Is(err, errUnable), errors.Is(err, errAbsent):
					continue
				case err != nil:
					return fmt.Errorf("%s: %w", t.name, err)
				}
				all[t.name] = append(all[t.name], o)
			}
		}
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "TOOL\tREQUESTS/S\tOF FORTIO'S\tCPU PER REQUEST\tOF FORTIO'S\tITS P99\tSCHEDULE LAG P99")
		for _, t := range tools {
			runs, base := all[t.name], all["fortio"]
			if len(runs) == 0 {
				fmt.Fprintf(table, "%s\t-\t-\t-\t-\t-\t-\n", t.name)
				continue
			}
			median := func(of func(i int) float64) float64 { return medianOf(len(runs), of) }
			rate := func(o outcome) float64 { return float64(o.Requests) / o.Seconds }
			cpu := func(o outcome) float64 { return o.cpu.Seconds() * 1e6 / float64(o.Requests) }
			versus := func(of func(outcome) float64) string {
				if len(base) != len(runs) {
					return "-"
				}
				return fmt.Sprintf("%.2f", median(func(i int) float64 { return of(runs[i]) / of(base[i]) }))
			}
			lag := "-"
			if l := median(func(i int) float64 { return runs[i].LagP99.Seconds() }); l > 0 && part.job.rate > 0 {
				lag = fmt.Sprintf("%.2f ms", 1000*l)
			}
			p99 := "-" // not every tool tells
			if p := median(func(i int) float64 { return 1000 * runs[i].P99.Seconds() }); p > 0 {
				p99 = fmt.Sprintf("%.2f ms", p)
			}
			fmt.Fprintf(table, "%s\t%.0f\t%s\t%.0f µs\t%s\t%s\t%s\n", t.name,
				median(func(i int) float64 { return rate(runs[i]) }), versus(rate),
				median(func(i int) float64 { return cpu(runs[i]) }), versus(cpu),
				p99, lag)
		}
		if err := table.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	return nil
}

// medianOf is the median of n values.
func medianOf(n int, of func(i int) float64) float64 {
	values := make([]float64, n)
	for i := range values {
		values[i] = of(i)
	}
	slices.Sort(values)
	return values[n/2]
}
