package metadata

import (
	"context"

	"github.com/jackc/pgx/v5"

	"shardproxy/shardmap"
)

// Status is what Check found of a cluster that may be served.
type Status struct {
	// Cluster is the home shard's row.
	Cluster Cluster
	// Map is the stored map.
	Map *shardmap.Map
	// Behind names the shards that do not know the map's epoch yet: a change
	// was not spread to all. SpreadEpoch mends it.
	Behind []string
	// Spare names the shards of the configuration that the map does not have: nothing is on them, and nothing was asked of them. There
	// is a warning for each.
	Spare []string
	// Unchecked names the shards that could not be reached; each needs
	// CheckShard before it is used.
	Unchecked []string
	// Warnings are what does not keep the cluster from being served; there is
	// one for each shard of Unchecked.
	Warnings []*Problem
}

// Check compares a configuration with what the shards hold, before a proxy
// serves it, and writes nothing. What Init would refuse is an error here too, but
// for differences between servers that hold rows already (versions,
// collations), which are warnings. A shard that is not reachable is a warning,
// unless it is the home shard.
//
// The error is a *CheckError with everything that is wrong: ErrNotInitialised,
// ErrOtherCluster, ErrMismatch, ErrAhead, ErrVersion and the others.
func Check(ctx context.Context, o Options) (*Status, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	v := look(ctx, o, nil, Version, false)
	defer closeAll(v.conns)
	warnings, err := v.judge.errors()
	if err != nil {
		return nil, err
	}
	v.identity.Rules = v.rules
	s := &Status{Cluster: v.identity, Map: v.judge.stored, Spare: v.spare, Warnings: warnings}
	for _, f := range v.judge.all {
		switch {
		case f.err != nil:
			s.Unchecked = append(s.Unchecked, f.shard)
		case f.epoch < v.judge.stored.Epoch():
			s.Behind = append(s.Behind, f.shard)
		}
	}
	return s, nil
}

// CheckShard is Check for one shard, other than the home shard, that was away
// then: conn leads to its primary, home is Status.Cluster, epoch the newest
// that is known, name what the configuration calls the shard. The epoch that
// the shard knows is returned, 0 when none. The error is a *CheckError.
func CheckShard(ctx context.Context, conn *pgx.Conn, home *Cluster, name string, epoch int64) (int64, error) {
	f := inspect(ctx, name, conn)
	// The home shard was asked before; here it is only who the shard must agree with.
	row := *home
	j := &judge{known: Version, all: []*facts{{shard: home.Home, version: newest * 10000, row: &row, epoch: epoch}, f}}
	if f.err != nil {
		p := *asked(name, "ask its server", f.err)
		p.Shard = name
		j.add(p)
	} else {
		j.settings(f)
		j.rights(f)
		want := *home
		want.Shard = name
		j.member(1, f, want)
	}
	_, err := j.errors()
	return f.epoch, err
}
