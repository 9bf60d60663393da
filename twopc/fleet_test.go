package twopc

import "testing"

// TestTwoShards and TestThreeShards run what needs no servers of its own on
// databases of one server: making them is most of what such a test costs.
func TestTwoShards(t *testing.T) {
	f := newFleet(t, 2)
	f.each(t, map[string]func(*testing.T, *fleet){
		"context ends": testContextEnds, "durable": testDurable, "local role": testLocalRole, "late coordinator": testLateCoordinator,
		"forged": testForged, "strangers": testStrangers, "wrong servers": testWrongServers, "sweep": testSweep, "life": testLife,
		"close while a shard hangs": testCloseWhileAShardHangs, "cut while listing": testCutWhileListing,
	})
}

func TestThreeShards(t *testing.T) {
	f := newFleet(t, 3)
	f.each(t, map[string]func(*testing.T, *fleet){
		"commit": testCommit, "refused": testRefused, "late prepare": testLatePrepare, "decider away": testDeciderAway,
		"stress": testStress, "checkers": testCheckers,
	})
}

// each runs tests one after the other, each on empty tables.
func (f *fleet) each(t *testing.T, tests map[string]func(*testing.T, *fleet)) {
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			one := &fleet{t: t, cluster: f.cluster, shards: f.shards}
			t.Cleanup(func() {
				one.close()
				for i := range one.shards {
					one.clear(i)
					one.do(i, "TRUNCATE t, shardproxy.commits; DROP FUNCTION IF EXISTS look CASCADE")
				}
			})
			test(t, one)
		})
	}
}

// clear rolls back what a test that failed has left prepared: it would hold its locks for good.
func (f *fleet) clear(shard int) {
	s := f.shards[shard]
	for _, row := range s.node.Rows(s.database, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()") {
		f.rollBackPrepared(shard, row[0])
	}
}
