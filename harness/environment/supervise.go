package environment

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// superviseArg is the argument by which this program becomes a supervisor.
const superviseArg = "supervise"

// tempPrefix begins the name of every private folder; a supervisor removes no
// others.
const tempPrefix = "phasegate-"

// supervision is what a supervisor is told on its command line.
type supervision struct {
	remove string        // folder to remove if the caller is gone
	grace  time.Duration // between asking and killing
	status int           // descriptor to report on, 0 for none
	cpu    *int          // the one processor that the command runs on; nil for any
	args   []string      // the command
}

// command returns the argument vector after the program's own name.
func (s supervision) command() []string {
	words := []string{superviseArg, "--remove", s.remove, "--grace", s.grace.String(), "--status", strconv.Itoa(s.status)}
	if s.cpu != nil {
		words = append(words, "--cpu", strconv.Itoa(*s.cpu))
	}
	return append(append(words, "--"), s.args...)
}

// parseSupervision reads the arguments after superviseArg.
func parseSupervision(args []string) (s supervision, err error) {
	flags := flag.NewFlagSet(superviseArg, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&s.remove, "remove", "", "")
	flags.DurationVar(&s.grace, "grace", defaultGrace, "")
	flags.IntVar(&s.status, "status", 0, "")
	flags.Func("cpu", "", func(text string) error {
		cpu, err := strconv.Atoi(text)
		s.cpu = &cpu
		return err
	})
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	s.args = flags.Args()
	if len(s.args) == 0 {
		err = errors.New("no command")
	}
	if s.remove != "" && !(filepath.IsAbs(s.remove) && strings.HasPrefix(filepath.Base(s.remove), tempPrefix)) {
		err = errors.Join(err, fmt.Errorf("--remove %s: not one of the private folders, whose names begin with %s", s.remove, tempPrefix))
	}
	if s.grace < 0 {
		err = errors.Join(err, fmt.Errorf("--grace %v: negative", s.grace))
	}
	if s.cpu != nil && *s.cpu < 0 {
		err = errors.Join(err, fmt.Errorf("--cpu %d: negative", *s.cpu))
	}
	return s, err
}

// The reports of a supervisor, one a line on its status descriptor: a word and
// its text.
const (
	statusPID   = "pid"   // the command runs under this number
	statusError = "error" // the command could not be started
	statusExit  = "exit"  // the command ended by itself or by a signal: "exit status 1"
)
