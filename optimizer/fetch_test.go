package optimizer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
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
		h := &handler{maxBuffered: available}
		r := &room{h: h}
		if !r.take(minBuffer) {
			t.Fatal("no room at all")
		}
		pieces, end, err := collect(tt.body, tt.limit, r)
		if end != tt.end || !errors.Is(err, tt.err) {
			t.Errorf("%s: end %v, error %v", tt.why, end, err)
		}
		held := 0
		for _, piece := range pieces {
			held += cap(piece)
		}
		if int64(2*held) > h.buffered.Load() || h.buffered.Load() > available {
			t.Errorf("%s: twice %d bytes are held, %d are taken of %d", tt.why, held, h.buffered.Load(), available)
		}
		if r.free(); h.buffered.Load() != 0 {
			t.Errorf("%s: %d bytes are never given back", tt.why, h.buffered.Load())
		}
	}
}

// A confirmed response keeps its body where it is: many of them confirmed at once
// must not need the memory twice.
func TestA304SharesTheBody(t *testing.T) {
	t.Parallel()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=0")
		w.Header().Set("ETag", `"e"`)
		if r.Header.Get("If-None-Match") == `"e"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(make([]byte, 10_000))
	}))
	defer api.Close()
	cfg := Config{Listen: "127.0.0.1:0"}
	cfg.Upstream.URL = api.URL
	o, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer o.Stop(t.Context())
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var seen []*object
	for range 3 {
		resp, err := client.Get("http://" + o.Addr().String() + "/x")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		stored, _ := o.handler.store.cache.Peek([]byte(o.Addr().String() + "/x"))
		seen = append(seen, stored)
	}
	first, last := seen[0], seen[2]
	if first == last || len(last.body) != 10_000 || &first.body[0] != &last.body[0] {
		t.Fatalf("want another object with the same body, found %d bytes", len(last.body))
	}
	if extra := last.size(0) - first.size(0); extra <= 0 || extra != seen[1].size(0)-first.size(0) {
		t.Errorf("after two confirmations it costs %d bytes more, after one %d", extra, seen[1].size(0)-first.size(0))
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
		{&upstream.OpenError{RetryAfter: time.Second}, 503}, {errUpstreamTimeout, 504}, {errClientTimeout, 408}, {upstream.ErrRequestBody, 400}, {io.ErrUnexpectedEOF, 502},
		{fmt.Errorf("ask: %w", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}), 504}, {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, 502},
	} {
		if got, _ := gatewayStatus(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}
