package compare

import (
	"path/filepath"
	"strings"
	"testing"

	"phasegate/reports/result"
)

func TestBaseline(t *testing.T) {
	t.Parallel()
	then := measured(map[string]float64{"p50_latency": 0.001, "error_rate": 0})
	then.Scenario, then.Profile, then.Seed = "compare", "quick", 1
	then.Environment = result.Environment{CPUs: 64, CPUModel: "Other", Kernel: "5.10", Go: "go1.20", Commit: "abc"}
	path := filepath.Join(t.TempDir(), "result.json")
	if err := result.Write(path, then); err != nil {
		t.Fatal(err)
	}
	b, err := ReadBaseline(path)
	if err != nil {
		t.Fatal(err)
	}
	latency := []float64{0.0019, 0.0020, 0.0021, 0.0020}
	f := &fake{answer: func(_ string, round int) (*result.Result, error) {
		res := measured(map[string]float64{"p50_latency": latency[round-1], "error_rate": 0})
		res.Environment.CPUs = 2
		return res, nil
	}}
	c := config(t, f, "a") // one system and a baseline are two
	c.Baseline = b
	out, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	differs := strings.Join(out.Baseline.Differs, "\n")
	for _, want := range []string{"CPUs: 64 then, 2 now", "CPU model: Other then", "kernel: 5.10 then", "Go: go1.20 then", "revision of the harness: abc then", "system: optimizer then, a now"} {
		if !strings.Contains(differs, want) {
			t.Errorf("what differs lacks %q:\n%s", want, differs)
		}
	}
	if strings.Contains(differs, "scenario") || strings.Contains(differs, "seed") {
		t.Errorf("what is the same is said to differ:\n%s", differs)
	}
	if !strings.Contains(out.Baseline.Caveat, "not interleaved") || !strings.Contains(out.Baseline.Caveat, "single run") {
		t.Errorf("the caveat is %q", out.Baseline.Caveat)
	}
	for _, v := range out.Baseline.Values {
		if v.Metric == "p50_latency" && (v.Difference || *v.Value < 1.9 || *v.Value > 2.1 || !(*v.Low < 2 && *v.High > 2)) {
			t.Errorf("p50 now over then is %v [%v, %v], want about 2", *v.Value, *v.Low, *v.High)
		}
		if v.Metric == "error_rate" && (!v.Difference || *v.Value != 0) {
			t.Errorf("no errors then and now are compared as %+v", v)
		}
	}
	// That comparison can be a baseline itself, of the system of that name.
	path = filepath.Join(t.TempDir(), result.ComparisonFile)
	if err := result.WriteComparison(path, out); err != nil {
		t.Fatal(err)
	}
	b, err = ReadBaseline(path)
	if err != nil {
		t.Fatal(err)
	}
	c = config(t, f, "a", "other")
	c.Baseline = b
	if out, err = Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(out.Baseline.Differs, "\n"), "other is not among the systems of then") {
		t.Errorf("differs: %v", out.Baseline.Differs)
	}
	for _, v := range out.Baseline.Values {
		if v.System != "a" || v.Metric == "p50_latency" && (*v.Value != 1 || !(*v.Low < 1 && *v.High > 1)) {
			t.Errorf("the same again is %+v", v)
		}
	}
}
