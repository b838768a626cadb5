package timeline

import (
	"fmt"
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// LogWriter writes histograms of microseconds in the HdrHistogram log format,
// version 1.3, which every HdrHistogram tool reads: a line for each part, with
// its interval's start in seconds from the base time, its length, its highest
// value (in seconds: a million of the values' unit) and its compressed counts.
// Lines carry no tag, since the tools skip those with one unless told its name.
type LogWriter struct {
	log      *hdrhistogram.HistogramLogWriter
	interval time.Duration
	h        *hdrhistogram.Histogram // emptied before each use
}

// NewLogWriter returns a writer of a log whose times count from started, and
// writes the log's head. what says what the values are.
func NewLogWriter(w io.Writer, started time.Time, interval time.Duration, what string) (*LogWriter, error) {
	l := &LogWriter{log: hdrhistogram.NewHistogramLogWriter(w), interval: interval, h: NewHistogram()}
	for _, write := range []func() error{
		func() error {
			return l.log.OutputComment("[" + what + "; values in microseconds, Interval_Max in seconds]")
		},
		l.log.OutputLogFormatVersion,
		func() error { return l.log.OutputStartTime(started.UnixMilli()) },
		func() error { return l.log.OutputBaseTime(started.UnixMilli()) },
		l.log.OutputLegend,
	} {
		if err := write(); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Write appends a histogram that begins at start and lasts length.
func (l *LogWriter) Write(h *hdrhistogram.Histogram, start, length time.Duration) error {
	h.SetStartTimeMs(start.Milliseconds())
	h.SetEndTimeMs((start + length).Milliseconds())
	return l.log.OutputIntervalHistogram(h)
}

func (l *LogWriter) sample(p packed, start time.Duration) error {
	if len(p) == 0 {
		return nil
	}
	l.h.Reset()
	p.addTo(l.h)
	return l.Write(l.h, start, l.interval)
}

// Log appends the part's histograms to the logs of its system. One that is
// empty has no line.
func (p *Part) Log(latency, service *LogWriter) error {
	if err := latency.sample(p.latency, p.Start); err != nil {
		return err
	}
	return service.sample(p.service, p.Start)
}

// LogReader reads what a LogWriter wrote.
type LogReader struct {
	log *hdrhistogram.HistogramLogReader
}

// NewLogReader returns a reader of a log.
func NewLogReader(r io.Reader) *LogReader {
	return &LogReader{hdrhistogram.NewHistogramLogReader(r)}
}

// Next returns the next histogram; io.EOF after the last.
func (l *LogReader) Next() (*hdrhistogram.Histogram, error) {
	h, err := l.log.NextIntervalHistogram()
	switch {
	case err != nil:
		return nil, err
	case h == nil:
		return nil, io.EOF
	case h.LowestTrackableValue() != 1 || h.HighestTrackableValue() != Longest.Microseconds() || h.SignificantFigures() != digits:
		return nil, fmt.Errorf("a histogram from %d to %d with %d digits; allowed: from 1 to %d with %d", h.LowestTrackableValue(),
			h.HighestTrackableValue(), h.SignificantFigures(), Longest.Microseconds(), digits)
	}
	return h, nil
}

// sample reads the sample of n values of the part that begins at start.
func (l *LogReader) sample(n int64, base, start time.Duration) (packed, error) {
	if n == 0 {
		return nil, nil
	}
	h, err := l.Next()
	switch {
	case err == io.EOF:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	case h.TotalCount() != n:
		return nil, fmt.Errorf("the interval at %v has a histogram of %d values, and the journal says %d", start, h.TotalCount(), n)
	case h.StartTimeMs() != (base + start).Milliseconds():
		return nil, fmt.Errorf("a histogram that starts at %v where one of %v should be", time.Duration(h.StartTimeMs())*time.Millisecond-base, start)
	}
	return packHistogram(h), nil
}

// ReadLog fills in the part's histograms from the logs of its system; started
// is what the logs' times count from.
func (p *Part) ReadLog(latency, service *LogReader, started time.Time) (err error) {
	base := time.Duration(started.Unix()) * time.Second // as the log has it
	if p.latency, err = latency.sample(p.Latencies, base, p.Start); err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	if p.service, err = service.sample(p.Services, base, p.Start); err != nil {
		return fmt.Errorf("service time: %w", err)
	}
	return nil
}
