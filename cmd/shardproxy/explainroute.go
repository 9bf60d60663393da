package main

import (
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// explain says where a statement would go, in a session with PostgreSQL's default search_path and no role.
func (db *database) explain(sql string) ([]string, error) {
	spans := query.Split([]byte(sql))
	if len(spans) != 1 {
		return nil, wire.Errorf("42601", "EXPLAIN ROUTE takes one statement, not %d", len(spans))
	}
	e := &routeExplainer{router: db.router, ctx: router.Context{SearchPath: defaultSearchPath}}
	for i := range db.conf.Shards {
		e.shards = append(e.shards, db.conf.Shards[i].Name)
	}
	if db.cluster != nil {
		e.owners = db.cluster.owners()
		e.ctx.HiddenSlots = e.owners.HiddenSlots()
	}
	return e.route([]byte(sql)[spans[0].Start:spans[0].End]).Lines(), nil
}

// defaultSearchPath is PostgreSQL's.
const defaultSearchPath = `"$user", public`
