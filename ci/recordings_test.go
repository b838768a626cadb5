package ci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// Every kind of recording runs from the command line, at every kind of pace,
// and what its requests ask for themselves is no error of the system's.
func TestRecordingsOfEveryKind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why    string
		args   []string
		source string // the beginning of what the result says
		codes  []uint16
	}{
		{"a range and a condition of a target's own", []string{"load.keys.targets=../fixtures/traffic/shop.targets.http", "load.arrivals=poisson"},
			"target list ../fixtures/traffic/shop.targets.http: 5 requests, 4 distinct targets, Poisson arrivals", []uint16{200, 206}},
		{"header fields and bodies in JSON", []string{"load.keys.targets=../fixtures/traffic/shop.targets.json"},
			"target list ../fixtures/traffic/shop.targets.json: 4 requests", []uint16{200}},
		{"a browser's session at its own pace, three times as fast", []string{"load.keys.har=../fixtures/traffic/shop.har", "load.keys.pace=log", "load.keys.speed=3"},
			"HAR file ../fixtures/traffic/shop.har: 32 requests, 12 distinct targets", []uint16{200, 404}},
		{"nginx's JSON lines in waves", []string{"load.keys.access_log=../fixtures/traffic/shop.json.log", "load.rate={sine: {mean: 50/s, amplitude: 50/s, period: 1s}}"},
			"access log ../fixtures/traffic/shop.json.log: 60 requests", nil},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			raw := filepath.Join(t.TempDir(), "results.bin")
			args := []string{"run", tiny, "--raw", raw, "--set", "gates=[wrong_responses <= 0]", "--set", "triggers=null",
				"--set", "sequential={direct: 0, hits: 0}", "--set", "load.rate=100/s", "--set", "profiles.quick.steady=2s"}
			for _, set := range tt.args {
				args = append(args, "--set", set)
			}
			p := phasegate(t, args...)
			p.run(0)
			r := p.result()
			if !strings.HasPrefix(r.Load.Source, tt.source) {
				t.Errorf("the source is %q, want %q", r.Load.Source, tt.source)
			}
			for name, s := range r.Systems {
				if len(s.Errors) > 0 {
					t.Errorf("%s: %v %q", name, s.Errors, s.Examples)
				}
			}
			codes := map[uint16]int{}
			for _, result := range rawResults(t, raw) {
				codes[result.Code]++
			}
			for _, code := range tt.codes {
				if codes[code] == 0 {
					t.Errorf("no answer with status %d: %v", code, codes)
				}
			}
		})
	}
}

// rawResults reads a file as vegeta does.
func rawResults(t *testing.T, path string) (results vegeta.Results) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	decode := vegeta.NewDecoder(f)
	for {
		var r vegeta.Result
		if err := decode(&r); errors.Is(err, io.EOF) {
			return results
		} else if err != nil {
			t.Fatalf("after %d results: %v", len(results), err)
		}
		results.Add(&r)
	}
}

// A run that is interrupted leaves whole raw results behind.
func TestInterruptedRawResults(t *testing.T) {
	t.Parallel()
	raw := filepath.Join(t.TempDir(), "results.bin")
	p := phasegate(t, "run", tiny, "--raw", raw, "--set", "profiles.quick.steady=60s")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	p.until("load", func() bool { return strings.Contains(p.stderr.String(), "steady") })
	p.Process.Signal(os.Interrupt)
	p.wait(130)
	if results := rawResults(t, raw); len(results) < 100 {
		t.Errorf("%d results", len(results))
	}
}

// A file that can't be replayed, or written, is told of before anything is
// started.
func TestRecordingsThatCantBeUsed(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("\nhello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	scenario := filepath.Join(t.TempDir(), "scenario.yaml")
	text, err := os.ReadFile(tiny)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?m)^(  keys:).*`).ReplaceAll(text, []byte("$1 {targets: missing.txt}"))
	if err := os.WriteFile(scenario, text, 0o600); err != nil {
		t.Fatal(err)
	}
	line := 1 + strings.Count(string(text[:strings.Index(string(text), "missing.txt")]), "\n")
	for _, tt := range []struct {
		begins, says string
		args         []string
	}{
		{"--set load.keys.targets=" + bad + ": ", bad + ":2:1: bad target: hello", []string{"run", tiny, "--set", "load.keys.targets=" + bad}},
		{"--set load.keys.har=" + bad + ": ", bad + ":2:1: read the HAR file: invalid character", []string{"run", tiny, "--set", "load.keys.har=" + bad}},
		{"--set load.keys.access_log=" + bad + ": ", bad + ":2:1: no [time]", []string{"run", tiny, "--set", "load.keys.access_log=" + bad}},
		{"--set load.keys.access_log=missing.log: ", "no such file", []string{"plan", tiny, "--set", "load.keys.access_log=missing.log"}},
		{fmt.Sprintf("%s:%d:19: load.keys: ", scenario, line), "missing.txt: no such file", []string{"run", scenario}},
		{fmt.Sprintf("%s:%d:19: load.keys: ", scenario, line), "missing.txt: no such file", []string{"plan", scenario}},
		{"--set systems.new=", "systems.new.command: ", []string{"run", tiny, "--set", `systems.new={kind: command, command: [./missing, "{upstream}", "{listen}"]}`}},
		{"", "--raw " + bad + "-folder", []string{"run", tiny, "--raw", filepath.Join(bad+"-folder", "r.bin")}},
	} {
		p := phasegate(t, tt.args...)
		p.run(2)
		if got := p.stderr.String(); !strings.HasPrefix(got, tt.begins) || !strings.Contains(got, tt.says) {
			t.Errorf("%v: %s, want %q and %q", tt.args, got, tt.begins, tt.says)
		}
	}
}
