package proxy

import (
	"context"

	"shardproxy/exec"
	"shardproxy/pool"
	"shardproxy/wire"
)

// describePortal asks for the columns of the unnamed portal.
func describePortal() []byte { return wire.AppendFrame(nil, wire.MsgDescribe, []byte("P\x00")) }

// executeSync runs the unnamed portal and ends the request.
func executeSync() []byte {
	return wire.AppendEmpty(wire.AppendFrame(nil, wire.MsgExecute, make([]byte, 5)), wire.MsgSync)
}

// executeClose is executeSync of a portal that is closed behind it, for it is not the client's, who would find what the
// servers have in it.
func executeClose() []byte {
	frames := wire.AppendFrame(nil, wire.MsgExecute, make([]byte, 5))
	return wire.AppendEmpty(wire.AppendClose(frames, 'P', ""), wire.MsgSync)
}

// startTries bounds how often shards are begun anew that took too long for a window.
const startTries = 3

// start sends each shard its frames, nil for none, and rest behind them, which is nil when the
// frames are a whole simple query. When transactions over several shards are to be seen whole,
// the shards begin to run the statement in one window: a server takes a portal's snapshot when it binds
// it.
func (c *scattering) start(frames func(shard *scatterShard) []byte, rest []byte) []exec.Source {
	all := make([][]byte, len(c.shards))
	var with []int
	for i, shard := range c.shards {
		if all[i] = frames(shard); all[i] != nil {
			with = append(with, shard.index)
		}
	}
	if c.err != nil {
		return nil
	}
	if !c.inWindow || len(with) < 2 {
		return c.startAtOnce(all, rest)
	}
	for tries := 1; ; tries++ {
		sources, again := c.startTogether(all, rest, with)
		if !again || tries == startTries || c.unwanted.Load() {
			return sources
		}
		c.err, c.failed = nil, -1
	}
}

// startAtOnce starts without a window.
func (c *scattering) startAtOnce(frames [][]byte, rest []byte) (sources []exec.Source) {
	c.started = nil
	for i, shard := range c.shards {
		if frames[i] == nil {
			continue
		}
		b := append(frames[i][:len(frames[i]):len(frames[i])], rest...)
		shard.stream, shard.err = shard.lease.Stream(b, pool.StreamOptions{})
		if shard.err != nil {
			c.fail(wire.AsError(shard.err), nil, i)
			return nil
		}
		sources, c.started = append(sources, shard.stream), append(c.started, i)
	}
	return sources
}

// startTogether starts in a window. It may be tried again when what the shards see is not of one
// moment; nothing has been run then, or nothing that has written.
func (c *scattering) startTogether(frames [][]byte, rest []byte, with []int) (sources []exec.Source, again bool) {
	w, err := c.s.db.Fence.Enter(c.wanted, with)
	if err != nil {
		c.notReached(err)
		c.fail(wire.AsError(err), nil, -1)
		return nil, false
	}
	begin := []byte(nil)
	if rest != nil {
		begin = wire.AppendEmpty(nil, wire.MsgFlush)
	}
	sources = c.startAtOnce(frames, begin)
	for _, i := range c.started {
		<-c.shards[i].stream.Begun()
	}
	moved := c.elsewhere(w)
	behind := rest
	if c.err != nil || moved != nil {
		behind = wire.AppendEmpty(nil, wire.MsgSync) // those that are begun must end
	}
	early := c.repeatable || c.err != nil || moved != nil
	if early { // while the window is left; no row is looked at before that has counted
		c.more(behind, rest)
	}
	if err = w.Leave(); err == nil {
		err = moved
	}
	if !early {
		if err != nil {
			behind = wire.AppendEmpty(nil, wire.MsgSync)
		}
		c.more(behind, rest)
	}
	switch {
	case c.err != nil:
		return nil, false
	case err == nil:
		return sources, false
	case rest == nil: // it runs already
		c.fail(wire.AsError(err), nil, -1)
		return nil, false
	}
	if c.endStreams(nil); c.err != nil {
		return nil, false
	}
	c.notReached(err)
	c.fail(wire.AsError(err), nil, -1)
	return nil, true
}

// more sends the started shards the end of their requests, unless they have had it.
func (c *scattering) more(frames, rest []byte) {
	if rest == nil {
		return
	}
	for _, i := range c.started {
		c.shards[i].stream.More(frames)
	}
}

// elsewhere returns an error when a shard was not read where its fence was held.
func (c *scattering) elsewhere(w Window) error {
	for _, i := range c.started {
		if shard := c.shards[i]; shard.lease.Address() != w.Address(shard.index) {
			w.Moved(shard.index)
			return errElsewhere(c.s.db.Shards[shard.index].Name)
		}
	}
	return nil
}

// giveUp says that the query is not wanted any more.
func (c *scattering) giveUp() {
	c.unwanted.Store(true)
	c.cancelWanted(errUserCancel())
}

// begins makes the context of the query, whose end is the end of what the caller is at.
func (c *scattering) begins() (end func()) {
	c.wanted, c.cancelWanted = context.WithCancelCause(c.s.server.ctx)
	return func() { c.cancelWanted(nil) }
}
