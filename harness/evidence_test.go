package harness

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"
	"phasegate/harness/load"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"
	"phasegate/reports/result"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/go-cmp/cmp"
)

const smallRun = `name: small
upstream:
  latency: {fixed: 100ms}
  cache_control: public, max-age=600
systems:
  old: {kind: direct}
  new: {kind: optimizer}
traffic: {new: 50%, old: 50%}
load:
  rate: 200/s
  path: /items/{key}
  keys: {distribution: zipf, exponent: 1.1, count: 100}
  timeout: 2s
sequential: {direct: 3, hits: 20}
profiles:
  quick: {warmup: 2s, steady: 20s, time_scale: 60}
gates:
  - p95_latency < 40ms
  - mean_latency < 30ms
  - cache_hit_ratio > 70%
  - error_rate < 5%
  - latency_improvement > 2
  - memory <= 200MB
  - cpu < 50%
  - memory_growth_rate < 1GB/hour
triggers:
  - {when: p95_latency > 100ms, for: 3m, action: immediate}
  - {when: error_rate > 50%, for: 5m, action: immediate}
`

// simulated gives a copy of a run that simulate made once.
func simulated(t testing.TB, stall time.Duration) string {
	t.Helper()
	out := t.TempDir()
	runs.Lock()
	defer runs.Unlock()
	if runs.of[stall] == nil {
		runs.of[stall] = map[string][]byte{}
		dir := simulate(t, stall)
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, _ := filepath.Rel(dir, path)
			runs.of[stall][name], err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range runs.of[stall] {
		path := filepath.Join(out, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

var runs = struct {
	sync.Mutex
	of map[time.Duration]map[string][]byte // name → content
}{of: map[time.Duration]map[string][]byte{}}

// simulate is a run of small without systems: what they would have done is
// drawn. From stall on, for six seconds, the new one takes half a second. It
// returns the run's folder, with the result written and sealed.
func simulate(t testing.TB, stall time.Duration) (out string) {
	t.Helper()
	out = t.TempDir()
	plan, err := scenario.Compile([]byte(smallRun), "small.yaml", scenario.Options{Set: []string{"sequential.hits=30"}})
	if err != nil {
		t.Fatal(err)
	}
	h := head{Format: format, File: plan.Origin.File, Options: plan.Origin.Options, Started: time.Unix(1_700_000_000, 5).UTC(),
		Environment: result.Environment{Go: "go1", Commit: "abc"}}
	r := &run{record: newRecord(plan, h), opts: Options{Out: out}}
	if r.evidence, err = newEvidence(out, plan.Origin.Text, h); err != nil {
		t.Fatal(err)
	}
	r.notice("a notice, %d %%", 5)
	r.note(entry{Begun: &begun{Warmup: plan.Warmup, Steady: plan.Steady, Looks: 1, Ledger: true, Source: "zipf", Systems: []begunSystem{
		{Name: "old", Kind: "direct", URL: "http://127.0.0.1:1", Rate: 100},
		{Name: "new", Kind: "optimizer", URL: "http://127.0.0.1:2", Sampled: true, Rate: 100},
	}}})
	if r.recorder, err = timeline.New(r.timeline()); err != nil {
		t.Fatal(err)
	}
	r.series = r.recorder.Series()
	started := time.Unix(1_700_000_010, 123_456_789)
	r.note(entry{Started: &started})
	for arm := range 2 {
		r.recorder.Ledger(arm, time.Millisecond, timeline.LedgerCounts{})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	lags := timeline.NewHistogram()
	reads := [2]int64{}
	waiting := []timeline.Outcome{} // of the new system
	for second := range 22 {
		now := time.Duration(second) * time.Second
		later := waiting
		waiting = nil
		for _, o := range later {
			r.recorder.Record(1, o)
		}
		for i := range 200 {
			due, arm := now+time.Duration(i)*5*time.Millisecond, i%2
			o := timeline.Outcome{Due: due, Latency: time.Duration(rng.ExpFloat64() * float64(time.Millisecond)), Cacheable: true, Proven: true, Claim: timeline.ClaimHit}
			if arm == 0 || i%50 == 1 {
				o.Latency += 100 * time.Millisecond
				o.Blocking, o.Claim = true, timeline.ClaimMiss
				reads[arm]++
			}
			if arm == 1 && stall > 0 && due >= stall && due < stall+6*time.Second {
				o.Latency += 500 * time.Millisecond
			}
			if i == 77 {
				o.Class = timeline.ServerError
			}
			o.HTTP1, o.HTTP2, o.Reused = arm == 0, arm == 1, i > 1
			if i < 2 {
				r.recorder.Connection(arm, due)
			}
			o.Service = max(o.Latency-50*time.Microsecond, 1)
			r.recorder.Offer(arm, due)
			_ = lags.RecordValue(int64(40 + i%3))
			if arm == 1 && due+o.Latency > now+time.Second {
				waiting = append(waiting, o)
				continue
			}
			r.recorder.Record(arm, o)
		}
		at := now + time.Second
		r.recorder.Resources(1, at+3*time.Millisecond, timeline.Usage{Resident: 50e6 + int64(rng.IntN(1e6)), Peak: 52e6, CPU: rng.Float64() / 3})
		for arm := range 2 {
			n, s := uint64(reads[arm]), uint64(second+1)
			r.recorder.Ledger(arm, at+7*time.Millisecond, counts(wire.Ledger{
				Requests: n, Reads: n, Protocols: map[string]uint64{"http/1.1": n / 4, "h2": n / 2, "h2c": n / 4}, Reused: n - s,
				Connections: s, Handshakes: 4 * s, Resumed: 3 * s, HandshakeFailures: s, GoAways: s,
			}))
		}
		r.note(entry{Machine: &machineCPU{at, 2 * at, at / 1000}})
		r.flush()
		r.note(entry{Evaluate: &at})
	}
	for _, o := range waiting {
		r.recorder.Record(1, o)
	}
	r.flush()
	r.stages.looked = 1
	turns := func(n int, service time.Duration) (turns []load.Turn) {
		for range n {
			d := service + time.Duration(rng.IntN(1000))*time.Microsecond
			turns = append(turns, load.Turn{Service: d, Whole: d + time.Microsecond})
		}
		return turns
	}
	r.note(entry{Sequence: &sequence{Direct: turns(12, 100*time.Millisecond), Hits: turns(30, time.Millisecond)}})
	r.report = load.Report{
		Started: started, Elapsed: 22 * time.Second, Offered: 4400, Sent: 4400, Completed: 4400,
		Lags: lags, SteadyLags: lags, Lag: load.LagOf(lags), SteadyLag: load.LagOf(lags),
		Arms: []load.ArmReport{{Name: "old", Connections: 3, Offered: 2200, Sent: 2200}, {Name: "new", Offered: 2200, Sent: 2200, Failures: []load.Failure{{Kind: "5xx", Count: 22, Examples: []string{"new: GET /items/1: status 500"}}},
			Prewarmed: 4000, PrewarmFailed: 186, PrewarmFailures: []load.PrewarmFailure{
				{Kind: "5xx", Status: 503, Count: 170}, {Kind: "timeout", Count: 6}, {Kind: "transport", Count: 5}, {Kind: "wrong", Count: 3}, {Kind: "status", Status: 404, Count: 2},
			}}},
	}
	if err := r.evidence.lags(r.report, plan.Warmup); err != nil {
		t.Fatal(err)
	}
	r.note(entry{Ended: &ended{Report: r.report, Looked: 1, CPU: 0.25, Duration: 25.5, Lines: r.evidence.lines}})
	if err := r.evidence.close(); err != nil {
		t.Fatal(err)
	}
	r.fill()
	r.conclude()
	if err := result.Write(filepath.Join(out, result.FileName), r.res); err != nil {
		t.Fatal(err)
	}
	if err := Seal(out); err != nil {
		t.Fatal(err)
	}
	return out
}

// edit replaces the first match of a pattern in a file of a run.
func edit(t *testing.T, path, pattern, with string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := regexp.MustCompile(pattern).FindSubmatchIndex(data)
	if at == nil {
		t.Fatalf("%s: nothing matches %q", path, pattern)
	}
	edited := append([]byte{}, data[:at[0]]...)
	edited = regexp.MustCompile(pattern).Expand(edited, []byte(with), data, at)
	edited = append(edited, data[at[1]:]...)
	if err := os.WriteFile(path, edited, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyAgrees(t *testing.T) {
	t.Parallel()
	for _, stall := range []time.Duration{0, 8 * time.Second} {
		out := simulated(t, stall)
		v, err := Verify(out)
		if err != nil || len(v.Differences) > 0 || v.Files != 8 || v.Values < 500 || v.Commit != "abc" {
			t.Errorf("stall at %v: %+v, %v", stall, v, err)
		}
		res, err := result.Read(filepath.Join(out, result.FileName))
		if err != nil {
			t.Fatal(err)
		}
		// Without that the test would verify little.
		if fired := res.Triggers[0].FiredAt != nil; fired != (stall > 0) {
			t.Errorf("stall at %v: the trigger: %+v", stall, res.Triggers[0])
		}
		for _, g := range res.Gates {
			if g.Value == nil && g.Metric != "memory_growth_rate" {
				t.Errorf("%s has no value: %s", g.Gate, g.Reason)
			}
		}
	}
}

// Both legs are in the result, as the generator and the ledger counted them in
// the steady state of 20 s: what an upstream does to its connections shows.
func TestLegs(t *testing.T) {
	t.Parallel()
	res, err := result.Read(filepath.Join(simulated(t, 0), result.FileName))
	if err != nil {
		t.Fatal(err)
	}
	goAways := int64(20)
	want := map[string][2]*result.Leg{
		// Nothing stands there that would have another leg.
		"old": {{Requests: 2000, HTTP1: 2000, Reused: 1980, Connections: 20}, nil},
		"new": {
			{Requests: 2000, H2C: 2000, Reused: 1980, Connections: 20},
			{Requests: 80, HTTP1: 20, H2: 40, H2C: 20, Reused: 60, Connections: 20, FullHandshakes: 20, ResumedHandshakes: 60, FailedHandshakes: 20, GoAways: &goAways},
		},
	}
	got := map[string][2]*result.Leg{}
	for name, s := range res.Systems {
		got[name] = [2]*result.Leg{s.ClientLeg, s.UpstreamLeg}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("legs (-want +got):\n%s", d)
	}
	share := result.Count{Part: 60, All: 80, Of: "upstream requests"}
	if c := res.Systems["new"].Counts["http2_adoption"]; c != share {
		t.Errorf("http2_adoption counts %+v, want %+v", c, share)
	}
}

// Why targets weren't warm is said of the most frequent reasons, from the journal.
func TestPrewarmReasons(t *testing.T) {
	t.Parallel()
	res, err := result.Read(filepath.Join(simulated(t, 0), result.FileName))
	if err != nil {
		t.Fatal(err)
	}
	want := "186 of 4000 targets got no usable answer while prewarming: 170 with status 503, 6 timed out, 5 refused, reset or cut off, 5 for other reasons"
	if !slices.Contains(res.Notices, want) {
		t.Errorf("%q lacks %q", res.Notices, want)
	}
	if got := prewarmReasons([]load.PrewarmFailure{{Kind: "wrong", Count: 2}, {Kind: "status", Status: 404, Count: 1}}); got != "2 with a wrong answer, 1 with status 404" {
		t.Error(got)
	}
}

// Whatever was changed after the run is named, with new sums too.
func TestVerifyNamesWhatWasChanged(t *testing.T) {
	t.Parallel()
	const (
		res     = "result.json"
		journal = "evidence/journal.jsonl"
	)
	for _, tt := range []struct {
		why                 string
		file, pattern, with string
		want                string // in a difference, with new sums
	}{
		{"a verdict", res, `"verdict": "pass",\n      "reason": "`, "\"verdict\": \"fail\",\n      \"reason\": \"", ").verdict: recorded \"fail\", recomputed \"pass\""},
		{"the run's verdict", res, `"verdict": "\w+"`, `"verdict": "error"`, "verdict: recorded"},
		{"one digit of a value", res, `("value": 0\.\d*)\d`, "${1}0001", "gates[0] (p95_latency < 40ms).value: recorded"},
		{"a metric of a table", res, `("mean_latency": 0\.\d)`, "${1}1", "systems.new.metrics.mean_latency: recorded"},
		{"when a trigger fired", res, `"fired_at": \d+`, `"fired_at": 21`, "triggers[0] (p95_latency > 100ms).fired_at: recorded 21"},
		{"a row of the timeline", res, `"offered":100`, `"offered":101`, "timeline[0] (old).offered: recorded 101, recomputed 100"},
		{"the rate sent", res, `"sent_rate": \d+`, `"sent_rate": 100`, "load.sent_rate: recorded 100, recomputed 200"},
		{"the rate due", res, `"offered_rate": \d+`, `"offered_rate": 100`, "load.offered_rate: recorded 100, recomputed 200"},
		{"requests that were sent", journal, `(?s)(.*"system":"new",.*)"sent":\d+`, `${1}"sent":1`, "load.sent_rate: recorded 200, recomputed 19"},
		{"what the generator says was due", journal, `("ended".*"Name":"new","Offered":)\d+`, "${1}2300", "reports 2300 requests due (new), and its intervals have 2200"},
		{"what the generator says was sent", journal, `("ended".*"Name":"new","Offered":2200,"Sent":)\d+`, "${1}1100", "reports 1100 requests sent, and not cut off (new), and its intervals have 2200"},
		{"what the generator says has failed", journal, `("ended".*"Kind":"5xx","Count":)\d+`, "${1}2", "reports 2 requests that failed by 5xx (new), and its intervals have 22"},
		{"why prewarming failed", journal, `("ended".*"PrewarmFailures":.*"Count":)170`, "${1}1", "reports 186 targets without a usable answer while prewarming (new), and gives reasons for 17"},
		{"what the generator says is unfinished", journal, `("ended".*"Unfinished":)\d+`, "${1}5", "reports 5 requests unfinished, and its intervals have 0"},
		{"the lag", res, `("schedule_lag_p99": 0\.\d*)`, "${1}1", "load.schedule_lag_p99: recorded"},
		{"a gate that was taken out", res, `(?s)"gates": \[\s*\{.*?\},`, `"gates": [`, "gates: recorded 8 entries, recomputed 9"},
		{"a field that was put in", res, `"gates"`, `"note": "approved", "gates"`, "note: recorded \"approved\", recomputed nothing"},
		{"when the run was made", res, `"started": "2023`, `"started": "2024`, "started: recorded"},
		{"errors made good", journal, `"5xx":1,"ok":99`, `"ok":100`, "recomputed"},
		{"what took longer than a threshold", journal, `(?s)(.*)"over":\[4,4\]`, `${1}"over":[0,4]`, "gates[0] (p95_latency < 40ms)"},
		{"a trigger's evaluation left out", journal, `\{"evaluate_ns":16000000000\}\n`, "", "lines before the end"},
		{"a sample of memory", journal, `"resident":\d+`, `"resident":10`, "(new).memory: recorded"},
		{"a count of a leg", res, `("goaways": )\d+`, "${1}0", "systems.new.upstream_leg.goaways: recorded 0"},
		{"a count of a share", res, `("counts": \{\s*"availability": \{\s*"part": )\d+`, "${1}1", ".counts.availability.part: recorded 1"},
		{"a reading of the ledger", journal, `(?s)(.*"ledger":\{"system":"new",.*)"reads":\d+`, `${1}"reads":1`, "cache_hit_ratio"},
		{"stolen CPU time", journal, `"stolen_ns":22000000`, `"stolen_ns":9`, "load.stolen"},
		{"a turn of the sequential stage", journal, `"Service":\d+`, `"Service":1000`, "hit_latency_improvement"},
		{"a threshold", "evidence/scenario.yaml", `200MB`, `20MB`, "scenario.yaml isn't what was compiled"},
		{"a threshold, with a sum to suit", "evidence/scenario.yaml", `200MB`, `20MB`, "gates[5] (memory <= 20MB)"},
		{"a word of the scenario", "evidence/scenario.yaml", `\A`, "# approved\n", "scenario.yaml isn't what was compiled"},
		{"another histogram in a line's place", "evidence/latency-old.hlog", `(?m)^(0\.0.*\n)(1\.0.*\n)`, "$2$1", "starts at"},
		{"a line of a histogram left out", "evidence/service-new.hlog", `(?m)^(3\.0.*\n)`, "", "service time: "},
		{"a histogram cut off", "evidence/latency-new.hlog", `(?s)(.*)HIST.*`, "${1}HISTFAAA", "latency: "},
		{"a line that isn't JSON", journal, `"latencies":`, `"latencies"`, "journal.jsonl, line"},
		{"a field that nobody knows", journal, `"latencies":`, `"latenzies":`, "unknown field"},
		{"a second verdict before the true one", res, `^\{`, `{"verdict": "pass",`, "a key is repeated"},
		{"the end left out", journal, `\{"ended".*\n`, "", "ends before the run did"},
		{"lines after the end", journal, `(\{"ended".*\n)`, "${1}{\"notice\":\"x\"}\n", "ended already"},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			out := simulated(t, 8*time.Second)
			edit(t, filepath.Join(out, tt.file), tt.pattern, tt.with)
			if tt.why == "a threshold, with a sum to suit" {
				sum, err := sumOf(filepath.Join(out, tt.file))
				if err != nil {
					t.Fatal(err)
				}
				edit(t, filepath.Join(out, journal), `("scenario_sha256":")\w+`, "${1}"+sum)
			}
			var v Verification
			err := v.checkSums(filepath.Join(out, EvidenceFolder))
			if !slices.ContainsFunc(v.Differences, func(d string) bool { return strings.HasPrefix(d, tt.file+" was changed after the run") }) {
				t.Errorf("the file isn't named: %q, %v", v.Differences, err)
			}
			if err := Seal(out); err != nil {
				t.Fatal(err)
			}
			v, err = Verify(out)
			text := strings.Join(v.Differences, "\n")
			if err != nil || !strings.Contains(text, tt.want) {
				t.Errorf("with new sums: %q, %v; want %q", v.Differences, err, tt.want)
			}
		})
	}
}

func TestVerifyNamesLostAndAddedFiles(t *testing.T) {
	t.Parallel()
	out := simulated(t, 0)
	dir := filepath.Join(out, EvidenceFolder)
	if err := errors.Join(os.Remove(filepath.Join(dir, "lag.hlog")), os.Remove(filepath.Join(dir, "journal.jsonl")), os.WriteFile(filepath.Join(dir, "more.hlog"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	v, err := Verify(out)
	text := strings.Join(v.Differences, "\n")
	if err == nil || !strings.Contains(text, "lag.hlog is gone") || !strings.Contains(text, "journal.jsonl is gone") || !strings.Contains(text, "more.hlog isn't in") {
		t.Errorf("%q, %v", v.Differences, err)
	}
}

func TestVerifyNeedsARun(t *testing.T) {
	t.Parallel()
	for _, missing := range []string{"", "result.json", "evidence/SHA256SUMS"} {
		out := t.TempDir()
		if missing != "" {
			out = simulated(t, 0)
			if err := os.Remove(filepath.Join(out, missing)); err != nil {
				t.Fatal(err)
			}
		}
		var noRun *NoRunError
		if _, err := Verify(out); !errors.As(err, &noRun) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without %q: %v", missing, err)
		}
	}
}

func TestVerifyOfAFile(t *testing.T) {
	t.Parallel()
	var noRun *NoRunError
	_, err := Verify(filepath.Join(simulated(t, 0), result.FileName))
	if !errors.As(err, &noRun) || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file: %v", err)
	}
}

// What lies beside the evidence isn't the run's, whatever it is called.
func TestVerifyNamesWhatWasAdded(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"approval.txt", "latency-new-drill9.hlog", ".hidden", "more/journal.jsonl"} {
		out := simulated(t, 0)
		path := filepath.Join(out, EvidenceFolder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(name, "/")
		want := []string{"evidence/" + first + " isn't in SHA256SUMS: the run didn't write it"}
		if v, err := Verify(out); err != nil || !slices.Equal(v.Differences, want) {
			t.Errorf("%s: %q, %v, want %q", name, v.Differences, err, want)
		}
	}
}

// A harness that was killed leaves evidence up to then: at whatever byte it was
// cut off, all whole lines are read.
func TestEvidenceOfAKilledRun(t *testing.T) {
	t.Parallel()
	out := simulated(t, 0)
	path := filepath.Join(out, EvidenceFolder, journalFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	middle := bytes.Index(whole, []byte(`"evaluate_ns":9000000000`)) - 1
	for _, cut := range []int{0, 100, middle, middle + 10} {
		if err := os.WriteFile(path, whole[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		r, _, complete, err := readEvidence(out)
		if err != nil || complete {
			t.Fatalf("cut off at %d: complete %t, %v", cut, complete, err)
		}
		if cut < middle {
			continue
		}
		w := r.series.Window(1, 0, 9*time.Second)
		if w.Offered != 900 || w.Requests < 890 || w.Latency.TotalCount() != w.Requests || len(w.Resources) != 8 || !w.HaveLedger {
			t.Errorf("cut off at %d: %d offered, %d finished, %d samples", cut, w.Offered, w.Requests, len(w.Resources))
		}
	}
}

// The library's own reader, which knows nothing of us, finds what we counted.
func TestHistogramLogsAreReadableByOthers(t *testing.T) {
	t.Parallel()
	out := simulated(t, 0)
	f, err := os.Open(filepath.Join(out, EvidenceFolder, "latency-new.hlog"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum, log := hdrhistogram.New(1, time.Minute.Microseconds(), 3), hdrhistogram.NewHistogramLogReader(f)
	var last int64
	for {
		h, err := log.NextIntervalHistogram()
		if err != nil {
			t.Fatal(err)
		}
		if h == nil {
			break
		}
		if h.EndTimeMs()-h.StartTimeMs() != 1000 || h.StartTimeMs() < 1_700_000_010_000 {
			t.Errorf("an interval from %d to %d", h.StartTimeMs(), h.EndTimeMs())
		}
		last = max(last, h.EndTimeMs())
		sum.Merge(h)
	}
	if sum.TotalCount() != 2200 || last != 1_700_000_032_000 {
		t.Errorf("%d values until %d", sum.TotalCount(), last)
	}
}

// SHA256SUMS is what sha256sum -c reads: the sum in hexadecimal digits, two
// spaces, the name from that folder.
func TestManifestIsSha256sum(t *testing.T) {
	t.Parallel()
	out := simulated(t, 0)
	dir := filepath.Join(out, EvidenceFolder)
	sums, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../result.json", journalFile, scenarioFile, "lag.hlog", "latency-old.hlog", "service-new.hlog"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256(data), name); !strings.Contains(string(sums), line) {
			t.Errorf("no line %q in\n%s", line, sums)
		}
	}
}

// Readings of the machine's CPU time don't pile up, and what the gates ask for
// stays.
func TestMachineReadingsAreThinned(t *testing.T) {
	t.Parallel()
	plan, err := scenario.Compile([]byte(smallRun), "small.yaml", scenario.Options{Set: []string{"profiles.quick={warmup: 10m, steady: 24h, extensions: 1}"}})
	if err != nil {
		t.Fatal(err)
	}
	plain, r := newRecord(plan, head{}), newRecord(plan, head{})
	b := begun{Warmup: plan.Warmup, Steady: plan.Steady, Looks: 2, Systems: []begunSystem{{Name: "old", Rate: 1}, {Name: "new", Rate: 1}}}
	if err := r.begin(&b); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var total, stolen time.Duration
	for second := range 25 * 3600 {
		total += 2 * time.Second
		stolen += time.Duration(rng.IntN(1e8))
		m := machineCPU{time.Duration(second)*time.Second + 2*time.Millisecond, total, stolen}
		plain.readMachine(m)
		r.readMachine(m)
	}
	if len(r.cpu) > 2048 || len(plain.cpu) != 25*3600 {
		t.Errorf("%d readings of %d are kept", len(r.cpu), len(plain.cpu))
	}
	const now = 25 * time.Hour
	for _, at := range [][2]time.Duration{{plan.Warmup, plan.Warmup + plan.Steady}, {plan.Warmup, now}, {now - time.Minute, now}} {
		if got, want := r.cpu.stolen(at[0], at[1]), plain.cpu.stolen(at[0], at[1]); got != want {
			t.Errorf("stolen from %v to %v: %v, want %v", at[0], at[1], got, want)
		}
	}
}

// Every entry reads back as what it was.
func TestEntriesReadBack(t *testing.T) {
	t.Parallel()
	out := simulated(t, 8*time.Second)
	one, _, _, err := readEvidence(out)
	if err != nil {
		t.Fatal(err)
	}
	two, _, _, err := readEvidence(out)
	if err != nil {
		t.Fatal(err)
	}
	for arm := range 2 {
		a, b := one.series.Window(arm, 2*time.Second, 22*time.Second), two.series.Window(arm, 2*time.Second, 22*time.Second)
		if d := cmp.Diff(a.Intervals, b.Intervals); d != "" || !a.Latency.Equals(b.Latency) {
			t.Errorf("arm %d:\n%s", arm, d)
		}
	}
}

// Whatever the files hold, reading them ends with a record or an error, and a
// result can be made of that record.
func FuzzReadJournal(f *testing.F) {
	out := simulated(f, 8*time.Second)
	dir := filepath.Join(out, EvidenceFolder)
	journal, err := os.ReadFile(filepath.Join(dir, journalFile))
	if err != nil {
		f.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "latency-new.hlog"))
	if err != nil {
		f.Fatal(err)
	}
	lines := bytes.SplitAfter(journal, []byte("\n"))
	f.Add(bytes.Join(lines[:min(len(lines), 20)], nil), log[:2000])
	f.Add(append(bytes.Join(lines[:4], nil), lines[len(lines)-2]...), log[:500])
	f.Add([]byte(`{"run":{"format":2,"file":"a.yaml","options":{"profile":""}}}`+"\n"), []byte("0.0,1.0,1.0,HIST\n"))
	f.Fuzz(func(t *testing.T, journal, log []byte) {
		r, _, _, _ := readJournal(bytes.NewReader(journal), []byte(smallRun), func(string) (io.Reader, error) { return bytes.NewReader(log), nil })
		if r == nil {
			return
		}
		r.fill()
		r.conclude()
		_ = result.Encode(io.Discard, r.res)
	})
}
