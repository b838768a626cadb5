package result

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"phasegate/reports/internal/atomicfile"
)

// FileName is the name of the result file within a run's output folder.
const FileName = "result.json"

// Read reads and checks the result file at path. Unknown fields are ignored,
// so that results of later versions within one [Schema] stay readable.
func Read(path string) (*Result, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	defer f.Close()
	r, err := Decode(f)
	if err != nil {
		return nil, fmt.Errorf("read result %s: %w", path, err)
	}
	return r, nil
}

// Decode reads one result from in: JSON of schema [Schema], valid by
// [Result.Validate].
func Decode(in io.Reader) (*Result, error) {
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	// The schema is looked at first: a file of another schema would otherwise be
	// reported as some field of the wrong type.
	var head struct {
		Schema *int `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, explain(data, err)
	}
	switch {
	case head.Schema == nil:
		return nil, fmt.Errorf(`not a result file: it has no "schema" (this version reads schema %d)`, Schema)
	case *head.Schema > Schema:
		return nil, fmt.Errorf("schema %d is newer than %d, the one this version reads: use the version that wrote the file", *head.Schema, Schema)
	case *head.Schema != Schema:
		return nil, fmt.Errorf("schema is %d, this version reads schema %d only", *head.Schema, Schema)
	}
	r := new(Result)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, explain(data, err)
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return r, nil
}

// Write checks r and writes it to path, whole or not at all.
func Write(path string, r *Result) error {
	return atomicfile.Write(path, func(w io.Writer) error { return Encode(w, r) })
}

// Encode checks r and writes it as indented JSON with a final newline. Lists
// that are nil are written as [], maps as {}. A figure that is NaN or infinite,
// which JSON can't hold, is written as null where null stands for "no sample",
// with a notice that names it; a fault in one estimator must not cost the
// record of a whole run. Anywhere else it is an error.
func Encode(w io.Writer, r *Result) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	out := *r
	if faults := finite(&out); len(faults) > 0 {
		list := strings.Join(faults[:min(len(faults), 5)], ", ")
		if more := len(faults) - 5; more > 0 {
			list += fmt.Sprintf(" and %d more", more)
		}
		out.Notices = append(append([]string{}, out.Notices...),
			"fault in the harness: not a finite number, shown as no sample: "+list)
	}
	out.Notices = present(out.Notices)
	out.Gates = present(out.Gates)
	out.Triggers = present(out.Triggers)
	out.Timeline = present(out.Timeline)
	out.Marks = present(out.Marks)
	if out.Systems == nil {
		out.Systems = map[string]System{}
	}
	// One line per interval: a day has 86,400 of each arm.
	timeline := out.Timeline
	out.Timeline = []Interval{}
	data, err := json.MarshalIndent(&out, "", "  ")
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	// Within strings line breaks are escaped, so this is the field itself.
	const field = "\n  \"timeline\": ["
	before, after, _ := bytes.Cut(data, []byte(field))
	b := bufio.NewWriter(w)
	b.Write(before)
	b.WriteString(field)
	for i := range timeline {
		row, err := json.Marshal(&timeline[i])
		if err != nil {
			return fmt.Errorf("encode result: timeline[%d]: %w", i, err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n    ")
		b.Write(row)
	}
	if len(timeline) > 0 {
		b.WriteString("\n  ")
	}
	b.Write(after)
	b.WriteByte('\n')
	return b.Flush()
}

func present[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// systemName keeps names of systems usable in file names and element ids.
var systemName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Validate reports, joined, what keeps r from being a result of this schema.
func (r *Result) Validate() error {
	var errs []error
	if r.Schema != Schema {
		errs = append(errs, fmt.Errorf("schema is %d, want %d", r.Schema, Schema))
	}
	switch r.Verdict {
	case Pass, Fail, Inconclusive, EnvError:
	default:
		errs = append(errs, fmt.Errorf("verdict is %q; allowed are %q, %q, %q and %q", r.Verdict, Pass, Fail, Inconclusive, EnvError))
	}
	for i, g := range r.Gates {
		switch g.Verdict {
		case Pass, Fail, Inconclusive:
		default:
			errs = append(errs, fmt.Errorf("gates[%d] (%s): verdict is %q; allowed are %q, %q and %q", i, g.Gate, g.Verdict, Pass, Fail, Inconclusive))
		}
	}
	for i, t := range r.Triggers {
		switch t.State {
		case "inactive", "pending", "firing", "unknown":
		default:
			errs = append(errs, fmt.Errorf(`triggers[%d] (%s): state is %q; allowed are "inactive", "pending", "firing" and "unknown"`, i, t.Condition, t.State))
		}
	}
	for name, s := range r.Systems {
		for _, h := range []string{s.Histogram, s.ServiceHistogram} {
			if _, err := DecodeHistogram(h); err != nil {
				errs = append(errs, fmt.Errorf("systems.%s: %w", name, err))
			}
		}
		if !systemName.MatchString(name) {
			errs = append(errs, fmt.Errorf("systems: name %q; allowed are 1 to 63 letters, digits, dots, dashes and underscores, the first a letter or digit", name))
		}
	}
	return errors.Join(errs...)
}

// explain puts the line and column of a JSON error before it.
func explain(data []byte, err error) error {
	var offset int64
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
		err = fmt.Errorf("%s is a JSON %s, want %s", kind.Field, kind.Value, kind.Type)
	default:
		return err
	}
	before := string(data[:min(max(offset, 0), int64(len(data)))])
	line := strings.Count(before, "\n") + 1
	column := len(before) - strings.LastIndex(before, "\n") - 1
	return fmt.Errorf("line %d, column %d: %w", line, max(column, 1), err)
}
