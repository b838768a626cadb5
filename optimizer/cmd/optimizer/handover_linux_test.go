package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// build makes the program as make build does.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "optimizer")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// launch starts the program, which ends with the test at the latest, and returns its line.
func launch(t *testing.T, binary string, args ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = t.Output()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, line
}

// originOf starts an upstream that is as fast as it gets.
func originOf(t *testing.T, answer fasthttp.RequestHandler) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &fasthttp.Server{Handler: answer}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() { server.Shutdown(); <-served })
	return l.Addr().String()
}

// A SIGHUP that comes before anything is served doesn't kill, and isn't lost.
func TestSIGHUPDuringTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	elder, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer elder.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log, stderr := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--handover", path}, io.Discard, stderr)
		stderr.Close()
	}()
	conn, err := elder.Accept() // the start waits for what it has to say
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	elder.Close()
	conn.Close()
	reloaded := false
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if strings.Contains(lines.Text(), `"msg":"reloaded"`) {
			reloaded = true
			cancel()
		}
	}
	if c := <-code; c != 0 || !reloaded {
		t.Errorf("exit code %d, reloaded %v", c, reloaded)
	}
}

// Two restarts under 2,000 requests a second, half of them on 400 connections that are
// kept, half on new ones; hits, misses, and requests that mustn't be sent twice. Nobody
// repeats a request here, as browsers and http.Client do: each is answered the first time,
// except for who was silent for longer than a process that leaves waits for the next
// request of a kept connection. The schedule has nobody silent for that long, but a machine
// that has no time for the clients may.
func TestARestartUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	const length, total = 4 * time.Second, 8000
	const kept, fresh = 400, 40             // clients, each with its share of a half
	const patience = 800 * time.Millisecond // of a leaving process: a second, less the way
	binary := build(t)
	origin := originOf(t, func(ctx *fasthttp.RequestCtx) {
		if string(ctx.Path()) == "/slow" {
			time.Sleep(100 * time.Millisecond) // under way while a process leaves
			ctx.Response.Header.Set("Cache-Control", "no-store")
		} else {
			ctx.Response.Header.Set("Cache-Control", "max-age=3600")
		}
		ctx.Response.SetBody(append(ctx.Path(), ctx.PostBody()...))
	})
	args := []string{"--upstream", "http://" + origin, "--listen", "127.0.0.1:0", "--handover", filepath.Join(t.TempDir(), "socket")}
	process, line := launch(t, binary, args...)
	var address string
	if _, err := fmt.Sscanf(line, "optimizer listening on http://%s", &address); err != nil {
		t.Fatalf("%q: %v", line, err)
	}

	var load sync.WaitGroup
	var answered, closed, late atomic.Int64
	begun := time.Now()
	for i := range kept + fresh {
		load.Go(func() {
			c := client{address: address, fresh: i >= kept}
			defer c.close()
			requests := total / 2 / kept
			if c.fresh {
				requests = total / 2 / fresh
			}
			every := length / time.Duration(requests)
			for n := range requests {
				time.Sleep(time.Until(begun.Add(every*time.Duration(n) + every*time.Duration(i%fresh)/fresh)))
				method, path, body := "GET", fmt.Sprintf("/%d/%d", i, n), ""
				switch kind := (i + n) % 10; kind {
				case 0:
					path = "/slow"
				case 1:
					method, body = "POST", "once"
				case 2, 3, 4, 5, 6:
					path = fmt.Sprint("/", kind)
				}
				err := c.ask(method, path, body)
				if err != nil && c.silent > patience {
					late.Add(1)
					c.close()
					err = c.ask(method, path, body)
				}
				if err != nil {
					t.Errorf("client %d, request %d, %v after the begin, %s %s: %v", i, n, time.Since(begun).Round(time.Millisecond), method, path, err)
					return
				}
				answered.Add(1)
			}
			closed.Add(c.closes)
		})
	}
	for restart := range 2 {
		time.Sleep(time.Until(begun.Add(length / 5 * time.Duration(1+2*restart))))
		heir, its := launch(t, binary, args...)
		if its != line {
			t.Errorf("the new process is at %q, must be %q", its, line)
		}
		if err := process.Wait(); err != nil {
			t.Errorf("the old process: %v, must end with 0", err)
		}
		process = heir
	}
	load.Wait()
	took := time.Since(begun)
	t.Logf("%d requests in %v, %.0f a second; %d kept connections were closed after an answer, %d before a request that came late", answered.Load(), took.Round(time.Millisecond), float64(answered.Load())/took.Seconds(), closed.Load(), late.Load())
	if answered.Load() != total {
		t.Errorf("%d of %d requests were answered", answered.Load(), total)
	}
	if closed.Load()+late.Load() < kept {
		t.Errorf("%d kept connections were closed by two restarts, must be %d at least", closed.Load(), kept)
	}
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err != nil {
		t.Errorf("the last process: %v, must end with 0", err)
	}
}

// client sends one request after another, and never one twice.
type client struct {
	address string
	fresh   bool // a new connection for each
	conn    net.Conn
	in      *bufio.Reader
	closes  int64         // kept connections that the server said it closes
	sent    time.Time     // when the last request began to be written
	silent  time.Duration // at most, as the server sees it: from the request before to the last one's end
}

func (c *client) ask(method, path, body string) error {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			return err
		}
		c.conn, c.in, c.sent = conn, bufio.NewReader(conn), time.Now()
	}
	before := c.sent
	c.sent = time.Now()
	defer func() { c.silent = time.Since(before) }()
	if err := c.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.conn, "%s %s HTTP/1.1\r\nHost: api.test\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return err
	}
	got, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK || string(got) != path+body:
		return fmt.Errorf("status %d, %q", resp.StatusCode, got)
	case c.fresh:
		c.close()
	case resp.Close:
		c.closes++
		c.close()
	}
	return nil
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// That who read standard error has ended, a logger, say, ends no proxy.
func TestStandardErrorIsClosed(t *testing.T) {
	t.Parallel()
	nobody, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	cmd := exec.Command(build(t), "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--telemetry-access-log", "json")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stderr.Close()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url := strings.Fields(line)[3]
	for range 3 {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		time.Sleep(10 * time.Millisecond) // for the lines
	}
	http.DefaultClient.CloseIdleConnections()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil && strings.Contains(err.Error(), "signal") {
		t.Error(err)
	}
}
