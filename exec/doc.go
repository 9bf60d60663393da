// Package exec carries out what the router has planned where one statement
// needs several shards.
//
// COPY FROM STDIN: the client's stream is cut into rows (CopyReader), each row's key is
// read as PostgreSQL reads it, the rows are put together again for each shard
// (CopyWriter), and what a shard says of its lines is told in the client's lines
// (CopyLines).
//
// SELECT: Merge makes the rows of several shards those of one, as they come or in the order that
// each shard has them in already; it holds one row of each shard and a batch for the client. An
// Order compares values in binary format as PostgreSQL's own operators do. Arrays collects rows
// as parameters that are arrays, one for each column, in which they travel to a server that reads them with
// unnest; a Budget bounds them.
//
// PostgreSQL 15 to 18 is the measure. What is not known for sure (an option of COPY, an
// encoding, a marker that versions treat differently, the order of a type or collation) is
// refused; nothing is guessed. The data are checked no more than they have to be: all
// else a shard says with PostgreSQL's own words.
//
// There is no I/O here but the writer's io.Writer and what a Source and a sink do, and no
// goroutine. A value of these types belongs to one goroutine at a time.
//
// Design page: docs/design/copy.md.
package exec
