package proxy

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"shardproxy/router"
)

// What servers said of the texts of a query is known the next time, which saves asking. Definitions
// may have changed behind the proxies' backs: what the shards say beside their rows is compared with
// it, and the query starts again when it is another.

// errStale says that the columns of a text are others than they were.
var errStale = errors.New("the columns are not those that are known")

// scatterKnown is what is known of a way. It is immutable.
type scatterKnown struct {
	client description   // of the client's text
	inputs []description // of the inputs, or of the text that is merged
	types  map[uint32]typeOf
}

// knownScatters are those of the ways that were used last.
type knownScatters struct {
	mu sync.Mutex
	of *simplelru.LRU[knownKey, *scatterKnown]
}

// knownKey names one; types are those of the parameters as the client declared them.
type knownKey struct {
	way   *router.Scatter
	types string
}

// knownMax bounds how many are known.
const knownMax = 1024

func (k *knownScatters) get(key knownKey) *scatterKnown {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil {
		return nil
	}
	found, _ := k.of.Get(key)
	return found
}

// put notes what is known, nil to forget it.
func (k *knownScatters) put(key knownKey, is *scatterKnown) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil {
		k.of, _ = simplelru.NewLRU[knownKey, *scatterKnown](knownMax, nil) // fails for no size only
	}
	if is == nil {
		k.of.Remove(key)
		return
	}
	k.of.Add(key, is)
}

// knownKey is that of the query at hand.
func (c *scattering) knownKey() knownKey {
	var types []byte
	for _, t := range c.values.Types {
		types = binary.BigEndian.AppendUint32(types, t)
	}
	return knownKey{c.way, string(types)}
}

// knows notes what the first shard has said. That of a replica does not stay: it may be older than the catalog that the way
// was found by.
func (c *scattering) knows(key knownKey, is *scatterKnown) {
	c.cached = false
	if !c.onReplicas() {
		c.s.db.known.put(key, is)
	}
}

// sameTypes reports whether columns have the types that are known.
func sameTypes(have, known []rowColumn) bool {
	if len(have) != len(known) {
		return false
	}
	for i := range known {
		if have[i].typ != known[i].typ {
			return false
		}
	}
	return true
}
