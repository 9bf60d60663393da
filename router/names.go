package router

import "shardproxy/query"

// find returns the column that a name means. ok is false when that is not certain:
// because several have it, or because it may be one that is not known.
func (b *block) find(c *query.Column) (col, bool) {
	if c.Catalog != "" || c.Star {
		return col{}, false
	}
	for ; b != nil; b = b.outer {
		if c.Table != "" {
			n, doubt := b.named(c)
			if doubt {
				return col{}, false
			}
			if n == nil {
				continue
			}
			found, ok := one(n.columns, c.Name)
			return found, ok && found.leaf != nil
		}
		found, n := col{}, 0
		for _, v := range b.columns {
			if v.name == c.Name {
				found, n = v.col, n+1
			}
		}
		if n == 1 {
			return found, found.leaf != nil
		}
		if n > 1 || !b.complete {
			return col{}, false
		}
	}
	return col{}, false
}

// named returns the node that a column's qualifier means, nil when there is none in
// this block; doubt is set when there may be several.
func (b *block) named(c *query.Column) (found *node, doubt bool) {
	for _, n := range b.nodes {
		if n.leaf == nil || n.leaf.hidden {
			continue
		}
		r := n.leaf.ref
		switch {
		case r.Alias != "":
			if c.Schema != "" || r.Alias != c.Table {
				continue
			}
		case r.Name != c.Table:
			continue
		case c.Schema != "" && r.Schema != "" && c.Schema != r.Schema,
			c.Schema != "" && r.Schema == "" && (n.leaf.rel == nil || n.leaf.rel.schema != c.Schema):
			continue
		}
		if found != nil {
			return nil, true
		}
		found = n
	}
	return found, false
}
