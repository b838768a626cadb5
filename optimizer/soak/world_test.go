package soak

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const objects = 600

// world is what the upstream has, and how it fails.
type world struct {
	version [objects]atomic.Int64 // what the upstream answers with
	floor   [objects]atomic.Int64 // the least that an answer may be, since a purge that returned
	faults  atomic.Int64          // in a thousand requests
	planted atomic.Int64          // faults so far
}

// size is an object's: mostly small, some beyond what the event loop answers, some
// beyond what is stored.
func size(i int) int {
	switch {
	case i%50 == 49:
		return 2_500_000
	case i%10 == 9:
		return 150_000 + i*100
	}
	return 100 + i*37
}

// body is an object's, which says whose and how old it is.
func body(i int, version int64) []byte {
	line := fmt.Appendf(nil, "%d %d|", i, version)
	return bytes.Repeat(line, size(i)/len(line)+1)[:size(i)]
}

func etag(i int, version int64) string { return fmt.Sprintf(`"%d-%d"`, i, version) }

func lifetime(i int) string {
	switch i % 8 {
	case 0:
		return "max-age=1"
	case 1:
		return "max-age=1, stale-while-revalidate=2, stale-if-error=20"
	case 2:
		return "max-age=2, stale-if-error=20"
	case 3:
		return "no-store"
	}
	return "max-age=30"
}

// ServeHTTP is the upstream.
func (w *world) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	i, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/o/"))
	if err != nil || i < 0 || i >= objects {
		http.NotFound(out, r)
		return
	}
	if r.Method == http.MethodPost {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(out, n)
		return
	}
	version := w.version[i].Load()
	content := body(i, version)
	header := out.Header()
	header.Set("Cache-Control", lifetime(i))
	header.Set("Etag", etag(i, version))
	if rand.Int64N(1000) < w.faults.Load() {
		w.planted.Add(1)
		switch rand.IntN(4) {
		case 0:
			header.Set("Cache-Control", "no-store")
			out.WriteHeader(http.StatusServiceUnavailable)
		case 1: // hangs, for longer than the optimizer waits
			select {
			case <-r.Context().Done():
			case <-time.After(2 * time.Second):
			}
		case 2: // stops mid-body
			if i%2 == 0 {
				header.Set("Content-Length", strconv.Itoa(len(content)))
			}
			out.Write(content[:len(content)/2])
			out.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		default:
			if conn, _, err := out.(http.Hijacker).Hijack(); err == nil {
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}
		}
		return
	}
	if r.Header.Get("If-None-Match") == etag(i, version) {
		out.WriteHeader(http.StatusNotModified)
		return
	}
	if i%3 > 0 { // the others are chunked, if they are long
		header.Set("Content-Length", strconv.Itoa(len(content)))
	}
	out.Write(content)
}

// check says what is wrong with an answer's bytes, from first on, of a request that
// began when the floor was at least.
func check(i int, least int64, content []byte, first int, whole bool) error {
	if whole {
		line, _, _ := strings.Cut(string(content[:min(len(content), 40)]), "|")
		var j int
		var version int64
		if _, err := fmt.Sscanf(line, "%d %d", &j, &version); err != nil || j != i {
			return fmt.Errorf("asked for object %d, got %q", i, line)
		}
		if version < least {
			return fmt.Errorf("object %d is of version %d, which was purged: %d is the least", i, version, least)
		}
		if !bytes.Equal(content, body(i, version)) {
			return fmt.Errorf("object %d, version %d: %d bytes, some of them wrong; it has %d", i, version, len(content), size(i))
		}
		return nil
	}
	// A part is one of some version that is allowed; a few are tried.
	for version := least; version < least+20; version++ {
		if all := body(i, version); first+len(content) <= len(all) && bytes.Equal(content, all[first:first+len(content)]) {
			return nil
		}
	}
	return fmt.Errorf("object %d: bytes %d to %d are of no version from %d on", i, first, first+len(content), least)
}
