package catalog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Querier is what the catalog is read through: *pgx.Conn and *pgxpool.Pool are
// ones. Any node of the database will do.
type Querier interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// Load reads the catalog of q's database in one read-only transaction. It fails
// with the server's error, wrapped; the result's Version is 0.
func Load(ctx context.Context, q Querier) (*Catalog, error) {
	var c *Catalog
	err := inSnapshot(ctx, q, func(tx pgx.Tx) (err error) {
		c, _, err = loadGraph(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load catalog: %w", err)
	}
	return c, nil
}

// fingerprint returns a value that changes when what Load reads has changed.
func fingerprint(ctx context.Context, q Querier) (sum string, err error) {
	err = inSnapshot(ctx, q, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, fingerprintSQL).Scan(&sum)
	})
	if err != nil {
		return "", fmt.Errorf("check catalog: %w", err)
	}
	return sum, nil
}

// inSnapshot runs f in a transaction that sees one state of the catalog and
// in which only PostgreSQL's own names can be meant.
func inSnapshot(ctx context.Context, q Querier, f func(pgx.Tx) error) error {
	tx, err := q.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx) //nolint:errcheck // nothing was written
	if _, err := tx.Exec(ctx, "SET LOCAL search_path = pg_catalog, pg_temp"); err != nil {
		return err
	}
	return f(tx)
}

// firstUserOID is the first OID that PostgreSQL gives to objects made after
// initdb (FirstNormalObjectId).
const firstUserOID = 16384

// serverVersion returns the server's version as a number: 150004.
func serverVersion(ctx context.Context, tx pgx.Tx) (version int, err error) {
	err = tx.QueryRow(ctx, "SELECT current_setting('server_version_num')::int4").Scan(&version)
	return version, err
}

// loadGraph reads what the judgements need and draws the conclusions. It
// returns the settled graph too.
func loadGraph(ctx context.Context, tx pgx.Tx) (*Catalog, *graph, error) {
	g := newGraph()
	c := &Catalog{}
	version, err := serverVersion(ctx, tx)
	if err != nil {
		return nil, nil, err
	}
	for _, step := range []struct {
		sql string
		row func(pgx.CollectableRow) (struct{}, error)
	}{
		{roleSchemasSQL, func(r pgx.CollectableRow) (struct{}, error) {
			var name string
			err := r.Scan(&name)
			c.roleSchemas = append(c.roleSchemas, name)
			return struct{}{}, err
		}},
		{functionsSQL, g.functionRow},
		{operatorsSQL, g.operatorRow},
		{relationsSQL, g.relationRow},
		{typesSQL, g.typeRow},
		{edgesSQL, g.edgeRow},
		{typeEdgesSQL, g.edgeRow},
		{withBodies(customSettingsSQL, version), c.customRow},
	} {
		rows, err := tx.Query(ctx, step.sql)
		if err != nil {
			return nil, nil, err
		}
		if _, err := pgx.CollectRows(rows, step.row); err != nil {
			return nil, nil, err
		}
	}
	g.readBodies()
	g.settle()
	g.fill(c)
	c.settleCustom()
	return c, g, nil
}
