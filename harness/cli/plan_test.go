package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// call runs the program in this process.
func call(args ...string) (code int, out, err string) {
	var stdout, stderr bytes.Buffer
	code = Main(args, Streams{In: strings.NewReader(""), Out: &stdout, Err: &stderr})
	return code, stdout.String(), stderr.String()
}

// What people see of the hardest phase.
func TestPlanGolden(t *testing.T) {
	t.Parallel()
	code, out, err := call("plan", "phase4")
	if code != exitInconclusive || err != "" {
		t.Fatalf("exit code %d, %s", code, err)
	}
	golden := filepath.Join("testdata", "phase4.plan.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, readErr := os.ReadFile(golden)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if diff := cmp.Diff(string(want), out); diff != "" {
		t.Errorf("-want +got (go test -update writes it anew):\n%s", diff)
	}
}

const planned = `
name: planned
upstream: {latency: 400ms}
systems: {new: {kind: optimizer}}
load: {rate: 100/s, keys: {distribution: uniform, count: 50}}
prewarm: {top: 50}
profiles: {quick: {steady: 20s}}
gates: [error_rate < 5%]
triggers: [{when: error_rate > 5%, for: 5s}]
`

func TestPlanExitCodes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "planned.yaml")
	if err := os.WriteFile(file, []byte(planned), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		why       string
		args      []string
		code      int
		out, err_ string
	}{
		{"a phase that measures everything", []string{"phase1"}, exitPass, "Fine: all 8 gates can be decided, and can pass.", ""},
		{"gates that this version can't measure", []string{"phase3"}, exitInconclusive, "4 gates can't be decided.", ""},
		{"no cache at all", []string{file, "--system", "direct", "--set", "gates=[p95_latency < 10ms, cache_hit_ratio > 70%, memory < 1GB]", "--set", "triggers=[{when: p95_latency > 50ms, for: 5s}, {when: cache_hit_ratio < 50%}]"}, exitFail, "2 gates can't pass, 2 triggers fire for certain, 1 gate can't be decided.", ""},
		{"gates whose sample nobody knows beforehand", []string{"phase2"}, exitPass, "can pass; 1 only if the system brings about enough of a sample.", ""},
		{"triggers that have no data", []string{"phase2", "--set", "load.keys.count=100", "--set", "prewarm.top=100", "--set", "load.writes.share=0.3%"}, exitPass,
			"http2_adoption < 80% for 5 s: will rarely be watched: about 4", ""},
		{"and how many there are", []string{file, "--set", "triggers=[{when: http2_adoption < 80%}]"}, exitPass, "Fine: all 2 gates can be decided, and can pass; 1 trigger can't be watched.", ""},
		{"a file", []string{file}, exitPass, "Fine: all 2 gates", ""},
		{"a gate that needs more", []string{file, "--set", "gates.0=availability > 99.99%"}, exitInconclusive, "2,000 requests are too few: 29,956 without a bad one are needed (5 m at 100/s)", ""},
		{"a gate that nothing passes outweighs it", []string{file, "--set", "gates=[availability > 99.99%, throughput > 200/s]"}, exitFail, "1 gate can't pass, 1 gate can't be decided.", ""},
		{"a fault that nobody knows", []string{file, "--set", "drills=[{fault: {kind: disk_full, for: 30s}, expect: [no trigger]}]"}, exitUsage, "", "drills.0.fault.kind: disk_full is none of the choices"},
		{"a trigger that is sure to fire, though no gate asks", []string{file, "--set", "systems.new={kind: direct}", "--set", "triggers=[{when: p95_latency > 10ms}]"}, exitFail, "1 trigger fires for certain.", ""},
		{"another profile", []string{"phase4", "--profile", "nightly"}, exitUsage, "", "no profile nightly"},
		{"an unknown scenario", []string{"phase9"}, exitUsage, "", "no scenario phase9"},
		{"a log that isn't there", []string{file, "--set", "load.keys={access_log: none.log}"}, exitUsage, "", "none.log"},
		{"a Cache-Control that caches read differently", []string{file, "--set", "upstream.cache_control=max-age=1m"}, exitUsage, "", "whole seconds expected"},
		{"a flag that isn't one", []string{file, "--fast"}, exitUsage, "", "unknown flag --fast"},
	} {
		code, out, err := call(append([]string{"plan"}, tt.args...)...)
		if code != tt.code || !strings.Contains(strings.Join(strings.Fields(out), " "), tt.out) || !strings.Contains(err, tt.err_) {
			t.Errorf("%s: exit code %d, want %d with %q, %q\n%s\n%s", tt.why, code, tt.code, tt.out, tt.err_, out, err)
		}
	}
}

func TestPlanJSON(t *testing.T) {
	t.Parallel()
	code, out, _ := call("plan", "phase4", "--json")
	type gate struct {
		Gate              string
		Sample, Tolerated *int64
		Clean             int64 `json:"need_clean"`
		OneBad            int64 `json:"need_one_bad"`
	}
	var f struct {
		Outlook string
		Total   float64
		Systems []struct{ Requests int64 }
		Gates   []gate
	}
	if err := json.Unmarshal([]byte(out), &f); err != nil || code != exitInconclusive {
		t.Fatalf("exit code %d, %v", code, err)
	}
	i := slices.IndexFunc(f.Gates, func(g gate) bool { return g.Gate == "availability > 99.99%" })
	g := f.Gates[i]
	if f.Outlook != "undecided" || f.Total < 80 || f.Systems[1].Requests != 32500 || *g.Sample != 32500 || g.Clean != 29956 || g.OneBad != 47437 || *g.Tolerated != 0 {
		t.Errorf("%+v", f)
	}
}

// The run command says the same before it starts anything.
func TestRunForewarns(t *testing.T) {
	t.Parallel()
	// No folder has a NUL in its name, so it ends before anything is started.
	code, _, err := call("run", "phase1", "--system", "http://127.0.0.1:1", "--out", filepath.Join(t.TempDir(), "\x00"))
	if code != exitEnvironment || !strings.Contains(err, "plan: gate memory <= 100MB can't be decided: the process behind http://127.0.0.1:1 is not ours to sample") ||
		!strings.Contains(err, "plan: gate throughput > 15/s can hardly fail: ") {
		t.Errorf("exit code %d: %s", code, err)
	}
	code, _, err = call("run", "phase1", "--set", "load.keys.access_log=none.log")
	if code != exitUsage || !strings.Contains(err, "none.log") {
		t.Errorf("exit code %d: %s", code, err)
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	text := wrap("- ", strings.Repeat("word ", 40)+"fewer than 5 % of 10 ms.")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range lines {
		if utf8.RuneCountInString(line) > lineWidth || i > 0 && !strings.HasPrefix(line, "  ") {
			t.Errorf("line %d: %q", i+1, line)
		}
	}
	if len(lines) != 3 || wrap("x ", "") != "x \n" {
		t.Errorf("%q", lines)
	}
	if got := words("5 % of 10 ms, 7 times"); !slices.Equal(got, []string{"5 %", "of", "10 ms,", "7", "times"}) {
		t.Errorf("%q", got)
	}
}
