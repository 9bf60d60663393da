package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// Mode says what happens to new connections; those that are there go on.
type Mode int

// The modes.
const (
	Normal    Mode = iota // they are relayed
	Refuse                // nobody listens: connection refused
	Hang                  // they are accepted and never hear anything
	Blackhole             // their SYN is not answered: connecting times out (Linux)
)

// door is the proxy's port. A socket that is bound but does not listen keeps
// the port ours in every mode.
type door struct {
	port     int
	keeper   int // file descriptor
	listener *net.TCPListener
	fillers  []net.Conn // that make the queue full, in Blackhole
}

func openDoor() (*door, error) {
	d := &door{}
	fd, err := boundSocket(0)
	if err != nil {
		return nil, err
	}
	d.keeper = fd
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return nil, errors.Join(err, syscall.Close(fd))
	}
	d.port = name.(*syscall.SockaddrInet4).Port
	return d, nil
}

// boundSocket returns a TCP socket on 127.0.0.1 that does not listen.
func boundSocket(port int) (int, error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("bind: %w", err), syscall.Close(fd))
	}
	return fd, nil
}

// listen opens the port for connections; backlog 0 has room for one.
func (d *door) listen(backlog int) error {
	fd, err := boundSocket(d.port)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close() // FileListener has a copy
	if err := syscall.Listen(fd, backlog); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	d.listener = l.(*net.TCPListener)
	return nil
}

// shut closes the port for connections but keeps it.
func (d *door) shut() {
	if d.listener != nil {
		d.listener.Close()
		d.listener = nil
	}
	for _, f := range d.fillers {
		f.Close()
	}
	d.fillers = nil
}

// blackhole listens with a queue that is full. Linux then drops SYNs.
func (d *door) blackhole(ctx context.Context, addr string) error {
	if err := d.listen(0); err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: 50 * time.Millisecond}
	for range 20 {
		filler, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				return nil
			}
			return err
		}
		d.fillers = append(d.fillers, filler)
	}
	return errors.New("this system's listen queue cannot be filled")
}

func (d *door) close() {
	d.shut()
	_ = syscall.Close(d.keeper)
}
