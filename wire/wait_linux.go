//go:build linux && !race

package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawCalls tells whether the calls go past the scheduler.
const rawCalls = true

// rawWait waits at most limit milliseconds and keeps its processor meanwhile. It
// returns the number of events, -1 after a signal. The scheduler sends one when
// it wants the processor back, as for a collection of garbage.
func (p *Poller) rawWait(limit int) int {
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), eventsMax,
		uintptr(limit), 0, 0)
	if e != 0 {
		return -1
	}
	return int(n)
}
