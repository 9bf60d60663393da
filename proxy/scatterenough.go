package proxy

import (
	"sync"
	"time"

	"shardproxy/exec"
)

// A merge whose LIMIT is met needs nothing more of its shards, which may be far from their ends: one that finds
// few rows, or all that an OFFSET might have skipped. Outside of transactions they are cancelled, and the
// transaction of the query, which has only read, is taken back: the cancelled parts of it have failed. In a transaction of
// the client's a cancelled shard would take that with it, so there the ends are waited for.

// enoughGrace is how long a shard may take to its end of its own: most have had the LIMIT too, and a
// cancel request costs a server a process.
const enoughGrace = 5 * time.Millisecond

// hasEnough reports whether so many rows meet the limit of a merge whose shards may be cancelled.
func (c *scattering) hasEnough(o *exec.MergeOptions, rows int64) bool {
	return c.own && c.plain && o.Limit >= 0 && rows == o.Limit && c.gone == nil && !c.unwanted.Load()
}

// enough ends the streams of a merge whose limit is met. What a shard says behind that is nobody's concern: PostgreSQL would not
// have gone so far.
func (c *scattering) enough() {
	grace := time.NewTimer(enoughGrace)
	defer grace.Stop()
	for late, n := false, 0; !late && n < len(c.started); n++ {
		select {
		case <-c.shards[c.started[n]].stream.Ended():
		case <-grace.C:
			late = true
		}
	}
	var cancels sync.WaitGroup
	defer cancels.Wait()
	ends := make([]chan struct{}, len(c.started))
	for n, i := range c.started {
		ends[n] = make(chan struct{})
		select {
		case <-c.shards[i].stream.Ended():
		default:
			cancels.Go(func() { cancelUntil(c.shards[i].lease, ends[n]) })
		}
	}
	for n, i := range c.started {
		shard := c.shards[i]
		shard.answer, shard.err = shard.stream.End()
		shard.stream, shard.spent = nil, true
		close(ends[n])
		if shard.err == nil {
			c.notices = append(c.notices, newNotices(shard.answer.Frames, c.notices)...)
			continue
		}
		if c.dropped = true; !isLost(shard.err) {
			shard.err = nil
		}
	}
}
