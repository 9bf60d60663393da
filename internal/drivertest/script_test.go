package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// scriptTimeout bounds one run of a script; each of its sections has a shorter
// bound of its own and says where it hangs.
const scriptTimeout = 4 * time.Minute

// runScript runs a program with a leg's environment and returns what it
// printed. Its standard error comes with the error.
func runScript(l leg, more []string, program string, args ...string) (string, error) {
	return runScriptInput(l, more, "", program, args...)
}

// runScriptInput is runScript with a text as standard input.
func runScriptInput(l leg, more []string, input, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), scriptTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(l.environment(), more...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewBufferString(input), &out, &errOut
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not done after %v", scriptTimeout)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", filepath.Base(program), err, errOut.Bytes())
		var exit *exec.ExitError
		if !errors.As(err, &exit) && ctx.Err() == nil {
			err = fmt.Errorf("%w\nrun scripts/need-drivers.sh to install the drivers", err)
		}
	}
	return out.String(), err
}
