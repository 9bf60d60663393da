package admin

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"shardproxy/metadata"
)

func TestClusterMetrics(t *testing.T) {
	w := newWorld()
	w.cluster.At = time.UnixMilli(1_700_000_000_500)
	w.cluster.Moves[1].Paused = false
	w.cluster.Moves[0].HeldMs, w.cluster.Moves[1].HeldMs = 900, 250
	w.cluster.Moves[2].Rows = 70
	want := fmt.Sprintf(`
# HELP shardproxy_slot_map_epoch Epoch of the slot map that the proxy works by; 0 while it has none.
# TYPE shardproxy_slot_map_epoch gauge
shardproxy_slot_map_epoch{database="shop"} 12
# HELP shardproxy_slots Slots, by their shard and state: steady, or held while their writes wait.
# TYPE shardproxy_slots gauge
shardproxy_slots{database="shop",shard="s0",state="held"} 20
shardproxy_slots{database="shop",shard="s0",state="steady"} 3976
shardproxy_slots{database="shop",shard="s1",state="held"} 0
shardproxy_slots{database="shop",shard="s1",state="steady"} 100
# HELP shardproxy_moves Moves by phase: those that have not ended, and those of the last 100 that have (done, aborted).
# TYPE shardproxy_moves gauge
shardproxy_moves{database="shop",phase="aborted"} 1
shardproxy_moves{database="shop",phase="aborting"} 0
shardproxy_moves{database="shop",phase="copying"} 0
shardproxy_moves{database="shop",phase="done"} 0
shardproxy_moves{database="shop",phase="flipped"} 0
shardproxy_moves{database="shop",phase="following"} 1
shardproxy_moves{database="shop",phase="hiding"} 0
shardproxy_moves{database="shop",phase="planned"} 1
shardproxy_moves{database="shop",phase="purging"} 0
shardproxy_moves{database="shop",phase="reversing"} 0
# HELP shardproxy_moves_paused Moves that have not ended and are paused.
# TYPE shardproxy_moves_paused gauge
shardproxy_moves_paused{database="shop"} 0
# HELP shardproxy_move_copied_rows Rows that the moves under way have copied.
# TYPE shardproxy_move_copied_rows gauge
shardproxy_move_copied_rows{database="shop"} 4999
# HELP shardproxy_move_left_rows Rows that the moves which have not ended are still to copy, as they were estimated.
# TYPE shardproxy_move_left_rows gauge
shardproxy_move_left_rows{database="shop"} 71
# HELP shardproxy_move_hold_seconds For how long the last move that has held writes did so, the last time.
# TYPE shardproxy_move_hold_seconds gauge
shardproxy_move_hold_seconds{database="shop"} 0.25
# HELP shardproxy_move_changed_timestamp_seconds When the moves that should go on last did, the one that lags most, in seconds since 1970; 0 when there are none.
# TYPE shardproxy_move_changed_timestamp_seconds gauge
shardproxy_move_changed_timestamp_seconds{database="shop"} %v
# HELP shardproxy_cluster_proxies Proxies that serve the cluster.
# TYPE shardproxy_cluster_proxies gauge
shardproxy_cluster_proxies{database="shop"} 2
# HELP shardproxy_cluster_proxies_behind Proxies that know an older slot map than another.
# TYPE shardproxy_cluster_proxies_behind gauge
shardproxy_cluster_proxies_behind{database="shop"} 1
# HELP shardproxy_cluster_read_timestamp_seconds When moves and proxies were last read from the home shard, in seconds since 1970; 0 when not yet.
# TYPE shardproxy_cluster_read_timestamp_seconds gauge
shardproxy_cluster_read_timestamp_seconds{database="shop"} 1.7000000005e+09
`, stamp(w.cluster.Moves[1].Changed))
	var names []string
	for _, f := range clusterFamilies() {
		names = append(names, "shardproxy_"+f.name)
	}
	if err := testutil.CollectAndCompare(NewCollector(MetricsOptions{Source: w, Clock: clockAt}), strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestLastProgress(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	for _, c := range []struct {
		what string
		all  []metadata.Move
		want time.Time
	}{
		{"none", nil, time.Time{}},
		{"ended", []metadata.Move{{Phase: metadata.MoveDone, Changed: at(1)}, {Phase: metadata.MoveAborted, Changed: at(2)}}, time.Time{}},
		{"paused", []metadata.Move{{Phase: metadata.MoveCopying, Paused: true, Changed: at(1)}}, time.Time{}},
		{"to be decided by an operator", []metadata.Move{{Phase: metadata.MoveReversing, Changed: at(1)}}, time.Time{}},
		{"decided", []metadata.Move{{Phase: metadata.MoveReversing, Wanted: metadata.WantComplete, Changed: at(1)}}, at(1)},
		{"planned behind one that goes on", []metadata.Move{{Phase: metadata.MoveCopying, Changed: at(9)}, {Phase: metadata.MovePlanned, Changed: at(1)}}, at(9)},
		{"planned alone", []metadata.Move{{Phase: metadata.MovePlanned, Changed: at(3)}, {Phase: metadata.MovePlanned, Changed: at(4)}}, at(3)},
		{"two", []metadata.Move{{Phase: metadata.MoveCopying, Changed: at(9)}, {Phase: metadata.MovePurging, Changed: at(5)}}, at(5)},
	} {
		if got := lastProgress(c.all); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
