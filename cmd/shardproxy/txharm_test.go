package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// txHarm is something that happens to a stage while it is in use.
type txHarm struct {
	name string
	do   func(s *txStage, r *rand.Rand)
}

// cutWires breaks all connections of a proxy to a shard.
func cutWires() txHarm {
	return txHarm{"cut", func(s *txStage, r *rand.Rand) { s.wires[r.IntN(2)][r.IntN(len(s.shards))].KillAll() }}
}

// killProxy kills a proxy and starts it again.
func killProxy() txHarm {
	return txHarm{"kill of a proxy", func(s *txStage, r *rand.Rand) {
		i := r.IntN(2)
		s.kill(i)
		s.restart(i)
	}}
}

// crashServer kills a shard's server and starts it again.
func crashServer() txHarm {
	return txHarm{"crash of a server", func(s *txStage, r *rand.Rand) {
		n := s.shards[r.IntN(len(s.shards))].Primary()
		n.Kill9()
		n.Start()
	}}
}

// harm does harm, one thing after the other, until ctx ends: one each half second or
// so, times pace. It returns what it did.
func (s *txStage) harm(ctx context.Context, r *rand.Rand, pace time.Duration, list ...txHarm) string {
	counts := map[string]int{}
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			var all []string
			for _, h := range list {
				if n := counts[h.name]; n > 0 {
					all = append(all, fmt.Sprintf("%s: %d", h.name, n))
					delete(counts, h.name)
				}
			}
			return strings.Join(all, ", ")
		case <-time.After(pace * time.Duration(400+r.IntN(600)) * time.Millisecond):
			h := list[i%len(list)]
			counts[h.name]++
			h.do(s, r)
		}
	}
}
