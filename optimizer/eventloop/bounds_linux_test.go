package eventloop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T, cfg Config) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(l.(*net.TCPListener), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// fixed answers "fast" in place with n bytes.
func fixed(n int) func() Reply {
	answer := bytes.Repeat([]byte("a"), n)
	return func() Reply {
		return func(out, head []byte, _ *Conn) ([]byte, bool) {
			return append(out, answer...), string(head) == "fast\r\n\r\n"
		}
	}
}

// Answers that wait for clients who don't read are bounded in sum: beyond that requests
// are lent. Nothing of it is left when the clients have gone.
func TestAnswersThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	const size, bound, clients = 200 << 10, 500 << 10, 10
	var lent atomic.Int64
	s := listen(t, Config{Replier: fixed(size), MaxUnsent: bound, Serve: func(c *Conn) { lent.Add(1); c.Close() }})
	if err := unix.SetsockoptInt(s.listener, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10); err != nil { // connections inherit it
		t.Fatal(err)
	}
	within := func(what string, condition func() bool) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); !condition(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s; %d connections, %d bytes wait, %d requests were lent", what, s.open.Load(), s.unsent.Load(), lent.Load())
			}
		}
	}
	var all []net.Conn
	for range clients {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		waiting, before := s.unsent.Load(), lent.Load()
		io.WriteString(c, "fast\r\n\r\n")
		within("an answer that waits, or a loan", func() bool { return s.unsent.Load() > waiting || lent.Load() > before })
		if full := waiting >= bound; full != (lent.Load() > before) {
			t.Errorf("with %d bytes waiting, lent: %v", waiting, !full)
		}
	}
	if n := lent.Load(); n == 0 || n == clients {
		t.Errorf("%d of %d requests were lent", n, clients)
	}
	for _, c := range all {
		c.Close()
	}
	within("nothing is left", func() bool { return s.open.Load() == 0 && s.unsent.Load() == 0 })
}

// A client that takes a little of its answer, again and again, isn't one that takes it,
// however it is answered. What it says meanwhile tells when it has been left.
func TestAClientThatTakesALittleIsLeft(t *testing.T) {
	t.Parallel()
	small := func(_, _ string, raw syscall.RawConn) (err error) { // so that every bit that was taken makes room here
		failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) })
		return errors.Join(failed, err)
	}
	s := listen(t, Config{Replier: fixed(200 << 10), Stuck: 600 * time.Millisecond, Serve: func(c *Conn) {
		defer c.Close()
		for piece := make([]byte, 4<<10); ; {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	}})
	if err := unix.SetsockoptInt(s.listener, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10); err != nil { // connections inherit it
		t.Fatal(err)
	}
	for _, kind := range []string{"fast", "lent"} {
		c, err := (&net.Dialer{Control: small}).Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, kind+"\r\n\r\n")
		for err = nil; err == nil; time.Sleep(50 * time.Millisecond) {
			if _, err = io.CopyN(io.Discard, c, 512); err == nil {
				_, err = io.WriteString(c, "x")
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: it isn't left", kind)
		}
	}
}

// Without a descriptor to spare nobody is accepted for a while; whoever waits is served
// as soon as there is one. The limit is the process's, so nothing runs beside this.
func TestWantOfDescriptorsPasses(t *testing.T) {
	var log lines
	s := listen(t, Config{Replier: fixed(3), Serve: func(c *Conn) { c.Close() }, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	before, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	ask := func(c io.ReadWriter) error {
		fmt.Fprint(c, "fast\r\n\r\n")
		_, err := io.ReadFull(c, make([]byte, 3))
		return err
	}
	if err := ask(before); err != nil {
		t.Fatal(err)
	}
	// The client's end needs a descriptor too; it is there before the limit falls.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	client := os.NewFile(uintptr(fd), "client")
	defer client.Close()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = uint64(fd) + 8
	var taken []int
	giveBack := func() {
		for _, fd := range taken {
			unix.Close(fd)
		}
		taken = nil
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	defer giveBack()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	for {
		fd, err := unix.Dup(fd)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: s.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); strings.Count(log.String(), "too many open files") < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it isn't tried again; the log: %q", log.String())
		}
	}
	if err := ask(before); err != nil {
		t.Errorf("a client that was there: %v", err)
	}
	giveBack()
	answered := make(chan error, 1)
	go func() { answered <- ask(client) }()
	select {
	case err := <-answered:
		if err != nil {
			t.Errorf("the client that waited: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the client that waited isn't served")
		unix.Shutdown(fd, unix.SHUT_RDWR)
		<-answered
	}
	if n := strings.Count(log.String(), "\n"); n > 40 {
		t.Errorf("%d lines in the log", n)
	}
}

// lines is a log that is read while it is written.
type lines struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}
