package router

import (
	"shardproxy/query"
	"shardproxy/tally"
)

// Intent says which node may run a statement.
type Intent uint8

const (
	// Write: only the primary. Also everything that is not proven to read.
	Write Intent = iota
	// Read: proven to read only; any node that is fresh enough.
	Read
)

// Plan is what is known of one statement text under one catalog. It is
// immutable, cached and shared by all sessions.
type Plan struct {
	// Statement is the analysed text. Byte spans in it belong to the exact text
	// only when Exact is set; a plan shared by a normalised text has no use for them.
	Statement *query.Statement
	Intent    Intent
	// Tally counts what statements of this text cost; nil when nothing does.
	Tally *tally.Entry
	// MayWrite is set unless the statement surely leaves the rows of all tables as
	// they are: what must run on the primary need not write, as BEGIN and SET.
	MayWrite bool
	// Footprint is what the text has to do with tables.
	Footprint Footprint
	// Effects is the union over the commands, with EffectUnknown added when a
	// function is called that the catalog cannot vouch for.
	Effects query.Effect
	// Single is the only command, nil when there are none or several.
	Single *query.Command
	// Exact is set when the plan was made for this very text, so that the byte
	// spans in Statement are valid in it.
	Exact bool
	// Simple is set when the statement neither touches transaction state nor
	// has effects: the relay need not look at it further.
	Simple bool
	// Where says on which shards the statement runs; Anywhere in a database of one.
	Where Where
	// Refusal is why it runs nowhere, nil unless Where is Refused.
	Refusal *Refusal
	// NewViews names the views that are made on all shards, as Context.NewViews does.
	NewViews string
	// Each is set, with Where All, for a command that PostgreSQL runs in no transaction:
	// it runs on one shard after the other, and may be repeated.
	Each bool
	// Journalled is set, with Where All, for a command with CONCURRENTLY: it runs as Each
	// does, but what it has done is to be noted, for half of it may stay.
	Journalled bool
	// CopyIn is set for a COPY FROM STDIN whose rows are to be placed one by one.
	CopyIn *CopyIn
	// fansOut is set for an UPDATE or DELETE that may run on several shards.
	fansOut bool
	// kept says why rows whose key changes cannot be moved to another shard.
	kept string
	// move is set for an UPDATE that may move rows to another shard.
	move *move
	// moment is set when the text has what stands for the time of the transaction, and the
	// statement may run on several shards.
	moment bool
	// fills is set for a definition that fills columns with that time.
	fills *filling
	// split is set for an INSERT whose rows may go to several shards.
	split *split
	// groups are the uses of sharded tables, which must meet on one shard.
	groups []Group
	// scatters is set for a query that is answered from several shards if it needs them.
	scatters bool
	// drawsThere is set when the server may draw for rows of a table that its schema places.
	drawsThere bool
	// literals is set when one of them has a value from a literal of the text.
	literals bool
	// explain is set for an EXPLAIN.
	explain *query.ExplainOptions
	// Why says in a few words why Intent is Write for a statement that looks
	// like a read ("calls volatile function f"); for EXPLAIN ROUTE and logs.
	Why string
}

// UnknownPath is no search path: names may be found, and made, in any schema.
const UnknownPath = `"`

// Context is what else the meaning of a text depends on.
type Context struct {
	// SearchPath is the session's search_path as its text; "" when it is the
	// server's default, UnknownPath when it may be anything.
	SearchPath string
	// Role is the session's current role, which a database of several shards must
	// know; "" when it is not known.
	Role string
	// NewViews names the views that may be there and that the catalog does not know yet,
	// as AddViews writes them: "" for none, AnyView when their names are not known.
	NewViews string
	// HiddenSlots is the number of slots while shards may hold rows that are not theirs, and 0 at all
	// other times: see shardmap.Map.Guarded.
	HiddenSlots int
	// Altered is set in a transaction that has changed definitions, which the catalog does
	// not know of yet.
	Altered bool
	// NonStandardStrings is set when standard_conforming_strings is off.
	NonStandardStrings bool
	// UnsafeEncoding is set when in the session's client_encoding a byte below
	// 128 may be part of a character; see query.Options.
	UnsafeEncoding bool
}
