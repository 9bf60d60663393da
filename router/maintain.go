package router

import (
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

// concurrently reports whether a command is one that builds or drops in several
// transactions. What it leaves behind when it fails on one shard would stay unseen.
func concurrently(sh *query.Shape, sql string) bool {
	switch sh.What() {
	case "the command IndexStmt", "the command DropStmt", "the command ReindexStmt", "the command AlterTableStmt":
		return strings.Contains(strings.ToLower(sql), "concurrently")
	}
	return false
}
