package router

import (
	"slices"

	"shardproxy/query"
)

// Rows of a queue: SELECT ... LIMIT n FOR UPDATE SKIP LOCKED locks n rows, and others take others meanwhile. It may run over several shards
// when the shards' rows are merged: they are locked one after the other, as many as are taken. Without SKIP LOCKED a
// server waits for rows, or fails for them, that it would not have come to.

// claims reports whether a query locks as many rows as its LIMIT says, and may do so on several shards.
func (g *gatherer) claims(s *query.SelectParts) bool {
	return g.mayClaim && s.Limited() && s.Offset == nil && !s.WithTies && len(s.Locks) > 0 &&
		!slices.ContainsFunc(s.Locks, func(l query.Lock) bool { return l.Wait != "skip locked" })
}

// claimed notes that a merge locks up to its LIMIT. The rows must be those of one sharded table: of others there may be a copy on every
// shard, each of which would be locked for itself.
func (g *gatherer) claimed(a *alone, b *block) *Refusal {
	sel := a.shape.Scope.Select
	if sel == nil || len(sel.Locks) == 0 || !sel.Limited() {
		return nil
	}
	if len(b.nodes) != 1 || b.nodes[0].leaf == nil || b.nodes[0].leaf.rel == nil || b.nodes[0].leaf.rel.kind != kindSharded {
		return &Refusal{Reason: reasonCommand, Why: "rows of several shards are locked up to a LIMIT, and they are not those of one sharded table",
			Hint: "Choose the rows of one table in a query of its own."}
	}
	g.out.Merge.Claims = true
	return nil
}
