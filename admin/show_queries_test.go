package admin

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/tally"
)

// TestShowStatements: what QUERIES, PLANS and ERRORS show, in which order, and what is NULL.
func TestShowStatements(t *testing.T) {
	s := newSite(t)
	c := connect(t, s, "ops", pgx.QueryExecModeSimpleProtocol)
	for sql, want := range map[string]string{
		"SHOW QUERIES": "shop|0000000000000abc|80|0|0|0|80|900|160000|10|2000|1000|9000|2000|8000|9000|20|25|40|s0=60|select $1\n" +
			"shop|-|3|2|1|4|0|0|-|0|-|-|-|-|-|-|0|0|0|-|-\n",
		"SHOW HOT":    "shop|7|s1|30|4|50\nshop|4000|s0|1|0|1\n",
		"SHOW PLANS":  "shop|-|keyed|-|1|0|1|5|900|a|-|-\nshop|0000000000000001|refused|no_key|0|0|0|1|0|-|-|insert\n",
		"SHOW ERRORS": "shop|53300|proxy|7|" + clockAt().UTC().Format("2006-01-02 15:04:05 MST") + "|too many\nshop|42703|server|2|" + clockAt().UTC().Format("2006-01-02 15:04:05 MST") + "|-\n",
	} {
		result := c.PgConn().ExecParams(t.Context(), sql, nil, nil, nil, nil).Read()
		if result.Err != nil {
			t.Fatal(sql, result.Err)
		}
		var got strings.Builder
		for _, row := range result.Rows {
			for i, v := range row {
				if i > 0 {
					got.WriteByte('|')
				}
				if v == nil {
					v = []byte("-")
				}
				got.Write(v)
			}
			got.WriteByte('\n')
		}
		if got.String() != want {
			t.Errorf("%s\n got %s\nwant %s", sql, got.String(), want)
		}
	}
	admin := connect(t, s, "admin", pgx.QueryExecModeSimpleProtocol)
	if _, err := admin.Exec(t.Context(), "RESET QUERIES IN shop"); err != nil {
		t.Fatal(err)
	}
	if got := s.world.orders(); !strings.Contains(got, "reset queries shop") || strings.Contains(got, "My-Db.2") {
		t.Error(got)
	}
	if _, err := admin.Exec(t.Context(), "RESET QUERIES"); err != nil || !strings.Contains(s.world.orders(), "reset queries My-Db.2") {
		t.Error(err, s.world.orders())
	}
}

// TestStatementsAPI: the figures of the Source are where the contract says, and what is in no order is left out.
func TestStatementsAPI(t *testing.T) {
	w := newWorld()
	all, state := w.databases[0].Statements()
	for i := range 30 {
		all = append(all, tally.Statement{Fingerprint: uint64(i + 1), Calls: int64(i + 1)})
	}
	w.databases[0].Statements = func() ([]tally.Statement, tally.State) { return slices.Clone(all), state }
	_, url := openServer(t, Options{Source: w})
	s := getJSON(t, url+"/api/v1/statements")
	for path, want := range map[string]any{
		"databases.0.name": "shop", "databases.0.fingerprints": 1.0, "databases.0.fingerprints_limit": 1000.0, "databases.0.evictions_total": 7.0, "databases.0.slow_total": 4.0,
		"databases.0.statements.0.fingerprint": "0000000000000abc", "databases.0.statements.0.query": "select $1", "databases.0.statements.0.calls_total": 80.0,
		"databases.0.statements.0.seconds_total": 0.16, "databases.0.statements.0.mean_seconds": 0.002, "databases.0.statements.0.p99_seconds": 0.009,
		"databases.0.statements.0.several_total": 20.0, "databases.0.statements.0.calls_by_shard.s0": 60.0,
		"databases.0.statements.1.calls_total": 30.0, "databases.0.statements.1.mean_seconds": nil, "databases.0.statements.1.calls_by_shard": nil,
		"databases.0.hot_slots.0.slot": 7.0, "databases.0.hot_slots.0.shard": "s1", "databases.0.hot_slots.0.statements_per_second": 4.0,
		"databases.0.errors.0.sqlstate": "53300", "databases.0.errors.0.origin": "proxy", "databases.0.errors.0.message": "too many", "databases.0.errors.1.origin": "server",
		"databases.1.counted_since": nil,
	} {
		wantAt(t, s, path, want)
	}
	// The first ten by calls, and the one of errors.
	if n := len(at(t, s, "databases.0.statements").([]any)); n != 11 {
		t.Errorf("%d statements", n)
	}
	if n := len(at(t, s, "databases.1.statements").([]any)); n != 0 {
		t.Errorf("%d statements of a database that counts none", n)
	}
}
