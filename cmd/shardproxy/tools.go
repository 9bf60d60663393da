package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shardproxy/auth"
	"shardproxy/config"
)

// Exit codes of check, so that scripts can tell a bad file from a bad call.
const (
	exitProblems = 2
	exitWarnings = 3
)

// load reads a configuration, and refuses what this version cannot do.
func load(path string) (*config.Config, error) {
	cfg, err := config.Load(path, config.Options{})
	if err != nil {
		return nil, err
	}
	for i := range cfg.Databases {
		if _, err := cachedStatements(&cfg.Databases[i]); err != nil {
			return nil, err
		}
		if _, err := configuredBlocks(&cfg.Databases[i], time.Time{}); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "shardproxy %s (%s, %s/%s)\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}

// buildVersion is the linker's version, or the commit that was built.
func buildVersion() string {
	if version != "dev" {
		return version
	}
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "dev-" + s.Value[:12]
			}
		}
	}
	return version
}

func hashPasswordCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "hash-password",
		Short: "Read a password from standard input and print its SCRAM-SHA-256 verifier",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			password := strings.TrimRight(line, "\r\n")
			if password == "" {
				return &exitError{exitProblems, "no password on standard input"}
			}
			fmt.Fprintln(cmd.OutOrStdout(), auth.HashPassword(password))
			return nil
		},
	}
}

func runCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "run", Short: "Run the proxy", Args: cobra.NoArgs,
		Long: "Run serves the databases of the configuration file.\n\n" +
			"SIGHUP reloads it, SIGTERM waits for clients to leave, SIGINT for\n" +
			"transactions to end, SIGQUIT ends now; a second SIGTERM or SIGINT ends now too.",
		RunE: func(*cobra.Command, []string) error {
			p, err := newProgram(path, os.Stderr)
			if err != nil {
				return err
			}
			return p.run()
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "shardproxy.yaml", "configuration file")
	return c
}
