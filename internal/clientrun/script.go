package clientrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// scriptTimeout bounds one run of a script; each of its sections has a shorter
// bound of its own and says where it hangs.
const scriptTimeout = 4 * time.Minute

// Script is a client program and what it is run with.
type Script struct {
	Program string
	Args    []string
	Env     []string // all of its environment
	Dir     string   // where it runs; "" is here
	Input   string   // its standard input
}

// Run runs the program to its end, at most four minutes, and returns what it
// printed. Its standard error comes with the error.
func (s Script) Run() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), scriptTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Program, s.Args...)
	cmd.Env, cmd.Dir = s.Env, s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(s.Input), &out, &errOut
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done after %v", scriptTimeout)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", filepath.Base(s.Program), err, errOut.Bytes())
		var exit *exec.ExitError
		if !errors.As(err, &exit) && ctx.Err() == nil {
			err = fmt.Errorf("%w\nrun scripts/need-drivers.sh to install the drivers", err)
		}
	}
	return out.String(), err
}
