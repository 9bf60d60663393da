package router

import (
	"slices"

	"shardproxy/query"
	"shardproxy/shardmap"
)

// CopyIn is a COPY FROM STDIN into a table whose rows are on several shards. It is
// immutable.
type CopyIn struct {
	// Table is the table's name, without its schema.
	Table string
	// Columns are those that the data have. Listed is set when the statement names them.
	Columns []string
	Listed  bool
	// Keys are the places of the key's columns in Columns or, behind those, in Draws.
	Keys []int
	// Everywhere is set for a reference table: all rows go to all shards.
	Everywhere bool
	// Draws are columns that the data lack and that are drawn for each row.
	Draws []Draw
	// group has for each column of the key one value: what Place is given.
	group Group
}

// copyIn proves a COPY FROM STDIN into a table that is on several shards.
func (p *prover) copyIn(c *query.Copy, r *relation) {
	in := &CopyIn{Table: r.name, Listed: c.HasColumns, Columns: c.Columns, Everywhere: r.kind == kindReference}
	if !in.Listed {
		for i := range r.columns {
			if !r.columns[i].generated {
				in.Columns = append(in.Columns, r.columns[i].name)
			}
		}
	}
	for _, name := range in.Columns {
		if !slices.ContainsFunc(r.columns, func(k relationColumn) bool { return k.name == name }) {
			p.refuse(reasonUnknown, "column "+name+" of "+r.String()+" is not known")
			return
		}
	}
	for i := range r.columns {
		k := &r.columns[i]
		if slices.Contains(in.Columns, k.name) {
			continue
		}
		switch {
		case k.draw != nil && (k.drawn || r.kind == kindReference || slices.Contains(r.key, i)):
			in.Draws = append(in.Draws, *k.draw)
		case k.drawn:
			p.refuse(reasonSequence, drawsOwn(r, k.name))
			return
		case k.unsteady && r.kind == kindReference:
			p.refuse(reasonReference, r.String()+" is on every shard, and column "+k.name+" has a default whose value may differ from shard to shard")
			return
		}
	}
	in.group = Group{table: r.String(), placement: r.placement}
	for i, at := range r.key {
		k := &r.columns[at]
		place := slices.Index(in.Columns, k.name)
		if drawn := slices.IndexFunc(in.Draws, func(d Draw) bool { return d.Column == k.name }); drawn >= 0 {
			place = len(in.Columns) + drawn
		}
		if place < 0 {
			p.refuse(reasonNoKey, "COPY into "+r.String()+" gives no value for "+k.name+", which places the row")
			return
		}
		in.Keys = append(in.Keys, place)
		in.group.columns = append(in.group.columns, []value{{source: fromDraw, index: int32(i), as: k.key, assigned: true, typmod: k.typmod}})
	}
	p.copies = in
}

// Place returns the shard of a row. values are the key's columns, as the input functions
// of their types take them or, with binary, the receive functions; nil is NULL. The
// error is a *wire.Error: that of PostgreSQL for a value that its type does not take, or
// a refusal. v is a buffer of the caller's.
func (c *CopyIn) Place(o *Owners, v *Values, values [][]byte, binary bool) (int, error) {
	v.drawn, v.drawnFormat = values, shardmap.TextFormat
	if binary {
		v.drawnFormat = shardmap.BinaryFormat
	}
	l := locator{owners: o, values: v, shard: AnyShard}
	err := l.group(&c.group)
	v.drawnFormat = shardmap.TextFormat
	return max(l.shard, 0), err
}
