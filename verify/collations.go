package verify

import (
	"context"
	"fmt"
	"slices"

	"shardproxy/catalog"
)

// collations tells which order text otherwise than on the first shard.
func (c *schemaChecker) collations(ctx context.Context, sessions []*Session) error {
	var home map[string]string
	for i, s := range sessions {
		have, err := catalog.Collations(ctx, s.conn)
		if err != nil {
			return fmt.Errorf("shard %s: %w", s.Shard, err)
		}
		if i == 0 {
			home = have
			continue
		}
		names := catalog.Unlike(home, have)
		slices.Sort(names)
		for _, name := range names {
			c.add(Finding{Severity: Difference, Shard: s.Shard, Kind: "collation", Name: name, How: "version", Home: home[name], Here: have[name],
				Message: fmt.Sprintf("collation %s may order text otherwise than on %s: it is %q here, and %q there", name, c.home.Shard, have[name], home[name])})
		}
	}
	return nil
}
