package admin

import (
	"context"

	"shardproxy/wire"
)

func cacheColumns() []column {
	return []column{
		textColumn("database", "The database."),
		textColumn("state", "open, or shut: nothing is kept, for what other proxies write is not heard."),
		int8Column("entries", "Results that are kept."),
		int8Column("bytes", "What they take, with their keys."),
		int8Column("bytes_max", "What they may take: cache.size."),
		int8Column("hits", "Requests that were answered from here."),
		int8Column("misses", "Requests that could have been, and were not."),
		int8Column("waits", "Misses that waited for somebody who asked the same."),
		int8Column("stored", "Results that came in."),
		int8Column("too_large", "Results that did not: they have more bytes than cache.entry."),
		int8Column("stale", "Results that did not: a table had changed while they were read."),
		int8Column("invalidated", "Results that left for a change of a table, or with all others."),
		int8Column("expired", "Results that left for their age."),
		int8Column("evicted", "Results that left to make room."),
	}
}

// showCache shows what each database keeps of results.
func showCache(c *Console) (rows [][]any) {
	for _, d := range c.opt.Source.Databases() {
		k := d.Cache
		if k == nil {
			continue
		}
		state := "open"
		if !k.Open {
			state = "shut"
		}
		rows = append(rows, []any{d.Name, state, int64(k.Entries), k.Bytes, k.BytesMax, k.Hits, k.Misses, k.Waits, k.Stored,
			k.Large, k.Stale, k.Invalidated, k.Expired, k.Evicted})
	}
	return rows
}

func resetCache() *command {
	return &command{name: "RESET CACHE", usage: "RESET CACHE [IN database]", needs: maySteer,
		doc: "Drops all kept results, of all databases or of one, here and in the other proxies.",
		run: func(_ context.Context, s *session, r request) (result, *wire.Error) {
			return s.resets(r, s.console.opt.Steerer.ResetCache)
		}}
}

// resets runs a RESET for one database, or for all.
func (s *session) resets(r request, reset func(database string) error) (result, *wire.Error) {
	all, err := s.targets(request{verb: r.verb, arg: r.in, hasArg: r.hasIn})
	if err != nil {
		return result{}, err
	}
	err = s.each(request{hasArg: r.hasIn}, all, func(d Database) error { return reset(d.Name) })
	return result{tag: "RESET"}, err
}
