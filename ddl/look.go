package ddl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/query"
)

// sight is what a shard has of what a statement is about.
type sight struct {
	object relation // the index, table or partition; its OID is 0 when there is none
	table  relation // that the index or partition is of; of REINDEX TABLE the object again
	// invalid are the indexes of the table, and of its parts, that are not valid.
	invalid []uint32
	// attached says that the object is a partition of the table, pending that its
	// detachment has begun.
	attached, pending bool
}

// relation is a row of pg_class.
type relation struct {
	oid             uint32
	namespace, name string
	// table is that of an index, 0 for what is none; valid and definition are the index's.
	table      uint32
	valid      bool
	definition string
}

// String returns the qualified name as SQL has it.
func (r *relation) String() string { return pgx.Identifier{r.namespace, r.name}.Sanitize() }

// unchanged reports whether a statement that failed has left all as it was.
func (s *sight) unchanged(now *sight) bool {
	return s.object.oid == now.object.oid && s.object.valid == now.object.valid && s.attached == now.attached && s.pending == now.pending &&
		slices.Equal(s.invalid, now.invalid)
}

// sought are the names to look for. Where object is found in the search path, the
// namespace is empty.
type sought struct {
	kind   query.ConcurrentKind
	object query.Name
	table  query.Name // "" when it is the index's
}

func soughtBy(c *query.Concurrent) sought {
	return sought{kind: c.Kind, object: c.Object, table: c.Table}
}

// look finds what the names mean on a connection that is the statement's.
func look(ctx context.Context, conn *pgx.Conn, w sought) (s *sight, err error) {
	err = within(ctx, conn, true, func(tx pgx.Tx) error {
		s, err = see(ctx, tx, w)
		return err
	})
	return s, err
}

// pollInterval is how often lookAfter asks.
const pollInterval = 100 * time.Millisecond

// lookAfter is look when no such statement, nor any other that changes the table's
// indexes, is under way any more: a server goes on with one whose client is gone. It
// asks again and again, for who waits for the lock in a transaction may be waited for.
func lookAfter(ctx context.Context, conn *pgx.Conn, w sought) (s *sight, err error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err = within(ctx, conn, true, func(tx pgx.Tx) error {
			s, err = see(ctx, tx, w)
			if err != nil || s.table.oid == 0 {
				return err
			}
			if _, err := tx.Exec(ctx, "LOCK TABLE ONLY "+s.table.String()+" IN SHARE UPDATE EXCLUSIVE MODE NOWAIT"); err != nil {
				return err
			}
			s, err = see(ctx, tx, w)
			return err
		})
		if sqlstate(err) != "55P03" {
			return s, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("a statement that changes table %s is under way on the server: %w", &s.table, ctx.Err())
		case <-tick.C:
		}
	}
}

func see(ctx context.Context, tx pgx.Tx, w sought) (*sight, error) {
	s := &sight{}
	var err error
	if w.table.Name != "" {
		if s.table, err = relationOf(ctx, tx, w.table); err != nil {
			return nil, err
		}
	}
	if w.kind == query.ConcurrentCreateIndex {
		w.object.Schema = s.table.namespace // where it is made
	}
	if w.object.Name != "" && (w.kind != query.ConcurrentCreateIndex || s.table.oid != 0) {
		if s.object, err = relationOf(ctx, tx, w.object); err != nil {
			return nil, err
		}
	}
	switch {
	case w.kind == query.ConcurrentReindexTable:
		s.table = s.object
	case w.table.Name == "" && s.object.table != 0:
		if s.table, err = relationAt(ctx, tx, s.object.table); err != nil {
			return nil, err
		}
	}
	if s.table.oid == 0 {
		return s, nil
	}
	if w.kind == query.ConcurrentDetach {
		return s, s.seePartition(ctx, tx)
	}
	return s, s.seeInvalid(ctx, tx)
}

// relationSQL gives an index's definition as whether it is unique and what stands behind
// the name of its table.
const relationSQL = `SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, coalesce(i.indrelid, 0), coalesce(i.indisvalid, false),
	coalesce(i.indisunique::pg_catalog.text OPERATOR(pg_catalog.||) pg_catalog.substr(d.def,
		pg_catalog.strpos(d.def, pg_catalog.quote_ident(t.relname::pg_catalog.text) OPERATOR(pg_catalog.||) ' USING ')
		OPERATOR(pg_catalog.+) pg_catalog.length(pg_catalog.quote_ident(t.relname::pg_catalog.text))), '')
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
	LEFT JOIN pg_catalog.pg_index i ON i.indexrelid OPERATOR(pg_catalog.=) c.oid
	LEFT JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) i.indrelid
	LEFT JOIN LATERAL (SELECT pg_catalog.substr(pg_catalog.pg_get_indexdef(i.indexrelid),
		pg_catalog.length('CREATE INDEX  ON ' OPERATOR(pg_catalog.||) CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END
		OPERATOR(pg_catalog.||) pg_catalog.quote_ident(c.relname::pg_catalog.text))) AS def) d ON true
	WHERE c.oid OPERATOR(pg_catalog.=) `

// relationOf returns the relation of a name, which is looked for in the search path
// unless it has a schema; one without an OID when there is none.
func relationOf(ctx context.Context, tx pgx.Tx, n query.Name) (relation, error) {
	name := pgx.Identifier{n.Name}
	if n.Schema != "" {
		name = pgx.Identifier{n.Schema, n.Name}
	}
	return oneRelation(ctx, tx, relationSQL+"pg_catalog.to_regclass($1::pg_catalog.text)::pg_catalog.oid", name.Sanitize())
}

func relationAt(ctx context.Context, tx pgx.Tx, oid uint32) (relation, error) {
	return oneRelation(ctx, tx, relationSQL+"$1::pg_catalog.oid", oid)
}

func oneRelation(ctx context.Context, tx pgx.Tx, sql string, args ...any) (r relation, err error) {
	err = tx.QueryRow(ctx, sql, append([]any{pgx.QueryExecModeExec}, args...)...).Scan(&r.oid, &r.namespace, &r.name, &r.table, &r.valid, &r.definition)
	if errors.Is(err, pgx.ErrNoRows) {
		return relation{}, nil
	}
	return r, err
}

func (s *sight) seePartition(ctx context.Context, tx pgx.Tx) error {
	err := tx.QueryRow(ctx, `SELECT i.inhdetachpending FROM pg_catalog.pg_inherits i
		WHERE i.inhrelid OPERATOR(pg_catalog.=) $1::pg_catalog.oid AND i.inhparent OPERATOR(pg_catalog.=) $2::pg_catalog.oid`,
		pgx.QueryExecModeExec, s.object.oid, s.table.oid).Scan(&s.pending)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	s.attached = err == nil
	return err
}

// seeInvalid lists the invalid indexes of the table, of its partitions and of what is
// stored out of line for them.
func (s *sight) seeInvalid(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, `WITH part AS (
			SELECT relid::pg_catalog.oid AS oid FROM pg_catalog.pg_partition_tree($1::pg_catalog.oid::pg_catalog.regclass) UNION SELECT $1::pg_catalog.oid),
		stored AS (SELECT oid FROM part UNION
			SELECT c.reltoastrelid FROM part p JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.oid)
		SELECT i.indexrelid FROM stored t JOIN pg_catalog.pg_index i ON i.indrelid OPERATOR(pg_catalog.=) t.oid WHERE NOT i.indisvalid ORDER BY 1`,
		pgx.QueryExecModeExec, s.table.oid)
	if err == nil {
		s.invalid, err = pgx.CollectRows(rows, pgx.RowTo[uint32])
	}
	return err
}

// namesMax bounds how many names are tried for an index that has none.
const namesMax = 100

// errPlace says that a CREATE INDEX names its table in an unusual way.
var errPlace = errors.New("the table is not written as its name alone")

// copied makes the table's columns anew, in a temporary table of the same name, and the
// statement's index on that: what PostgreSQL makes of the statement is seen without an
// index on the table. The transaction must be rolled back.
func copied(ctx context.Context, tx pgx.Tx, c *query.Concurrent, table *relation) (create func(name string) (*relation, error), err error) {
	rest, ok := c.Definition()
	if !ok {
		return nil, errPlace
	}
	name := pgx.Identifier{table.name}.Sanitize()
	if _, err := tx.Exec(ctx, fmt.Sprintf("CREATE TEMPORARY TABLE %s (LIKE %s)", name, table)); err != nil {
		return nil, err
	}
	unique := ""
	if c.Unique {
		unique = "UNIQUE "
	}
	seen := []int64{}
	return func(index string) (*relation, error) {
		if _, err := tx.Exec(ctx, fmt.Sprintf("CREATE %sINDEX %s ON pg_temp.%s%s", unique, index, name, rest), pgx.QueryExecModeSimpleProtocol); err != nil {
			return nil, err
		}
		r, err := oneRelation(ctx, tx, relationSQL+`(SELECT indexrelid FROM pg_catalog.pg_index
			WHERE indrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1::pg_catalog.text)::pg_catalog.oid
			AND indexrelid OPERATOR(pg_catalog.<>) ALL ($2::pg_catalog.int8[]::pg_catalog.oid[]))`, "pg_temp."+name, seen)
		seen = append(seen, int64(r.oid))
		return &r, err
	}, nil
}
