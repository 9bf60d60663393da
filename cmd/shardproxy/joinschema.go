package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/config"
	"shardproxy/metadata"
	"shardproxy/verify"
)

// Why the home shard's schema is not copied. Nothing was written when it is one of these.
var (
	errMoveRuns = errors.New("slots move, and what that makes on the home shard would be copied: wait until the move has ended (shardproxy rebalance status)")
	errNotEmpty = errors.New("the new shard is not empty")
	errCopying  = errors.New("the schema is being copied to this shard already")
)

// copySchemaOptions say how a schema is copied.
type copySchemaOptions struct {
	pgDump   string        // the program; it is looked for when it is ""
	dryRun   bool          // look and plan, and write nothing
	withRows bool          // tables that are there already may have rows
	progress io.Writer     // gets a line for each step; nil for none
	wait     time.Duration // for another call; copyWait when 0
}

func (o *copySchemaOptions) say(format string, args ...any) {
	if o.progress != nil {
		fmt.Fprintf(o.progress, format+"\n", args...)
	}
}

// copySchemaReport says what a new shard was given. It holds no secrets.
type copySchemaReport struct {
	Shard    string   `json:"shard"`
	DryRun   bool     `json:"dry_run,omitempty"`
	Roles    []string `json:"roles"`    // that were made
	Settings []string `json:"settings"` // the statements
	Grants   []string `json:"grants"`   // on the database, and its owner
	Copied   bool     `json:"copied"`   // the schema; false when it was there
	Tables   int      `json:"tables"`   // that the shard has
	Notes    []string `json:"notes,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// String says it for people.
func (r *copySchemaReport) String() string {
	var b strings.Builder
	made, schema := "made", "copied"
	if r.DryRun {
		made, schema = "would be made", "would be copied"
	}
	if !r.Copied {
		schema = "is there already"
	}
	fmt.Fprintf(&b, "shard %s: %d roles and %d settings %s; the schema, %d tables, %s\n", r.Shard, len(r.Roles), len(r.Settings), made, r.Tables, schema)
	if len(r.Roles) > 0 {
		fmt.Fprintf(&b, "  roles: %s\n", strings.Join(r.Roles, ", "))
	}
	for _, s := range append(append([]string{}, r.Settings...), r.Grants...) {
		fmt.Fprintf(&b, "  %s\n", s)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "  note: %s\n", n)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "  warning: %s\n", w)
	}
	return b.String()
}

// sequenceNote is why nothing is done about sequences.
const sequenceNote = "sequences begin anew on this shard: those that tables on several shards draw from are drawn on the home shard alone, and the others serve single tables, which are there"

// copySchema gives an empty database what the home shard has beside rows: roles, settings of the
// database, and the schema (without the schema shardproxy). What is there already is left as it is, so that a call
// after one that failed goes on, and one after one that succeeded changes nothing. Roles, settings and privileges
// of the database are one transaction, the schema is another; when the call fails, or ctx ends, neither is done by
// half. A schema that differs is a *schemaDiffers. Nobody may change definitions on the home shard meanwhile.
func copySchema(ctx context.Context, cfg *config.Config, conf *config.Database, target int, o copySchemaOptions) (*copySchemaReport, error) {
	j := &join{cfg: cfg, conf: conf, place: target, options: o,
		report: &copySchemaReport{Shard: conf.Shards[target].Name, DryRun: o.dryRun, Roles: []string{}, Settings: []string{}, Grants: []string{}}}
	defer j.close()
	err := j.open(ctx)
	if err == nil {
		err = j.look(ctx)
	}
	if err == nil && !o.dryRun {
		err = j.write(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", j.report.Shard, err)
	}
	return j.report, nil
}

// join copies a schema.
type join struct {
	cfg          *config.Config
	conf         *config.Database
	place        int // of the new shard
	options      copySchemaOptions
	report       *copySchemaReport
	home, target *shardLink
	plan         *globalsPlan
	program      *pgDump
	empty        bool
	withoutEvent bool // event triggers cannot be made
	locked       bool // nobody else copies a schema to the shard
}

func (j *join) close() {
	for _, link := range []*shardLink{j.home, j.target} {
		if link != nil {
			endConn(link.conn)
		}
	}
}

// open connects, and sees to it that nobody else copies a schema to the shard.
func (j *join) open(ctx context.Context) (err error) {
	links := &shardLinks{conf: j.conf, connect: func(i int) metadata.Connect { return primaryOf(j.cfg, j.conf, i) }}
	if j.home, err = links.open(ctx, 0); err != nil {
		return err
	}
	if j.target, err = links.open(ctx, j.place); err != nil {
		return err
	}
	// Views and policies of rows are not to hide from this what is there.
	for _, link := range []*shardLink{j.home, j.target} {
		if _, err := link.conn.Exec(ctx, "SET row_security = off", pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	return j.alone(ctx)
}

// copyWait is how long another call, or the pg_restore of one that was ended, is waited for.
const copyWait = 10 * time.Second

// alone waits until nobody else copies a schema to the shard: no call, and no pg_restore whose caller is gone.
func (j *join) alone(ctx context.Context) error {
	wait := cmp.Or(j.options.wait, copyWait)
	ctx, cancel := context.WithTimeout(ctx, wait+aliveTimeout)
	defer cancel()
	for end := time.Now().Add(wait); ; {
		if !j.locked {
			// A session that has just ended may have the lock for a moment.
			err := j.target.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended('shardproxy copies the schema', 0))", pgx.QueryExecModeExec).Scan(&j.locked)
			if err != nil {
				return err
			}
		}
		var pids string
		err := j.target.conn.QueryRow(ctx, "SELECT coalesce(string_agg(pid::text, ', '), '') FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
			pgx.QueryExecModeExec, restoreName).Scan(&pids)
		late := time.Now().After(end)
		switch {
		case err != nil || j.locked && pids == "":
			return err
		case late && !j.locked:
			return errCopying
		case late:
			return fmt.Errorf("%w: by pg_restore in session %s, whose caller is gone: wait, or end it with pg_terminate_backend", errCopying, pids)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// write carries out what is planned, and compares.
func (j *join) write(ctx context.Context) error {
	if len(j.plan.statements) > 0 {
		j.options.say("shard %s: roles, settings and privileges of the database: %d statements", j.report.Shard, len(j.plan.statements))
	}
	if err := j.plan.carryOut(ctx, j.target); err != nil {
		return err
	}
	var archive *schemaArchive
	var err error
	if j.empty {
		if archive, err = j.copy(ctx); err != nil {
			return err
		}
	}
	if j.empty { // else it was compared before
		j.options.say("shard %s: the schema is compared with that of %s", j.report.Shard, j.home.shard)
		if err := j.compare(ctx); err != nil {
			return err
		}
	}
	if err := j.compareDumps(ctx, archive); err != nil {
		return err
	}
	return j.countTables(ctx, j.target)
}

const countTablesSQL = `SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
	AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'shardproxy')
	AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')`

func (j *join) countTables(ctx context.Context, link *shardLink) error {
	return link.conn.QueryRow(ctx, countTablesSQL, pgx.QueryExecModeExec).Scan(&j.report.Tables)
}

// compare opens sessions for the comparison.
func (j *join) compare(ctx context.Context) error {
	home, err := verify.Open(ctx, j.home.shard, primaryOf(j.cfg, j.conf, 0))
	if err != nil {
		return fmt.Errorf("compare the schemas: shard %s: %w", j.home.shard, err)
	}
	defer home.Close()
	target, err := verify.Open(ctx, j.report.Shard, primaryOf(j.cfg, j.conf, j.place))
	if err != nil {
		return fmt.Errorf("compare the schemas: %w", err)
	}
	defer target.Close()
	return copiedSchema(ctx, j.conf, home, target)
}

// schemaDiffers says what a shard does not have as the home shard has it.
type schemaDiffers struct {
	Shard    string
	Findings []verify.Finding
}

// Error implements error.
func (e *schemaDiffers) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "its schema is not that of the home shard, %d differences:", len(e.Findings))
	for i := range e.Findings {
		fmt.Fprintf(&b, "\n  %s", e.Findings[i].Message)
		if mend := e.Findings[i].Mend; mend != "" {
			fmt.Fprintf(&b, "\n    on %s: %s;", e.Findings[i].MendOn, mend)
		}
	}
	return b.String()
}

// copiedSchema compares the schema of a shard with that of the home shard, as shardproxy check --schema does; what
// the rules of the database disagree on with both is not asked. Differences are a *schemaDiffers, any other error is one of
// a server. The sessions' catalogs are those of when they were opened.
func copiedSchema(ctx context.Context, rules *config.Database, home, target *verify.Session) error {
	// Without the home shard's part neither values of sequences nor rows are looked at.
	found, err := verify.Schema(ctx, rules, []*verify.Session{home, target}, false)
	if err != nil {
		return fmt.Errorf("compare the schemas: %w", err)
	}
	differs := &schemaDiffers{Shard: target.Shard}
	for _, f := range found {
		if f.Severity == verify.Difference {
			differs.Findings = append(differs.Findings, f)
		}
	}
	if len(differs.Findings) > 0 {
		return differs
	}
	return nil
}
