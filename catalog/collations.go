package catalog

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Collations says how a server orders text: by the name of each collation that matters what it is, with the version of the
// library that it comes from. Those matter that columns of its tables have, the database's own, which is called
// "default", and one of each library. Of the same name and text on two servers they order alike.
func Collations(ctx context.Context, conn *pgx.Conn) (map[string]string, error) {
	sql := collationsOf
	if v := conn.PgConn().ParameterStatus("server_version"); strings.HasPrefix(v, "13") || strings.HasPrefix(v, "14") {
		sql = strings.Replace(sql, "pg_catalog.pg_database_collation_actual_version(d.oid)", `(SELECT max(pg_collation_actual_version(c.oid)) FROM pg_collation c
			WHERE c.collprovider = 'c' AND c.collcollate = d.datcollate)`, 1)
	}
	rows, err := conn.Query(ctx, sql, pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	var name, is string
	_, err = pgx.ForEachRow(rows, []any{&name, &is}, func() error {
		found[name] = is
		return nil
	})
	return found, err
}

// A collation has grown columns with every version; those that a server has not are NULL.
const collationsOf = `
SELECT 'default', pg_catalog.concat_ws(' ', coalesce(j ->> 'datlocprovider', 'c'), d.datcollate, d.datctype, coalesce(j ->> 'datlocale', j ->> 'daticulocale'),
       j ->> 'daticurules', pg_catalog.pg_database_collation_actual_version(d.oid))
  FROM pg_catalog.pg_database d, pg_catalog.to_jsonb(d) j WHERE d.datname = pg_catalog.current_database()
UNION ALL
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname), pg_catalog.concat_ws(' ', c.collprovider::text, c.collcollate, c.collctype,
       coalesce(j ->> 'colllocale', j ->> 'colliculocale'), j ->> 'collicurules', c.collisdeterministic::text, pg_catalog.pg_collation_actual_version(c.oid))
  FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace, pg_catalog.to_jsonb(c) j
 WHERE c.oid IN (SELECT a.attcollation FROM pg_catalog.pg_attribute a WHERE a.attrelid >= 16384 AND a.attcollation NOT IN (0, 100))
    OR n.nspname = 'pg_catalog' AND c.collname IN ('und-x-icu', 'en_US.utf8')`

// Unlike returns the names of collations that order otherwise on two servers, as Collations found
// them, in no order. What only one of them has is not told.
func Unlike(a, b map[string]string) (names []string) {
	for name, is := range a {
		if other, ok := b[name]; ok && other != is {
			names = append(names, name)
		}
	}
	return names
}
