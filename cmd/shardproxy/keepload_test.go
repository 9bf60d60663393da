package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// keepBank is accounts whose rows count how often they were written.
type keepBank struct {
	t    *testing.T
	s    *shardedProgram
	told [40]atomic.Int64 // the version of an account that some client knows to be there
	// read and written count.
	read, written atomic.Int64
}

// TestKeepUnderLoad has many write and read at once, what is read being kept: nobody reads what was there before a write that somebody was told of, in any query,
// and totals are those of one moment. SHARDPROXY_TEST_SOAK is for how many seconds, 3 else.
func TestKeepUnderLoad(t *testing.T) {
	t.Parallel()
	seconds, _ := strconv.Atoi(os.Getenv("SHARDPROXY_TEST_SOAK"))
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "      accounts: {key: id}\n    cache: {size: 256KiB, tables: {public.accounts: 1h, public.parts: 1h}}\n", "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "CREATE TABLE accounts (id bigint PRIMARY KEY, version bigint NOT NULL, balance bigint NOT NULL)")
			b := &keepBank{t: t, s: s}
			must(t, c, fmt.Sprintf("INSERT INTO accounts SELECT n, 0, 100 FROM generate_series(0, %d) n", len(b.told)-1))
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(max(seconds, 3))*time.Second)
			defer cancel()
			var group sync.WaitGroup
			for n := range 10 {
				conn := s.connect()
				r := rand.New(rand.NewPCG(uint64(n), 7))
				group.Go(func() {
					for ctx.Err() == nil && !t.Failed() {
						if n < 2 {
							b.writes(conn, r)
							<-time.After(time.Duration(r.IntN(20)) * time.Millisecond)
						} else {
							b.reads(conn, r)
						}
					}
				})
			}
			group.Wait()
			console, _ := s.consoleOf()
			k := shownBy(t, console, "SHOW CACHE")[0]
			t.Logf("%d written, %d read: %v", b.written.Load(), b.read.Load(), k)
			for _, some := range []string{"hits", "stored", "stale", "invalidated", "waits"} {
				if k[some] == "0" && some != "waits" {
					t.Errorf("none of %s", some)
				}
			}
		})
	}
}

// writes changes one account, two, or all of them.
func (b *keepBank) writes(c *pgx.Conn, r *rand.Rand) {
	ctx := within(b.t, 20*time.Second)
	one, two := r.IntN(len(b.told)), r.IntN(len(b.told))
	var ids []int
	var version [len(b.told)]int64
	scan := func(rows pgx.Rows, err error) error {
		if err != nil {
			return err
		}
		for rows.Next() {
			var id int
			var v int64
			if err := rows.Scan(&id, &v); err != nil {
				return err
			}
			ids, version[id] = append(ids, id), v
		}
		return rows.Err()
	}
	var err error
	switch r.IntN(5) {
	case 0:
		err = scan(c.Query(ctx, "UPDATE accounts SET version = version + 1 WHERE id = $1 RETURNING id, version", one))
	case 1:
		err = scan(c.Query(ctx, "UPDATE accounts SET version = version + 1 RETURNING id, version"))
	case 2:
		_, err = c.Exec(ctx, "BEGIN; UPDATE accounts SET version = version + 1, balance = balance - 1000 WHERE id = "+strconv.Itoa(one)+"; ROLLBACK", pgx.QueryExecModeSimpleProtocol)
	default:
		err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if err := scan(tx.Query(ctx, "UPDATE accounts SET version = version + 1, balance = balance - 7 WHERE id = $1 RETURNING id, version", one)); err != nil {
				return err
			}
			return scan(tx.Query(ctx, "UPDATE accounts SET version = version + 1, balance = balance + 7 WHERE id = $1 RETURNING id, version", two))
		})
	}
	switch code := sqlState(err); {
	case err == nil:
	case code == "40P01" || code == "40001":
		return // they are in each other's way
	default:
		b.t.Errorf("write: %v", err)
		return
	}
	for _, id := range ids {
		for v := b.told[id].Load(); v < version[id] && !b.told[id].CompareAndSwap(v, version[id]); v = b.told[id].Load() {
		}
	}
	b.written.Add(1)
}

// reads asks for an account, or all, in some protocol.
func (b *keepBank) reads(c *pgx.Conn, r *rand.Rand) {
	ctx := within(b.t, 20*time.Second)
	mode := keepModes[r.IntN(4)]
	id := r.IntN(len(b.told))
	var least [len(b.told)]int64
	for i := range least {
		least[i] = b.told[i].Load()
	}
	var rows pgx.Rows
	var err error
	var id2 int
	var version, total int64
	b.read.Add(1)
	switch r.IntN(4) {
	case 0:
		if err = c.QueryRow(ctx, "SELECT sum(balance)::bigint, max(version) FROM accounts", mode).Scan(&total, &version); err == nil && total != int64(100*len(b.told)) {
			b.t.Errorf("the total is %d", total)
		}
	case 1:
		rows, err = c.Query(ctx, "SELECT id, version FROM accounts ORDER BY id", mode)
	default:
		rows, err = c.Query(ctx, "SELECT id, version FROM accounts WHERE id = $1", mode, id)
	}
	if rows != nil {
		for rows.Next() {
			if err := rows.Scan(&id2, &version); err != nil {
				b.t.Error(err)
			}
			if version < least[id2] {
				b.t.Errorf("account %d is read at version %d, %d was known before", id2, version, least[id2])
			}
		}
		err = rows.Err()
	}
	if err != nil {
		b.t.Errorf("read: %v", err)
	}
}
