package reports_test

import (
	"bytes"
	"encoding/xml"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"phasegate/reports"
	"phasegate/reports/internal/resulttest"
	"phasegate/reports/result"
)

// sections is the order in which the page answers.
var sections = []string{
	"verdict", "gates", "triggers", "latency", "percentiles", "hit-ratio", "traffic", "resources", "times", "protocols", "systems", "failures", "logs", "load", "environment",
}

func TestHTMLStructure(t *testing.T) {
	t.Parallel()
	for _, variant := range resulttest.Variants {
		t.Run(variant, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			r := resulttest.New(variant)
			if err := reports.HTML(&b, r); err != nil {
				t.Fatal(err)
			}
			page := b.String()
			for _, bad := range []string{"NaN", "<nil>", "&lt;nil&gt;", "%!", "+Inf", "ZgotmplZ", "0001-01-01"} {
				if strings.Contains(page, bad) {
					t.Errorf("the page contains %q", bad)
				}
			}
			if len(page) > 400_000 {
				t.Errorf("the page has %d bytes, want at most 400,000", len(page))
			}
			doc, err := html.Parse(&b)
			if err != nil {
				t.Fatal(err)
			}
			checkDocument(t, doc)
			want := sections
			if variant != "http2" { // the only one in which anything but HTTP/1.1 in clear text was spoken
				want = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "protocols" })
			}
			if variant != "died" && variant != "error" && variant != "hostile" {
				want = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "logs" })
			}
			var ids []string
			for n := range doc.Descendants() {
				if id := attribute(n, "id"); id != "" {
					ids = append(ids, id)
				}
			}
			if !slices.Equal(ids, want) {
				t.Errorf("sections %v, want %v", ids, want)
			}
		})
	}
}

// checkDocument: self-contained, no script, and what assistive programs need.
func checkDocument(t *testing.T, doc *html.Node) {
	t.Helper()
	headings := 0
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script", "link", "img", "iframe", "object", "embed", "image", "use", "base", "a":
			t.Errorf("element %s", n.Data)
		case "h1":
			headings++
		case "th":
			if attribute(n, "scope") == "" {
				t.Errorf("a table header without scope: %q", text(n))
			}
		case "svg":
			if attribute(n, "aria-hidden") != "true" && (attribute(n, "role") != "img" || attribute(n, "aria-label") == "") {
				t.Error("a figure that screen readers can't name")
			}
		case "html":
			if attribute(n, "lang") == "" {
				t.Error("no language")
			}
		}
		for _, a := range n.Attr {
			value := strings.ToLower(a.Val)
			if a.Key == "src" || a.Key == "href" || strings.HasPrefix(a.Key, "on") || a.Key == "style" && strings.Contains(value, "url(") {
				t.Errorf("%s has %s=%q", n.Data, a.Key, a.Val)
			}
		}
		if n.Data == "style" && (strings.Contains(text(n), "url(") || strings.Contains(text(n), "@import")) {
			t.Error("the style sheet loads something")
		}
	}
	if headings != 1 {
		t.Errorf("%d h1 elements, want 1", headings)
	}
}

// The words that a reader looks for, where they belong.
func TestHTMLSays(t *testing.T) {
	t.Parallel()
	pages := map[string]*html.Node{}
	for _, c := range []struct {
		variant, section string
		want             []string
	}{
		{"pass", "verdict", []string{"✓", "PASS", "phase1 · Basic cache", "8 of 8 gates passed; no trigger fired", "quick", "65 s"}},
		{"pass", "gates", []string{"p95_latency < 10ms", "3.1 ms", "[2.9 ms, 3.4 ms]", "< 10 ms", "7,800 in 65 s", "wrong_responses <= 0 implied", "99.962 %"}},
		{"fail", "verdict", []string{"✗", "FAIL", "5 of 8 gates passed, 2 failed, 1 inconclusive; 1 trigger fired; 1 trigger not watched"}},
		{"fail", "gates", []string{"p95 is a miss", "12,400 more requests"}},
		{"fail", "triggers", []string{"✗ FIRED", "fired at 46 s; its condition began to hold at 41 s", "? NOT WATCHED", "not watched: fewer than 50 requests"}},
		{"fail", "failures", []string{"status 503, expected 200", "mixed up"}},
		{"fail", "systems", []string{"51 5xx, 3 timeout", "not offered: the upstream leg was not asked for HTTP/2"}},
		{"inconclusive", "verdict", []string{"?", "INCONCLUSIVE", "Not a pass"}},
		{"inconclusive", "triggers", []string{"watched at 26 of 65 evaluations; not watched at the end: 38 requests in its window"}},
		{"inconclusive", "gates", []string{"4,550 more", "cpu was not sampled"}},
		{"error", "verdict", []string{"!", "ERROR"}},
		{"error", "latency", []string{"No samples"}},
		{"error", "logs", []string{"exit status 2", "address already in use", "logs/new.log"}},
		{"no-ledger", "hit-ratio", []string{"No samples", "self-description"}},
		{"no-ledger", "systems", []string{"not offered: nothing was started"}},
		{"died", "logs", []string{"out of memory", "signal: killed"}},
		{"pass", "load", []string{"zipf(1.1) over 5,000 keys", "2,400/s", "1.9 ms", "1,587", "4,000 keys"}},
		{"pass", "times", []string{"oldlatency464.4 ms", "newservice time392.0 µs", "median", "p99.9", "6,500", "from when a request was due"}},
		{"pass", "load", []string{"Spoken to new: h2c", "7,800 requests on 12 connections", "61.2 s"}},
		{"http2", "protocols", []string{
			"Requests148,2007,800", "in TLS (h2)05,848", "without an answer02", "client_http2_adoption0 % 0 of 148,20075.0 % 5,848 of 7,800", "client_negotiation_success–100 % 12 of 12",
			"connection_reuse81.3 % 374 of 460", "Connections opened86", "negotiation_success98.9 % 86 of 87", "full22", "resumed64", "failed1", "GOAWAYs from the upstream65",
		}},
		{"http2", "systems", []string{"http2_adoption– not measured100 % 460 of 460 upstream requests"}},
		{"pass", "environment", []string{"--set 'systems.new={kind: optimizer, config: {cache: {max_memory_mb: 100}}}'", "0123abcd", "8.6 GB"}},
	} {
		if pages[c.variant] == nil {
			pages[c.variant] = render(t, resulttest.New(c.variant))
		}
		got := section(pages[c.variant], c.section)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s of %s lacks %q:\n%s", c.section, c.variant, want, got)
			}
		}
	}
}

// Rows on TLS stand where there was a handshake; a leg in HTTP/1 is shown where
// the other one is not, and both are told of in the text.
func TestLegWithoutTLS(t *testing.T) {
	t.Parallel()
	r := resulttest.New("http2")
	s := r.Systems["new"]
	s.ClientLeg = &result.Leg{Requests: 7800, HTTP1: 7800, Reused: 7788, Connections: 12}
	r.Systems["new"] = s
	got := section(render(t, r), "protocols")
	if strings.Contains(got, "client_negotiation_success") || !strings.Contains(got, "client_http2_adoption0 % 0 of 148,2000 % 0 of 7,800") {
		t.Errorf("clear text on the clients' leg: %s", got)
	}
	var b bytes.Buffer
	if err := reports.Text(&b, r, false); err != nil {
		t.Fatal(err)
	}
	if want := "wire: clients to new: 7,800 requests: 7,800 http/1, 0 h2, 0 h2c; over HTTP/2 0 % (0 of 7,800); on a connection used before 99.85 % (7,788 of 7,800); 12 connections opened\nwire: new to upstream: 460"; !strings.Contains(b.String(), want) {
		t.Errorf("the text lacks %q:\n%s", want, b.String())
	}
}

// A GOAWAY is HTTP/2's: a leg that spoke HTTP/1.1 has none, however its connections
// were recycled, and beside one that has some its cell is empty.
func TestGoAwaysAreOfHTTP2(t *testing.T) {
	t.Parallel()
	notices := int64(59)
	http1 := &result.Leg{Requests: 460, HTTP1: 460, Reused: 320, Connections: 140, FullHandshakes: 140, GoAways: &notices}
	both := func(old *result.Leg) (html, lines string) {
		r := resulttest.New("http2")
		for name, leg := range map[string]*result.Leg{"old": old, "new": http1} {
			s := r.Systems[name]
			s.UpstreamLeg = leg
			r.Systems[name] = s
		}
		var b bytes.Buffer
		if err := reports.Text(&b, r, false); err != nil {
			t.Fatal(err)
		}
		return section(render(t, r), "protocols"), b.String()
	}
	html, lines := both(nil)
	if strings.Contains(html, "GOAWAY") || strings.Contains(lines, "GOAWAY") {
		t.Errorf("only HTTP/1.1 was spoken:\n%s\n%s", html, lines)
	}
	if !strings.Contains(html, "full140") {
		t.Errorf("the leg itself isn't there:\n%s", html)
	}
	html, lines = both(&result.Leg{Requests: 460, H2: 460, Connections: 86, FullHandshakes: 86, GoAways: &notices})
	if !strings.Contains(html, "GOAWAYs from the upstream59–") || strings.Count(lines, "59 GOAWAYs from the upstream") != 1 {
		t.Errorf("the old system spoke HTTP/2:\n%s\n%s", html, lines)
	}
}

func TestHTMLNotices(t *testing.T) {
	t.Parallel()
	for variant, want := range map[string][]string{
		"incomplete": {"incomplete: interrupted (SIGINT) after 25 s of 70 s", "time scale 60"},
		"error":      {"environment failed: system new did not become healthy", "incomplete"},
		"notices":    {"cache.setting_0 is not applied: nginx has no such thing <b>0</b>", "cache.setting_13"},
	} {
		var aside string
		for n := range render(t, resulttest.New(variant)).Descendants() {
			if n.Data == "aside" {
				aside = text(n)
			}
		}
		for _, w := range want {
			if !strings.Contains(aside, w) {
				t.Errorf("notices of %s lack %q: %s", variant, w, aside)
			}
		}
	}
	// A scaled run says so even where the harness forgot to.
	r := resulttest.New("pass")
	r.Notices = nil
	var b bytes.Buffer
	if err := reports.HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "time scale 60: the times of triggers") {
		t.Error("the time scale is not among the notices")
	}
}

func TestJUnitCounts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		variant                          string
		tests, failures, errors, skipped int
	}{
		{"pass", 12, 0, 0, 0},
		{"fail", 12, 3, 0, 2},
		{"inconclusive", 12, 0, 0, 2},
		{"error", 1, 0, 1, 0},
		{"incomplete", 13, 0, 0, 3}, // the run's own case is skipped too
		{"no-ledger", 12, 0, 0, 4},
		{"empty", 1, 0, 0, 1}, // never a green suite
	} {
		var b bytes.Buffer
		if err := reports.JUnit(&b, resulttest.New(c.variant)); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Suite struct {
				Tests    int `xml:"tests,attr"`
				Failures int `xml:"failures,attr"`
				Errors   int `xml:"errors,attr"`
				Skipped  int `xml:"skipped,attr"`
				Cases    []struct {
					Failure *struct{} `xml:"failure"`
				} `xml:"testcase"`
			} `xml:"testsuite"`
		}
		if err := xml.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v", c.variant, err)
		}
		s := got.Suite
		if s.Tests != c.tests || s.Failures != c.failures || s.Errors != c.errors || s.Skipped != c.skipped || len(s.Cases) != c.tests {
			t.Errorf("%s: %d tests, %d failures, %d errors, %d skipped, %d cases; want %+v", c.variant, s.Tests, s.Failures, s.Errors, s.Skipped, len(s.Cases), c)
		}
	}
}

// Text of other programs must not steer the terminal that shows it.
func TestTextIsHarmless(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := reports.Text(&b, resulttest.New("hostile"), false); err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexFunc(b.String(), func(r rune) bool { return r < ' ' && r != '\n' }); i >= 0 {
		t.Errorf("control character %q", b.String()[i])
	}
}

// A result may have been edited, or written by a later version.
func FuzzHTML(f *testing.F) {
	for _, variant := range []string{"error", "empty", "hostile", "died"} {
		r := resulttest.New(variant)
		r.Timeline = r.Timeline[:min(len(r.Timeline), 4)]
		for name, s := range r.Systems {
			s.Histogram = ""
			r.Systems[name] = s
		}
		var b bytes.Buffer
		if err := result.Encode(&b, r); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte(`{"schema":1,"verdict":"pass","time_scale":1e308,"duration":-1e300,"gates":[{"verdict":"fail","unit":"s","metric":"p95_latency","threshold":5e-324,"value":1e308,"low":-1e308}],
		"timeline":[{"t":1e300,"memory":1e308,"cpu":-5,"p50":5e-324},{"t":1,"p50":0,"p95":1e18,"split":1e9,"requests":-9223372036854775808}],"marks":[{"name":"steady","from":1,"to":-1e308}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := result.Decode(bytes.NewReader(data))
		if err != nil {
			return
		}
		var b, rest bytes.Buffer
		if err := reports.HTML(&b, r); err != nil {
			t.Fatal(err)
		}
		for _, write := range []func() error{
			func() error { return reports.JUnit(&rest, r) }, func() error { return reports.Summary(&rest, r, ".") },
			func() error { return reports.Text(&rest, r, true) }, func() error { return reports.Timeline(&rest, r) },
		} {
			if err := write(); err != nil {
				t.Fatal(err)
			}
		}
		doc, err := html.Parse(&b)
		if err != nil {
			t.Fatal(err)
		}
		checkDocument(t, doc)
		for n := range doc.Descendants() {
			for _, a := range n.Attr {
				if (a.Key == "d" || a.Key == "x" || a.Key == "cx") && strings.ContainsAny(a.Val, "NI") {
					t.Errorf("%s=%q is not a number", a.Key, a.Val)
				}
			}
		}
	})
}

func render(t *testing.T, r *result.Result) *html.Node {
	t.Helper()
	var b bytes.Buffer
	if err := reports.HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	doc, err := html.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// section returns the text of the element with that id, "" where there is none.
func section(doc *html.Node, id string) string {
	for n := range doc.Descendants() {
		if attribute(n, "id") == id {
			return text(n)
		}
	}
	return ""
}

func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return strings.Join(strings.FieldsFunc(b.String(), func(r rune) bool { return r == ' ' || r == '\n' }), " ")
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

// Without a schedule there is no latency to show.
func TestHTMLOfAClosedLoop(t *testing.T) {
	t.Parallel()
	r := resulttest.New("pass")
	r.Load.ClosedLoop, r.Load.LagP50, r.Load.LagP99, r.Load.LagMax = true, nil, nil, nil
	page := render(t, r)
	if times := section(page, "times"); !strings.Contains(times, "newservice time") || strings.Contains(times, "newlatency") {
		t.Errorf("the table of times: %s", times)
	}
	if load := section(page, "load"); !strings.Contains(load, "none: a closed loop") {
		t.Errorf("the load: %s", load)
	}
	var text bytes.Buffer
	if err := reports.Text(&text, r, false); err != nil || !strings.Contains(text.String(), "closed loop") || strings.Contains(text.String(), "lag") {
		t.Errorf("%v: %s", err, text.String())
	}
}
