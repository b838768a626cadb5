package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"phasegate/reports/internal/atomicfile"
)

// ComparisonFile is the name of the comparison's file within its output folder.
const ComparisonFile = "compare.json"

const comparisonKind = "comparison"

// IsComparison reports whether the file at path says that it holds a
// comparison. A file that can't be read is left for its reader to report.
func IsComparison(path string) bool {
	data, err := os.ReadFile(path)
	var head struct {
		Kind string `json:"kind"`
	}
	return err == nil && json.Unmarshal(data, &head) == nil && head.Kind == comparisonKind
}

// ReadComparison reads and checks the comparison at path.
func ReadComparison(path string) (*Comparison, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read comparison: %w", err)
	}
	c := new(Comparison)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("read comparison %s: %w", path, explain(data, err))
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("read comparison %s: %w", path, err)
	}
	return c, nil
}

// WriteComparison checks c and writes it to path, whole or not at all.
func WriteComparison(path string, c *Comparison) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("write comparison: %w", err)
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		out := *c
		out.Kind = comparisonKind
		out.Notices, out.Fairness, out.Systems = present(c.Notices), present(c.Fairness), present(c.Systems)
		out.Metrics, out.Gates = present(c.Metrics), present(c.Gates)
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", " ")
		return encoder.Encode(&out)
	})
}

// Validate reports, joined, what keeps c from being a comparison of this schema.
func (c *Comparison) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Schema != Schema {
		fail("schema is %d, this version reads and writes schema %d only", c.Schema, Schema)
	}
	verdict := func(where string, v Verdict) {
		switch v {
		case Pass, Fail, Inconclusive, EnvError:
		default:
			fail("%s: verdict is %q; allowed are %q, %q, %q and %q", where, v, Pass, Fail, Inconclusive, EnvError)
		}
	}
	bounds := func(where string, b *Bounds) {
		for _, p := range []*float64{b.Value, b.Low, b.High} {
			if p != nil && (math.IsNaN(*p) || math.IsInf(*p, 0)) {
				fail("%s: not a finite number", where)
			}
		}
	}
	verdict("comparison", c.Verdict)
	for _, s := range c.Systems {
		if !systemName.MatchString(s.Name) {
			fail("systems: name %q; allowed are 1 to 63 letters, digits, dots, dashes and underscores, the first a letter or digit", s.Name)
		}
		verdict("systems."+s.Name, s.Verdict)
		for _, r := range s.Runs {
			verdict(fmt.Sprintf("systems.%s round %d", s.Name, r.Round), r.Verdict)
			if _, err := DecodeHistogram(r.Histogram); err != nil {
				fail("systems.%s round %d: %w", s.Name, r.Round, err)
			}
		}
	}
	for _, m := range c.Metrics {
		if len(m.Values) != len(c.Systems) {
			fail("metrics: %s has %d values for %d systems", m.Metric, len(m.Values), len(c.Systems))
		}
		for i := range m.Values {
			bounds(m.Metric, &m.Values[i].Bounds)
			if r := m.Values[i].Relative; r != nil {
				bounds(m.Metric+" relative", r)
			}
		}
	}
	for _, g := range c.Gates {
		if len(g.Cells) != len(c.Systems) {
			fail("gates: %s has %d cells for %d systems", g.Gate, len(g.Cells), len(c.Systems))
		}
		for _, cell := range g.Cells {
			verdict(g.Gate+" on "+cell.System, cell.Verdict)
		}
	}
	for _, f := range c.Fairness {
		if f.State != Held && f.State != Violated && f.State != Unknown {
			fail("fairness: %s is %q; allowed are %q, %q and %q", f.Check, f.State, Held, Violated, Unknown)
		}
	}
	if c.Regression != nil {
		for i := range c.Regression.Metrics {
			bounds("regression", &c.Regression.Metrics[i].Bounds)
		}
	}
	return errors.Join(errs...)
}
