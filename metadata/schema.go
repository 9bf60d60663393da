package metadata

import "strings"

// Version is the version of the schema that this program makes and knows.
const Version = 9

// Channel is where a new epoch is announced on the home shard, with the
// payload "<cluster> <epoch>", and that definitions have changed: see News.
const Channel = "shardproxy"

// News returns the command that tells all proxies of a cluster, once its transaction on
// the home shard commits, that tables or other definitions have changed. from is a word
// for who tells: its own Watcher need not hear of it.
func News(cluster, from string) string {
	return "NOTIFY " + Channel + ", '" + strings.ReplaceAll(newsOf(cluster)+from, "'", "''") + "'"
}

func newsOf(cluster string) string { return cluster + " catalog " }

// The states of a slot: held is that of one whose writes wait.
const (
	steady = "steady"
	held   = "held"
)

// step brings the schema to a version from the one before. Steps are never
// changed once released.
type step struct {
	version int
	shard   string // SQL for every shard
	home    string // SQL for the home shard, run after that
}

// steps returns the way to Version, in order. The columns of cluster that step
// 1 makes are what every later version can read of any other: they stay.
func steps() []step {
	return []step{
		{version: 1, shard: shardTables, home: homeTables},
		{version: 2, shard: commitTable},
		{version: 3, home: ddlTables},
		{version: 4, shard: partTable, home: restorePointTable},
		{version: uniqueVersion, shard: uniqueShard, home: uniqueHome},
		{version: hiddenVersion, shard: hiddenTable, home: moveTables},
		{version: joinVersion, shard: closedColumn, home: joinColumns},
		{version: backVersion, home: backColumns},
		{version: rulesVersion, home: rulesTable},
	}
}

const shardTables = `
CREATE TABLE shardproxy.cluster (
	one            boolean PRIMARY KEY DEFAULT true CHECK (one),
	id             uuid NOT NULL,
	database       text NOT NULL CHECK (database <> ''),
	shard          text NOT NULL CHECK (shard <> ''),
	home           text NOT NULL CHECK (home <> ''),
	slots          integer NOT NULL CHECK (slots BETWEEN 1 AND 65536 AND slots & (slots - 1) = 0),
	schema_version integer NOT NULL CHECK (schema_version >= 1),
	created_at     timestamptz NOT NULL DEFAULT now()
);
REVOKE ALL ON shardproxy.cluster FROM PUBLIC;
COMMENT ON TABLE shardproxy.cluster IS 'One row: which shardproxy cluster this database belongs to, and as which shard. Never edit it.';
COMMENT ON COLUMN shardproxy.cluster.id IS 'The cluster, the same on all its shards';
COMMENT ON COLUMN shardproxy.cluster.database IS 'The logical database''s name in the configuration';
COMMENT ON COLUMN shardproxy.cluster.shard IS 'This shard''s name in the configuration';
COMMENT ON COLUMN shardproxy.cluster.home IS 'The shard that holds the tables slots and shards';
COMMENT ON COLUMN shardproxy.cluster.slots IS 'How many slots keys are hashed to; fixed for the cluster''s life';
COMMENT ON COLUMN shardproxy.cluster.schema_version IS 'Version of the schema shardproxy on this shard';

CREATE TABLE shardproxy.epoch (
	one        boolean PRIMARY KEY DEFAULT true CHECK (one),
	epoch      bigint NOT NULL CHECK (epoch >= 1),
	changed_at timestamptz NOT NULL DEFAULT now()
);
REVOKE ALL ON shardproxy.epoch FROM PUBLIC;
COMMENT ON TABLE shardproxy.epoch IS 'One row: the newest version of the slot map that this shard knows. It only grows.';
`

const homeTables = `
CREATE TABLE shardproxy.shards (
	name     text PRIMARY KEY CHECK (name <> ''),
	position integer NOT NULL UNIQUE DEFERRABLE INITIALLY DEFERRED CHECK (position >= 0)
);
REVOKE ALL ON shardproxy.shards FROM PUBLIC;
COMMENT ON TABLE shardproxy.shards IS 'The shards that may own slots; position 0 is the home shard.';

CREATE TABLE shardproxy.slots (
	slot  integer PRIMARY KEY CHECK (slot BETWEEN 0 AND 65535),
	shard text NOT NULL REFERENCES shardproxy.shards (name),
	state text NOT NULL DEFAULT 'steady' CHECK (state = 'steady')
);
REVOKE ALL ON shardproxy.slots FROM PUBLIC;
COMMENT ON TABLE shardproxy.slots IS 'The slot map: which shard holds the rows of each slot. Proxies read it again when the epoch grows; editing it moves no rows.';
COMMENT ON COLUMN shardproxy.slots.state IS 'steady: the slot''s rows are on its shard';
`

// The decisions of transactions over several shards; package twopc says how they
// are used. Whoever may connect may call the function, and nothing else: what
// it writes says who called it. That is the role which owns the transaction's
// other parts, too: the one of SET ROLE, else the session's. It names all it uses
// by schema, for its body is run under whatever the caller has made of the rest.
//
// xid is what tells whether a transaction that began before a tombstone may
// still be running (pg_snapshot_xmin).
const commitTable = `
CREATE TABLE shardproxy.commits (
	gid        text PRIMARY KEY CHECK (gid <> '' AND octet_length(gid) < 200),
	committed  boolean NOT NULL,
	decided_by text NOT NULL,
	decided_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	xid        xid8 NOT NULL DEFAULT pg_current_xact_id()
);
REVOKE ALL ON shardproxy.commits FROM PUBLIC;
COMMENT ON TABLE shardproxy.commits IS 'Decisions of transactions over several shards that this shard was the first to write in. Never edit it while a prepared transaction has the name.';
COMMENT ON COLUMN shardproxy.commits.gid IS 'The transaction; its prepared parts have this name and a number';
COMMENT ON COLUMN shardproxy.commits.committed IS 'false: it was rolled back by recovery, and can no longer commit';
COMMENT ON COLUMN shardproxy.commits.decided_by IS 'The role that decided: that of the transaction, or the control user';
COMMENT ON COLUMN shardproxy.commits.xid IS 'The transaction that wrote the row';

CREATE FUNCTION shardproxy.decide(gid text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
	INSERT INTO shardproxy.commits (gid, committed, decided_by)
	VALUES ($1, true, CASE pg_catalog.current_setting('role') WHEN 'none' THEN session_user::pg_catalog.text ELSE pg_catalog.current_setting('role') END)
$$;
COMMENT ON FUNCTION shardproxy.decide(text) IS 'Called by the proxy in a transaction over several shards: its COMMIT is the decision.';
REVOKE ALL ON FUNCTION shardproxy.decide(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shardproxy.decide(text) TO PUBLIC;
REVOKE ALL ON SCHEMA shardproxy FROM PUBLIC;
GRANT USAGE ON SCHEMA shardproxy TO PUBLIC;
`

// FenceClass and FenceObject are the key of the advisory lock on every shard that prepared
// parts of transactions hold shared until they are finished. Who holds it alone sees none of
// them half committed: see package twopc.
const (
	FenceClass  = 1936744294 // "sp_f"
	FenceObject = 0
)

// The parts that were prepared on a shard. What take_part locks and writes lives as long as
// the prepared transaction: both are its own. Who may call it may commit on several shards,
// as with decide.
const partTable = `
CREATE TABLE shardproxy.parts (
	xid     xid8 PRIMARY KEY DEFAULT pg_current_xact_id(),
	made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
REVOKE ALL ON shardproxy.parts FROM PUBLIC;
COMMENT ON TABLE shardproxy.parts IS 'Parts of transactions over several shards that were prepared on this shard in the last hour: whether one came behind a snapshot.';

CREATE FUNCTION shardproxy.take_part() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '30s' AS $$
	SELECT pg_catalog.pg_advisory_xact_lock_shared(1936744294, 0);
	INSERT INTO shardproxy.parts DEFAULT VALUES ON CONFLICT DO NOTHING
$$;
COMMENT ON FUNCTION shardproxy.take_part() IS 'Called by the proxy before it prepares a part of a transaction over several shards.';
REVOKE ALL ON FUNCTION shardproxy.take_part() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shardproxy.take_part() TO PUBLIC;
`

// The journal of statements that PostgreSQL runs in several transactions of its own;
// package ddl says how it is used.
const ddlTables = `
CREATE TABLE shardproxy.ddl (
	id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	statement   text NOT NULL,
	role        text NOT NULL,
	search_path text NOT NULL,
	settings    jsonb NOT NULL,
	namespace   text NOT NULL,
	object      text NOT NULL,
	relation    text NOT NULL,
	state       text NOT NULL CHECK (state IN ('running', 'unfinished', 'done', 'undone', 'abandoned')),
	began_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
	ended_at    timestamptz CHECK ((ended_at IS NULL) = (state IN ('running', 'unfinished')))
);
REVOKE ALL ON shardproxy.ddl FROM PUBLIC;
COMMENT ON TABLE shardproxy.ddl IS 'Statements that ran on one shard after the other, in no transaction. See shardproxy ddl.';
COMMENT ON COLUMN shardproxy.ddl.statement IS 'The statement as it is run';
COMMENT ON COLUMN shardproxy.ddl.role IS 'The role it runs as';
COMMENT ON COLUMN shardproxy.ddl.settings IS 'Settings by which its text is read';
COMMENT ON COLUMN shardproxy.ddl.namespace IS 'The schema of the index, table or partition that it is about';
COMMENT ON COLUMN shardproxy.ddl.object IS 'The index, table or partition that it is about';
COMMENT ON COLUMN shardproxy.ddl.relation IS 'The table that the index or the partition is of, as a qualified name';
COMMENT ON COLUMN shardproxy.ddl.state IS 'undone: it failed before it changed anything; abandoned: an operator ended it';

CREATE TABLE shardproxy.ddl_shard (
	id         bigint NOT NULL REFERENCES shardproxy.ddl ON DELETE CASCADE,
	shard      text NOT NULL CHECK (shard <> ''),
	position   integer NOT NULL,
	state      text NOT NULL CHECK (state IN ('pending', 'running', 'done', 'failed', 'unknown')),
	before     oid,
	invalid    oid[] NOT NULL,
	error      text,
	changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (id, shard)
);
REVOKE ALL ON shardproxy.ddl_shard FROM PUBLIC;
COMMENT ON TABLE shardproxy.ddl_shard IS 'How far a statement of shardproxy.ddl has come on each shard.';
COMMENT ON COLUMN shardproxy.ddl_shard.state IS 'unknown: the connection was lost while it ran';
COMMENT ON COLUMN shardproxy.ddl_shard.before IS 'The object of the name that was there before the statement';
COMMENT ON COLUMN shardproxy.ddl_shard.invalid IS 'Invalid indexes that the table had before the statement';
`

// The restore points that were made on all shards at one moment. A name is taken before the
// first shard makes its point: PostgreSQL recovers to the first point of a name, so none is
// made twice, whatever became of the first try.
const restorePointTable = `
CREATE TABLE shardproxy.restore_points (
	name     text PRIMARY KEY CHECK (name <> '' AND octet_length(name) <= 63),
	began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	made_at  timestamptz,
	shards   jsonb NOT NULL DEFAULT '[]'
);
REVOKE ALL ON shardproxy.restore_points FROM PUBLIC;
COMMENT ON TABLE shardproxy.restore_points IS 'Restore points of all shards together. See shardproxy restore-point.';
COMMENT ON COLUMN shardproxy.restore_points.made_at IS 'NULL: some shard may lack the point, or they are not of one moment: do not recover to it';
COMMENT ON COLUMN shardproxy.restore_points.shards IS 'Shard, lsn and timeline of each point that was made';
`

const createSchema = `
CREATE SCHEMA shardproxy;
REVOKE ALL ON SCHEMA shardproxy FROM PUBLIC;
`

const commentSchema = `COMMENT ON SCHEMA shardproxy IS 'State of the proxy shardproxy: cluster, slot map, epoch, commits, journal of definitions, unique ids. Dump and restore it with the rows.'`
