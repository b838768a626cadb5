package result_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/go-cmp/cmp"

	"phasegate/reports/internal/resulttest"
	"phasegate/reports/result"
)

func TestWriteAndReadAgain(t *testing.T) {
	t.Parallel()
	for _, variant := range []string{"fail", "error", "no-ledger", "hostile", "empty"} {
		path := filepath.Join(t.TempDir(), result.FileName)
		want := resulttest.New(variant)
		if err := result.Write(path, want); err != nil {
			t.Fatalf("%s: %v", variant, err)
		}
		got, err := result.Read(path)
		if err != nil {
			t.Fatalf("%s: %v", variant, err)
		}
		var before, after bytes.Buffer
		if err := result.Encode(&before, want); err != nil {
			t.Fatal(err)
		}
		if err := result.Encode(&after, got); err != nil {
			t.Fatal(err)
		}
		if before.String() != after.String() {
			t.Errorf("%s: changed by a round trip: %s", variant, cmp.Diff(before.String(), after.String()))
		}
	}
}

// Scripts index these without asking; and the timeline is one line per interval.
func TestEncodeShape(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := result.Encode(&b, resulttest.New("empty")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"gates": []`, `"triggers": []`, `"systems": {}`, `"timeline": []`, `"marks": []`, `"notices": []`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("an empty result lacks %s:\n%s", want, b.String())
		}
	}
	b.Reset()
	r := resulttest.New("pass")
	r.Title = "\n  \"timeline\": [ in a string"
	if err := result.Encode(&b, r); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b.Bytes()) {
		t.Error("not valid JSON")
	}
	rows := 0
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, `    {"t":`) {
			rows++
		}
	}
	if rows != len(r.Timeline) {
		t.Errorf("%d lines of intervals, want %d", rows, len(r.Timeline))
	}
}

func TestReadExplains(t *testing.T) {
	t.Parallel()
	const valid = `{"schema": 1, "verdict": "pass"}`
	for _, c := range []struct {
		why, content, want string
	}{
		{"an empty file has no position worth naming but must not panic", "", "unexpected end of JSON input"},
		{"broken off by a full disk", `{"schema": 1,` + "\n" + `"gates": [`, "line 2, column 10"},
		{"a log file given by mistake", "127.0.0.1 - - [x]", "line 1, column"},
		{"some other JSON", `{"name": "x"}`, `no "schema"`},
		{"from the future", `{"schema": 2, "verdict": 7}`, "newer than 1"},
		{"impossible", `{"schema": 0, "verdict": "pass"}`, "schema is 0"},
		{"a field of the wrong type", `{"schema": 1,` + "\n" + `  "seed": "one", "verdict": "pass"}`, "line 2, column"},
		{"the field is named", `{"schema": 1, "verdict": "pass", "gates": [{"gate": 3}]}`, "gate is a JSON number, want string"},
		{"a verdict that would show as an error", `{"schema": 1, "verdict": "ok"}`, `verdict is "ok"; allowed are "pass"`},
		{"a gate's verdict", `{"schema": 1, "verdict": "pass", "gates": [{"gate": "cpu < 1%", "verdict": "error"}]}`, "gates[0] (cpu < 1%)"},
		{"a trigger's state", `{"schema": 1, "verdict": "pass", "triggers": [{"condition": "cpu > 1%", "state": "on"}]}`, "triggers[0] (cpu > 1%)"},
		{"a system's name becomes a file name", `{"schema": 1, "verdict": "pass", "systems": {"../../etc/x": {}}}`, `"../../etc/x"`},
		{"fields of later versions are no fault", strings.Replace(valid, "{", `{"later": 1, `, 1), ""},
	} {
		path := filepath.Join(t.TempDir(), "r.json")
		if err := os.WriteFile(path, []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := result.Read(path)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.why, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path)):
			t.Errorf("%s: error %v, want it to contain %q and the path", c.why, err, c.want)
		}
	}
	if _, err := result.Read(filepath.Join(t.TempDir(), "none.json")); err == nil || !strings.Contains(err.Error(), "none.json") {
		t.Errorf("missing file: %v", err)
	}
}

func TestValidateJoinsAllFaults(t *testing.T) {
	t.Parallel()
	r := &result.Result{Verdict: "maybe", Gates: []result.Gate{{Verdict: ""}}, Systems: map[string]result.System{"a b": {}}}
	err := r.Validate()
	for _, want := range []string{"schema is 0", `"maybe"`, "gates[0]", `"a b"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	path := filepath.Join(t.TempDir(), "r.json")
	if err := result.Write(path, r); err == nil {
		t.Error("an invalid result was written")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("an invalid result left a file")
	}
}

// 0/0 in one estimator must not cost the record of a day.
func TestEncodeReplacesWhatIsNotFinite(t *testing.T) {
	t.Parallel()
	r := resulttest.New("pass")
	nan := math.NaN()
	r.Gates[0].Value = &nan
	r.Systems["new"].Metrics["latency_improvement"] = resulttest.P(math.Inf(1))
	for i := range 9 {
		r.Timeline[i].P99 = &nan
	}
	var b bytes.Buffer
	if err := result.Encode(&b, r); err != nil {
		t.Fatal(err)
	}
	got, err := result.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	v, there := got.Systems["new"].Metrics["latency_improvement"]
	if got.Gates[0].Value != nil || v != nil || !there || got.Timeline[0].P99 != nil {
		t.Error("a figure that isn't finite is not null")
	}
	notice := got.Notices[len(got.Notices)-1]
	for _, want := range []string{"gates[0].value", "systems.new.metrics.latency_improvement", "timeline[0].p99", "and 6 more"} {
		if !strings.Contains(notice, want) {
			t.Errorf("notice %q lacks %q", notice, want)
		}
	}
	if !math.IsNaN(*r.Gates[0].Value) || len(r.Notices) != 1 {
		t.Error("the caller's result was changed")
	}
	r.Duration = nan // not a figure that may be missing
	if err := result.Encode(&b, r); err == nil {
		t.Error("a duration that isn't a number was written")
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	h := hdrhistogram.New(1, 60_000_000, 3)
	if s, err := result.EncodeHistogram(h); s != "" || err != nil {
		t.Errorf("an empty histogram gives %q, %v", s, err)
	}
	for _, v := range []int64{0, 1, 250, 464_000, 59_999_999} {
		if err := h.RecordValues(v, 7); err != nil {
			t.Fatal(err)
		}
	}
	s, err := result.EncodeHistogram(h)
	if err != nil {
		t.Fatal(err)
	}
	got, err := result.DecodeHistogram(s)
	if err != nil || !got.Equals(h) {
		t.Errorf("round trip: %v, %v", got, err)
	}
	if got, err := result.DecodeHistogram(""); got != nil || err != nil {
		t.Errorf("no sample: %v, %v", got, err)
	}
	if _, err := result.DecodeHistogram("not base64!"); err == nil || !strings.Contains(err.Error(), "decode histogram") {
		t.Errorf("garbage: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range []string{"empty", "error", "hostile"} {
		var b bytes.Buffer
		if err := result.Encode(&b, resulttest.New(v)); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte(`{"schema":1,"verdict":"pass","timeline":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := result.Decode(bytes.NewReader(data))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := result.Encode(&b, r); err != nil {
			t.Fatalf("what was read can't be written: %v", err)
		}
		if _, err := result.Decode(&b); err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
	})
}

func FuzzDecodeHistogram(f *testing.F) {
	f.Add(resulttest.New("inconclusive").Systems["new"].Histogram)
	f.Add("HISTFAAAAAJ42gMAAAAAAQ==")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := result.DecodeHistogram(s); err == nil && h != nil && h.TotalCount() <= 0 {
			t.Errorf("%d values", h.TotalCount())
		}
	})
}

func ExampleRead() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, result.FileName)
	if err := result.Write(path, &result.Result{Schema: result.Schema, Scenario: "phase1", Verdict: result.Pass}); err != nil {
		panic(err)
	}
	r, err := result.Read(path)
	if err != nil {
		panic(err)
	}
	fmt.Println(r.Scenario, r.Verdict)
	// Output: phase1 pass
}
