package query

import "testing"

func TestReplaceMoment(t *testing.T) {
	const at = "('M'::pg_catalog.timestamptz"
	for _, test := range []struct {
		text, want string
		returned   bool
	}{
		{"SELECT now()", "SELECT " + at + ")", false},
		{"SELECT NOW ( /* x */ ) - '1 day'", "SELECT " + at + ") - '1 day'", false},
		{"SELECT pg_catalog.now()::date", "SELECT " + at + ")::date", false},
		{"SELECT pg_catalog . transaction_timestamp()", "SELECT " + at + ")", false},
		{"SELECT mine.now(), a.pg_catalog.now()", "SELECT mine.now(), a.pg_catalog.now()", false},
		{"SELECT now, now(1), \"now\"(), 'now()', $$now()$$ -- now()", "SELECT now, now(1), \"now\"(), 'now()', $$now()$$ -- now()", false},
		{"SELECT CURRENT_TIMESTAMP, current_timestamp(3), Current_Date", "SELECT " + at + "), " + at + "::pg_catalog.timestamptz(3)), " + at + "::pg_catalog.date)", false},
		{"SELECT localtime, localtimestamp(0), current_time (6)", "SELECT " + at + "::pg_catalog.time), " + at + "::pg_catalog.timestamp(0)), " + at + "::pg_catalog.timetz(6))", false},
		{"SELECT 1 AS current_date, t.current_time", "SELECT 1 AS current_date, t.current_time", false},
		{"UPDATE t SET a = now() RETURNING a", "UPDATE t SET a = " + at + ") RETURNING a", false},
		{"UPDATE t SET a = 1 RETURNING now()", "UPDATE t SET a = 1 RETURNING " + at + ")", true},
		{"SELECT 'it''s now()', E'\\' now()', now()", "SELECT 'it''s now()', E'\\' now()', " + at + ")", false},
		{"", "", false},
	} {
		got, found := ReplaceMoment(nil, []byte(test.text), "M")
		if string(got) != test.want || found.Returned != test.returned || HasMoment([]byte(test.text)) != (found.Count > 0) {
			t.Errorf("%s: %s %+v", test.text, got, found)
		}
	}
}
