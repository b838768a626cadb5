package optimizer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"phasegate/optimizer/upstream"
)

func TestCollectTakesNoMoreThanThereIsRoomFor(t *testing.T) {
	t.Parallel()
	const available = 300_000
	broken := errors.New("broken")
	for _, tt := range []struct {
		why   string
		body  io.Reader
		limit int64
		end   bool
		err   error
	}{
		{"empty", bytes.NewReader(nil), 1 << 20, true, nil},
		{"fits", bytes.NewReader(make([]byte, 100_000)), 1 << 20, true, nil},
		{"comes byte by byte", iotest.OneByteReader(bytes.NewReader(make([]byte, 5000))), 1 << 20, true, nil},
		{"as long as the limit", bytes.NewReader(make([]byte, 4096)), 4096, true, nil},
		{"longer than the limit", bytes.NewReader(make([]byte, 4097)), 4096, false, nil},
		{"longer than there is room for", bytes.NewReader(make([]byte, 1<<20)), 1 << 20, false, nil},
		{"cut off", io.MultiReader(bytes.NewReader(make([]byte, 10)), iotest.ErrReader(io.ErrUnexpectedEOF)), 1 << 20, false, io.ErrUnexpectedEOF},
		{"broken", iotest.ErrReader(broken), 1 << 20, false, broken},
	} {
		var taken atomic.Int64
		r := &room{used: &taken, limit: available}
		pieces, end, err := collect(tt.body, tt.limit, r)
		if end != tt.end || !errors.Is(err, tt.err) {
			t.Errorf("%s: end %v, error %v", tt.why, end, err)
		}
		held := 0
		for _, piece := range pieces {
			held += cap(piece)
		}
		if int64(held) > taken.Load() || taken.Load() > available {
			t.Errorf("%s: %d bytes are held, %d are taken of %d", tt.why, held, taken.Load(), available)
		}
		if r.free(); taken.Load() != 0 {
			t.Errorf("%s: %d bytes are never given back", tt.why, taken.Load())
		}
	}
}

// A body of unknown length is stored up to the length up to which one of known length is;
// what is longer, or finds no room, is passed on whole, and nobody waits for the next.
func TestBodiesOfUnknownLength(t *testing.T) {
	t.Parallel()
	all := make([]byte, 10e6)
	for i := range all {
		all[i] = byte(i>>16 + i*7)
	}
	longest := func(h *handler) int64 { return h.maxBody }
	onHeap := func(h *handler) int64 { return h.maxBuffered / 4 * 3 }
	for _, tt := range []struct {
		why           string
		size          func(h *handler) int64
		arriving      int64 // share of what may arrive that others have
		buffered      int64 // and of what may be on the heap
		err           error // of the upstream, at the end
		stored, noted bool
	}{
		{"on the heap", onHeap, 0, 0, io.EOF, true, false},
		{"more than there is room for on the heap", func(h *handler) int64 { return h.maxBuffered + 1e6 }, 0, 0, io.EOF, true, false},
		{"the longest", longest, 0, 0, io.EOF, true, false},
		{"longer", func(h *handler) int64 { return h.maxBody + 1 }, 0, 0, io.EOF, false, true},
		{"much longer", func(h *handler) int64 { return h.maxBody + 1e6 }, 0, 0, io.EOF, false, true},
		{"the arena's room is others'", longest, 1, 0, io.EOF, false, true},
		{"part of the heap's is others'", onHeap, 0, 40, io.EOF, true, false},
		{"most of the heap's is others'", onHeap, 0, 90, io.EOF, false, false},
		{"cut off", longest, 0, 0, io.ErrUnexpectedEOF, false, false},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			var body []byte
			r := newRig(t, func(req *http.Request) (*http.Response, error) {
				resp := respond(req, 200, "", "Cache-Control: max-age=60")
				resp.Header.Del("Content-Length")
				source := io.MultiReader(bytes.NewReader(body), iotest.ErrReader(tt.err))
				if tt.err == io.EOF {
					source = iotest.DataErrReader(source)
				}
				resp.ContentLength, resp.Body = -1, io.NopCloser(source)
				return resp, nil
			})
			body = all[:tt.size(r.h)]
			arriving, buffered := r.h.maxArriving*tt.arriving, r.h.maxBuffered*tt.buffered/100
			r.h.arriving.Store(arriving)
			r.h.buffered.Store(buffered)
			free := holdable(&Optimizer{handler: r.h})
			for range 2 {
				if a := r.do("GET", "/x"); (a.body != string(body) || a.status != 200) && tt.err == io.EOF || tt.err != io.EOF && a.status != 502 {
					t.Fatalf("status %d, %d bytes of %d", a.status, len(a.body), len(body))
				}
			}
			if stored := r.asks() == 1; stored != tt.stored {
				t.Errorf("stored %v", stored)
			}
			note := r.h.store.peek([]byte("api.test/x"))
			if noted := note != nil && note.kind == passing; noted != tt.noted {
				t.Errorf("noted %v", noted)
			}
			note.release()
			if b := r.h.store.cache.Stats().Bytes; tt.stored && b > int64(len(body))+1000 {
				t.Errorf("%d bytes stored for %d", b, len(body))
			}
			if r.h.arriving.Load() != arriving || r.h.buffered.Load() != buffered {
				t.Errorf("%d bytes arriving, were %d; %d buffered, were %d", r.h.arriving.Load(), arriving, r.h.buffered.Load(), buffered)
			}
			if n := holdable(&Optimizer{handler: r.h}); n < free-1 {
				t.Errorf("room for %d entries, was %d: something is held", n, free)
			}
		})
	}
}

// What is passed on gives its room back as it leaves, and can be collected then.
func TestWhatHasLeftHasNoRoom(t *testing.T) {
	t.Parallel()
	var taken atomic.Int64
	const size, rest, largest = 300_000, 50_000, 32 << 10
	source := bytes.NewReader(make([]byte, size+rest))
	b := &prefixed{ReadCloser: io.NopCloser(source), room: &room{used: &taken, limit: size}}
	b.pieces, _, _ = collect(source, 1<<20, b.room)
	pieces := b.pieces
	left := size + rest
	for buffer := make([]byte, 1000); ; {
		n, err := b.Read(buffer)
		if left -= n; err != nil {
			break
		}
		if most := max(0, int64(left-source.Len())) + largest; taken.Load() > most {
			t.Fatalf("%d bytes have room, to come are %d", taken.Load(), left)
		}
	}
	for i, piece := range pieces {
		if piece != nil {
			t.Errorf("piece %d is never collected", i)
		}
	}
	if left != 0 || taken.Load() != 0 {
		t.Errorf("%d bytes are missing, %d have room", left, taken.Load())
	}
}

// The pieces of a body aren't left to the collector, whether it is stored or passed on.
func TestPiecesAreUsedAgain(t *testing.T) {
	if raceDetector {
		t.Skip("sync.Pool drops items at random under the race detector")
	}
	whole, to := bytes.NewReader(make([]byte, 100*longestPiece)), make([]byte, 100*longestPiece)
	for name, use := range map[string]func(*prefixed){
		"stored":    func(b *prefixed) { join(to, b.pieces) },
		"passed on": func(b *prefixed) { io.ReadFull(b, to) },
		"closed":    func(*prefixed) {},
	} {
		if n := testing.AllocsPerRun(10, func() {
			whole.Seek(0, io.SeekStart)
			b := &prefixed{ReadCloser: io.NopCloser(whole), room: &room{used: new(atomic.Int64), limit: whole.Size() * 2}}
			b.pieces, _, _ = collect(whole, whole.Size(), b.room)
			if use(b); name != "stored" {
				b.Close()
			}
		}); n > 30 {
			t.Errorf("%s: %v allocations for 100 pieces", name, n)
		}
	}
}

// Who announces a body has no room for it before he sends it.
func TestReadAheadTakesRoomForWhatComes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size, limit, want int
		taken             int64
	}{{1, 0, 1, 0}, {512, 0, 512, 0}, {5000, 5000, 5000, 5000}, {smallBody, smallBody, smallBody, smallBody}, {smallBody, 10_000, 8192, 8192}, {5000, 100, 512, 0}} {
		var taken atomic.Int64
		come := 0
		source := bytes.NewReader(make([]byte, tt.size))
		body, err := readAhead(readerFunc(func(p []byte) (int, error) {
			if n := int(taken.Load()); n > 2*come {
				t.Errorf("%d of %d bytes have come, %d are taken", come, tt.size, n)
			}
			n, err := source.Read(p[:min(len(p), 100)])
			come += n
			return n, err
		}), tt.size, &room{used: &taken, limit: int64(tt.limit)})
		if err != nil || len(body) != tt.want || come != tt.want || taken.Load() != tt.taken {
			t.Errorf("%d bytes, room for %d: %d read, %d taken, %v", tt.size, tt.limit, len(body), taken.Load(), err)
		}
	}
	if _, err := readAhead(strings.NewReader("short"), 600, new(room)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a body that ends early: %v", err)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A confirmed response takes the place of the one that it confirms, body included, and
// nothing goes on holding what was answered from.
func TestA304ReplacesTheEntry(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("0123456789", 1_000)
	r := newRig(t, func(req *http.Request) (*http.Response, error) {
		if req.Header.Get("If-None-Match") == `"e"` {
			return respond(req, 304, "", `ETag: "e"`, "Cache-Control: max-age=0", "Foo: confirmed"), nil
		}
		return respond(req, 200, body, `ETag: "e"`, "Cache-Control: max-age=0"), nil
	})
	var sizes []int64
	for i := range 3 {
		a := r.do("GET", "/x")
		if a.body != body || (a.header.Get("Foo") == "confirmed") != (i > 0) {
			t.Fatalf("answer %d: %d bytes, %v", i+1, len(a.body), a.header)
		}
		if s := r.h.store.cache.Stats(); s.Entries != 1 {
			t.Fatalf("%d entries", s.Entries)
		}
		sizes = append(sizes, r.h.store.cache.Stats().Bytes)
	}
	if sizes[1] <= sizes[0] || sizes[2] != sizes[1] {
		t.Errorf("the entry costs %d bytes", sizes)
	}
}

// Without room for it a small body goes up as it comes, like a large one.
func TestRequestBodiesGoUpWithoutRoom(t *testing.T) {
	t.Parallel()
	var o *Optimizer
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprint(w, len(body), err, o.handler.buffered.Load())
	}))
	defer api.Close()
	cfg := Config{Listen: "127.0.0.1:0"}
	cfg.Upstream.URL = api.URL
	var err error
	if o, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := o.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer o.Stop(t.Context())
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for taken, want := range map[int64]string{0: "5000 <nil> 5000", o.handler.maxBuffered - 10: fmt.Sprint("5000 <nil> ", o.handler.maxBuffered-10)} {
		o.handler.buffered.Store(taken)
		resp, err := client.Post("http://"+o.Addr().String()+"/x", "a/b", bytes.NewReader(make([]byte, 5000)))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != want {
			t.Errorf("%d bytes taken: %q, want %q", taken, got, want)
		}
	}
}

func TestGatewayStatus(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want int
	}{
		{&upstream.OpenError{RetryAfter: time.Second}, 503}, {errUpstreamTimeout, 504}, {errClientTimeout, 408}, {upstream.ErrRequestBody, 400}, {upstream.ErrRequestHeaderTooLong, 431}, {io.ErrUnexpectedEOF, 502},
		{fmt.Errorf("ask: %w", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}), 504}, {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, 502},
	} {
		if got, _ := gatewayStatus(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

// What the pool says of a request that was never sent before its deadline is what the client
// and the log are told: 503 if others had every connection, 504 if the upstream had none ready.
func TestADeadlineBeforeARequestIsSent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why        string
		err        func(cause error) error
		status     int
		retryAfter string
		says       string
		counted    int // as a request to the upstream, and as an error of it
	}{
		{"others have every connection", func(error) error { return &upstream.BusyError{Waited: time.Second, RetryAfter: time.Second} }, 503, "1", "no connection became free", 0},
		{"the first one isn't ready", func(cause error) error { return fmt.Errorf("the first one isn't ready: %w", cause) }, 504, "", "the first one isn't ready: no answer in time", 1},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			r := newRig(t, func(req *http.Request) (*http.Response, error) {
				<-req.Context().Done()
				return nil, fmt.Errorf("ask upstream: %w", tt.err(context.Cause(req.Context())))
			}, func(c *Config) {
				c.Upstream.Timeout = time.Millisecond
				c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			a := r.do("GET", "/")
			if a.status != tt.status || a.header.Get("Retry-After") != tt.retryAfter || !strings.Contains(log.String(), tt.says) {
				t.Errorf("%d, Retry-After %q, log %s", a.status, a.header.Get("Retry-After"), log.String())
			}
			w := httptest.NewRecorder()
			r.h.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			for _, name := range []string{"requests", "errors"} {
				if line := fmt.Sprintf("\noptimizer_upstream_%s_total %d\n", name, tt.counted); !strings.Contains(w.Body.String(), line) {
					t.Errorf("no %q", line)
				}
			}
		})
	}
}
