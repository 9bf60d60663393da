package metadata

// Version is the version of the schema that this program makes and knows.
const Version = 1

// Channel is where a new epoch is announced on the home shard, with the
// payload "<cluster> <epoch>".
const Channel = "shardproxy"

// steady is the state of a slot that does not move.
const steady = "steady"

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
	return []step{{version: 1, shard: shardTables, home: homeTables}}
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

const createSchema = `
CREATE SCHEMA shardproxy;
REVOKE ALL ON SCHEMA shardproxy FROM PUBLIC;
`

const commentSchema = `COMMENT ON SCHEMA shardproxy IS 'State of the proxy shardproxy: cluster, slot map, epoch. Dump and restore it with the rows.'`
