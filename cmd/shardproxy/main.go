// Command shardproxy is the proxy and its tools: run, init, check, version,
// hash-password, demo, catalog, route, ddl, restore-point, dump,
// rebalance, ready, man, import-pgbouncer.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the linker in release builds.
var version = "dev"

// exitError is an error that chooses the process's exit code. Its message has
// been printed already when it is empty.
type exitError struct {
	code int
	msg  string
}

func (e *exitError) Error() string { return e.msg }

func main() {
	root := &cobra.Command{
		Use:           "shardproxy",
		Short:         "A PostgreSQL proxy: pools connections, sends reads to replicas, outlives a failing node",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), initCommand(), importPgBouncerCommand(), checkCommand(), versionCommand(), hashPasswordCommand(), demoCommand(),
		catalogCommand(), routeCommand(), ddlCommand(), restorePointCommand(), dumpCommand(), rebalanceCommand(), readyCommand(), manCommand())
	err := root.Execute()
	var ee *exitError
	switch {
	case err == nil:
	case errors.As(err, &ee):
		if ee.msg != "" {
			fmt.Fprintln(os.Stderr, "shardproxy:", ee.msg)
		}
		os.Exit(ee.code)
	default:
		fmt.Fprintln(os.Stderr, "shardproxy:", err)
		os.Exit(1)
	}
}
