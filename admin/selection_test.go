package admin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// chosen are the first columns of the rows that a SHOW gives, with what stands behind its name.
func chosen(t *testing.T, columns []column, rows [][]any, behind string) (ids []int64, state string) {
	t.Helper()
	r, err := parse("SHOW x " + behind)
	if err != nil {
		return nil, err.Code
	}
	if r.rows != nil {
		c, err := r.rows.bind(columns)
		if err != nil {
			return nil, err.Code
		}
		rows = c.choose(append([][]any{}, rows...))
	}
	for _, row := range rows {
		ids = append(ids, row[0].(int64))
	}
	return ids, ""
}

// selectionTable is what selections are tried on.
func selectionTable() (columns []column, rows [][]any) {
	columns = []column{int8Column("id", ""), textColumn("name", ""), int4Column("n", ""), numericColumn("big", ""), textColumn("Odd name", "")}
	rows = [][]any{
		{int64(1), "app", int64(3), int64(1 << 62), "x"}, {int64(2), "App", int64(-1), nil, nil}, {int64(3), nil, nil, int64(0), "50%"},
		{int64(4), "", int64(0), int64(-5), "a_b"}, {int64(5), "äpp", int64(3), int64(7), `a\b`}, {int64(6), "zeta", int64(12), int64(7), "a'b"},
		{int64(7), "app", int64(12), int64(1), "x"}, {int64(8), "a%p", nil, nil, "ÄB"},
	}
	return columns, rows
}

// oracleTable is the same on a server.
func oracleTable(t *testing.T) func(behind string) ([]int64, string) {
	c := pgtest.Connect(t, pgtest.Start(t, pgtest.Options{}).Primary().DSN("app", "app"))
	columns, rows := selectionTable()
	var values []string
	for _, row := range rows {
		var cells []string
		for i, v := range row {
			switch v := v.(type) {
			case nil:
				cells = append(cells, "NULL")
			case string:
				cells = append(cells, "'"+strings.ReplaceAll(v, "'", "''")+"'")
			default:
				cells = append(cells, fmt.Sprint(v))
			}
			cells[i] += "::" + columns[i].typ.name
		}
		values = append(values, "("+strings.Join(cells, ", ")+")")
	}
	// Texts are ordered and compared by their bytes.
	table := `(SELECT id, name COLLATE "C" AS name, n, big, "Odd name" COLLATE "C" AS "Odd name" FROM (VALUES ` + strings.Join(values, ", ") + `) v (id, name, n, big, "Odd name")) x `
	return func(behind string) (ids []int64, state string) {
		r, err := c.Query(t.Context(), "SELECT id, name, n, big, \"Odd name\" FROM "+table+behind, pgx.QueryExecModeSimpleProtocol)
		if pe := new(pgconn.PgError); errors.As(err, &pe) {
			return nil, pe.Code
		} else if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for r.Next() {
			var id int64
			if err := r.Scan(&id, nil, nil, nil, nil); err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		if pe := new(pgconn.PgError); errors.As(r.Err(), &pe) {
			return nil, pe.Code
		} else if r.Err() != nil {
			t.Fatal(r.Err())
		}
		return ids, ""
	}
}

// TestSelectionsAsPostgreSQL: what a selection chooses, and in which order, is what PostgreSQL does; so are the errors.
func TestSelectionsAsPostgreSQL(t *testing.T) {
	oracle := oracleTable(t)
	columns, rows := selectionTable()
	compare := func(behind string) {
		t.Helper()
		ids, state := chosen(t, columns, rows, behind)
		want, wantState := oracle(behind)
		if state != wantState || fmt.Sprint(ids) != fmt.Sprint(want) {
			t.Errorf("%s\n got %v %s\nwant %v %s", behind, ids, state, want, wantState)
		}
	}
	for _, behind := range []string{
		"", "WHERE name = 'app'", "WHERE NAME <> 'app' ORDER BY 1", "WHERE n > 0 AND n <= 12 ORDER BY n DESC, id", "ORDER BY n, id", "ORDER BY n DESC, id DESC",
		"ORDER BY name NULLS FIRST, id", "ORDER BY name DESC NULLS LAST, id", "WHERE n IN (3, -1, NULL) ORDER BY id", "WHERE n NOT IN (3, 12) ORDER BY id",
		"WHERE n NOT IN (3, NULL)", "WHERE name LIKE 'a%' ORDER BY id", "WHERE name ILIKE 'A%' ORDER BY id", `WHERE "Odd name" LIKE '%\%' ORDER BY id`,
		`WHERE "Odd name" LIKE 'a\_b'`, `WHERE "Odd name" LIKE '%\\%'`, "WHERE name LIKE '_pp' ORDER BY id", "WHERE name NOT LIKE '%p%' ORDER BY id", "WHERE name LIKE ''",
		"WHERE name IS NULL", "WHERE NOT name IS NOT NULL", "WHERE n IS NOT NULL AND big IS NULL", "WHERE NOT (n = 3 OR name = 'App') ORDER BY id",
		"WHERE n BETWEEN 0 AND 3 ORDER BY id", "WHERE n NOT BETWEEN 0 AND 3 ORDER BY id", "WHERE big = 4611686018427387904", "WHERE big < 0.5 ORDER BY id", "WHERE n = '3' ORDER BY id",
		"WHERE n = ' 3 ' ORDER BY id", "WHERE '3' = n ORDER BY id", "WHERE n = n AND big > n ORDER BY id", "WHERE name < 'b' ORDER BY id", "WHERE name >= \"Odd name\" ORDER BY id",
		"WHERE 1 = 1 ORDER BY id LIMIT 2", "WHERE 'a' = 'b'", "WHERE NULL IS NULL ORDER BY 1", "WHERE n = NULL", "ORDER BY id LIMIT 2 OFFSET 3", "ORDER BY id OFFSET 7 ROWS", "ORDER BY id OFFSET 3 LIMIT 2",
		"ORDER BY id LIMIT ALL", "LIMIT 0", "ORDER BY id OFFSET 99", "ORDER BY 3, 1", "WHERE n=3 OR n=12 AND name='app' ORDER BY id", "WHERE (n=3 OR n=12) AND name='app' ORDER BY id",
		"WHERE n!=3 AND NOT NOT n<>12 ORDER BY id", "WHERE big > 9223372036854775807", "WHERE big < 99999999999999999999999 ORDER BY id",
		// Errors.
		"WHERE nothing = 1", "ORDER BY nothing", "WHERE name = 5", "WHERE n = 'x'", "WHERE n = name", "WHERE n LIKE '1%'", "ORDER BY 6", "LIMIT -1", "OFFSET -1", `WHERE name LIKE 'a\'`,
		"WHERE", "WHERE n =", "WHERE n = 1 2", "WHERE (n = 1", "WHERE n = 1)", "WHERE n IN ()", "WHERE n IN 1", "WHERE n BETWEEN 1", "WHERE n IS 5", "ORDER n", "ORDER BY", "ORDER BY n,",
		"ORDER BY id ASC DESC", "ORDER BY id NULLS", "LIMIT", "LIMIT 1 LIMIT 2", "LIMIT 1 WHERE n = 1", "WHERE and = 1", "WHERE n = 1 AND", "WHERE NOT", "WHERE n NOT 5", `WHERE "NAME" = 'app'`,
	} {
		compare(behind)
	}
	g := rand.New(rand.NewPCG(1, 2))
	for range 1500 {
		behind := "WHERE " + randomCondition(g, 3)
		if g.IntN(2) == 0 {
			behind += " ORDER BY " + []string{"n", "name", "big", `"Odd name"`}[g.IntN(4)] + []string{"", " ASC", " DESC"}[g.IntN(3)] + []string{"", " NULLS FIRST", " NULLS LAST"}[g.IntN(3)] + ", id"
		} else {
			behind += " ORDER BY id"
		}
		if g.IntN(3) == 0 {
			behind += fmt.Sprintf(" LIMIT %d OFFSET %d", g.IntN(5), g.IntN(4))
		}
		compare(behind)
		if t.Failed() {
			return
		}
	}
}

func randomCondition(g *rand.Rand, depth int) string {
	pick := func(of ...string) string { return of[g.IntN(len(of))] }
	if depth > 0 && g.IntN(3) > 0 {
		left, right := randomCondition(g, depth-1), randomCondition(g, depth-1)
		return pick("("+left+") AND ("+right+")", "("+left+") OR ("+right+")", "NOT ("+left+")", left+" AND "+right, left+" OR "+right)
	}
	number := func() string { return pick("n", "big", "id", "3", "-1", "12", "7", "0.5", "'3'", "NULL") }
	text := func() string {
		return pick("name", `"Odd name"`, "'app'", "'a'", "'x'", "''", "'ä'", "NULL")
	}
	column := pick("n", "big", "id")
	switch g.IntN(7) {
	case 0, 1:
		return column + " " + pick("=", "<>", "<", "<=", ">", ">=", "!=") + " " + number()
	case 2:
		return pick("name", `"Odd name"`) + " " + pick("=", "<>", "<", "<=", ">", ">=") + " " + text()
	case 3:
		return column + pick("", " NOT") + " IN (" + number() + ", " + number() + ")"
	case 4:
		return column + pick("", " NOT") + " BETWEEN " + number() + " AND " + number()
	case 5:
		return pick("name", `"Odd name"`) + pick(" LIKE ", " NOT LIKE ", " ILIKE ", " NOT ILIKE ") + pick("'a%'", "'%p'", "'_p%'", `'%\%%'`, "'%A%b%'", "'%'", "''", "NULL", `'%\_%'`)
	}
	return pick("name", column) + pick(" IS NULL", " IS NOT NULL")
}

// TestSelectionLimits: what nests too deep is refused, and what is long is not.
func TestSelectionLimits(t *testing.T) {
	columns, rows := selectionTable()
	if _, state := chosen(t, columns, rows, "WHERE "+strings.Repeat("(", 100)+"n = 1"+strings.Repeat(")", 100)); state != "54001" {
		t.Error(state)
	}
	if _, state := chosen(t, columns, rows, "WHERE "+strings.Repeat("NOT ", 100)+"n = 1"); state != "54001" {
		t.Error(state)
	}
	ids, state := chosen(t, columns, rows, "WHERE n IN (3"+strings.Repeat(",3", 5000)+") OR n = 12"+strings.Repeat(" OR n = 12", 1500))
	if state != "" || len(ids) != 4 {
		t.Error(ids, state)
	}
	if _, state := chosen(t, columns, rows, "WHERE name LIKE name"); state != "0A000" {
		t.Error(state)
	}
}

// TestSelectionsOnTheConsole: they work on every SHOW with a table, in both protocols; an unknown column fails at Parse.
func TestSelectionsOnTheConsole(t *testing.T) {
	s := newSite(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
		c := connect(t, s, "ops", mode)
		for _, v := range views() {
			first := `"` + v.columns[0].name + `"`
			if _, err := c.Exec(t.Context(), "SHOW "+v.name+" WHERE "+first+" IS NOT NULL ORDER BY 1 LIMIT 3 OFFSET 0"); err != nil {
				t.Errorf("SHOW %s: %v", v.name, err)
			}
			if _, err := c.Exec(t.Context(), "SHOW "+v.name+" WHERE nothing = 1"); code(err) != "42703" {
				t.Errorf("SHOW %s: %v", v.name, err)
			}
		}
		var user string
		var wait int32
		err := c.QueryRow(t.Context(), "SHOW CLIENTS WHERE database = 'shop' AND wait > 1 ORDER BY wait DESC LIMIT 1").
			Scan(nil, &user, nil, nil, nil, nil, nil, nil, nil, nil, nil, &wait, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil)
		if err != nil || wait != 9 {
			t.Error(user, wait, err)
		}
		for sql, want := range map[string]string{"SHOW HELP LIMIT 1": "42601", "SHOW TimeZone LIMIT 0": "", "SHOW timezone WHERE \"TimeZone\" = 'x'": "", "PAUSE shop LIMIT 1": "42601"} {
			if _, err := c.Exec(t.Context(), sql); code(err) != want {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
}
