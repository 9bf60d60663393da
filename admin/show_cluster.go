package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"shardproxy/failover"
	"shardproxy/metadata"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// How long a SHOW waits for what the home shards keep, and how old that may be.
const (
	readingWait = 4 * time.Second
	readingAge  = 2 * time.Second
	readingPoll = 20 * time.Millisecond
)

// awaitReadings waits until what the home shards keep of moves and proxies was read a moment ago, or could not be. What is not known
// then is told by the notice it returns.
func awaitReadings(ctx context.Context, c *Console) *wire.Error {
	began := time.Now()
	for {
		var unread []string
		waiting := false
		for _, d := range c.opt.Source.Databases() {
			if d.Cluster == nil {
				continue
			}
			k := d.Cluster()
			switch {
			case k.At.After(began.Add(-readingAge)) && k.Error == "":
			case k.Error != "":
				unread = append(unread, "database "+d.Name+": "+k.Error+readBefore(k))
			default:
				waiting = true
				unread = append(unread, "database "+d.Name+": the home shard has not answered yet"+readBefore(k))
			}
		}
		if !waiting || time.Since(began) > readingWait {
			return unreadNotice(unread)
		}
		select {
		case <-ctx.Done():
			return unreadNotice(unread)
		case <-time.After(readingPoll):
		}
	}
}

// readBefore says what is shown in place of what could not be read.
func readBefore(k *Cluster) string {
	if k.At.IsZero() {
		return "; nothing is shown of it"
	}
	return fmt.Sprintf("; what is shown of it is of %v", timestamp(k.At))
}

func unreadNotice(unread []string) *wire.Error {
	if len(unread) == 0 {
		return nil
	}
	return &wire.Error{Severity: "WARNING", Code: "01000", Message: "not all home shards could be asked now", Detail: strings.Join(unread, "\n")}
}

func shardColumns() []column {
	return []column{
		textColumn("database", "The database."),
		textColumn("shard", "The shard."),
		int4Column("home", "1 for the home shard, which holds single tables and the slot map, else 0."),
		textColumn("state", "member: it is of the cluster; joins; leaves; spare: the configuration has it, the slot map does not; unknown: the slot map is not known; alone: the only shard of a database."),
		int4Column("slots", "Slots that it owns; NULL while that is not known and for an only shard."),
		int4Column("slots_held", "Those of them whose writes wait; NULL as above."),
		int4Column("slots_coming", "Slots that moves bring it, before they are its own."),
		int4Column("slots_going", "Slots that moves take from it, before they are another's."),
		textColumn("primary", "The node that takes writes; NULL while there is none."),
		textColumn("why", "Why there is none; NULL when there is one."),
		int4Column("nodes", "Its nodes."),
		int4Column("nodes_up", "Those of them that are used."),
		int8Column("lag_max_ms", "How old the data of the replica may be that is the farthest behind of those used, in milliseconds; NULL when none is."),
		int4Column("sv_active", "Server connections on loan."),
		int4Column("sv_idle", "Server connections that nobody uses."),
		int4Column("cl_waiting", "Clients that wait for a connection to one of its nodes."),
		int4Column("held", "Statements that wait at its gate for a primary."),
		int8Column("held_max_ms", "Milliseconds that the first of them has waited."),
		int4Column("in_doubt", "Prepared parts of transactions there that are in doubt: SHOW TWOPC."),
		textColumn("breaker", "The shard's circuit breaker: closed; open: statements that need its primary are refused; half-open: a few of them are let through."),
		textColumn("breaker_since", "Since when; NULL when it never opened."),
		int8Column("breaker_refused", "Statements that it has refused."),
	}
}

func showShards(c *Console) (rows [][]any) {
	now := c.opt.Clock()
	pools := mergePools(c.opt.Source.Pools())
	for _, d := range c.opt.Source.Databases() {
		place := placementOf(&d)
		for i := range d.Shards {
			sh := &d.Shards[i]
			var primary, why, lag any
			if n := sh.Primary(); n != nil {
				primary = n.Address
			} else {
				why = sh.Nodes.NoPrimary
			}
			up := int64(0)
			for _, n := range sh.Nodes.Nodes {
				if n.Health != failover.Up {
					continue
				}
				up++
				if ms := n.Lag.Time.Milliseconds(); n.Role == failover.RoleReplica && n.Lag.Known && (lag == nil || ms > lag.(int64)) {
					lag = ms
				}
			}
			active, idle, waiting, doubts := int64(0), int64(0), int64(0), int64(0)
			for _, p := range pools {
				if p.Database == d.Name && p.Shard == sh.Name {
					active, idle, waiting = active+int64(p.Lent), idle+int64(p.Idle), waiting+int64(p.Waiting)
				}
			}
			for _, doubt := range d.Doubts {
				if doubt.Shard == sh.Name {
					doubts++
				}
			}
			at := place[sh.Name]
			rows = append(rows, []any{
				d.Name, sh.Name, bit(i == 0), at.state, at.slots, at.held, at.coming, at.going, primary, why,
				int64(len(sh.Nodes.Nodes)), up, lag, active, idle, waiting, int64(sh.Gate.HeldNow), heldFor(sh.Gate.OldestSince, now), doubts,
				sh.Breaker.State.String(), timestamp(sh.Breaker.Since), sh.Breaker.Refused,
			})
		}
	}
	return rows
}

// heldFor is how long the first at a gate has waited, in milliseconds.
func heldFor(since, now time.Time) int64 {
	if since.IsZero() {
		return 0
	}
	return max(now.Sub(since), 0).Milliseconds()
}

// placement is a shard's part in the slot map, and in moves.
type placement struct {
	state         string
	slots, held   any // nil: not known
	coming, going int64
}

func placementOf(d *Database) map[string]placement {
	all := map[string]placement{}
	if d.Cluster == nil {
		for _, sh := range d.Shards {
			all[sh.Name] = placement{state: "alone"}
		}
		return all
	}
	k := d.Cluster()
	for _, sh := range d.Shards {
		p := placement{state: "unknown"}
		switch {
		case k.Epoch == 0:
		case slices.Contains(k.Members, sh.Name):
			p = placement{state: "member", slots: int64(0), held: int64(0)}
		default:
			p = placement{state: "spare", slots: int64(0), held: int64(0)}
		}
		for _, r := range k.Owners {
			if r.Shard != sh.Name {
				continue
			}
			n := int64(r.To) - int64(r.From) + 1
			p.slots = p.slots.(int64) + n
			if r.Held {
				p.held = p.held.(int64) + n
			}
		}
		for i := range k.Moves {
			p.moves(&k.Moves[i], sh.Name)
		}
		all[sh.Name] = p
	}
	return all
}

// moves notes what a move means for a shard.
func (p *placement) moves(m *metadata.Move, shard string) {
	switch {
	case m.Phase.Ended():
	case m.Kind == metadata.MoveJoin:
		if m.Target == shard && p.state == "spare" {
			p.state = "joins"
		}
	case m.Kind == metadata.MoveLeave:
		if m.Source == shard {
			p.state = "leaves"
		}
	case m.Phase.Flipped() || m.Phase == metadata.MoveAborting:
	case m.Target == shard:
		p.coming += int64(len(m.Slots))
	case m.Source == shard:
		p.going += int64(len(m.Slots))
	}
}

func slotColumns() []column {
	return []column{
		textColumn("database", "The database."),
		int4Column("first_slot", "The first slot of a row of neighbours that have one owner and state."),
		int4Column("last_slot", "The last of them."),
		int4Column("slots", "How many they are."),
		textColumn("shard", "The shard that owns them."),
		int4Column("held", "1 while their writes wait, for a move comes to its end, else 0."),
		int8Column("epoch", "The version of the slot map that this proxy works by."),
	}
}

func showSlots(c *Console) (rows [][]any) {
	for _, d := range c.opt.Source.Databases() {
		if d.Cluster == nil {
			continue
		}
		k := d.Cluster()
		for _, r := range k.Owners {
			rows = append(rows, []any{d.Name, int64(r.From), int64(r.To), int64(r.To) - int64(r.From) + 1, r.Shard, bit(r.Held), k.Epoch})
		}
	}
	return rows
}

func moveColumns() []column {
	return []column{
		textColumn("database", "The database."),
		int8Column("id", "The move's number."),
		textColumn("kind", "slots: slots go from the source to the target; join: the target becomes a shard; leave: the source is no shard any more."),
		textColumn("source", "The shard that slots leave."),
		textColumn("target", "The shard that they go to."),
		int4Column("slots", "How many they are; 0 for a shard that joins or leaves."),
		textColumn("slot_ranges", "Which; NULL for none."),
		textColumn("phase", "planned, hiding, copying, following, flipped (the target owns them), reversing (it is kept so that it can be rolled back), purging, done, aborting or aborted."),
		int4Column("paused", "1 while it begins no further phase, else 0."),
		int4Column("abort", "1 when it is to be given up, else 0."),
		int4Column("reversible", "1 when the source is kept as the target is behind the flip, until something is wanted, else 0."),
		textColumn("wanted", "complete or rollback of a reversible move; NULL for neither yet."),
		int4Column("back", "1 on the way back to where the slots came from: source and target are those of the way back then; else 0."),
		int4Column("verified", "1 when the rows of both sides were compared and equal, else 0."),
		int8Column("rows", "About how many rows it carries; NULL when not known."),
		int4Column("percent", "How far it is, by its phase and its rows; less than before when it goes back, or copies anew."),
		int8Column("rows_copied", "Rows that were copied."),
		int8Column("rows_purged", "Rows that were deleted where they are no more."),
		int4Column("writes_held_ms", "For how long its writes were held last, in milliseconds."),
		textColumn("said", "What it waits for, or why it failed; NULL for nothing."),
		textColumn("planned_at", "When it was planned, in UTC."),
		textColumn("changed_at", "When any of this has changed last, in UTC."),
	}
}

func showMoves(c *Console) [][]any { return moveRows(c, false) }

func showMoveHistory(c *Console) [][]any { return moveRows(c, true) }

// moveRows has the moves that have ended, or those that have not.
func moveRows(c *Console, ended bool) (rows [][]any) {
	for _, d := range c.opt.Source.Databases() {
		if d.Cluster == nil {
			continue
		}
		for _, m := range d.Cluster().Moves {
			if m.Phase.Ended() != ended {
				continue
			}
			var carried any
			if m.Rows > 0 {
				carried = m.Rows
			}
			rows = append(rows, []any{
				d.Name, m.ID, string(m.Kind), m.Source, m.Target, int64(len(m.Slots)), orNull(slotList(m.Slots)), string(m.Phase),
				bit(m.Paused), bit(m.Abort), bit(m.Reversible), orNull(string(m.Wanted)), bit(m.Back), bit(m.Verified), carried, int64(m.Done() * 100), m.Copied, m.Purged, int64(m.HeldMs), orNull(m.Said),
				timestamp(m.PlannedAt), timestamp(m.Changed),
			})
		}
	}
	return rows
}

// slotList prints slots as 0-9, 12.
func slotList(slots []shardmap.Slot) string {
	slots = slices.Clone(slots)
	slices.Sort(slots)
	var b strings.Builder
	for i := 0; i < len(slots); {
		end := i
		for end+1 < len(slots) && slots[end+1] == slots[end]+1 {
			end++
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, slots[i])
		if end > i {
			fmt.Fprintf(&b, "-%d", slots[end])
		}
		i = end + 1
	}
	return b.String()
}

func proxyColumns() []column {
	return []column{
		textColumn("database", "The database, of several shards: each is told apart."),
		textColumn("proxy", "The proxy's name, which it has from its start to its end."),
		textColumn("host", "Where it runs."),
		int4Column("self", "1 for the proxy that answers, else 0."),
		int4Column("present", "1 while the session on the home shard is there by which it tells, else 0. One that is not there, and did not take leave, was killed or is cut off."),
		int8Column("epoch", "The newest slot map that it knows; 0 before it knows one."),
		int8Column("writes_epoch", "The oldest slot map by which transactions of it work that may have written: moves wait for these."),
		int8Column("statements_epoch", "The oldest slot map by which statements of it work."),
		int8Column("told_ms", "Milliseconds since it told that; it does each 5 s at least."),
		textColumn("shards", "The shards of its configuration."),
	}
}

func showProxies(c *Console) (rows [][]any) {
	now := c.opt.Clock()
	for _, d := range c.opt.Source.Databases() {
		if d.Cluster == nil {
			continue
		}
		k := d.Cluster()
		for _, p := range k.Proxies {
			age := p.Age + max(now.Sub(k.At), 0)
			rows = append(rows, []any{
				d.Name, p.Proxy, p.Host, bit(p.Proxy == k.Self), bit(p.Present), p.Epoch, p.Writes, p.Statements, age.Milliseconds(),
				strings.Join(p.Shards, ", "),
			})
		}
	}
	return rows
}
