package admin

import (
	"context"

	"shardproxy/proxy"
	"shardproxy/tally"
	"shardproxy/wire"
)

// hotShown is how many slots, and keys, of a database are shown.
const hotShown = 100

func hotColumns() []column {
	return []column{
		textColumn("database", "The database."),
		int4Column("slot", "The slot."),
		textColumn("shard", "The shard that owns it; NULL when that is not known."),
		int8Column("sampled", "Statements that asked for it in the last whole minute, or in what is over of the first one, of those of one in eight requests of each session that have a key."),
		int8Column("per_second", "About how many statements a second that is of all."),
		int4Column("percent", "Its part of the sample."),
	}
}

// showHot shows the slots that are asked for most first.
func showHot(c *Console) (rows [][]any) {
	now := c.opt.Clock().UnixNano()
	for _, d := range c.opt.Source.Databases() {
		if d.HotSlots == nil {
			continue
		}
		owner := ownerOf(&d)
		for _, h := range d.HotSlots(hotShown, now) {
			rows = append(rows, []any{d.Name, int64(h.Slot), orNull(owner(h.Slot)), h.Count, perSecond(&h), h.Count * 100 / max(h.Of, 1)})
		}
	}
	return rows
}

// perSecond estimates how many statements ask for a slot in a second.
func perSecond(h *tally.HotSlot) int64 {
	return int64(float64(h.Count*proxy.HotSampled)/h.Over.Seconds() + 0.5)
}

// ownerOf returns what tells the shard of a slot, "" when it is not known.
func ownerOf(d *Database) func(slot int) string {
	if d.Cluster == nil {
		return func(int) string { return "" }
	}
	owners := d.Cluster().Owners
	return func(slot int) string {
		for _, o := range owners {
			if slot >= int(o.From) && slot <= int(o.To) {
				return o.Shard
			}
		}
		return ""
	}
}

// showHotKeys shows keys, which are data: it is for admins.
func showHotKeys() *command {
	return &command{name: "SHOW HOT_KEYS", usage: "SHOW HOT_KEYS", needs: mayRead,
		doc: "The keys that statements ask for most, of each database with hot_keys, at most 100. For admin users: keys are data. PgBouncer has no such command.",
		columns: []column{
			textColumn("database", "The database."),
			textColumn("key", "The key as text; only those of one column and of at most 64 bytes are counted."),
			int4Column("slot", "The slot that it lies in."),
			textColumn("shard", "The shard that owns the slot; NULL when that is not known."),
			int8Column("sampled", "Statements that asked for it, of those of one in eight requests of each session; with each minute they are halved."),
			int8Column("over", "How many of these may be others': 200 keys are kept of each database."),
		},
		run: func(_ context.Context, s *session, _ request) (result, *wire.Error) {
			res := result{tag: "SHOW"}
			for _, d := range s.console.opt.Source.Databases() {
				if d.HotKeys == nil {
					continue
				}
				owner := ownerOf(&d)
				for _, k := range d.HotKeys(hotShown) {
					res.rows = append(res.rows, []any{d.Name, k.Key, int64(k.Slot), orNull(owner(k.Slot)), k.Count, k.Over})
				}
			}
			return res, nil
		}}
}
