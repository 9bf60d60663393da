package faultproxy_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/faultproxy"
)

// TestReplace: the server gets another text, the client another row, and the connection
// goes on.
func TestReplace(t *testing.T) {
	f := start(t)
	conn := f.connect()
	f.On(faultproxy.Rule{Kind: 'Q', Text: "'truth'", Do: faultproxy.Replace("'a lie, and a longer one'"), Every: true})
	f.On(faultproxy.Rule{Kind: 'P', Text: "'truth'", Do: faultproxy.Replace("'lie'"), Nth: 2})
	f.On(faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Text: "SELECT 1", Do: faultproxy.Replace("SELECT 77")})
	long := strings.Repeat("x", 1<<20) // more than what rules see
	for i, test := range []struct {
		mode pgx.QueryExecMode
		want string
	}{
		{pgx.QueryExecModeSimpleProtocol, "a lie, and a longer one"}, {pgx.QueryExecModeSimpleProtocol, "a lie, and a longer one"},
		{pgx.QueryExecModeExec, "truth"}, {pgx.QueryExecModeExec, "lie"}, {pgx.QueryExecModeExec, "truth"},
	} {
		var got, back string
		rows, err := conn.Query(soon(t), "SELECT 'truth', $1::text", test.mode, long)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			if err := rows.Scan(&got, &back); err != nil {
				t.Error(err)
			}
		}
		if err := rows.Err(); err != nil || got != test.want || back != long {
			t.Errorf("%d: %q, %v, want %q; %d bytes came back", i, got, err, test.want, len(back))
		}
		if tag := rows.CommandTag().String(); (tag == "SELECT 77") != (i == 0) {
			t.Errorf("%d: %s", i, tag)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a rule without a text is taken")
		}
	}()
	f.On(faultproxy.Rule{Kind: 'Q', Do: faultproxy.Replace("x")})
}
