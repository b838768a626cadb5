package load

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"phasegate/harness/recording"
	"phasegate/harness/scenario"
)

// logOf is a recording of lines of the form "SECOND REQUEST STATUS SIZE",
// where REQUEST is "GET /a".
func logOf(t *testing.T, lines ...string) *recording.Recording {
	t.Helper()
	var text strings.Builder
	for _, line := range lines {
		f := strings.Fields(line)
		text.WriteString(`h - - [17/May/2015:10:05:` + f[0] + ` +0000] "` + f[1] + ` ` + f[2] + ` HTTP/1.1" ` + f[3] + ` ` + f[4] + "\n")
	}
	return recorded(t, recording.ReadAccessLog, text.String())
}

// recorded reads a recording from a file with that text.
func recorded(t *testing.T, read func(string) (*recording.Recording, error), text string) *recording.Recording {
	t.Helper()
	path := filepath.Join(t.TempDir(), "recorded")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := read(path)
	if err != nil {
		t.Fatal(err)
	}
	if r.Malformed > 0 {
		t.Fatal(r.Problems)
	}
	return r
}

func TestReplayKeepsTheOrder(t *testing.T) {
	t.Parallel()
	l := logOf(t, "00 GET /a 200 1", "00 POST /b?x=1 201 1", "00 HEAD /a 200 0")
	s := newReplay(l, nil)
	var got []string
	for i := range uint64(4) {
		r := s.at(i)
		got = append(got, r.method+" "+string(s.appendTarget(nil, r.target)))
	}
	if want := []string{"GET /a", "POST /b?x=1", "HEAD /a", "GET /a"}; !slices.Equal(got, want) {
		t.Errorf("replayed %q, want %q", got, want)
	}
	if r := Repeats(l); r != (Repetition{Cacheable: 2, First: 1}) {
		t.Errorf("repetition %+v", r)
	}
	top := s.popular(5)
	if len(top) != 1 || top[0].method != "GET" || top[0].target != 0 {
		t.Errorf("popular reads are %v; a POST is none", top)
	}
}

func TestRecordedPace(t *testing.T) {
	t.Parallel()
	ms := func(values ...int) []time.Duration {
		var out []time.Duration
		for _, v := range values {
			out = append(out, time.Duration(v)*time.Millisecond)
		}
		return out
	}
	for _, tt := range []struct {
		why   string
		times []string
		keys  scenario.Keys
		want  []time.Duration
	}{
		{"one second's requests are spread over it", []string{"05", "05", "05", "05", "07"}, scenario.Keys{}, ms(0, 250, 500, 750, 2000)},
		{"at twice the speed", []string{"05", "05", "07"}, scenario.Keys{Speed: 2}, ms(0, 250, 1000)},
		{"times out of order: the requests keep theirs, the times are sorted", []string{"05", "09", "06", "07"}, scenario.Keys{}, ms(0, 1000, 2000, 4000)},
		{"again from the second after the last", []string{"05", "06"}, scenario.Keys{Repeat: true}, ms(0, 1000, 2000, 3000, 4000)},
		{"once unless told to repeat", []string{"05"}, scenario.Keys{}, []time.Duration{0, never}},
	} {
		var lines []string
		for _, s := range tt.times {
			lines = append(lines, s+" GET /a 200 1")
		}
		p := newRecordedPace(logOf(t, lines...), tt.keys)
		for i, want := range tt.want {
			if got := p.due(uint64(i)); got != want {
				t.Errorf("%s: request %d is due at %v, want %v", tt.why, i, got, want)
			}
		}
		if got := p.due(math.MaxUint64); got != never {
			t.Errorf("%s: the last request conceivable is due at %v", tt.why, got)
		}
	}
}

// A pool is sized for the busiest second, not for the mean.
func TestPeak(t *testing.T) {
	t.Parallel()
	l := logOf(t, "05 GET /a 200 1", "07 GET /b 200 1", "07 GET /c 200 1", "07 GET /d 200 1", "09 GET /a 200 1")
	for _, tt := range []struct {
		speed float64
		want  float64
	}{{1, 3}, {0, 3}, {2, 3}, {4, 4}, {100, 5}} {
		if got := Peak(l, scenario.Keys{PaceLog: true, Speed: tt.speed}); got != tt.want {
			t.Errorf("speed %g: %g/s, want %g", tt.speed, got, tt.want)
		}
	}
}

// A schedule of exactly the recording's length holds exactly its requests.
func TestLength(t *testing.T) {
	t.Parallel()
	l := logOf(t, "05 GET /a 200 1", "05 GET /b 200 1", "08 GET /c 200 1")
	for _, tt := range []struct {
		why  string
		load scenario.Load
		want time.Duration
	}{
		{"at a rate", scenario.Load{Rate: flat(30)}, 100 * time.Millisecond},
		{"at its own pace, to the end of the last second", scenario.Load{Keys: scenario.Keys{PaceLog: true}}, 4 * time.Second},
		{"times a speed", scenario.Load{Keys: scenario.Keys{PaceLog: true, Speed: 8}}, 500 * time.Millisecond},
		{"a wave: its trough first", scenario.Load{Sine: &scenario.Sine{Mean: 3, Amplitude: 3, Period: 2 * time.Second, Start: 3 * math.Pi / 2}}, time.Second},
		{"a rate that never gets there", scenario.Load{Rate: flat(0)}, never},
	} {
		got := Length(l, tt.load, 0)
		if got != tt.want {
			t.Errorf("%s: %v, want %v", tt.why, got, tt.want)
		}
		if got == never {
			continue
		}
		g, err := New(Config{Arms: []Arm{oneArm(t, "http://h.example")}, Load: tt.load, Recording: l, Length: got})
		if err != nil {
			t.Fatal(err)
		}
		if n := count(g); n != 3 {
			t.Errorf("%s: %d requests in the log's length", tt.why, n)
		}
	}
}

func count(g *Generator) (n int) {
	for {
		if _, ok := g.At(uint64(n)); !ok {
			return n
		}
		n++
	}
}
