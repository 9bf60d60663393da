package main

import (
	"fmt"
	"testing"
	"time"
)

// TestScatterLocks locks rows of several shards.
func TestScatterLocks(t *testing.T) {
	s := startShards(t, 2)
	c, other := s.connectLoaded(), s.connect()
	for i := range 20 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
	}
	must(t, c, "BEGIN")
	if got := ints(t, c, "SELECT id FROM customers WHERE name = $1 AND id < 10 ORDER BY id DESC FOR UPDATE", "x"); len(got) != 10 || got[0] != 9 || got[9] != 0 {
		t.Error(got)
	}
	for id := range 20 {
		must(t, other, "BEGIN")
		if id < 10 {
			fails(t, other, fmt.Sprintf("SELECT * FROM customers WHERE id = %d FOR SHARE NOWAIT", id), "55P03")
		} else {
			must(t, other, "SELECT * FROM customers WHERE id = $1 FOR SHARE NOWAIT", id)
		}
		must(t, other, "ROLLBACK")
	}
	if got := ints(t, other, "SELECT id FROM customers ORDER BY id FOR NO KEY UPDATE SKIP LOCKED"); len(got) != 10 || got[0] != 10 {
		t.Error(got)
	}
	fails(t, other, "SELECT id FROM customers FOR KEY SHARE NOWAIT", "55P03")
	done := make(chan int)
	go func() { done <- len(ints(t, other, "SELECT id FROM customers FOR UPDATE")) }()
	select {
	case <-done:
		t.Error("locked rows were locked by another")
	case <-time.After(200 * time.Millisecond):
	}
	must(t, c, "DELETE FROM customers WHERE id = 1")
	must(t, c, "COMMIT")
	if n := <-done; n != 19 {
		t.Error(n, "rows once they are free")
	}
	fails(t, c, "SELECT id FROM customers ORDER BY id LIMIT 3 FOR UPDATE", "0A000")
	fails(t, c, "SELECT a.id FROM customers a JOIN customers b ON a.name = b.name FOR UPDATE", "0A000")
	fails(t, c, "SELECT id FROM customers ORDER BY name FOR UPDATE", "0A000") // which only a server can order
	must(t, c, "BEGIN READ ONLY")
	fails(t, c, "SELECT id FROM customers FOR UPDATE", "25006")
	must(t, c, "ROLLBACK")
}
