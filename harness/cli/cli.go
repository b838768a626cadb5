package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// The exit codes of the program.
const (
	exitPass         = 0
	exitFail         = 1
	exitUsage        = 2 // usage or scenario error; nothing was started
	exitInconclusive = 3
	exitEnvironment  = 4
	exitInterrupted  = 130
)

// Streams are the standard streams of a command.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// grammar is the command line; the text of `phasegate --help`.
type grammar struct {
	Run      runCommand      `cmd:"" help:"Run a scenario and judge its gates."`
	Plan     planCommand     `cmd:"" help:"Say what a run could decide, without running it."`
	Compare  compareCommand  `cmd:"" help:"Have several systems, or two revisions of the optimizer, do the same work in turns."`
	Report   reportCommand   `cmd:"" help:"Make the reports of a finished run again from its result.json."`
	Verify   verifyCommand   `cmd:"" help:"Recompute every number and verdict of a finished run from its evidence."`
	List     listCommand     `cmd:"" help:"List the embedded scenarios."`
	Schema   schemaCommand   `cmd:"" help:"Print the JSON Schema of scenario files, for editors."`
	Upstream upstreamCommand `cmd:"" help:"Be the mock upstream: read a configuration (JSON), print the addresses, serve until SIGTERM."`
}

// exit ends the program with a code; the error, if any, has been told.
type exit struct{ code int }

func (e exit) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// failure is an error that ends the program with a code, and what to do.
type failure struct {
	code int
	err  error
	hint string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// Main runs the program with the given arguments and returns its exit code.
func Main(args []string, std Streams) int {
	if len(args) > 0 && args[0] == superviseName {
		return supervise(args[1:])
	}
	if len(args) == 2 && args[0] == containName {
		return contain(args[1])
	}
	ended := -1
	parser, err := kong.New(&grammar{},
		kong.Name("phasegate"),
		kong.Description("Is this latency optimizer good enough to take the next share of our traffic?\n\n"+
			"Exit codes: 0 every gate passed, 1 a gate failed, 2 usage or scenario error, 3 inconclusive, 4 the environment failed, 130 interrupted."),
		kong.Bind(std),
		kong.Writers(std.Out, std.Err),
		kong.Exit(func(code int) { ended = code }),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		panic(err) // the grammar is wrong: a fault of this program
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if ended >= 0 { // --help has been printed
		return ended
	}
	if err != nil {
		fmt.Fprintf(std.Err, "phasegate: %v\n`phasegate --help` lists the commands, `phasegate COMMAND --help` its flags.\n", err)
		return exitUsage
	}
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // by nohup
		signals = append(signals, syscall.SIGHUP) // its terminal is gone
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	// The first signal ends the run in good order; a later one ends it at once.
	// A terminal and a tool that passes signals on may both send the first.
	context.AfterFunc(ctx, func() {
		signal.Ignore(syscall.SIGPIPE) // whoever read what is printed may be gone too
		time.AfterFunc(time.Second, stop)
	})

	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run()
	var code exit
	var fail *failure
	switch {
	case err == nil:
		return exitPass
	case ctx.Err() != nil && !errors.As(err, &code):
		return exitInterrupted
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &fail):
		if fail.code != exitUsage { // those begin with where the fault is: FILE:LINE:COL:
			fmt.Fprint(std.Err, "phasegate: ")
		}
		fmt.Fprintf(std.Err, "%v\n", fail.err)
		if fail.hint != "" {
			fmt.Fprintf(std.Err, "%s\n", fail.hint)
		}
		return fail.code
	default:
		fmt.Fprintf(std.Err, "phasegate: %v\n", err)
		return exitEnvironment
	}
}
