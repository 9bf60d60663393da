package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/pflag"

	"shardproxy/config"
	"shardproxy/metadata"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// fenceFlags bound how long a command may keep commits over several shards waiting.
type fenceFlags struct {
	wait, hold time.Duration
}

// maxHold is below the 30 s for which a commit waits for the fence.
const maxHold = 20 * time.Second

func (f *fenceFlags) add(fs *pflag.FlagSet) {
	fs.DurationVar(&f.wait, "wait", 30*time.Second, "how long commits over several shards that are under way are waited for")
	fs.DurationVar(&f.hold, "hold", 3*time.Second, "how long such commits may be made to wait, 20s at most")
}

func (f *fenceFlags) sensible() error {
	if f.wait <= 0 || f.hold <= 0 || f.hold > maxHold {
		return fmt.Errorf("--wait and --hold are more than 0, --hold at most %v", maxHold)
	}
	return nil
}

// shardLink is a connection of the control user to a shard's primary.
type shardLink struct {
	shard   string
	address string // of the server, as the configuration has it
	conn    *pgx.Conn
}

// shardLinks are connections to the primaries of all shards of a database, the home shard first.
type shardLinks struct {
	conf   *config.Database
	status *metadata.Status
	all    []*shardLink
	// connect makes one more connection to a shard's primary.
	connect func(shard int) metadata.Connect
}

// linkSetup sees to it that nothing a role or a database has set changes what is done over a
// link, or ends it.
const linkSetup = `SET search_path = pg_catalog, pg_temp; SET default_transaction_read_only = off; SET default_transaction_deferrable = off;
	SET DateStyle = 'ISO'; SET TimeZone = 'UTC';
	SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0;
	SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout';
	SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')`

// openLinks connects to all shards, which must be those of the database's cluster: those of the configuration but for what is spare.
func openLinks(ctx context.Context, cfg *config.Config, conf *config.Database) (*shardLinks, error) {
	status, err := metadata.Check(ctx, clusterOptions(conf, func(i int) metadata.Connect { return primaryOf(cfg, conf, i) }))
	if err != nil {
		return nil, err
	}
	conf = withoutSpare(conf, status.Spare)
	l := &shardLinks{conf: conf, status: status, connect: func(i int) metadata.Connect { return primaryOf(cfg, conf, i) }}
	for _, w := range l.status.Warnings {
		if errors.Is(w, metadata.ErrUnreachable) {
			return nil, w
		}
	}
	l.all = make([]*shardLink, len(l.conf.Shards))
	errs := l.each(func(i int) (err error) {
		l.all[i], err = l.open(ctx, i)
		return err
	})
	if err := errors.Join(errs...); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// withoutSpare returns a database without the shards of these names.
func withoutSpare(conf *config.Database, spare []string) *config.Database {
	if len(spare) == 0 {
		return conf
	}
	is := *conf
	is.Shards = slices.DeleteFunc(slices.Clone(conf.Shards), func(s config.Shard) bool { return slices.Contains(spare, s.Name) })
	return &is
}

// open makes one more connection to a shard.
func (l *shardLinks) open(ctx context.Context, i int) (*shardLink, error) {
	name := l.conf.Shards[i].Name
	conn, err := linkTo(ctx, name, l.connect(i))
	if err != nil {
		return nil, err
	}
	c := conn.Config()
	return &shardLink{shard: name, address: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), conn: conn}, nil
}

// linkTo connects to a shard's primary, as linkSetup has it.
func linkTo(ctx context.Context, name string, connect metadata.Connect) (*pgx.Conn, error) {
	conn, err := connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", name, err)
	}
	if _, err := conn.Exec(ctx, linkSetup); err != nil {
		endConn(conn)
		return nil, fmt.Errorf("shard %s: %w", name, err)
	}
	return conn, nil
}

// endConn closes a connection, and waits for its server a second at most.
func endConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	closeConn(ctx, conn)
}

func (l *shardLinks) close() {
	l.each(func(i int) error {
		if l.all[i] != nil {
			endConn(l.all[i].conn)
		}
		return nil
	})
}

// each calls do for all shards at once, and returns the errors by shard.
func (l *shardLinks) each(do func(i int) error) []error {
	errs := make([]error, len(l.conf.Shards))
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	return errs
}

// atOnce calls do for all shards while no transaction over several of them is half committed,
// and none can become so. The home shard comes last: values that other shards' rows have of its
// sequences, and epochs that they know, are then older than what is done there.
//
// The error says that what was done is not of one moment. do keeps its errors itself: they keep
// the home shard from being begun, and are no error here.
func (l *shardLinks) atOnce(ctx context.Context, f *fenceFlags, do func(ctx context.Context, i int) error) error {
	o := twopc.FenceOptions{
		Database: l.conf.Name, Cluster: l.status.Cluster.ID, Wait: f.wait, Window: f.hold, Logger: slog.New(slog.DiscardHandler),
	}
	places := make([]int, len(l.all))
	for i, link := range l.all {
		places[i] = i
		o.Shards = append(o.Shards, twopc.Shard{Name: link.shard, Connect: l.connect(i)})
	}
	fence, err := twopc.NewFence(o)
	if err != nil {
		return err
	}
	defer fence.Close()
	window, err := fence.Enter(ctx, places)
	if err != nil {
		return told(err)
	}
	for i, link := range l.all {
		if at := window.Address(i); at != link.address {
			return errors.Join(fmt.Errorf("shard %s: its primary was at %s and is now at %s: try it again", link.shard, link.address, at), told(window.Leave()))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, f.hold)
	defer cancel()
	errs := l.each(func(i int) error {
		if i == 0 {
			return nil
		}
		return do(ctx, i)
	})
	if errors.Join(errs...) == nil {
		_ = do(ctx, 0) // as those of the others
	}
	return told(window.Leave())
}

// told is an error of the fence in words for an operator; nil for nil.
func told(err error) error {
	var said *wire.Error
	switch {
	case !errors.As(err, &said):
		return err
	case said.Detail == "" && said.Cause == nil:
		return errors.New("the shards were not held together in time: see --hold")
	case said.Cause == nil:
		return fmt.Errorf("%s: a transaction over several shards does not end; a running proxy finishes those whose proxy is gone: see --wait", shardOf(said))
	case errors.Is(said.Cause, context.DeadlineExceeded):
		return fmt.Errorf("%s: a transaction over several shards does not end, or the server gives no answer: see --wait", shardOf(said))
	default:
		return fmt.Errorf("%s is not held together with the others: %w", shardOf(said), said.Cause)
	}
}

// shardOf names the shard of an error of the fence.
func shardOf(e *wire.Error) string {
	return strings.TrimSuffix(strings.Replace(e.Detail, "Shard", "shard", 1), ".")
}

const definitionsSQL = `SELECT id FROM shardproxy.ddl WHERE ended_at IS NULL OR ended_at >= $1::text::timestamptz ORDER BY id`

// definitionsSince returns a warning when statements that run on one shard after the other, such as
// CREATE INDEX CONCURRENTLY, were not over at a time of the home shard's clock: some shards may
// have what they made, others not.
func definitionsSince(ctx context.Context, conn *pgx.Conn, since string) (warnings []string, err error) {
	rows, err := conn.Query(ctx, definitionsSQL, pgx.QueryExecModeExec, since)
	if err != nil {
		return nil, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	for _, id := range ids {
		warnings = append(warnings, fmt.Sprintf("statement %d of the journal had not ended on every shard (shardproxy ddl status): "+
			"what it makes may be on some shards only; after a restore look with shardproxy check --schema", id))
	}
	return warnings, err
}
