package eventloop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A request that the thread hasn't been told of when it closes what is silent is
// answered all the same. The test is the thread, so nothing is told.
func TestARequestThatCameBeforeTheCloseIsAnswered(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	file, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := &Server{cfg: Config{
		Replier: func() Reply { return func(out, _ []byte, _ *Conn) ([]byte, bool) { return out, false } },
		Serve: func(c *Conn) {
			defer c.Close()
			if n, _ := c.Read(make([]byte, 64)); n == len("request") {
				io.WriteString(c, "answer")
			}
		},
	}.withDefaults()}
	raw, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if failed := raw.Control(func(fd uintptr) { s.listener, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); errors.Join(failed, err) != nil {
		t.Fatal(failed, err)
	}
	defer unix.Close(s.listener)
	l, err := newLoop(s)
	if err != nil {
		t.Fatal(err)
	}
	defer l.free()
	s.loops = []*loop{l}

	clients := make([]net.Conn, 2)
	for i := range clients {
		if clients[i], err = net.Dial("tcp", tcp.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer clients[i].Close()
		clients[i].SetDeadline(time.Now().Add(10 * time.Second))
	}
	l.now = time.Now()
	l.accept()
	if _, err := io.WriteString(clients[0], "request"); err != nil {
		t.Fatal(err)
	}
	s.draining.Store(true)
	l.sweep()
	s.lent.Wait()
	for i, want := range []string{"answer", ""} {
		if got, err := io.ReadAll(clients[i]); err != nil || string(got) != want {
			t.Errorf("client %d: %q, %v, must be %q", i, got, err, want)
		}
	}
	if n := s.open.Load(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
}

// A connection may have two turns in one pass: it was given back, and there is news of it. The
// second one neither ends it before the answer of the first has left, for whom its descriptor
// is by then, nor has its own answer overtake that. The test is the thread.
func TestTwoTurnsInOnePass(t *testing.T) {
	t.Parallel()
	const request = "GET / HTTP/1.1\r\n\r\n"
	const size = flushSize / 3 // of an answer: it waits for the end of the pass
	for name, second := range map[string]func(client int){
		"the client says no more": func(client int) { unix.Shutdown(client, unix.SHUT_WR) },
		"a second request":        func(client int) { unix.Write(client, []byte(request)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			client := pair[1]
			if err := unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil { // the kernel takes it in parts
				t.Fatal(err)
			}
			defer unix.Close(client)
			var want []byte
			s := &Server{cfg: Config{}.withDefaults()}
			l := &loop{server: s, now: time.Now(), in: make([]byte, readSize), reply: func(out, _ []byte, _ *Conn) ([]byte, bool) {
				answer := bytes.Repeat([]byte{byte('a' + len(want)/size)}, size)
				want = append(want, answer...)
				return append(out, answer...), true
			}}
			c := &Conn{fd: pair[0], loop: l}
			s.table.set(c.fd, c)
			defer c.release()
			unix.Write(client, []byte(request))
			l.tellConn(c, unix.EPOLLIN)
			second(client)
			l.tellConn(c, unix.EPOLLIN)
			l.flush()
			var got []byte
			buffer := make([]byte, size)
			for range 1000 { // more than parts that it may come in
				n, _ := unix.Read(client, buffer)
				got = append(got, buffer[:max(0, n)]...)
				l.tellConn(c, unix.EPOLLOUT)
				l.flush()
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes, must be %d, the first as they are", len(got), len(want))
			}
		})
	}
}

// What is told to who has a connection isn't lost: neither that he is to leave, if his
// goroutine hasn't begun, nor that he is cut off, if he sets a deadline of his own.
func TestWhoHasAConnectionIsTold(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		tell func(*Conn)
		read error
	}{
		"leave":   {func(c *Conn) { c.leave(true) }, os.ErrDeadlineExceeded},
		"cut off": {func(c *Conn) { c.cutOff(); c.SetDeadline(time.Time{}) }, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(pair[1])
			told := make(chan error, 1)
			s := &Server{cfg: Config{Serve: func(c *Conn) {
				_, err := c.Read(make([]byte, 1))
				told <- err
			}}.withDefaults()}
			c := &Conn{fd: pair[0], loop: &loop{server: s}, reading: waiter{news: make(chan struct{}, 1)}, writing: waiter{news: make(chan struct{}, 1)}}
			c.state.Store(lent)
			defer c.release()
			tt.tell(c)
			go c.serve()
			select {
			case err := <-told:
				if !errors.Is(err, tt.read) {
					t.Errorf("he read %v, must be %v", err, tt.read)
				}
			case <-time.After(20 * time.Second):
				t.Error("he waits")
			}
		})
	}
}

// A loop that has ended leaves descriptors alone that were its own: they are somebody
// else's by then.
func TestAnEndedLoopTouchesNothing(t *testing.T) {
	t.Parallel()
	l := &loop{server: &Server{}}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	l.epoll, l.event = pipe[0], pipe[1]
	copied, err := unix.FcntlInt(uintptr(pipe[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	again, err := unix.FcntlInt(uintptr(pipe[1]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(again)
	l.free()
	l.event = again // as if it had got the old number
	l.free()
	l.post(nil)
	if n, err := unix.Read(copied, make([]byte, 8)); err != unix.EAGAIN {
		t.Errorf("%d bytes were written (%v)", n, err)
	}
	if _, err := unix.FcntlInt(uintptr(again), unix.F_GETFD, 0); err != nil {
		t.Errorf("the descriptor was closed: %v", err)
	}
}
