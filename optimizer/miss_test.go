package optimizer_test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	"phasegate/optimizer"
)

// plainUpstream answers every request alike, and allocates nothing meanwhile.
func plainUpstream(t testing.TB) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go func() {
				request := make([]byte, 4<<10)
				for n := 0; ; {
					m, err := conn.Read(request[n:])
					if err != nil {
						return
					}
					if n += m; bytes.HasSuffix(request[:n], []byte("\r\n\r\n")) {
						n = 0
						conn.Write(answer)
					}
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// What a miss takes beside the upstream: its allocations above all, since they decide how
// often the collector runs within a bounded heap.
func BenchmarkMiss(b *testing.B) {
	cfg := optimizer.Config{Listen: "127.0.0.1:0"}
	cfg.Upstream.URL = plainUpstream(b)
	p := before(b, cfg)
	conn, err := net.Dial("tcp", p.o.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	answer, request := make([]byte, 8<<10), []byte(nil)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		request = fmt.Appendf(request[:0], "GET /new/%d HTTP/1.1\r\nHost: api.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", n)
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		for got := 0; got < 1024 || answer[got-1] != 'x' || answer[got-1024] != 'x'; {
			m, err := conn.Read(answer[got:])
			if err != nil {
				b.Fatal(err)
			}
			got += m
		}
	}
}
