//go:build linux && !race

package wire

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below never wait, whatever the mode of the descriptor, and end
// within microseconds. They go past the Go scheduler's entry into a system call:
// it would hand the processor to another thread and want one back afterwards,
// which costs more than the call.

// receive reads what has arrived.
func receive(fd uintptr, p []byte) (int, error) {
	n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_DONTWAIT, 0, 0)
	runtime.KeepAlive(p)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// callMax bounds what one call copies, in bytes: until it returns, nothing else
// runs on its processor, and a collection of garbage waits for it.
const callMax = 256 << 10

// transmit writes what the kernel takes of p, at most callMax bytes.
func transmit(fd uintptr, p []byte) (int, error) {
	p = p[:min(len(p), callMax)]
	n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	runtime.KeepAlive(p)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// ready asks without waiting whether one of the events holds, or the socket is
// broken.
func ready(fd uintptr, events int16) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	var now unix.Timespec
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		if e == unix.EINTR {
			continue
		}
		return e != 0 || n > 0
	}
}
