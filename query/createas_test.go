package query

import "testing"

// TestReadCreateAs takes the texts that make tables of queries apart.
func TestReadCreateAs(t *testing.T) {
	const no = "\nWITH NO DATA"
	for _, test := range []struct {
		sql  string
		want CreateAs
	}{
		{"CREATE TABLE x AS SELECT 1", CreateAs{Create: "CREATE TABLE x AS SELECT 1" + no, Query: "SELECT 1", Table: "x", Name: "x"}},
		{"CREATE UNLOGGED TABLE s.\"X y\" (a, \"as\") WITH (fillfactor = 70) AS (SELECT 1, 2 AS data) WITH DATA;",
			CreateAs{Create: "CREATE UNLOGGED TABLE s.\"X y\" (a, \"as\") WITH (fillfactor = 70) AS (SELECT 1, 2 AS data)" + no,
				Query: "(SELECT 1, 2 AS data)", Table: "s.\"X y\"", Schema: "s", Name: "X y"}},
		{"create table if not exists x as /* c */ table t with no data -- d",
			CreateAs{Create: "create table x as /* c */ table t" + no, Skip: "create table if not exists x as /* c */ table t" + no,
				Query: "table t", NoData: true, Table: "x", Name: "x"}},
		{"SELECT a INTO x FROM t WHERE b = 'into y' -- c",
			CreateAs{Create: "CREATE TABLE x AS SELECT a  FROM t WHERE b = 'into y'" + no, Query: "SELECT a  FROM t WHERE b = 'into y'", Table: "x", Name: "x"}},
		{"WITH q AS (SELECT 1 AS into_) SELECT into_, 2 INTO UNLOGGED TABLE s.x FROM q UNION SELECT 3, 4 ORDER BY 1",
			CreateAs{Create: "CREATE UNLOGGED TABLE s.x AS WITH q AS (SELECT 1 AS into_) SELECT into_, 2  FROM q UNION SELECT 3, 4 ORDER BY 1" + no,
				Query: "WITH q AS (SELECT 1 AS into_) SELECT into_, 2  FROM q UNION SELECT 3, 4 ORDER BY 1", Table: "s.x", Schema: "s", Name: "x"}},
	} {
		got, ok := ReadCreateAs(test.sql, Options{})
		if !ok || *got != test.want {
			t.Errorf("%s:\n%+v", test.sql, got)
		}
	}
	for _, sql := range []string{
		"SELECT 1", "CREATE TABLE x (a int)", "CREATE MATERIALIZED VIEW x AS SELECT 1", "CREATE TABLE x AS EXECUTE p",
		"CREATE TABLE x AS SELECT 1; SELECT 1", "CREATE VIEW x AS SELECT 1", "SELECT 1 INTO LOCAL TEMPORARY TABLE x",
	} {
		if got, ok := ReadCreateAs(sql, Options{}); ok {
			t.Errorf("%s: %+v", sql, got)
		}
	}
}
