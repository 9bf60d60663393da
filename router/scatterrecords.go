package router

// Whole rows. A table that is gathered gives rows with its columns, and these are enough for most. Where the text means the row as
// one value (SELECT t FROM t, to_jsonb(t), t.* = u.*), the rows that were gathered are of the table's own type: what pg_typeof says of
// one, what it is cast to, and the names of its columns behind an alias for them are PostgreSQL's.

// nameless is the column of a table of which no column is needed.
const nameless = "?column?"

// rowOf is how the whole row of a table, written with a star, stands among the names of columns.
func rowOf(table string) string { return table + "\x00row" }

// rowIsMeant reports whether the text may mean a whole row of what an item of FROM is called: by its name, which may be that of a
// column too, or with a star.
func (g *gatherer) rowIsMeant(alias string) bool {
	return g.mentions[alias] || g.mentions[rowOf(alias)]
}

// untypedRow refuses a text that asks for types when a view, whose query is written out, may be meant as a row: it would be a record.
func (g *gatherer) untypedRow(a *alone, alias string) *Refusal {
	if !g.rowIsMeant(alias) {
		return nil
	}
	for _, f := range a.st.Commands[0].Functions {
		if f.Name == "pg_typeof" {
			return &Refusal{Reason: reasonFunction, Why: "it calls pg_typeof, and a row of the view " + alias + " would be of another type"}
		}
	}
	return nil
}
