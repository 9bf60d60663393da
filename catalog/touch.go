package catalog

import "slices"

// Reach says which tables one use of a relation, or one call, comes to: those beneath views and partitions, those that policies look
// at, and, when it writes, those that foreign keys, rules and triggers write to besides.
type Reach struct {
	// Tables are sorted names as TableName makes them, views not among them. Callers must not change them.
	Tables []string
	// Named are those of what is read that the use is about, in the same way: without the partitions of a table, and without what policies look at.
	Named []string
	// Any is set when it may be more than these, or when what is read hangs on more than tables and the session's settings.
	Any bool
}

// TableName is how a Reach names a table.
func TableName(schema, name string) string { return schema + "." + name }

// With returns what both come to.
func (r Reach) With(o Reach) Reach {
	return Reach{Tables: union(r.Tables, o.Tables), Named: union(r.Named, o.Named), Any: r.Any || o.Any}
}

// union returns the sorted names of both lists, which it leaves as they are.
func union(a, b []string) []string {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// Reads says which tables are read by reading a relation. With Any set the same rows in these may give another result.
// A relation that is not found has it set.
func (c *Catalog) Reads(schema, name string, path Path) Reach {
	return c.relationReach(schema, name, path, func(r *relation) Reach { return r.reads })
}

// Touches says which tables may be written to by writing to a relation. One that is not found has Any set.
func (c *Catalog) Touches(schema, name string, path Path) Reach {
	return c.relationReach(schema, name, path, func(r *relation) Reach { return r.writes })
}

func (c *Catalog) relationReach(schema, name string, path Path, of func(*relation) Reach) (all Reach) {
	found := false
	for i := range c.relations[name] {
		if r := &c.relations[name][i]; path.reaches(schema, r.schema) {
			all, found = all.With(of(r)), true
		}
	}
	all.Any = all.Any || !found
	return all
}

// Calls says which tables may be written to by a call; args is as of Function. A function that is not found has Any set.
func (c *Catalog) Calls(schema, name string, args int, path Path) (all Reach) {
	found := false
	for _, f := range c.functions[name] {
		if f.fits(args) && path.reaches(schema, f.schema) {
			all, found = all.With(f.writes), true
		}
	}
	all.Any = all.Any || !found
	return all
}

// Steady reports whether a call gives the same for the same arguments as long as no definition and none of the session's settings
// changes: it reads neither tables nor clocks, and draws nothing by lot. args is as of Function.
func (c *Catalog) Steady(schema, name string, args int, path Path) bool {
	found := false
	for _, f := range c.functions[name] {
		if f.fits(args) && path.reaches(schema, f.schema) {
			if found = true; f.unsteady {
				return false
			}
		}
	}
	return found
}

// SteadyOperator is Steady for an operator of any operand types.
func (c *Catalog) SteadyOperator(schema, name string, path Path) bool {
	if name == "!=" {
		name = "<>"
	}
	found := false
	for _, o := range c.operators[name] {
		if path.reaches(schema, o.schema) {
			if found = true; o.unsteady {
				return false
			}
		}
	}
	return found
}

// SteadyAttribute is Steady for what a.name may call.
func (c *Catalog) SteadyAttribute(name string) bool {
	return !slices.Contains(c.unsteadyAttributes, name)
}

// steadyBuiltin reports whether a function that initdb made, of some volatility, is steady.
func steadyBuiltin(name, volatility string) bool {
	if volatility != "s" {
		return volatility == "i"
	}
	_, found := slices.BinarySearch(steadyNames, name)
	return found
}

// steadyNames are PostgreSQL's own functions that are declared stable for what the session has set, or for definitions, sorted.
// The others look at the clock or at tables.
var steadyNames = []string{
	"anytextcat", "array_in", "array_out", "array_recv", "array_send", "array_to_json", "array_to_string", "cash_in", "cash_out",
	"concat", "concat_ws", "convert", "convert_from", "convert_to", "current_database", "current_schema", "current_schemas",
	"current_setting", "current_user", "date", "date_cmp_timestamptz", "date_eq_timestamptz", "date_ge_timestamptz",
	"date_gt_timestamptz", "date_in", "date_le_timestamptz", "date_lt_timestamptz", "date_ne_timestamptz", "date_out", "date_part",
	"date_trunc", "domain_in", "domain_recv", "enum_first", "enum_in", "enum_last", "enum_out", "enum_range", "enum_recv",
	"enum_send", "extract", "format", "format_type", "generate_series", "get_current_ts_config", "getdatabaseencoding", "in_range",
	"interval_in", "interval_out", "interval_pl_timestamptz", "json_agg", "json_agg_transfn", "json_build_array",
	"json_build_object", "json_object_agg", "json_object_agg_transfn", "json_populate_record", "json_populate_recordset",
	"json_to_record", "json_to_recordset", "json_to_tsvector", "jsonb_agg", "jsonb_agg_finalfn", "jsonb_agg_transfn",
	"jsonb_build_array", "jsonb_build_object", "jsonb_object_agg", "jsonb_object_agg_finalfn", "jsonb_object_agg_transfn",
	"jsonb_path_exists_tz", "jsonb_path_match_tz", "jsonb_path_query_array_tz", "jsonb_path_query_first_tz", "jsonb_path_query_tz",
	"jsonb_populate_record", "jsonb_populate_recordset", "jsonb_to_record", "jsonb_to_recordset", "jsonb_to_tsvector", "length",
	"make_timestamptz", "money", "numeric", "overlaps", "phraseto_tsquery", "plainto_tsquery", "quote_literal", "quote_nullable",
	"range_in", "range_out", "range_recv", "range_send", "record_in", "record_out", "record_recv", "record_send", "row_to_json",
	"session_user", "textanycat", "textrecv", "textsend", "time", "time_in", "timestamp", "timestamp_cmp_timestamptz",
	"timestamp_eq_timestamptz", "timestamp_ge_timestamptz", "timestamp_gt_timestamptz", "timestamp_in", "timestamp_le_timestamptz",
	"timestamp_lt_timestamptz", "timestamp_ne_timestamptz", "timestamp_out", "timestamptz", "timestamptz_cmp_date",
	"timestamptz_cmp_timestamp", "timestamptz_eq_date", "timestamptz_eq_timestamp", "timestamptz_ge_date",
	"timestamptz_ge_timestamp", "timestamptz_gt_date", "timestamptz_gt_timestamp", "timestamptz_in", "timestamptz_le_date",
	"timestamptz_le_timestamp", "timestamptz_lt_date", "timestamptz_lt_timestamp", "timestamptz_mi_interval",
	"timestamptz_ne_date", "timestamptz_ne_timestamp", "timestamptz_out", "timestamptz_pl_interval", "timetz", "timetz_in",
	"timezone", "to_char", "to_date", "to_json", "to_jsonb", "to_number", "to_timestamp", "to_tsquery", "to_tsvector", "ts_headline",
	"ts_match_tq", "ts_match_tt", "version", "websearch_to_tsquery", "xml", "xml_in",
}

// readsOf follows what reading a relation uses.
func (g *graph) readsOf(from nodeID) Reach {
	named := g.follow(from, func(id nodeID, n *node, r *Reach) (deeper bool) {
		if id.kind == nodeRead && !n.view {
			r.Tables = append(r.Tables, TableName(n.schema, n.name))
		}
		return n.view
	})
	all := g.follow(from, func(id nodeID, n *node, r *Reach) (deeper bool) {
		switch id.kind {
		case nodeRead:
			if !n.view {
				r.Tables = append(r.Tables, TableName(n.schema, n.name))
			}
		case nodeFunction:
			r.Any = r.Any || n.unsteady
			return false
		case nodeWrite:
			r.Any = true
			return false
		}
		return true
	})
	all.Named = named.Tables
	return all
}

// writesOf follows what writing to a relation, or a call, may write to. A function whose body was read says which relations
// it names; one that is not volatile writes to none.
func (g *graph) writesOf(from nodeID) Reach {
	return g.follow(from, func(id nodeID, n *node, r *Reach) (deeper bool) {
		switch id.kind {
		case nodeRead:
			return false
		case nodeWrite:
			if !n.view {
				r.Tables = append(r.Tables, TableName(n.schema, n.name))
			}
		case nodeFunction:
			switch {
			case n.verdict.Fitness == Unsafe && n.direct == nil:
				r.Any = true
			case id.oid < firstUserOID || !n.volatile || ownFunction(n.schema, n.name):
				return false
			case n.body == nil:
				r.Any = true
			}
		}
		return !r.Any
	})
}

// follow visits what a node uses, each node once, as deep as visit says.
func (g *graph) follow(from nodeID, visit func(nodeID, *node, *Reach) (deeper bool)) (r Reach) {
	seen := map[nodeID]struct{}{from: {}}
	for work := []nodeID{from}; len(work) > 0; {
		id := work[len(work)-1]
		work = work[:len(work)-1]
		n := g.nodes[id]
		if n == nil || !visit(id, n, &r) {
			continue
		}
		for _, u := range n.uses {
			if _, ok := seen[u]; !ok {
				seen[u] = struct{}{}
				work = append(work, u)
			}
		}
	}
	slices.Sort(r.Tables)
	r.Tables = slices.Compact(r.Tables)
	return r
}

// steady settles whether operators are, by the functions behind them.
func (g *graph) unsteadyOperator(n *node) bool {
	return slices.ContainsFunc(n.uses, func(u nodeID) bool { f := g.nodes[u]; return f == nil || f.unsteady })
}
