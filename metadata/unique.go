package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// An id of shardproxy.unique_id() is a bigint of three numbers: milliseconds since 2025, of 41 bits, who made it,
// and a count. Package sequence makes them in proxies; the function does in a shard.
const (
	// UniqueEpoch is the beginning of 2025 UTC, in milliseconds since 1970.
	UniqueEpoch = 1735689600000
	// UniqueMakerBits and UniqueCountBits are the bits of who made an id, and of its count.
	UniqueMakerBits, UniqueCountBits = 10, 12
	// UniqueProxies is how many numbers of makers are for proxies. Those from it on are for shards.
	UniqueProxies = 768
)

// uniqueShard is what makes ids within a shard. maker has the shard's number: see writer.number.
//
// The sequence counts in ids without the maker's bits: milliseconds and a count. What it gives is never given again, so
// ids are unique whatever the clock does. When it is behind the clock it is set to it. That is done by one at a time,
// under a lock that nobody else can take, of which a subtransaction that fails lets go; what setval did stays. Others may
// draw meanwhile: each draws one value and then waits for the lock, and the sequence is set only if that takes it 65,536
// values ahead.
const uniqueShard = `
CREATE TABLE shardproxy.maker (
	one    boolean PRIMARY KEY DEFAULT true CHECK (one),
	number bigint NOT NULL CHECK (number BETWEEN 768 AND 1023)
);
REVOKE ALL ON shardproxy.maker FROM PUBLIC;
COMMENT ON TABLE shardproxy.maker IS 'One row: this shard''s number in the ids that shardproxy.unique_id() makes here. No other shard, and no proxy, has it.';

CREATE SEQUENCE shardproxy.unique_ids AS bigint MINVALUE 0 START 0 MAXVALUE 9007199254740991;
REVOKE ALL ON shardproxy.unique_ids FROM PUBLIC;
COMMENT ON SEQUENCE shardproxy.unique_ids IS 'The ids that shardproxy.unique_id() made here, without the number of the shard. Never set it back.';

CREATE FUNCTION shardproxy.advance_unique_ids(tick bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	LOCK TABLE shardproxy.maker IN SHARE ROW EXCLUSIVE MODE;
	PERFORM pg_catalog.setval('shardproxy.unique_ids', (tick << 12), false) FROM shardproxy.unique_ids s
		WHERE s.last_value >> 12 < tick - 16 AND pg_catalog.clock_timestamp() >= pg_catalog.to_timestamp((1735689600000 + tick - 1) / 1000.0);
	RAISE EXCEPTION 'done' USING ERRCODE = 'SPX00';
EXCEPTION WHEN SQLSTATE 'SPX00' THEN
	NULL;
END $$;
REVOKE ALL ON FUNCTION shardproxy.advance_unique_ids(bigint) FROM PUBLIC;

CREATE FUNCTION shardproxy.unique_id() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	tick bigint := pg_catalog.floor(extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint - 1735689600000;
	n    bigint := pg_catalog.nextval('shardproxy.unique_ids');
	mine bigint;
BEGIN
	IF n >> 12 < tick - 16 THEN
		PERFORM shardproxy.advance_unique_ids(tick);
		n := pg_catalog.nextval('shardproxy.unique_ids');
	END IF;
	SELECT number INTO mine FROM shardproxy.maker;
	IF mine IS NULL THEN
		RAISE EXCEPTION 'this shard has no number for unique ids' USING ERRCODE = '55000', HINT = 'Run "shardproxy init".';
	END IF;
	RETURN ((n >> 12) << 22) | (mine << 12) | (n & 4095);
END $$;
COMMENT ON FUNCTION shardproxy.unique_id() IS 'An id that no other call gives, on no shard and through no proxy; those of one maker grow with time.';
REVOKE ALL ON FUNCTION shardproxy.unique_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shardproxy.unique_id() TO PUBLIC;
`

// uniqueHome is where proxies get their numbers, each for a while: see Grant.
const uniqueHome = `
CREATE TABLE shardproxy.proxies (
	number     integer PRIMARY KEY CHECK (number BETWEEN 0 AND 767),
	holder     text NOT NULL CHECK (holder <> ''),
	until      bigint NOT NULL CHECK (until BETWEEN 0 AND 2199023255552),
	renewed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
REVOKE ALL ON shardproxy.proxies FROM PUBLIC;
COMMENT ON TABLE shardproxy.proxies IS 'Which proxy makes ids of shardproxy.unique_id() with which number.';
COMMENT ON COLUMN shardproxy.proxies.holder IS 'A random name of the proxy''s';
COMMENT ON COLUMN shardproxy.proxies.until IS 'Ids of earlier times, in milliseconds since 2025, may have been made with the number';
`

// number gives a shard its number for unique ids, once: its place in the map.
func (w *writer) number(ctx context.Context, i int) error {
	at := slices.Index(w.report.Map.Shards(), w.options.Shards[i].Name)
	if at < 0 || w.options.DryRun || w.way[len(w.way)-1].version < uniqueVersion {
		return nil
	}
	if err := SetMaker(ctx, w.view.conns[i], at); err != nil {
		return w.failed(i, "store the number for unique ids", err)
	}
	return nil
}

// SetMaker gives a shard that joins its number in unique ids, through a connection to its primary; one that has a number keeps it. The error is
// a *Problem.
func SetMaker(ctx context.Context, conn *pgx.Conn, number int) error {
	number += UniqueProxies
	if number >= 1<<UniqueMakerBits {
		return nil // the function says that there is none
	}
	err := within(ctx, conn, beginWrite, func(tx pgx.Tx) error {
		if err := becomeOwner(ctx, tx); err != nil {
			return err
		}
		_, err := exec(ctx, tx, "INSERT INTO shardproxy.maker (number) VALUES ($1) ON CONFLICT (one) DO NOTHING", int64(number))
		return err
	})
	if err != nil {
		return asked("", "store the number for unique ids", err)
	}
	return nil
}

// uniqueVersion is the version of the schema since which there are unique ids.
const uniqueVersion = 5

// Grant is a time in which a proxy may make ids with a number: nobody else ever gets it.
type Grant struct {
	Number int
	// From and Until bound the time, in milliseconds since UniqueEpoch; Until is not in it. Now is the
	// server's.
	From, Until, Now int64
}

// grantFor is how long a grant holds, grantLead how long a number that is taken waits, both in milliseconds: when
// the home shard fails over to a replica that lags, another proxy's grant of the number may have been lost. It ends
// before that, if the clocks of both servers differ by less than grantLead - grantFor.
const (
	grantFor  = 10_000
	grantLead = 15_000
	// deserted is after how long without renewal a number is given to another proxy.
	deserted = "10 minutes"
)

// Renew grants time for a number that the holder has, or, when it has none (-1) or not any more, for another one.
// conn leads to the home shard's primary. Times before floor are not granted: those that the holder was
// granted before. When all numbers are taken the error is a *Problem. After any error the call may be repeated.
func Renew(ctx context.Context, conn *pgx.Conn, holder string, number int, floor int64) (g Grant, err error) {
	how := func(f func(context.Context, pgx.Tx) (Grant, error)) error {
		return within(ctx, conn, beginWrite, func(tx pgx.Tx) error {
			err := becomeOwner(ctx, tx)
			if err == nil {
				g, err = f(ctx, tx)
			}
			return err
		})
	}
	if number >= 0 {
		err = how(func(ctx context.Context, tx pgx.Tx) (Grant, error) { return renew(ctx, tx, holder, number, floor) })
		if !errors.Is(err, pgx.ErrNoRows) {
			return g, err
		}
	}
	err = how(func(ctx context.Context, tx pgx.Tx) (Grant, error) { return takeNumber(ctx, tx, holder, floor) })
	return g, err
}

const uniqueNow = "(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint - 1735689600000)"

func renew(ctx context.Context, tx pgx.Tx, holder string, number int, floor int64) (g Grant, err error) {
	err = row(ctx, tx, `UPDATE shardproxy.proxies SET until = greatest(until, `+uniqueNow+`, $3) + $4, renewed_at = clock_timestamp()
		WHERE number = $1 AND holder = $2 RETURNING number, until - $4, until, `+uniqueNow, int32(number), holder, floor, int64(grantFor)).
		Scan(&g.Number, &g.From, &g.Until, &g.Now)
	return g, err
}

// takeNumber takes a number that a proxy has deserted, or any that is free.
func takeNumber(ctx context.Context, tx pgx.Tx, holder string, floor int64) (g Grant, err error) {
	// One at a time: two could take the same.
	if _, err := exec(ctx, tx, "LOCK TABLE shardproxy.proxies IN SHARE ROW EXCLUSIVE MODE"); err != nil {
		return g, err
	}
	err = row(ctx, tx, `INSERT INTO shardproxy.proxies AS p (number, holder, until)
		SELECT n, $1, greatest(`+uniqueNow+`, $2) + $3 + $4 FROM (
			(SELECT number AS n, 0 AS o FROM shardproxy.proxies WHERE renewed_at < clock_timestamp() - interval '`+deserted+`' ORDER BY renewed_at LIMIT 1)
			UNION ALL
			(SELECT n, 1 FROM generate_series(0, $5 - 1) n WHERE NOT EXISTS (SELECT FROM shardproxy.proxies WHERE number = n) ORDER BY random() LIMIT 1)
			ORDER BY o LIMIT 1) AS free
		ON CONFLICT (number) DO UPDATE SET holder = excluded.holder, until = greatest(p.until + $3 + $4, excluded.until), renewed_at = clock_timestamp()
		RETURNING number, until - $4, until, `+uniqueNow, holder, floor, int64(grantLead), int64(grantFor), int32(UniqueProxies)).
		Scan(&g.Number, &g.From, &g.Until, &g.Now)
	if errors.Is(err, pgx.ErrNoRows) {
		return g, &Problem{Kind: ErrInvalid, Reason: fmt.Sprintf("all %d numbers for proxies that make unique ids were used within %s", UniqueProxies, deserted),
			Hint: "wait until those of proxies that have ended are free"}
	}
	return g, err
}
