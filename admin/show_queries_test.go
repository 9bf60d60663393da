package admin

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
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
