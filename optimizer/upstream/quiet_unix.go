//go:build unix

package upstream

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// quiet reports whether nothing is there to read on a connection, not even its end.
func quiet(c net.Conn) bool {
	switch c := c.(type) {
	case interface{ HasNews() bool }: // adopted
		return !c.HasNews()
	case syscall.Conn:
		raw, err := c.SyscallConn()
		if err != nil {
			return false
		}
		nothing := false
		err = raw.Read(func(fd uintptr) bool {
			var b [1]byte
			_, _, failed := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			nothing = failed == unix.EAGAIN
			return true
		})
		return err == nil && nothing
	}
	return true
}
