package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Cluster is a shard's row of the table cluster.
type Cluster struct {
	// ID is the cluster's identity, a UUID in text form, made by Init.
	ID string
	// Database is the logical database's name.
	Database string
	// Shard is the name of the shard that the row was read from.
	Shard string
	// Home is the name of the home shard.
	Home string
	// Slots is the number of slots, for the cluster's life.
	Slots int
	// SchemaVersion is that of the shard's schema.
	SchemaVersion int
	// CreatedAt is when the row was made.
	CreatedAt time.Time
	// Rules are those by which rows are placed, as JSON, where the row was read with the slot map; "" when none are stored.
	Rules string
}

// readCluster returns the row of the table cluster, nil when there is no such
// table or no row. It reads rows of every schema version.
func readCluster(ctx context.Context, tx pgx.Tx) (*Cluster, error) {
	var there bool
	if err := row(ctx, tx, "SELECT to_regclass('shardproxy.cluster') IS NOT NULL").Scan(&there); err != nil {
		return nil, err
	}
	if !there {
		return nil, nil
	}
	var c Cluster
	var micros, count int64
	// DateStyle is the role's: a number is read the same under every one.
	err := row(ctx, tx, `SELECT id::text, database, shard, home, slots, schema_version,
		(extract(epoch FROM created_at) * 1000000)::bigint, count(*) OVER () FROM shardproxy.cluster`).
		Scan(&c.ID, &c.Database, &c.Shard, &c.Home, &c.Slots, &c.SchemaVersion, &micros, &count)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case sqlstate(err) == codeNoColumn:
		return nil, &Problem{Kind: ErrInconsistent, Cause: err, Reason: "the table shardproxy.cluster is not this program's: " + err.Error(),
			Hint: "the name shardproxy is taken by something else in this database; rename that schema"}
	case err != nil:
		return nil, err
	case count != 1:
		return nil, tooMany("cluster", count)
	}
	c.CreatedAt = time.UnixMicro(micros)
	return &c, nil
}

// readEpoch returns the epoch stored on a shard, 0 when there is none.
func readEpoch(ctx context.Context, tx pgx.Tx) (epoch int64, err error) {
	var count int64
	err = row(ctx, tx, "SELECT epoch, count(*) OVER () FROM shardproxy.epoch").Scan(&epoch, &count)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, nil
	case err == nil && count != 1:
		return 0, tooMany("epoch", count)
	}
	return epoch, err
}

func tooMany(table string, count int64) *Problem {
	return &Problem{Kind: ErrInconsistent, Reason: fmt.Sprintf("the table shardproxy.%s has %d rows, not one", table, count),
		Hint: hintRestore}
}

// checkVersion returns a Problem unless the row's version is the given one.
func (c *Cluster) checkVersion(known int) error {
	cause := &VersionError{c.SchemaVersion, known}
	p := &Problem{Shard: c.Shard, Kind: ErrVersion, Cause: cause, Reason: "the schema shardproxy has " + cause.Error()}
	switch {
	case c.SchemaVersion > known:
		p.Hint = "use the version of shardproxy that upgraded the schema, or a newer one"
	case c.SchemaVersion < known:
		p.Hint = "run \"shardproxy init\", which upgrades the schema"
	default:
		return nil
	}
	return p
}

// sameAs returns a Problem unless the row is that of the wanted shard.
func (c *Cluster) sameAs(want *Cluster) error {
	p := &Problem{Shard: want.Shard, Kind: ErrOtherCluster}
	switch {
	case c.ID != want.ID:
		p.Reason = fmt.Sprintf("its server belongs to another cluster: %s (database %q, shard %q), not %s", c.ID, c.Database, c.Shard, want.ID)
		p.Hint = "see that the configuration names the right server; if the other cluster is given up, drop the schema shardproxy there"
	case c.Database != want.Database:
		p.Reason = fmt.Sprintf("its server is of the database %q, the configuration calls it %q", c.Database, want.Database)
		p.Hint = "call the database what it was called when the cluster was made, or UPDATE shardproxy.cluster SET database on every shard"
	case c.Shard != want.Shard:
		p.Reason = fmt.Sprintf("its server is shard %q of this cluster", c.Shard)
		p.Hint = "the nodes of two shards are probably exchanged in the configuration"
	case c.Home != want.Home:
		p.Reason = fmt.Sprintf("it knows %q as home shard, the configuration lists %q first", c.Home, want.Home)
		p.Hint = fmt.Sprintf("list shard %q first", c.Home)
	case c.Slots != want.Slots:
		p.Kind = ErrMismatch
		p.Reason = fmt.Sprintf("the cluster was made with %d slots, not %d", c.Slots, want.Slots)
		p.Hint = "the number of slots is fixed when a cluster is made; set it to what it was"
	default:
		return nil
	}
	return p
}

// claim makes or upgrades the schema of a shard and its row, in one transaction,
// unless it is all there. It returns what it did, "" for nothing. want.Shard
// says which shard it should be, the way says what it takes.
func claim(ctx context.Context, conn *pgx.Conn, want *Cluster, way []step) (did string, err error) {
	err = within(ctx, conn, beginWrite, func(tx pgx.Tx) error {
		if _, err := exec(ctx, tx, "SELECT pg_advisory_xact_lock($1, $2)", int32(lockClass), int32(lockSchema)); err != nil {
			return err
		}
		if err := becomeOwner(ctx, tx); err != nil {
			return err
		}
		is, err := readCluster(ctx, tx)
		if err != nil {
			return err
		}
		did, err = bringUp(ctx, tx, is, want, way)
		return err
	})
	return did, err
}

// becomeOwner makes the schema, or takes on the role that owns it, so that all
// that is in it has one owner.
func becomeOwner(ctx context.Context, tx pgx.Tx) error {
	var owner string
	err := row(ctx, tx, "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'shardproxy'").Scan(&owner)
	if errors.Is(err, pgx.ErrNoRows) {
		_, err = exec(ctx, tx, createSchema)
		return err
	}
	if err == nil {
		_, err = exec(ctx, tx, "SET LOCAL ROLE "+pgx.Identifier{owner}.Sanitize())
	}
	return err
}

// wouldClaim says in advance what claim would do.
func wouldClaim(is, want *Cluster, way []step) string {
	to := way[len(way)-1].version
	switch {
	case is == nil:
		return made(to, want.Shard)
	case is.SchemaVersion < to:
		return upgraded(is.SchemaVersion, to)
	}
	return ""
}

func made(version int, shard string) string {
	return fmt.Sprintf("made the schema, version %d, as shard %q", version, shard)
}

func upgraded(from, to int) string {
	return fmt.Sprintf("upgraded the schema from version %d to %d", from, to)
}

// bringUp takes the steps that a shard lacks and sees to its row.
func bringUp(ctx context.Context, tx pgx.Tx, is, want *Cluster, way []step) (did string, err error) {
	from, to := 0, way[len(way)-1].version
	if is != nil {
		if err := is.sameAs(want); err != nil {
			return "", err
		}
		if from = is.SchemaVersion; from == to {
			return "", nil
		}
		if from > to {
			return "", is.checkVersion(to)
		}
	}
	for _, s := range way {
		if s.version <= from {
			continue
		}
		sql := s.shard
		if want.Shard == want.Home {
			sql += s.home
		}
		if _, err := exec(ctx, tx, sql); err != nil {
			return "", fmt.Errorf("schema version %d: %w", s.version, err)
		}
	}
	if _, err := exec(ctx, tx, commentSchema); err != nil {
		return "", err
	}
	if to >= hiddenVersion {
		_, err := exec(ctx, tx, "INSERT INTO shardproxy.hidden (slots) VALUES (repeat('0', $1)::bit varying) ON CONFLICT (one) DO NOTHING", int32(want.Slots))
		if err != nil {
			return "", err
		}
	}
	if is != nil {
		_, err := exec(ctx, tx, "UPDATE shardproxy.cluster SET schema_version = $1", int32(to))
		return upgraded(from, to), err
	}
	_, err = exec(ctx, tx, `INSERT INTO shardproxy.cluster (id, database, shard, home, slots, schema_version)
		VALUES ($1::text::uuid, $2, $3, $4, $5, $6)`, want.ID, want.Database, want.Shard, want.Home, int32(want.Slots), int32(to))
	return made(to, want.Shard), err
}
