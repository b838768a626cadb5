package forecast

import (
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
		{"a log that ends early is judged whole", 10, false, Schedule{Steady: 10 * time.Second, Looks: 1}},
		{"one that ends between two looks is long enough for one", 1, false, Schedule{Warmup: 5 * time.Second, Steady: time.Minute, Looks: 1}},
		{"a longer one fills the stages", 0.5, false, Schedule{Warmup: 5 * time.Second, Steady: time.Minute, Looks: 2}},
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
		if s.Warmup != tt.want.Warmup || s.Steady != tt.want.Steady || s.Looks != tt.want.Looks {
			t.Errorf("%s: %+v, want %+v", tt.why, s, tt.want)
		}
	}
}
