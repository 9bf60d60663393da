package router

import "shardproxy/query"

// find returns the column that a name means. ok is false when that is not certain:
// because several have it, or because it may be one that is not known.
func (b *block) find(c *query.Column) (col, bool) {
	if c.Catalog != "" || c.Star {
		return col{}, false
	}
	for seen := -1; b != nil; seen, b = b.limit(), b.outer {
		if c.Table != "" {
			n, doubt := b.named(c)
			if doubt {
				return col{}, false
			}
			if n == nil {
				if b.building {
					return col{}, false // it may come yet
				}
				continue
			}
			found, ok := one(n.columns, c.Name)
			return found, ok && found.leaf != nil && b.shows(found, seen)
		}
		found, n := col{}, 0
		for _, v := range b.columns {
			if v.name == c.Name {
				found, n = v.col, n+1
			}
		}
		if n == 1 {
			return found, found.leaf != nil && b.shows(found, seen)
		}
		if n > 1 || !b.complete || b.building {
			return col{}, false
		}
	}
	return col{}, false
}

// limit is how many nodes of the block around it a lateral subquery sees, -1 for
// other blocks, which see all.
func (b *block) limit() int {
	if b.lateral {
		return b.seen
	}
	return -1
}

// shows reports whether a column belongs to one of the first nodes of the block; all
// with a negative number.
func (b *block) shows(c col, first int) bool {
	if first < 0 {
		return true
	}
	for _, n := range b.nodes[:min(first, len(b.nodes))] {
		if n.leaf == c.leaf {
			return true
		}
	}
	return false
}

// under reports whether a leaf of the block stands inside a join; leaves of other
// blocks do not matter.
func (b *block) under(l *leaf, join *node) bool {
	for _, n := range b.nodes {
		if n.leaf != l || n.join != nil {
			continue
		}
		for ; n != nil; n = n.parent {
			if n == join {
				return true
			}
		}
		return false
	}
	return true
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
