package eventloop

import (
	"errors"
	"io"
	"net"
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
