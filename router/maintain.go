package router

import (
	"strings"

	"shardproxy/query"
	"shardproxy/wire"
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

// InNoTransaction is the refusal of a definition that PostgreSQL runs in no transaction, as CREATE DATABASE: it could be done on
// one shard and not on another.
func InNoTransaction() *wire.Error {
	return (&Refusal{Reason: reasonCommand, Why: "PostgreSQL runs it in no transaction, and so it may come to be on some shards and not on others",
		Hint: "Run it on the server of each shard."}).Error()
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
