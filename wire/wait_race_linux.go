//go:build linux && race

package wire

import "golang.org/x/sys/unix"

const rawCalls = false

// rawWait is an ordinary wait under the race detector.
func (p *Poller) rawWait(limit int) int {
	n, err := unix.EpollWait(p.fd, p.events, limit)
	if err != nil {
		return -1
	}
	return n
}
