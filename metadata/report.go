package metadata

import (
	"fmt"
	"strings"

	"shardproxy/shardmap"
)

// Report says what Init found and did.
type Report struct {
	// DryRun is set when nothing was written: Steps are then what would be.
	DryRun bool
	// Cluster is the home shard's row; without an ID after a dry run for a new
	// cluster.
	Cluster Cluster
	// Map is the map that holds, or after a dry run would hold.
	Map *shardmap.Map
	// Steps are what was done, in order; none when all was there already.
	Steps []Step
	// Warnings are what does not keep the cluster from working.
	Warnings []*Problem
}

// Step is one thing that Init did on a shard, in a transaction of its own.
type Step struct {
	Shard string
	// What is a clause in the past tense, such as "stored the slot map ...".
	What string
}

// String returns the report in lines.
func (r *Report) String() string {
	var b strings.Builder
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "warning: %v\n", w)
	}
	for _, s := range r.Steps {
		if r.DryRun {
			b.WriteString("would have: ")
		}
		fmt.Fprintf(&b, "shard %q: %s\n", s.Shard, s.What)
	}
	if len(r.Steps) == 0 && r.Map != nil {
		b.WriteString("nothing to do: everything is there\n")
	}
	if r.Map != nil {
		fmt.Fprintf(&b, "database %q: %d slots on %d shards, epoch %d\n", r.Cluster.Database, r.Map.Slots(), len(r.Map.Shards()), r.Map.Epoch())
	}
	return b.String()
}
