package proxy

import (
	"slices"

	"shardproxy/router"
	"shardproxy/wire"
)

// reasonsMax bounds the reasons that are counted.
const reasonsMax = 32

// countRefusal counts an error that a client is told of, if a plan's refusal is its cause, and reports whether it is.
func (d *Database) countRefusal(e *wire.Error) bool {
	reason := router.ReasonOf(e)
	if reason == "" {
		return false
	}
	countBlock(e)
	if i := slices.Index(router.Reasons(), reason); i >= 0 && i < reasonsMax {
		d.stats.refusals[i].Add(1)
	}
	return true
}

// Refusals returns how many requests were refused, by the reason; every reason is there.
func (d *Database) Refusals() map[router.Reason]int64 {
	counts := map[router.Reason]int64{}
	for i, reason := range router.Reasons() {
		counts[reason] = d.stats.refusals[i].Load()
	}
	return counts
}
