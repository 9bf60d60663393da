package query

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// CreateAs is what a CREATE TABLE AS, or a SELECT INTO, consists of: the table, which can be made
// without rows, and the query that gives its rows. Both are pieces of the client's text, which were
// parsed and compared with what they have to mean.
type CreateAs struct {
	// Create makes the table without rows, and fails when it is there. Skip does nothing then; it is
	// "" unless the text says IF NOT EXISTS.
	Create, Skip string
	// Query gives the rows. NoData is set when there are to be none.
	Query  string
	NoData bool
	// Table is the table's name as it stands in the text, Schema and Name are its parts.
	Table, Schema, Name string
	// Catalog is set when a database is named too.
	Catalog bool
}

// ReadCreateAs reads a text that is one CREATE TABLE AS, or one SELECT INTO. ok is false for any other
// text, when a part of it cannot be located exactly, and for SELECT INTO of a temporary table.
func ReadCreateAs(sql string, opts Options) (c *CreateAs, ok bool) {
	var n Normal
	n.analyze(sql, opts, func(tree *pg.ParseResult, commands []Command) {
		if len(commands) != 1 {
			return
		}
		t := newShapeText([]byte(sql), n.Literals)
		r := t.inside(commands[0].Start, commands[0].End)
		if x := tree.Stmts[0].Stmt.GetCreateTableAsStmt(); x != nil {
			c, ok = t.createTableAs(x, r)
		} else if x := tree.Stmts[0].Stmt.GetSelectStmt(); x != nil && hasInto(x) {
			c, ok = t.selectInto(x, r)
		}
	})
	return c, ok
}

// createTableAs takes CREATE TABLE AS.
func (t *shapeText) createTableAs(x *pg.CreateTableAsStmt, r region) (*CreateAs, bool) {
	body := t.behindWord(r, "as")
	if x.Objtype != pg.ObjectType_OBJECT_TABLE || x.Query.GetSelectStmt() == nil || !body.known() {
		return nil, false
	}
	if t.is(body.hi-1, "data") && t.is(body.hi-2, "with") {
		body.hi -= 2
	} else if x.Into.SkipData {
		body.hi -= 3
	}
	c := &CreateAs{NoData: x.Into.SkipData}
	name := t.made(c, x.Into)
	if !body.known() || !name.known() {
		return nil, false
	}
	c.Query = t.place(body).In(string(t.src))
	c.Create = t.place(region{r.lo, body.hi}).In(string(t.src)) + "\nWITH NO DATA"
	if x.IfNotExists {
		words := region{name.lo - 3, name.lo}
		if !t.is(words.lo, "if") || !t.is(words.lo+1, "not") || !t.is(words.lo+2, "exists") {
			return nil, false
		}
		at := int(t.toks[words.lo].start) - int(t.toks[r.lo].start)
		c.Skip = c.Create
		c.Create = c.Create[:at] + c.Create[int(t.toks[name.lo].start)-int(t.toks[r.lo].start):]
	}
	want := proto.CloneOf(x)
	want.Into.SkipData, want.IfNotExists = true, false
	return c, c.means(want)
}

// selectInto takes SELECT INTO: the clause is cut out, and the table is made by CREATE TABLE AS.
func (t *shapeText) selectInto(x *pg.SelectStmt, r region) (*CreateAs, bool) {
	query := proto.CloneOf(x)
	first := query
	for first.IntoClause == nil {
		first = first.Larg
	}
	into := first.IntoClause
	first.IntoClause = nil
	c := &CreateAs{}
	name := t.made(c, into)
	if !name.known() {
		return nil, false
	}
	at, unlogged := name.lo-1, ""
	for ; t.is(at, "table", "unlogged"); at-- {
		if t.is(at, "unlogged") {
			unlogged = "UNLOGGED "
		}
	}
	if !t.is(at, "into") || at <= r.lo || name.hi > r.hi {
		return nil, false
	}
	src := string(t.src)
	last := t.toks[r.hi-1].end
	c.Query = src[t.toks[r.lo].start:t.toks[at].start] + src[t.toks[name.hi-1].end:last]
	c.Create = "CREATE " + unlogged + "TABLE " + c.Table + " AS " + c.Query + "\nWITH NO DATA"
	want := &pg.CreateTableAsStmt{Objtype: pg.ObjectType_OBJECT_TABLE, Into: proto.CloneOf(into),
		Query: &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: query}}}
	want.Into.SkipData = true
	return c, c.means(want)
}

// made reads the table that is made, and finds its name in the text.
func (t *shapeText) made(c *CreateAs, into *pg.IntoClause) region {
	lo := t.at(into.GetRel().GetLocation())
	last := -1
	if lo >= 0 {
		last = t.name(lo)
	}
	if last < 0 {
		return nowhere
	}
	name := region{lo, last + 1}
	c.Table = t.place(name).In(string(t.src))
	c.Schema, c.Name, c.Catalog = into.Rel.Schemaname, into.Rel.Relname, into.Rel.Catalogname != ""
	return name
}

// means reports whether the texts mean what they have to: want is the command that makes the table.
func (c *CreateAs) means(want *pg.CreateTableAsStmt) bool {
	plain := func(m proto.Message) proto.Message {
		m = proto.Clone(m)
		clearLocations(m.ProtoReflect())
		return m
	}
	is := func(sql string, get func(*pg.Node) proto.Message, want proto.Message) bool {
		tree, err := pg.Parse(sql)
		return err == nil && len(tree.Stmts) == 1 && proto.Equal(plain(get(tree.Stmts[0].Stmt)), plain(want))
	}
	create := func(n *pg.Node) proto.Message { return n.GetCreateTableAsStmt() }
	if c.Skip != "" {
		skips := proto.CloneOf(want)
		if skips.IfNotExists = true; !is(c.Skip, create, skips) {
			return false
		}
	}
	return is(c.Create, create, want) &&
		is(c.Query, func(n *pg.Node) proto.Message { return n.GetSelectStmt() }, want.Query.GetSelectStmt())
}
