package optimizer_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// h2specFailures explains each test of h2spec that isn't passed, by what is asked how,
// the section and the test. One that is passed all the same, or isn't run, must go.
var h2specFailures = map[string]string{
	"h2c http2/3.5 Sends invalid connection preface": "without TLS the port speaks HTTP/1.1 to whoever doesn't begin with the preface: the answer is 400, and the connection is closed, which h2spec can't read. RFC 9113 §3.4 lets GOAWAY be left out there",
}

// findH2spec finds the program: it is built from ci/tools (see .ci/run), or installed.
func findH2spec(t *testing.T) string {
	if built, err := filepath.Abs("../bin/h2spec"); err == nil {
		if _, err := os.Stat(built); err == nil {
			return built
		}
	}
	installed, err := exec.LookPath("h2spec")
	if err != nil {
		t.Skip("NOT TESTED: h2spec isn't there; go build -modfile=ci/tools/go.mod -o bin/ github.com/summerwind/h2spec/cmd/h2spec")
	}
	return installed
}

// The conformance suite for HTTP/2, with its strict tests, against hits and misses, with
// TLS and without.
func TestH2spec(t *testing.T) {
	t.Parallel()
	program := findH2spec(t)
	seen := map[string]bool{}
	for _, way := range []string{plainHTTP2, securedHTTP} {
		for _, cacheControl := range []string{"max-age=3600", "no-store"} {
			p := startAs(t, way, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Cache-Control", cacheControl)
				io.WriteString(w, "the answer")
			})
			host, port, err := net.SplitHostPort(p.o.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "report.xml")
			args := []string{"--strict", "--host", host, "--port", port, "--path", "/x", "--junit-report", file}
			if way == securedHTTP {
				args = append(args, "--tls", "--insecure")
			}
			out, failed := exec.Command(program, args...).CombinedOutput() // fails if a test does
			var report struct {
				Suites []struct {
					Cases []struct {
						Package string    `xml:"package,attr"`
						Name    string    `xml:"classname,attr"`
						Failure *struct{} `xml:"failure"`
						Error   *struct{} `xml:"error"`
						Skipped *struct{} `xml:"skipped"`
					} `xml:"testcase"`
				} `xml:"testsuite"`
			}
			text, err := os.ReadFile(file)
			if err == nil {
				err = xml.Unmarshal(text, &report)
			}
			if err != nil {
				t.Fatalf("%s: %v, %v\n%s", way, failed, err, out)
			}
			var passed, explained, skipped int
			for _, suite := range report.Suites {
				for _, c := range suite.Cases {
					name := fmt.Sprintf("%s %s %s", way, c.Package, c.Name)
					reason, known := h2specFailures[name]
					seen[name] = true
					switch wrong := c.Failure != nil || c.Error != nil; {
					case c.Skipped != nil:
						skipped++
					case wrong && !known:
						t.Errorf("%s, %s: fails, and nothing explains it", name, cacheControl)
					case wrong:
						explained++
						t.Logf("%s, %s: fails: %s", name, cacheControl, reason)
					case known:
						t.Errorf("%s, %s: is passed; take it off the table", name, cacheControl)
					default:
						passed++
					}
				}
			}
			if failed == nil != (explained == 0) && !t.Failed() || passed < 140 {
				t.Errorf("%s, %s: %v, and %d tests were passed\n%s", way, cacheControl, failed, passed, out)
			}
			t.Logf("%s, %s: %d passed, %d failures explained, %d skipped", way, cacheControl, passed, explained, skipped)
		}
	}
	for name := range h2specFailures {
		if !seen[name] {
			t.Errorf("%s: there is no such test; take it off the table", name)
		}
	}
}
