package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"shardproxy/twopc"
	"shardproxy/verify"
)

// referenceReport is what check --reference --json prints.
type referenceReport struct {
	Database string                `json:"database"`
	Source   string                `json:"source"`
	Shards   []checkedShard        `json:"shards"`
	Tables   []*verify.TableResult `json:"tables"`
	// Repair is "", "dry-run", "nothing to do", "done" or "failed".
	Repair string `json:"repair,omitempty"`
	Error  string `json:"error,omitempty"`
}

// checkReference compares the rows of reference tables, and makes them alike.
func (f *checkFlags) checkReference(ctx context.Context, cmd *cobra.Command, c *checked) error {
	r := &referenceReport{Database: c.conf.Name, Source: cmp.Or(f.from, c.conf.Shards[0].Name), Shards: c.shards, Tables: []*verify.TableResult{}}
	v, err := verify.New(c.sessions, verify.Options{
		Rules: c.conf, Source: r.Source, Rows: f.rows, ChunkRows: f.chunkRows, Hold: f.hold, LockWait: f.lockWait,
	})
	if err == nil {
		err = f.compareTables(ctx, v, r)
	}
	if err != nil {
		r.Error = verify.Told(err)
	}
	differs, incomplete := r.sums()
	if f.repair && err == nil {
		differs = f.mendTables(ctx, v, c, r, incomplete) && differs
	}
	if f.json {
		err = printJSON(cmd.OutOrStdout(), r)
	} else {
		_, err = io.WriteString(cmd.OutOrStdout(), r.text())
	}
	if err != nil {
		return err
	}
	return c.code(differs, incomplete || r.Error != "" && r.Repair != repairFailed)
}

// compareTables compares those that are asked for, all when none is.
func (f *checkFlags) compareTables(ctx context.Context, v *verify.Checker, r *referenceReport) error {
	asked := map[string]bool{}
	for _, t := range f.tables {
		asked[t] = false
	}
	for _, name := range v.Tables() {
		wanted := len(asked) == 0
		for _, as := range []string{name[1], name[0] + "." + name[1]} {
			if _, is := asked[as]; is {
				asked[as], wanted = true, true
			}
		}
		if !wanted {
			continue
		}
		result, err := v.Compare(ctx, name[0], name[1])
		r.Tables = append(r.Tables, result)
		if err != nil {
			return err
		}
	}
	for _, t := range f.tables {
		if !asked[t] {
			return fmt.Errorf("there is no reference table %q on shard %s", t, r.Source)
		}
	}
	return nil
}

// sums reports whether a table differs, and whether one could not be compared.
func (r *referenceReport) sums() (differs, incomplete bool) {
	for _, t := range r.Tables {
		differs = differs || t.Differs()
		incomplete = incomplete || t.Problem != ""
	}
	return differs, incomplete
}

// What becomes of a repair.
const (
	repairDry     = "dry-run"
	repairNothing = "nothing to do"
	repairDone    = "done"
	repairFailed  = "failed"
)

// mendTables makes the copies alike and reports whether differences are left.
func (f *checkFlags) mendTables(ctx context.Context, v *verify.Checker, c *checked, r *referenceReport, incomplete bool) bool {
	differs, _ := r.sums()
	away := c.away()
	switch {
	case len(away) > 0:
		r.Repair, r.Error = repairFailed, "nothing was changed: shard "+strings.Join(away, ", ")+" cannot be asked, and a repair is of all shards at once"
	case c.sessions[0].Cluster == "":
		r.Repair, r.Error = repairFailed, "nothing was changed: the shards are no cluster yet; see shardproxy init"
	case !differs && incomplete:
		r.Repair, r.Error = repairFailed, "nothing was changed: not all tables could be compared"
	case !differs:
		r.Repair = repairNothing
	case f.dryRun:
		r.Repair = repairDry
	default:
		if err := v.Repair(ctx, r.Tables, commitParts(c.sessions[0].Cluster)); err != nil {
			r.Repair, r.Error = repairFailed, verify.Told(err)
			break
		}
		r.Repair = repairDone
		return false
	}
	return differs
}

// commitParts commits on all sessions' shards or on none. What it must leave is
// finished by the proxies of the cluster.
func commitParts(cluster string) verify.Commit {
	return func(ctx context.Context, sessions []*verify.Session) error {
		parts := make([]twopc.Part, len(sessions))
		for i, s := range sessions {
			parts[i] = twopc.Part{Shard: s.Shard, Conn: s}
		}
		outcome, err := twopc.Commit(ctx, twopc.Options{Cluster: cluster, Logger: slog.Default()}, parts)
		switch {
		case outcome == twopc.Committed:
			return nil
		case err == nil:
			return errors.New("the commit was " + outcome.String())
		}
		return err
	}
}

// text is the report in words.
func (r *referenceReport) text() string {
	var b strings.Builder
	for _, s := range r.Shards {
		if s.Error != "" {
			fmt.Fprintf(&b, "shard %s: not compared: %s\n", s.Shard, s.Error)
		}
	}
	for _, t := range r.Tables {
		r.table(&b, t)
	}
	switch r.Repair {
	case repairNothing:
		b.WriteString("repair: nothing to do, nothing was changed\n")
	case repairDry:
		b.WriteString("repair: a dry run, nothing was changed\n")
	case repairDone:
		b.WriteString("repair: done, on all shards\n")
	case repairFailed:
		b.WriteString("repair: failed: ")
	}
	if r.Error != "" {
		fmt.Fprintln(&b, r.Error)
	}
	return b.String()
}

func (r *referenceReport) table(b *strings.Builder, t *verify.TableResult) {
	name := t.Schema + "." + t.Name
	if t.Problem != "" {
		fmt.Fprintf(b, "table %s: not compared: %s\n", name, t.Problem)
	} else if !t.Differs() {
		fmt.Fprintf(b, "table %s: %d rows, alike\n", name, t.Rows)
	}
	for i := range t.Shards {
		s := &t.Shards[i]
		if !s.Differs() {
			continue
		}
		fmt.Fprintf(b, "table %s on shard %s, compared with %s: %d rows missing, %d extra, %d different\n", name, s.Shard, r.Source, s.Missing, s.Extra, s.Different)
		for _, row := range s.Rows {
			fmt.Fprintf(b, "  %s %s\n", row.Kind, row.Key)
			if row.Source != "" {
				fmt.Fprintf(b, "    %s: %s\n", r.Source, oneLine(row.Source))
			}
			if row.Here != "" {
				fmt.Fprintf(b, "    %s: %s\n", s.Shard, oneLine(row.Here))
			}
		}
		if n := s.Missing + s.Extra + s.Different - int64(len(s.Rows)); n > 0 && t.Problem == "" {
			fmt.Fprintf(b, "  and %d more\n", n)
		}
		switch {
		case r.Repair == repairDry:
			fmt.Fprintf(b, "  would insert %d, update %d and delete %d rows\n", s.Missing, s.Different, s.Extra)
		case s.Repaired != nil:
			fmt.Fprintf(b, "  inserted %d, updated %d, deleted %d rows\n", s.Repaired.Inserted, s.Repaired.Updated, s.Repaired.Deleted)
		}
	}
}

// oneLine keeps a row of text with line ends in its line.
func oneLine(s string) string {
	return strings.NewReplacer("\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s)
}
