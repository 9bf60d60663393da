package admin

import (
	"time"

	"shardproxy/metadata"
)

// clusterFamilies are those of databases of several shards, in the order of docs/metrics.md.
func clusterFamilies() []family {
	database := []string{"database"}
	return []family{
		{"slot_map_epoch", "Epoch of the slot map that the proxy works by; 0 while it has none.", database},
		{"slots", "Slots, by their shard and state: steady, or held while their writes wait.", []string{"database", "shard", "state"}},
		{"moves", "Moves by phase: those that have not ended, and those of the last 100 that have (done, aborted).", []string{"database", "phase"}},
		{"moves_paused", "Moves that have not ended and are paused.", database},
		{"move_copied_rows", "Rows that the moves under way have copied.", database},
		{"move_left_rows", "Rows that the moves which have not ended are still to copy, as they were estimated.", database},
		{"move_hold_seconds", "For how long the last move that has held writes did so, the last time.", database},
		{"move_changed_timestamp_seconds", "When the moves that should go on last did, the one that lags most, in seconds since 1970; 0 when there are none.", database},
		{"cluster_proxies", "Proxies that serve the cluster.", database},
		{"cluster_proxies_behind", "Proxies that know an older slot map than another.", database},
		{"cluster_read_timestamp_seconds", "When moves and proxies were last read from the home shard, in seconds since 1970; 0 when not yet.", database},
	}
}

// movePhases are all there are.
var movePhases = [...]metadata.MovePhase{
	metadata.MovePlanned, metadata.MoveHiding, metadata.MoveCopying, metadata.MoveFollowing, metadata.MoveFlipped,
	metadata.MoveReversing, metadata.MovePurging, metadata.MoveDone, metadata.MoveAborting, metadata.MoveAborted,
}

// cluster sends what is known of a database's shards together.
func (e emitter) cluster(database string, k *Cluster) {
	e.gauge("slot_map_epoch", float64(k.Epoch), database)
	steady, held := map[string]int{}, map[string]int{}
	for _, shard := range k.Members {
		steady[shard], held[shard] = 0, 0
	}
	for _, r := range k.Owners {
		if n := int(r.To-r.From) + 1; r.Held {
			held[r.Shard] += n
		} else {
			steady[r.Shard] += n
		}
	}
	for shard := range steady {
		e.gauge("slots", float64(steady[shard]), database, shard, "steady")
		e.gauge("slots", float64(held[shard]), database, shard, "held")
	}
	e.moves(database, k.Moves)
	newest, behind := k.Epoch, int64(0)
	for i := range k.Proxies {
		newest = max(newest, k.Proxies[i].Epoch)
	}
	for i := range k.Proxies {
		behind += bit(k.Proxies[i].Epoch < newest)
	}
	e.gauge("cluster_proxies", float64(len(k.Proxies)), database)
	e.gauge("cluster_proxies_behind", float64(behind), database)
	e.gauge("cluster_read_timestamp_seconds", stamp(k.At), database)
}

func (e emitter) moves(database string, all []metadata.Move) {
	phases := map[metadata.MovePhase]int{}
	var heldMs int
	var paused, copied, left int64
	for i := range all {
		m := &all[i]
		phases[m.Phase]++
		if m.HeldMs > 0 {
			heldMs = m.HeldMs
		}
		if m.Phase.Ended() {
			continue
		}
		paused += bit(m.Paused)
		copied += m.Copied
		if !m.Phase.Flipped() {
			left += max(m.Rows-m.Copied, 0)
		}
	}
	for _, p := range movePhases {
		e.gauge("moves", float64(phases[p]), database, string(p))
	}
	e.gauge("moves_paused", float64(paused), database)
	e.gauge("move_copied_rows", float64(copied), database)
	e.gauge("move_left_rows", float64(left), database)
	e.gauge("move_hold_seconds", (time.Duration(heldMs) * time.Millisecond).Seconds(), database)
	e.gauge("move_changed_timestamp_seconds", stamp(lastProgress(all)), database)
}

// lastProgress is when the moves that should go on last did: of those that are under way the one that lags most; when none is, the
// first that is planned. Those that wait for an operator should not.
func lastProgress(all []metadata.Move) (t time.Time) {
	var planned time.Time
	for i := range all {
		m := &all[i]
		switch {
		case m.Phase.Ended() || m.Paused || m.Phase == metadata.MoveReversing && m.Wanted == "":
		case m.Phase == metadata.MovePlanned:
			if planned.IsZero() {
				planned = m.Changed
			}
		case t.IsZero() || m.Changed.Before(t):
			t = m.Changed
		}
	}
	if t.IsZero() {
		return planned
	}
	return t
}

// stamp is a moment as metrics have it; 0 for none.
func stamp(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
