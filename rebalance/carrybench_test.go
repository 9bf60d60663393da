package rebalance

import (
	"context"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// BenchmarkCarry measures rows a second of a copy, beside psql's COPY to COPY of the same rows, and of following.
func BenchmarkCarry(b *testing.B) {
	p := newCarryPair(b, "CREATE TABLE t (tenant bigint, id bigint, v int, at timestamptz DEFAULT now(), note text, PRIMARY KEY (tenant, id))", map[string][]string{"t": {"tenant"}}, everySecondSlot()...)
	const rows = 1_000_000
	p.source.Exec("app", fmt.Sprintf("INSERT INTO t SELECT g %% 1000, g, g, now(), 'a note of some length ' || g FROM generate_series(1, %d) g; ANALYZE t", rows))
	p.source.Exec("app", "CHECKPOINT")
	where := p.slots.HasSQL(p.tables[0].SlotSQL(""))
	for b.Loop() {
		c := p.carry("bench")
		for _, workers := range []int{1, 2, 4} {
			s, err := c.Prepare(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			before, begin := c.Counts().CopiedRows, time.Now()
			if err := c.Copy(b.Context(), s, workers); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(c.Counts().CopiedRows-before)/time.Since(begin).Seconds(), fmt.Sprintf("copy%d-rows/s", workers))
			s.Close()
			if workers < 4 {
				p.emptied(b, c)
			}
		}
		o := Origin{}
		if err := c.Clean(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := c.ClearTarget(b.Context()); err != nil {
			b.Fatal(err)
		}
		o = p.copied(c)
		n := c.Counts().Changes
		p.source.Exec("app", "UPDATE t SET v = v + 1 WHERE id <= 300000")
		begin := time.Now()
		stop := p.follow(c, o)
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		end, err := c.SourceEnd(ctx, pgtest.Connect(b, p.source.DSN("app", "postgres")))
		if err == nil {
			err = c.WaitFor(ctx, end)
		}
		cancel()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(c.Counts().Changes-n)/time.Since(begin).Seconds(), "update-rows/s")
		p.source.Exec("app", "INSERT INTO t SELECT tenant, id + 10000000, v, at, note FROM t WHERE id <= 300000")
		n = c.Counts().Changes
		begin = time.Now()
		p.catchUp(c)
		b.ReportMetric(float64(c.Counts().Changes-n)/time.Since(begin).Seconds(), "insert-rows/s")
		if err := stop(); err != nil {
			b.Fatal(err)
		}
		p.emptied(b, c)
		begin = time.Now()
		pipe := fmt.Sprintf(`psql -XqAt "%s" -c "COPY (SELECT * FROM t WHERE %s AND id <= %d) TO STDOUT (FORMAT binary)" | psql -Xq "%s" -c "COPY t FROM STDIN (FORMAT binary)"`,
			p.source.DSN("app", "postgres"), where, rows, p.target.DSN("app", "postgres"))
		if out, err := exec.Command("sh", "-c", pipe).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		took := time.Since(begin)
		b.ReportMetric(float64(len(p.rows(p.target, p.tables[0], true)))/took.Seconds(), "psql-rows/s")
	}
}

// emptied ends a move and makes the target's table as good as new.
func (p *carryPair) emptied(b *testing.B, c *Carry) {
	b.Helper()
	if err := c.Clean(b.Context()); err != nil {
		b.Fatal(err)
	}
	p.target.Exec("app", "TRUNCATE t; DELETE FROM shardproxy.move_progress")
	p.target.Exec("app", "CHECKPOINT")
}
