package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// The process itself stays within cache.max_memory_mb, with more objects than it can
// keep, small ones and then of all sizes, and with answers that their clients don't
// read: the kernel's word for it.
func TestTheProcessStaysWithinItsMemory(t *testing.T) {
	t.Parallel()
	const budget, small, large = 40, 24_000, 300
	bytes := make([]byte, 2_000_000)
	origin := originOf(t, func(ctx *fasthttp.RequestCtx) {
		n, _ := strconv.Atoi(string(ctx.QueryArgs().Peek("n")))
		ctx.Response.Header.Set("Cache-Control", "max-age=3600")
		ctx.Response.SetBodyRaw(bytes[:n])
	})
	file := filepath.Join(t.TempDir(), "o.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "listen: 127.0.0.1:0\nupstream:\n  url: http://%s\ncache:\n  max_memory_mb: %d\n", origin, budget), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, line := launch(t, build(t), "--config", file)
	m := regexp.MustCompile(`http://(\S+) admin http://(\S+)`).FindStringSubmatch(line)
	paths := make([]string, 0, small+large)
	for i := range small {
		paths = append(paths, fmt.Sprintf("/%d?n=1024", i))
	}
	entries := func() int {
		resp, err := http.Get("http://" + m[2] + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		n, err := strconv.ParseFloat(regexp.MustCompile(`(?m)^optimizer_cache_entries (\S+)$`).FindStringSubmatch(string(text))[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	fetchAll(t, m[1], paths)
	kept := entries()
	if payload := kept * 1024; payload < budget*1e6*30/100 {
		t.Errorf("%d objects kept: %d bytes are less than 30 %% of the budget", kept, payload)
	}
	// These hold what they are sent, as long as they don't read it.
	for i := range 20 {
		conn, err := net.Dial("tcp", m[1])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /idle%d?n=1500000 HTTP/1.1\r\nHost: a\r\n\r\n", i)
	}
	paths = paths[:0]
	for i := range large {
		paths = append(paths, fmt.Sprintf("/mixed%d?n=%d", i, 100<<(i%15)))
	}
	fetchAll(t, m[1], paths)
	// Of this program alone: a child's rusage counts what its parent held when it began.
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	peak, err := strconv.Atoi(regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`).FindStringSubmatch(string(status))[1])
	if err != nil {
		t.Fatal(err)
	}
	if peak *= 1024; peak > budget*1e6 {
		t.Errorf("peak resident set %d bytes, beyond the %d MB of the budget (%d objects kept)", peak, budget, kept)
	} else {
		t.Logf("peak resident set %d bytes, %d objects of 1 KiB kept", peak, kept)
	}
}

// fetchAll asks for each path once, over 16 connections.
func fetchAll(t *testing.T, address string, paths []string) {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(2 * time.Minute))
			r := bufio.NewReader(conn)
			for i := next.Add(1) - 1; i < int64(len(paths)); i = next.Add(1) - 1 {
				fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", paths[i])
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Errorf("%s: %v", paths[i], err)
					return
				}
				n, err := io.Copy(io.Discard, resp.Body)
				if _, want, _ := strings.Cut(paths[i], "n="); err != nil || strconv.Itoa(int(n)) != want {
					t.Errorf("%s: %d bytes, %v", paths[i], n, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
