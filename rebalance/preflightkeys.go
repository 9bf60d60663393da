package rebalance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"shardproxy/catalog"
)

// rows judges the rows of a table: those that are there already, those that would collide, and how many come.
func (p *preflight) rows(ctx context.Context, t *Table, there *catalog.Table) error {
	var n int64
	err := p.target.within(ctx, func() error {
		return p.target.row(ctx, fmt.Sprintf("SELECT count(*) FROM ONLY %s AS t WHERE %s", t, p.moving(t))).Scan(&n)
	})
	if err != nil {
		return fmt.Errorf("shard %s: %s: %w", p.target.Shard, t, err)
	}
	if n > 0 {
		p.block(p.target, t, counted(n, "row")+" of the slots are there already",
			"they are left from a move that was given up, or do not belong there: no statement sees them; delete them when the owner of the slots has what is right")
	}
	for i := range there.Indexes {
		if err := p.unique(ctx, t, there, &there.Indexes[i]); err != nil {
			return fmt.Errorf("%s, index %s: %w", t, there.Indexes[i].Name, err)
		}
	}
	return p.size(ctx, t)
}

// moving is the condition that a row t is one of the slots.
func (p *preflight) moving(t *Table) string {
	return t.SlotSQL("t.") + " OPERATOR(pg_catalog.=) ANY (" + p.slots.ArraySQL() + ")"
}

// unique judges an index of the target that may refuse rows of the source: one that lacks the sharding key. With the key, rows
// that are equal lie in one slot.
func (p *preflight) unique(ctx context.Context, t *Table, there *catalog.Table, x *catalog.Index) error {
	lacks := slices.ContainsFunc(t.Key, func(at int) bool { return !slices.Contains(x.Keys, there.Column(t.Columns[at].Name).Number) })
	if !x.Unique && !x.Exclusion || !lacks || !x.Valid {
		return nil
	}
	here := p.source.table(t)
	alike := slices.ContainsFunc(here.Indexes, func(o catalog.Index) bool {
		return o.Name == x.Name && catalog.SameSQL(o.Definition, x.Definition) && catalog.SameSQL(o.ConstraintDefinition, x.ConstraintDefinition)
	})
	if !alike {
		return nil // which is told
	}
	const hint = "a row that is in the way ends the move, which then names it"
	if x.Exclusion {
		p.warn(p.target, t, "exclusion constraint "+x.Name+" lacks the sharding key: whether rows of both shards exclude each other is not found out before", hint)
		return nil
	}
	k, why, err := p.keys(ctx, t, x)
	if err == nil && why == "" {
		err = p.collide(ctx, t, x, k)
		if purgeCode(err) == "42883" { // no hash function
			why, err = "its values have no hash function", nil
		}
	}
	if why != "" {
		p.warn(p.target, t, fmt.Sprintf("unique index %s lacks the sharding key, and whether both shards have the same values is not found out before: %s", x.Name, why), hint)
	}
	return err
}

// preflightKeys is what an index holds, as SQL over a row t.
type preflightKeys struct {
	names, values []string
	where         string
}

const preflightIndexSQL = `
SELECT ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, false) FROM generate_series(1, i.indnkeyatts) k ORDER BY k),
       ARRAY(SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attnum BETWEEN 1 AND i.indnkeyatts ORDER BY a.attnum),
       coalesce('(' || pg_get_expr(i.indpred, i.indrelid) || ')', 'true'), coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false),
       NOT EXISTS (SELECT FROM unnest(i.indclass) c JOIN pg_opclass o ON o.oid = c WHERE NOT o.opcdefault),
       NOT EXISTS (SELECT FROM unnest(i.indcollation) c JOIN pg_collation l ON l.oid = c WHERE NOT l.collisdeterministic)
  FROM pg_index i WHERE i.indexrelid = $1`

// keys asks what an index holds. why says why values cannot be compared by a hash, "" when they can.
func (p *preflight) keys(ctx context.Context, t *Table, x *catalog.Index) (k preflightKeys, why string, err error) {
	var types []uint32
	var where string
	var nullsEqual, ordinary, deterministic bool
	err = p.target.within(ctx, func() error {
		return p.target.row(ctx, preflightIndexSQL, x.OID).Scan(&k.names, &types, &where, &nullsEqual, &ordinary, &deterministic)
	})
	if err != nil {
		return k, "", fmt.Errorf("shard %s: %w", p.target.Shard, err)
	}
	switch {
	case !ordinary:
		why = "it compares by other operators than the type's own"
	case !deterministic:
		why = "its collation is not deterministic"
	}
	conditions := []string{where}
	for i, name := range k.names {
		value := "(" + name + ")"
		text, fits := p.hashedAsText(types[i])
		if !fits {
			why = "its values are of a type that two servers may hash differently"
		}
		if text {
			value += "::pg_catalog.text"
		}
		k.values = append(k.values, value)
		if !nullsEqual {
			conditions = append(conditions, "("+name+") IS DISTINCT FROM NULL")
		}
	}
	k.where = strings.Join(conditions, " AND ")
	return k, why, nil
}

// hashedAsText reports whether values must be hashed by their text: the hash of an enum's value is that of a number that
// each server has given it. fits is false for what may hold such values deeper.
func (p *preflight) hashedAsText(oid uint32) (text, fits bool) {
	c := p.target.Catalog
	of := c.TypeByOID(oid)
	if of == nil {
		return false, oid < 16384
	}
	if base := c.TypeByOID(of.Base); base != nil {
		of = base
	}
	switch {
	case of.Kind == 'e':
		return true, true
	case of.Kind == 'c', (of.Kind == 'r' || of.Kind == 'm') && of.OID >= 16384:
		return false, false
	case of.Element != 0 && of.Element != oid:
		return p.hashedAsText(of.Element)
	}
	return false, true
}

// hashes are two hashes of an index's values that are equal when the values are.
func (k *preflightKeys) hashes(version int) string {
	one := func(seed int) string {
		if version >= 140000 {
			return fmt.Sprintf("pg_catalog.hash_record_extended(ROW(%s), %d)", strings.Join(k.values, ", "), seed)
		}
		all := make([]string, len(k.values))
		for i, v := range k.values {
			all[i] = fmt.Sprintf("pg_catalog.hash_array_extended(ARRAY[%s], %d)", v, seed)
		}
		return fmt.Sprintf("pg_catalog.hashtextextended(ROW(%s)::pg_catalog.text, %d)", strings.Join(all, ", "), seed)
	}
	return one(1) + " AS a, " + one(2) + " AS b"
}

// collide finds values of an index that the source's rows of the slots have, and the target's rows of other slots. Hashes of the
// source's go into a temporary table on the target, which joins.
func (p *preflight) collide(ctx context.Context, t *Table, x *catalog.Index, k preflightKeys) error {
	return p.target.within(ctx, func() error {
		if !p.target.facts.mayTemp {
			p.block(p.target, nil, fmt.Sprintf("the control user %q may not make temporary tables, in which values of unique constraints would be compared", p.target.facts.user),
				fmt.Sprintf("GRANT TEMPORARY ON DATABASE ... TO %q", p.target.facts.user))
			p.target.facts.mayTemp = true // told once
			return nil
		}
		if err := p.target.exec(ctx, "CREATE TEMPORARY TABLE shardproxy_preflight (a pg_catalog.int8, b pg_catalog.int8) ON COMMIT DROP"); err != nil {
			return fmt.Errorf("shard %s: %w", p.target.Shard, err)
		}
		err := p.source.within(ctx, func() error {
			return p.carry(ctx, fmt.Sprintf("COPY (SELECT %s FROM ONLY %s AS t WHERE %s AND %s) TO STDOUT (FORMAT binary)",
				k.hashes(p.source.facts.version), t, p.moving(t), k.where))
		})
		if err != nil {
			return err
		}
		if err := p.target.exec(ctx, "ANALYZE pg_temp.shardproxy_preflight"); err != nil {
			return fmt.Errorf("shard %s: %w", p.target.Shard, err)
		}
		if err := p.joined(ctx, t, x, k); err != nil {
			return fmt.Errorf("shard %s: %w", p.target.Shard, err)
		}
		return nil
	})
}

// carry copies what a COPY on the source gives into the temporary table on the target.
func (p *preflight) carry(ctx context.Context, sql string) error {
	r, w := io.Pipe()
	var group sync.WaitGroup
	var from error
	group.Go(func() {
		_, from = p.source.Conn.PgConn().CopyTo(ctx, w, sql)
		_ = w.CloseWithError(from) // it never fails
	})
	_, to := p.target.Conn.PgConn().CopyFrom(ctx, r, "COPY pg_temp.shardproxy_preflight FROM STDIN (FORMAT binary)")
	_ = r.CloseWithError(errors.Join(errors.New("the other side has ended"), to))
	group.Wait()
	// The source's error makes the target fail, too, and the other way round; the one that a server gave is the cause.
	switch {
	case from != nil && (to == nil || purgeCode(from) != ""):
		return fmt.Errorf("shard %s: %w", p.source.Shard, from)
	case to != nil:
		return fmt.Errorf("shard %s: %w", p.target.Shard, to)
	}
	return nil
}

// joined names the values that both have.
func (p *preflight) joined(ctx context.Context, t *Table, x *catalog.Index, k preflightKeys) error {
	rows, err := p.target.Conn.Query(ctx, fmt.Sprintf(`SELECT count(*) OVER (), pg_catalog.left(x.k, 200) FROM (SELECT %s, ROW(%s)::pg_catalog.text AS k FROM ONLY %s AS t
		WHERE (%s) IS NOT TRUE AND %s OFFSET 0) AS x WHERE EXISTS (SELECT FROM pg_temp.shardproxy_preflight s WHERE s.a = x.a AND s.b = x.b) LIMIT %d`,
		k.hashes(p.target.facts.version), strings.Join(k.values, ", "), t, p.moving(t), k.where, p.options.Keys))
	if err != nil {
		return err
	}
	defer rows.Close()
	var n int64
	var found []string
	for rows.Next() {
		var value string
		if err := rows.Scan(&n, &value); err != nil {
			return err
		}
		found = append(found, value)
	}
	if rows.Err() != nil || n == 0 {
		return rows.Err()
	}
	if more := n - int64(len(found)); more > 0 {
		found = append(found, fmt.Sprintf("and %d more", more))
	}
	p.block(p.target, t, fmt.Sprintf("%s with values of unique index %s that rows to be moved from shard %s have, too: (%s) = %s",
		counted(n, "row"), x.Name, p.source.Shard, strings.Join(k.names, ", "), strings.Join(found, ", ")),
		"change them on one of the shards; only a unique constraint that has the sharding key is one over all shards")
	return nil
}

// preflightSample is how many blocks of a table are looked at to say which share of it moves.
const preflightSample = 1000

// size adds how much of a table comes to the target, with its indexes, estimated by a sample.
func (p *preflight) size(ctx context.Context, t *Table) error {
	s := p.source
	err := s.within(ctx, func() error {
		var total, blocks, moving, all int64
		err := s.row(ctx, `SELECT pg_total_relation_size($1::regclass), pg_relation_size($1::regclass) / current_setting('block_size')::int8`, t.String()).Scan(&total, &blocks)
		if err != nil || blocks == 0 {
			return err
		}
		err = s.row(ctx, fmt.Sprintf("SELECT count(*) FILTER (WHERE %s), count(*) FROM ONLY %s AS t TABLESAMPLE SYSTEM (%g)",
			p.moving(t), t, min(100, 100*preflightSample/float64(blocks)))).Scan(&moving, &all)
		if all == 0 {
			moving, all = 1, 1 // nothing was in the sample: all of it, to be sure
		}
		p.bytes += int64(float64(total) * float64(moving) / float64(all))
		return err
	})
	if err != nil {
		return fmt.Errorf("shard %s: %s: %w", s.Shard, t, err)
	}
	return nil
}

// room compares what comes with what is free on the target.
func (p *preflight) room() {
	free := p.target.facts.free
	switch {
	case free == nil:
		p.note(p.target, nil, fmt.Sprintf("about %s of rows and indexes come, and as much WAL; how much disk is free is not known: PostgreSQL does not tell", preflightBytes(p.bytes)),
			"look with df, or make a function shardproxy.free_disk_bytes() that returns it as bigint")
	case *free < p.bytes:
		p.block(p.target, nil, fmt.Sprintf("about %s of rows and indexes come, and as much WAL; %s of its disk are free", preflightBytes(p.bytes), preflightBytes(*free)),
			"give it a larger disk, or move fewer slots at a time")
	default:
		p.note(p.target, nil, fmt.Sprintf("about %s of rows and indexes come, and as much WAL; %s of its disk are free", preflightBytes(p.bytes), preflightBytes(*free)), "")
	}
}
