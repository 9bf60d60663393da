package query

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// ConcurrentKind says what a command with CONCURRENTLY does.
type ConcurrentKind uint8

// The commands that PostgreSQL runs in several transactions of its own.
const (
	ConcurrentCreateIndex ConcurrentKind = iota
	ConcurrentDropIndex
	ConcurrentReindexIndex
	ConcurrentReindexTable
	ConcurrentDetach // ALTER TABLE ... DETACH PARTITION
)

// Concurrent is a command with CONCURRENTLY: what is left of it when it fails is
// no transaction's. It is immutable.
type Concurrent struct {
	Kind ConcurrentKind
	// Object is the index that is made (without a name when PostgreSQL is to choose
	// it), dropped or rebuilt, the table that is rebuilt, or the partition.
	Object Name
	// Table is the table that gets an index or loses a partition.
	Table Name
	// Unique is CREATE UNIQUE INDEX; Lenient is IF EXISTS or IF NOT EXISTS.
	Unique, Lenient bool
	// Odd says why the command is not one that can be taken up again where it
	// failed; "" when it is.
	Odd string
	// sql is the text that ReadConcurrent read; name and behind are the places in it
	// behind CONCURRENTLY and behind the table.
	sql          string
	name, behind int
}

// concurrent returns what a command does concurrently, nil when it does nothing.
func concurrent(n *pg.Node) *Concurrent {
	switch x := n.GetNode().(type) {
	case *pg.Node_IndexStmt:
		if s := x.IndexStmt; s.Concurrent {
			return &Concurrent{Kind: ConcurrentCreateIndex, Object: Name{Name: s.Idxname}, Table: rangeName(s.Relation),
				Unique: s.Unique, Lenient: s.IfNotExists}
		}
	case *pg.Node_DropStmt:
		if s := x.DropStmt; s.Concurrent {
			c := &Concurrent{Kind: ConcurrentDropIndex, Lenient: s.MissingOk}
			if len(s.Objects) != 1 || s.Behavior == pg.DropBehavior_DROP_CASCADE {
				c.Odd = "DROP INDEX CONCURRENTLY drops one index, without CASCADE"
				return c
			}
			c.Object = qualified(s.Objects[0].GetList().GetItems(), 0)
			return c
		}
	case *pg.Node_ReindexStmt:
		return concurrentReindex(x.ReindexStmt)
	case *pg.Node_AlterTableStmt:
		for _, cmd := range x.AlterTableStmt.Cmds {
			if p := cmd.GetAlterTableCmd().GetDef().GetPartitionCmd(); p.GetConcurrent() {
				return &Concurrent{Kind: ConcurrentDetach, Object: rangeName(p.Name), Table: rangeName(x.AlterTableStmt.Relation)}
			}
		}
	}
	return nil
}

func concurrentReindex(s *pg.ReindexStmt) *Concurrent {
	var c *Concurrent
	for _, p := range s.Params {
		if d := p.GetDefElem(); d.GetDefname() == "concurrently" {
			c = &Concurrent{Object: rangeName(s.Relation)}
			if d.Arg != nil {
				c.Odd = "REINDEX takes CONCURRENTLY without a value"
			}
		}
	}
	if c == nil {
		return nil
	}
	switch s.Kind {
	case pg.ReindexObjectType_REINDEX_OBJECT_INDEX:
		c.Kind = ConcurrentReindexIndex
	case pg.ReindexObjectType_REINDEX_OBJECT_TABLE:
		c.Kind = ConcurrentReindexTable
	default:
		c.Odd = "REINDEX of many tables CONCURRENTLY is not taken up again where it failed: use REINDEX TABLE CONCURRENTLY for each"
	}
	return c
}

func rangeName(r *pg.RangeVar) Name { return Name{Schema: r.GetSchemaname(), Name: r.GetRelname()} }

// ReadConcurrent reads a text that is one command with CONCURRENTLY; nil for every
// other text.
func ReadConcurrent(sql string) *Concurrent {
	var n Normal
	if !n.Scan([]byte(sql)) || n.Depth > MaxDepth {
		return nil
	}
	tree, err := pg.Parse(sql)
	if err != nil || len(tree.Stmts) != 1 {
		return nil
	}
	c := concurrent(tree.Stmts[0].Stmt)
	if c == nil {
		return nil
	}
	c.sql = sql
	if c.Kind == ConcurrentCreateIndex {
		c.locate([]byte(sql))
	}
	return c
}

// locate finds the places of a CREATE INDEX. Where the table is not written as its
// name alone they stay unknown.
func (c *Concurrent) locate(sql []byte) {
	is := func(t token, word string) bool {
		return t.kind == tokWord && strings.EqualFold(string(sql[t.start:t.end]), word)
	}
	t := nextToken(sql, 0)
	for ; t.kind != tokEnd && !is(t, "on"); t = nextToken(sql, t.end) {
		if is(t, "concurrently") && c.name == 0 {
			c.name = t.end
		}
	}
	if t = nextToken(sql, t.end); is(t, "only") {
		t = nextToken(sql, t.end)
	}
	for t.kind == tokWord || t.kind == tokQuoted {
		end := t.end
		if t = nextToken(sql, t.end); t.kind == tokPunct && string(sql[t.start:t.end]) == "." {
			t = nextToken(sql, t.end)
			continue
		}
		if t.kind == tokOpen || is(t, "using") {
			c.behind = end
		}
		return
	}
}

// Named returns the text with a name for its index, which has none. The name is put
// in as it is: the caller quotes it. ok is false when there is no place for it.
func (c *Concurrent) Named(name string) (sql string, ok bool) {
	if c.Kind != ConcurrentCreateIndex || c.name == 0 || c.Object.Name != "" {
		return "", false
	}
	sql = c.sql[:c.name] + " " + name + c.sql[c.name:]
	again := ReadConcurrent(sql)
	return sql, again != nil && again.Object.Name != "" && again.Table == c.Table
}

// Definition returns what stands behind the table of a CREATE INDEX: how it is made
// of which columns. ok is false when it cannot be told.
func (c *Concurrent) Definition() (rest string, ok bool) {
	if c.Kind != ConcurrentCreateIndex || c.behind == 0 {
		return "", false
	}
	return strings.TrimRight(c.sql[c.behind:], "; \t\r\n"), true
}
