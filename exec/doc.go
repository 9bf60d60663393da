// Package exec carries out what the router has planned where one statement
// needs several shards. It begins with COPY FROM STDIN: the client's stream is cut
// into rows (CopyReader), each row's key is read as PostgreSQL reads it, the
// rows are put together again for each shard (CopyWriter), and what a shard says
// of its lines is told in the client's lines (CopyLines).
//
// PostgreSQL 15 to 18 is the measure. What the splitter does not know for sure
// (an option, an encoding, a marker that versions treat differently) it refuses;
// nothing is guessed. It checks of the data no more than it has to: all else a shard
// says with PostgreSQL's own words.
//
// There is no I/O here but the writer's io.Writer, and no goroutine. A value of
// these types belongs to one goroutine at a time.
//
// Design page: docs/design/copy.md.
package exec
