package shardmap

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
)

// RangeEntry gives the keys from From up to, but without, To to a shard.
type RangeEntry struct {
	Shard string
	// From and To are texts of the key's type; nil means no bound.
	From, To *string
}

// String prints the entry's bounds as "[a, b)".
func (e RangeEntry) String() string {
	bound := func(b *string) string {
		if b == nil {
			return "unbounded"
		}
		return fmt.Sprintf("%q", *b)
	}
	return fmt.Sprintf("[%s, %s) of %q", bound(e.From), bound(e.To), e.Shard)
}

// Ranges places a table's rows by ranges of its key. It never changes.
type Ranges struct {
	key      KeyType
	shards   []string
	ranges   []keyRange // by from, disjoint
	fallback int        // index into shards, or noShard
	byBytes  bool
}

// keyRange is a range of sort keys. No key is below the empty one.
type keyRange struct {
	from, to  string
	unbounded bool // to does not count
	shard     int  // index into Ranges.shards
	entry     RangeEntry
}

// endsBefore reports whether the range holds no key at or above key.
func (r keyRange) endsBefore(key string) bool { return !r.unbounded && r.to <= key }

// RangeOptions says what NewRanges cannot know from the entries.
type RangeOptions struct {
	// Default is the shard of keys that no range holds, or "" for none.
	Default string
	// TextByBytes says that the column's collation orders by bytes (C, POSIX,
	// C.UTF-8). Without it a span of texts may touch every shard; single
	// values are placed by their bytes in any case.
	TextByBytes bool
}

// NewRanges makes a range placement. shards are all shards of the database. The
// error is a *PlacementError that names all problems.
func NewRanges(k KeyType, shards []string, entries []RangeEntry, o RangeOptions) (*Ranges, error) {
	r := newPlacementReader(k, shards)
	p := &Ranges{key: k, shards: slices.Clone(shards), byBytes: k != Text || o.TextByBytes}
	for _, e := range entries {
		kr := keyRange{shard: r.shard(e.Shard), unbounded: e.To == nil, entry: e}
		ok := true
		if e.From != nil {
			kr.from, ok = r.value(*e.From)
		}
		if e.To != nil {
			var okTo bool
			kr.to, okTo = r.value(*e.To)
			ok = ok && okTo
		}
		if ok && kr.endsBefore(kr.from) {
			r.add("range %s is empty", e)
			ok = false
		}
		if ok {
			p.ranges = append(p.ranges, kr)
		}
	}
	p.fallback = r.defaultShard(o.Default)
	slices.SortStableFunc(p.ranges, func(a, b keyRange) int { return cmp.Compare(a.from, b.from) })
	r.overlaps(p.ranges)
	if len(p.ranges) == 0 && o.Default == "" && len(r.problems) == 0 {
		r.add("there are no ranges and no default")
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// overlaps reports every range that begins before an earlier one has ended.
func (r *placementReader) overlaps(ranges []keyRange) {
	furthest := 0
	for i := 1; i < len(ranges); i++ {
		if !ranges[furthest].endsBefore(ranges[i].from) {
			r.add("range %s overlaps range %s", ranges[i].entry, ranges[furthest].entry)
		}
		if f := ranges[furthest]; !f.unbounded && (ranges[i].unbounded || ranges[i].to > f.to) {
			furthest = i
		}
	}
}

// Place returns the shard of a value. Errors: *UnplacedError, *ValueError, or
// ErrUnproven (also for a type that does not colocate with the key's).
func (p *Ranges) Place(v Value) (string, error) {
	var buf [64]byte
	key, err := v.sortKey(buf[:0], p.key)
	if err != nil {
		return "", err
	}
	shard := p.fallback
	after := sort.Search(len(p.ranges), func(i int) bool { return p.ranges[i].from > string(key) })
	if after > 0 && !(p.ranges[after-1].endsBefore(string(key))) {
		shard = p.ranges[after-1].shard
	}
	if shard == noShard {
		return "", unplaced(p.key, v)
	}
	return p.shards[shard], nil
}

// Touched appends to dst the shards that may hold keys of a span, each once, and
// returns it; none when no key can be in the span. A text span touches all of them
// unless RangeOptions says that the collation orders by bytes. It allocates only to
// grow dst.
func (p *Ranges) Touched(dst []string, s *Span) []string {
	switch {
	case s.none:
		return dst
	case !p.byBytes:
		return p.touched(dst, p.ranges, true)
	case s.Empty():
		return dst
	}
	begin := 0
	for begin < len(p.ranges) && p.ranges[begin].endsBefore(string(s.lo)) {
		begin++
	}
	end, gap := begin, false
	for ; end < len(p.ranges) && !(s.below && p.ranges[end].from >= string(s.hi)); end++ {
		if from := p.ranges[end].from; end == begin {
			gap = from > string(s.lo)
		} else {
			gap = gap || from > p.ranges[end-1].to
		}
	}
	if end == begin {
		return p.touched(dst, nil, true)
	}
	last := &p.ranges[end-1]
	return p.touched(dst, p.ranges[begin:end], gap || !last.unbounded && (!s.below || last.to < string(s.hi)))
}

// touched appends the shards of ranges, and the default's for keys that none of them holds.
func (p *Ranges) touched(dst []string, ranges []keyRange, gap bool) []string {
	from := len(dst)
	add := func(shard int) {
		if name := p.shards[shard]; !slices.Contains(dst[from:], name) {
			dst = append(dst, name)
		}
	}
	for i := range ranges {
		add(ranges[i].shard)
	}
	if gap && p.fallback != noShard {
		add(p.fallback)
	}
	return dst
}

// Shards returns the shards that may hold rows, sorted.
func (p *Ranges) Shards() []string {
	names := p.touched(nil, p.ranges, true)
	slices.Sort(names)
	return names
}
