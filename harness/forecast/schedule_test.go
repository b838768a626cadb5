package forecast

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"phasegate/harness/scenario"
)

func TestRecordingFitsTheStages(t *testing.T) {
	t.Parallel()
	line := `192.0.2.1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 100` + "\n"
	path := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(path, []byte(strings.Repeat(line, 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		why    string
		rate   float64
		repeat bool
		want   Schedule
	}{
		{"a log that ends early is judged whole", 10, false, Schedule{Steady: 10 * time.Second, Looks: 1, Ends: 10 * time.Second}},
		{"one that ends between two looks is long enough for one", 1, false, Schedule{Warmup: 5 * time.Second, Steady: time.Minute, Looks: 1, Ends: 100 * time.Second}},
		{"a longer one fills the stages", 0.5, false, Schedule{Warmup: 5 * time.Second, Steady: time.Minute, Looks: 2, Ends: 200 * time.Second}},
		{"one that is repeated never ends", 10, true, Schedule{Warmup: 5 * time.Second, Steady: time.Minute, Looks: 2}},
	} {
		plan := &scenario.Plan{
			Warmup: 5 * time.Second, Steady: time.Minute, Extensions: 1,
			Load: scenario.Load{Rate: []scenario.Segment{{From: tt.rate, To: tt.rate}}, Keys: scenario.Keys{AccessLog: path, Repeat: tt.repeat}},
		}
		s, err := NewSchedule(plan)
		if err != nil {
			t.Fatal(err)
		}
		if s.Warmup != tt.want.Warmup || s.Steady != tt.want.Steady || s.Looks != tt.want.Looks || s.Ends != tt.want.Ends {
			t.Errorf("%s: %+v, want %+v", tt.why, s, tt.want)
		}
	}
}

// What a gate needs comes at the rate that a run would go on with, and not at the
// highest that it had.
func TestGoingOn(t *testing.T) {
	t.Parallel()
	s := Schedule{Plan: &scenario.Plan{
		Systems: []scenario.System{{Name: scenario.New, Share: 0.5}},
		Load:    scenario.Load{Rate: []scenario.Segment{{From: 50, To: 300, For: time.Second}, {From: 8, To: 8}}},
	}}
	if on, most := s.GoingOn(scenario.New), s.Offered(scenario.New); on != 4 || most != 150 {
		t.Errorf("%g/s beyond the end, at most %g/s; want 4 and 150", on, most)
	}
}

// A forecast asks for every second of the run.
func TestRatesOfARecordingAreComputedOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	var log strings.Builder
	for _, second := range []int{3, 3, 3, 4, 7} {
		fmt.Fprintf(&log, "192.0.2.1 - - [17/May/2015:10:05:%02d +0000] \"GET /a HTTP/1.1\" 200 100\n", second)
	}
	if err := os.WriteFile(path, []byte(log.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := NewSchedule(&scenario.Plan{
		Steady:  time.Minute,
		Systems: []scenario.System{{Name: scenario.New, Share: 1}},
		Load:    scenario.Load{Keys: scenario.Keys{AccessLog: path, PaceLog: true, Repeat: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Recorded = nil // nobody reads it again
	if offered, peak := s.Offered(scenario.New), s.Peak(); offered != 1 || peak != 3 {
		t.Errorf("offered %g/s, at most %g/s; want 1/s and 3/s", offered, peak)
	}
}
