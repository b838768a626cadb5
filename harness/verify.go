package harness

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"phasegate/harness/timeline"
	"phasegate/reports/result"
)

// Seal writes the manifest of a finished run: the SHA-256 sums of the files of
// its evidence and of its result file, as `sha256sum` writes them.
func Seal(out string) error {
	dir := filepath.Join(out, EvidenceFolder)
	names, err := manifest(dir)
	if err != nil {
		return fmt.Errorf("seal the evidence: %w", err)
	}
	var sums bytes.Buffer
	for _, name := range names {
		sum, err := sumOf(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("seal the evidence: %w", err)
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, filepath.ToSlash(name))
	}
	if err := os.WriteFile(filepath.Join(dir, sumsFile), sums.Bytes(), 0o644); err != nil {
		return fmt.Errorf("seal the evidence: %w", err)
	}
	return nil
}

// manifest lists what the manifest covers, relative to the evidence's folder.
func manifest(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := []string{filepath.Join("..", result.FileName)}
	for _, e := range entries {
		if name := e.Name(); name == journalFile || name == scenarioFile || strings.HasSuffix(name, ".hlog") {
			names = append(names, name)
		}
	}
	return names, nil
}

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Verification is what [Verify] found.
type Verification struct {
	Differences []string // one sentence each; none if all agrees
	Files       int      // that the manifest covers
	Values      int      // of the result file that were recomputed
	Commit      string   // revision that the run was made by
}

// NoRunError says that a folder doesn't hold a finished run.
type NoRunError struct {
	Dir string
	Err error
}

func (e *NoRunError) Error() string {
	return fmt.Sprintf("verify %s: not a finished run: %v", e.Dir, e.Err)
}

func (e *NoRunError) Unwrap() error { return e.Err }

// facts are the fields of a result file that no evidence can yield again: they
// are held against the copy in the journal.
var facts = []string{"started", "duration", "environment"}

// Verify checks the run in a folder: the sums of its files, and every value of
// its result file against what the evidence yields by the code that made it.
// The error is a *[NoRunError] where there is no finished run, and says which
// file can't be read otherwise; the differences found before are returned with
// it.
func Verify(out string) (v Verification, err error) {
	dir := filepath.Join(out, EvidenceFolder)
	for _, path := range []string{filepath.Join(out, result.FileName), filepath.Join(dir, sumsFile)} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return v, &NoRunError{out, err}
		}
	}
	if err := v.checkSums(dir); err != nil {
		return v, fmt.Errorf("verify %s: %w", out, err)
	}
	recorded, err := os.ReadFile(filepath.Join(out, result.FileName))
	if err != nil {
		return v, fmt.Errorf("verify %s: %w", out, err)
	}
	r, h, complete, err := readEvidence(out)
	var unreadable *fs.PathError
	switch {
	case errors.As(err, &unreadable):
		return v, fmt.Errorf("verify %s: %w", out, err)
	case err != nil: // it was written whole, so it was changed since
		v.differ("%v", err)
		return v, nil
	case !complete:
		v.differ("%s ends before the run did", journalFile)
		return v, nil
	}
	v.Commit = h.Environment.Commit
	v.Differences = append(v.Differences, r.contradictions()...)
	r.fill()
	r.conclude()
	var recomputed bytes.Buffer
	if err := result.Encode(&recomputed, r.res); err != nil {
		return v, fmt.Errorf("verify %s: %w", out, err)
	}
	a, err := tree(recorded)
	if err != nil {
		v.differ("%s: %v", result.FileName, err)
		return v, nil
	}
	b, err := tree(recomputed.Bytes())
	if err != nil {
		return v, fmt.Errorf("verify %s: %w", out, err)
	}
	v.compare("", a, b)
	if len(v.Differences) == 0 && !bytes.Equal(recorded, recomputed.Bytes()) {
		v.differ("%s isn't as it was written, though its last values are: a key is repeated, or it was put into another form", result.FileName)
	}
	return v, nil
}

// contradictions says where the load generator's own sums, in the journal's last
// line, aren't those of the intervals.
func (r *record) contradictions() (found []string) {
	if r.begun == nil {
		return nil
	}
	var unfinished int64
	for i, arm := range r.report.Arms {
		if i >= len(r.plan.Systems) || arm.Name != r.plan.Systems[i].Name {
			return append(found, fmt.Sprintf("%s: the load generator reports of a system %q that isn't number %d of the scenario", journalFile, arm.Name, i+1))
		}
		total := r.series.Total(i)
		unfinished += total.Pending()
		failed := map[string]uint64{}
		for _, f := range arm.Failures {
			failed[f.Kind] += f.Count
		}
		check := func(what string, reported uint64, counted int64) {
			if int64(reported) != counted {
				found = append(found, fmt.Sprintf("%s: the load generator reports %d requests %s (%s), and its intervals have %d", journalFile, reported, what, arm.Name, counted))
			}
		}
		check("due", arm.Offered, total.Offered)
		check("sent, and not cut off", arm.Sent, total.Sent-total.CutOff)
		for class := timeline.OK + 1; class < timeline.Classes; class++ {
			check("that failed by "+class.String(), failed[class.String()], total.Class[class])
		}
		check("with a stale answer", failed["stale"], total.Stale)
		prewarmFailed := 0
		for _, f := range arm.PrewarmFailures {
			prewarmFailed += f.Count
		}
		if prewarmFailed != arm.PrewarmFailed {
			found = append(found, fmt.Sprintf("%s: the load generator reports %d targets without a usable answer while prewarming (%s), and gives reasons for %d", journalFile, arm.PrewarmFailed, arm.Name, prewarmFailed))
		}
	}
	if int64(r.report.Unfinished) != unfinished && len(r.report.Arms) > 0 {
		found = append(found, fmt.Sprintf("%s: the load generator reports %d requests unfinished, and its intervals have %d", journalFile, r.report.Unfinished, unfinished))
	}
	return found
}

func (v *Verification) differ(format string, args ...any) {
	v.Differences = append(v.Differences, fmt.Sprintf(format, args...))
}

// checkSums holds the files against the manifest.
func (v *Verification) checkSums(dir string) error {
	f, err := os.Open(filepath.Join(dir, sumsFile))
	if err != nil {
		return err
	}
	defer f.Close()
	listed := map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		sum, name, ok := strings.Cut(lines.Text(), "  ")
		name = filepath.FromSlash(name)
		if !ok || name != filepath.Join("..", result.FileName) && name != filepath.Base(name) {
			v.differ("%s: %q isn't a sum of a file of this run", sumsFile, lines.Text())
			continue
		}
		listed[name] = true
		got, err := sumOf(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			v.differ("%s is gone: %s lists it", name, sumsFile)
		case err != nil:
			return err
		case got != sum:
			v.differ("%s was changed after the run: its SHA-256 is %.12s…, %s says %.12s…", filepath.Clean(filepath.Join(EvidenceFolder, name)), got, sumsFile, sum)
		}
	}
	v.Files = len(listed)
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", sumsFile, err)
	}
	if result := filepath.Join("..", result.FileName); !listed[result] {
		v.differ("%s isn't in %s", filepath.Base(result), sumsFile)
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if name := e.Name(); name != sumsFile && !listed[name] {
			v.differ("%s isn't in %s: the run didn't write it", filepath.Join(EvidenceFolder, name), sumsFile)
		}
	}
	return err
}

// tree reads JSON with numbers as they are written.
func tree(data []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var t any
	if err := d.Decode(&t); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more follows after its end")
	}
	return t, nil
}

// compare names every place where two trees differ.
func (v *Verification) compare(at string, recorded, recomputed any) {
	switch a := recorded.(type) {
	case map[string]any:
		b, ok := recomputed.(map[string]any)
		if !ok {
			break
		}
		keys := slices.Sorted(maps.Keys(a))
		for k := range b {
			if _, ok := a[k]; !ok {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		for _, k := range keys {
			x, okA := a[k]
			y, okB := b[k]
			path := strings.TrimPrefix(at+"."+k, ".")
			switch {
			case !okA:
				v.differ("%s: recorded nothing, recomputed %s", path, brief(y))
			case !okB:
				v.differ("%s: recorded %s, recomputed nothing", path, brief(x))
			default:
				v.compare(path, x, y)
			}
		}
		return
	case []any:
		b, ok := recomputed.([]any)
		if !ok {
			break
		}
		if len(a) != len(b) {
			v.differ("%s: recorded %d entries, recomputed %d", at, len(a), len(b))
		}
		for i := range min(len(a), len(b)) {
			v.compare(fmt.Sprintf("%s[%d]%s", at, i, named(b[i])), a[i], b[i])
		}
		return
	}
	if !slices.Contains(facts, strings.SplitN(at, ".", 2)[0]) {
		v.Values++
	}
	if recorded != recomputed {
		v.differ("%s: recorded %s, recomputed %s", at, brief(recorded), brief(recomputed))
	}
}

// named tells what an entry of a list is about.
func named(entry any) string {
	fields, _ := entry.(map[string]any)
	for _, key := range []string{"gate", "condition", "system"} {
		if name, ok := fields[key].(string); ok {
			return " (" + name + ")"
		}
	}
	return ""
}

// brief is a value in a message.
func brief(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	const most = 120
	if len(text) > most {
		return strings.ToValidUTF8(string(text[:most]), "") + "…"
	}
	return string(text)
}
