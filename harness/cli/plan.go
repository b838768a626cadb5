package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"phasegate/harness/forecast"
	"phasegate/harness/gate"
	"phasegate/harness/scenario"
	"phasegate/reports"
	"phasegate/reports/unit"
)

type planCommand struct {
	Scenario string   `arg:"" placeholder:"FILE|NAME" help:"Scenario file, or the name of an embedded one (phasegate list)."`
	Profile  string   `default:"quick" help:"Which of the scenario's profiles to plan: quick, standard or full."`
	System   string   `placeholder:"NAME|URL" help:"Plan for this system instead of the scenario's new one, as run does."`
	Seed     *uint64  `help:"Seed of keys, split and latencies; the scenario's unless told otherwise."`
	Set      []string `sep:"none" placeholder:"PATH=VALUE" help:"Set a value of the scenario, e.g. load.rate=200/s; VALUE is YAML. May be repeated."`
	JSON     bool     `help:"Print the forecast as JSON."`
}

// Help implements kong's longer help.
func (planCommand) Help() string {
	return "Nothing is started. Exit codes: 0 every gate can be decided and can pass, 1 some gate can't pass or some trigger fires for certain, 2 usage or scenario error, 3 some gate can't be decided."
}

// Run implements the command.
func (c *planCommand) Run(std Streams) error {
	f, _, err := choice{c.Scenario, scenario.Options{Profile: c.Profile, Set: c.Set, Seed: c.Seed, System: c.System}}.forecast()
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(std.Out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(struct {
			Outlook forecast.Outlook `json:"outlook"`
			Total   float64          `json:"total"` // seconds
			*forecast.Forecast
		}{f.Worst(), f.Total(), f})
	} else {
		err = writePlan(std.Out, f)
	}
	if err != nil {
		return err
	}
	switch f.Worst() {
	case forecast.Impossible:
		return exit{exitFail}
	case forecast.Undecided:
		return exit{exitInconclusive}
	}
	return nil
}

// choice is a scenario as the command line chooses and changes it.
type choice struct {
	name string
	opts scenario.Options
}

func (c choice) open() (*scenario.Plan, error) {
	plan, err := scenario.Open(c.name, os.ReadFile, c.opts)
	if err != nil {
		return nil, &failure{exitUsage, err, ""}
	}
	return plan, nil
}

// forecast compiles the chosen profile and forecasts it. The other profiles
// that the scenario has are looked at for advice.
func (c choice) forecast() (*forecast.Forecast, *scenario.Plan, error) {
	plan, err := c.open()
	if err != nil {
		return nil, nil, err
	}
	var others []*scenario.Plan
	for _, name := range []string{"quick", "standard", "full"} {
		other := c
		if other.opts.Profile = name; name == plan.Profile {
			continue
		}
		if p, err := other.open(); err == nil { // one that the scenario lacks is no fault
			others = append(others, p)
		}
	}
	f, err := forecast.New(plan, others...)
	var input *forecast.InputError
	if errors.As(err, &input) {
		return nil, nil, &failure{exitUsage, input, ""}
	}
	return f, plan, err
}

// forewarn prints what a plan's forecast warns of before it is run, and notes
// in the plan what the result wouldn't say by itself.
func forewarn(std Streams, plan *scenario.Plan, c choice) error {
	f, _, err := c.forecast()
	if err != nil {
		return err
	}
	for _, line := range f.Warnings() {
		fmt.Fprintf(std.Err, "plan: %s\n", line)
	}
	plan.Notices = append(plan.Notices, f.Notes()...)
	return nil
}

// lineWidth is where the plan's sentences are broken.
const lineWidth = 110

// writePlan prints a forecast for people.
func writePlan(out io.Writer, f *forecast.Forecast) error {
	w := bufio.NewWriter(out)
	line := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	below := func(indent, text string) { w.WriteString(wrap(indent, text)) }

	line("%s: %s, profile %s, seed %d", f.Scenario, f.Title, f.Profile, f.Seed)
	warmup := "no warm-up"
	if f.Warmup > 0 {
		warmup = "warm-up " + unit.Duration(f.Warmup)
	}
	line("%s, steady state %s, %s at %s confidence in all", warmup, unit.Duration(f.Steady), plural(f.Looks, "look"), unit.Exact(f.Confidence, "share"))
	if f.Counted {
		line("counted: every request of this seed's schedule, %s", unit.Count(int64(f.Rehearsed)))
	} else {
		below("", fmt.Sprintf("counted: the first %s requests of this seed's schedule; the rest at their rate, so nothing is called impossible by it", unit.Count(int64(f.Rehearsed))))
	}
	for _, n := range f.Notices {
		below("note: ", n)
	}

	line("")
	steady := "STEADY"
	if f.Looks > 1 {
		steady = fmt.Sprintf("STEADY (%d LOOKS)", f.Looks)
	}
	rows := [][]string{{"SYSTEM", "KIND", "RATE", "WARM-UP", steady, "READS", "WAIT AT LEAST", "HITS AT MOST", "UNDER WAY", "CONNECTIONS"}}
	for _, s := range f.Systems {
		count := unit.Count(s.Requests)
		if f.Looks > 1 {
			count = unit.Count(s.Steady) + " to " + count
		}
		waits, hits, underWay := unit.None, unit.None, unit.None
		if s.Known && s.Requests > 0 {
			waits = unit.Format(s.Waiting, "share")
			hits = unit.Format(s.MaxHit, "share")
			underWay = unit.Format(s.UnderWay, "count")
		}
		rows = append(rows, []string{s.Name, s.Kind, unit.Exact(s.Rate, "1/s"), unit.Count(s.Warmup), count, unit.Count(s.Reads), waits, hits, underWay, unit.Count(int64(s.Connections))})
	}
	for _, text := range reports.Columns(rows) {
		line("%s", text)
	}
	below("  ", "Under way: rate × waiting share × the upstream's latency (Little's law); connections: the pool, sized as if every request waited, and half as much again.")

	line("")
	rows = [][]string{{"GATE", "OUTLOOK", "EXPECTED", "NEEDS CLEAN", "WITH 1 BAD", "90 % POWER", "MAY BE BAD"}}
	power := false
	for _, g := range f.Gates {
		row := []string{g.Gate, word(g.Outlook), "", count(g.Clean), count(g.OneBad), count(g.Power), ""}
		if g.System != scenario.New {
			row[0] += " (" + g.System + ")"
		}
		if g.Sample != nil {
			row[2] = unit.Count(*g.Sample)
		}
		if g.Bad != nil {
			row[6] = unit.Count(*g.Bad)
		}
		power = power || g.Power > 0
		rows = append(rows, row)
	}
	for i, text := range reports.Columns(rows) {
		line("%s", text)
		if i > 0 {
			for _, why := range f.Gates[i-1].Why {
				below("    ", why)
			}
		}
	}
	if power {
		below("  ", fmt.Sprintf("90 %% power: the sample that passes in %s of runs if the true share of bad ones is half of what is allowed. Needs count as independent; failures in bursts need more. What may be bad allows for the clusters in which the sequence itself brings bad ones.", unit.Exact(gate.Power, "share")))
	}

	if len(f.Joint) > 0 {
		line("\nTOGETHER")
		for _, text := range f.Joint {
			below("- ", text)
		}
	}
	if len(f.Triggers) > 0 {
		line("\nTRIGGERS")
		for _, t := range f.Triggers {
			text := t.Trigger
			if t.System != scenario.New {
				text += " (" + t.System + ")"
			}
			if t.For > 0 {
				text += " for " + unit.Duration(t.For)
			}
			switch {
			case t.Outlook == forecast.Impossible:
				text += ": fires for certain: " + t.Why
			case t.Watched == forecast.Never:
				text += ": can't be watched: " + t.Why
			case t.Outlook == forecast.Given:
				text += ": can't fire: " + t.Why
			case t.Watched == forecast.Rarely:
				text += ": will rarely be watched: " + t.Why
			case t.Watched == forecast.Perhaps:
				text += ": can fire, if it is watched: " + t.Why
			default:
				text += ": can fire"
			}
			below("- ", text)
		}
	}

	line("\nDURATION about %s", unit.Duration(roundTenth(f.Total())))
	rows = nil
	for _, p := range f.Duration {
		rows = append(rows, []string{"  " + p.Name, unit.Duration(roundTenth(p.Seconds)), p.How})
	}
	for _, text := range reports.Columns(rows) {
		line("%s", text)
	}
	line("\n%s", conclusion(f))
	return w.Flush()
}

// word is an outlook as a gate's line shows it.
func word(o forecast.Outlook) string {
	return map[forecast.Outlook]string{
		forecast.Open: "can be decided", forecast.Given: "can hardly fail", forecast.Undecided: "CAN'T BE DECIDED", forecast.Impossible: "CAN'T PASS",
	}[o]
}

// conclusion is the plan in one line.
func conclusion(f *forecast.Forecast) string {
	n, unknown := map[forecast.Outlook]int{}, 0
	for _, g := range f.Gates {
		n[g.Outlook]++
		if g.Unforeseen() {
			unknown++
		}
	}
	fires, blind := 0, 0
	for _, t := range f.Triggers {
		switch {
		case t.Outlook == forecast.Impossible:
			fires++
		case t.Watched == forecast.Never:
			blind++
		}
	}
	end := "."
	if blind > 0 {
		end = "; " + plural(blind, "trigger") + " can't be watched."
	}
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, what)
		}
	}
	add(n[forecast.Impossible], plural(n[forecast.Impossible], "gate")+" can't pass")
	if add(fires-1, plural(fires, "trigger")+" fire for certain"); fires == 1 {
		add(fires, "1 trigger fires for certain")
	}
	add(n[forecast.Undecided], plural(n[forecast.Undecided], "gate")+" can't be decided")
	overloaded := 0
	for _, s := range f.Systems {
		if s.Overloaded {
			overloaded++
		}
	}
	if add(overloaded-1, plural(overloaded, "system")+" can't be sent the load"); overloaded == 1 {
		add(overloaded, "1 system can't be sent the load: its connections are too few")
	}
	if len(parts) == 0 {
		text := fmt.Sprintf("Fine: all %s can be decided, and can pass", plural(len(f.Gates), "gate"))
		if unknown > 0 {
			text += fmt.Sprintf("; %d only if the system brings about enough of a sample", unknown)
		}
		return text + end
	}
	return strings.Join(parts, ", ") + end
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return unit.Count(int64(n)) + " " + what + "s"
}

// count is a sample size; "" for none.
func count(n int64) string {
	if n == 0 {
		return ""
	}
	return unit.Count(n)
}

func roundTenth(seconds float64) float64 { return float64(int64(seconds*10+0.5)) / 10 }

// words splits a sentence where it may be broken: not between a number and its
// unit.
func words(text string) []string {
	var out []string
	for _, w := range strings.Fields(text) {
		last := len(out) - 1
		if last >= 0 && strings.ContainsAny(out[last][len(out[last])-1:], "0123456789") {
			switch strings.TrimRight(w, ",;:.)") {
			case "%", "s", "ms", "µs", "m", "h":
				out[last] += " " + w
				continue
			}
		}
		out = append(out, w)
	}
	return out
}

// wrap breaks a sentence into lines of at most lineWidth. The first begins with
// lead, the others with as many blanks.
func wrap(lead, text string) string {
	var b strings.Builder
	width := utf8.RuneCountInString(lead)
	b.WriteString(lead)
	at := width
	for i, w := range words(text) {
		n := utf8.RuneCountInString(w)
		switch {
		case i == 0:
		case at+1+n > lineWidth:
			b.WriteString("\n" + strings.Repeat(" ", width))
			at = width
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(w)
		at += n
	}
	b.WriteByte('\n')
	return b.String()
}
