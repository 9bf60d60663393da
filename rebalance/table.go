package rebalance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
	"shardproxy/shardmap"
)

// Table is a table whose rows lie in slots, as far as they are carried to another shard: an ordinary
// table or one partition. It is immutable.
type Table struct {
	Schema, Name string
	// Columns are those that are carried: all but generated ones.
	Columns []Column
	// Identity are the places in Columns of the primary key: what names a row in both shards.
	Identity []int
	// Key are the places in Columns of the sharding key, Types their types, in its order.
	Key   []int
	Types []shardmap.KeyType
	// Slots is how many slots the cluster has.
	Slots int
}

// Column is a column whose values are carried.
type Column struct {
	Name string
	// Type is the declared type as SQL.
	Type string
}

// NewTable returns a table of the catalog as one to be moved. key names the sharding key's columns; without any, all rows lie in
// the one slot 0. The error is a *Blocker,
// for a table whose rows cannot be moved.
func NewTable(of *catalog.Table, key []string, slots int) (*Table, error) {
	t := &Table{Schema: of.Schema, Name: of.Name, Slots: slots}
	blocked := func(reason, hint string) (*Table, error) {
		return nil, &Blocker{Table: t.String(), Reason: reason, Hint: hint}
	}
	switch {
	case of.Kind != catalog.KindTable && of.Kind != catalog.KindPartition:
		return blocked("it is a "+of.Kind.String(), "only tables and their partitions have rows that move")
	case of.Unlogged:
		return blocked("it is unlogged: its changes cannot be followed", "ALTER TABLE "+t.String()+" SET LOGGED")
	case of.Kind == catalog.KindTable && (len(of.Parents) > 0 || len(of.Children) > 0):
		return blocked("it inherits from another table, or another one from it", "use partitions, or tables of their own")
	}
	for i := range of.Columns {
		if of.Columns[i].Default.Kind != catalog.DefaultGenerated {
			t.Columns = append(t.Columns, Column{Name: of.Columns[i].Name, Type: of.Columns[i].TypeName})
		}
	}
	for _, name := range key {
		c := of.Column(name)
		at := t.place(name)
		if c == nil || at < 0 {
			return blocked("it has no stored column "+name+", which is to be its key", "")
		}
		k, err := shardmap.KeyTypeOf(c.Base, c.Collation == nil || c.Collation.Deterministic)
		if err != nil {
			return blocked("its key: "+err.Error(), "")
		}
		t.Key, t.Types = append(t.Key, at), append(t.Types, k)
	}
	pk := of.PrimaryKey()
	switch {
	case pk == nil:
		return blocked("it has no primary key, by which a row is found again on the other shard", "add one")
	case of.ReplicaIdentity != catalog.IdentityDefault && of.ReplicaIdentity != catalog.IdentityFull:
		return blocked("its replica identity is not its primary key", "ALTER TABLE "+t.String()+" REPLICA IDENTITY DEFAULT")
	}
	for _, number := range pk.Keys {
		i := slices.IndexFunc(of.Columns, func(c catalog.Column) bool { return c.Number == number })
		at := t.place(of.Columns[i].Name)
		if at < 0 {
			return blocked("its primary key has a generated column", "")
		}
		t.Identity = append(t.Identity, at)
	}
	return t, nil
}

// place is that of a column by its name, -1 when there is none.
func (t *Table) place(name string) int {
	return slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
}

// String returns the qualified name as SQL.
func (t *Table) String() string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }

// ColumnList returns the names of the columns at these places as SQL, each behind prefix ("" or an alias and a point).
func (t *Table) ColumnList(places []int, prefix string) string {
	names := make([]string, len(places))
	for i, at := range places {
		names[i] = prefix + pgx.Identifier{t.Columns[at].Name}.Sanitize()
	}
	return strings.Join(names, ", ")
}

// SlotSQL returns an SQL expression for the slot of a row, whose columns stand behind prefix.
func (t *Table) SlotSQL(prefix string) string {
	if len(t.Key) == 0 {
		return "0"
	}
	names := make([]string, len(t.Key))
	for i, at := range t.Key {
		names[i] = prefix + pgx.Identifier{t.Columns[at].Name}.Sanitize()
	}
	return shardmap.SlotSQL(t.Types, names, t.Slots)
}

// Slot returns the slot of a row from the texts of its key's columns, nil for NULL, as a server prints them with DateStyle ISO.
// ok is false when the key is one column that is NULL: such a row is in no slot. The error is shardmap's.
func (t *Table) Slot(key [][]byte) (slot shardmap.Slot, ok bool, err error) {
	var row shardmap.RowHash
	for i, text := range key {
		switch {
		case text == nil && len(key) == 1:
			return 0, false, nil
		case text == nil:
			row = row.AddNull()
			continue
		}
		hash, err := t.Types[i].HashText(text)
		if err != nil {
			return 0, false, fmt.Errorf("the key of a row of %s: %w", t, err)
		}
		row = row.Add(hash)
	}
	return shardmap.SlotOf(row.Sum(), t.Slots), true, nil
}

// Blocker says why rows cannot be moved.
type Blocker struct {
	// Table is the table's qualified name as SQL, Shard a shard's name; "" when it is about none.
	Table, Shard string
	Reason, Hint string
}

func (b *Blocker) Error() string {
	var of []string
	for _, s := range []string{b.Shard, b.Table} {
		if s != "" {
			of = append(of, s)
		}
	}
	if len(of) == 0 {
		return b.Reason
	}
	return strings.Join(of, ", ") + ": " + b.Reason
}
