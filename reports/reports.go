package reports

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"phasegate/reports/internal/atomicfile"
	"phasegate/reports/plots"
	"phasegate/reports/result"
)

// Names of the files that [Write] makes beside result.FileName and the plots.
const (
	PageFile     = "report.html"
	JUnitFile    = "junit.xml"
	SummaryFile  = "summary.md"
	TimelineFile = "timeline.csv"
)

// Write makes all files of r's report in the folder dir, which it creates where
// it is missing. Each file is written whole or not at all, the record first; a
// file that can't be made doesn't keep the others from being made. The error
// joins what failed, each naming the file.
func Write(dir string, r *result.Result) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("write reports: not a valid result: %w", err)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("write reports: can't create the output folder %s: %w; choose a folder that you can write to", dir, err)
	}
	probe, err := os.CreateTemp(dir, ".write-*")
	if err != nil {
		return fmt.Errorf("write reports: can't write into the output folder %s: %w; choose a folder that you can write to", dir, err)
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return fmt.Errorf("write reports: can't write into the output folder %s: %w", dir, err)
	}

	figures := plots.All(r)
	var errs []error
	file := func(name string, fill func(io.Writer) error) {
		errs = append(errs, atomicfile.Write(filepath.Join(dir, name), fill))
	}
	file(result.FileName, func(w io.Writer) error { return result.Encode(w, r) })
	file(PageFile, func(w io.Writer) error { return page(w, r, figures) })
	for i := range figures {
		file(figures[i].Name+".png", figures[i].PNG)
	}
	file(JUnitFile, func(w io.Writer) error { return JUnit(w, r) })
	file(SummaryFile, func(w io.Writer) error { return Summary(w, r, dir) })
	file(TimelineFile, func(w io.Writer) error { return Timeline(w, r) })
	for _, name := range slices.Concat([]string{"old", "new"}, plots.Arms(r)) {
		path := filepath.Join(dir, PercentilesFile(name))
		system, ok := r.Systems[name]
		if !ok || system.Histogram == "" {
			// One left by an earlier run in this folder would look like ours.
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("remove the file of an earlier run: %w", err))
			}
			continue
		}
		file(PercentilesFile(name), func(w io.Writer) error { return Percentiles(w, system) })
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write reports into %s: %w", dir, err)
	}
	return nil
}

// Clear removes what [Write] made of an earlier run in the folder dir, so that
// nobody takes its verdict for that of a run which comes to none. What is
// missing is no error, and other files are left alone.
func Clear(dir string) error {
	names := []string{result.FileName, PageFile, JUnitFile, SummaryFile, TimelineFile, PercentilesFile("old"), PercentilesFile("new")}
	for _, figure := range plots.All(&result.Result{}) {
		names = append(names, figure.Name+".png")
	}
	var errs []error
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clear the folder of an earlier run's reports: %w", err)
	}
	return nil
}

// PercentilesFile is the name of the file with a system's latency percentiles.
func PercentilesFile(system string) string { return "latency-" + system + ".hgrm" }

// HTML writes the report as one page that needs no other file: styles and
// figures are part of it, and there is no script.
func HTML(w io.Writer, r *result.Result) error { return page(w, r, plots.All(r)) }
