package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"shardproxy/internal/clientrun"
)

// byChance matches what psql prints and what differs from run to run: process
// ids, OIDs, the port in a connection's failure.
var byChance = regexp.MustCompile(`(server process with PID|lo_import|port) [0-9]+`)

// TestPsql feeds psql a long session, then runs it with arguments, then
// interrupts a statement as Ctrl-C does.
func TestPsql(t *testing.T) {
	compare(t, "psql", func(l leg, _ []string) (string, error) {
		text, err := psql(l, "-q", "-f", "testdata/psql/session.sql")
		if err != nil {
			return text, err
		}
		text += clientrun.SectionMark + "arguments\n"
		for _, args := range [][]string{
			{"-c", "SELECT 1; SELECT 2"},
			{"-c", "SELECT 1", "-c", `\echo between`, "-c", "SELECT 1/0", "-c", "SELECT 3"},
			{"-1", "-c", "CREATE TABLE one (a int)", "-c", "SELECT 1/0"},
			{"-At", "-c", "SELECT to_regclass('one') IS NULL"},
			{"-v", "ON_ERROR_STOP=1", "-c", "SELECT 1/0", "-c", "SELECT 2"},
			{"-d", "no_such_database", "-c", "SELECT 1"},
			{"-U", "nobody_here", "-c", "SELECT 1"},
			{"-d", "sslrootcert=" + l.wrongCA, "-c", "SELECT 1"},
		} {
			out, err := psql(l, args...)
			text += fmt.Sprintf("%.30q\n%s", args[0:2], out)
			if err != nil {
				return text, err
			}
		}
		text += clientrun.SectionMark + "interrupt\n"
		out, err := interruptPsql(l)
		return text + out, err
	})
}

// psql runs psql and returns what it printed to both its outputs, in order, and
// its exit status.
func psql(l leg, args ...string) (string, error) {
	cmd := psqlCommand(l, args...)
	out, err := cmd.CombinedOutput()
	return psqlResult(out, err)
}

func psqlCommand(l leg, args ...string) *exec.Cmd {
	cmd := exec.Command("psql", append([]string{"-X"}, args...)...)
	cmd.Env = l.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func psqlResult(out []byte, err error) (string, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return string(out), fmt.Errorf("%w\nrun scripts/need-postgres.sh to install psql", err)
	}
	status := 0
	if exit != nil {
		status = exit.ExitCode()
	}
	return byChance.ReplaceAllString(string(out), "$1 N") + fmt.Sprintf("exit status %d\n", status), nil
}

// interruptPsql sends SIGINT while a statement runs. Not at a terminal, psql
// then ends.
func interruptPsql(l leg) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), sectionTimeout)
	defer cancel()
	cmd := psqlCommand(l)
	cmd.Stdin = strings.NewReader("SELECT pg_sleep(20) /* cancel me */;\nSELECT 'not reached';\n")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	watch := teller{leg: l}
	err := watch.waitRunning(ctx, "cancel me")
	if err == nil {
		err = cmd.Process.Signal(syscall.SIGINT)
	}
	if err != nil {
		return out.String(), errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	err = cmd.Wait()
	return psqlResult(out.Bytes(), err)
}
