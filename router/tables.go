package router

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/shardmap"
)

// PlacedTable is a table as the rules place it.
type PlacedTable struct {
	Schema, Name string
	// Kind is sharded, reference, single, or unknown when statements that name the table are
	// refused; Problem says why then, or why its rows cannot be written, "" for neither.
	Kind, Problem string
	// Placement is hash, list, range or schema for a sharded table, which places its
	// rows; "all shards", or the name of the one shard, for others.
	Placement string
	// Key are the columns of a sharded table's key, and KeyTypes their types; none for
	// a table that its schema places.
	Key, KeyTypes []string
	// Group is the same number, from 1, for the sharded tables whose rows of equal keys are
	// on the same shard; 0 for others.
	Group int
}

// Tables lists the tables of a database of several shards, by their names; partitions
// are left out, for they are where their table is. It is nil while the catalog is
// not known, and for a database of one shard.
func (r *Router) Tables() []PlacedTable {
	c := r.opts.Catalog()
	if c == nil || !c.HasTables() || r.opts.Rules == nil {
		return nil
	}
	b := r.boundTo(c)
	var all []PlacedTable
	rules := map[string][]string{} // of tables, by schema and name
	for _, t := range c.Tables() {
		switch t.Kind {
		case catalog.KindTable, catalog.KindPartitioned, catalog.KindMaterialized, catalog.KindForeign:
		default:
			continue
		}
		if t.System || t.Schema == "shardproxy" {
			continue
		}
		rel := b.relation(t)
		if rel.placement != nil && rel.kind == kindSharded {
			rules[t.Schema+"\x00"+t.Name] = rel.placement.rule()
		}
		all = append(all, b.placed(t, rel))
	}
	slices.SortFunc(all, func(a, b PlacedTable) int {
		return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
	})
	groups := map[string]int{}
	for i := range all {
		rule, sharded := rules[all[i].Schema+"\x00"+all[i].Name]
		if !sharded {
			continue
		}
		name := strings.Join(rule, "\x00")
		if groups[name] == 0 {
			groups[name] = len(groups) + 1
		}
		all[i].Group = groups[name]
	}
	return all
}

// placed describes one table.
func (b *bound) placed(t *catalog.Table, rel *relation) PlacedTable {
	p := PlacedTable{Schema: t.Schema, Name: t.Name, Kind: "unknown", Problem: rel.why, Placement: "none"}
	if p.Problem == "" {
		p.Problem = rel.writes
	}
	switch rel.kind {
	case kindSharded:
		p.Kind, p.Placement, p.Key = "sharded", rel.placement.how(), rel.placement.names
		for _, i := range rel.key {
			p.KeyTypes = append(p.KeyTypes, t.Columns[i].TypeName)
		}
	case kindReference:
		p.Kind, p.Placement = "reference", "all shards"
	case kindSingle:
		p.Kind, p.Placement = "single", b.rules.Shards[0].Name
	}
	return p
}

// how says in a word how rows are placed.
func (p *Placement) how() string {
	switch {
	case len(p.types) == 0:
		return "schema"
	case p.list != nil:
		return "list"
	case p.ranges != nil:
		return "range"
	}
	return "hash"
}

// rule is what two tables have alike when rows of equal keys are on the same shard.
func (p *Placement) rule() []string {
	rule := []string{p.how(), p.fixed}
	if len(p.types) == 0 && p.fixed == "" {
		rule = append(rule, fmt.Sprint(p.schema))
	}
	for _, k := range p.types {
		if k.Colocates(shardmap.Int8) {
			k = shardmap.Int8
		}
		rule = append(rule, k.String())
	}
	return append(rule, p.entries...)
}

// listEntries and rangeEntries are a rule's, in an order of their own.
func listEntries(rule *config.Table) (all []string) {
	for _, e := range rule.List {
		for _, v := range e.Values {
			all = append(all, fmt.Sprintf("%q on %s", v, e.Name))
		}
	}
	slices.Sort(all)
	return append(all, "others on "+rule.Default)
}

func rangeEntries(rule *config.Table) (all []string) {
	for _, e := range rule.Range {
		from, to := "lowest", "highest"
		if e.From != nil {
			from = strconv.Quote(*e.From)
		}
		if e.To != nil {
			to = strconv.Quote(*e.To)
		}
		all = append(all, from+" to "+to+" on "+e.Shard)
	}
	slices.Sort(all)
	return append(all, "others on "+rule.Default)
}
