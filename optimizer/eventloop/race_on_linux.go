//go:build race && linux

package eventloop

import "syscall"

// zero takes and gives bytes at no cost.
var zero, _ = syscall.Open("/dev/zero", syscall.O_RDWR|syscall.O_CLOEXEC, 0)

// acquired and releasing tell the race detector, around a bare system call, what
// reads and writes by way of package syscall tell it: what a peer in this process
// did before it wrote has happened before we read it, and the other way round.
func acquired()  { _, _ = syscall.Read(zero, make([]byte, 1)) }
func releasing() { _, _ = syscall.Write(zero, make([]byte, 1)) }
