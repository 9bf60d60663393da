package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"shardproxy/verify"
)

// privilegesSQL lists what is owned and who may do what with it: who has none but what an owner has anyway counts as such.
const privilegesSQL = `
WITH own AS (SELECT oid FROM pg_namespace WHERE nspname <> 'shardproxy' AND nspname <> 'information_schema' AND nspname !~ '^pg_'),
acls (what, owner, acl) AS (
	SELECT 'relation ' || c.oid::regclass::text, c.relowner, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))
	  FROM pg_class c JOIN own ON own.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
	UNION ALL SELECT 'column ' || a.attname || ' of ' || c.oid::regclass::text, c.relowner, a.attacl
	  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN own ON own.oid = c.relnamespace WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
	UNION ALL SELECT 'function ' || p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)) FROM pg_proc p JOIN own ON own.oid = p.pronamespace
	UNION ALL SELECT 'type ' || t.oid::regtype::text, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
	  FROM pg_type t JOIN own ON own.oid = t.typnamespace WHERE t.typelem = 0 AND t.typrelid = 0
	UNION ALL SELECT 'schema ' || n.nspname, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)) FROM pg_namespace n JOIN own USING (oid)
	UNION ALL SELECT 'default privileges on ' || d.defaclobjtype::text || ' in ' || coalesce(n.nspname, 'all schemas') || ' by ' || pg_get_userbyid(d.defaclrole), d.defaclrole, d.defaclacl
	  FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
)
SELECT what, pg_get_userbyid(owner)::text || ': ' || coalesce((
	SELECT string_agg(format('%s=%s%s/%s', CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, CASE WHEN a.is_grantable THEN '*' ELSE '' END, pg_get_userbyid(a.grantor)), ' '
		ORDER BY a.grantee = 0, pg_get_userbyid(a.grantee)::text COLLATE "C", a.privilege_type COLLATE "C", pg_get_userbyid(a.grantor)::text COLLATE "C") FROM aclexplode(acl) a), 'nobody')
FROM acls`

// privilegesOf asks one shard.
func privilegesOf(ctx context.Context, s *shard) (map[string]string, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer endConn(conn)
	if _, err := conn.Exec(ctx, "SET search_path = pg_catalog, pg_temp"); err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, privilegesSQL)
	if err != nil {
		return nil, err
	}
	has := map[string]string{}
	var what, who string
	_, err = pgx.ForEachRow(rows, []any{&what, &who}, func() error { has[what] = who; return nil })
	return has, err
}

// unlikePrivileges says which things, that both shards have, belong to other roles on the one than on the other, or may be used by
// others. Default privileges are compared too where only one has them.
func unlikePrivileges(ctx context.Context, home, other *shard) ([]string, error) {
	var has [2]map[string]string
	for i, s := range []*shard{home, other} {
		var err error
		if has[i], err = privilegesOf(ctx, s); err != nil {
			return nil, fmt.Errorf("shard %s: %s", s.conf.Name, verify.Told(err))
		}
	}
	var unlike []string
	for _, what := range slices.Sorted(maps.Keys(has[0])) {
		if there, ok := has[1][what]; ok && there != has[0][what] {
			unlike = append(unlike, fmt.Sprintf("%s: its owner and privileges are other ones than on shard %s", what, home.conf.Name))
		} else if !ok && len(what) > 7 && what[:7] == "default" {
			unlike = append(unlike, what+" are not on the shard")
		}
	}
	return unlike, nil
}
