package catalog

import (
	"cmp"
	"slices"
	"strings"
)

// reachGraph says what uses what, down to tables. What can reach neither a
// table nor anything unreadable is left out.
type reachGraph struct {
	uses map[nodeID][]nodeID
	// opaque are those that may reach more than their uses: code that cannot be
	// read, SQL that is put together as it runs.
	opaque map[nodeID]bool
}

// sqlInText are PostgreSQL's functions that run SQL, or read the tables, given
// as text; by prefix.
var sqlInText = []string{"query_to_xml", "table_to_xml", "schema_to_xml", "database_to_xml", "cursor_to_xml", "ts_stat"}

// perNode are PostgreSQL's functions that tell about a table on their own
// server: of a sharded table that is a part.
var perNode = []string{"pg_relation_size", "pg_table_size", "pg_indexes_size", "pg_total_relation_size", "pg_database_size",
	"pg_relation_filepath", "pg_relation_filenode", "brin_summarize_range", "brin_summarize_new_values", "brin_desummarize_range",
	"gin_clean_pending_list", "pg_tablespace_size", "row_security_active"}

// readableExtensions hold functions that compute from their arguments alone,
// whatever they are declared as.
var readableExtensions = []string{"uuid-ossp", "pgcrypto", "pg_trgm", "hstore", "citext", "unaccent", "fuzzystrmatch", "intarray",
	"ltree", "cube", "seg", "isn", "btree_gin", "btree_gist"}

// opaqueCall says whether a function may reach tables that nothing here shows.
func (g *graph) opaqueCall(f *Callable) bool {
	if f.OID < firstUserOID {
		return slices.ContainsFunc(sqlInText, func(p string) bool { return strings.HasPrefix(f.Name, p) }) ||
			slices.Contains(perNode, f.Name) || f.Name == "ts_rewrite" && len(f.Arguments) == 2
	}
	if slices.Contains(unsafeExtensionFunctions[f.extension], f.Name) && f.Name != "set_limit" {
		return true
	}
	if ownFunction(f.Schema, f.Name) {
		return false
	}
	switch f.Language {
	case "sql", "plpgsql":
		if f.Kind == CallAggregate {
			return false
		}
		if strings.Contains(strings.ToLower(f.Body), `u&"`) {
			return true // names in other words
		}
		if f.SQLBody {
			return false // stored as a tree, read with the other edges
		}
		_, ok := scanBody(f.Body)
		return !ok
	case "internal":
		// An alias of one of PostgreSQL's own, or an aggregate.
		return f.Kind != CallAggregate && slices.ContainsFunc(sqlInText, func(p string) bool { return strings.HasPrefix(f.Body, p) })
	case "c":
		return f.Volatility != Immutable && !slices.Contains(readableExtensions, f.extension) &&
			!slices.Contains(harmlessExtensionFunctions[f.extension], f.Name)
	}
	return true
}

// reach condenses the graph to what leads to tables that initdb did not make,
// or to the unreadable.
func (g *graph) reach(c *Catalog) reachGraph {
	r := reachGraph{uses: map[nodeID][]nodeID{}, opaque: map[nodeID]bool{}}
	users := make(map[nodeID][]nodeID, len(g.nodes))
	var work []nodeID
	leads := map[nodeID]bool{}
	mark := func(id nodeID) {
		if !leads[id] {
			leads[id] = true
			work = append(work, id)
		}
	}
	for id := range g.nodes {
		for _, u := range g.touches(c, id) {
			users[u] = append(users[u], id)
		}
		switch {
		case id.kind == nodeFunction:
			if f := c.callsByOID[id.oid]; f == nil || g.opaqueCall(f) {
				r.opaque[id] = true
				mark(id)
			}
		case id.kind == nodeRead || id.kind == nodeWrite:
			if id.oid >= firstUserOID {
				mark(id)
			}
		}
	}
	for len(work) > 0 {
		id := work[len(work)-1]
		work = work[:len(work)-1]
		for _, u := range users[id] {
			mark(u)
		}
	}
	for id := range leads {
		uses := slices.DeleteFunc(g.touches(c, id), func(u nodeID) bool { return !leads[u] })
		if len(uses) > 0 {
			slices.SortFunc(uses, compareNodes)
			r.uses[id] = slices.Clip(slices.Compact(uses))
		}
	}
	return r
}

// touches returns what a node uses or mentions, in a slice of its own. A function that is not
// volatile writes nothing itself: PostgreSQL refuses. What a volatile one that is
// stored as a tree names it may write to.
func (g *graph) touches(c *Catalog, id nodeID) []nodeID {
	n := g.nodes[id]
	f := c.callsByOID[id.oid]
	if id.kind == nodeFunction && f != nil && ownFunction(f.Schema, f.Name) {
		return nil
	}
	all := slices.Concat(n.uses, n.mentions)
	switch {
	case id.kind != nodeFunction || f == nil || f.OID < firstUserOID:
	case f.Volatility != Volatile && (f.Language == "sql" || f.Language == "plpgsql"):
		all = slices.DeleteFunc(all, func(u nodeID) bool { return u.kind == nodeWrite })
	case f.SQLBody:
		for _, u := range slices.Clone(all) {
			if u.kind == nodeRead {
				all = append(all, nodeID{nodeWrite, u.oid})
			}
		}
	}
	return all
}

func compareNodes(a, b nodeID) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.oid, b.oid))
}

// Reached is what running something may touch.
type Reached struct {
	// Tables are relations that initdb did not make, views and sequences too, and
	// what is under them; ordered by schema and name. Some may never be touched:
	// in a function's body every word counts as every relation of that name.
	Tables []*Table
	// Known is false when there may be more: a function that cannot be read.
	Known bool
}

// collect follows the uses of some nodes. What is not in the graph is known to
// reach nothing.
func (c *Catalog) collect(from []nodeID) Reached {
	out := Reached{Known: c.HasTables()}
	seen := make(map[nodeID]bool, len(from))
	work := slices.Clone(from)
	for _, id := range from {
		seen[id] = true
	}
	for len(work) > 0 {
		id := work[len(work)-1]
		work = work[:len(work)-1]
		if c.reach.opaque[id] {
			out.Known = false
		}
		if id.kind == nodeRead || id.kind == nodeWrite {
			if t := c.tablesByOID[id.oid]; t != nil && !t.System {
				out.Tables = append(out.Tables, t)
			}
		}
		for _, u := range c.reach.uses[id] {
			if !seen[u] {
				seen[u] = true
				work = append(work, u)
			}
		}
	}
	slices.SortFunc(out.Tables, compareTables)
	out.Tables = slices.Compact(out.Tables)
	return out
}

func compareTables(a, b *Table) int {
	return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
}

// Reaches says what a call of a function may touch.
func (c *Catalog) Reaches(f *Callable) Reached { return c.collect([]nodeID{{nodeFunction, f.OID}}) }

// CallReaches says what a call of schema.name may touch: all that any candidate
// does. It is not known when there is none.
func (c *Catalog) CallReaches(schema, name string, args int, path Path) Reached {
	var from []nodeID
	for _, f := range c.Callables(schema, name, args, path) {
		from = append(from, nodeID{nodeFunction, f.OID})
	}
	out := c.collect(from)
	out.Known = out.Known && len(from) > 0
	return out
}

// OperatorReaches is CallReaches for an operator of any operand types.
func (c *Catalog) OperatorReaches(schema, name string, path Path) Reached {
	if name == "!=" {
		name = "<>"
	}
	var from []nodeID
	found := false
	for _, o := range c.comparing.operators[name] {
		if path.reaches(schema, o.schema) {
			from = append(from, nodeID{nodeOperator, o.oid})
		}
	}
	for _, o := range c.operators[name] {
		found = found || path.reaches(schema, o.schema)
	}
	out := c.collect(from)
	out.Known = out.Known && found
	return out
}

// TypeReaches says what values of a type may touch when they are read, compared
// or checked: the CHECK of a domain may call anything.
func (c *Catalog) TypeReaches(oid uint32) Reached { return c.collect([]nodeID{{nodeType, oid}}) }

// ReadReaches says what reading a relation may touch, itself included: tables
// under a view, partitions, what policies refer to.
func (c *Catalog) ReadReaches(t *Table) Reached { return c.collect([]nodeID{{nodeRead, t.OID}}) }

// WriteReaches says what writing to a relation may touch, itself included:
// by triggers, rules, defaults, checks, and foreign keys that cascade. The rows
// that foreign keys without an action look at are in Table.ForeignKeys and
// ReferencedBy only.
func (c *Catalog) WriteReaches(t *Table) Reached { return c.collect([]nodeID{{nodeWrite, t.OID}}) }
