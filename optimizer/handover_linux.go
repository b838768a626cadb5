package optimizer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A handover, between the running optimizer (the elder) and the one that is to replace
// it (the heir), over the unix socket at Config.Handover:
//
//  1. The heir connects. Each asks the kernel whether the other runs as the same user.
//  2. The elder sends an estate: one message with both listening sockets.
//  3. The heir serves, and puts a socket of its own at the path, for its own heir.
//  4. The heir says "serving". The elder drains, and its process ends.
//
// The listening sockets are never closed in between, so a connection that waits to be
// accepted is accepted by one or the other. Until 4 the elder serves as well; if the
// heir fails or dies before, it goes on as if nobody had asked.

// estate is what is handed over, beside the sockets: for clients, then for operators.
// The addresses are as the elder's configuration has them; the heir takes a socket
// whose address is its own.
type estate struct {
	Listen string `json:"listen"`
	Admin  string `json:"admin"`
}

const (
	serving = "serving" // the heir's word

	// How long each may take for its part; the elder is asked by nobody else meanwhile.
	estateTimeout = 5 * time.Second
	heirTimeout   = 10 * time.Second
)

// checkHandover says what is wrong with the path.
func checkHandover(path string) error {
	// The kernel's bound is 107; the heir's socket has a longer name at first.
	if most := 107 - len(newSocketName("")); len(path) > most {
		return fmt.Errorf("a path of %d bytes, must be at most %d", len(path), most)
	}
	return nil
}

func newSocketName(path string) string { return fmt.Sprintf("%s.%010d", path, os.Getpid()) }

// elder is what an optimizer at its start has from the one that runs; without one, the
// zero value.
type elder struct {
	conn      *net.UnixConn
	estate    estate
	listeners [2]net.Listener // in the order of estate's fields
}

// askElder gets the listening sockets of the optimizer that runs. refused says why a
// running one didn't give them; err, why the path can't be used at all.
func askElder(ctx context.Context, path string) (e elder, refused, err error) {
	if path == "" {
		return e, nil, nil
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return e, nil, nil
	case err != nil:
		return e, nil, fmt.Errorf("handover: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return e, nil, fmt.Errorf("handover: %s is there and isn't a socket; name another path, or remove it", path)
	}
	conn, err := (&net.Dialer{Timeout: estateTimeout}).DialContext(ctx, "unixpacket", path)
	switch {
	case errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist):
		return e, nil, nil // left by one that was killed
	case err != nil:
		return e, nil, fmt.Errorf("handover: ask the running optimizer: %w", err)
	}
	e.conn = conn.(*net.UnixConn)
	if err := sameUser(e.conn); err != nil {
		e.close()
		return elder{}, nil, fmt.Errorf("handover: %s is somebody else's: %w", path, err)
	}
	if refused = e.receive(); refused != nil {
		e.close()
		return elder{}, fmt.Errorf("handover by the running optimizer: %w", refused), nil
	}
	return e, nil, nil
}

// receive reads the estate.
func (e *elder) receive() error {
	_ = e.conn.SetDeadline(time.Now().Add(estateTimeout))
	text, rights := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(8*4))
	n, m, _, _, err := e.conn.ReadMsgUnix(text, rights)
	if errors.Is(err, io.EOF) {
		return errors.New("it hung up; its log says why")
	} else if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:m])
	if err != nil {
		return fmt.Errorf("read the sockets: %w", err)
	}
	var files []*os.File
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil {
			continue // no sockets; their number is checked below
		}
		for _, fd := range fds {
			file := os.NewFile(uintptr(fd), "handed over")
			defer file.Close() // a listener has a copy
			files = append(files, file)
		}
	}
	if err := json.Unmarshal(text[:n], &e.estate); err != nil {
		return fmt.Errorf("read what it says: %w", err)
	}
	if len(files) != len(e.listeners) {
		return fmt.Errorf("found %d sockets, must be %d", len(files), len(e.listeners))
	}
	for i, file := range files {
		if e.listeners[i], err = net.FileListener(file); err != nil {
			return fmt.Errorf("take socket %d: %w", i+1, err)
		}
		if _, ok := e.listeners[i].(*net.TCPListener); !ok {
			return fmt.Errorf("take socket %d: it listens on %s, must be TCP", i+1, e.listeners[i].Addr().Network())
		}
	}
	return nil
}

// listen takes the socket over that was configured with the same address, or opens one.
func (e *elder) listen(ctx context.Context, i int, address string) (net.Listener, error) {
	if l := e.listeners[i]; l != nil && [...]string{e.estate.Listen, e.estate.Admin}[i] == address {
		e.listeners[i] = nil
		return l, nil
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

// serving lets the elder go.
func (e *elder) serving() error {
	if e.conn == nil {
		return nil
	}
	_, err := e.conn.Write([]byte(serving))
	return err
}

// close gives up what wasn't taken.
func (e *elder) close() {
	if e.conn != nil {
		e.conn.Close()
	}
	for _, l := range e.listeners {
		if l != nil {
			l.Close()
		}
	}
}

// bequest is where an optimizer waits for its heir.
type bequest struct {
	*net.UnixListener
	name, path string
	own        fs.FileInfo

	mu     sync.Mutex
	closed bool // the optimizer leaves without an heir
}

// listenForHeir makes a socket that only this user may connect to, beside the path
// where publish puts it.
func listenForHeir(path string) (*bequest, error) {
	name := newSocketName(path)
	_ = os.Remove(name) // of a killed process that had the same number
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: name, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("handover: %w", err)
	}
	l.SetUnlinkOnClose(false) // by then the path may be the heir's
	b := &bequest{UnixListener: l, name: name, path: path}
	if err = os.Chmod(name, 0o600); err == nil {
		b.own, err = os.Lstat(name)
	}
	if err != nil {
		b.close()
		return nil, fmt.Errorf("handover: %w", err)
	}
	return b, nil
}

// publish puts the socket in place of what the elder or a killed process left there:
// whoever asks finds the one or the other.
func (b *bequest) publish() error {
	if err := os.Rename(b.name, b.path); err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	b.name = b.path
	return nil
}

// close removes the socket, unless an heir has put its own there.
func (b *bequest) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.Close()
	if there, err := os.Lstat(b.name); err == nil && (b.own == nil || os.SameFile(there, b.own)) {
		os.Remove(b.name)
	}
}

// waitForHeir hands over once. It ends when that is done, or b is closed.
func (o *Optimizer) waitForHeir(b *bequest) {
	for {
		conn, err := b.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			if err = o.handOver(b, conn); err == nil {
				close(o.handedOver)
				return
			}
		}
		o.cfg.Logger.Warn("handover failed", "error", err)
		select {
		case <-time.After(100 * time.Millisecond): // want of descriptors, for one, stays for a while
		case <-o.handler.ctx.Done():
		}
	}
}

// handOver gives the listening sockets to an heir, and waits until it serves.
func (o *Optimizer) handOver(b *bequest, conn *net.UnixConn) error {
	defer conn.Close()
	if err := sameUser(conn); err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(heirTimeout))
	defer context.AfterFunc(o.handler.ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	text, err := json.Marshal(estate{Listen: o.cfg.Listen, Admin: o.cfg.Admin.Listen})
	if err != nil {
		return err
	}
	clients, err := b.listener(o)
	if err != nil {
		return err
	}
	err = send(conn, text, clients, o.adminListener.(*net.TCPListener))
	clients.Close() // which is known to Go's poller, and would wake it for every client
	if err != nil {
		return fmt.Errorf("send the sockets: %w", err)
	}
	answer := make([]byte, len(serving)+1)
	n, err := conn.Read(answer)
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the new process gave up; its log says why")
	case err != nil:
		return fmt.Errorf("wait until the new process serves: %w", err)
	case string(answer[:n]) != serving:
		return fmt.Errorf("the new process said %q, must be %q", answer[:n], serving)
	}
	return nil
}

// listener is the socket for clients, while it is certain to be there.
func (b *bequest) listener(o *Optimizer) (*os.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errors.New("this process leaves already")
	}
	return o.clients.File()
}

// send sends text with sockets. It has them by way of Control, which leaves them as they
// are: File.Fd may make a socket blocking, for all who have it.
func send(conn *net.UnixConn, text []byte, first, second syscall.Conn) error {
	a, err := first.SyscallConn()
	if err != nil {
		return err
	}
	b, err := second.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	failed := a.Control(func(a uintptr) {
		failed := b.Control(func(b uintptr) {
			_, _, sent = conn.WriteMsgUnix(text, unix.UnixRights(int(a), int(b)), nil)
		})
		sent = errors.Join(sent, failed)
	})
	return errors.Join(sent, failed)
}

// sameUser asks the kernel who is at the other end.
func sameUser(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	if failed := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); failed != nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("ask whose process it is: %w", err)
	}
	if us := os.Geteuid(); int(peer.Uid) != us {
		return fmt.Errorf("process %d runs as user %d, must be %d", peer.Pid, peer.Uid, us)
	}
	return nil
}
