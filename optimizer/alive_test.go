package optimizer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"phasegate/optimizer/arena"
)

// RaceDetector is for the tests that are outside of the package.
const RaceDetector = raceDetector

// running starts an optimizer before an upstream of the test's own.
func running(t *testing.T, api http.HandlerFunc, change func(*Optimizer, *Config)) *Optimizer {
	t.Helper()
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	cfg := Config{Listen: "127.0.0.1:0"}
	cfg.Upstream.URL = server.URL
	change(nil, &cfg)
	o, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	change(o, &cfg)
	if err := o.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Stop(t.Context()) })
	return o
}

func dial(t *testing.T, o *Optimizer) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", o.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn.(*net.TCPConn), bufio.NewReader(conn)
}

// receive reads one answer, whole.
func receive(r *bufio.Reader) (int, error) {
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func plain(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "max-age=3600")
	io.WriteString(w, "here")
}

// However steadily its bytes drip in, a head is cut off within the read timeout.
func TestSlowHeadsAreCutOff(t *testing.T) {
	t.Parallel()
	const timeout = 300 * time.Millisecond
	o := running(t, plain, func(_ *Optimizer, c *Config) { c.Guard.ReadTimeout = timeout })
	for _, earlier := range []int{0, 2} {
		conn, r := dial(t, o)
		for range earlier {
			io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
			if status, err := receive(r); status != 200 {
				t.Fatal(status, err)
			}
		}
		begun := time.Now()
		go func() {
			for _, err := io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: a\r\nX: "); err == nil; _, err = io.WriteString(conn, "x") {
				time.Sleep(timeout / 20)
			}
		}()
		status, err := receive(r)
		if took := time.Since(begun); status != http.StatusRequestTimeout || took < timeout-50*time.Millisecond || took > 10*timeout {
			t.Errorf("after %d requests: %d after %v, %v; want 408 after %v", earlier, status, took, err, timeout)
		}
		if _, err := r.ReadByte(); err == nil {
			t.Errorf("after %d requests: the connection stays open", earlier)
		}
	}
}

// A head of any length costs no more than is read of it: it is refused, and the
// connection closed, with the answer still readable.
func TestHugeHeadersAreRefused(t *testing.T) {
	t.Parallel()
	o := running(t, plain, func(_ *Optimizer, c *Config) { c.Guard.MaxHeaderSize = 8 << 10; c.Guard.MaxURILength = 4 << 10 })
	for what, huge := range map[string]string{
		"one field": "X: " + strings.Repeat("x", 1<<20) + "\r\n", "many fields": strings.Repeat("X: y\r\n", 1<<17), "one field, a little too long": "X: " + strings.Repeat("x", 8<<10) + "\r\n",
	} {
		conn, r := dial(t, o)
		go io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: a\r\n"+huge+"\r\n")
		if status, err := receive(r); status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %d %v, want 431", what, status, err)
		}
		if _, err := r.ReadByte(); err == nil {
			t.Errorf("%s: the connection stays open", what)
		}
	}
}

// holdable is how many entries of 256 KiB can be held at once: what is held already
// isn't among them.
func holdable(o *Optimizer) (n int) {
	var all []arena.Entry
	for {
		e, ok := o.handler.store.cache.Alloc(8, 256<<10)
		if !ok {
			break
		}
		all = append(all, e)
	}
	for _, e := range all {
		e.Release()
	}
	return len(all)
}

// Clients that hang up mid-response, and those that stop reading, leave nothing behind:
// no goroutine, nothing held in the cache, nothing counted as arriving, no fetch.
func TestClientsThatLeaveLeaveNothing(t *testing.T) {
	t.Parallel()
	const size = 3_500_000
	var streaming atomic.Int64
	whole := bytes.Repeat([]byte("x"), size)
	var free int
	o := running(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/stored") {
			w.Header().Set("Cache-Control", "max-age=3600")
			w.Header().Set("Content-Length", fmt.Sprint(size))
			w.Write(whole)
			return
		}
		streaming.Add(1)
		defer streaming.Add(-1)
		for {
			if _, err := w.Write(whole[:64<<10]); err != nil {
				return
			}
		}
	}, func(o *Optimizer, c *Config) {
		c.Cache.MaxMemoryMB, c.Cache.MaxObjectShare, c.Guard.WriteTimeout = 50, 0.25, 200*time.Millisecond
		if o != nil {
			free = holdable(o)
		}
	})
	fill, r := dial(t, o)
	io.WriteString(fill, "GET /stored HTTP/1.1\r\nHost: a\r\n\r\n")
	if status, err := receive(r); status != 200 || err != nil {
		t.Fatal(status, err)
	}
	fill.Close()
	for _, path := range []string{"/stored", "/streamed"} {
		for _, how := range []string{"resets", "closes", "stops reading", "stops reading and goes on sending"} {
			var clients []*net.TCPConn
			for range 4 {
				conn, r := dial(t, o)
				conn.SetReadBuffer(16 << 10)
				io.WriteString(conn, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n", 4)) // more than the kernel has room for
				if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
					t.Fatalf("%s, %s: %v", path, how, err)
				}
				clients = append(clients, conn)
				switch how {
				case "resets":
					conn.SetLinger(0)
					conn.Close()
				case "closes":
					conn.Close()
				case "stops reading and goes on sending":
					go func() {
						for _, err := io.WriteString(conn, "G"); err == nil; _, err = io.WriteString(conn, "G") {
							time.Sleep(20 * time.Millisecond)
						}
					}()
				}
			}
			h := o.handler
			state := func() string {
				return fmt.Sprintf("%d connections lent, %d bytes arriving, %d buffered, %d fetches under way", o.server.GetCurrentConcurrency(), h.arriving.Load(), h.buffered.Load(), streaming.Load())
			}
			for end := time.Now().Add(8 * time.Second); state() != "0 connections lent, 0 bytes arriving, 0 buffered, 0 fetches under way"; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s, a client that %s: left are %s", path, how, state())
				}
			}
			if strings.HasPrefix(how, "stops") { // and is cut off; what was on its way may come first
				clients[0].SetReadBuffer(4 << 20)
				clients[0].SetDeadline(time.Now().Add(10 * time.Second))
				if _, err := io.Copy(io.Discard, clients[0]); err != nil && strings.Contains(err.Error(), "timeout") {
					t.Errorf("%s, a client that %s: still connected", path, how)
				}
			}
		}
	}
	if got := holdable(o); got < free-2 {
		t.Errorf("the cache has room for %d entries, it was %d: something is held", got, free)
	}
}

// Whatever window a client of HTTP/2 opens by a byte now and then, what it doesn't take isn't
// held; and if it takes as much as it has to of all answers, not more than a share of the cache.
func TestWindowsThatDripHoldLittle(t *testing.T) {
	t.Parallel()
	const size, streams = 600_000, 40
	for _, tt := range []struct {
		what    string
		initial uint32 // a stream's window
		drip    uint32
		ends    int     // so many streams at least
		share   float64 // of the cache that is free then
	}{
		{"the connection's", 1 << 30, 1, streams, 0.98},
		{"each stream's", 0, 1, streams, 0.98},
		{"the connection's, enough for one", 1 << 30, 4 << 10, streams / 2, 0.5},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			var free int
			o := running(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", "max-age=3600")
				w.Header().Set("Content-Length", fmt.Sprint(size))
				w.Write(make([]byte, size))
			}, func(o *Optimizer, c *Config) {
				c.Cache.MaxMemoryMB, c.Guard.WriteTimeout = 50, 500*time.Millisecond
				if o != nil {
					free = holdable(o)
				}
			})
			fill, r := dial(t, o)
			for n := range streams {
				fmt.Fprintf(fill, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", n)
				if status, err := receive(r); status != 200 || err != nil {
					t.Fatal(status, err)
				}
			}
			conn, r := dial(t, o)
			io.WriteString(conn, http2.ClientPreface)
			framer := http2.NewFramer(conn, r)
			framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: tt.initial})
			if tt.initial == 0 {
				framer.WriteWindowUpdate(0, 1<<30)
			}
			for n := range streams {
				var block bytes.Buffer
				fields := hpack.NewEncoder(&block)
				for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", fmt.Sprint("/", n)}} {
					fields.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
				}
				framer.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*n + 1), BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
			}
			go func() {
				for err := error(nil); err == nil; time.Sleep(20 * time.Millisecond) {
					if err = framer.WriteWindowUpdate(0, tt.drip); tt.initial == 0 {
						for n := range uint32(streams) {
							err = framer.WriteWindowUpdate(2*n+1, tt.drip)
						}
					}
				}
			}()
			for ended := 0; ended < tt.ends; {
				f, err := framer.ReadFrame()
				if err != nil {
					t.Fatalf("%d streams have ended, must be %d: %v", ended, tt.ends, err)
				}
				if f.Header().Type == http2.FrameRSTStream {
					ended++
				}
			}
			least := int(tt.share * float64(free))
			for end := time.Now().Add(8 * time.Second); holdable(o) < least; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the cache has room for %d entries, must be %d: something is held", holdable(o), least)
				}
			}
		})
	}
}

// The line of a hit is the same, whichever path answers it: the fields that can't be
// are the time and how long it took.
func TestBothPathsLogTheSameLine(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "combined"} {
		var mu sync.Mutex
		var log bytes.Buffer
		var slow atomic.Int64
		o := running(t, plain, func(o *Optimizer, c *Config) {
			c.Telemetry.AccessLog, c.AccessLog = format, writer(func(b []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return log.Write(b) })
			if o != nil {
				serve := o.server.Handler
				o.server.Handler = func(ctx *fasthttp.RequestCtx) { slow.Add(1); serve(ctx) }
			}
		})
		conn, r := dial(t, o)
		send := func(request string) string {
			t.Helper()
			mu.Lock()
			log.Reset()
			mu.Unlock()
			io.WriteString(conn, request)
			resp, err := http.ReadResponse(r, &http.Request{Method: request[:strings.IndexByte(request, ' ')]})
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
				mu.Lock()
				line := log.String()
				mu.Unlock()
				if strings.HasSuffix(line, "\n") {
					return comparable(t, format, line)
				}
			}
			t.Fatal("no line")
			return ""
		}
		send("GET /a?b=c HTTP/1.1\r\nHost: API.test\r\n\r\n") // fills the cache
		for _, method := range []string{"GET", "HEAD"} {
			for _, fields := range []string{
				"", "Referer: http://a.test/\r\nUser-Agent: agent/1 (\"x\")\r\n", "USER-AGENT:\tagent\\2 \r\nreferer: \r\n", "User-Agent: \xff\r\nReferer: \xc3\xa4\r\n",
				"User-Agent: first\r\nUser-Agent: second\r\nReferer: first\r\nReferer: second\r\n",
			} {
				request := method + " /a?b=c HTTP/1.1\r\nHost: API.test\r\n" + fields
				before := slow.Load()
				fast := send(request + "\r\n")
				if slow.Load() != before {
					t.Fatalf("%q isn't answered by the fast path", request)
				}
				// This field has no part in the answer or the line, and isn't for the fast path.
				if other := send(request + "Pragma: x\r\n\r\n"); slow.Load() != before+1 || fast != other {
					t.Errorf("%q:\n%s, the other path\n%s", request, fast, other)
				}
			}
		}
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

var combinedTimes = regexp.MustCompile(`\[[^]]*\]| [0-9.]+\n$`)

// comparable is the line without what differs from request to request.
func comparable(t *testing.T, format, line string) string {
	t.Helper()
	if format == "combined" {
		return combinedTimes.ReplaceAllString(line, "")
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil || reflect.TypeOf(fields["seconds"]) != reflect.TypeFor[float64]() {
		t.Fatalf("%q: %v", line, err)
	}
	delete(fields, "time")
	delete(fields, "seconds")
	return fmt.Sprint(fields)
}
