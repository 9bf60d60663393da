// Package failover watches the nodes of one shard: which one is the primary,
// which replicas answer, how far behind they are and what they have replayed.
// It picks the node of a read, opens and closes the shard's gate and tells the
// pool when a node is no longer what it was.
//
// It never promotes, demotes or fences a server, and it never guesses a role:
// a role is what the node itself answered. What it cannot vouch for it does not
// use, and says why: a node of another cluster, a node on an older timeline,
// two nodes that claim to be primary on the same timeline.
//
// State is the pure core: an event and a time go in, the next state and the
// actions come out. Monitor is the driver around it: one goroutine owns the
// State, one goroutine per node asks that node through a Prober. The methods of
// Monitor may be called from any goroutine; those of the statement path
// (Mark, PickRead, Primary, Fresh, Want) take no lock and allocate nothing.
//
// # Read your writes without a round trip
//
// The monitor samples the primary's write position. Sample k begins when the
// counter becomes k, and is done when the primary has answered with L(k), its
// WAL insert position. A replica covers k when it has been seen with a replay
// position of at least L(k), on the primary's timeline. A session notes
// Mark(), the counter, after each of its writes was acknowledged, and may read
// from replicas that cover a sample greater than that mark.
//
// Why that is enough. Let a commit be acknowledged to the session before it
// reads the counter as m. A sample k > m begins after that reading, for the
// counter only grows and is raised before the primary is asked. So the primary
// computes L(k) after it acknowledged the commit, and its commit record had been
// inserted by then: L(k) >= the end of the commit record. A replica that covers k
// has replayed to L(k) and applies a commit record before it reports its end
// as replayed, hence any snapshot taken there later sees the commit. The insert
// position is needed and not the flush position, because with
// synchronous_commit = off a commit is acknowledged before it is flushed. While
// the tail of the WAL is not flushed (an open transaction on an otherwise idle
// server) no replica covers the newest samples, and the reads of sessions that
// have just written go to the primary; the next commit of anybody ends that.
//
// A change of primary. Samples of the old primary have numbers up to the
// counter's value when the new one is published, so none of them is greater
// than the mark of a write to the new one. Positions are compared only between
// nodes on the same timeline.
//
// A restart of the replica. A standby that restarts may show a position earlier
// than it had shown. What it covers is therefore forgotten as soon as its
// control connection breaks, which the kernel reports at once, and when the
// data path suspects it. A server connection opened after the last observation
// may still, in theory, reach a restarted server first: who wants to rule that
// out notes Mark() when the connection is established and asks Fresh with the
// greater of the session's and the connection's mark. A connection that was
// there before the sample began and is still there proves that the server has
// not restarted since.
//
// # Rights of the control user
//
// LOGIN is enough to find roles, positions and the cluster. GRANT pg_monitor
// shows pg_stat_wal_receiver.received_tli: without it a replica's timeline is
// known only from its last restartpoint, so that after a promotion replicas
// stay refused until each has made its next one.
package failover
