package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"shardproxy/config"
)

// listen opens the client listeners: those that systemd passed, else the configured.
func listen(c *config.Listen) ([]net.Listener, error) {
	inherited, err := inheritedListeners()
	if err != nil || len(inherited) > 0 {
		return inherited, err
	}
	var all []net.Listener
	fail := func(err error) ([]net.Listener, error) {
		for _, l := range all {
			_ = l.Close() // the first error is the one to report
		}
		return nil, err
	}
	port := strconv.Itoa(config.UnixSocketPort)
	for i, a := range c.Addresses {
		l, err := listenTCP(a, c.ReusePort)
		if err != nil {
			return fail(err)
		}
		if _, p, err := net.SplitHostPort(l.Addr().String()); err == nil && i == 0 {
			port = p
		}
		all = append(all, l)
	}
	if c.UnixSocketDirectory != "" {
		path := filepath.Join(c.UnixSocketDirectory, ".s.PGSQL."+port)
		open := listenUnix
		if c.ReusePort {
			open = func(path string, mode os.FileMode) (net.Listener, error) { return takeUnix(path, mode, c.Peers()) }
		}
		l, err := open(path, os.FileMode(c.UnixSocketMode))
		if err != nil {
			return fail(err)
		}
		all = append(all, l)
	}
	return all, nil
}

// listenTCP opens a listener for one address, shared with other processes when reuse is set.
func listenTCP(address string, reuse bool) (net.Listener, error) {
	if !reuse {
		return net.Listen("tcp", address)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	}}
	lc.SetMultipathTCP(false) // it knows no filter, which leaving takes
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return &sharedTCP{l.(*net.TCPListener)}, nil
}

// listenUnix makes the socket, in place of one that a dead process left.
func listenUnix(path string, mode os.FileMode) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("%s: another server is listening", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, mode)
}

// control runs a system call on a socket.
func control(c syscall.RawConn, call func(fd int) error) error {
	var failed error
	if err := c.Control(func(fd uintptr) { failed = call(int(fd)) }); err != nil {
		return err
	}
	return failed
}
