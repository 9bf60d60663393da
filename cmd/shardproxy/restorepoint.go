package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
)

// restoreFlags are the flags of restore-point.
type restoreFlags struct {
	config, database string
	json             bool
	timeout          time.Duration
	fence            fenceFlags
}

// restorePoint is what came of the command.
type restorePoint struct {
	Name     string       `json:"name"`
	Database string       `json:"database"`
	Cluster  string       `json:"cluster"`
	Whole    bool         `json:"whole"`             // recovery of all shards to it gives one moment
	Recorded bool         `json:"recorded"`          // in shardproxy.restore_points, as whole as it is
	MadeAt   string       `json:"made_at,omitempty"` // by the home shard's clock
	Error    string       `json:"error,omitempty"`
	Warnings []string     `json:"warnings,omitempty"`
	Shards   []shardPoint `json:"shards"`
}

// shardPoint is a shard's part of it.
type shardPoint struct {
	Shard    string `json:"shard"`
	LSN      string `json:"lsn,omitempty"` // the end of the point's record
	Timeline int64  `json:"timeline,omitempty"`
	Error    string `json:"error,omitempty"`

	maybe bool // it may be there though there is no LSN
}

func restorePointCommand() *cobra.Command {
	var f restoreFlags
	c := &cobra.Command{
		Use:   "restore-point NAME",
		Short: "Make a restore point on all shards at one moment",
		Long: "Restore-point calls pg_create_restore_point on the primary of every shard while no\n" +
			"transaction over several shards is half committed. Recovery of all shards to the name\n" +
			"(recovery_target_name) gives one consistent database. The table\n" +
			"shardproxy.restore_points on the home shard keeps what was made.\n" +
			"Exit code 0: made, 1: some shards may have it, and it is no point to recover to,\n" +
			"2: nothing was made.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	fs := c.Flags()
	fs.StringVarP(&f.config, "config", "c", "shardproxy.yaml", "configuration file")
	fs.StringVar(&f.database, "database", "", "database of the configuration; needed when it has several")
	fs.BoolVar(&f.json, "json", false, "print one JSON object")
	fs.DurationVar(&f.timeout, "timeout", time.Minute, "for all of it")
	f.fence.add(fs)
	return c
}

// PostgreSQL bounds a point's name to 63 bytes (MAXFNAMELEN) of the server's encoding. Recovery
// compares it with bytes of a file: what every encoding writes the same is found again.
var pointName = regexp.MustCompile(`^[!-~]([ -~]{0,61}[!-~])?$`)

func (f *restoreFlags) run(cmd *cobra.Command, name string) error {
	switch {
	case len(name) > 63:
		return &exitError{exitProblems, fmt.Sprintf("the name has %d bytes: PostgreSQL's restore points have 63 at most", len(name))}
	case !pointName.MatchString(name):
		return &exitError{exitProblems, fmt.Sprintf("%q is no name for a restore point: it is of printable ASCII characters, without blanks at its ends", name)}
	case f.timeout <= 0:
		return errors.New("--timeout is more than 0")
	}
	if err := f.fence.sensible(); err != nil {
		return err
	}
	cfg, conf, err := databaseOf(cmd, f.config, f.database)
	if err != nil {
		return err
	}
	if len(conf.Shards) < 2 {
		return fmt.Errorf("database %q has one shard: SELECT pg_create_restore_point('...') there does it", conf.Name)
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	links, err := openLinks(ctx, cfg, conf)
	if err != nil {
		return &exitError{exitProblems, err.Error()}
	}
	defer links.close()
	p := newRestorePoint(name, links)
	code, err := p.make(ctx, links, &f.fence)
	if err != nil {
		return &exitError{code, err.Error()}
	}
	if err := p.print(cmd.OutOrStdout(), f.json); err != nil || code != 0 {
		return errors.Join(err, &exitError{code: code})
	}
	return nil
}

func newRestorePoint(name string, links *shardLinks) *restorePoint {
	p := &restorePoint{Name: name, Database: links.conf.Name, Cluster: links.status.Cluster.ID, Shards: make([]shardPoint, len(links.all))}
	for i, link := range links.all {
		p.Shards[i].Shard = link.shard
	}
	return p
}

// make makes the point. The error says that nothing was made, and why; the code is that of
// the command.
func (p *restorePoint) make(ctx context.Context, links *shardLinks, fence *fenceFlags) (code int, err error) {
	if err := errors.Join(links.each(func(i int) error { return mayMakePoints(ctx, links.all[i]) })...); err != nil {
		return exitProblems, err
	}
	// What is written down has a connection and a time of its own, so that it is right also
	// when the rest is given up.
	home, err := links.open(ctx, 0)
	if err != nil {
		return exitProblems, err
	}
	defer endConn(home.conn)
	book, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	began, err := p.claim(book, home.conn)
	if err != nil {
		return exitProblems, err
	}
	begins := links.each(func(i int) error {
		_, err := links.all[i].conn.Exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
		return err
	})
	err = errors.Join(begins...)
	if err == nil {
		err = links.atOnce(ctx, fence, func(ctx context.Context, i int) error { return p.makeOn(ctx, links.all[i].conn, i) })
	}
	p.flush(ctx, links)
	if err != nil {
		p.Error = err.Error()
	}
	if !p.tried() {
		if _, e := home.conn.Exec(book, "DELETE FROM shardproxy.restore_points WHERE name = $1", pgx.QueryExecModeExec, p.Name); e != nil {
			err = errors.Join(err, fmt.Errorf("the name stays taken in shardproxy.restore_points: %w", e))
		}
		return exitProblems, errors.Join(err, p.firstError())
	}
	p.Whole = err == nil && p.made()
	if e := p.record(book, home.conn, began); e != nil {
		p.Error = strings.TrimSpace(p.Error + " it could not be recorded: " + e.Error())
	}
	if !p.Whole || !p.Recorded {
		return exitUnfinished, nil
	}
	return 0, nil
}

const rightsSQL = `SELECT has_function_privilege('pg_catalog.pg_create_restore_point(text)', 'EXECUTE'), current_user::text, current_setting('wal_level')`

// mayMakePoints says what keeps a shard from making points.
func mayMakePoints(ctx context.Context, link *shardLink) error {
	var may bool
	var user, level string
	err := link.conn.QueryRow(ctx, rightsSQL, pgx.QueryExecModeExec).Scan(&may, &user, &level)
	switch {
	case err != nil:
		return fmt.Errorf("shard %s: %w", link.shard, err)
	case !may:
		return fmt.Errorf("shard %s: the control user may not make restore points: GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO %s; in this database, as a superuser",
			link.shard, pgx.Identifier{user}.Sanitize())
	case level == "minimal":
		return fmt.Errorf("shard %s: wal_level is minimal: nothing can be recovered to a restore point", link.shard)
	}
	return nil
}

// claim takes the name, for good once a shard has made its point. It returns the time on
// the home shard.
func (p *restorePoint) claim(ctx context.Context, conn *pgx.Conn) (began string, err error) {
	err = conn.QueryRow(ctx, "INSERT INTO shardproxy.restore_points (name) VALUES ($1) ON CONFLICT DO NOTHING RETURNING began_at::text", pgx.QueryExecModeExec, p.Name).Scan(&began)
	if !errors.Is(err, pgx.ErrNoRows) {
		return began, err
	}
	var whole bool
	err = conn.QueryRow(ctx, "SELECT made_at IS NOT NULL, began_at::text FROM shardproxy.restore_points WHERE name = $1", pgx.QueryExecModeExec, p.Name).Scan(&whole, &began)
	switch {
	case err != nil:
		return "", err
	case whole:
		return "", fmt.Errorf("there is a restore point %q already, made at %s: recovery stops at the first of a name", p.Name, began)
	}
	return "", fmt.Errorf("a restore point %q was begun at %s and did not come to be on all shards, or is just being made: take another name, for recovery stops at the first of a name", p.Name, began)
}

// The transaction gets a number, without which its COMMIT would not wait until the point's
// record is on disk and with the synchronous standbys.
const pointSQL = `SELECT lsn::text, ('x' || substr(pg_walfile_name(lsn), 1, 8))::bit(32)::bigint, clock_timestamp()::text, pg_current_xact_id()::text
	FROM (SELECT pg_create_restore_point($1) AS lsn OFFSET 0) AS point`

// makeOn makes a shard's point, which is not on disk before flush.
func (p *restorePoint) makeOn(ctx context.Context, conn *pgx.Conn, i int) error {
	s := &p.Shards[i]
	var at, xid string
	err := conn.QueryRow(ctx, pointSQL, pgx.QueryExecModeExec, p.Name).Scan(&s.LSN, &s.Timeline, &at, &xid)
	var said *pgconn.PgError
	switch {
	case err == nil:
		if i == 0 {
			p.MadeAt = at
		}
		return nil
	case !errors.As(err, &said) || said.SeverityUnlocalized != "ERROR" || said.Code == "57014":
		s.maybe = true
	}
	s.LSN, s.Error = "", err.Error()
	return err
}

// flush waits until the points are on disk. A transaction that made none is ended.
func (p *restorePoint) flush(ctx context.Context, links *shardLinks) {
	links.each(func(i int) error {
		s := &p.Shards[i]
		tag, err := links.all[i].conn.Exec(ctx, "COMMIT")
		if s.LSN == "" {
			return nil
		}
		if err == nil && tag.String() != "COMMIT" {
			err = fmt.Errorf("the server answered COMMIT with %s", tag)
		}
		if err != nil {
			s.Error = "it may not have reached the disk: " + err.Error()
		}
		return nil
	})
}

// tried reports whether some shard has the point, or may have it.
func (p *restorePoint) tried() bool {
	for _, s := range p.Shards {
		if s.LSN != "" || s.maybe {
			return true
		}
	}
	return false
}

// made reports whether all shards have the point for sure.
func (p *restorePoint) made() bool {
	for _, s := range p.Shards {
		if s.LSN == "" || s.Error != "" {
			return false
		}
	}
	return true
}

func (p *restorePoint) firstError() error {
	for _, s := range p.Shards {
		if s.Error != "" {
			return fmt.Errorf("shard %s: %s", s.Shard, s.Error)
		}
	}
	return nil
}

// record writes what was made into the name's row, and looks for what cannot be of one moment.
func (p *restorePoint) record(ctx context.Context, conn *pgx.Conn, began string) error {
	var err error
	if p.Warnings, err = definitionsSince(ctx, conn, began); err != nil {
		return err
	}
	type part struct {
		Shard    string `json:"shard"`
		LSN      string `json:"lsn"`
		Timeline int64  `json:"timeline"`
	}
	parts := []part{}
	for _, s := range p.Shards {
		if s.LSN != "" {
			parts = append(parts, part{s.Shard, s.LSN, s.Timeline})
		}
	}
	b, err := json.Marshal(parts)
	if err != nil {
		return err
	}
	var at *string
	if p.Whole {
		at = &p.MadeAt
	}
	tag, err := conn.Exec(ctx, "UPDATE shardproxy.restore_points SET made_at = $2::text::timestamptz, shards = $3::text::jsonb WHERE name = $1", pgx.QueryExecModeExec, p.Name, at, string(b))
	if err == nil && tag.RowsAffected() != 1 {
		err = errors.New("its row in shardproxy.restore_points is gone")
	}
	p.Recorded = err == nil
	return err
}

// print writes the point as a table, or as JSON.
func (p *restorePoint) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, p)
	}
	switch {
	case p.Whole && p.Recorded:
		fmt.Fprintf(w, "restore point %q, made at %s\n", p.Name, p.MadeAt)
	case p.Whole:
		fmt.Fprintf(w, "restore point %q, made at %s on all shards: %s\n", p.Name, p.MadeAt, p.Error)
	default:
		fmt.Fprintf(w, "restore point %q is NOT one moment of all shards: do not recover to it; take another name. %s\n", p.Name, p.Error)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  SHARD\tLSN\tTIMELINE\t")
	for _, s := range p.Shards {
		switch {
		case s.LSN != "" && s.Error == "":
			fmt.Fprintf(t, "  %s\t%s\t%d\t\n", s.Shard, s.LSN, s.Timeline)
		case s.LSN != "":
			fmt.Fprintf(t, "  %s\t%s\t%d\t%s\n", s.Shard, s.LSN, s.Timeline, s.Error)
		case s.maybe:
			fmt.Fprintf(t, "  %s\tunknown\t\t%s\n", s.Shard, s.Error)
		default:
			fmt.Fprintf(t, "  %s\tnone\t\t%s\n", s.Shard, s.Error)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, warning := range p.Warnings {
		fmt.Fprintln(w, "warning:", warning)
	}
	return nil
}
