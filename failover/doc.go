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
// data path suspects it. What remains is a machine that goes and comes back
// without a word (a power cut, a reset), accepts a new server connection before
// any probe, lost connection or failed statement has told of it, and then shows
// an earlier position: that takes a server that starts faster than
// Options.Interval. Who wants to rule it out notes Mark() when a server
// connection is established and asks Fresh with the greater of the session's
// and the connection's mark before reading over it. A connection that was there
// before the sample began and is still there proves that the server has not
// restarted since.
//
// A restart of the proxy. A mark belongs to one session in one Monitor; it is
// worth nothing in another process. A client that reconnects, to a proxy that
// has restarted, to another one or to the same one, is a new session without a
// mark, and its reads may miss what its earlier connection wrote, by up to
// MaxLag. That is what consistency by session promises and no more. A Monitor
// could demand of every session that replicas cover a sample of its own, which
// would close the gap for a restart alone. It does not: the other two ways stay
// open, and a proxy that starts while there is no primary could not serve reads
// at all. Who needs more than a session's view reads from the primary.
//
// # Rights of the control user
//
// LOGIN is enough to find roles, positions and the cluster. GRANT pg_monitor
// shows pg_stat_wal_receiver.received_tli: without it a replica's timeline is
// known only from its last restartpoint, so that after a promotion replicas
// stay refused until each has made its next one.
package failover
