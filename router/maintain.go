package router

import (
	"slices"
	"strings"

	"shardproxy/query"
)

// maintenance says what a command that keeps tables in good order, and changes neither
// rows nor definitions, is to do where its tables are on several shards.
type maintenance uint8

const (
	noMaintenance maintenance = iota
	inTransaction             // it runs on all shards as definitions do
	onEach                    // PostgreSQL runs it in no transaction: on one shard after the other
)

// maintains looks at a command; sql is its text.
func maintains(sh *query.Shape, sql string) maintenance {
	word, _, _ := strings.Cut(strings.TrimLeft(sql, " \t\r\n"), " ")
	switch sh.What() {
	case "the command VacuumStmt":
		if strings.EqualFold(word, "vacuum") {
			return onEach
		}
		if strings.EqualFold(word, "analyze") || strings.EqualFold(word, "analyse") || word == sql {
			return inTransaction
		}
		return onEach // in whatever way it is written
	case "the command ReindexStmt", "the command ClusterStmt":
		return onEach
	case "the command LockStmt":
		return inTransaction
	}
	return noMaintenance
}

// concurrently decides what becomes of a command that PostgreSQL runs in several
// transactions: it is journalled, and runs on one shard after the other.
func (p *prover) concurrently(c *query.Concurrent) {
	switch {
	case p.all == "":
	case c.Odd != "":
		p.refuse(reasonCommand, c.Odd)
	case c.Kind == query.ConcurrentDetach && p.borrows(c.Object):
		p.refuse(reasonCommand, c.Object.Name+" would be a table that nobody has declared: give it a rule before it is detached")
	default:
		p.each, p.journalled = false, true
	}
}

// borrows reports whether a partition has no rule of its own.
func (p *prover) borrows(n query.Name) bool {
	r := p.relations.find(n.Schema, n.Name)
	return r != nil && r.borrowed
}

// fillsColumn says why ALTER TABLE ... ADD COLUMN would give the rows that are there
// other values than one server would: each shard evaluates the default for its own.
func (p *prover) fillsColumn(sh *query.Shape, c *query.Command) string {
	lower := strings.ToLower(p.sql[c.Start:c.End])
	if sh.What() != "the command AlterTableStmt" || !slices.Contains(strings.Fields(lower), "add") {
		return ""
	}
	const instead = ": add the column without it, give the rows their values, and set the default then"
	for _, t := range c.Types {
		if strings.Contains(t.Name, "serial") {
			return "the rows of each shard would get values of its own sequence" + instead
		}
	}
	if strings.Contains(lower, "serial") || strings.Contains(lower, "identity") {
		return "the rows of each shard would get values of its own sequence" + instead
	}
	reference := p.uses[kindReference] != "" || p.allReference
	for _, f := range c.Functions {
		steady := p.relations.immutable(f)
		if !steady && !reference {
			steady = f.Name == "now" || f.Name == "transaction_timestamp" || f.Name == "statement_timestamp"
		}
		if !steady {
			return "the rows of each shard would get other values of " + f.Name + instead
		}
	}
	if word := sessionWord(lower); word != "" && reference {
		return "the rows of each shard would get another " + word + instead
	}
	return ""
}
