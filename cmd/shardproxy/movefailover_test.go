package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestMoveSourceFailsOver has the source of a move fail over while its changes are followed: the replication slot is gone with it, the rows are copied
// anew from who is the primary now, and the move comes to its end.
func TestMoveSourceFailsOver(t *testing.T) {
	t.Parallel()
	settings := map[string]string{"max_prepared_transactions": "100", "wal_level": "logical"}
	home, source := pgtest.Start(t, pgtest.Options{Settings: settings}), pgtest.Start(t, pgtest.Options{Settings: settings, Replicas: 1})
	for _, cl := range []*pgtest.Cluster{home, source} {
		must(t, pgtest.Connect(t, cl.Primary().DSN("app", "app")), txStageSchema)
	}
	heir := source.Replicas()[0]
	nodes := fmt.Sprintf("      - {name: s0, nodes: [%q]}\n      - {name: s1, nodes: [%q, %q]}\n", home.Primary().Addr(), source.Primary().Addr(), heir.Addr())
	s := &txStage{t: t, made: 2, shards: []*pgtest.Cluster{home, source}}
	for i := range s.proxies {
		s.proxies[i] = newProcess(t, "app", nil, strings.Replace(txStageText, "%NODES%\n", nodes, 1))
		s.proxies[i].server = home.Primary()
	}
	if o := call(t, "", "init", "-c", s.proxies[0].path); o.code != 0 {
		t.Fatalf("init: %+v", o)
	}
	s.serve()
	conn := s.proxies[0].connect()
	must(t, conn, "INSERT INTO accounts SELECT n, 1 FROM generate_series(1, 20000) n")
	value := func(sql string) string { return home.Primary().Value("app", sql) }
	s.rebalance(t, "start", "--slots", s.slotsOf(t, 1, 2), "--to", "s0", "--step-slots", "4096")
	eventually(t, "changes are followed", func() bool {
		return value("SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'following')") == "t"
	})
	s.rebalance(t, "pause")
	source.CatchUp()
	source.Primary().Kill9()
	heir.Promote()
	eventually(t, "the heir is written on", func() bool {
		_, err := s.proxies[0].connect().Exec(within(t, 10*time.Second), "UPDATE accounts SET balance = balance + 1")
		return err == nil
	})
	phase := value("SELECT phase FROM shardproxy.moves")
	if phase != "following" && phase != "copying" {
		t.Error("the move was in the phase", phase, "when its source failed over: it did not have to be copied anew")
	}
	s.rebalance(t, "resume")
	soon(t, time.Minute, "the move has ended", func() bool { return value("SELECT phase FROM shardproxy.moves") == "done" })
	t.Logf("%s when the source failed over; %s", phase, s.rebalance(t, "history"))
	if left := heir.Value("app", "SELECT count(*) FROM pg_replication_slots") + heir.Value("app", "SELECT count(*) FROM shardproxy.fences") +
		heir.Value("app", "SELECT count(*) FROM accounts WHERE (hashint8extended(id, 0) & 4095)::int IN ("+value("SELECT array_to_string(slots, ',') FROM shardproxy.moves")+")"); left != "000" {
		t.Error("of slots, fences and rows are left on the heir:", left)
	}
	var n, sum int64
	if err := s.proxies[1].connect().QueryRow(t.Context(), "SELECT count(*), sum(balance) FROM accounts").Scan(&n, &sum); err != nil || n != 20000 || sum != 40000 {
		t.Error(n, sum, err)
	}
}
