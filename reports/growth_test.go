package reports_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"phasegate/reports"
	"phasegate/reports/internal/resulttest"
	"phasegate/reports/result"
)

// Growth that was seen is told in every report; growth that can't be told from
// none has a table, and no line.
func TestGrowthIsTold(t *testing.T) {
	t.Parallel()
	show := func(r *result.Result) (page, summary, text string) {
		var b [3]bytes.Buffer
		for i, err := range []error{reports.HTML(&b[0], r), reports.Summary(&b[1], r, "out"), reports.Text(&b[2], r, false)} {
			if err != nil {
				t.Fatalf("report %d: %v", i, err)
			}
		}
		return b[0].String(), b[1].String(), b[2].String()
	}
	contains := func(why, text string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks %q", why, part)
			}
		}
	}
	r := resulttest.New("pass")
	r.Systems["new"] = resulttest.New("long").Systems["new"]
	const line = "esident memory of new grew by 4.1 MB/h [3.1 MB/h, 5.1 MB/h] over 3 h 50 m; by requests, 9.5 MB per million, which at this phase's own rate of 120.0/s would be 4.1 MB/h (extrapolated)"
	page, summary, text := show(r)
	contains("the summary", strings.ReplaceAll(summary, `\`, ""), "R"+line+".")
	contains("the text", text, "MEMORY  r"+line)
	contains("the page", page, "How the memory of new grew", "through the 200 troughs of 3 h 50 m", "Growth below 1.6 MB/h can", "Live heap", "38.0 MB", "3.9 MB/h", "cache", "The rest", "Extrapolated", "own metrics")

	g := r.Systems["new"].Growth
	g.Low, g.Parts, g.PerMillion, g.Extrapolated = resulttest.P(-1e6), nil, nil, nil
	page, summary, text = show(r)
	contains("the page", page, "How the memory of new grew", "-1.0 MB/h")
	for name, text := range map[string]string{"summary": summary, "text": text} {
		if strings.Contains(text, "memory of new grew") {
			t.Errorf("the %s tells growth that may be none", name)
		}
	}
	if strings.Contains(page, "Live heap") {
		t.Error("the page has parts that nobody claimed")
	}
}

// A fault in the fit must not cost the record.
func TestGrowthWithoutNumbers(t *testing.T) {
	t.Parallel()
	r := resulttest.New("long")
	g := r.Systems["new"].Growth
	g.Detectable, g.PerMillion.High, g.Parts.Rest.Value = resulttest.P(math.Inf(1)), resulttest.P(math.NaN()), resulttest.P(math.NaN())
	r.Timeline = nil
	var b bytes.Buffer
	if err := result.Encode(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"growth.detectable", "growth.per_million_requests.high", "growth.parts.rest.value"} {
		if !strings.Contains(b.String(), name) {
			t.Errorf("no notice of %s", name)
		}
	}
	if !math.IsNaN(*g.PerMillion.High) {
		t.Error("encoding changed the result")
	}
}
