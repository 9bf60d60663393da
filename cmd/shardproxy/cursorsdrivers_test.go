package main

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestCursorsOfPgx has pgx read cursors over several shards in all of its modes, in the formats that each of them asks for.
func TestCursorsOfPgx(t *testing.T) {
	t.Parallel()
	s := startScattered(t, 2, 1000)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		cfg := s.connect().Config().Copy()
		cfg.DefaultQueryExecMode = mode
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, way := range []string{"NO SCROLL", "SCROLL", ""} {
			for range 2 { // with what is prepared by then
				must(t, c, "BEGIN")
				if _, err := c.Exec(t.Context(), "DECLARE c "+way+" CURSOR FOR SELECT id FROM wide WHERE id < $1 ORDER BY id", 1700); mode != pgx.QueryExecModeCacheDescribe && err != nil {
					t.Fatal(mode, err)
				}
				var all []int64
				for {
					rows := ints(t, c, "FETCH 333 FROM c")
					if all = append(all, rows...); len(rows) == 0 {
						break
					}
				}
				for i, v := range all {
					if v != int64(i) {
						t.Fatalf("%v, %s: row %d is %d", mode, way, i, v)
					}
				}
				if len(all) != 1700 {
					t.Errorf("%v, %s: %d rows", mode, way, len(all))
				}
				must(t, c, "CLOSE c")
				must(t, c, "COMMIT")
			}
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	s.free(t, "all modes")
}
