package metadata

// hiddenVersion is the version of the schema since which there is the table hidden.
const hiddenVersion = 6

// Which rows on a shard are not its own. Everybody may read it: statements over several shards do, as whoever sends them.
const hiddenTable = `
ALTER TABLE shardproxy.epoch ADD COLUMN guarded boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN shardproxy.epoch.guarded IS 'On the home shard: statements over several shards leave out the rows of slots that are hidden';

CREATE TABLE shardproxy.hidden (
	one   boolean PRIMARY KEY DEFAULT true CHECK (one),
	slots bit varying NOT NULL
);
REVOKE ALL ON shardproxy.hidden FROM PUBLIC;
GRANT SELECT ON shardproxy.hidden TO PUBLIC;
COMMENT ON TABLE shardproxy.hidden IS 'One row: a bit for each slot, set when this shard may hold rows of it that are not its own: they come, or are to be deleted.';

CREATE TABLE shardproxy.fences (
	move   text PRIMARY KEY,
	closed boolean NOT NULL DEFAULT false
);
REVOKE ALL ON shardproxy.fences FROM PUBLIC;
COMMENT ON TABLE shardproxy.fences IS 'Moves of slots away from this shard. Whoever writes a row of their slots holds a share lock on theirs; a closed one refuses.';

CREATE FUNCTION shardproxy.fence() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	is_closed boolean;
BEGIN
	SELECT f.closed INTO is_closed FROM shardproxy.fences f WHERE f.move = TG_ARGV[0] FOR SHARE;
	IF is_closed IS DISTINCT FROM false THEN
		RAISE EXCEPTION 'the slot of this row moves to another shard'
			USING ERRCODE = '40001', HINT = 'Try the transaction again.', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
	END IF;
	RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION shardproxy.fence() FROM PUBLIC;
COMMENT ON FUNCTION shardproxy.fence() IS 'Trigger of tables of which slots move away: waits for nobody, and is waited for.';

CREATE FUNCTION shardproxy.enter(proxy integer) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
	SELECT pg_catalog.pg_advisory_lock_shared(1936744304, proxy);
	SELECT e.epoch FROM shardproxy.epoch e
$$;
COMMENT ON FUNCTION shardproxy.enter(integer) IS 'Called by a proxy in each session that it opens: says whose it is, and which slot map must be known to use it.';
REVOKE ALL ON FUNCTION shardproxy.enter(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shardproxy.enter(integer) TO PUBLIC;

CREATE TABLE shardproxy.move_progress (
	move text PRIMARY KEY,
	lsn  pg_lsn NOT NULL
);
REVOKE ALL ON shardproxy.move_progress FROM PUBLIC;
COMMENT ON TABLE shardproxy.move_progress IS 'Moves of slots to this shard: up to where the source''s changes are applied.';
`

// What the home shard knows of moves, and which proxies keep to which epoch of the slot map.
const moveTables = `
ALTER TABLE shardproxy.slots DROP CONSTRAINT slots_state_check, ADD CONSTRAINT slots_state_check CHECK (state IN ('steady', 'held'));
COMMENT ON COLUMN shardproxy.slots.state IS 'steady; held: writes of the slot''s rows wait in the proxies';

CREATE TABLE shardproxy.acknowledged (
	proxy   text PRIMARY KEY,
	host    text NOT NULL,
	epoch   bigint NOT NULL,
	writes  bigint NOT NULL,
	statements  bigint NOT NULL,
	seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
REVOKE ALL ON shardproxy.acknowledged FROM PUBLIC;
COMMENT ON TABLE shardproxy.acknowledged IS 'The proxies that serve the cluster, and the versions of the slot map that they work by.';
COMMENT ON COLUMN shardproxy.acknowledged.epoch IS 'The newest map that the proxy knows';
COMMENT ON COLUMN shardproxy.acknowledged.writes IS 'No statement or transaction that may have written works by an older one';
COMMENT ON COLUMN shardproxy.acknowledged.statements IS 'No statement does';

CREATE TABLE shardproxy.moves (
	id         bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	slots      integer[] NOT NULL CHECK (cardinality(slots) > 0),
	source     text NOT NULL,
	target     text NOT NULL CHECK (target <> source),
	phase      text NOT NULL CHECK (phase IN ('planned', 'hiding', 'copying', 'following', 'flipped', 'purging', 'done', 'aborting', 'aborted')),
	abort      boolean NOT NULL DEFAULT false,
	verified   boolean NOT NULL DEFAULT false,
	origin     jsonb,
	copied     bigint NOT NULL DEFAULT 0,
	purged     bigint NOT NULL DEFAULT 0,
	held_ms    integer NOT NULL DEFAULT 0,
	said       text NOT NULL DEFAULT '',
	planned_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
REVOKE ALL ON shardproxy.moves FROM PUBLIC;
COMMENT ON TABLE shardproxy.moves IS 'Moves of slots, in the order in which they are made. Those that are neither done nor aborted are under way or to come.';
COMMENT ON COLUMN shardproxy.moves.origin IS 'Where the changes begin that are followed; NULL before the replication slot is made';
COMMENT ON COLUMN shardproxy.moves.verified IS 'The rows of both sides were equal';
COMMENT ON COLUMN shardproxy.moves.said IS 'What it waits for, or why it failed';
`

// joinVersion is the version of the schema since which shards can join and leave.
const joinVersion = 7

const closedColumn = `
ALTER TABLE shardproxy.epoch ADD COLUMN closed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN shardproxy.epoch.closed IS 'On the home shard: definitions, and writes of what all shards have alike, wait in the proxies';
`

const joinColumns = `
ALTER TABLE shardproxy.moves
	ADD COLUMN kind text NOT NULL DEFAULT 'slots' CHECK (kind IN ('slots', 'join', 'leave')),
	ADD COLUMN maker integer,
	ADD COLUMN rows bigint NOT NULL DEFAULT 0,
	ADD COLUMN paused boolean NOT NULL DEFAULT false,
	DROP CONSTRAINT moves_slots_check,
	ADD CONSTRAINT moves_slots_check CHECK ((cardinality(slots) > 0) = (kind = 'slots'));
COMMENT ON TABLE shardproxy.moves IS 'Moves of slots, and shards that join or leave, in the order in which they are made. Those that are neither done nor aborted are under way or to come.';
COMMENT ON COLUMN shardproxy.moves.kind IS 'slots go from the source to the target; join: the target becomes a shard; leave: the source is none any more';
COMMENT ON COLUMN shardproxy.moves.maker IS 'The number in unique ids of a shard that joins, never given again; one that leaves had no higher one';
COMMENT ON COLUMN shardproxy.moves.rows IS 'About how many rows it carries, 0 for not known';
COMMENT ON COLUMN shardproxy.moves.paused IS 'No further phase is begun, and no writes are held';

ALTER TABLE shardproxy.acknowledged ADD COLUMN shards text[];
COMMENT ON COLUMN shardproxy.acknowledged.shards IS 'Those of the proxy''s configuration';
`

// backVersion is the version of the schema since which moves can be taken back behind their flip.
const backVersion = 8

const backColumns = `
ALTER TABLE shardproxy.moves
	ADD COLUMN reversible boolean NOT NULL DEFAULT false,
	ADD COLUMN reverse jsonb,
	ADD COLUMN wanted text NOT NULL DEFAULT '' CHECK (wanted IN ('', 'complete', 'rollback')),
	ADD COLUMN back boolean NOT NULL DEFAULT false,
	DROP CONSTRAINT moves_phase_check,
	ADD CONSTRAINT moves_phase_check CHECK (phase IN ('planned', 'hiding', 'copying', 'following', 'flipped', 'reversing', 'purging', 'done', 'aborting', 'aborted'));
COMMENT ON COLUMN shardproxy.moves.reversible IS 'Behind the flip the source is kept as the target is, until the move is completed or rolled back';
COMMENT ON COLUMN shardproxy.moves.reverse IS 'Where the target''s changes begin that are streamed back; NULL before the flip';
COMMENT ON COLUMN shardproxy.moves.wanted IS 'What is to become of a reversible move';
COMMENT ON COLUMN shardproxy.moves.back IS 'It is being rolled back, or was: source and target are those of the way back';
`
