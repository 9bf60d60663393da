package metadata

import (
	"fmt"
	"slices"

	"shardproxy/shardmap"
)

// members judges the rows of all shards: are they those that the configuration
// names? It returns the identity that they agree on, ID empty when no cluster
// was made yet. Slots 0 in want means whatever is stored.
//
// The home shard's row is made first and the map last. So a row without the
// home's means that the home shard was lost or is another server now, and a
// map without a shard's row means that of the shard.
func (j *judge) members(want Cluster) Cluster {
	home := j.all[0]
	anchor := home.row
	for _, f := range j.all {
		if anchor == nil && f.row != nil {
			anchor = f.row
		}
	}
	if anchor != nil {
		want.ID, want.SchemaVersion, want.CreatedAt = anchor.ID, anchor.SchemaVersion, anchor.CreatedAt
		if want.Slots == 0 {
			want.Slots = anchor.Slots
		}
	}
	for i, f := range j.all {
		if f.readable() {
			mine := want
			mine.Shard = f.shard
			j.member(i, f, mine)
		}
	}
	want.Shard = want.Home
	return want
}

// member judges one shard's rows.
func (j *judge) member(i int, f *facts, want Cluster) {
	switch {
	case f.rowErr != nil:
		p := *asked(f.shard, "read the schema shardproxy", f.rowErr)
		p.Shard = f.shard
		j.add(p)
	case f.row == nil && j.stored != nil && !slices.Contains(j.stored.Shards(), f.shard):
		// That the map does not know the shard is said elsewhere.
	case f.row == nil && j.stored != nil:
		j.add(Problem{Shard: f.shard, Kind: ErrNotInitialised, Reason: "the slot map names the shard, but its server has no shardproxy cluster",
			Hint: "it is another server than before, or was restored without its schema shardproxy; restore it whole"})
	case f.row == nil && !j.making:
		j.add(*notInitialised(f.shard, "the server has no shardproxy cluster"))
	case f.row == nil:
	default:
		j.identity(i, f, want)
	}
}

// identity judges a shard that has its row.
func (j *judge) identity(i int, f *facts, want Cluster) {
	home := j.all[0]
	for _, err := range []error{f.row.sameAs(&want), j.version(f)} {
		if err != nil {
			p := *asked(f.shard, "", err)
			p.Shard = f.shard
			j.add(p)
			return
		}
	}
	switch {
	case i > 0 && home.readable() && home.rowErr == nil && home.row == nil:
		j.add(Problem{Shard: f.shard, Kind: ErrOtherCluster, Reason: fmt.Sprintf("it belongs to cluster %s, but the home shard %q has no shardproxy cluster", f.row.ID, want.Home),
			Hint: "the home shard is another server than before, or has lost its schema shardproxy; restore it"})
	case i > 0 && home.readable() && home.rowErr == nil && f.epoch > home.epoch:
		j.add(*ahead(f.shard, fmt.Sprintf("it knows epoch %d, the home shard only %d", f.epoch, home.epoch)))
	}
}

// version judges the schema's version; Init upgrades older ones.
func (j *judge) version(f *facts) error {
	if j.making && f.row.SchemaVersion < j.known {
		return nil
	}
	return f.row.checkVersion(j.known)
}

func ahead(shard, reason string) *Problem {
	return &Problem{Shard: shard, Kind: ErrAhead, Reason: reason + ": the home shard has lost a change of the slot map",
		Hint: "it failed over to a replica that lagged, or was restored from a backup; find the lost change before proxies use the map"}
}

// placement judges the stored map against the configuration's shards.
func (j *judge) placement(shards []Shard, join []string) {
	if j.stored == nil {
		return
	}
	d := differ(j.stored, shards)
	d.Added = slices.DeleteFunc(d.Added, func(name string) bool { return slices.Contains(join, name) })
	if d.SamePlacement() {
		return
	}
	j.add(Problem{Kind: ErrMismatch, Cause: &MismatchError{d}, Reason: "the configuration and the stored slot map differ: " + d.String(),
		Hint: "name the shards as the map does; a shard joins or leaves by moving slots, not by configuration"})
}

// differ returns how a configuration's shards differ from those of the map.
// Which shard owns a slot is the map's business.
func differ(m *shardmap.Map, shards []Shard) shardmap.Diff {
	names := make([]string, len(shards))
	rows := make([]shardmap.Row, m.Slots())
	for i, s := range shards {
		names[i] = s.Name
	}
	for i := range rows {
		rows[i] = shardmap.Row{Slot: int64(i), Shard: names[0]}
	}
	configured, err := shardmap.NewMap(m.Epoch(), m.Slots(), names, rows)
	if err != nil { // the names were checked before
		panic("metadata: " + err.Error())
	}
	d := m.Diff(configured)
	d.Moves = nil
	return d
}
