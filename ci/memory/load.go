package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// origin is the upstream: /d/N has 1 KiB, /m/N a size of its own.
type origin struct {
	listener net.Listener
	server   *fasthttp.Server
	storable atomic.Bool
	asked    atomic.Int64
	bytes    []byte
}

const largest = 5_000_000

func newOrigin() (*origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the upstream: %w", err)
	}
	o := &origin{listener: l, bytes: make([]byte, largest)}
	for i := range o.bytes {
		o.bytes[i] = byte('a' + i%26)
	}
	o.server = &fasthttp.Server{NoDefaultServerHeader: true, Handler: func(ctx *fasthttp.RequestCtx) {
		path := string(ctx.Path())
		if !o.storable.Load() {
			ctx.Response.Header.Set("Cache-Control", "no-store")
			return
		}
		if strings.HasPrefix(path, "/d/") || strings.HasPrefix(path, "/m/") {
			o.asked.Add(1)
		}
		ctx.Response.Header.Set("Cache-Control", "max-age=3600")
		ctx.Response.Header.Set("ETag", strconv.Quote(path))
		ctx.SetContentType("application/json")
		ctx.Response.SetBodyRaw(o.bytes[:sizeOf(path)])
	}}
	go o.server.Serve(l)
	return o, nil
}

func (o *origin) address() string { return o.listener.Addr().String() }

// answerWith has it answer with objects, or with nothing that may be stored.
func (o *origin) answerWith(objects bool) { o.storable.Store(objects) }

func (o *origin) close() { o.server.Shutdown() }

// sizeOf is the size of the object with the path.
func sizeOf(path string) int {
	if !strings.HasPrefix(path, "/m/") {
		return 1024
	}
	h := fnv.New64a()
	io.WriteString(h, path)
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	return int(100 * math.Pow(largest/100, r.Float64()))
}

// zipf draws paths of n requests.
func zipf(n, universe int) []string {
	r := rand.New(rand.NewPCG(7, 11))
	sum := make([]float64, universe)
	total := 0.0
	for i := range sum {
		total += 1 / float64(i+1)
		sum[i] = total
	}
	draw := func() int {
		x, low, high := r.Float64()*total, 0, universe-1
		for low < high {
			if mid := (low + high) / 2; sum[mid] < x {
				low = mid + 1
			} else {
				high = mid
			}
		}
		return low
	}
	names := make([]int, universe)
	for i := range names {
		names[i] = i
	}
	next := universe
	paths := make([]string, n)
	for i := range paths {
		if i%50 == 0 {
			names[draw()] = next
			next++
		}
		paths[i] = "/d/" + strconv.Itoa(names[draw()])
	}
	return paths
}

const connections = 64

// client asks a system.
type client struct{ address string }

// answers is what came of some requests.
type answers struct {
	whole, failed int   // failed: with another status than 200
	payload       int64 // bytes of what came whole
}

// ask asks for each path once, in that order but for what is on its way at once.
func (c client) ask(ctx context.Context, paths []string) (answers, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, count, failed, bytes atomic.Int64
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(paths)); i = next.Add(1) - 1 {
				conn, err := net.Dial("tcp", c.address)
				if err != nil {
					cancel(fmt.Errorf("connect: %w", err))
					return
				}
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				r := bufio.NewReaderSize(conn, 64<<10)
				for ; i < int64(len(paths)); i = next.Add(1) - 1 {
					conn.SetDeadline(time.Now().Add(time.Minute))
					var n int64
					if n, err = get(conn, r, paths[i]); err != nil {
						break
					}
					if n == int64(sizeOf(paths[i])) {
						count.Add(1)
						bytes.Add(n)
					}
				}
				stop()
				conn.Close()
				var status statusError
				switch {
				case errors.As(err, &status):
					failed.Add(1) // and on, over another connection
				case err != nil:
					cancel(fmt.Errorf("GET %s: %w", paths[i], err))
					return
				}
			}
		})
	}
	wg.Wait()
	return answers{whole: int(count.Load()), failed: int(failed.Load()), payload: bytes.Load()}, context.Cause(ctx)
}

// statusError is an answer that isn't 200.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("status %d", int(e)) }

func get(conn net.Conn, r *bufio.Reader, path string) (int64, error) {
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: bench.test\r\n\r\n"); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, statusError(resp.StatusCode)
	}
	return io.Copy(io.Discard, resp.Body)
}
