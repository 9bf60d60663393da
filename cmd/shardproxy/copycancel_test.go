package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
)

// endless is data that come until stop is closed, and say when they begin to.
type endless struct {
	begun chan<- struct{}
	stop  <-chan struct{}
	n     int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n++; e.n == 1 {
		return copy(p, "1\t1\tx\n2\t1\tx\n3\t1\tx\n"), nil
	}
	if e.n == 2 {
		close(e.begun)
	}
	<-e.stop
	return 0, errors.New("no more")
}

// TestCopyCancelLate cancels a COPY whose servers are told of it late, when it has ended. What the
// client does then on the same connections is not hit.
func TestCopyCancelLate(t *testing.T) {
	var fronts []*faultproxy.Proxy
	s := startShardsBehind(t, 2, pgtest.Options{}, func(addr string) string {
		fronts = append(fronts, faultproxy.Start(t, faultproxy.Options{Target: addr}))
		return fronts[len(fronts)-1].Addr()
	}, copiedTables)
	c := s.connectLoaded()
	must(t, c, `CREATE TABLE entries (account_id int, id int, note text, PRIMARY KEY (account_id, id))`)
	must(t, c, "BEGIN")
	must(t, c, "SAVEPOINT a")
	for _, fp := range fronts {
		hold := fp.On(faultproxy.Rule{From: faultproxy.FromClient, Kind: faultproxy.CancelRequest, Do: faultproxy.Hold()})
		go func() {
			<-hold.Fired()
			<-time.After(700 * time.Millisecond)
			hold.Release()
		}()
	}
	begun, stop := make(chan struct{}), make(chan struct{})
	go func() {
		<-begun
		eventually(t, "both shards wait for data", func() bool {
			return fmt.Sprint(s.onEach("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%'")) == "[1 1]"
		})
		_ = c.PgConn().CancelRequest(within(t, 10*time.Second))
		<-time.After(300 * time.Millisecond)
		close(stop)
	}()
	_, err := c.PgConn().CopyFrom(within(t, 20*time.Second), &endless{begun: begun, stop: stop}, "COPY entries FROM STDIN")
	if sqlState(err) != "57014" || strings.Contains(err.Error(), "no more") {
		t.Fatal(err)
	}
	must(t, c, "ROLLBACK TO a")
	for _, k := range []int{1, 2, 3} {
		must(t, c, "SELECT pg_sleep(0.4) FROM (SELECT count(*) FROM entries WHERE account_id = $1) c", k)
	}
	must(t, c, "COMMIT")
}
