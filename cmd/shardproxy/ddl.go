package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"shardproxy/ddl"
	"shardproxy/metadata"
)

// exitUnfinished is the exit code when a statement has not ended.
const exitUnfinished = 1

// ddlFlags are the flags of ddl's commands.
type ddlFlags struct {
	config, database string
	all, json        bool
	timeout          time.Duration
}

func ddlCommand() *cobra.Command {
	var f ddlFlags
	c := &cobra.Command{
		Use:   "ddl",
		Short: "Show, take up again or give up definitions that came to no end on every shard",
		Long: "Statements with CONCURRENTLY run on one shard after the other, in no transaction.\n" +
			"The home shard's journal knows how far they came.",
	}
	fs := c.PersistentFlags()
	fs.StringVarP(&f.config, "config", "c", "shardproxy.yaml", "configuration file")
	fs.StringVar(&f.database, "database", "", "database of the configuration; needed when it has several")
	fs.BoolVar(&f.json, "json", false, "print JSON")
	fs.DurationVar(&f.timeout, "timeout", 0, "for all of it; 0: none")
	status := &cobra.Command{
		Use:   "status",
		Short: "List the statements that have not ended, shard by shard",
		Long:  "Exit code 0: there are none, 1: there are some, 2: the file or the home shard does not do.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd, func(ctx context.Context, j *ddl.Journal) error { return f.status(ctx, cmd.OutOrStdout(), j) })
		},
	}
	status.Flags().BoolVar(&f.all, "all", false, "list those that have ended, too")
	resume := &cobra.Command{
		Use:   "resume ID",
		Short: "Do the rest of a statement",
		Long: "Resume looks what each shard has that has not done the statement, drops what it has left\n" +
			"half made and runs it again, as the role that sent it. It waits for a server that is still\n" +
			"at it. Exit code 0: done on all shards, 1: a shard failed, 2: nothing was tried.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.withID(cmd, args, func(ctx context.Context, j *ddl.Journal, id int64) error {
				return f.resume(ctx, cmd.OutOrStdout(), j, id)
			})
		},
	}
	abandon := &cobra.Command{
		Use:   "abandon ID",
		Short: "Give a statement up: what it has done stays",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.withID(cmd, args, func(ctx context.Context, j *ddl.Journal, id int64) error {
				if err := j.Abandon(ctx, id); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "statement %d is abandoned: what it has done stays\n", id)
				return err
			})
		},
	}
	c.AddCommand(status, resume, abandon)
	return c
}

// with opens the database's journal.
func (f *ddlFlags) with(cmd *cobra.Command, do func(context.Context, *ddl.Journal) error) error {
	cfg, conf, err := databaseOf(cmd, f.config, f.database)
	if err != nil {
		return err
	}
	if len(conf.Shards) < 2 {
		return fmt.Errorf("database %q has one shard: there is no journal", conf.Name)
	}
	ctx, cancel := limited(cmd.Context(), f.timeout)
	defer cancel()
	err = do(ctx, newJournal(conf, nil, func(i int) metadata.Connect { return primaryOf(cfg, conf, i) }, nil))
	var ee *exitError
	if err != nil && !errors.As(err, &ee) {
		return &exitError{exitProblems, err.Error()}
	}
	return err
}

func (f *ddlFlags) withID(cmd *cobra.Command, args []string, do func(context.Context, *ddl.Journal, int64) error) error {
	id, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil {
		return fmt.Errorf("%q is no number of a statement", args[0])
	}
	return f.with(cmd, func(ctx context.Context, j *ddl.Journal) error { return do(ctx, j, id) })
}

func (f *ddlFlags) status(ctx context.Context, w io.Writer, j *ddl.Journal) error {
	all, err := j.List(ctx, f.all)
	if err != nil {
		return err
	}
	if f.json {
		err = printJSON(w, all)
	} else {
		err = printEntries(w, all, f.all)
	}
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].Ended == nil {
			return &exitError{code: exitUnfinished}
		}
	}
	return nil
}

// printEntries writes statements in words.
func printEntries(w io.Writer, all []ddl.Entry, ended bool) error {
	if len(all) == 0 {
		none := "no statement is unfinished"
		if ended {
			none = "the journal is empty"
		}
		_, err := fmt.Fprintln(w, none)
		return err
	}
	for i := range all {
		e := &all[i]
		fmt.Fprintf(w, "%d  %s, by %s since %s\n", e.ID, e.State, e.Role, e.Began.Format(time.RFC3339))
		fmt.Fprintf(w, "   %s\n", strings.Join(strings.Fields(e.Statement), " "))
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, s := range e.Shards {
			fmt.Fprintf(t, "   %s\t%s", s.Shard, s.State)
			if s.Error != "" {
				fmt.Fprintf(t, "\t%s", strings.Join(strings.Fields(s.Error), " "))
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (f *ddlFlags) resume(ctx context.Context, w io.Writer, j *ddl.Journal, id int64) error {
	steps, failed := []ddl.Step{}, false
	err := j.Resume(ctx, id, func(s ddl.Step) {
		failed = failed || s.Error != ""
		steps = append(steps, s)
		switch {
		case f.json:
		case s.Error != "":
			fmt.Fprintf(w, "%s: failed: %s\n", s.Shard, strings.Join(strings.Fields(s.Error), " "))
		default:
			fmt.Fprintf(w, "%s: %s\n", s.Shard, s.Did)
		}
	})
	if f.json && (err == nil || len(steps) > 0) {
		if e := printJSON(w, steps); e != nil {
			return e
		}
	}
	switch {
	case err != nil:
		return err
	case failed:
		return &exitError{code: exitUnfinished}
	case !f.json:
		_, err = fmt.Fprintf(w, "statement %d is done on all shards\n", id)
	}
	return err
}
