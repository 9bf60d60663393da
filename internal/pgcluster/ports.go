package pgcluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Ports are taken below the range from which Linux picks outgoing ports
// (32768 up), so that no connection of anybody can take one in between.
const (
	firstPort = 20000
	lastPort  = 32000
)

// portLock reserves a port among all users of this package on the machine
// until it is released: also while its server is stopped.
type portLock struct {
	port int
	file *os.File
}

// release gives the port back. It may be called twice.
func (p *portLock) release() {
	if p.file != nil {
		p.file.Close() // ends the flock
		p.file = nil
	}
}

// reservePort returns a port on 127.0.0.1 on which nobody listens now and that
// no other cluster uses.
func reservePort(base string, a account) (*portLock, error) {
	dir := filepath.Join(base, "ports")
	if err := a.mkdir(dir); err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	for range 200 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		file, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("reserve a port: %w", err)
		}
		if err := a.own(file.Name()); err != nil {
			file.Close()
			return nil, fmt.Errorf("reserve a port: %w", err)
		}
		lock := &portLock{port: port, file: file}
		if flock(file, syscall.LOCK_EX|syscall.LOCK_NB) == nil && portIsFree(port) {
			return lock, nil
		}
		lock.release()
	}
	return nil, errors.New("reserve a port: none free in 200 tries")
}

func portIsFree(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// flock takes a lock on an open file; the lock ends when the file is closed.
func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
