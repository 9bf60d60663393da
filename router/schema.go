package router

import (
	"slices"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/query"
	"shardproxy/shardmap"
)

// schema is what names mean in one session, under one catalog.
type schema struct {
	*bound
	path catalog.Path
	// names are the schemas of the path, in order.
	names []string
	// newViews are names that may be those of views which are not known.
	newViews string
}

// newSchema reads the search path of a session.
func newSchema(b *bound, ctx Context) schema {
	s := schema{bound: b, newViews: ctx.NewViews}
	names, ok := catalog.SplitNames(ctx.SearchPath)
	if !ok || ctx.SearchPath == "" {
		return s
	}
	s.path, s.names = b.catalog.PathFor(ctx.SearchPath, ctx.Role), names
	for i, n := range names {
		if n == "$user" {
			names[i] = ctx.Role
		}
	}
	return s
}

// placed implements relations.
func (s schema) placed(f query.Name) *config.Function { return s.rules.FunctionRule(f.Schema, f.Name) }

// find implements relations.
func (s schema) find(name, table string) *relation {
	t, res := s.catalog.Table(name, table, s.path)
	if s.newViews != "" && names(s.newViews, "\x01"+table) {
		return &relation{kind: kindUnknown, declared: true, schema: name, name: table, why: "was made by this transaction, and is on several shards"}
	}
	if s.newViews != "" && names(s.newViews, table) {
		return madeView(name, table)
	}
	switch res {
	case catalog.Resolved:
		return s.relation(t)
	case catalog.Temporary:
		return &relation{kind: kindUnknown, schema: name, name: table, why: "is a temporary table"}
	case catalog.Ambiguous:
		return &relation{kind: kindUnknown, schema: name, name: table, why: "may be one of several tables: the search path is not known"}
	}
	return s.declared(name, table)
}

// indexed implements relations. An index is in the schema of its table.
func (s schema) indexed(name, index string) *relation {
	in := []string{name}
	if name == "" {
		in = s.names
	}
	for _, n := range in {
		for _, t := range s.catalog.Tables() {
			if t.Schema == n && slices.ContainsFunc(t.Indexes, func(x catalog.Index) bool { return x.Name == index }) {
				return s.relation(t)
			}
		}
	}
	return nil
}

// declared is what is known of a table that is not there yet: that a rule waits for
// it. Anything else will be single.
func (s schema) declared(name, table string) *relation {
	in := []string{name}
	if name == "" {
		in = s.names
	}
	for _, n := range in {
		rule, placed := s.rules.TableRule(n, table), s.rules.SchemaRule(n)
		if placed != nil || rule != nil && !rule.Single {
			return &relation{kind: kindUnknown, declared: true, schema: n, name: table, why: "does not exist, and would be on several shards"}
		}
	}
	if s.newViews == AnyView {
		return madeView(name, table)
	}
	return nil
}

func madeView(schema, name string) *relation {
	return &relation{kind: kindUnknown, schema: schema, name: name, why: "may be a view that this transaction has made"}
}

// keyType implements relations.
func (s schema) keyType(t *query.Type) shardmap.KeyType {
	if t.Odd || t.Fields || t.Dimensions > 0 || len(t.Modifiers) > 0 {
		return 0
	}
	named, res := s.catalog.TypeOf(t.Name.Schema, t.Name.Name, s.path)
	if res != catalog.Resolved || named.Domain() {
		return 0
	}
	k, err := shardmap.KeyTypeOf(named.OID, true)
	if err != nil {
		return 0
	}
	return k
}

// equal implements relations.
func (s schema) equal(op query.Name, left, right shardmap.KeyType) bool {
	return left.Colocates(right) && s.catalog.EqualityFor(op.Schema, op.Name, left.OID(), right.OID(), s.path)
}

// orders implements relations.
func (s schema) orders(op query.Name, k shardmap.KeyType) bool {
	return op.Name != "=" && s.catalog.EqualityFor(op.Schema, op.Name, k.OID(), k.OID(), s.path)
}

// returnsSet implements relations.
func (s schema) returnsSet(f query.Name) bool {
	return s.catalog.ReturnsSet(f.Schema, f.Name, f.Args, s.path)
}

// aggregate implements relations.
func (s schema) aggregate(f query.Name) bool {
	return s.catalog.IsAggregate(f.Schema, f.Name, f.Args, s.path)
}

// immutable implements relations.
func (s schema) immutable(f query.Name) bool {
	return s.catalog.CallVolatility(f.Schema, f.Name, f.Args, s.path) == catalog.Immutable
}

// builtin implements relations.
func (s schema) builtin(name string) bool { return s.catalog.Builtin(name) }

// reaches implements relations.
func (s schema) reaches(f query.Name) string { return s.bound.reaches(f, s.path) }
