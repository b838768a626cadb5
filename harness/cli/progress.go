package cli

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"phasegate/harness"
)

// isTerminal reports whether w is a terminal that can redraw a line.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// newProgress returns what shows progress on w, and what ends it: a bar per
// stage on a terminal, a line every few seconds elsewhere (a pipeline's log).
func newProgress(w io.Writer) (show func(harness.Progress), done func()) {
	if f, ok := w.(*os.File); ok {
		// A terminal that tells no width can't be drawn on.
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return barProgress(w)
		}
	}
	return lineProgress(w), func() {}
}

// lineProgress prints a line where a stage begins and at most every 10 s in it.
func lineProgress(w io.Writer) func(harness.Progress) {
	var stage string
	var printed time.Time
	return func(p harness.Progress) {
		now := time.Now()
		if p.Stage == stage && now.Sub(printed) < 10*time.Second {
			return
		}
		stage, printed = p.Stage, now
		line := fmt.Sprintf("%-10s", p.Stage)
		if p.Total > 0 {
			line += fmt.Sprintf(" %4.0f of %.0f", p.Done, p.Total)
		}
		if p.Text != "" {
			line += "  " + p.Text
		}
		fmt.Fprintln(w, line)
	}
}

// barProgress draws one bar per stage that can be counted, and prints a line
// for the others.
func barProgress(w io.Writer) (show func(harness.Progress), done func()) {
	bars := mpb.New(mpb.WithOutput(w), mpb.WithWidth(40), mpb.WithRefreshRate(200*time.Millisecond))
	var stage string
	var bar *mpb.Bar
	var text *atomic.Value // beside the bar, drawn by a goroutine of its own
	finish := func() {
		if bar != nil {
			bar.SetTotal(-1, true)
			bar.Wait()
			bar = nil
		}
	}
	show = func(p harness.Progress) {
		if p.Stage != stage {
			finish()
			stage = p.Stage
			if p.Total == 0 {
				fmt.Fprintf(bars, "%-10s  %s\n", stage, p.Text)
				return
			}
			beside := new(atomic.Value)
			beside.Store("")
			text = beside
			bar = bars.AddBar(int64(p.Total*1000),
				mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-10s ", stage))),
				mpb.AppendDecorators(decor.Percentage(), decor.Any(func(decor.Statistics) string { return "  " + beside.Load().(string) })))
		}
		if bar != nil {
			text.Store(p.Text)
			bar.SetCurrent(int64(p.Done * 1000))
		}
	}
	return show, func() { finish(); bars.Wait() }
}
