package router

import (
	"fmt"

	"shardproxy/query"
	"shardproxy/wire"
)

// Where says on which shards a statement runs.
type Where uint8

const (
	// Anywhere: on whatever shard; the statement needs none, or what is on all.
	Anywhere Where = iota
	// Home: on the first shard.
	Home
	// Keyed: on the shard where the plan's groups meet; see Plan.Shard.
	Keyed
	// All: on every shard, and only if it succeeds on all.
	All
	// Refused: nowhere; see Plan.Refusal.
	Refused
	// FanOut: on every shard, each on the rows that it has.
	FanOut
)

// String returns the word for the place, as EXPLAIN and the console show it.
func (w Where) String() string {
	switch w {
	case Anywhere:
		return "any"
	case Home:
		return "home"
	case Keyed:
		return "keyed"
	case All:
		return "all"
	case FanOut:
		return "fan-out"
	}
	return "refused"
}

// Reason is the class of a refusal, a word for metrics.
type Reason string

// The reasons.
const (
	reasonUnbound    Reason = "unbound_key"    // rows of all shards would be needed
	reasonSeveral    Reason = "several_shards" // the keys lie on more than one
	reasonMixed      Reason = "mixed_kinds"    // sharded and single tables
	reasonNoKey      Reason = "no_key"         // an INSERT without its key
	reasonKeyChange  Reason = "key_change"     // an UPDATE of the key
	reasonValue      Reason = "value"          // a key's value that is not understood
	reasonReference  Reason = "reference"      // a write to a reference table
	reasonFunction   Reason = "function"       // a function that may read sharded tables
	reasonConstraint Reason = "constraint"     // what one server would check or do, and shards do not
	reasonSequence   Reason = "sequence"       // a default that each shard would draw on its own
	reasonView       Reason = "view"           // a write through a view
	reasonCommand    Reason = "command"        // a command that is not built for shards
	reasonUnknown    Reason = "not_understood" // a part of the text, or a name
	reasonLoading    Reason = "loading"        // the catalog is not known yet
	reasonMoving     Reason = "moving"         // rows of slots that move cannot be left out
	reasonBlocked    Reason = "blocked"        // an operator does not want it
)

// Refusal is why a statement is not run.
type Refusal struct {
	Reason Reason
	// Why says it in words; Hint what may help, "" when nothing is known to.
	Why, Hint string
	// Syntax is set when PostgreSQL's grammar does not know the text.
	Syntax *query.SyntaxError
	told   *wire.Error // what Error returns, nil when it makes it
}

// Describable reports whether any server can say which parameters and columns the
// statement has: what is refused is to run it.
func (r *Refusal) Describable() bool {
	return r.Reason != reasonUnknown && r.Reason != reasonLoading && r.Reason != reasonCommand
}

// hint is what a refusal is told with when nothing better is known.
func (r Reason) hint() string {
	switch r {
	case reasonUnbound:
		return "Give the key of every sharded table: key = value, or equality with a column that is."
	case reasonSeveral:
		return "Send one statement for each key."
	case reasonMixed:
		return "Tables on the home shard and sharded tables cannot meet in a statement; a reference table is on every shard."
	case reasonNoKey:
		return "Name the key's columns and give their values."
	case reasonKeyChange:
		return "Delete the row and insert it anew, or give all of the key one constant."
	case reasonConstraint:
		return "per_shard_constraints in the table's rule accepts constraints that hold on each shard alone."
	case reasonSequence:
		return "Give a value for the column."
	case reasonValue:
		return "Give the key as a constant or as a parameter of the column's type; an INSERT of one row may compute it."
	}
	return ""
}

// decide turns what the prover found of a command into where it runs.
func (p *prover) decide() (Where, *Refusal) {
	single, system := p.uses[kindSingle], p.uses[kindSystem]
	sharded, reference := p.uses[kindSharded], p.uses[kindReference]
	home := single
	if home == "" {
		home = system
	}
	switch {
	case p.refusal != nil:
		return Refused, p.refusal
	case sharded != "" && home != "":
		p.refuse(reasonMixed, fmt.Sprintf("%s is on the home shard, and %s is sharded", home, sharded))
		return Refused, p.refusal
	case (p.written[kindReference] != "" || p.all != "") && (sharded != "" || home != ""):
		where := p.all
		if where == "" {
			where = p.written[kindReference]
		}
		if sharded != "" {
			home = sharded
		}
		p.refuse(reasonMixed, where+" is on every shard, and "+home+" is not")
		return Refused, p.refusal
	case p.written[kindReference] != "" || p.all != "":
		return All, nil
	case reference != "" && p.locks && sharded != "":
		p.refuse(reasonReference, "rows of "+reference+", which is on every shard, are locked")
		return Refused, p.refusal
	case sharded != "":
		return Keyed, nil
	case home != "" || reference != "" && p.locks:
		return Home, nil
	}
	return Anywhere, nil
}
