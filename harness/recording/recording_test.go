package recording

import (
	"bufio"
	"strings"
	"testing"

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
