package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes the manual pages of all commands, for packages.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man folder",
		Short: "Write manual pages of all commands into a folder",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // the same text from the same source
			return doc.GenManTree(root, &doc.GenManHeader{Title: "SHARDPROXY", Section: "1", Source: "shardproxy", Manual: "shardproxy"}, args[0])
		},
	}
}
