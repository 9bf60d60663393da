package verify

import (
	"slices"

	"shardproxy/catalog"
	"shardproxy/config"
)

// placeKind says on which shards the rows of a table are.
type placeKind int

const (
	single    placeKind = iota // on the home shard
	reference                  // the same on all
	sharded                    // by key
	bySchema                   // where the rule of their schema says
)

func (k placeKind) String() string {
	return [...]string{"single table", "reference table", "sharded table", "table of a placed schema"}[k]
}

// place is where the rules put a table.
type place struct {
	kind     placeKind
	key      []string
	rule     *config.Table // nil for none
	perShard bool          // constraints may hold on each shard alone
}

// placeOf applies the rules to a table; a partition is where its topmost parent is,
// unless it has a rule of its own.
func placeOf(rules *config.Database, t *catalog.Table) place {
	if rules.SchemaRule(t.Schema) != nil {
		return place{kind: bySchema}
	}
	rule := rules.TableRule(t.Schema, t.Name)
	if rule == nil && t.Root != nil {
		rule = rules.TableRule(t.Root.Schema, t.Root.Name)
	}
	switch {
	case !holdsRows(t):
		return place{}
	case rule == nil:
		i := slices.IndexFunc(rules.Keys, func(k config.Identifier) bool { return t.Column(string(k)) != nil })
		if i < 0 {
			return place{}
		}
		return place{kind: sharded, key: []string{string(rules.Keys[i])}}
	case rule.Reference:
		return place{kind: reference, rule: rule, perShard: rule.PerShardConstraints}
	case rule.Single:
		return place{rule: rule}
	}
	p := place{kind: sharded, rule: rule, perShard: rule.PerShardConstraints}
	for _, k := range rule.Key {
		p.key = append(p.key, string(k))
	}
	return p
}

// holdsRows reports whether a rule may place the relation. Others are made from
// tables, or belong to the home shard.
func holdsRows(t *catalog.Table) bool {
	switch t.Kind {
	case catalog.KindTable, catalog.KindPartitioned, catalog.KindPartition, catalog.KindMaterialized:
		return true
	}
	return false
}
