package reports_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"phasegate/reports"
	"phasegate/reports/internal/resulttest"
	"phasegate/reports/result"
)

var update = flag.Bool("update", false, "write the golden files anew")

// To look at the reports of all variants: REPORTS_OUT=DIR go test -run TestWrite$ ./reports
func TestWrite(t *testing.T) {
	t.Parallel()
	variants := []string{"incomplete", "error"} // the plots of all take long under -race
	root := os.Getenv("REPORTS_OUT")
	if root != "" {
		variants = resulttest.Variants
	} else {
		root = t.TempDir()
	}
	always := []string{
		"hit_ratio.png", "junit.xml", "latency.png", "percentiles.png", "report.html", "resources.png", "result.json",
		"summary.md", "timeline.csv", "traffic.png",
	}
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(root, "out", variant)
			r := resulttest.New(variant)
			if err := reports.Write(dir, r); err != nil {
				t.Fatal(err)
			}
			want := slices.Clone(always)
			for name, s := range r.Systems {
				if s.Histogram != "" {
					want = append(want, "latency-"+name+".hgrm")
				}
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, files(t, dir)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			// Every file can be made again from the record, byte by byte.
			record, err := result.Read(filepath.Join(dir, result.FileName))
			if err != nil {
				t.Fatal(err)
			}
			for name, write := range map[string]func(io.Writer) error{
				result.FileName:      func(w io.Writer) error { return result.Encode(w, record) },
				reports.PageFile:     func(w io.Writer) error { return reports.HTML(w, record) },
				reports.JUnitFile:    func(w io.Writer) error { return reports.JUnit(w, record) },
				reports.SummaryFile:  func(w io.Writer) error { return reports.Summary(w, record, dir) },
				reports.TimelineFile: func(w io.Writer) error { return reports.Timeline(w, record) },
			} {
				var again bytes.Buffer
				if err := write(&again); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(again.Bytes(), read(t, filepath.Join(dir, name))) {
					t.Errorf("%s differs when made from the record", name)
				}
			}
		})
	}
}

func TestWriteSaysWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for why, out := range map[string]string{"the folder is a file": file, "a folder above is a file": filepath.Join(file, "out")} {
		err := reports.Write(out, resulttest.New("pass"))
		if err == nil || !strings.Contains(err.Error(), out) || !strings.Contains(err.Error(), "choose a folder") {
			t.Errorf("%s: error %v: want the path and what to do", why, err)
		}
	}
	if got := read(t, file); string(got) != "mine" {
		t.Errorf("the file in the way became %q", got)
	}
}

// One file that can't be replaced must not cost the others; percentiles of an
// earlier run in the folder would be taken for this one's, other people's files
// are not ours.
func TestWriteIntoAUsedFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	blocked := filepath.Join(dir, reports.PageFile)
	if err := os.MkdirAll(filepath.Join(blocked, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"latency-old.hgrm", "latency-new.hgrm", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err := reports.Write(dir, resulttest.New("error"))
	if err == nil || !strings.Contains(err.Error(), blocked) {
		t.Errorf("error %v: want it to name %s", err, blocked)
	}
	got := files(t, dir)
	for _, name := range []string{result.FileName, reports.JUnitFile, "traffic.png", "notes.txt"} {
		if !slices.Contains(got, name) {
			t.Errorf("%s is missing", name)
		}
	}
	for _, name := range got {
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".hgrm") {
			t.Errorf("%s is left", name)
		}
	}
}

// A run that comes to no end must not stand beside the figures of an older one,
// and a folder may hold more than reports.
func TestClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := reports.Write(dir, resulttest.New("inconclusive")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.png"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := reports.Clear(dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"notes.png"}, files(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestWriteRefusesAnInvalidResult(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "out")
	if err := reports.Write(dir, &result.Result{}); err == nil || !strings.Contains(err.Error(), "schema is 0") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a folder was made for an invalid result")
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for _, variant := range []string{"pass", "fail", "inconclusive", "error", "incomplete", "no-ledger", "died", "http2", "hostile", "empty"} {
		r := resulttest.New(variant)
		for name, write := range map[string]func(io.Writer) error{
			"junit.xml":  func(w io.Writer) error { return reports.JUnit(w, r) },
			"summary.md": func(w io.Writer) error { return reports.Summary(w, r, "out/phase1") },
			"text.txt":   func(w io.Writer) error { return reports.Text(w, r, false) },
		} {
			golden(t, variant+"."+name, write)
		}
	}
	short := resulttest.New("died")
	short.Timeline = short.Timeline[56:66] // around the death
	golden(t, "died.timeline.csv", func(w io.Writer) error { return reports.Timeline(w, short) })
	golden(t, "inconclusive.latency-new.hgrm", func(w io.Writer) error {
		return reports.Percentiles(w, resulttest.New("inconclusive").Systems["new"])
	})
	golden(t, "fail.color.txt", func(w io.Writer) error { return reports.Text(w, resulttest.New("fail"), true) })
}

func golden(t *testing.T, name string, write func(io.Writer) error) {
	t.Helper()
	var got bytes.Buffer
	if err := write(&got); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (make it with: go test ./reports -update)", err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (-want +got; -update accepts it):\n%s", path, diff)
	}
}

// A disk that is full in the middle is an error of every writer.
func TestWritersReportErrors(t *testing.T) {
	t.Parallel()
	r := resulttest.New("fail")
	for name, write := range map[string]func(io.Writer) error{
		"HTML":        func(w io.Writer) error { return reports.HTML(w, r) },
		"JUnit":       func(w io.Writer) error { return reports.JUnit(w, r) },
		"Summary":     func(w io.Writer) error { return reports.Summary(w, r, ".") },
		"Text":        func(w io.Writer) error { return reports.Text(w, r, false) },
		"Timeline":    func(w io.Writer) error { return reports.Timeline(w, r) },
		"Percentiles": func(w io.Writer) error { return reports.Percentiles(w, r.Systems["new"]) },
	} {
		if err := write(&full{room: 300}); err == nil {
			t.Errorf("%s ignores a full disk", name)
		}
	}
	broken := result.System{Histogram: "HISTFAAAA"}
	if err := reports.Percentiles(io.Discard, broken); err == nil || !strings.Contains(err.Error(), "decode histogram") {
		t.Errorf("broken histogram: %v", err)
	}
	var b bytes.Buffer
	if err := reports.Percentiles(&b, result.System{}); err != nil || !strings.Contains(b.String(), "no samples") {
		t.Errorf("no histogram: %q, %v", b.String(), err)
	}
}

type full struct{ room int }

func (f *full) Write(p []byte) (int, error) {
	if f.room -= len(p); f.room < 0 {
		return 0, fmt.Errorf("no space left on device")
	}
	return len(p), nil
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func ExampleWrite() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	r := &result.Result{Schema: result.Schema, Scenario: "phase1", Verdict: result.Inconclusive}
	if err := reports.Write(filepath.Join(dir, "out"), r); err != nil {
		panic(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "out", reports.PageFile))
	if err != nil {
		panic(err)
	}
	fmt.Println(strings.Contains(string(page), "INCONCLUSIVE"))
	// Output: true
}

func ExampleLine() {
	value, low, high := 0.0031, 0.0029, 0.0034
	fmt.Println(reports.Line(result.Gate{
		Gate: "p95_latency < 10ms", System: "new", Op: "<", Threshold: 0.010, Unit: "s",
		Value: &value, Low: &low, High: &high, Samples: 7800, Verdict: result.Pass,
	}))
	fmt.Println(reports.Line(result.Gate{
		Gate: "cpu < 20%", System: "new", Op: "<", Threshold: 0.2, Unit: "share",
		Verdict: result.Inconclusive, Reason: "cpu was not sampled",
	}))
	// Output:
	// PASS  p95_latency < 10ms  3.1 ms  [2.9 ms, 3.4 ms]  n=7,800
	// INCONCLUSIVE  cpu < 20%  –  n=0  cpu was not sampled
}
