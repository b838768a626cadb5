// Command defects runs every planted defect through the scenario that must
// catch it, and healthy systems through the same scenarios, and prints who
// caught what:
//
//	caught      the gate that must catch it failed
//	by another  other gates failed, and that one didn't
//	missed      nothing failed
//
// It ends with 1 unless every defect is caught by its gate, every healthy system
// passes every time, and with 4 if something could not be run. A run that is undecided is
// repeated once: a starved machine says nothing of anybody.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"phasegate/fixtures/defects"
)

func main() {
	var r runner
	flag.StringVar(&r.bin, "bin", "bin", "folder of phasegate, optimizer and defect")
	flag.StringVar(&r.out, "out", filepath.Join("out", "defects"), "folder for the results, one folder for each run")
	modes := flag.String("modes", "", "only the modes that match this regular expression")
	scenarios := flag.String("scenarios", "", "only the scenarios that match this regular expression")
	systems := flag.String("systems", "none,optimizer", "healthy systems that must pass: none (the defects' own proxy without one), optimizer, nginx, varnish, haproxy; empty for none of them")
	flag.BoolVar(&r.least, "least", false, "plant each defect at the smallest size at which it must be caught")
	runs := flag.Int("runs", 1, "how often each healthy system is run through each scenario that suits it")
	flag.Parse()
	only, err := regexp.Compile(*modes)
	in, badScenarios := regexp.Compile(*scenarios)
	if err = errors.Join(err, badScenarios); err == nil && flag.NArg() > 0 {
		err = fmt.Errorf("argument %q; allowed: flags only", flag.Arg(0))
	}
	var healthy []string
	for name := range strings.SplitSeq(*systems, ",") {
		if name == "" {
			continue
		}
		if err == nil && suits[name] == nil {
			err = fmt.Errorf("system %q; allowed: none, optimizer, nginx, varnish, haproxy", name)
		}
		healthy = append(healthy, name)
	}
	if err == nil && *runs < 1 {
		err = fmt.Errorf("%d runs; allowed: 1 or more", *runs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "defects:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	begun := time.Now()
	m := matrix{}
	for _, d := range defects.All() {
		if d.Mode == defects.None || !only.MatchString(d.Mode) || !in.MatchString(d.Scenario) {
			continue
		}
		m.add(r.defect(ctx, d, nil))
		if d.Spare != nil {
			m.add(r.defect(ctx, d, d.Spare))
		}
	}
	for _, name := range healthy {
		for _, scenario := range suits[name] {
			if !in.MatchString(scenario) {
				continue
			}
			for n := range *runs {
				m.add(r.healthy(ctx, name, scenario, n+1))
			}
		}
	}
	if ctx.Err() != nil {
		os.Exit(130)
	}
	code := m.summary(os.Stdout, time.Since(begun))
	os.Exit(code)
}

// suits lists the scenarios that a healthy system can be held to. nginx, Varnish
// and HAProxy keep what is stored when its target is written to, which the
// scenario of contents is right to fail.
var suits = map[string][]string{
	defects.None: defects.Scenarios(),
	"optimizer":  defects.Scenarios(),
	"nginx":      withoutContent(),
	"varnish":    withoutContent(),
	"haproxy":    withoutContent(),
}

func withoutContent() []string {
	return slices.DeleteFunc(defects.Scenarios(), func(s string) bool { return strings.HasSuffix(s, "-content") })
}
