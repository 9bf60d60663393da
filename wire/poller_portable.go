//go:build !linux

package wire

import "errors"

// PollerSupported tells whether NewPoller can succeed on this system.
const PollerSupported = false

// Poller is made on Linux only; elsewhere nobody has one.
type Poller struct{}

// Ready is a socket that its owner waited for.
type Ready struct {
	Owner       Waiter
	Socket      *Socket
	Read, Write bool
}

// NewPoller returns errors.ErrUnsupported.
func NewPoller(bool) (*Poller, error) { return nil, errors.ErrUnsupported }

// The methods are there for the code that would use them.

// Close does nothing.
func (p *Poller) Close() {}

// Add returns errors.ErrUnsupported.
func (p *Poller) Add(*Socket) error { return errors.ErrUnsupported }

// Arm returns errors.ErrUnsupported.
func (p *Poller) Arm(*Socket, bool, bool) error { return errors.ErrUnsupported }

// Drowse does nothing.
func (p *Poller) Drowse() {}

// Wake does nothing.
func (p *Poller) Wake() {}

// Wait returns nothing.
func (p *Poller) Wait(bool) []Ready { return nil }

// Calls counts system calls.
type Calls struct{ Waits, Controls, Reads, Writes uint64 }

// Calls returns zeros.
func (p *Poller) Calls() Calls { return Calls{} }

func (p *Poller) count(call) {}

func (p *Poller) remove(*Socket) {}

func (p *Poller) block(*Socket, readiness) (bool, error) { return false, nil }

type blocked struct{}
