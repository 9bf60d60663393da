package shardmap

import "slices"

// ListEntry names the values that live on one shard.
type ListEntry struct {
	Shard  string
	Values []string // as the configuration has them: texts of the key's type
}

// List places a table's rows by the values of its key. It never changes.
type List struct {
	key      KeyType
	shards   []string
	byKey    map[string]int // sort key -> index into shards
	fallback int            // index into shards, or noShard
}

// NewList makes a list placement. shards are all shards of the database;
// fallback is the shard of values that no entry names, or "" for none. The error
// is a *PlacementError that names all problems.
func NewList(k KeyType, shards []string, entries []ListEntry, fallback string) (*List, error) {
	r := newPlacementReader(k, shards)
	l := &List{key: k, shards: slices.Clone(shards), byKey: map[string]int{}}
	for _, e := range entries {
		shard := r.shard(e.Shard)
		for _, text := range e.Values {
			key, ok := r.value(text)
			if !ok {
				continue
			}
			if other, twice := l.byKey[key]; twice {
				r.add("value %q is listed twice: for %s and for %q", text, l.name(other), e.Shard)
				continue
			}
			l.byKey[key] = shard
		}
	}
	l.fallback = r.defaultShard(fallback)
	if len(l.byKey) == 0 && fallback == "" && len(r.problems) == 0 {
		r.add("the list is empty and has no default")
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *List) name(shard int) string {
	if shard == noShard {
		return "an unknown shard"
	}
	return "\"" + l.shards[shard] + "\""
}

// Place returns the shard of a value. Errors: *UnplacedError, *ValueError, or
// ErrUnproven (also for a type that does not colocate with the key's).
func (l *List) Place(v Value) (string, error) {
	var buf [64]byte
	key, err := v.sortKey(buf[:0], l.key)
	if err != nil {
		return "", err
	}
	shard, ok := l.byKey[string(key)]
	if !ok {
		shard = l.fallback
	}
	if shard == noShard {
		return "", unplaced(l.key, v)
	}
	return l.shards[shard], nil
}

// Shards returns the shards that may hold rows, sorted.
func (l *List) Shards() []string {
	var names []string
	for _, shard := range l.byKey {
		names = append(names, l.shards[shard])
	}
	if l.fallback != noShard {
		names = append(names, l.shards[l.fallback])
	}
	slices.Sort(names)
	return slices.Compact(names)
}
