package recording

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
	"time"

	"phasegate/fixtures/upstream/wire"

	"github.com/google/go-cmp/cmp"
)

// parsed reads text as a recording of a kind, under the name "f".
func parsed(kind, text string) (*Recording, error) {
	r := empty("f", kind)
	return r, r.parse(strings.NewReader(text), map[string]func(*Recording, *bufio.Reader) error{
		accessLog: (*Recording).logLines, harFile: (*Recording).har, targetList: (*Recording).targets,
	}[kind])
}

// logOf reads lines of the form "SECOND REQUEST STATUS SIZE", where REQUEST is
// "GET /a".
func logOf(t *testing.T, lines ...string) *Recording {
	t.Helper()
	var text strings.Builder
	for _, line := range lines {
		f := strings.Fields(line)
		text.WriteString(`h - - [17/May/2015:10:05:` + f[0] + ` +0000] "` + f[1] + ` ` + f[2] + ` HTTP/1.1" ` + f[3] + ` ` + f[4] + "\n")
	}
	r, err := parsed(accessLog, text.String())
	if err != nil {
		t.Fatal(err)
	}
	if r.Malformed > 0 {
		t.Fatal(r.Problems)
	}
	return r
}

func TestCatalog(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why   string
		lines []string
		want  wire.Resource
	}{
		{"the most frequent size of a 2xx", []string{"00 GET /a 200 5", "00 GET /a 200 9", "00 GET /a 200 5"}, wire.Resource{Status: 200, Size: 5}},
		{"of a draw the larger: a part of it may have been cut off", []string{"00 GET /a 200 5", "00 GET /a 200 9"}, wire.Resource{Status: 200, Size: 9}},
		{"- is 0", []string{"00 GET /a 200 -"}, wire.Resource{Status: 200}},
		{"206 is a part of it", []string{"00 GET /a 206 5", "00 GET /a 206 5", "00 GET /a 200 9"}, wire.Resource{Status: 200, Size: 9}},
		{"and better than nothing", []string{"00 GET /a 206 5"}, wire.Resource{Status: 200, Size: 5}},
		{"304 says nothing of the size", []string{"00 GET /a 304 0", "00 GET /a 304 0", "00 GET /a 200 9"}, wire.Resource{Status: 200, Size: 9}},
		{"HEAD neither", []string{"00 HEAD /a 200 0", "00 HEAD /a 200 0", "00 GET /a 200 9"}, wire.Resource{Status: 200, Size: 9}},
		{"5xx is served as 200, without the size of the error page", []string{"00 GET /a 500 626"}, wire.Resource{Status: 200}},
		{"4xx with the size of its page", []string{"00 GET /a 404 196", "00 GET /a 404 196", "00 GET /a 200 9"}, wire.Resource{Status: 404, Size: 196}},
		{"of a draw 200", []string{"00 GET /a 404 196", "00 GET /a 200 9"}, wire.Resource{Status: 200, Size: 9}},
		{"304 and 5xx count for 200", []string{"00 GET /a 404 196", "00 GET /a 404 196", "00 GET /a 200 9", "00 GET /a 304 -", "00 GET /a 503 7"}, wire.Resource{Status: 200, Size: 9}},
		{"3xx", []string{"00 GET /a 301 169"}, wire.Resource{Status: 301, Size: 169}},
		{"201 is a 2xx", []string{"00 POST /a 201 64"}, wire.Resource{Status: 200, Size: 64}},
	} {
		got := logOf(t, tt.lines...).Catalog()
		if diff := cmp.Diff(wire.Catalog{"/a": tt.want}, got); diff != "" {
			t.Errorf("%s: %s", tt.why, diff)
		}
	}
}

func TestNoticesTellOfTimesThatRunBackwards(t *testing.T) {
	t.Parallel()
	got := strings.Join(logOf(t, "05 GET /a 200 1", "09 GET /a 200 1", "06 GET /a 200 1").Notices(), "\n")
	if !strings.Contains(got, "1 of 3 requests are logged after later ones, by up to 3s") {
		t.Errorf("notices: %q", got)
	}
	if got := logOf(t, "05 GET /a 200 1").Notices(); len(got) != 0 {
		t.Errorf("a clean log has notices: %q", got)
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	const from = int64(1431849903)
	ms := func(values ...int) (out []time.Duration) {
		for _, v := range values {
			out = append(out, time.Duration(v)*time.Millisecond)
		}
		return out
	}
	for _, tt := range []struct {
		why   string
		times []string // seconds from some moment on
		due   []time.Duration
		pass  time.Duration
	}{
		{"one second's requests are spread over it", []string{"0", "0", "0", "0", "2"}, ms(0, 250, 500, 750, 2000), 3 * time.Second},
		{"finer times are kept", []string{"0.000", "0.001", "0.001", "2.500"}, ms(0, 1, 1, 2500), 2500*time.Millisecond + 2500*time.Millisecond/3},
		{"also those that happen to be whole", []string{"0", "0", "1.5"}, ms(0, 0, 1500), 2250 * time.Millisecond},
		{"out of order they are sorted", []string{"4.5", "0.5", "2.5"}, ms(0, 2000, 4000), 6 * time.Second},
		{"one", []string{"0.5"}, ms(0), time.Second},
		{"all at one moment: nothing tells how dense they were", []string{"0.5", "0.5"}, ms(0, 500), time.Second},
	} {
		var text strings.Builder
		for _, s := range tt.times {
			at, err := parseEpoch(s)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&text, `{"msec":"%d.%09d","request":"GET /a HTTP/1.1","status":200}`+"\n", from+at.Unix(), at.Nanosecond())
		}
		r, err := parsed(accessLog, text.String())
		if err != nil {
			t.Fatal(err)
		}
		due, pass := r.Times()
		if diff := cmp.Diff(tt.due, due); diff != "" || pass != tt.pass {
			t.Errorf("%s: %s, a pass of %s, want %s", tt.why, diff, pass, tt.pass)
		}
	}
}

// Times that a program can't hold are no reason to panic.
func TestTimesBeyondAllBounds(t *testing.T) {
	t.Parallel()
	for _, stamp := range []string{"0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z"} {
		_, err := parsed(accessLog, `{"time":"`+stamp+`","request":"GET /a HTTP/1.1","status":200}`)
		if err == nil {
			t.Errorf("%s is accepted", stamp)
		}
	}
}

// A list of millions that all bring the same token needs room for one.
func TestEqualHeadersAreKeptOnce(t *testing.T) {
	t.Parallel()
	r, err := parsed(targetList, strings.Repeat("GET http://h/a\nX-A: 1\n\nGET http://h/b\nX-A: 1\n\nGET http://h/c\nX-A: 2\n\n", 100))
	if err != nil || r.Requests() != 300 || len(r.Extras()) != 2 {
		t.Errorf("%d requests, %d headers, %v", r.Requests(), len(r.Extras()), err)
	}
	if len(r.Catalog()) != 0 {
		t.Errorf("nothing is known of how targets were answered: %v", r.Catalog())
	}
}
