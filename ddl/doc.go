// Package ddl journals the statements that PostgreSQL runs in several transactions of
// its own: what has CONCURRENTLY. No commit makes them happen on all shards or on none,
// and one that fails leaves half of its work behind. So each is noted on the home shard
// before it runs, in the tables shardproxy.ddl and shardproxy.ddl_shard, and what comes
// of it on each shard behind it: a Journal begins one (Begin), whoever runs it notes its
// course (Run), and what was left is listed (List), taken up again (Resume) or given up
// (Abandon).
//
// It does not run a client's statement: that is done on the client's own connections,
// with its rights. Resume does, as the role that sent it. Nothing is guessed: what a
// shard has is found by looking at its catalog, and what is not the statement's own
// work is left alone.
//
// A Journal may be used from any goroutine, a Run by one at a time. Neither starts a
// goroutine that outlives a call.
//
// Design page: docs/design/ddl.md.
package ddl
