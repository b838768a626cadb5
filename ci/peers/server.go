package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"phasegate/fixtures/upstream/wire"
)

// The one resource: 1 KiB whose header describes it as the mock upstream's
// would, so that our generator verifies every answer.
const path = "/item"

func resource() (description string, body []byte) {
	body = make([]byte, 1024)
	for i := range body {
		body[i] = byte('a' + i%26)
	}
	d := wire.Description{Key: path, Version: 1, Birth: time.Now().Truncate(time.Microsecond), Status: http.StatusOK, Fresh: time.Hour}
	return d.Seal(body), body
}

// serve is the server: it prints its address, and serves until it is told to
// stop. With --stall it answers nothing for so long, from --after the first
// request on, whatever connections there are, and then whoever waits in the order
// of arrival: the stall is then all that the schedule's latencies have in them.
// Answered in any order, as handlers wake that slept until its end, a request of
// the stall's beginning could come last, and latency had the burst in it too.
func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	stall := flags.Duration("stall", 0, "length of the stall")
	after := flags.Duration("after", 0, "when it begins, from the first request on")
	fresh := flags.Bool("fresh", false, "let caches keep what is served, for an hour")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	description, body := resource()
	if *stall == 0 {
		// As fast as it gets: the generators are what is measured.
		s := &fasthttp.Server{NoDefaultDate: !*fresh, Handler: func(c *fasthttp.RequestCtx) {
			if *fresh {
				c.Response.Header.Set("Cache-Control", "max-age=3600")
			}
			c.Response.Header.Set(wire.Header, description)
			c.Response.SetBodyRaw(body)
		}}
		context.AfterFunc(ctx, func() { os.Exit(0) })
		return s.Serve(l)
	}
	var begin time.Time
	var last chan struct{} // closed when the last to arrive is answered
	var mu sync.Mutex
	s := &http.Server{Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000}}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answered := make(chan struct{})
		defer close(answered)
		mu.Lock()
		before := last
		if last = answered; before == nil {
			begin = time.Now()
		}
		mu.Unlock()
		if before != nil {
			<-before
		}
		if at := time.Since(begin); at >= *after && at < *after+*stall {
			time.Sleep(*after + *stall - at)
		}
		w.Header().Set(wire.Header, description)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
		_ = http.NewResponseController(w).Flush() // before the next one's turn
	})
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
