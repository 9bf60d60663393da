package proxy

import (
	"errors"
	"io"
	"slices"
	"strings"

	"shardproxy/exec"
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// A query over several shards of which some cannot be reached may be answered from the others, if its
// session wants that: as if those shards had no rows, with a warning that names them. It waits for
// a shard as every other statement does, but for one that has been without a primary for so long that
// nobody would have waited until now. What a server says is never left out, only servers that say nothing.

// partialSetting is the setting of a session that overrides the configuration.
const partialSetting = ownPrefix + "partial_results"

// partialNamed returns what a setting's value, in quotes or not, stands for.
func partialNamed(value string) (on, ok bool) {
	switch strings.Trim(strings.ToLower(value), "'\" ") {
	case "on", "true", "yes", "1":
		return true, true
	case "off", "false", "no", "0":
		return false, true
	}
	return false, false // set where nobody could check it, as in a function
}

// wantsPartial reports whether the session takes answers that lack shards.
func (s *session) wantsPartial() bool {
	on := s.db.Policy().PartialResults
	if text := s.ownSetting(partialSetting); text != "" {
		on, _ = partialNamed(text)
	}
	if s.spread != nil && s.spread.partial != "" {
		on, _ = partialNamed(s.spread.partial)
	}
	return on
}

// partial is what a query needs to do without shards.
type partial struct {
	plain bool // see plainRead
	may   bool // it may be answered in part
	// own is set outside of transactions: a shard may be lost when its query has begun.
	own bool
	// all are the shards that the query is for, merging those of its merge, none when any will do.
	all, merging []int
	missing      []missingShard
	// losses count how often the connection to a shard was lost.
	losses map[int]int
	// unreached is the shard that a window could not be opened on, -1 for none.
	unreached int
	// dropped is set when a part of the query's transaction was lost, or has failed, which is of no concern.
	dropped bool
}

// missingShard is a shard that is left out, and why.
type missingShard struct {
	index int
	why   *wire.Error
}

// plainRead reports whether the plan is a query that leaves nothing behind: it may be given up, or
// begun anew, at any time.
func plainRead(p *router.Plan) bool {
	return p != nil && p.Single != nil && p.Single.Kind == query.KindSelect && p.Single.Reads && !p.MayWrite && p.Effects == 0
}

// mayLack finds out whether the query may be answered in part.
func (c *scattering) mayLack(p *router.Plan) {
	c.unreached = -1
	c.own = c.s.tx == 'I' && !c.s.staysTied()
	c.plain = plainRead(p) && c.explain == "" && c.opening == nil
	c.may = c.plain && (c.own || c.s.tx == 'T') && !c.s.staysTied() && c.s.wantsPartial()
}

// isMissing reports whether the shard is left out.
func (p *partial) isMissing(shard int) bool {
	return slices.ContainsFunc(p.missing, func(m missingShard) bool { return m.index == shard })
}

// present returns those of the shards that are not left out.
func (p *partial) present(shards []int) (left []int) {
	for _, i := range shards {
		if !p.isMissing(i) {
			left = append(left, i)
		}
	}
	return left
}

// places has the query run on the shards that are not left out. It reports whether these can answer it: nothing
// stands for a table of which every row is missing.
func (c *scattering) places() bool {
	all := c.present(c.all)
	if len(all) == 0 {
		return false
	}
	if c.merging = c.present(c.partial.merging); len(c.partial.merging) == 0 {
		c.merging = all[:1] // any will do
	}
	c.shards = nil
	for _, i := range all {
		c.shards = append(c.shards, &scatterShard{index: i})
	}
	if len(c.missing) == 0 {
		return true
	}
	if len(c.merging) == 0 || c.way.Home && all[0] != 0 {
		return false
	}
	for i := range c.way.Inputs {
		of, err := c.shardsOf(c.way.Inputs[i].Plan, c.way.Inputs[i].Proof, c.owners)
		if err != nil || len(of) > 0 && len(c.present(of)) == 0 {
			return false
		}
	}
	return true
}

// leaveOut has the query do without a shard. False says that it cannot.
func (c *scattering) leaveOut(shard int, why *wire.Error) bool {
	if !c.may || !slices.Contains(c.all, shard) || c.isMissing(shard) {
		return false
	}
	c.missing = append(c.missing, missingShard{shard, why})
	if c.places() {
		return true
	}
	c.missing = c.missing[:len(c.missing)-1]
	c.places()
	return false
}

// indexes are the shards of the query.
func (c *scattering) indexes() (all []int) {
	for _, shard := range c.shards {
		all = append(all, shard.index)
	}
	return all
}

// errNoPrimary is the cause of what a statement is told that waited for a primary in vain.
var errNoPrimary = errors.New("there is no primary")

// enlistScatter makes the shards of a query a part of the transaction, as enlistAt does, but for those that
// cannot be reached and may be left out.
func (s *session) enlistScatter(c *scattering, own bool, shards []int) *wire.Error {
	if !c.may {
		return s.reaches(c, own, shards)
	}
	for _, i := range c.indexes() {
		if sh := s.db.Shards[i]; sh.Gate.Overdue() && !s.isPart(i) && !c.hasReplica(i) {
			c.leaveOut(i, wire.Errorf("57P03", "no primary for longer than the hold timeout").WithDetail("Shard %s has no primary.", sh.Name))
		}
	}
	for tries := 0; ; tries++ {
		e := s.reaches(c, own, c.indexes())
		at := s.unreached(e)
		if at < 0 || tries == 4*scatterTries || s.isPart(at) || s.tx == 'E' {
			return e
		}
		// A connection that is lost may have been so for long, in the pool: others are tried, until there is no way to the server.
		again := errors.Is(e, errLost) && own && c.lose(at) < scatterTries
		if !again && slices.Contains(c.indexes(), at) && !c.leaveOut(at, e) {
			return e
		}
		if own && s.lease != nil {
			s.giveBack(pool.Clean) // what was begun there has been taken back
		}
	}
}

// isPart reports whether the open transaction runs on a shard.
func (s *session) isPart(shard int) bool {
	return s.spread != nil && (s.lease != nil && s.index == shard || s.spread.branchOn(shard) >= 0)
}

// unreached returns the shard that could not be reached when a transaction was to come to it, -1
// for any other error, and none. It may be one of others who wait for a window together.
func (s *session) unreached(e *wire.Error) int {
	var of *twopc.Unreached
	switch {
	case e == nil || e.IsFatal():
		return -1
	case errors.As(e, &of):
		return of.Shard
	case errors.Is(e, errNoPrimary) || e.Code == "08001":
		return s.waiting.need.shard // the last that was sought
	}
	return -1
}

// hindered reports whether the query has failed because no window could be opened, and may begin anew: without
// the shard that could not be asked, or with others in another window.
func (c *scattering) hindered() bool {
	at := c.unreached
	c.unreached = -1
	if at < 0 || !c.may || !c.own || c.err == nil || c.sentHead || c.gone != nil || c.unwanted.Load() {
		return false
	}
	return !slices.Contains(c.indexes(), at) || c.leaveOut(at, c.err)
}

// lostShards returns the shards whose connections are lost.
func (c *scattering) lostShards() (lost []int) {
	for _, shard := range c.shards {
		if isLost(shard.err) {
			lost = append(lost, shard.index)
		}
	}
	return lost
}

// lose counts how often the connection to a shard was lost.
func (c *scattering) lose(shard int) int {
	if c.losses == nil {
		c.losses = map[int]int{}
	}
	c.losses[shard]++
	return c.losses[shard]
}

// leavesLost leaves out shards whose connections were lost, if it was not for the first time: it may have been a
// change of primary.
func (c *scattering) leavesLost(lost []int) {
	for _, i := range lost {
		if c.lose(i) > 1 {
			c.leaveOut(i, wire.Errorf("08006", "the connection to a server was lost").WithDetail("Shard %s.", c.s.db.Shards[i].Name))
		}
	}
}

// warns tells the client which shards the answer lacks.
func (c *scattering) warns(out []byte) []byte {
	if len(c.missing) == 0 {
		return out
	}
	c.s.db.stats.partials.Add(1)
	names := make([]string, len(c.missing))
	for i, m := range c.missing {
		names[i] = c.s.db.Shards[m.index].Name
	}
	slices.Sort(names)
	return (&wire.Error{Severity: "WARNING", Code: "01000", Message: "the answer is partial: rows of shards that cannot be reached are missing",
		Detail: "Missing shards: " + strings.Join(names, ", ") + ".", Hint: "SET " + partialSetting + " = off to have an error instead."}).AppendNotice(out)
}

// lackingSource is a source of a merge whose shard may be lost behind the rows of others, when none of its own
// has been used: it had none then.
type lackingSource struct {
	exec.Source
	c     *scattering
	shard int
	used  bool
}

// Next implements exec.Source.
func (l *lackingSource) Next() ([]byte, error) {
	b, err := l.Source.Next()
	if err == nil {
		l.used = l.used || hasRow(b)
		return b, nil
	}
	if isLost(err) && err != io.EOF && !l.used && l.c.sentHead && l.c.loses(l.shard, err) {
		return nil, io.EOF
	}
	return b, err
}

// hasRow reports whether there is a row among whole messages.
func hasRow(frames []byte) bool {
	for ; len(frames) > 0; frames = frames[frameSize(frames):] {
		if frames[0] == wire.MsgDataRow {
			return true
		}
	}
	return false
}

// loses leaves a shard out whose query runs. False says that it was not to be lost.
func (c *scattering) loses(shard int, err error) bool {
	if c.unwanted.Load() {
		return false
	}
	c.missing = append(c.missing, missingShard{shard, wire.AsError(err)})
	return true
}

// lacking are the sources of a merge, of which some may be lost.
func (c *scattering) lacking(sources []exec.Source) []exec.Source {
	if !c.may || !c.own {
		return sources
	}
	all := make([]exec.Source, len(sources))
	for i, source := range sources {
		all[i] = &lackingSource{Source: source, c: c, shard: c.shards[c.started[i]].index}
	}
	return all
}

// notReached notes a shard on which no window could be opened.
func (c *scattering) notReached(err error) {
	var of *twopc.Unreached
	if errors.As(err, &of) {
		c.unreached = of.Shard
	}
}
