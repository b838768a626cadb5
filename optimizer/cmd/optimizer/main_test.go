package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// fasthttp's worker pool sweeps every ten seconds, and ends at the next sweep after
// it was stopped.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

func TestUsageAndConfigurationErrorsAreCode2(t *testing.T) {
	file := filepath.Join(t.TempDir(), "o.yaml")
	if err := os.WriteFile(file, []byte("cache:\n  max_memory_mb: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		why  string
		args []string
		want string
	}{
		{"no upstream", nil, "upstream.url: missing"},
		{"unknown flag", []string{"--colour"}, "colour"},
		{"an argument", []string{"x"}, `unexpected argument x`},
		{"no such file", []string{"--config", file + "x"}, "no such file"},
		{"a fault in the file", []string{"--upstream", "http://a", "--config", file}, file + ":2:18: cache.max_memory_mb"},
		{"a file that isn't there", []string{"--check", "--upstream", "http://a", "--upstream-ca-file", file + "x"}, "flag --upstream-ca-file: upstream.ca_file: open " + file + "x: no such file"},
		{"a fault in a flag", []string{"--upstream", "a"}, "flag --upstream: upstream.url"},
	} {
		var out, err bytes.Buffer
		if code := run(t.Context(), tt.args, &out, &err); code != 2 || !strings.Contains(err.String(), tt.want) || out.Len() > 0 {
			t.Errorf("%s: code %d, stderr %q, stdout %q", tt.why, code, err.String(), out.String())
		}
	}
}

func TestCheckPrintsTheEffectiveConfiguration(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), []string{"--upstream", "http://a", "--check"}, &out, io.Discard); code != 0 {
		t.Fatal(code)
	}
	for _, want := range []string{"# flag --upstream", "max_memory_mb: 100", "# default"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out.String())
		}
	}
}

func TestAnAddressInUseIsCode1(t *testing.T) {
	server := httptest.NewServer(nil)
	defer server.Close()
	var err bytes.Buffer
	if code := run(t.Context(), []string{"--upstream", server.URL, "--listen", server.Listener.Addr().String()}, io.Discard, &err); code != 1 || !strings.Contains(err.String(), "address already in use") {
		t.Errorf("code %d, %s", code, err.String())
	}
}

// The one line on standard output is what starts a program's trust in us.
func TestOneLineThenServeThenCleanDrain(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer api.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	code := make(chan int)
	go func() {
		c := run(ctx, []string{"--upstream", api.URL, "--listen", "127.0.0.1:0"}, w, io.Discard)
		w.Close()
		code <- c
	}()
	out := bufio.NewReader(r)
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`^optimizer listening on (http://127\.0\.0\.1:\d+) admin (http://127\.0\.0\.1:\d+)\n$`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("line %q", line)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i, want := range []string{"hello", "ok\n"} {
		resp, err := client.Get(m[i+1] + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != want {
			t.Errorf("%s: %q", m[i+1], body)
		}
	}
	cancel()
	if rest, _ := io.ReadAll(out); len(rest) > 0 {
		t.Errorf("more on standard output: %q", rest)
	}
	if c := <-code; c != 0 {
		t.Errorf("exit code %d", c)
	}
}

// Standard error is a pipe that is full: what was to be logged is lost, and nothing else.
func TestNobodyReadsStandardError(t *testing.T) {
	nobody, stderr := io.Pipe()
	defer nobody.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, stdout := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"}, stdout, stderr)
	}()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case c := <-code:
		if c != 0 {
			t.Errorf("exit code %d", c)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it doesn't end")
	}
}

// A signal is heard though nobody reads standard output, which is full.
func TestNobodyReadsTheLine(t *testing.T) {
	t.Parallel()
	_, stdout := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"}, stdout, io.Discard)
	}()
	time.Sleep(50 * time.Millisecond) // mostly enough for the line to be under way
	cancel()
	select {
	case c := <-code:
		if c != 0 {
			t.Errorf("exit code %d", c)
		}
	case <-time.After(20 * time.Second):
		t.Error("it goes on")
	}
	stdout.Close()
}

// What never ends doesn't hold the process, and what ends in time is told as it is.
func TestTheProcessEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun, freed := time.Now(), make(chan struct{})
		err := end(func(context.Context) error { <-freed; return nil })
		if took := time.Since(begun); err == nil || !strings.Contains(err.Error(), "TestTheProcessEnds") || took != drainTimeout+lastResort {
			t.Errorf("after %v: %v", took, err)
		}
		close(freed)
		fault := errors.New("fault")
		err = end(func(ctx context.Context) error {
			<-ctx.Done()
			return fault
		})
		if err != fault {
			t.Error(err)
		}
	})
}
