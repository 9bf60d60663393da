package router

import (
	"shardproxy/config"
	"shardproxy/query"
	"shardproxy/shardmap"
)

// kind says where the rows of a relation are.
type kind uint8

const (
	kindSingle    kind = iota // on the home shard: every table that nobody declared
	kindSystem                // each server has its own: the system catalogs
	kindReference             // the same rows on every shard
	kindSharded               // placed by a key
	kindView                  // those of what its query reads
	kindUnknown               // there may be several of the name, or nobody knows what it reads
)

// relation is a table, a view or the like as far as the proof must know it. It is
// immutable.
type relation struct {
	kind         kind
	schema, name string
	columns      []relationColumn
	// key holds the places of the key's columns in columns, of a sharded table.
	key       []int
	placement *Placement
	// query is a view's.
	query *query.Scope
	// literals are the values of query's literals, whose text is the view's own.
	view *viewText
	// why says what makes it kindUnknown.
	why string
	// declared is set for a table that does not exist, and would be on several shards.
	declared bool
	// borrowed is set for a partition whose rule is that of the table it belongs to.
	borrowed bool
	// writes says why its rows cannot be written, moves why they cannot be moved to another
	// shard; "" when they can.
	writes, moves string
	// writable is what may help against writes.
	writable string
	compared
	// dropsAll and dropsHome say where a table is dropped that is kindUnknown.
	dropsAll, dropsHome bool
	// defers is set when something about its rows may be checked at the end of a transaction; triggers
	// when what comes with them is checked, or done, by triggers.
	defers, triggers bool
}

// relationColumn is one column. key is 0 when its type, or its collation, cannot be
// that of a key.
type relationColumn struct {
	name   string
	key    shardmap.KeyType
	typmod int32
	// collate is the column's collation as SQL, "" for that of the database; bytewise is set when
	// it orders by bytes.
	collate  string
	bytewise bool
	// domain is its type when that is a domain, as SQL.
	domain string
	// drawn is set when an INSERT that leaves the column out draws from a sequence;
	// draw says from which, and is set for random UUIDs too.
	drawn bool
	draw  *Draw
	// volatile is set when it is not known that the column draws, but it may.
	volatile bool
	// unsteady is set when its default is no constant, generated when it is computed.
	unsteady, generated bool
	// moment is a default that is steady once the time of the transaction is given.
	moment string
}

// viewText is the text that a view's scope belongs to.
type viewText struct {
	sql      []byte
	literals []query.Literal
	// unsteady says why what it gives may differ from shard to shard.
	unsteady string
}

// relations finds what names mean.
type relations interface {
	// find returns the relation that a name in FROM or behind a command refers to;
	// nil when there is none.
	find(schema, name string) *relation
	// indexed returns the table that an index is of; nil when there is none of the name, or
	// not surely one.
	indexed(schema, name string) *relation
	// keyType returns the key type that a type's name in a cast means; 0 for others.
	keyType(t *query.Type) shardmap.KeyType
	// equal reports whether the operator surely is the equality of both key types.
	equal(op query.Name, left, right shardmap.KeyType) bool
	// orders reports whether the operator, one of < <= > >=, surely compares values of a key type
	// by the order that its default btree has.
	orders(op query.Name, k shardmap.KeyType) bool
	// returnsSet reports whether a call may return a set of rows.
	returnsSet(f query.Name) bool
	// aggregate reports whether a function may be an aggregate.
	aggregate(f query.Name) bool
	// immutable reports whether a function surely gives the same for the same arguments
	// on every server.
	immutable(f query.Name) bool
	// builtin reports whether all functions of the name are PostgreSQL's own.
	builtin(name string) bool
	// placed returns the rule that says where a function runs, nil for most.
	placed(f query.Name) *config.Function
	// placesSchemas reports whether there are rules for schemas.
	placesSchemas() bool
	// sequence returns the placement of the sequence that a call names, nil for the home shard.
	sequence(read *query.SequenceRead) (p *Placement, known bool)
	// sequenceNamed returns the sequence that a call names, as Draw has it; "" when that is not certain.
	sequenceNamed(read *query.SequenceRead) string
	// keyed reports whether a table would have a key for the columns that it is made with.
	keyed(d *query.Definition) bool
	// displaced says why the rows of a table would not be found any more behind a definition; ""
	// when they would.
	displaced(d *query.Definition) string
	// forbidden says why a definition is not run by what would come of it; nil when nothing is known
	// against it.
	forbidden(d *query.Definition) *Refusal
	// steadyDefault reports whether columns of a type that have no default get the same on every shard.
	steadyDefault(n query.Name) bool
	// reaches says why a function cannot be called in a database of several shards;
	// "" when it can.
	reaches(f query.Name) string
}

// String names the relation as messages do.
func (r *relation) String() string {
	if r.schema == "" {
		return r.name
	}
	return r.schema + "." + r.name
}
