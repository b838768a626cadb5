package harness

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"phasegate/harness/load"
	"phasegate/harness/scenario"
	"phasegate/harness/timeline"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// EvidenceFolder is the folder within a run's output folder that holds what its
// result rests on, written as the run goes:
//
//   - scenario.yaml: the source that was compiled.
//   - journal.jsonl: one JSON object a line with one field that says what the
//     line is, in the order in which it became known: "run" (how the run came
//     about), "notice", "begun" (the systems), "foreign" (one before another upstream),
//     "kills" (in a container, for want of memory), "drill" (it begins, with a
//     clock and logs of its own), "fault" (when it was there), "drill_ended", "started" (the schedule),
//     "requests" (counts of what ended of one interval since the last line of
//     the same one), "resources", "ledger", "machine" (CPU time, and what was
//     stolen), "evaluate_ns" (the triggers were), "sequence" and "ended". Times
//     that end in _ns are nanoseconds on the timeline's clock.
//   - latency-SYSTEM.hlog, service-SYSTEM.hlog, and with -drillN those of drills:
//     the histograms of the "requests" lines, in the HdrHistogram log format; microseconds.
//   - lag.hlog: how late the load generator was, of the whole schedule and of
//     what was due after the warm-up.
//   - SHA256SUMS: written last, over all these and the result file, for
//     `sha256sum -c` in this folder.
const EvidenceFolder = "evidence"

// The files of the evidence.
const (
	journalFile  = "journal.jsonl"
	scenarioFile = "scenario.yaml"
	lagFile      = "lag.hlog"
	sumsFile     = "SHA256SUMS"
)

// latencyFile and serviceFile are those of the schedule, or of a drill.
func latencyFile(system string, d *drillBegun) string {
	return "latency-" + system + drillPart(d) + ".hlog"
}
func serviceFile(system string, d *drillBegun) string {
	return "service-" + system + drillPart(d) + ".hlog"
}

func drillPart(d *drillBegun) string {
	if d == nil {
		return ""
	}
	return fmt.Sprintf("-drill%d", d.Number+1)
}

// format is the version of the evidence's files.
const format = 2

// evidence is the evidence of a run that is being written. After a failure it
// writes no more: err says why, and close returns it. A nil one takes entries and
// writes nothing: a rehearsal leaves no evidence.
type evidence struct {
	dir     string
	started time.Time
	journal *output
	logs    map[string]*systemLogs // by system, from its first part on; of a drill, its own
	drill   *drillBegun            // the latest; nil before
	lines   int                    // of the journal
	err     error
}

// systemLogs are the histogram logs of one system.
type systemLogs struct {
	files            [2]*output
	latency, service *timeline.LogWriter
}

// output is a file that is appended to.
type output struct {
	file *os.File
	*bufio.Writer
}

func create(path string) (*output, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &output{f, bufio.NewWriterSize(f, 64<<10)}, nil
}

func (o *output) close() error { return errors.Join(o.Flush(), o.file.Close()) }

// newEvidence begins the evidence of a run in its output folder, in the place
// of an earlier run's.
func newEvidence(out string, source []byte, h head) (*evidence, error) {
	e := &evidence{dir: filepath.Join(out, EvidenceFolder), logs: map[string]*systemLogs{}}
	h.Sum = fmt.Sprintf("%x", sha256.Sum256(source))
	e.err = func() error {
		if err := os.MkdirAll(e.dir, 0o755); err != nil {
			return err
		}
		for _, pattern := range []string{sumsFile, journalFile, scenarioFile, "*.hlog"} {
			old, _ := filepath.Glob(filepath.Join(e.dir, pattern)) // the patterns are sound
			for _, path := range old {
				if err := os.Remove(path); err != nil {
					return err
				}
			}
		}
		if err := os.WriteFile(filepath.Join(e.dir, scenarioFile), source, 0o644); err != nil {
			return err
		}
		var err error
		e.journal, err = create(filepath.Join(e.dir, journalFile))
		return err
	}()
	e.write(entry{Head: &h})
	e.flush()
	return e, e.wrapped()
}

func (e *evidence) wrapped() error {
	if e.err == nil {
		return nil
	}
	return fmt.Errorf("write the evidence: %w", e.err)
}

// write appends one entry.
func (e *evidence) write(line entry) {
	if e == nil || e.err != nil {
		return
	}
	if line.Started != nil {
		e.started = *line.Started
	}
	if line.Drill != nil {
		e.closeLogs()
		e.drill = line.Drill
	}
	if p := line.Requests; p != nil {
		var logs *systemLogs
		if logs, e.err = e.systemLogs(p.System); e.err != nil {
			return
		}
		if e.err = p.Log(logs.latency, logs.service); e.err != nil {
			return
		}
	}
	text, err := json.Marshal(line)
	if err != nil {
		e.err = err
		return
	}
	_, e.err = e.journal.Write(append(text, '\n'))
	e.lines++
}

func (e *evidence) systemLogs(system string) (*systemLogs, error) {
	if logs := e.logs[system]; logs != nil {
		return logs, nil
	}
	logs := &systemLogs{}
	e.logs[system] = logs
	for i, of := range []struct {
		name, what string
		to         **timeline.LogWriter
	}{
		{latencyFile(system, e.drill), "latency from the due time of the " + system + " system", &logs.latency},
		{serviceFile(system, e.drill), "service time from the send of the " + system + " system", &logs.service},
	} {
		file, err := create(filepath.Join(e.dir, of.name))
		if err != nil {
			return nil, err
		}
		logs.files[i] = file
		if *of.to, err = timeline.NewLogWriter(file, e.started, Interval, of.what); err != nil {
			return nil, err
		}
	}
	return logs, nil
}

// flush hands what was written to the system: histograms first, so that every
// line of the journal finds its own.
func (e *evidence) flush() {
	for _, logs := range e.logs {
		for _, f := range logs.files {
			if f != nil && e.err == nil {
				e.err = f.Flush()
			}
		}
	}
	if e.journal != nil && e.err == nil {
		e.err = e.journal.Flush()
	}
}

// lags writes the load generator's own lag, once the schedule has ended.
func (e *evidence) lags(report load.Report, warmup time.Duration) error {
	if e.err != nil || report.Lags == nil {
		return nil
	}
	f, err := create(filepath.Join(e.dir, lagFile))
	if err != nil {
		e.err = err
		return nil
	}
	log, err := timeline.NewLogWriter(f, report.Started, Interval, "lag of the load generator: the whole schedule, and what was due after the warm-up")
	if err == nil {
		err = errors.Join(log.Write(report.Lags, 0, report.Elapsed), log.Write(report.SteadyLags, warmup, max(report.Elapsed-warmup, 0)))
	}
	e.err = errors.Join(err, f.close())
	return nil
}

// closeLogs ends the histogram logs: what comes next goes into others.
func (e *evidence) closeLogs() {
	e.flush()
	for _, logs := range e.logs {
		for _, f := range logs.files {
			if f != nil {
				e.err = errors.Join(e.err, f.file.Close())
			}
		}
	}
	clear(e.logs)
}

// close ends the evidence and says what of it couldn't be written.
func (e *evidence) close() error {
	e.closeLogs()
	if e.journal != nil {
		e.err = errors.Join(e.err, e.journal.file.Close())
	}
	return e.wrapped()
}

// readEvidence rebuilds what a run knew from its evidence. The error is of a
// file that can't be read or is damaged; the record then is what the lines
// before it say. A run that was killed leaves a last line without its end, or
// no "ended": complete is then false.
func readEvidence(out string) (r *record, h head, complete bool, err error) {
	dir := filepath.Join(out, EvidenceFolder)
	source, err := os.ReadFile(filepath.Join(dir, scenarioFile))
	if err != nil {
		return nil, h, false, err
	}
	journal, err := os.Open(filepath.Join(dir, journalFile))
	if err != nil {
		return nil, h, false, err
	}
	defer journal.Close()
	logs := logFolder{dir: dir}
	defer logs.close()
	return readJournal(journal, source, logs.open)
}

// logFolder opens the histogram logs in a folder.
type logFolder struct {
	dir    string
	opened []io.Closer
}

func (l *logFolder) open(name string) (io.Reader, error) {
	f, err := os.Open(filepath.Join(l.dir, name))
	if err != nil {
		return nil, err
	}
	l.opened = append(l.opened, f)
	return f, nil
}

func (l *logFolder) close() {
	for _, c := range l.opened {
		c.Close()
	}
}

// maxLine bounds a line of the journal: the sequential stage's is the longest.
const maxLine = 16 << 20

// readJournal is readEvidence for what is read already.
func readJournal(journal io.Reader, source []byte, open func(name string) (io.Reader, error)) (r *record, h head, complete bool, err error) {
	j := journalReader{open: open, logs: map[string][2]*timeline.LogReader{}}
	lines := bufio.NewReaderSize(journal, 64<<10)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return j.record, j.head, j.ended, nil // a line without an end was being written
		}
		if err == nil && len(line) > maxLine {
			err = fmt.Errorf("%d bytes; allowed: %d", len(line), maxLine)
		}
		if err == nil {
			err = j.take(line, number, source)
		}
		if err != nil {
			return j.record, j.head, false, fmt.Errorf("%s, line %d: %w", journalFile, number, err)
		}
	}
}

// journalReader rebuilds a record line by line.
type journalReader struct {
	open    func(name string) (io.Reader, error)
	logs    map[string][2]*timeline.LogReader // by system: latency, service time; of a drill, its own
	drill   *drillBegun
	record  *record
	head    head
	started time.Time
	ended   bool
}

func (j *journalReader) take(line []byte, number int, source []byte) error {
	var e entry
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields() // what isn't understood can't be verified
	if err := decoder.Decode(&e); err != nil {
		return err
	}
	switch {
	case j.ended:
		return errors.New("the run had ended already")
	case e.Head != nil && j.record != nil:
		return errors.New("a second beginning")
	case e.Head != nil:
		return j.begin(*e.Head, source)
	case j.record == nil:
		return errors.New(`the journal doesn't begin with "run"`)
	case e.Started != nil:
		j.started = *e.Started
	case e.Drill != nil:
		clear(j.logs)
		j.drill = e.Drill
	case e.Requests != nil:
		if err := j.histograms(e.Requests); err != nil {
			return err
		}
	case e.Ended != nil:
		if before := number - 1; e.Ended.Lines != before {
			return fmt.Errorf("%d lines before the end; %d were written", before, e.Ended.Lines)
		}
		if err := j.lags(&e.Ended.Report); err != nil {
			return err
		}
		j.ended = true
	}
	return j.record.apply(e)
}

func (j *journalReader) begin(h head, source []byte) error {
	j.head = h
	if h.Format != format {
		return fmt.Errorf("evidence of format %d; this version reads format %d", h.Format, format)
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(source)); sum != h.Sum {
		return fmt.Errorf("%s isn't what was compiled: its SHA-256 is %.12s…, that of the run's was %.12s…", scenarioFile, sum, h.Sum)
	}
	plan, err := scenario.Compile(source, h.File, h.Options)
	if err != nil {
		return fmt.Errorf("compile %s again: %w", scenarioFile, err)
	}
	j.record = newRecord(plan, h)
	return nil
}

func (j *journalReader) histograms(p *timeline.Part) error {
	logs, ok := j.logs[p.System]
	if !ok {
		if j.record.armIndex(p.System) < 0 {
			return fmt.Errorf("no system %q in the scenario", p.System)
		}
		for i, name := range []string{latencyFile(p.System, j.drill), serviceFile(p.System, j.drill)} {
			r, err := j.open(name)
			if err != nil {
				return err
			}
			logs[i] = timeline.NewLogReader(r)
		}
		j.logs[p.System] = logs
	}
	return p.ReadLog(logs[0], logs[1], j.started)
}

// lags reads the lag of the load generator, where a schedule was begun.
func (j *journalReader) lags(report *load.Report) error {
	r, err := j.open(lagFile)
	if errors.Is(err, fs.ErrNotExist) && report.Lag.Requests == 0 && report.SteadyLag.Requests == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	log := timeline.NewLogReader(r)
	for _, of := range []struct {
		h   **hdrhistogram.Histogram
		lag *load.Lag
	}{{&report.Lags, &report.Lag}, {&report.SteadyLags, &report.SteadyLag}} {
		if *of.h, err = log.Next(); err != nil {
			return fmt.Errorf("%s: %w", lagFile, err)
		}
		*of.lag = load.LagOf(*of.h)
	}
	return nil
}
