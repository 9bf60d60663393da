package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

// copiers load rows into the lists of a stage by COPY, and read them by COPY, while the bank works beside them.
type copiers struct {
	t    *testing.T
	s    *txStage
	rows atomic.Int64 // that are there, by what was acknowledged
	read atomic.Int64 // answers
	mu   sync.Mutex
	// failed counts what failed, by SQLSTATE and text.
	failed map[string]int
}

// copiersFrom is the first key that copiers use, and copiersEach how many one of them has.
const copiersFrom, copiersEach = 1_000_000_000, 100_000_000

// copiersMost is how many rows a client has before it deletes them all.
const copiersMost = 2000

// begin has two clients at work, one through each proxy, until stop is called.
func (l *copiers) begin() (stop func()) {
	l.failed = map[string]int{}
	ctx, cancel := context.WithCancel(l.t.Context())
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			c := &txClient{t: l.t, dsn: l.s.dsn(i), id: i, set: []string{"SET lock_timeout = '10s'"}}
			defer c.drop()
			r := rand.New(rand.NewPCG(uint64(testNumber(l.t, "SHARDPROXY_TEST_SEED", 1)), uint64(5000+i)))
			for own := int64(0); c.connected(ctx); {
				n := int64(1 + r.IntN(80))
				if l.load(c, r, i, own, n) {
					own += n
					l.rows.Add(n)
				}
				l.reads(c, i, own)
				if own >= copiersMost && l.deletes(c, i, own) {
					l.rows.Add(-own)
					own = 0
				}
			}
		})
	}
	stop = func() {
		cancel()
		all.Wait()
	}
	l.t.Cleanup(stop)
	return stop
}

// load copies n rows in, in one of the ways in which that is done.
func (l *copiers) load(c *txClient, r *rand.Rand, client int, own, n int64) bool {
	first := int64(copiersFrom+client*copiersEach) + own
	ctx, cancel := context.WithTimeout(context.Background(), txBound)
	defer cancel()
	copies := func() (err error) {
		if r.IntN(2) == 0 {
			var got int64
			rows := make([][]any, n)
			for i := range rows {
				rows[i] = []any{first + int64(i), []int64{7}}
			}
			got, err = c.conn.CopyFrom(ctx, pgx.Identifier{"lists"}, []string{"k", "vals"}, pgx.CopyFromRows(rows))
			if err == nil && got != n {
				l.t.Errorf("%d rows were copied of %d", got, n)
			}
			return err
		}
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "%d\t{7}\n", first+i)
		}
		tag, err := c.conn.PgConn().CopyFrom(ctx, strings.NewReader(text.String()), "COPY lists (k, vals) FROM STDIN")
		if err == nil && tag.RowsAffected() != n {
			l.t.Errorf("%v for %d rows", tag, n)
		}
		return err
	}
	var err error
	if r.IntN(3) > 0 {
		err = copies()
	} else {
		_, err = c.transaction("", func() error {
			if _, _, err := c.query("SELECT v FROM rates WHERE id = $1", client); err != nil {
				return err
			}
			return copies()
		})
	}
	if ctx.Err() != nil {
		l.t.Error("a COPY hangs")
	}
	if err != nil {
		l.fail("load", err)
	}
	return err == nil
}

// reads reads what the client has loaded, which is all there.
func (l *copiers) reads(c *txClient, client int, own int64) {
	ctx, cancel := context.WithTimeout(context.Background(), txBound)
	defer cancel()
	from := copiersFrom + client*copiersEach
	var out bytes.Buffer
	_, err := c.conn.PgConn().CopyTo(ctx, &out, fmt.Sprintf("COPY (SELECT k FROM lists WHERE k >= %d AND k < %d) TO STDOUT", from, from+copiersEach))
	if err != nil {
		l.fail("read", err)
		return
	}
	seen := map[string]bool{}
	for line := range strings.Lines(out.String()) {
		if seen[line] {
			l.t.Error("a row is there twice: ", line)
		}
		seen[line] = true
	}
	if int64(len(seen)) != own {
		l.t.Errorf("client %d has loaded %d rows and reads %d", client, own, len(seen))
	}
	l.read.Add(1)
}

// deletes deletes all that the client has loaded.
func (l *copiers) deletes(c *txClient, client int, own int64) bool {
	from := copiersFrom + client*copiersEach
	_, tag, err := c.query("DELETE FROM lists WHERE k >= $1 AND k < $2", from, from+copiersEach)
	if err != nil {
		l.fail("delete", err)
	} else if tag != fmt.Sprint("DELETE ", own) {
		l.t.Errorf("client %d has %d rows, and %s", client, own, tag)
	}
	return err == nil
}

func (l *copiers) fail(what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed[what+" "+sqlState(err)+" "+err.Error()]++
}

// judge compares what the shards have with what was acknowledged.
func (l *copiers) judge() {
	l.t.Helper()
	l.t.Logf("%d rows are there that were copied in, %d answers were copied out; failed: %v", l.rows.Load(), l.read.Load(), l.failed)
	if len(l.failed) > 0 {
		l.t.Error("a COPY failed")
	}
	there := int64(0)
	for _, cl := range l.s.shards {
		var n int64
		_, _ = fmt.Sscan(cl.Primary().Value("app", fmt.Sprintf("SELECT CASE WHEN to_regclass('public.lists') IS NULL THEN 0 ELSE (SELECT count(*) FROM lists WHERE k >= %d) END", copiersFrom)), &n)
		there += n
	}
	if there != l.rows.Load() {
		l.t.Errorf("%d rows are there of %d", there, l.rows.Load())
	}
}
