//go:build !linux || race

package wire

import "golang.org/x/sys/unix"

// These are the calls of calls_linux.go for other systems, and for the race
// detector, which learns through them what the kernel writes.

func receive(fd uintptr, p []byte) (int, error) { return unix.Read(int(fd), p) }

func transmit(fd uintptr, p []byte) (int, error) { return unix.Write(int(fd), p) }

func ready(fd uintptr, events int16) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(fds[:], 0)
		if err == unix.EINTR {
			continue
		}
		return err != nil || n > 0
	}
}
