package catalog

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestLargeSchema loads many tables of 20 columns, with keys, defaults, indexes and
// views, and tells time and memory. SHARDPROXY_TEST_TABLES=5000 makes it so many.
func TestLargeSchema(t *testing.T) {
	tables := 100
	if s := os.Getenv("SHARDPROXY_TEST_TABLES"); s != "" {
		var err error
		if tables, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	conn := connect(t, pgtest.Shared(t).DSN("postgres"))
	columns := ""
	for i := range 16 {
		columns += fmt.Sprintf(", column_%d %s", i, []string{"int DEFAULT 0", "text NOT NULL", "timestamptz DEFAULT now()", "numeric(10,2)"}[i%4])
	}
	for from := 0; from < tables; from += 200 { // each statement holds its locks
		_, err := conn.Exec(t.Context(), fmt.Sprintf(`DO $do$ BEGIN FOR i IN %d..%d LOOP
			EXECUTE format('CREATE TABLE table_%%s (tenant_id bigint, id bigserial, name varchar(100), at date %s, PRIMARY KEY (tenant_id, id))', i);
			EXECUTE format('CREATE INDEX ON table_%%s (tenant_id, at)', i);
			IF i %% 10 = 1 THEN EXECUTE format('CREATE VIEW view_%%s AS SELECT * FROM table_%%s WHERE at > ''2020-01-01''', i, i); END IF;
			END LOOP; END $do$`, from, min(from+200, tables)-1, columns))
		if err != nil {
			t.Fatal(err)
		}
	}
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, start := memory(), time.Now()
	c := reload(t, conn)
	took := time.Since(start)
	used := memory() - before
	start = time.Now()
	if _, err := tablesFingerprint(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d relations: loaded in %v, %d KiB; checked in %v", len(c.Tables()), took, used/1024, time.Since(start))
	if table, r := c.Table("public", fmt.Sprintf("table_%d", tables-1), Path{}); r != Resolved || len(table.Columns) != 20 || len(table.Indexes) != 2 {
		t.Errorf("the last table: %s %+v", r, table)
	}
	const perTable = 16 << 10
	if limit := uint64(8<<20 + tables*perTable); used > limit {
		t.Errorf("%d bytes for %d tables, more than %d", used, tables, limit)
	}
	runtime.KeepAlive(c)
}
